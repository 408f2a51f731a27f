"""PyTorch modules that `torch.nn` lacks, and layers with uninitialised weights."""

from __future__ import annotations

import random
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - its usual name


class _Conv2d(nn.Conv2d):
    """A convolution with uninitialised weights: initialising twice would dominate the build time."""

    def reset_parameters(self) -> None:
        """Do nothing."""


class _Linear(nn.Linear):
    """A fully connected layer with uninitialised weights."""

    def reset_parameters(self) -> None:
        """Do nothing."""


def conv2d(*arguments: Any, **factory: Any) -> nn.Conv2d:
    """An `nn.Conv2d` with uninitialised weights."""
    return _as_parent(_Conv2d(*arguments, **factory), nn.Conv2d)


def linear(*arguments: Any, **factory: Any) -> nn.Linear:
    """An `nn.Linear` with uninitialised weights."""
    return _as_parent(_Linear(*arguments, **factory), nn.Linear)


M = TypeVar("M", bound=nn.Module)


def _as_parent(module: M, parent: type[M]) -> M:
    """The module as an instance of the `torch.nn` class, by which tools identify layers."""
    module.__class__ = parent
    return module


class ScaleModule(nn.Module):
    """factor * x."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor

    def extra_repr(self) -> str:
        return f"{self.factor}"


class PadChannelsModule(nn.Module):
    """Every stride-th pixel, zero channels appended: (b, c, h, w) -> (b, c + added, ceil(h/stride), ceil(w/stride))."""

    def __init__(self, added: int, stride: int) -> None:
        super().__init__()
        self.added, self.stride = added, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.added))

    def extra_repr(self) -> str:
        return f"{self.added}, stride={self.stride}"


class PyramidPoolModule(nn.Module):
    """Max pooling to each level's grid, concatenated to one vector: (b, c, h, w) -> (b, c * sum of level^2)."""

    def __init__(self, levels: tuple[int, ...]) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([F.adaptive_max_pool2d(x, level).flatten(1) for level in self.levels], 1)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.levels))


class RegionPoolModule(nn.Module):
    """`size` samples of each of `maps` regions, the same boxes for every image: (b, c, h, w) -> (b*maps, c, *size).

    RoIAlign with one bilinear sample a bin (He et al. 2017, arXiv:1703.06870, 3). Proposals are not computed: the
    boxes are drawn once, from a fixed seed, in coordinates relative to the image.
    """

    grid: Tensor

    def __init__(self, size: tuple[int, int], maps: int, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self.size, self.maps = size, maps
        # Not in the state_dict: it is not a weight, and follows from the arguments.
        self.register_buffer("grid", _sample_points(size, maps, device, dtype), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        b, c = x.shape[:2]
        h, w = self.size
        # All regions stacked along the height, so that no image's feature map is copied.
        y = F.grid_sample(x, self.grid.expand(b, -1, -1, -1), align_corners=False)  # (b, c, maps*h, w)
        return y.view(b, c, self.maps, h, w).transpose(1, 2).reshape(b * self.maps, c, h, w)  # (b*maps, c, h, w)

    def extra_repr(self) -> str:
        return f"{self.size[0]}x{self.size[1]} of {self.maps}"


def _sample_points(size: tuple[int, int], maps: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """The bins' centres of all boxes, (1, maps*h, w, 2), x before y, the image spanning -1 to 1."""
    h, w = size
    if device.type == "meta":
        return torch.empty(1, maps * h, w, 2, device=device, dtype=dtype)
    draw = random.Random(0).uniform
    boxes = [sorted((draw(-1, 1), draw(-1, 1))) + sorted((draw(-1, 1), draw(-1, 1))) for _ in range(maps)]
    left, right, top, bottom = torch.tensor(boxes).T  # each (maps,)
    across, down = (torch.arange(w) + 0.5) / w, (torch.arange(h) + 0.5) / h
    x = torch.lerp(left[:, None], right[:, None], across).view(maps, 1, w).expand(maps, h, w)
    y = torch.lerp(top[:, None], bottom[:, None], down).view(maps, h, 1).expand(maps, h, w)
    return torch.stack((x, y), -1).view(1, maps * h, w, 2).to(device=device, dtype=dtype)
