"""Show results tables from papers next to computed figures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    examples,
    guarded,
    print_sheet,
)
from resnetcli.errors import UsageError

if TYPE_CHECKING:
    pass


app = typer.Typer(add_completion=False)


@app.command("papers", epilog=examples("papers resnet table 6", "papers wrn --format csv", "papers --list"))
@guarded
def papers(
    table: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[TABLE]", help="Paper or table, e.g. `resnet table 3`, `1611.05431`, `wrn`. \\[default: all]"
        ),
    ] = None,
    only_list: Annotated[bool, typer.Option("--list", help="List available tables.")] = False,
    format: Formats = Format.table,
) -> None:
    """Show results tables from papers next to computed figures."""
    from resnetcli.reports.papers import (
        figures_sheet,
        paper_notes,
        paper_sheet,
        paper_tables,
        papers_record,
        tables_sheet,
    )
    from resnetcli.table.output import print_json

    if only_list and format is Format.json:
        raise UsageError("`--list` is not for JSON", "without it, the JSON has every table")
    found = paper_tables(*(table or []))
    if format is Format.json:
        print_json(papers_record(found))
    elif only_list:
        print_sheet(tables_sheet(found), format)
    elif format is Format.csv:
        print_sheet(figures_sheet(found), format)
    else:
        for number, each in enumerate(found):
            print_sheet(paper_sheet(each), format, [each.heading], paper_notes(each), below=number > 0)
