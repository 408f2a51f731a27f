"""A new operation is known everywhere: an activation from its class alone, any other from its class and its form."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import resnetcli as rc
from resnetcli.cli.main import app
from resnetcli.counting.conventions import tally
from resnetcli.errors import Source, SpecError
from resnetcli.frozen import frozen
from resnetcli.net.module import build
from resnetcli.ops import (
    KINDS,
    TOOL_WEIGHTS,
    WORDS,
    ModuleSettings,
    Norm,
    Saved,
    Shape,
    ShapeError,
    TensorSettings,
    base,
)
from resnetcli.ops.base import Activation
from resnetcli.plan.plan import Plan
from resnetcli.plan.receptive import receptive
from resnetcli.plan.schedule import overwrites
from resnetcli.plan.traffic import traffic
from resnetcli.spec import cell, parse
from resnetcli.spec.format import format_text
from resnetcli.spec.vocabulary import FORMS, Argument, Form
from tests.support import held
from tests.support.written import plan_of

BATCH = 2


@pytest.fixture
def registry() -> Iterator[None]:
    """Forget afterwards what a test registers."""
    tables: tuple[dict[str, Any], ...] = (WORDS, KINDS, TOOL_WEIGHTS)
    before = copy.deepcopy(tables)
    yield
    for table, content in zip(tables, before, strict=True):
        table.clear()
        table.update(content)
    for parser in (cell.parse_cell, parse.parse_layers):
        parser.cache_clear()


# --- an activation: one class ----------------------------------------------------------------------------------------


@frozen
class Mish(Activation):
    """x * tanh(log(1 + exp(x)))."""

    word = "mish"
    kinds: ClassVar[Mapping[str, str]] = {"mish": "output elements of Mish"}
    tool_weights: ClassVar[Mapping[str, Mapping[str, int]]] = {"ptflops": {"mish": 3}}

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.Mish`."""
        from torch import nn

        return nn.Mish()


@frozen
class Elu(Activation):
    """x if x > 0 else alpha * (exp(x) - 1); in place, as its gradient follows from its output."""

    word = "elu"
    kinds: ClassVar[Mapping[str, str]] = {"elu": "output elements of ELU"}
    tool_weights: ClassVar[Mapping[str, Mapping[str, int]]] = {"ptflops": {"elu": 3}}
    in_place = True

    alpha: float = 1.0

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The output if it overwrites the input, else the input."""
        return Saved(output=True)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.ELU`."""
        return nn.ELU(self.alpha, settings.in_place)


ACTIVATIONS: list[tuple[type[Activation], str, str]] = [(Mish, "mish", "Mish()"), (Elu, "elu(0.5)", "ELU(alpha=0.5")]
"""Class, how a spec writes it, how its module prints."""
each_activation = pytest.mark.parametrize(("kind", "text", "module"), ACTIVATIONS, ids=["mish", "elu"])
SPEC = """\
input: 3x16x16
conv: conv bn {0}
residual: {0}(x + F)
table:
  a: 3x3 8
  b: [residual x 2: [3x3 8, 3x3 8]]
  c: [3x3 8 linear, {0}, global avg, fc 10]
"""
ELEMENTS = 6 * 8 * 16 * 16
"""Of all activations: one after `a`, two in each block, one written out."""


def steps_of(plan: Plan, kind: type[object]) -> list[int]:
    return [index for index, step in enumerate(plan.steps) if isinstance(step.op, kind)]


def invoke(command: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, command.split(), env={"COLUMNS": "120", "TERMINAL_WIDTH": "120", "NO_COLOR": "1"})
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.usefixtures("registry")
@each_activation
def test_an_activation_is_counted_built_and_measured_from_its_class_alone(
    kind: type[Activation], text: str, module: str
) -> None:
    base.register(kind)
    plan, relu = plan_of(SPEC.format(text)), plan_of(SPEC.format("relu"))
    activations = steps_of(plan, kind)
    assert [plan.steps[index].path for index in activations] == [
        f"a.0.{kind.word}", f"b.0.0.F.0.{kind.word}", f"b.0.0.{kind.word}", f"b.0.1.F.0.{kind.word}",
        f"b.0.1.{kind.word}", f"c.1.{kind.word}",
    ]  # fmt: skip
    assert rc.count(plan).total == rc.count(relu).total
    assert tally(plan, "ptflops").parts[kind.word] == 3 * ELEMENTS
    assert f"3 {kind.word}" in tally(plan, "ptflops").formula
    assert [index for index in overwrites(plan) if index in activations] == (activations if kind.in_place else [])
    assert sum(traffic(plan)[index].written for index in activations) == ELEMENTS
    assert sum(traffic(plan, fused=True)[index].bytes() for index in activations) == 0
    assert receptive(plan) == receptive(relu)
    assert held.derived(plan) == held.measured(plan, "cpu")
    modules = [str(each) for each in build(plan).modules() if str(each).startswith(module)]
    assert len(modules) == len(activations)


