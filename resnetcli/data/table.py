"""A data set as a person reads it: what it is, and how many images each class has."""

from __future__ import annotations

from resnetcli.data.check import Examined, label_counts
from resnetcli.data.dataset import Dataset
from resnetcli.errors import clean, plural
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Column, Sheet, cell

NAMED = 5
"""Classes that a warning names."""


def data_warnings(data: Dataset) -> list[str]:
    """A sentence if there are classes that no image is of."""
    empty = [clean(name, 100) for name, train, test in label_counts(data) if not train + test]
    if not empty:
        return []
    more = f" and {len(empty) - NAMED:,} more" if len(empty) > NAMED else ""
    names = ", ".join(f"`{name}`" for name in empty[:NAMED])
    return [f"{plural(len(empty), 'class has', 'classes have')} no image: {names}{more}"]


def data_heading(found: Examined) -> list[str]:
    """What it is, from where, and the figures of the whole."""
    data = found.data
    channels, height, width = data.image
    return [
        f"{data.text}   {found.form}   {clean(found.path)}",
        f"{plural(len(data.train), 'image')} to train and {exact(len(data.test))} to test with, "
        f"{channels} x {height} x {width}, {plural(data.classes, 'class', 'classes')}",
        f"mean {_figures(found.mean)}, standard deviation {_figures(found.std)} (training images, 0 to 1)",
        f"digest {data.digest}",
    ]


def data_notes(found: Examined) -> list[str]:
    """How far it is known to be what it is called."""
    if found.data.verified:
        return ["the bytes are the published ones"]
    if found.data.name == "custom":
        return []
    if found.checkable:
        return [f"not the published {found.data.title}: the size is the same, the bytes are not"]
    return ["no digest of the extracted files is published: only the archive can be verified"]


def export_sheet(found: tuple[Examined, ...]) -> Sheet:
    """Images by class of all the sets, for programs."""
    sheets = [data_sheet(each) for each in found]
    return Sheet(sheets[0].columns, tuple(row for sheet in sheets for row in sheet.rows))


def data_sheet(found: Examined) -> Sheet:
    """Images by class."""
    columns = (
        Column("set", "set", "left", shown=False),
        Column("class", "class", "left", "bold"),
        Column("train", "train"),
        Column("test", "test"),
    )
    data = found.data
    rows = tuple(
        (cell(data.name), cell(clean(name, 100)), cell(train, exact(train)), cell(test, exact(test)))
        for name, train, test in label_counts(data)
    )
    train, test = len(data.train), len(data.test)
    total = (cell(data.name), cell("total"), cell(train, exact(train)), cell(test, exact(test)))
    return Sheet(columns, rows, total)


def _figures(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)
