"""List the models of the zoo."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    end_failed,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import complete_model
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command("list", epilog=examples("list", "list resnext", 'list "cifar_*" --format csv'))
@guarded
def list_models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Name substring or glob.",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:  # fmt: skip
    """List available models."""
    from resnetcli.reports.listing import list_record, listing, listing_note, listing_sheet

    found = listing(*(patterns or []))
    output = Output(
        lambda: list_record(found),
        lambda: [Section(listing_sheet(found), notes=[listing_note(found)])],
        failures=found.failed, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(found.failed)
