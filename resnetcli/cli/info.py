"""Show a model's paper, description, published figures and known deviations."""

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
from resnetcli.cli.arguments import complete_model
from resnetcli.errors import UsageError

if TYPE_CHECKING:
    pass


app = typer.Typer(add_completion=False)


@app.command("info", epilog=examples("info googlenet", "info resnet50 --yaml > my_model.yaml"))
@guarded
def info(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Zoo name (see `list`) or spec.yaml.", autocompletion=complete_model)
    ],
    source: Annotated[bool, typer.Option("--yaml", help="Print the YAML spec.")] = False,
    format: Formats = Format.table,
) -> None:
    """Show a model's paper, description, published figures and known deviations."""
    import resnetcli.reports.info as report
    from resnetcli.reports.info import info_record, info_sheet
    from resnetcli.reports.profile_table import published_sheet
    from resnetcli.table.output import print_json, text_width, write_verbatim

    found = report.info(model)
    if source and format is not Format.table:
        raise UsageError("`--yaml` prints the file itself", "leave `--format` out")
    if source:
        write_verbatim(report.starter(found.source))
    elif format is Format.json:
        print_json(info_record(found))
    else:
        width = text_width() if format is Format.table else None
        print_sheet(info_sheet(found, width, figures=format is Format.csv), format)
        if format is not Format.csv and (published := published_sheet(found.profile)) is not None:
            print_sheet(published, format, below=True)
