"""Data sets written in CIFAR's binary records, so that what reads CIFAR reads them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.data.cifar import CIFAR10, CIFAR100, IMAGE, Official
from resnetcli.data.custom import DESCRIPTION, SCHEMA
from resnetcli.data.dataset import Split, content_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def records(split: Split, *, label_bytes: int = 1, coarse: NDArray[np.int64] | None = None) -> bytes:
    """The split as records: a label of one byte or two, the high one first, then the image.

    With `coarse`, one label byte of that before the one of the class, as in CIFAR-100.
    """
    import numpy as np

    labels = split.labels if coarse is None else (coarse << 8) + split.labels
    found = np.empty((len(split), label_bytes + split.images[0].size), np.uint8)
    found[:, label_bytes - 1] = labels & 255
    if label_bytes == 2:
        found[:, 0] = labels >> 8
    found[:, label_bytes:] = split.images.reshape(len(split), -1)
    return found.tobytes()


Coarse = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""CIFAR-100's twenty coarse classes of the training and the test images; nothing here learns them."""


def write_official(folder: Path, official: Official, train: Split, test: Split, coarse: Coarse | None = None) -> None:
    """Files of the names the binary version has: training images shared among them in order, and the classes' names."""
    import numpy as np

    layout = official.binary
    shares = np.array_split(np.arange(len(train)), len(layout.train))
    for name, share in zip(layout.train, shares, strict=True):
        part = Split(train.images[share], train.labels[share])
        own = None if coarse is None else coarse[0][share]
        (folder / name).write_bytes(records(part, label_bytes=layout.label_bytes, coarse=own))
    own = None if coarse is None else coarse[1]
    (folder / layout.test).write_bytes(records(test, label_bytes=layout.label_bytes, coarse=own))
    meta = "batches.meta.txt" if official.name == "cifar10" else "fine_label_names.txt"
    (folder / meta).write_bytes("".join(f"{name}\n" for name in official.class_names).encode())


def write_custom(folder: Path, train: Split, test: Split, class_names: Sequence[str]) -> None:
    """`train.bin`, `test.bin` and the `dataset.json` that describes them, digest included."""
    width = 1 if len(class_names) <= 256 else 2
    for name, split in (("train.bin", train), ("test.bin", test)):
        (folder / name).write_bytes(records(split, label_bytes=width))
    describe(folder, train, test, class_names, ["train.bin"], ["test.bin"])


def describe(
    folder: Path, train: Split, test: Split, class_names: Sequence[str], files: Sequence[str], tests: Sequence[str]
) -> None:
    """`dataset.json` for records that are there."""
    said = {
        "schema": SCHEMA,
        "image": list(train.images.shape[1:]),
        "classes": len(class_names),
        "class_names": list(class_names),
        "train": list(files),
        "test": list(tests),
        "digest": content_digest(train, test),
    }
    (folder / DESCRIPTION).write_bytes((json.dumps(said, indent=2, ensure_ascii=False) + "\n").encode())


def write_cifar10_binary(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> None:  # fmt: skip
    """A set under CIFAR-10's names; with a `dataset.json`, as a custom one, where it has not CIFAR-10's size."""
    train, test = Split(images, labels), Split(test_images, test_labels)
    folder.mkdir(parents=True, exist_ok=True)
    write_official(folder, CIFAR10, train, test)
    if (len(train), len(test), images.shape[1:]) != (CIFAR10.train, CIFAR10.test, IMAGE):
        describe(folder, train, test, CIFAR10.class_names, CIFAR10.binary.train, [CIFAR10.binary.test])


def write_cifar100_binary(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> None:  # fmt: skip
    """A set under CIFAR-100's names."""
    folder.mkdir(parents=True, exist_ok=True)
    write_official(folder, CIFAR100, Split(images, labels), Split(test_images, test_labels))
