"""The weights of a step in half precision: bit for bit what autocast casts by itself, and fp32 again afterwards."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from resnetcli.net.module import build
from resnetcli.train import ghost_norm as norm
from resnetcli.train.weights import StepWeights
from tests.support.written import plan_of

NETS = {
    "residual": """{input: 3x8x8, classes: 4, conv: conv bn relu, residual: relu(x + F), shortcut: project,
                   table: {a: 3x3 8, b: [residual x 1: [3x3 16 /2, 3x3 16]], head: [global avg, fc classes]}}""",
    "pre-activation": """{input: 3x8x8, classes: 4, conv: bn relu conv,
                         table: {a: 3x3 8, b: 3x3 8, head: [bn, relu, global avg, fc classes]}}""",
    "biases": "{input: 3x8x8, classes: 4, conv: conv relu, table: {a: 3x3 8, b: 3x3 8, head: [fc 16, fc classes]}}",
    "groups": "{input: 3x8x8, classes: 4, table: {a: 3x3 8, b: 3x3 16 C=4, head: [global avg, fc classes]}}",
}


def losses(net: nn.Module, model: nn.Module, dtype: torch.dtype, x: Tensor) -> tuple[Tensor, list[Tensor | None]]:
    with torch.autocast("cpu", dtype, cache_enabled=False):
        y = model(x)
    y.float().square().sum().backward()
    return y, [parameter.grad for parameter in net.parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("name", NETS)
def test_it_is_bit_for_bit_what_autocast_computes(name: str, dtype: torch.dtype, channels_last: bool) -> None:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    net, other = (build(plan_of(NETS[name])).train().to(memory_format=layout) for _ in range(2))  # type: ignore[call-overload]
    other.load_state_dict(net.state_dict())
    x = torch.randn(4, 3, 8, 8).contiguous(memory_format=layout)
    y, grads = losses(net, net, dtype, x)
    z, found = losses(other, StepWeights(other, dtype), dtype, x)
    assert torch.equal(y, z)
    assert y.dtype == dtype
    for one, two in zip(grads, found, strict=True):
        assert one is not None
        assert two is not None
        assert two.dtype == torch.float32
        assert torch.equal(one, two)


def test_the_model_has_its_own_weights_again_also_after_an_error() -> None:
    net = build(plan_of(NETS["residual"])).train()
    before = dict(net.named_parameters())
    model = StepWeights(net, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        model(torch.randn(4, 3, 8, 8))
    with pytest.raises(RuntimeError):
        model(torch.randn(4, 5, 8, 8))
    after = dict(net.named_parameters())
    assert before.keys() == after.keys()
    assert all(after[name] is parameter for name, parameter in before.items())


class Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations by name."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("layers", [1, 6])
def test_operations_that_cast_and_that_group_do_not_grow_with_the_layers(layers: int) -> None:
    text = "{input: 3x8x8, classes: 4, table: {%s, head: [global avg, fc classes]}}"
    net = build(plan_of(text % ", ".join(f"r{at}: 3x3 8" for at in range(layers)))).train()
    norm.group(net, 2)
    model = StepWeights(net, torch.bfloat16)
    with Counting() as mode, torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        model(torch.randn(4, 3, 8, 8)).float().sum().backward()
    assert mode.counts["_foreach_copy_"] == 9  # casts: 2; parameters: 2 + 1; statistics: 2 + 1 + 1
    assert mode.counts["native_batch_norm"] == layers
    assert mode.counts.get("repeat", 0) == 0
    assert mode.counts["_to_copy"] <= 4  # of the image and the logits
