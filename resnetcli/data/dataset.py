"""A dataset: training and test images as bytes, labels, and a digest of both."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.frozen import frozen

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TITLES = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100", "synthetic": "synthetic", "custom": "custom"}
"""Titles of the supported datasets."""


@frozen(eq=False)
class Split:
    """Images and their labels."""

    images: NDArray[np.uint8]  # (n, 3, h, w), contiguous
    labels: NDArray[np.int64]  # (n,), each from 0 to classes - 1

    def __len__(self) -> int:
        return len(self.labels)


@frozen(eq=False)
class Dataset:
    """A training and a test split of the same classes and the same size of image."""

    name: str
    """`cifar10`, `cifar100`, `synthetic` or `custom`."""
    train: Split
    test: Split
    classes: int
    class_names: tuple[str, ...]
    digest: str
    """SHA-256 over shapes, images and labels, whatever files they came from; a resumed run requires the same."""
    verified: bool = False
    """Whether every byte is known to equal the published one."""

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
        """The dataset and whether it is verified, for reports of a run."""
        match self.name:
            case "synthetic":
                return f"synthetic, {plural(len(self.train), 'random image')}"
            case "custom":
                return f"custom, {plural(len(self.train) + len(self.test), 'image')}"
            case _:
                return f"{self.title} ({'verified' if self.verified else 'not verified'})"


def make_dataset(name: str, train: Split, test: Split, class_names: tuple[str, ...]) -> Dataset:
    """A dataset with its digest and read-only arrays."""
    for split in (train, test):
        split.images.flags.writeable = False
        split.labels.flags.writeable = False
    return Dataset(name, train, test, len(class_names), class_names, content_digest(train, test))


def content_digest(train: Split, test: Split) -> str:
    """SHA-256 over both splits, training first: `n,c,h,w;`, images, labels in little-endian 64 bits."""
    digest = hashlib.sha256()
    for split in (train, test):
        digest.update(f"{','.join(map(str, split.images.shape))};".encode())
        digest.update(split.images.data)
        digest.update(split.labels.astype("<i8", copy=False).data)
    return digest.hexdigest()
