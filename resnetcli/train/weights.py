"""Per-step copies of all weights at once: in half precision, and one for each BatchNorm group.

Autocast casts every weight, and every weight's gradient back, with a separate kernel. The result is bit-identical,
because autocast leaves half-precision weights unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from resnetcli.train import ghost_norm as norm


class _Cast(torch.autograd.Function):
    """Cast fp32 tensors to another dtype in one operation, and their gradients back to fp32 in another."""

    @staticmethod
    def forward(ctx: Any, dtype: torch.dtype, *weights: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        copies = [torch.empty_like(weight, dtype=dtype) for weight in weights]
        torch._foreach_copy_(copies, list(weights))
        return tuple(copies)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        present = [grad for grad in grads if grad is not None]
        wide = [torch.empty_like(grad, dtype=torch.float32) for grad in present]
        if wide:
            torch._foreach_copy_(wide, present)
        remaining = iter(wide)
        return (None, *(None if grad is None else next(remaining) for grad in grads))


class StepWeights(nn.Module):
    """A model as a training step calls it.

    With a `dtype`, convolutions and fully connected layers read half-precision copies of their fp32 weights; all other
    parameters, including BatchNorm's, stay fp32. Call it under autocast, which casts the inputs.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.model = model
        self._dtype = dtype
        self._norms = norm.grouped_layers(model)
        self._places = [
            (module, name, parameter)
            for module in model.modules()
            if isinstance(module, nn.Conv2d | nn.Linear) and dtype is not None
            for name, parameter in module.named_parameters(recurse=False)
        ]

    def forward(self, x: Tensor) -> Tensor:
        groups = len(x) // self._norms[0].bn_batch if self._norms else 1
        with norm.tiled(self._norms, groups), self._cast():
            return self.model(x)  # type: ignore[no-any-return]

    @contextmanager
    def _cast(self) -> Iterator[None]:
        """Context manager: put the copies in the weights' places; `functional_call` would take a millisecond a step."""
        copies: tuple[Any, ...] = ()
        if self._places:
            copies = _Cast.apply(self._dtype, *[weight for *_, weight in self._places])  # type: ignore[no-untyped-call]
        try:
            for (module, name, _), copy in zip(self._places, copies, strict=True):
                module._parameters[name] = copy
            yield
        finally:
            for module, name, weight in self._places:
                module._parameters[name] = weight
