"""Other people's counters on the built nets: each prints what its convention says, over the whole zoo."""

from __future__ import annotations

import sys
import types
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import nn

import resnetcli as rc
from resnetcli.counting.conventions import CONVENTIONS, tally
from resnetcli.counting.tools import ToolReport, run_tool
from resnetcli.errors import SpecError
from resnetcli.net.module import build
from resnetcli.ops import Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.reports.crosscheck import crosscheck
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.thin import thinned
from tests.support.written import plan_of

ZOO = Zoo()
TOOLS = {name: convention for name, convention in CONVENTIONS.items() if convention.run is not None}
REQUIRED = ("fvcore", "fvcore-train", "thop", "torch")
"""Their tools are dependencies of this package; the others' may be missing."""
SIZES = (32, 64, 96, 128)
"""Of small images: a convention holds on any."""
QUICK = ("cifar_resnet20", "inception_3a", "resnet18")
REPEATED = {"cifar_resnet1202", "cifar_resnet1001", "cifar_preact_resnet1001", "resnext50_32x4d_b"}
"""More of the blocks that other models have, at half a minute each."""


@cache
def smallest(name: str, aux: bool) -> Plan:
    """The model with the smallest images it takes, and few regions, whose number multiplies everything alike."""
    few = {"regions": 3} if "regions" in read(name, zoo=ZOO).parameters else {}
    for size in SIZES:
        try:
            return lower(read(name, zoo=ZOO, input=Shape(3, size, size), parameters=few), aux=aux)
        except SpecError:
            continue
    return lower(read(name, zoo=ZOO, parameters=few), aux=aux)


@pytest.fixture(autouse=True, scope="module")
def calflops_without_transformers() -> None:
    """Calflops imports transformers for language models; what counts convnets does without."""
    for module, name in (("flops_counter_hf", "calculate_flops_hf"), ("estimate", "create_empty_model")):
        stub = types.ModuleType(f"calflops.{module}")
        setattr(stub, name, None)
        sys.modules.setdefault(stub.__name__, stub)


def ours(plan: Plan, convention: str) -> tuple[int, int]:
    return tally(plan, convention).total, count(plan).params


def theirs(convention: str, net: nn.Module, plan: Plan) -> tuple[int, int]:
    """The tool's figures; where it does not count parameters, ours."""
    images = 2 if convention == "fvcore-train" else 1  # torch trains no BatchNorm on one value a channel
    found: ToolReport = run_tool(CONVENTIONS[convention], net, plan, images)
    if found.problem and convention not in REQUIRED:
        pytest.skip(f"{found.package}: {found.problem}")
    assert not found.problem
    assert found.counted is not None
    figure, rest = divmod(found.counted, images)
    assert not rest
    return figure, count(plan).params if found.params is None else found.params


@torch.no_grad()
def zeros(net: nn.Module) -> None:
    """Quicker than drawing weights, and nothing that is counted depends on them."""
    for parameter in net.parameters():
        parameter.zero_()


def held(name: str, aux: bool = False) -> None:
    plan = smallest(name, aux)
    net = build(plan, init=zeros).eval()
    found = {tool: theirs(tool, net, plan) for tool in working()}
    assert found == {tool: ours(plan, tool) for tool in working()}


@cache
def working() -> tuple[str, ...]:
    """The tools that must be there, and those others that are."""
    return tuple(tool for tool in TOOLS if tool in REQUIRED or not run_tool(TOOLS[tool], TINY_NET, TINY).problem)


TINY = plan_of("input: 3x8x8\ntable: {a: [3x3 4], b: [global avg, fc 5]}")
TINY_NET = build(TINY).eval()


@pytest.mark.parametrize("name", QUICK)
def test_every_installed_tool_prints_what_its_convention_says(name: str) -> None:
    held(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ZOO.files if name not in REPEATED])
def test_every_installed_tool_prints_what_its_convention_says_of_every_model(name: str) -> None:
    held(name)
    if read(name, zoo=ZOO).aux:
        held(name, aux=True)


LAYERS = {  # what the zoo does not have, or not in every combination
    "softmax": "[3x3 4, softmax, global avg, fc 5, softmax]",
    "pools to a size": "[3x3 4, avg to 3x3, 1x1 6, max to 2x2, fc 5]",
    "global max": "[3x3 4, global max, fc 5]",
    "average pools": "[3x3 4, 3x3 avg /2, 3x3 avg(pad) /2, global avg, fc 5]",
    "pyramid": "[3x3 4, spp 3 2 1, fc 5]",
    "normalisation": "[3x3 4, lrn 5 0.0001 0.75 2, 3x3 6, lrn 4 0.0001 0.75 1, global avg, fc 5]",
    "dropout": "[3x3 4, dropout 0.5, global avg, dropout 0.2, fc 5]",
    "regions": "[3x3 4, roi 3x3 of 5, 3x3 6, global avg, fc 5]",
    "aside": "[3x3 4, aside: [3x3 8, 1x1 2], global avg, fc 5]",
    "aside of no style": "[3x3 4, aside: [3x3 8, 1x1 2 linear, global avg], global avg, fc 5]",
    "branches": "[concat: [[1x1 4], [1x1 2, 3x3 3 C=1]], sum: [[1x1 4], [3x3 4]], global avg, fc 5]",
}
STYLES = {
    "biased": "conv relu",
    "normalised": "conv bn relu",
    "leaky": "conv bn leaky(0.1)",
    "prelu": "conv bn prelu",
}


