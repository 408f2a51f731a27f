"""BatchNorm over parts of a batch, as on so many GPUs: what a process of its own for each part would compute."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it


class GroupedBatchNorm2d(nn.BatchNorm2d):
    """Normalises each `bn_batch` images of a training batch by themselves; running statistics are the groups' mean."""

    bn_batch: int

    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and len(x) > self.bn_batch else super().forward(x)


class GroupedBatchNorm1d(nn.BatchNorm1d):
    """As `GroupedBatchNorm2d`, of vectors."""

    bn_batch: int

    def forward(self, x: Tensor) -> Tensor:
        return _forward(self, x) if self.training and len(x) > self.bn_batch else super().forward(x)


def _forward(norm: GroupedBatchNorm2d | GroupedBatchNorm1d, x: Tensor) -> Tensor:
    groups = torch.split(x, norm.bn_batch)
    mean, var, momentum = norm.running_mean, norm.running_var, norm.momentum
    assert mean is not None  # as `build` makes them
    assert var is not None
    assert momentum is not None
    means, variances = (one.expand(len(groups), -1).clone() for one in (mean, var))
    parts = [
        F.batch_norm(part, means[at], variances[at], norm.weight, norm.bias, True, momentum, norm.eps)
        for at, part in enumerate(groups)
    ]
    with torch.no_grad():
        mean.copy_(means.mean(0))
        var.copy_(variances.mean(0))
        if norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
    return torch.cat(parts)


def group(net: nn.Module, bn_batch: int) -> None:
    """Has every BatchNorm of the net normalise over `bn_batch` images."""
    for module in net.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = GroupedBatchNorm2d
        elif type(module) is nn.BatchNorm1d:
            module.__class__ = GroupedBatchNorm1d
        else:
            continue
        module.bn_batch = bn_batch  # type: ignore[assignment]
