"""List the models of the zoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    end_failed,
    examples,
    guarded,
    print_record,
    print_sheet,
)
from resnetcli.cli.arguments import complete_model

if TYPE_CHECKING:
    pass


app = typer.Typer(add_completion=False)


@app.command("list", epilog=examples("list", "list resnext", 'list "cifar_*" --format csv'))
@guarded
def list_models(
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="[PATTERN]...", help="Name substring or glob.",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """List available models."""
    from resnetcli.reports.listing import list_record, listing, listing_note, listing_sheet

    found = listing(*(patterns or []))
    if format is Format.json:
        print_record(list_record(found), found.failed)
    else:
        print_sheet(listing_sheet(found), format, notes=[listing_note(found)], failures=found.failed)
    end_failed(found.failed)
