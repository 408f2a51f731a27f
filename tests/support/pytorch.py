"""PyTorch models for tests, and the state that counting must not change."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.flop_counter import FlopCounterMode

import resnetcli as rc
from resnetcli.net.meta_copy import meta_copy
from resnetcli.reports.profile import parts

IMAGE = (3, 4, 4)
JIT: Any = torch.jit


class Computes(nn.Module):
    """A module whose forward is a function of itself and the image; keyword arguments become its attributes."""

    def __init__(self, function: Callable[[Any, Tensor], Any], **held: Any) -> None:
        super().__init__()
        self.function = function
        for name, value in held.items():
            setattr(self, name, nn.Parameter(value) if isinstance(value, Tensor) else value)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def rows(found: rc.Profile) -> list[tuple[str, int, int]]:
    return [(part.name, part.cost.params, part.cost.macs) for part in parts(found, "stage")]


def state(module: nn.Module) -> list[Any]:
    """All state that a count must not change: modules' attributes, bit by bit, and random number generators."""

    def bits(tensor: Tensor | None) -> Any:
        if tensor is None or tensor.device.type == "meta" or nn.parameter.is_lazy(tensor):
            return None if tensor is None else (type(tensor), tensor.device.type, id(tensor))
        octets = torch.empty(0, dtype=torch.uint8).set_(tensor.detach().clone().untyped_storage())
        return id(tensor), tensor.dtype, tensor.requires_grad, octets.numpy().tobytes()

    held: list[Any] = []
    for path, each in module.named_modules():
        registered = [*each._parameters.items(), *each._buffers.items()]
        held.append((path, type(each), id(each), each.training, [*vars(each)], [(k, bits(v)) for k, v in registered]))
        held.append([(k, [*v.items()]) for k, v in vars(each).items() if k.endswith("_hooks")])
        held.append([bits(p.grad) for p in each._parameters.values() if p is not None and not nn.parameter.is_lazy(p)])
    everywhere = [[*vars(hooks)[name]] for name in sorted(vars(hooks)) if name.startswith("_global_")
                  and isinstance(vars(hooks)[name], dict)]  # fmt: skip
    chance = [random.getstate(), torch.get_rng_state().tolist(), str(numpy.random.get_state())]
    modes = [torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()]
    return [held, [*module.state_dict()], everywhere, chance, modes]


def figures(counts: rc.Counts) -> tuple[int, int, int, int]:
    return counts.params, counts.macs, counts.activations, counts.depth


def counted(module: nn.Module, input: tuple[int, int, int] = (3, 8, 8)) -> rc.Profile:
    """The module's profile; asserts that a second one is equal and that the module has not changed."""
    before = state(module)
    first, second = (rc.profile_module(module, input=input) for _ in range(2))
    assert state(module) == before
    assert first == second
    return first


def of_torch(module: nn.Module, *shape: int) -> int:
    """MACs by PyTorch's own FLOP counter, on a meta-device copy."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        meta_copy(module).eval()(torch.empty(1, *shape, device="meta"))
    flops = int(counter.get_total_flops())
    assert flops % 2 == 0
    return flops // 2
