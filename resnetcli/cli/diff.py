"""Show how two models differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    Input,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

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
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Show how two models differ, stage by stage, and the cost of each change."""
    import resnetcli.reports.diff as report
    from resnetcli.reports.diff import diff_record
    from resnetcli.reports.diff_table import diff_heading, diff_notes, diff_sheet, no_difference, totals_sheet
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 2:
        raise UsageError(f"`diff` takes two models, not {len(asked)}", "for example `resnet-cli diff vgg16 vgg19`")
    result = report.diff(*asked, input=input, zoo=zoo)

    def sections() -> Iterator[Section]:
        if not result.differs:
            yield Section(before=[no_difference(result)])
            return
        yield Section(diff_sheet(result), diff_heading(result), (), diff_notes(result))
        yield Section(totals_sheet(result))

    output = Output(
        lambda: diff_record(result), sections, lambda: [diff_sheet(result)], explain_columns=explain_columns
    )  # fmt: skip
    print_output(output, format)
    if exit_code and result.differs:
        raise typer.Exit(1)
