"""Show how two models differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    Input,
    examples,
    guarded,
    print_lines,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError

if TYPE_CHECKING:
    pass


app = typer.Typer(add_completion=False)


@app.command(
    "diff",
    epilog=examples(
        "diff resnet50 resnext50_32x4d",
        "diff resnext50_32x4d resnext50_32x4d C=8 d=14",
        "diff old.yaml new.yaml --exit-code",
    ),
)
@guarded
def diff(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [NAME=VALUE]... MODEL [NAME=VALUE]...",
            help="Two models: zoo name (see `list`) or spec.yaml. NAME=VALUE sets a parameter of the preceding model.",
            autocompletion=complete_model,
        ),
    ],
    input: Input = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if the models differ.")] = False,
    format: Formats = Format.table,
) -> None:
    """Show how two models differ, stage by stage, and the cost of each change."""
    import resnetcli.reports.diff as report
    from resnetcli.reports.diff import diff_record
    from resnetcli.reports.diff_table import diff_heading, diff_notes, diff_sheet, no_difference, totals_sheet
    from resnetcli.spec.zoo import Zoo
    from resnetcli.table.output import print_json

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 2:
        raise UsageError(f"`diff` takes two models, not {len(asked)}", "for example `resnet-cli diff vgg16 vgg19`")
    found = report.diff(*asked, input=input, zoo=zoo)
    if format is Format.json:
        print_json(diff_record(found))
    elif found.differs or format is Format.csv:
        print_sheet(diff_sheet(found), format, diff_heading(found), (), diff_notes(found))
        if format is not Format.csv:
            print_sheet(totals_sheet(found), format, below=True)
    else:
        print_lines([no_difference(found)], format)
    if exit_code and found.differs:
        raise typer.Exit(1)
