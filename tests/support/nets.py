"""Small models of each kind of residual block, with random weights and calibrated BatchNorm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from resnetcli.bench.weights import build_random, calibrate_norms
from resnetcli.net.module import Net
from resnetcli.ops import Add, BatchNorm, Concat, Conv, Linear, PoolTo, ReLU
from resnetcli.plan.plan import Plan
from tests.support.sketch import Sketch, residual_net

CPU = torch.device("cpu")


def trace_shapes(net: Net, x: Tensor) -> list[tuple[int, ...]]:
    """The output shape of each step in one forward pass, batch first; (b, c) after fully connected layers."""
    shapes: list[tuple[int, ...]] = []
    with torch.no_grad():
        net.run(x, observe=lambda output: shapes.append(tuple(output.shape)))
    return shapes


def calibrated(plan: Plan, images: int = 2) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    net, x = build_random(plan, CPU), torch.randn(images, plan.input.c, plan.input.h, plan.input.w)
    with torch.no_grad():
        calibrate_norms(net, x, plan)
    return net, x


def pre_activation_net() -> Plan:
    s = Sketch(3, 8, 8)
    x = s.step("conv1", Conv(4, (3, 3), pad=(1, 1)))
    for block in "ab":
        s.step(f"{block}.bn", BatchNorm(), x)
        s.step(f"{block}.relu", ReLU())
        s.step(f"{block}.F.conv", Conv(4, (3, 3), pad=(1, 1)))
        s.step(f"{block}.F.bn", BatchNorm())
        s.step(f"{block}.F.relu", ReLU())
        f = s.step(f"{block}.F.last", Conv(4, (3, 3), pad=(1, 1), groups=2, bias=True))
        x = s.step(f"{block}.add", Add(), f, x)
    s.step("head.pool", PoolTo("avg", (1, 1)))
    s.step("head.fc", Linear(5, bias=False))
    s.step("head.bn", BatchNorm())
    return s.plan()


def branching_net() -> Plan:
    s = Sketch(3, 8, 8)
    a = s.step("a.conv", Conv(4, (1, 1)))
    b = s.step("a.bn", BatchNorm())
    c = s.step("c.conv", Conv(4, (3, 3), pad=(1, 1)), b)
    d = s.step("c.bn", BatchNorm())
    e = s.step("cat", Concat(), a, d, c)
    s.step("e.conv", Conv(6, (3, 3), dilation=2, pad=(2, 2)), e)
    s.step("e.bn", BatchNorm(1e-3))
    s.step("e.relu", ReLU())
    return s.plan()


NETS = {"residual": residual_net(2), "pre-activation": pre_activation_net(), "branching": branching_net()}
every_net = pytest.mark.parametrize("plan", NETS.values(), ids=NETS)
