"""A NumPy file of images (.npz) as two splits: only arrays of numbers, of sizes checked before they are made."""

from __future__ import annotations

import lzma
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from resnetcli.data.custom import MOST_BYTES, MOST_CLASSES, MOST_SIDE
from resnetcli.data.dataset import Split
from resnetcli.data.errors import DataError
from resnetcli.errors import clean, plural
from resnetcli.files import require_regular

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SPLIT_NAMES = (
    ("train_images", "train_labels", "test_images", "test_labels"),
    ("x_train", "y_train", "x_test", "y_test"),
)
WHOLE_NAMES = (("images", "labels"), ("x", "y"), ("data", "target"))
IMAGE_NAMES = {names[place] for names in (*SPLIT_NAMES, *WHOLE_NAMES) for place in range(0, len(names), 2)}
_BYTES = "images are bytes (uint8), from 0 (black) to 255 (white)"
_HINT = "it takes `images` and `labels`, or `train_images`, `train_labels`, `test_images` and `test_labels`"


def read_arrays(
    path: Path, *, share: float = 0.2, log: Callable[[str], object] = lambda line: None
) -> tuple[Split, Split, tuple[str, ...]]:
    """Training and test split and the classes' names (`class_names`, or numbers).

    If the file has no test images, a fixed `share` of each class becomes the test set. `log` receives a line about
    unused arrays. Raises DataError.
    """
    require_regular(path, error=DataError)
    try:
        # numpy warns of a header that Python 2 has written.
        with warnings.catch_warnings(action="ignore"), zipfile.ZipFile(path) as archive:
            found = {name.removesuffix(".npy"): name for name in archive.namelist()}
            names = next((each for each in (*SPLIT_NAMES, *WHOLE_NAMES) if all(name in found for name in each)), None)
            if names is None:
                raise DataError(f"`{path}` has {', '.join(f'`{name}`' for name in found) or 'nothing'} in it", _HINT)
            images, labels, *last = (_array(archive, path, found[name]) for name in names)
            first = _split(path, images, labels)
            train, test = (first, _split(path, *last)) if last else _apart(path, first, share)
            class_names = _array(archive, path, found["class_names"]) if "class_names" in found else None
            unused = [name for name in found if name not in (*names, "class_names")]
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, RuntimeError, UnicodeDecodeError
    ) as error:  # fmt: skip
        raise DataError(f"`{path}` is no whole .npz file: {error}") from None
    if unused:
        what = ", ".join(f"`{clean(name, 60)}`" for name in unused[:8]) + (" and more" if len(unused) > 8 else "")
        log(f"`{path}`: unused arrays {what}; images and labels are read from `{'`, `'.join(names)}`")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"`{path}` has training and test images of different sizes")
    return train, test, _names(path, class_names, 1 + int(max(train.labels.max(), test.labels.max())))


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> NDArray[np.generic]:
    """One array. Its header says how large it is, and has to agree with the file before anything is made."""
    from numpy.lib import format as npy

    size = archive.getinfo(name).file_size
    label = f"`{path}`: `{name}`"
    if size > MOST_BYTES:
        raise DataError(f"{label} has {size:,} bytes, more than the {MOST_BYTES:,} that can be held")
    try:
        with archive.open(name) as file:
            shape, _, dtype = _npy_header(file)
        count = 1
        for length in shape:
            count *= length
        if dtype.hasobject or dtype.kind not in "iubU":
            hint = _BYTES if name.removesuffix(".npy") in IMAGE_NAMES else ""
            raise DataError(f"{label} holds {dtype}, not whole numbers or text", hint)
        if count * dtype.itemsize > size or len(shape) > 4:
            raise DataError(f"{label} has {plural(size, 'byte')}, not what an array of its shape takes")
        with archive.open(name) as file:
            return npy.read_array(file, allow_pickle=False)
    except ValueError as error:  # numpy's, of a header or an end that is not as it should be
        raise DataError(f"{label} is no array: {error}") from None


def _npy_header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[np.generic]]:
    from numpy.lib import format as npy

    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} is not known")
    try:
        found = npy.read_array_header_1_0(file) if version == (1, 0) else npy.read_array_header_2_0(file)
    except (TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError):
        raise ValueError("its header cannot be read") from None  # it is Python, which numpy has Python parse
    if not all(type(length) is int and length >= 0 for length in found[0]):
        raise ValueError("its header says no size")
    return found


def _split(path: Path, images: NDArray[np.generic], labels: NDArray[np.generic]) -> Split:
    """Images of any usual order of axes as (n, 3, h, w), grey ones with three like channels."""
    import numpy as np

    shape = " x ".join(map(str, images.shape))
    if images.dtype != np.uint8:
        raise DataError(f"`{path}` has images of {images.dtype}, not of bytes (uint8)", _BYTES)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise DataError(f"`{path}` has images of {shape}, and labels that are not a whole number for each")
    match images.shape:
        case (_, _, _):
            found = images[:, None]
        case (_, 1 | 3, _, 1 | 3):
            raise DataError(f"`{path}` has images of {shape}: which axis has the channels cannot be told")
        case (_, 1 | 3, _, _):
            found = images
        case (_, _, _, 1 | 3):
            found = images.transpose(0, 3, 1, 2)
        case _:
            raise DataError(f"`{path}` has images of {shape}, not n x h x w, n x h x w x 3 or n x 3 x h x w")
    n, _, h, w = found.shape
    if not n or not 0 < h <= MOST_SIDE or not 0 < w <= MOST_SIDE:
        raise DataError(f"`{path}` has images of {shape}: sides go from 1 to {MOST_SIDE:,}, and there must be some")
    if n * 3 * h * w > MOST_BYTES:
        raise DataError(f"`{path}` has more images than the {MOST_BYTES:,} bytes that can be held")
    if int(labels.min()) < 0 or int(labels.max()) >= MOST_CLASSES:
        raise DataError(
            f"`{path}` has labels from {labels.min()} to {labels.max()}, not from 0 to {MOST_CLASSES - 1:,}"
        )
    colours = np.ascontiguousarray(np.broadcast_to(found, (n, 3, h, w)))
    return Split(colours.view(np.uint8), labels.astype(np.int64))


def _apart(path: Path, whole: Split, share: float) -> tuple[Split, Split]:
    """That share of each class, chosen by a fixed seed, as the test split; order is kept."""
    import numpy as np

    is_test = np.zeros(len(whole), bool)
    random = np.random.default_rng(0)
    for label in np.unique(whole.labels):
        places = np.flatnonzero(whole.labels == label)
        is_test[random.permutation(places)[: round(share * len(places))]] = True
    if is_test.all() or not is_test.any():
        raise DataError(f"`{path}` has too few images to set {100 * share:.12g}% of them apart to test with")
    return (
        Split(whole.images[~is_test], whole.labels[~is_test]),
        Split(whole.images[is_test], whole.labels[is_test]),
    )


def _names(path: Path, names: NDArray[np.generic] | None, used: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {number}" for number in range(max(used, 2)))
    if names.ndim != 1 or names.dtype.kind != "U" or len(names) < max(used, 2):
        raise DataError(f"`{path}` has `class_names` that are not a text for each of {used} classes")
    found = tuple(str(name) for name in names)
    if not all(0 < len(name) <= 100 for name in found):
        raise DataError(f"`{path}` has `class_names` that are not of 1 to 100 characters")
    return found
