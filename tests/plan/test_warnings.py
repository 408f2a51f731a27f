"""Warnings about legal but probably unintended specs; no model of the zoo has one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from resnetcli.cli.main import app
from resnetcli.errors import Problem, Source, listening
from resnetcli.plan.lower import lower
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.thin import thinned

ZOO = Zoo()
HEADER = "input: 3x32x32\nclasses: 10\n"
PRE = f"{HEADER}conv: bn relu conv\nresidual: x + F\n"
END = "bn, relu, global avg, fc classes"
SECOND = "a second BN on a normalised input"
TWICE = "`relu` on an activated input"
LOST = "a convolution without its BN: its input is activated, but not normalised"
NO_END = "a pre-activation model without a final BN and activation"
IMAGE = "BN and activation on the image itself, before the first convolution"


def warnings_of(text: str) -> list[str]:
    return [warning.message for warning in lower(read(Source("net.yaml", text), zoo=ZOO)).warnings]


@pytest.mark.parametrize(
    ("table", "messages"),
    [
        ("{c: [3x3 16 /2, bn, relu], h: [global avg, fc classes]}", [SECOND]),
        ("{c: [3x3 16 /2, bn], h: [global avg, fc classes]}", [SECOND]),
        ("{c: [3x3 16, 2x2 max /2, bn], h: [global avg, fc classes]}", [SECOND]),
        ("{c: [3x3 16, relu], h: [global avg, fc classes]}", [TWICE]),
        ("{c: [3x3 16, 2x2 max /2, relu], h: [global avg, fc classes]}", [TWICE]),
        ("{c: [residual: [3x3 3], relu], h: [global avg, fc classes]}", [TWICE]),
        ("{c: [residual: [3x3 3], bn, relu], h: [global avg, fc classes]}", []),
        ("{c: [3x3 16 bare, bn, relu], h: [global avg, fc classes]}", []),
        ("{c: [3x3 16 linear, relu], h: [global avg, fc classes]}", []),
        ("{c: [concat: [1x1 4, 3x3 4], bn], h: [global avg, fc classes]}", []),
        ("{c: 3x3 16, h: [fc 10, relu, dropout 0.5, fc classes]}", []),
        ("{c: 3x3 16, h: [global avg, fc classes, dropout 0.5]}", ["dropout on the output"]),
        ("{c: 3x3 16 /4, h: [8x8 avg, fc classes]}", ["padded average pooling over the whole 8x8 feature map"]),
        ("{c: 3x3 16 /4, h: [8x8 avg V, fc classes]}", []),
        ("{c: 3x3 16 /4, h: [3x3 avg, fc classes]}", []),
        ("{c: [residual: [3x3 3, aside: [global avg, 1x1 2, 1x1 3]]], h: [global avg, fc classes]}",
         ["the weights of 4 layers in stage `c` affect no output"]),
        ("{c: [aside: [relu], 3x3 4], h: [global avg, fc classes]}", []),
        ("{c: [conv3-64, conv3-64, 2x2 max /2], h: [FC-4096, FC-10]}", ["`conv3-64` has a BN, which is the default"]),
        ("{c: [conv3-64], h: [FC-10]}\nconv: conv bn relu", []),
        ("{c: [conv3-64], h: [FC-10]}\nconv: conv relu", []),
    ],
)  # fmt: skip
def test_a_model_is_warned_of(table: str, messages: list[str]) -> None:
    assert warnings_of(f"{HEADER}table: {table}\n") == messages


@pytest.mark.parametrize(
    ("rows", "messages"),
    [
        (f"{{c: 3x3 16 bare, r: [residual x 2: [3x3 16, 3x3 16]], h: [{END}]}}", []),
        (f"{{c: [7x7 16 /2 bare, bn, relu, 3x3 max /2], r: [residual: [1x1 8, 3x3 8, 1x1 32]], h: [{END}]}}", []),
        ("{c: 3x3 16 bare, r: [residual: [3x3 16]], h: [global avg, fc classes]}", [NO_END]),
        ("{c: 3x3 16 bare, r: [residual: [3x3 16]], h: [8x8 avg V, fc classes]}", [NO_END]),
        ("{c: 3x3 16 bare, r: [residual: [3x3 16]], h: [relu, global avg, fc classes]}", [NO_END]),
        ("{c: 3x3 16 bare, r: [residual: [3x3 16]], h: [bn, global avg, fc classes]}", [NO_END]),
        (f"{{c: 3x3 16, r: [residual: [3x3 16]], h: [{END}]}}", [IMAGE]),
        (f"{{c: [3x3 16 bare, relu], r: [residual: [3x3 16]], h: [{END}]}}", [LOST]),
        (f"{{c: 3x3 16 bare, r: [residual: [3x3 16, relu, 3x3 16]], h: [{END}]}}", [LOST]),
        (f"{{c: 3x3 16 bare, r: [residual: [3x3 16, bn, relu, dropout 0.3, 3x3 16]], h: [{END}]}}", []),
    ],
)
def test_a_pre_activation_model_is_warned_of_a_bn_it_loses(rows: str, messages: list[str]) -> None:
    assert warnings_of(f"{PRE}table: {rows}\n") == messages


def test_pre_activation_with_the_equation_of_resnet_loses_its_norms() -> None:
    text = PRE.replace("residual: x + F\n", "")
    text += f"table: {{c: 3x3 16 bare, r: [residual x 2: [3x3 16, 3x3 16]], h: [{END}]}}\n"
    [warning] = lower(read(Source("net.yaml", text), zoo=ZOO)).warnings
    assert warning.message == LOST
    assert "`residual: x + F`" in warning.hint


def test_weights_without_an_influence_can_be_told_of() -> None:
    table = "table: {c: [aside: 3x3 4, 3x3 16], h: [global avg, fc classes]}\n"
    assert warnings_of(f"{HEADER}{table}") == ["the weights of 2 layers in stage `c` affect no output"]
    for told in ("row c proposes", "computed in `aside`"):
        assert not warnings_of(f'{HEADER}deviations: ["{told}"]\n{table}')


@pytest.mark.parametrize("name", thinned(ZOO.files, 4))
def test_no_model_of_the_zoo_is_warned_of(name: str) -> None:
    spec = read(name, zoo=ZOO)
    assert not lower(spec, aux=True).warnings
    assert not lower(spec).warnings


def test_a_warning_is_passed_on_once() -> None:
    found: list[Problem] = []
    spec = read(Source("net.yaml", f"{HEADER}table: {{c: [3x3 4, bn], h: [fc classes]}}\n"), zoo=ZOO)
    with listening(found.append):
        lower(spec)
        lower(spec)
        with listening(None):
            lower(spec)
    lower(spec)
    assert [(warning.message, warning.severity) for warning in found] == [(SECOND, "warning")]


BN_TWICE = f"{HEADER}table:\n  c: [3x3 16 /2, bn, relu]\n  h: [global avg, fc classes]\n"
COMMANDS = ["check NET", "profile NET", "compare NET cifar_resnet20", "show NET", "diff NET cifar_resnet20",
            "info NET", "max-batch NET --memory 1GB", "estimate NET --device-profile v100"]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_tells_it_once_and_on_stderr(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(BN_TWICE, encoding="utf-8")
    result = CliRunner().invoke(app, command.replace("NET", "net.yaml").split())
    assert result.exit_code == 0, result.output
    assert result.stderr.count(f"net.yaml:4:18: warning: {SECOND}") == 1
    assert SECOND not in result.stdout


def test_a_profile_s_json_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(BN_TWICE, encoding="utf-8")
    result = CliRunner().invoke(app, ["profile", "net.yaml", "--format", "json"])
    [warning] = json.loads(result.stdout)["warnings"]
    assert (warning["message"], warning["file"], warning["line"], warning["column"]) == (SECOND, "net.yaml", 4, 18)
