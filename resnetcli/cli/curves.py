"""The command that draws how training went."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.runs.curves import Curves


app = typer.Typer(add_completion=False)


@app.command(
    "curves",
    epilog=examples(
        "curves runs/cifar_resnet56-cifar10-seed0",
        "curves runs/* -o curves.png",
        "curves runs/* --format csv > curves.csv",
    ),
)
@guarded
def curves(
    runs: Annotated[list[str], typer.Argument(metavar="RUN...", help="Run directories.")],
    out: Annotated[
        str | None, typer.Option("--out", "-o", metavar="FILE", help="Write to a .png or .svg instead of the terminal.")
    ] = None,
    y_max: Annotated[
        float | None,
        typer.Option("--y-max", metavar="PERCENT", help="Upper limit of the y axis in percent."),
    ] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Plot training and test error of one or more runs (also while running)."""
    from resnetcli.files import check_writable
    from resnetcli.runs.curves import curves_record, read_curves
    from resnetcli.runs.curves_plot import draw, points_sheet, require_suffix, require_top

    require_top(y_max)
    if out is not None:
        check_writable(out, "-o")
        require_suffix(Path(out))
    found = read_curves(runs)
    for note in found.notes:
        complain(f"warning: {note}")
    if out is not None:
        draw(found, Path(out), y_max)
        complain(f"drawn: {out}")
    output = Output(
        lambda: curves_record(found),
        lambda: [_section(found, y_max, plotted=out is None)],
        lambda: map(points_sheet, found.curves),
        failures=found.failed, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(found.failed)


def _section(found: Curves, y_max: float | None, *, plotted: bool) -> Section:
    """The plot, unless it went into a file, and the last errors."""
    import shutil
    import sys

    from resnetcli.runs.curves_plot import encodes_braille, key_lines, notes, sheet, text_plot

    table = Section(sheet(found.curves, letters=plotted), notes=notes(found.curves, y_max))
    if not plotted:
        return table
    ascii_only = not encodes_braille(sys.stdout.encoding)
    plot = text_plot(found.curves, shutil.get_terminal_size().columns, y_max, ascii_only=ascii_only)
    return replace(table, plot=plot, after=key_lines(found.curves))
