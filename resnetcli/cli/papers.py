"""Show results tables from papers next to computed figures."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    examples,
    guarded,
    print_output,
)
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

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
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Show results tables from papers next to computed figures."""
    from resnetcli.reports.papers import (
        figures_sheet,
        list_paper_tables,
        paper_notes,
        paper_sheet,
        paper_tables,
        papers_record,
        tables_sheet,
    )

    if only_list and not format.has_tables:
        raise UsageError("`--list` cannot be used with `--format json`", "omit `--list`")
    words = table or []
    if only_list:
        listed = tables_sheet(list_paper_tables(*words))
        output = Output(dict, lambda: [Section(listed)])
    else:
        tables = paper_tables(*words)
        output = Output(
            lambda: papers_record(tables),
            lambda: (Section(paper_sheet(entry), [entry.heading], paper_notes(entry)) for entry in tables),
            data=lambda: [figures_sheet(tables)],
        )
    print_output(replace(output, explain_columns=explain_columns), format)
