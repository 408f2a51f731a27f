"""Validate the datasets in a directory or archive, and compute their statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from resnetcli.data.convert import find_published
from resnetcli.data.custom import DESCRIPTION, is_custom, read_custom
from resnetcli.data.dataset import Dataset, Split
from resnetcli.data.read import Location, read_official
from resnetcli.errors import UsageError
from resnetcli.files import require_exists
from resnetcli.frozen import frozen

CHUNK = 4096
"""Images per step."""


@frozen
class DatasetReport:
    """A dataset, its files and statistics."""

    path: str
    data: Dataset
    form: str
    """`binary records, extracted`."""
    checkable: bool
    """Whether a digest of these files is published."""
    mean: tuple[float, ...]
    """Per channel of the training images, from 0 to 1."""
    std: tuple[float, ...]

    @property
    def is_sound(self) -> bool:
        """False if the files differ from the published ones."""
        return self.data.verified or not self.checkable


def check_datasets(path: Path) -> tuple[DatasetReport, ...]:
    """Read every dataset in a directory or archive. Raises UsageError without one, DataError for a broken one."""
    require_exists(path)
    if is_custom(path):
        return (_report(str(path), read_custom(path), f"binary records, {DESCRIPTION}", checkable=False),)
    locations = find_published(path)
    if not locations:
        raise UsageError(
            f"`{path}` is not a supported dataset",
            f"CIFAR-10 or CIFAR-100, extracted or as an archive, or a folder with a {DESCRIPTION}",
        )
    return tuple(_report(str(location.path), read_official(location), *_form(location)) for location in locations)


def _form(location: Location) -> tuple[str, bool]:
    version = "binary records" if location.version == "binary" else "Python version"
    checkable = location.packed or bool(location.layout.md5 or location.layout.sha256)
    return f"{version}, {'archive' if location.packed else 'extracted'}", checkable


def _report(path: str, data: Dataset, form: str, checkable: bool) -> DatasetReport:
    mean, std = channel_statistics(data.train)
    return DatasetReport(path, data, form, checkable, mean, std)


def channel_statistics(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and population standard deviation per channel, from 0 to 1, from exact counts of the 256 values."""
    import numpy as np

    values = np.arange(256, dtype=np.float64) / 255
    means, deviations = [], []
    for channel in range(split.images.shape[1]):
        counts = np.zeros(256, np.int64)
        for start in range(0, len(split), CHUNK):
            counts += np.bincount(split.images[start : start + CHUNK, channel].ravel(), minlength=256)
        shares = counts / counts.sum()
        mean = float(shares @ values)
        means.append(mean)
        deviations.append(float(np.sqrt(shares @ (values - mean) ** 2)))
    return tuple(means), tuple(deviations)


def label_counts(data: Dataset) -> list[tuple[str, int, int]]:
    """Name, training images and test images of each class."""
    import numpy as np

    train, test = (np.bincount(split.labels, minlength=data.classes).tolist() for split in (data.train, data.test))
    return list(zip(data.class_names, train, test, strict=True))


def data_record(reports: tuple[DatasetReport, ...]) -> dict[str, Any]:
    """`resnet-cli/data@2`."""
    return {
        "schema": "resnet-cli/data@2",
        "datasets": [
            {
                "path": each.path,
                "name": each.data.name,
                "text": each.data.text,
                "form": each.form,
                "verified": each.data.verified,
                "checkable": each.checkable,
                "digest": each.data.digest,
                "image": list(each.data.image),
                "classes": each.data.classes,
                "train": len(each.data.train),
                "test": len(each.data.test),
                "mean": list(each.mean),
                "std": list(each.std),
                "labels": [
                    {"name": name, "train": train, "test": test} for name, train, test in label_counts(each.data)
                ],
            }
            for each in reports
        ],
    }
