"""Print architecture tables side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from resnetcli.cli.app import (
    Batch,
    Flops,
    Format,
    Formats,
    Input,
    Models,
    end_failed,
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


@app.command("show")
@guarded
def show(models: Models, input: Input = None, batch: Batch = 1, flops: Flops = False, format: Formats = Format.table,
         ) -> None:  # fmt: skip
    """Show nets side by side as the papers' Table 1."""
    from resnetcli.reports.show import show_record, table1_pages, table1_sheet
    from resnetcli.table.output import console, print_table, print_texts, write
    from resnetcli.table.sheet import to_markdown

    profiles, failures = _profiles(models, input, batch)
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
            per = "one image" if batch == 1 else f"one image; times {batch} for the batch"
            print_texts([f"counted for {per}; papers call MACs FLOPs"], style="dim")
            print_lines(failed_lines(failures, format), format)
    end_failed(failures)


def _profiles(
    words: list[str], input: list[str] | None, batch: int
) -> tuple[tuple[Profile, ...], tuple[ModelFailure, ...]]:
    from resnetcli.failures import for_each
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    found, failures = for_each(
        asked_models(words, zoo),
        lambda name, given: profile_model(name, given, input=input, batch=batch, zoo=zoo),
    )
    return tuple(found), tuple(failures)
