"""What a net is trained and tested on: images as bytes, labels, and a digest that says which ones they are."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnetcli.errors import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "synthetic": "synthetic", "custom": "custom"}
"""The data sets there are, and what people call them."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Images and what each of them shows."""

    images: NDArray[np.uint8]  # (n, 3, h, w), contiguous
    labels: NDArray[np.int64]  # (n,), each from 0 to classes - 1

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """A training and a test split of the same classes and the same size of image."""

    name: str
    """`cifar10`, `cifar100`, `synthetic` or `custom`."""
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...]
    digest: str
    """SHA-256 over shapes, images and labels: what a resumed run is held to, whatever files they came from."""
    verified: bool = False
    """Whether every byte is known to be the published one."""

    @property
    def title(self) -> str:
        """`CIFAR-10`."""
        return TITLES[self.name]

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of one image, (3, h, w)."""
        _, channels, height, width = self.train.images.shape
        return channels, height, width

    @property
    def text(self) -> str:
        """What it is and how far that is known, as every report of a run says it."""
        match self.name:
            case "synthetic":
                return f"synthetic, {plural(len(self.train), 'random image')}"
            case "custom":
                return f"custom, {plural(len(self.train) + len(self.test), 'image')}"
            case _:
                return f"{self.title} ({'verified' if self.verified else 'not verified'})"


def make_dataset(name: str, train: Split, test: Split, class_names: tuple[str, ...]) -> Dataset:
    """The data set with its digest, its arrays as nobody can change them any more."""
    for split in (train, test):
        split.images.flags.writeable = False
        split.labels.flags.writeable = False
    return Dataset(name, train, test, len(class_names), class_names, content_digest(train, test))


def content_digest(train: Split, test: Split) -> str:
    """SHA-256 over what is in the splits: `n,c,h,w;`, images, labels in little-endian 64 bits; training first."""
    found = hashlib.sha256()
    for split in (train, test):
        found.update(f"{','.join(map(str, split.images.shape))};".encode())
        found.update(split.images.data)
        found.update(split.labels.astype("<i8", copy=False).data)
    return found.hexdigest()
