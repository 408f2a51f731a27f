"""Training and test split from a NumPy file (.npz): arrays of whole numbers and text, within a total size."""

from __future__ import annotations

import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.data.custom import MAX_BYTES, MAX_CLASSES, MAX_NAME, MAX_SIDE
from resnetcli.data.dataset import Split
from resnetcli.data.errors import DataError
from resnetcli.errors import clean, first_line
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
    names, arrays, unused = _read(path)
    images, labels, *test_arrays = (arrays[name] for name in names)
    whole = _split(path, images, labels)
    train, test = (whole, _split(path, *test_arrays)) if test_arrays else _hold_out(path, whole, share)
    if unused:
        some = ", ".join(f"`{clean(name, 60)}`" for name in unused[:8]) + (" and more" if len(unused) > 8 else "")
        log(f"`{path}`: unused arrays {some}; images and labels are read from `{'`, `'.join(names)}`")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise DataError(f"`{path}` has training and test images of different sizes")
    class_names = arrays.get("class_names")
    return train, test, _class_names(path, class_names, 1 + int(max(train.labels.max(), test.labels.max())))


def _read(path: Path) -> tuple[tuple[str, ...], Mapping[str, NDArray[np.generic]], list[str]]:
    """Names of the arrays of images and labels; these arrays and `class_names`; names of unused arrays."""
    import numpy as np

    require_regular(path, error=DataError)
    label = f"`{path}`"
    try:
        # numpy warns of a header that Python 2 has written.
        with warnings.catch_warnings(action="ignore"):
            with zipfile.ZipFile(path) as archive:
                sizes = [(info.filename.removesuffix(".npy"), info.file_size) for info in archive.infolist()]
            known = dict(sizes)
            names = next((each for each in (*SPLIT_NAMES, *WHOLE_NAMES) if all(name in known for name in each)), None)
            if names is None:
                raise DataError(f"`{path}` has {', '.join(f'`{name}`' for name in known) or 'nothing'} in it", _HINT)
            used = [*names, *(["class_names"] if "class_names" in known else [])]
            if (total := sum(size for name, size in sizes if name in used)) > MAX_BYTES:
                raise DataError(f"`{path}` has arrays of {total:,} bytes, more than the allowed {MAX_BYTES:,}")
            arrays = {}
            with np.load(path, allow_pickle=False) as file:
                for name in used:
                    label = f"`{path}`: `{name}.npy`"
                    arrays[name] = _check_dtype(label, name, file[name])
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError, tokenize.TokenError) as error:
        # numpy parses headers as Python; a shape that is too large fails before its memory is used.
        if isinstance(error, DataError):
            raise
        raise DataError(f"{label} is not an array of whole numbers or text: {_problem(error)}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ImportError) as error:
        raise DataError(f"`{path}` is not a whole .npz file: {_problem(error)}") from None
    return names, arrays, [name for name in known if name not in used]


def _check_dtype(label: str, name: str, array: NDArray[np.generic] | bytes) -> NDArray[np.generic]:
    if isinstance(array, bytes):
        raise DataError(f"{label} is not an array of whole numbers or text: it has no NumPy header")
    if array.dtype.kind not in "iubU" or array.ndim > 4:
        hint = _BYTES if name in IMAGE_NAMES else ""
        raise DataError(f"{label} holds {array.dtype} in {array.ndim} dimensions, not whole numbers or text", hint)
    return array


def _problem(error: Exception) -> str:
    return clean(first_line(error) or type(error).__name__, 200)


def _split(path: Path, images: NDArray[np.generic], labels: NDArray[np.generic]) -> Split:
    """Images in any usual order of axes as (n, 3, h, w); gray images get three equal channels."""
    import numpy as np

    shape = " x ".join(map(str, images.shape))
    if images.dtype != np.uint8:
        raise DataError(f"`{path}` has images of {images.dtype}, not of bytes (uint8)", _BYTES)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(labels) != len(images):
        raise DataError(f"`{path}` has images of {shape}, and labels that are not one whole number per image")
    match images.shape:
        case (_, _, _):
            ordered = images[:, None]
        case (_, 1 | 3, _, 1 | 3):
            raise DataError(f"`{path}` has images of {shape}: the axis of the channels is ambiguous")
        case (_, 1 | 3, _, _):
            ordered = images
        case (_, _, _, 1 | 3):
            ordered = images.transpose(0, 3, 1, 2)
        case _:
            raise DataError(f"`{path}` has images of {shape}, not n x h x w, n x h x w x 3 or n x 3 x h x w")
    n, _, h, w = ordered.shape
    if not n or not 0 < h <= MAX_SIDE or not 0 < w <= MAX_SIDE:
        raise DataError(f"`{path}` has images of {shape}: there must be images, with sides from 1 to {MAX_SIDE:,}")
    if n * 3 * h * w > MAX_BYTES:
        raise DataError(f"`{path}` has more than the allowed {MAX_BYTES:,} bytes of images")
    if int(labels.min()) < 0 or int(labels.max()) >= MAX_CLASSES:
        raise DataError(f"`{path}` has labels from {labels.min()} to {labels.max()}, not from 0 to {MAX_CLASSES - 1:,}")
    colours = np.ascontiguousarray(np.broadcast_to(ordered, (n, 3, h, w)))
    return Split(colours.view(np.uint8), labels.astype(np.int64))


def _hold_out(path: Path, whole: Split, share: float) -> tuple[Split, Split]:
    """A share of each class, chosen by a fixed seed, as the test split; order is kept."""
    import numpy as np

    is_test = np.zeros(len(whole), bool)
    random = np.random.default_rng(0)
    for label in np.unique(whole.labels):
        places = np.flatnonzero(whole.labels == label)
        is_test[random.permutation(places)[: round(share * len(places))]] = True
    if is_test.all() or not is_test.any():
        raise DataError(f"`{path}` has too few images for a test split of {100 * share:.12g}%")
    return (
        Split(whole.images[~is_test], whole.labels[~is_test]),
        Split(whole.images[is_test], whole.labels[is_test]),
    )


def _class_names(path: Path, names: NDArray[np.generic] | None, used: int) -> tuple[str, ...]:
    if names is None:
        return tuple(f"class {number}" for number in range(max(used, 2)))
    if names.ndim != 1 or names.dtype.kind != "U" or not max(used, 2) <= len(names) <= MAX_CLASSES:
        raise DataError(f"`{path}` has `class_names` that are not one text for each of {used} classes")
    texts = tuple(str(name) for name in names)
    if not all(0 < len(name) <= MAX_NAME for name in texts):
        raise DataError(f"`{path}` has `class_names` that do not have 1 to {MAX_NAME} characters")
    return texts
