"""Check published figures against computed ones."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    complain,
    end_failed,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command("verify", epilog=examples("verify", 'verify "resnet*" --format csv'))
@guarded
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Zoo names, globs or spec.yaml. \\[default: the whole zoo]",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:  # fmt: skip
    """Check published figures against computed ones; exit 1 on an unexplained mismatch."""
    import resnetcli.reports.verify as report
    from resnetcli.reports.verify import verification_lines, verification_sheet, verify_record
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    asked = asked_models(models or [], zoo)
    for name, settings in asked:
        if settings:
            raise UsageError(f"published figures are for the default parameters of `{name}`", "omit NAME=VALUE")
    found = report.verify(*(name for name, _ in asked), zoo=zoo)
    output = Output(
        lambda: verify_record(found),
        lambda: [Section(verification_sheet(found), after=verification_lines(found))],
        failures=found.failed, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    for fault in found.faults:
        complain(fault)
    end_failed(found.failed)
    if found.faults:
        raise typer.Exit(1)
