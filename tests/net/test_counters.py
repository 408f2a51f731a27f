"""What other tools count on the built nets: each by its own convention, from the same elements."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import pytest
import torch
from fvcore.nn import FlopCountAnalysis
from thop import profile
from torch import nn

from resnetcli.net.module import build
from resnetcli.ops import BatchNorm, Conv, Linear, Pool, PoolTo, ReLU
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from tests.written import plan_of_model


@dataclass(frozen=True)
class Elements:
    """What a convention is a weighted sum of, for one image."""

    M: int
    """Multiply-accumulates of convolutions and fully connected layers."""
    b: int
    """Additions of a bias."""
    B: int
    """Elements that BatchNorm puts out."""
    gamma_beta: int
    """Parameters of BatchNorm."""
    R: int
    """Elements that ReLU puts out."""
    P: int
    """Elements that pooling of every kind reads."""
    g: int
    """Elements that global pooling reads."""
    G: int
    """Elements that global pooling puts out."""


def elements(plan: Plan) -> Elements:
    def of(*kinds: type, read: bool = False) -> int:
        steps = [step for step in plan.steps if isinstance(step.op, kinds)]
        return sum((plan.steps[step.inputs[0]] if read else step).shape.elements for step in steps)

    costs = list(zip(plan.steps, count(plan).steps, strict=True))
    return Elements(
        M=count(plan).macs,
        b=sum(s.shape.elements for s in plan.steps if isinstance(s.op, Conv | Linear) and s.op.bias),
        B=of(BatchNorm),
        gamma_beta=sum(cost.params for step, cost in costs if isinstance(step.op, BatchNorm)),
        R=of(ReLU),
        P=of(Pool, PoolTo, read=True),
        g=of(PoolTo, read=True),
        G=of(PoolTo),
    )


def fvcore(net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    analysis = FlopCountAnalysis(net, x)
    flops = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).total()
    return flops, sum(parameter.numel() for parameter in net.parameters())


def fvcore_in_training(net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    return fvcore(net.train(), x)


def thop(net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    flops, params = profile(net, (x,), verbose=False)
    return flops, params


def ptflops(net: nn.Module, x: torch.Tensor, backend: str = "pytorch") -> tuple[int, int]:
    flops, params = pytest.importorskip("ptflops").get_model_complexity_info(
        net, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend
    )
    return flops, params


def ptflops_aten(net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    return ptflops(net, x, "aten")


def torchinfo(net: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    summary = pytest.importorskip("torchinfo").summary(net, input_data=x, verbose=0)
    return summary.total_mult_adds, summary.total_params


Tool = Callable[[nn.Module, torch.Tensor], tuple[int, int]]
CONVENTIONS: dict[Tool, Callable[[Elements], int]] = {
    fvcore: lambda e: e.M + 2 * e.B + e.g,
    fvcore_in_training: lambda e: e.M + 5 * e.B + e.g,
    thop: lambda e: e.M + 4 * e.B + (e.g // e.G + 1) * e.G,
    ptflops: lambda e: e.M + e.b + 2 * e.B + 2 * (e.R + e.P),
    ptflops_aten: lambda e: e.M + e.b,
    torchinfo: lambda e: e.M + e.b + e.gamma_beta,
}
MODELS = [
    "resnet18", "resnet34_a", "resnet50", "resnet50_v1", "resnext50_32x4d", "resnext50_32x4d_noshortcut",
    "cifar_resnet20", "cifar_plain20",
]  # fmt: skip


SIZE = 64
"""Of the images: a convention holds on any."""


@cache
def net_of(name: str, size: int) -> nn.Module:
    """Built once for all tools."""
    return build(plan_of_model(name, size)).eval()


def counted_by(tool: Tool, name: str, size: int) -> tuple[int, int]:
    net = copy.deepcopy(net_of(name, size))  # some tools leave hooks, buffers or another mode behind
    return tool(net, torch.zeros(1, 3, size, size))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("tool", CONVENTIONS, ids=lambda tool: tool.__name__)
def test_a_tool_counts_what_its_convention_says(tool: Tool, name: str) -> None:
    plan = plan_of_model(name, SIZE)
    assert counted_by(tool, name, SIZE) == (CONVENTIONS[tool](elements(plan)), count(plan).params)


PRINTED: list[tuple[Tool, int, int]] = [
    (fvcore, 4_111_512_576, 4_259_381_248),
    (fvcore_in_training, 4_144_854_528, 4_302_582_784),
    (thop, 4_133_742_592, 4_288_184_320),
    (ptflops, 4_132_436_968, 4_286_878_696),
    (ptflops_aten, 4_089_185_256, 4_230_480_872),
    (torchinfo, 4_089_238_376, 4_230_549_096),
]


@pytest.mark.parametrize(("tool", "resnet50", "resnext50"), PRINTED, ids=lambda value: getattr(value, "__name__", ""))
def test_the_conventions_give_the_figures_that_are_known_of_resnet_50_and_resnext_50(
    tool: Tool, resnet50: int, resnext50: int
) -> None:
    convention = CONVENTIONS[tool]
    assert convention(elements(plan_of_model("resnet50"))) == resnet50
    assert convention(elements(plan_of_model("resnext50_32x4d"))) == resnext50


@pytest.mark.parametrize(
    ("tool", "resnet50", "resnext50"), [entry for entry in PRINTED if entry[0] in (fvcore, thop)],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_fvcore_and_thop_give_them_too(tool: Tool, resnet50: int, resnext50: int) -> None:
    assert counted_by(tool, "resnet50", 224) == (resnet50, 25_557_032)
    assert counted_by(tool, "resnext50_32x4d", 224) == (resnext50, 25_028_904)
