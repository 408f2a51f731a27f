"""Show a model's paper, description, published figures and known deviations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import typer

from resnetcli.cli.app import (
    ExplainColumns,
    Formats,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import complete_model
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command("info", epilog=examples("info googlenet", "info resnet50 --yaml > my_model.yaml"))
@guarded
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Zoo name (see `list`) or spec.yaml.", autocompletion=complete_model)
    ],
    source: Annotated[bool, typer.Option("--yaml", help="Print the YAML spec.")] = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Show a model's paper, description, published figures and known deviations."""
    import resnetcli.reports.info as report
    from resnetcli.reports.info import info_record, info_sheet
    from resnetcli.reports.profile_table import published_sheet
    from resnetcli.table.output import write_verbatim
    from resnetcli.table.sheet import to_rich

    found = report.info(model)
    for option, used in (("--format", format is not TABLE), ("--explain-columns", explain_columns)):
        if source and used:
            raise UsageError("`--yaml` prints the spec as it is", f"omit `{option}`")
    if source:
        write_verbatim(report.starter(found.source))
        return

    def sections() -> Iterator[Section]:
        yield Section(info_sheet(found), draw=lambda width: [to_rich(info_sheet(found, width))])
        if (published := published_sheet(found.profile)) is not None:
            yield Section(published)

    output = Output(
        lambda: info_record(found), sections, lambda: [info_sheet(found, figures=True)], explain_columns=explain_columns
    )
    print_output(output, format)