@pytest.mark.parametrize("style", thinned(STYLES, 2))
@pytest.mark.parametrize("tool", TOOLS)
def test_a_tool_counts_each_kind_of_layer_as_its_convention_says(tool: str, style: str) -> None:
    for layers in LAYERS.values():
        plan = plan_of(f"input: 3x11x11\nconv: {STYLES[style]}\ntable: {{all: {layers}}}")
        assert theirs(tool, build(plan).eval(), plan) == ours(plan, tool), (layers, style)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tool", "resnet50", "resnext50"),
    [("fvcore", 4_111_512_576, 4_259_381_248), ("thop", 4_133_742_592, 4_288_184_320)],
)
def test_fvcore_and_thop_give_the_figures_that_are_known_of_them(tool: str, resnet50: int, resnext50: int) -> None:
    for name, figure in (("resnet50", resnet50), ("resnext50_32x4d", resnext50)):
        plan = rc.load(name)
        assert theirs(tool, build(plan).eval(), plan) == (figure, count(plan).params)


def test_the_model_that_is_crosschecked_is_left_as_it_was() -> None:
    plan = plan_of("input: 3x16x16\nconv: conv bn relu\ntable: {a: [3x3 4, 3x3 8 /2], b: [global avg, fc 5]}")
    net = build(plan).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    hooks = [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()]
    state = torch.get_rng_state()
    for tool in TOOLS.values():
        run_tool(tool, net, plan)
    assert list(net.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [len(module._forward_hooks) + len(module._forward_pre_hooks) for module in net.modules()] == hooks
    assert not any(module.training for module in net.modules())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tool_that_is_missing_or_fails_is_a_line_and_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(net: nn.Module, x: torch.Tensor) -> tuple[int, int | None]:
        raise RuntimeError("no such thing\nat all")

    tools = dict(TOOLS)
    tools["torch"] = replace(tools["torch"], run=broken)
    tools["torchinfo"] = replace(tools["torchinfo"], package="nothing_of_that_name", run=broken)
    monkeypatch.setattr("resnetcli.counting.tools.CONVENTIONS", tools)
    found = {tool.report.convention: tool for tool in crosscheck(rc.profile("inception_3a", input="192x8x8")).tools}
    assert found["torch"].report.problem == "failed: RuntimeError: no such thing"
    assert found["torchinfo"].report.problem == "not installed"
    assert {found[name].verdict for name in ("torch", "torchinfo")} == {"no figure"}
    assert found["thop"].verdict == "agrees"


def test_a_tool_that_says_something_else_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    tools = {"thop": replace(TOOLS["thop"], run=lambda module, x: (1, None))}
    monkeypatch.setattr("resnetcli.counting.tools.CONVENTIONS", tools)
    found = crosscheck(rc.profile("inception_3a", input="192x8x8"))
    assert [tool.verdict for tool in found.tools] == ["differs"]
    assert not found.agrees


def test_every_convention_of_a_tool_has_its_counter() -> None:
    assert TOOLS.keys() == CONVENTIONS.keys() - {"macs", "flops", "darknet"}
    assert all(tool.package for tool in TOOLS.values())


# Defects that are stated must be there.


def run_in_place(name: str, net: nn.Module, x: torch.Tensor) -> None:
    """Run a tool on the module itself, not on a copy."""
    run = TOOLS[name].run
    assert run is not None
    run(net, x)


def test_fvcore_moves_the_statistics_of_a_model_in_training() -> None:
    plan = plan_of("input: 3x16x16\nconv: conv bn relu\ntable: {a: [3x3 4, 3x3 8 /2], b: [global avg, fc 5]}")
    net = build(plan)
    before = [value.clone() for value in net.buffers()]
    run_in_place("fvcore-train", net, torch.randn(2, 3, 16, 16))
    assert not all(torch.equal(a, b) for a, b in zip(before, net.buffers(), strict=True))


def test_thop_leaves_its_counters_in_the_state_dict() -> None:
    net = build(TINY).eval()
    before = set(net.state_dict())
    run_in_place("thop", net, torch.zeros(1, 3, 8, 8))
    assert {key.rpartition(".")[2] for key in net.state_dict().keys() - before} == {"total_ops", "total_params"}


def test_ptflops_aten_leaves_hooks() -> None:
    pytest.importorskip("ptflops")
    net = build(TINY)
    run_in_place("ptflops-aten", net, torch.zeros(1, 3, 8, 8))
    assert any(module._forward_hooks for module in net.modules())
    assert not net.training


def test_flop_counter_mode_overcounts_the_backward_of_a_grouped_convolution() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    def backward(groups: int) -> int:
        conv, x = nn.Conv2d(8, 8, 3, groups=groups), torch.randn(1, 8, 8, 8, requires_grad=True)
        y = conv(x)
        with FlopCounterMode(display=False) as counter:
            y.sum().backward()
        return int(counter.get_total_flops())

    assert backward(4) > backward(1) // 4
