"""Decode and check CIFAR's binary records and pickled batches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetcli.data.dataset import Split
from resnetcli.data.errors import DataError
from resnetcli.data.unpickle import Pickled, unpickle
from resnetcli.errors import plural

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Part = tuple[NDArray[np.uint8], NDArray[np.int64]]


def decode_binary(
    raw: bytes, label: str, image: tuple[int, int, int], classes: int, *, label_bytes: int = 1, wide: bool = False
) -> Part:
    """Images (n, c, h, w), as a view of `raw`, and labels of binary records.

    A record has one or more label bytes, of which the last counts, then the image by channel and row. With `wide` the
    two label bytes are one number, the high byte first. Raises DataError.
    """
    import numpy as np

    pixels = image[0] * image[1] * image[2]
    if len(raw) % (label_bytes + pixels):
        size = f"{label_bytes + pixels:,}"
        raise DataError(f"`{label}` has {plural(len(raw), 'byte')}, not a whole number of records of {size}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, label_bytes + pixels)
    labels = records[:, label_bytes - 1].astype(np.int64)
    if wide:
        labels += records[:, 0].astype(np.int64) << 8
    _check_labels(labels, label, classes)
    return records[:, label_bytes:].reshape(-1, *image), labels


def decode_pickle(raw: bytes, label: str, key: str, classes: int) -> Part:
    """Images (n, 3, 32, 32) and labels of a pickled batch; the images are a view of `raw` if they are in C order."""
    import numpy as np

    batch = unpickle(raw, label)
    if not isinstance(batch, dict):
        raise DataError(f"`{label}` is not a pickled batch of images: a dict was expected")
    data, numbers = batch.get("data"), batch.get(key)
    if not isinstance(data, Pickled) or not isinstance(numbers, list | tuple | Pickled):
        raise DataError(f"`{label}` is not a batch of images: it needs `data` and `{key}`")
    labels = _labels(numbers, label)
    if data.kind != "u1":
        raise DataError(f"`{label}` has `data` of {data.kind}, not of bytes (`u1`)")
    if data.shape not in ((len(labels), 3072), (len(labels), 3, 32, 32)):
        shape = " x ".join(map(str, data.shape))
        raise DataError(f"`{label}` has {len(labels):,} labels and `data` of {shape}, not n x 3072 bytes")
    _check_labels(labels, label, classes)
    images = np.frombuffer(data.data, np.uint8).reshape(data.shape, order="F" if data.fortran else "C")
    return images.reshape(-1, 3, 32, 32), labels


def _labels(numbers: Pickled | Sequence[object], label: str) -> NDArray[np.int64]:
    """Labels pickled as a list of numbers or as an array."""
    import numpy as np

    if isinstance(numbers, Pickled):
        one_each = len(numbers.shape) == 1 or (len(numbers.shape) == 2 and numbers.shape[1] == 1)
        if numbers.kind[0] not in "iu" or not one_each:
            raise DataError(f"`{label}` has labels that are not numbers")
        labels = np.frombuffer(numbers.data, np.dtype(numbers.order + numbers.kind))
    else:
        if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
            raise DataError(f"`{label}` has labels that are not numbers")
        labels = np.array(numbers, np.int64)
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < 2**31:
        raise DataError(f"`{label}` has labels that are not numbers")
    return labels.astype(np.int64)


def _check_labels(labels: NDArray[np.int64], label: str, classes: int) -> None:
    if len(labels) and (highest := int(labels.max())) >= classes:
        place = int((labels >= classes).argmax())
        raise DataError(
            f"`{label}`: image {place:,} has label {int(labels[place])}, but the classes are 0 to "
            f"{classes - 1}" + (f"; the highest is {highest}" if highest != labels[place] else "")
        )


def join_parts(parts: Sequence[Part]) -> Split:
    """Concatenate parts into one contiguous split."""
    import numpy as np

    return Split(np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts]))
