"""Write datasets as CIFAR's binary records."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.data.cifar import CIFAR10, IMAGE, Official
from resnetcli.data.custom import DESCRIPTION, SCHEMA
from resnetcli.data.dataset import Split, content_digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def encode_records(split: Split, *, label_bytes: int = 1, coarse: NDArray[np.int64] | None = None) -> bytes:
    """A split as records: a label of one byte, or of two with the high byte first, then the image.

    With `coarse`, a byte of that label before the one of the class, as in CIFAR-100.
    """
    import numpy as np

    labels = split.labels if coarse is None else (coarse << 8) + split.labels
    records = np.empty((len(split), label_bytes + split.images[0].size), np.uint8)
    records[:, label_bytes - 1] = labels & 255
    if label_bytes == 2:
        records[:, 0] = labels >> 8
    records[:, label_bytes:] = split.images.reshape(len(split), -1)
    return records.tobytes()


Coarse = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""CIFAR-100's twenty coarse labels of the training and the test images; training ignores them."""


def write_official(folder: Path, official: Official, train: Split, test: Split, coarse: Coarse | None = None) -> None:
    """Write the files of the binary version, training images split evenly in order, and the class names."""
    import numpy as np

    layout = official.binary
    shares = np.array_split(np.arange(len(train)), len(layout.train))
    for name, share in zip(layout.train, shares, strict=True):
        part = Split(train.images[share], train.labels[share])
        own = None if coarse is None else coarse[0][share]
        (folder / name).write_bytes(encode_records(part, label_bytes=layout.label_bytes, coarse=own))
    own = None if coarse is None else coarse[1]
    (folder / layout.test).write_bytes(encode_records(test, label_bytes=layout.label_bytes, coarse=own))
    meta = "batches.meta.txt" if official.name == "cifar10" else "fine_label_names.txt"
    (folder / meta).write_bytes("".join(f"{name}\n" for name in official.class_names).encode())


def write_custom(folder: Path, train: Split, test: Split, class_names: Sequence[str]) -> None:
    """Write `train.bin`, `test.bin` and their `dataset.json`, with a digest."""
    width = 1 if len(class_names) <= 256 else 2
    for name, split in (("train.bin", train), ("test.bin", test)):
        (folder / name).write_bytes(encode_records(split, label_bytes=width))
    write_description(folder, train, test, class_names, ["train.bin"], ["test.bin"])


def write_description(
    folder: Path, train: Split, test: Split, class_names: Sequence[str], files: Sequence[str], tests: Sequence[str]
) -> None:
    """Write the `dataset.json` of existing records."""
    description = {
        "schema": SCHEMA,
        "image": list(train.images.shape[1:]),
        "classes": len(class_names),
        "class_names": list(class_names),
        "train": list(files),
        "test": list(tests),
        "digest": content_digest(train, test),
    }
    (folder / DESCRIPTION).write_bytes((json.dumps(description, indent=2, ensure_ascii=False) + "\n").encode())


def write_cifar10_binary(
    folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64], test_images: NDArray[np.uint8],
    test_labels: NDArray[np.int64],
) -> None:  # fmt: skip
    """Write a dataset under CIFAR-10's file names; with a `dataset.json` if it has another size than CIFAR-10."""
    train, test = Split(images, labels), Split(test_images, test_labels)
    folder.mkdir(parents=True, exist_ok=True)
    write_official(folder, CIFAR10, train, test)
    if (len(train), len(test), images.shape[1:]) != (CIFAR10.train, CIFAR10.test, IMAGE):
        write_description(folder, train, test, CIFAR10.class_names, CIFAR10.binary.train, [CIFAR10.binary.test])
