"""Ghost batch norm: BatchNorm over groups of a batch, as data-parallel processes with one group each compute it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - PyTorch's convention


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Normalise each `bn_batch` images of a training batch separately; running statistics are the groups' mean.

    With G groups, image i belongs to group i mod G. Each G images in a row then form one image with G times the
    channels, (b*G, c, h, w) -> (b, G*c, h, w), which copies only channels_last tensors.
    """

    bn_batch: int
    tiles: Tiles | None = None

    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and len(x) > self.bn_batch else super().forward(x)


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """As `GroupedBatchNorm2d`, for vectors."""

    bn_batch: int
    tiles: Tiles | None = None

    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and len(x) > self.bn_batch else super().forward(x)


@dataclass(slots=True)
class Tiles:
    """A layer's parameters and running statistics, once for each group: (G*c,)."""

    weight: Tensor
    bias: Tensor
    mean: Tensor
    var: Tensor


Grouped = GroupedBatchNorm2d | GroupedBatchNorm1d


def _forward(norm: Grouped, x: Tensor) -> Tensor:
    groups = len(x) // norm.bn_batch
    mean, var, momentum = norm.running_mean, norm.running_var, norm.momentum
    assert mean is not None  # `build` creates them
    assert var is not None
    assert momentum is not None
    tiles = norm.tiles
    if tiles is None:
        tiles = Tiles(*(one.repeat(groups) for one in (norm.weight, norm.bias, mean, var)))
    y = F.batch_norm(_fold(x, groups), tiles.mean, tiles.var, tiles.weight, tiles.bias, True, momentum, norm.eps)
    y = _unfold(y, groups)
    if norm.tiles is None:
        with torch.no_grad():
            mean.copy_(tiles.mean.view(groups, -1).mean(0))
            var.copy_(tiles.var.view(groups, -1).mean(0))
    return y


def _fold(x: Tensor, groups: int) -> Tensor:
    """(b*G, c, h, w) -> (b, G*c, h, w), in the same memory format."""
    if _is_channels_last(x):
        return _Fold.apply(x, groups)  # type: ignore[no-untyped-call, no-any-return]
    return _view(x.contiguous(), (len(x) // groups, groups * x.shape[1], *x.shape[2:]))


def _unfold(x: Tensor, groups: int) -> Tensor:
    """(b, G*c, h, w) -> (b*G, c, h, w), in the same memory format."""
    if _is_channels_last(x):
        return _Unfold.apply(x, groups)  # type: ignore[no-untyped-call, no-any-return]
    return _view(x.contiguous(), (len(x) * groups, x.shape[1] // groups, *x.shape[2:]))


def _view(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """As `x.view`, but a new tensor for autograd, which copies views that an in-place operation (ReLU) changes."""
    y: Tensor = torch.ops.aten._unsafe_view(x, shape)
    return y


def _is_channels_last(x: Tensor) -> bool:
    return x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class _Fold(torch.autograd.Function):
    """`_fold` for channels_last, which has to copy."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int) -> Tensor:
        ctx.groups = groups
        b, c, h, w = x.shape
        y = _empty(x, b // groups, groups * c, h, w)
        y.unflatten(1, (groups, c)).copy_(x.unflatten(0, (-1, groups)))  # type: ignore[no-untyped-call]
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Unfold.forward(ctx, grad, ctx.groups), None


class _Unfold(torch.autograd.Function):
    """`_unfold` for channels_last."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, groups: int) -> Tensor:
        ctx.groups = groups
        b, c, h, w = x.shape
        y = _empty(x, b * groups, c // groups, h, w)
        y.unflatten(0, (-1, groups)).copy_(x.unflatten(1, (groups, -1)))  # type: ignore[no-untyped-call]
        return y

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _Fold.forward(ctx, grad, ctx.groups), None


def _empty(x: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


class _Tile(torch.autograd.Function):
    """Repeat each vector once per group, with one operation per group for all vectors."""

    @staticmethod
    def forward(ctx: Any, groups: int, *vectors: Tensor) -> tuple[Tensor, ...]:
        ctx.groups = groups
        return tuple(_tile(vectors, groups))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *_sums(grads, ctx.groups))


def _tile(vectors: Sequence[Tensor], groups: int) -> list[Tensor]:
    tiles = [vector.new_empty(groups * len(vector)) for vector in vectors]
    for rows in _rows(tiles, groups):
        torch._foreach_copy_(rows, list(vectors))
    return tiles


def _sums(tiles: Sequence[Tensor], groups: int) -> list[Tensor]:
    first, *others = _rows(tiles, groups)
    sums = [torch.empty_like(row) for row in first]
    torch._foreach_copy_(sums, first)
    for rows in others:
        torch._foreach_add_(sums, rows)
    return sums


def _rows(tiles: Sequence[Tensor], groups: int) -> list[list[Tensor]]:
    """The slice of each tile for every group."""
    return [list(rows) for rows in zip(*(tile.view(groups, -1).unbind() for tile in tiles), strict=True)]


@contextmanager
def tiled(norms: Sequence[Grouped], groups: int) -> Iterator[None]:
    """Context manager for a forward pass: prepare the tiles of all layers at once.

    Preparing each layer separately takes ten small kernels on a GPU, which dominate models as small as CIFAR's.
    """
    if not norms:
        yield
        return
    n = len(norms)
    parameters = _Tile.apply(groups, *(norm.weight for norm in norms), *(norm.bias for norm in norms))  # type: ignore[no-untyped-call]
    running = [buffer for norm in norms for buffer in (norm.running_mean, norm.running_var) if buffer is not None]
    with torch.no_grad():
        statistics = _tile(running, groups)
    try:
        for at, norm in enumerate(norms):
            norm.tiles = Tiles(parameters[at], parameters[n + at], statistics[2 * at], statistics[2 * at + 1])
        yield
        with torch.no_grad():
            sums = _sums(statistics, groups)
            torch._foreach_div_(sums, groups)
            torch._foreach_copy_(running, sums)
    finally:
        for norm in norms:
            norm.tiles = None


def grouped_layers(model: nn.Module) -> list[Grouped]:
    """The BatchNorm layers that `group` has changed."""
    return [module for module in model.modules() if isinstance(module, Grouped)]


def group(model: nn.Module, bn_batch: int) -> None:
    """Make every BatchNorm layer of the model normalise over groups of `bn_batch` images."""
    for module in model.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupedBatchNorm2d
        elif type(module) is nn.BatchNorm1d:
            module.__class__ = GroupedBatchNorm1d
        else:
            continue
        module.bn_batch = bn_batch  # type: ignore[assignment]
