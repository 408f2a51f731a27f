"""Input images: normalised, and for training randomly cropped and flipped, a whole batch at once on the device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor

from resnetcli.errors import UsageError, plural
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting, require
from resnetcli.recipes.recipe import Augmentation

if TYPE_CHECKING:
    from numpy.typing import NDArray


@frozen
class Normalisation:
    """x -> (x - mean) * scale, for x from 0 to 255."""

    mean: Tensor
    """(c, h, w) in fp32."""
    scale: Tensor
    """(c, 1, 1) in fp32."""

    def to(self, device: torch.device) -> Normalisation:
        """A copy on the device."""
        return Normalisation(self.mean.to(device), self.scale.to(device))

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 (b, c, h, w) -> fp32."""
        return (images.float() - self.mean) * self.scale


def normalisation(images: NDArray[np.uint8], kind: Literal["pixel-mean", "mean-std"]) -> Normalisation:
    """The normalisation by the statistics of these training images, from exact integer sums.

    pixel-mean: the mean of each pixel of each channel, and 1/255. mean-std: the mean and standard deviation of each
    channel over all pixels; a constant channel becomes 0.
    """
    n, c, h, w = images.shape
    if kind == "pixel-mean":
        mean = images.sum(0, dtype=np.int64) / n
        return Normalisation(torch.tensor(mean, dtype=torch.float32), torch.full((c, 1, 1), 1 / 255))
    means, scales = [], []
    for channel in range(c):
        counts = np.zeros(256, np.int64)
        for begin in range(0, n, 1000):  # bincount converts to int64
            counts += np.bincount(images[begin : begin + 1000, channel].reshape(-1), minlength=256)
        numbers = counts.tolist()
        count, total = sum(numbers), sum(value * number for value, number in enumerate(numbers))
        squares = sum(value * value * number for value, number in enumerate(numbers))
        spread = count * squares - total * total  # exact: Python integers
        means.append(total / count)
        scales.append(count / spread**0.5 if spread else 0.0)
    mean = torch.tensor(means, dtype=torch.float64)[:, None, None].expand(c, h, w)
    return Normalisation(mean.float().contiguous(), torch.tensor(scales, dtype=torch.float64)[:, None, None].float())


class Images:
    """The training images on the device as uint8, padded once, from which batches are cropped."""

    def __init__(
        self, images: NDArray[np.uint8], normalise: Normalisation, augmentation: Augmentation, device: torch.device
    ) -> None:
        """Raises UsageError if the images are too small for reflection padding, ResourceError if they do not fit."""
        n, c, h, w = images.shape
        pad = augmentation.pad
        if augmentation.mode == "reflect" and pad >= min(h, w):
            raise UsageError(
                f"an image of {h} x {w} is too small for reflection padding of {plural(pad, 'pixel')}",
                "use a smaller `pad`, or `mode: zeros`",
            )
        margin = ((0, 0), (pad, pad), (pad, pad))
        require("the training images", n * c * (h + 2 * pad) * (w + 2 * pad), device)
        mode: Literal["constant", "reflect"] = "reflect" if augmentation.mode == "reflect" else "constant"
        with fitting("the training images", device):
            padded = torch.from_numpy(np.pad(images, ((0, 0), *margin), mode=mode)).to(device)
            # Zero padding also pads the mean with zeros: the padding is 0 after normalisation.
            mean = torch.from_numpy(np.pad(normalise.mean.numpy(), margin, mode=mode)).to(device)
        self.normalise = normalise.to(device)
        self.places = 2 * pad + 1
        """Number of crop positions along an axis."""
        self.plain = padded[:, :, pad : pad + h, pad : pad + w]
        """The images without padding."""
        self._windows = _windows(padded, self.places, (h, w))  # (n, places, places, c, h, w), a view of padded
        self._means = _windows(mean[None], self.places, (h, w))[0]  # (places, places, c, h, w)

    def batch(self, crops: Tensor) -> Tensor:
        """(4, b) of index, top, left, flip -> (b, c, h, w) in fp32."""
        index, top, left, flip = crops
        x = (self._windows[index, top, left].float() - self._means[top, left]) * self.normalise.scale
        return torch.where(flip.bool()[:, None, None, None], x.flip(-1), x)


def _windows(padded: Tensor, places: int, size: tuple[int, int]) -> Tensor:
    """Every crop of every image as a view: (n, places, places, c, h, w)."""
    n, c = padded.shape[:2]
    image, channel, row, pixel = padded.stride()
    return padded.as_strided((n, places, places, c, *size), (image, row, pixel, channel, row, pixel))
