"""Random images from a seed, for timing and tests: a model can learn them, but its error means nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetcli.data.dataset import Dataset, Split, make_dataset

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CHUNK = 4096
"""Images per step."""


def synthetic(
    train: int = 50_000, test: int = 10_000, *, classes: int = 10, size: tuple[int, int] = (32, 32), seed: int = 0
) -> Dataset:
    """A dataset whose images are half their class's coarse pattern and half noise."""
    import numpy as np

    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (classes, 3, 4, 4), dtype=np.uint8)
    patterns = _upsample(coarse, size)
    names = tuple(f"class {number}" for number in range(classes))
    return make_dataset("synthetic", _split(random, patterns, train), _split(random, patterns, test), names)


def _upsample(coarse: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Nearest-neighbor upsampling to the size of the images."""
    import numpy as np

    rows, columns = (np.arange(length) * 4 // length for length in size)
    return coarse[:, :, rows][:, :, :, columns]


def _split(random: np.random.Generator, patterns: NDArray[np.uint8], number: int) -> Split:
    import numpy as np

    labels = random.permutation(np.arange(number, dtype=np.int64) % len(patterns))  # equal numbers per class
    halves = patterns >> 1
    images = np.empty((number, *patterns.shape[1:]), np.uint8)
    for start in range(0, number, CHUNK):
        part = images[start : start + CHUNK]
        noise = np.frombuffer(random.bytes(part.size), np.uint8).reshape(part.shape)
        np.add(halves[labels[start : start + CHUNK]], noise >> 1, out=part)
    return Split(images, labels)
