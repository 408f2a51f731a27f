"""What lies at a place: which data sets, whether they are whole and the published ones, and figures about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnetcli.data.convert import published_at
from resnetcli.data.custom import DESCRIPTION, describes, read_custom
from resnetcli.data.dataset import Dataset, Split
from resnetcli.data.read import Place, read_official
from resnetcli.errors import UsageError
from resnetcli.files import require_exists

SCHEMA = "resnet-cli/data@1"
CHUNK = 4096
"""Images counted at once."""


@dataclass(frozen=True, slots=True)
class Examined:
    """One data set and what can be said of it."""

    path: str
    data: Dataset
    form: str
    """`binary records, extracted`."""
    checkable: bool
    """Whether a digest of these files is published."""
    mean: tuple[float, ...]
    """Of the training images' channels, from 0 to 1."""
    std: tuple[float, ...]

    @property
    def is_sound(self) -> bool:
        """False where it is not what its name claims."""
        return self.data.verified or not self.checkable


def examine(path: Path) -> tuple[Examined, ...]:
    """Every data set at the place, read whole. Raises UsageError if there is none, DataError for a broken one."""
    require_exists(path)
    if describes(path):
        return (_examined(str(path), read_custom(path), f"binary records, {DESCRIPTION}", checkable=False),)
    places = published_at(path)
    if not places:
        raise UsageError(
            f"`{path}` is no data set",
            f"CIFAR-10 or CIFAR-100, extracted or as published, or a folder with a {DESCRIPTION}",
        )
    return tuple(_examined(str(each.path), read_official(each), *_form(each)) for each in places)


def _form(place: Place) -> tuple[str, bool]:
    what = "binary records" if place.version == "binary" else "Python version"
    layout = place.layout
    return f"{what}, {'archive' if place.packed else 'extracted'}", place.packed or bool(layout.md5 or layout.sha256)


def _examined(path: str, data: Dataset, form: str, checkable: bool) -> Examined:
    mean, std = channels(data.train)
    return Examined(path, data, form, checkable, mean, std)


def channels(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of the population) of each channel, from 0 to 1, from exact counts of values."""
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
    """Of each class its name, and how many images there are to train and to test with."""
    import numpy as np

    train, test = (np.bincount(split.labels, minlength=data.classes).tolist() for split in (data.train, data.test))
    return list(zip(data.class_names, train, test, strict=True))


def data_record(found: tuple[Examined, ...]) -> dict[str, Any]:
    """`resnet-cli/data@1`."""
    return {
        "schema": SCHEMA,
        "sets": [
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
            for each in found
        ],
    }