@pytest.mark.usefixtures("registry")
@each_activation
def test_an_activation_is_read_written_and_shown_by_its_word(
    kind: type[Activation], text: str, module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base.register(kind)
    monkeypatch.chdir(tmp_path)
    Path("relu.yaml").write_text(SPEC.format("relu"), "utf-8")
    Path("new.yaml").write_text(SPEC.format(text), "utf-8")
    layer = next(line for line in invoke("profile new.yaml --by layer").splitlines() if "c.1" in line)
    assert kind.word in layer.split()
    assert text in invoke("show new.yaml")
    assert f"relu -> {text}" in invoke("diff relu.yaml new.yaml")
    assert text in invoke("show new.yaml --format json")
    pasted = f"input: 3x8x8\ntable:\n  a: 3×3, 64, {kind.word.upper()}{text.removeprefix(kind.word)}\n"
    canonical = format_text(Source("pasted.yaml", pasted.replace("64, ", "64\n  b: ")))
    assert canonical == f"input: 3x8x8\ntable:\n  a: 3x3 64\n  b: {text}\n"


@pytest.mark.usefixtures("registry")
def test_an_error_lists_a_new_activation() -> None:
    base.register(Mish)
    with pytest.raises(SpecError) as caught:
        plan_of("input: 3x8x8\nconv: conv bn selu\ntable: {a: 3x3 8}\n")
    assert caught.value.problems[0].hint.endswith("activations: relu, leaky(0.1), prelu, mish")
    with pytest.raises(SpecError) as caught:
        plan_of("input: 3x8x8\ntable: {a: [3x3 8, mihs]}\n")
    assert caught.value.problems[0].hint == "did you mean `mish`?"


# --- any other operation: its class and its form ---------------------------------------------------------------------


@frozen
class GroupNorm(Norm):
    """y = gamma * (x - mean) / sqrt(var + 1e-5) + beta, mean and variance over each group of channels."""

    word = "gn"
    kinds: ClassVar[Mapping[str, str]] = {"groupnorm": "output elements of GroupNorm"}
    tool_weights: ClassVar[Mapping[str, Mapping[str, int]]] = {"thop": {"groupnorm": 4}}
    pointwise = True
    overwritable = True

    groups: int

    def out(self, x: Shape) -> Shape:
        """The shape of x."""
        if x.c % self.groups:
            raise ShapeError(f"{x.c} channels do not split into {self.groups} groups", recovered=x)
        return x

    def params(self, x: Shape) -> int:
        """gamma and beta: 2c."""
        return 2 * x.c

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element."""
        return {"groupnorm": y.elements}

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input, and each group's mean and inverse deviation."""
        return Saved(input=True, image_bytes=2 * self.groups * settings.size)

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The same statistics in inference."""
        return 0 if settings.train else 2 * self.groups * settings.size

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.GroupNorm`."""
        return nn.GroupNorm(self.groups, x.c, **settings.factory)


GN_SPEC = SPEC.format("relu").replace("conv bn", "conv gn(4)").replace("linear, relu", "linear, gn(2*2), relu")


@pytest.fixture
def _group_norm(registry: None) -> Iterator[None]:
    base.register(GroupNorm)
    FORMS["gn"] = Form("gn(32)", (Argument("the number of groups", "whole", most=1024),), bracketed=True)
    yield
    del FORMS["gn"]


@pytest.mark.usefixtures("_group_norm")
def test_an_operation_is_counted_built_and_measured_from_its_class() -> None:
    plan = plan_of(GN_SPEC)
    norms = steps_of(plan, GroupNorm)
    assert [plan.steps[index].path for index in norms] == [
        "a.0.gn", "b.0.0.F.0.gn", "b.0.0.F.1.gn", "b.0.1.F.0.gn", "b.0.1.F.1.gn", "c.1.gn",
    ]  # fmt: skip
    convolutions = 3 * 8 * 9 + 5 * 8 * 8 * 9 + 8  # one `linear`, which has a bias
    assert rc.count(plan).params == convolutions + 6 * 2 * 8 + 8 * 10 + 10
    assert tally(plan, "thop").parts["groupnorm"] == 4 * ELEMENTS
    assert sum(traffic(plan)[index].weights for index in norms) == 6 * 2 * 8
    assert receptive(plan)[norms[0]] == receptive(plan)[norms[0] - 1]
    assert held.derived(plan) == held.measured(plan, "cpu")
    net = build(plan)
    assert sum(parameter.numel() for parameter in net.parameters()) == rc.count(plan).params
    assert sum(isinstance(module, nn.GroupNorm) for module in net.modules()) == len(norms)
    assert net(torch.zeros(BATCH, 3, 16, 16)).shape == (BATCH, 10)


@pytest.mark.usefixtures("_group_norm")
def test_an_operation_is_read_written_and_shown_by_its_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("new.yaml").write_text(GN_SPEC, "utf-8")
    Path("other.yaml").write_text(GN_SPEC.replace("2*2", "2"), "utf-8")
    layer = next(line for line in invoke("profile new.yaml --by layer").splitlines() if "c.1" in line)
    assert "gn" in layer.split()
    assert "gn(4)" in invoke("show new.yaml")
    assert "gn(4) -> gn(2)" in invoke("diff new.yaml other.yaml")
    assert "gn(4)" in invoke("show new.yaml --format json")
    assert invoke("fmt --check new.yaml") == ""


@pytest.mark.usefixtures("_group_norm")
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("gn", "`gn` needs the number of groups"),
        ("gn(0)", "0 is out of range: the number of groups is at least 1"),
        ("gn(3)", "8 channels do not split into 3 groups"),
        ("gn(8) 2", "unexpected `2` after `gn`"),
    ],
)
def test_errors_follow_from_the_form_and_the_class(written: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(f"input: 3x8x8\ntable: {{a: [3x3 8 bare, {written}]}}\n")
    assert caught.value.problems[0].message == message


@pytest.mark.usefixtures("_group_norm")
@pytest.mark.parametrize("written", ["gn", "gn(0)", "gn(x)", "gn(4.5)"])
def test_conv_takes_an_operation_in_its_form_only(written: str) -> None:
    with pytest.raises(SpecError) as caught:
        plan_of(f"input: 3x8x8\nconv: conv {written} relu\ntable: {{a: 3x3 8}}\n")
    assert caught.value.problems[0].message == f"`{written}` is not of the form `gn(32)`"
