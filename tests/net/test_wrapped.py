"""TorchScript, graphs and wrappers have the stages of the model in them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import resnetcli as rc
from tests.support.pytorch import IMAGE, JIT, Computes, rows


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.body(x)
        y: Tensor = self.head(x.mean((2, 3)))
        return y


NET_ROWS = [("stem", 240, 3456), ("body", 584, 9216), ("head", 45, 40)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrap",
    [
        torch.jit.script,
        lambda net: JIT.trace(net.eval(), torch.rand(1, *IMAGE)),
        torch.fx.symbolic_trace,
        nn.DataParallel,
        pytest.param(torch.compile, marks=pytest.mark.slow),
        pytest.param(
            lambda net: torch.export.export(net.eval(), (torch.rand(1, *IMAGE),)).module(), marks=pytest.mark.slow
        ),
    ],
    ids=["script", "trace", "fx", "parallel", "compile", "export"],
)
def test_scripted_traced_and_wrapped_models_have_the_rows_of_what_is_in_them(
    wrap: Callable[[nn.Module], nn.Module],
) -> None:
    module = wrap(Net())
    found, again = (rc.profile_module(module, input=IMAGE) for _ in range(2))
    assert found == again
    assert [each for each in rows(found) if any(each[1:])] == NET_ROWS
    assert (found.counts.params, found.counts.macs, found.counts.depth) == (869, 12712, 3)
    assert found.counts.activations == rc.profile_module(Net(), input=IMAGE).counts.activations
    assert len(found.notes) == 1


@pytest.mark.filterwarnings("ignore")
def test_scripted_parts_of_a_model_have_their_rows_and_frozen_ones_a_note() -> None:
    inner = torch.jit.script(nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()))
    traced = JIT.trace(nn.Linear(64, 5), torch.rand(1, 64))
    found = rc.profile_module(nn.Sequential(inner, nn.Conv2d(8, 4, 1), nn.Flatten(), traced), input=IMAGE)
    assert rows(found) == [("0", 224, 3456), ("1", 36, 512), ("2", 0, 0), ("3", 325, 320)]
    frozen = rc.profile_module(torch.jit.freeze(torch.jit.script(Net().eval())), input=IMAGE)
    assert (frozen.counts.params, frozen.counts.macs, frozen.counts.depth) == (0, 12712, 3)
    assert frozen.notes[1].startswith("layers use 832 weights that are not parameters")


def test_modules_the_model_does_not_register_are_copied_without_values() -> None:
    layer = nn.Linear(48, 10, bias=False)
    layer.weight = nn.Parameter(torch.rand(1, 1).expand(1 << 28, 48), requires_grad=False)
    huge = Computes(lambda s, x: s.f[0](x.flatten(1)), f=[layer])
    assert rc.profile_module(huge, input=IMAGE).counts.macs == 48 << 28
