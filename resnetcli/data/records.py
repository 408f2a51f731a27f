"""Images in CIFAR's binary records and pickled batches: bytes in, arrays out, checked."""

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


def binary_part(
    raw: bytes, label: str, image: tuple[int, int, int], classes: int, *, label_bytes: int = 1, wide: bool = False
) -> Part:
    """Images (n, c, h, w), as a view of `raw`, and labels of binary records.

    A record is its labels, a byte each, of which the last counts, then the image, channel by channel, row by row. With
    `wide` the two label bytes are one number, the high byte first. Raises DataError.
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


def python_part(raw: bytes, label: str, key: str, classes: int) -> Part:
    """Images (n, 3, 32, 32), as a view of `raw` where they lie in rows, and labels of a pickled batch."""
    import numpy as np

    found = unpickle(raw, label)
    if not isinstance(found, dict):
        raise DataError(f"`{label}` is pickled, but no batch of images: a dict was expected")
    data, numbers = found.get("data"), found.get(key)
    if not isinstance(data, Pickled) or not isinstance(numbers, list | tuple | Pickled):
        raise DataError(f"`{label}` is no batch of images: it has not both `data` and `{key}`")
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
    """The labels of a batch, pickled as a list of numbers or as an array of them."""
    import numpy as np

    if isinstance(numbers, Pickled):
        one_each = len(numbers.shape) == 1 or (len(numbers.shape) == 2 and numbers.shape[1] == 1)
        if numbers.kind[0] not in "iu" or not one_each:
            raise DataError(f"`{label}` has labels that are not numbers")
        found = np.frombuffer(numbers.data, np.dtype(numbers.order + numbers.kind))
    else:
        if not all(type(number) is int and 0 <= number < 2**31 for number in numbers):
            raise DataError(f"`{label}` has labels that are not numbers")
        found = np.array(numbers, np.int64)
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < 2**31:
        raise DataError(f"`{label}` has labels that are not numbers")
    return found.astype(np.int64)


def _check_labels(labels: NDArray[np.int64], label: str, classes: int) -> None:
    if len(labels) and (highest := int(labels.max())) >= classes:
        place = int((labels >= classes).argmax())
        raise DataError(
            f"`{label}`: image {place:,} has label {int(labels[place])}, and the classes are 0 to "
            f"{classes - 1}" + (f"; the highest is {highest}" if highest != labels[place] else "")
        )


def joined(parts: Sequence[Part]) -> Split:
    """One split, contiguous: the only copy once the files' bytes are let go."""
    import numpy as np

    return Split(np.concatenate([images for images, _ in parts]), np.concatenate([labels for _, labels in parts]))
