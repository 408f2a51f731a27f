"""Commands about data sets: fetch one, look at one, write one of one's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    complain,
    guarded,
    print_sheet,
)
from resnetcli.cli.group import Group
from resnetcli.errors import plural

app = typer.Typer(
    name="data",
    add_completion=False,
    cls=Group,
    no_args_is_help=True,
    help="Data sets: fetch CIFAR, check a set, write one's own.",
)


class Sets(StrEnum):
    """What can be fetched."""

    cifar10 = "cifar10"
    cifar100 = "cifar100"


@app.command()
@guarded
def fetch(
    name: Annotated[Sets, typer.Argument(help="Which.")] = Sets.cifar10,
    python: Annotated[bool, typer.Option("--python", help="The Python version, not the binary one.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help="Where to; without it the cache that training looks into."),
    ] = None,
) -> None:
    """Fetch CIFAR from its host or a mirror, going on where it broke off, and print where it is."""
    from resnetcli.data.cifar import OFFICIAL
    from resnetcli.data.fetch import fetch as fetch_archive
    from resnetcli.data.read import default_folder
    from resnetcli.table.output import print_whole

    layout = OFFICIAL[name.value].layout("python" if python else "binary")
    print_whole(str(fetch_archive(layout.archive, folder or default_folder(), log=complain)))


@app.command()
@guarded
def check(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A folder, or an archive as it is published.")],
    format: Formats = Format.table,
) -> None:
    """Read a data set whole and say what it is: exit 1 if it is broken, or not what it is called."""
    from resnetcli.data.check import data_record, examine
    from resnetcli.data.errors import DataError
    from resnetcli.data.table import data_heading, data_notes, data_sheet, data_warnings, export_sheet
    from resnetcli.table.output import print_json

    try:
        found = examine(path)
    except DataError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    if format is Format.json:
        print_json(data_record(found))
    elif format is Format.csv:
        print_sheet(export_sheet(found), format)
    else:
        for number, each in enumerate(found):
            print_sheet(data_sheet(each), format, data_heading(each), (), data_notes(each), below=number > 0)
    for each in found:
        for warning in data_warnings(each.data):
            complain(f"warning: {warning}")
        if not each.is_sound:
            complain(f"`{each.path}` is not {each.data.title} as it is published")
    if not all(each.is_sound for each in found):
        raise typer.Exit(1)


@app.command()
@guarded
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="CIFAR's Python version, or a .npz file with images and labels.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="A new folder.")],
    share: Annotated[
        float,
        typer.Option("--test", metavar="SHARE", help="Of a .npz without test images, so much of each class."),
    ] = 0.2,
) -> None:
    """Write a data set as binary records, which training reads with `--data-dir`."""
    from resnetcli.data.convert import convert as convert_set
    from resnetcli.data.table import data_warnings
    from resnetcli.table.output import print_whole

    made = convert_set(source, target, share=share, log=lambda line: complain(f"warning: {line}"))
    images = f"{plural(len(made.train), 'image')} to train and {len(made.test):,} to test with"
    print_whole(f"{target}: {made.text}, {images}, {plural(made.classes, 'class', 'classes')}")
    for warning in data_warnings(made):
        complain(f"warning: {warning}")
