"""The command that draws how training went."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    complain,
    end_failed,
    examples,
    failed_lines,
    guarded,
    print_record,
    print_sheet,
)

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
    format: Formats = Format.table,
) -> None:
    """Plot training and test error of one or more runs (also while running)."""
    from resnetcli.files import check_writable
    from resnetcli.runs.curves import curves_record, read_curves
    from resnetcli.runs.curves_plot import csv_text, draw, require_suffix, require_top
    from resnetcli.table.output import write

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
    if format is Format.json:
        print_record(curves_record(found), found.failed)
    elif format is Format.csv:
        for text in csv_text(found.curves):
            write(text)
    else:
        _print(found, y_max, format, plotted=out is None)
    end_failed(found.failed)


def _print(found: Curves, y_max: float | None, format: Format, *, plotted: bool) -> None:
    """The plot, unless it went into a file, and the last errors."""
    import shutil
    import sys

    from rich.text import Text

    from resnetcli.runs.curves_plot import encodes_braille, key_lines, notes, sheet, text_plot
    from resnetcli.table.output import console, write

    if plotted:
        ascii_only = not encodes_braille(sys.stdout.encoding)
        drawn = text_plot(found.curves, shutil.get_terminal_size().columns, y_max, ascii_only=ascii_only)
        if format is Format.md:
            lines = ["".join(text for text, _ in line).rstrip() for line in drawn]
            write("\n".join(["```text", *lines, "```", "", ""]))
        else:
            screen = console()
            for line in drawn:
                text = Text.assemble(*line)
                text.rstrip()
                screen.print(text, no_wrap=True, overflow="ignore", crop=False)
    after = [*(key_lines(found.curves) if plotted else []), *failed_lines(found.failed)]
    print_sheet(sheet(found.curves, letters=plotted), format, (), after, notes(found.curves), below=plotted)
