"""Mixed precision: the half-precision copies of all weights, made by one operation each step.

Autocast casts every weight, and every weight's gradient back, by a kernel of its own. The result is the same bit for
bit, as autocast leaves a weight that is half precision already as it is.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class _Cast(torch.autograd.Function):
    """fp32 tensors -> copies of another dtype, in one operation; their gradients -> fp32, likewise."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, list(weights))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        known = [grad for grad in grads if grad is not None]
        wide = [torch.empty_like(grad, dtype=torch.float32) for grad in known]
        if wide:
            torch._foreach_copy_(wide, known)
        found = iter(wide)
        return (None, *(None if grad is None else next(found) for grad in grads))


class HalfWeights(nn.Module):
    """A net whose convolutions and fully connected layers read copies of their fp32 weights in half precision.

    All other parameters, BatchNorm's among them, stay fp32. To be called under autocast, which casts the inputs.
    """

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.net = net
        self._dtype = dtype
        self._places = [
            (module, name, parameter)
            for module in net.modules()
            if isinstance(module, nn.Conv2d | nn.Linear)
            for name, parameter in module.named_parameters(recurse=False)
        ]

    def forward(self, x: Tensor) -> Tensor:
        copies: tuple[Any, ...] = _Cast.apply(self._dtype, *[weight for *_, weight in self._places])  # type: ignore[no-untyped-call]
        try:  # not by `functional_call`, which takes a millisecond for 57 layers
            for (module, name, _), copy in zip(self._places, copies, strict=True):
                module._parameters[name] = copy
            return self.net(x)  # type: ignore[no-any-return]
        finally:
            for module, name, weight in self._places:
                module._parameters[name] = weight
