"""Print architecture tables side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Flops,
    Formats,
    Input,
    Models,
    end_failed,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models
from resnetcli.table.formats import TABLE, Output, Section

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
def show(
    models: Models,
    input: Input = None,
    flops: Flops = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Print architecture tables side by side (like Table 1 of the ResNet paper)."""
    from resnetcli.reports.show import show_record, table1_pages, table1_sheet

    profiles, failures = _profiles(models, input)
    output = Output(
        lambda: show_record(profiles),
        lambda: [Section(
            table1_sheet(profiles, flops=flops), notes=["counted for one image; papers call MACs FLOPs"],
            draw=lambda width: table1_pages(profiles, width, flops=flops),
        )],
        failures=failures, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
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
