"""Statistics of a dataset as text and tables: the output of `data check`."""

from __future__ import annotations

from typing import NamedTuple

from resnetcli.data.check import DatasetReport, label_counts
from resnetcli.data.dataset import Dataset
from resnetcli.errors import clean, plural
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Sheet

MAX_NAMED = 5
"""Classes that a warning names."""


def data_warnings(data: Dataset) -> list[str]:
    """Classes without images."""
    empty = [clean(name, 100) for name, train, test in label_counts(data) if not train + test]
    if not empty:
        return []
    more = f" and {len(empty) - MAX_NAMED:,} more" if len(empty) > MAX_NAMED else ""
    names = ", ".join(f"`{name}`" for name in empty[:MAX_NAMED])
    return [f"{plural(len(empty), 'class has', 'classes have')} no image: {names}{more}"]


def data_heading(report: DatasetReport) -> list[str]:
    """The dataset, its files, size and statistics."""
    data = report.data
    channels, height, width = data.image
    return [
        f"{data.text}   {report.form}   {clean(report.path)}",
        f"{plural(len(data.train), 'training image')} and {plural(len(data.test), 'test image')}, "
        f"{channels} x {height} x {width}, {plural(data.classes, 'class', 'classes')}",
        f"mean {_figures(report.mean)}, standard deviation {_figures(report.std)} (training images, 0 to 1)",
        f"digest {data.digest}",
    ]


def _figures(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4f}" for value in values)


def data_notes(report: DatasetReport) -> list[str]:
    """Whether the dataset is the published one."""
    if report.data.verified:
        return ["verified: all bytes are the published ones"]
    if report.data.name == "custom":
        return []
    if report.checkable:
        return [f"not the published {report.data.title}: its size is the same, its bytes differ"]
    return ["not verified: digests are published for the archive only, not for the extracted files"]


class LabelCount(NamedTuple):
    """Images of one class."""

    dataset: str
    label: str
    train: int
    test: int


COLUMNS: list[Field[LabelCount]] = [
    Field("dataset", "dataset", align="left", shown=False, help="name of the dataset"),
    Field("class", "class", lambda row: row.label, align="left", style="bold", help="name of the class"),
    Field("train", "train", text=exact, help="training images"),
    Field("test", "test", text=exact, help="test images"),
]


def data_sheet(reports: tuple[DatasetReport, ...], *, total: bool = False) -> Sheet:
    """Images by class of datasets; `total`: with a last row for the first dataset as a whole."""
    rows = [
        LabelCount(report.data.name, clean(name, 100), train, test)
        for report in reports
        for name, train, test in label_counts(report.data)
    ]
    data = reports[0].data
    return Sheet.of(COLUMNS, rows, LabelCount(data.name, "total", len(data.train), len(data.test)) if total else None)
