"""Print architecture tables side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from resnetcli.cli.app import (
    Flops,
    Format,
    Formats,
    Input,
    Models,
    end_failed,
    examples,
    failed_lines,
    guarded,
    print_lines,
    print_record,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models

if TYPE_CHECKING:
    from resnetcli.failures import ModelFailure
    from resnetcli.reports.profile import Profile


app = typer.Typer(add_completion=False)


@app.command(
    "show",
    epilog=examples(
        "show resnet50 resnext50_32x4d", "show resnet18 resnet34 --format md", "show my_model.yaml --input 3x320x320"
    ),
)
@guarded
def show(models: Models, input: Input = None, flops: Flops = False, format: Formats = Format.table,
         ) -> None:  # fmt: skip
    """Print architecture tables side by side (like Table 1 of the ResNet paper)."""
    from resnetcli.reports.show import show_record, table1_pages, table1_sheet
    from resnetcli.table.output import console, print_table, print_texts, write
    from resnetcli.table.sheet import to_markdown

    profiles, failures = _profiles(models, input)
    match format:
        case Format.json:
            print_record(show_record(profiles), failures)
        case Format.csv:
            print_sheet(table1_sheet(profiles, flops=flops), format, failures=failures)
        case Format.md:
            write(to_markdown(table1_sheet(profiles, flops=flops)))
            print_lines(failed_lines(failures, format), format)
        case Format.table:
            for table in table1_pages(profiles, console().width, flops=flops):
                print_table(table)
            print_texts(["counted for one image; papers call MACs FLOPs"], style="dim")
            print_lines(failed_lines(failures, format), format)
    end_failed(failures)


def _profiles(words: list[str], input: list[str] | None) -> tuple[tuple[Profile, ...], tuple[ModelFailure, ...]]:
    from resnetcli.failures import for_each
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    found, failures = for_each(
        asked_models(words, zoo),
        lambda name, given: profile_model(name, given, input=input, zoo=zoo),
    )
    return tuple(found), tuple(failures)
