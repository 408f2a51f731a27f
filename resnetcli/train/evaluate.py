"""A net's error on a split: no augmentation, running statistics, fp32 whatever it was trained in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.train.augment import Normalisation

BATCH = 500
"""Images at once. It changes no result but in the last digits of the loss."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """How a net does on a split."""

    wrong: int
    """Images whose class is not the likeliest one."""
    loss: float
    """Mean cross-entropy, without label smoothing."""
    n: int
    """Images."""

    @property
    def error_percent(self) -> float:
        """100 * wrong / n."""
        return 100 * self.wrong / self.n


@torch.no_grad()
def evaluate(
    net: nn.Module,
    images: Tensor,
    labels: Tensor,
    normalise: Normalisation,
    *,
    weights: Mapping[str, Tensor] | None = None,
    channels_last: bool = False,
    batch: int = BATCH,
) -> Evaluation:
    """The net's error on images, uint8 (n, c, h, w), on whatever device they lie.

    In fp32: the weights are, also where training rounds to bf16, so that an error does not depend on the machine it is
    asked of by more than fp32's rounding. `weights`: instead of the net's own, by name. The net is left in the mode it
    was in.
    """
    device = next(net.parameters()).device
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    was_training = net.training
    net.eval()
    try:
        for begin in range(0, len(images), batch):
            x = normalise(images[begin : begin + batch].to(device))  # (b, c, h, w)
            y = labels[begin : begin + batch].to(device)
            x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
            logits = (net(x) if weights is None else functional_call(net, dict(weights), (x,))).flatten(1)
            totals += torch.stack((F.cross_entropy(logits, y, reduction="sum").double(), (logits.argmax(1) != y).sum()))
    finally:
        net.train(was_training)
    loss, wrong = totals.tolist()
    return Evaluation(round(wrong), loss / max(len(images), 1), len(images))
