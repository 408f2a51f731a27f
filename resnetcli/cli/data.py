"""The `data` commands: download, validate and convert datasets."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from resnetcli.cli.app import (
    DATA_CACHE,
    ExplainColumns,
    Formats,
    complain,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.group import CommandGroup
from resnetcli.errors import plural
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(
    name="data",
    add_completion=False,
    cls=CommandGroup,
    no_args_is_help=True,
    help="Download, validate and convert datasets.",
)


class DatasetName(StrEnum):
    """Datasets that can be downloaded."""

    cifar10 = "cifar10"
    cifar100 = "cifar100"


@app.command("fetch", epilog=examples("data fetch", "data fetch cifar100 --data-dir ~/datasets"))
@guarded
def fetch(
    name: Annotated[
        DatasetName, typer.Argument(metavar="[NAME]", help="Dataset to download: cifar10 or cifar100.")
    ] = DatasetName.cifar10,
    python: Annotated[bool, typer.Option("--python", help="Download the Python (pickle) version.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--data-dir", metavar="DIR", help=f"Target directory. \\[default: {DATA_CACHE}]"),
    ] = None,
) -> None:
    """Download CIFAR-10/100 (resumable) and print its path."""
    from resnetcli.data.cifar import OFFICIAL
    from resnetcli.data.fetch import fetch as fetch_archive
    from resnetcli.data.read import default_folder
    from resnetcli.table.output import print_whole

    layout = OFFICIAL[name.value].layout("python" if python else "binary")
    print_whole(str(fetch_archive(layout.archive, folder or default_folder(), log=complain)))


@app.command(
    "check", epilog=examples("data check ~/datasets/cifar-10-binary.tar.gz", "data check photos --format json")
)
@guarded
def check(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="Dataset directory or original archive.")],
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Validate a dataset and print its statistics; exit 1 if corrupt."""
    from resnetcli.data.check import check_datasets, data_record
    from resnetcli.data.errors import DataError
    from resnetcli.data.table import data_heading, data_notes, data_sheet, data_warnings

    try:
        reports = check_datasets(path)
    except DataError as error:
        complain(str(error))
        raise typer.Exit(1) from None
    output = Output(
        lambda: data_record(reports),
        lambda: (
            Section(data_sheet((report,), total=True), data_heading(report), notes=data_notes(report))
            for report in reports
        ),
        lambda: [data_sheet(reports)],
        explain_columns=explain_columns,
    )
    print_output(output, format)
    for report in reports:
        for warning in data_warnings(report.data):
            complain(f"warning: {warning}")
        if not report.is_sound:
            complain(f"`{report.path}` is not the published {report.data.title}")
    if not all(report.is_sound for report in reports):
        raise typer.Exit(1)


@app.command(
    "convert", epilog=examples("data convert photos.npz photos", "data convert cifar-10-batches-py cifar10 --test 0.2")
)
@guarded
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="CIFAR's Python version, or a .npz file with images and labels.")
    ],
    target: Annotated[Path, typer.Argument(metavar="DEST", help="Output directory (must not exist).")],
    share: Annotated[
        float,
        typer.Option("--test", metavar="SHARE", help="Test fraction per class, if the .npz has no test set."),
    ] = 0.2,
) -> None:
    """Convert a .npz or CIFAR pickles for `train-cifar --data custom --data-dir DEST`."""
    from resnetcli.data.convert import convert as convert_dataset
    from resnetcli.data.table import data_warnings
    from resnetcli.table.output import print_whole

    data = convert_dataset(source, target, share=share, log=lambda line: complain(f"warning: {line}"))
    images = f"{len(data.train):,} for training, {len(data.test):,} for testing"
    print_whole(f"{target}: {data.text}: {images}; {plural(data.classes, 'class', 'classes')}")
    for warning in data_warnings(data):
        complain(f"warning: {warning}")
