"""Images as a net reads them: normalised, and in training cropped and mirrored, a whole batch at once on its device."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from resnetcli.errors import UsageError, plural
from resnetcli.net.memory import fitting, require
from resnetcli.recipes.recipe import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Normalisation:
    """x -> (x - mean) * scale, for x from 0 to 255."""

    mean: Tensor
    """(c, h, w) in fp32."""
    scale: Tensor
    """(c, 1, 1) in fp32."""

    def to(self, device: torch.device) -> Normalisation:
        """The same on a device."""
        return Normalisation(self.mean.to(device), self.scale.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (b, c, h, w) -> fp32."""
        return (images.float() - self.mean) * self.scale


def normalisation(images: NDArray[np.uint8], kind: Literal["pixel-mean", "mean-std"]) -> Normalisation:
    """What normalises the images given, which are those that are trained on; from sums of integers, which are exact.

    pixel-mean: the mean of each pixel of each channel, and 1/255. mean-std: the mean and standard deviation of each
    channel over all pixels; a channel of one value only is left at 0.
    """
    n, c, h, w = images.shape
    if kind == "pixel-mean":
        mean = images.sum(0, dtype=np.int64) / n
        return Normalisation(torch.tensor(mean, dtype=torch.float32), torch.full((c, 1, 1), 1 / 255))
    means, scales = [], []
    for channel in range(c):
        counts = np.zeros(256, np.int64)
        for begin in range(0, n, 1000):  # counting makes int64s of what it counts
            counts += np.bincount(images[begin : begin + 1000, channel].reshape(-1), minlength=256)
        numbers = counts.tolist()
        count, total = sum(numbers), sum(value * number for value, number in enumerate(numbers))
        squares = sum(value * value * number for value, number in enumerate(numbers))
        spread = count * squares - total * total  # of Python's integers: nothing cancels
        means.append(total / count)
        scales.append(count / spread**0.5 if spread else 0.0)
    mean = torch.tensor(means, dtype=torch.float64)[:, None, None].expand(c, h, w)
    return Normalisation(mean.float().contiguous(), torch.tensor(scales, dtype=torch.float64)[:, None, None].float())


class Images:
    """A training set on its device, padded once, as uint8; a batch is cut out of it."""

    def __init__(
        self, images: NDArray[np.uint8], normalise: Normalisation, augmentation: Augmentation, device: torch.device
    ) -> None:
        """Raises UsageError if the images are too small for their reflection, ResourceError if they do not fit."""
        n, c, h, w = images.shape
        pad = augmentation.pad
        if augmentation.mode == "reflect" and pad >= min(h, w):
            raise UsageError(
                f"an image of {h} x {w} has no reflection of {plural(pad, 'pixel')}",
                "use a smaller `pad`, or `mode: zeros`",
            )
        margin = ((0, 0), (pad, pad), (pad, pad))
        require("the training images", n * c * (h + 2 * pad) * (w + 2 * pad), device)
        mode: Literal["constant", "reflect"] = "reflect" if augmentation.mode == "reflect" else "constant"
        with fitting("the training images", device):
            padded = torch.from_numpy(np.pad(images, ((0, 0), *margin), mode=mode)).to(device)
            # Where zeros are padded the mean is 0 too: what is cut out there is 0 after normalising.
            mean = torch.from_numpy(np.pad(normalise.mean.numpy(), margin, mode=mode)).to(device)
        self.normalise = normalise.to(device)
        self.places = 2 * pad + 1
        """How many crops there are along an axis."""
        self.plain = padded[:, :, pad : pad + h, pad : pad + w]
        """The images as they are."""
        self._windows = _windows(padded, self.places, (h, w))  # (n, places, places, c, h, w), in the memory of padded
        self._means = _windows(mean[None], self.places, (h, w))[0]  # (places, places, c, h, w)

    def batch(self, crops: Tensor) -> Tensor:
        """(4, b) of index, top, left, mirrored -> (b, c, h, w) in fp32."""
        index, top, left, mirrored = crops
        x = (self._windows[index, top, left].float() - self._means[top, left]) * self.normalise.scale
        return torch.where(mirrored.bool()[:, None, None, None], x.flip(-1), x)


def _windows(padded: Tensor, places: int, size: tuple[int, int]) -> Tensor:
    """Every crop of every image, without a copy: (n, places, places, c, h, w)."""
    n, c = padded.shape[:2]
    image, channel, row, pixel = padded.stride()
    return padded.as_strided((n, places, places, c, *size), (image, row, pixel, channel, row, pixel))
