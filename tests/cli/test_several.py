"""Several models in one command: one that fails leaves the others, and shows in every format and in the exit code."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest

from resnetcli.reports.comparison import Comparison
from tests.support.cli import run
from tests.support.measured import MEASURED
from tests.support.trained import a_run, point

NETS = """\
from torch import nn
def Good(): return nn.Conv2d(3, 8, 3)
def Raises(): raise RuntimeError("no such net")
def Nothing(): return 5
class Bad(nn.Module):
    def forward(self, x): raise ValueError("no")
"""
SPEC = "input: 3x32x32\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "broken.py").write_text("def Net(: pass\n")
    (tmp_path / "good.yaml").write_text(SPEC)
    (tmp_path / "bad.yaml").write_text(SPEC.replace("3x3 16", "3x3 16 C=5"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "dir.yaml").mkdir()
    return tmp_path


FAILING = {
    "resnt50": "unknown model `resnt50`",
    "nothing*": "no model matches `nothing*`",
    "none.yaml": "no such file: `none.yaml`",
    "bad.yaml": "bad.yaml:2:",
    "dir.yaml": "is a directory",
    "binary.yaml": "UTF-8",
    "resnet50 G=8": "has no parameter `G`",
}
PYTHON = {
    "nets.py:Bad": "ValueError: no",
    "nets.py:Raises": "no such net",
    "nets.py:Nothing": "not a torch.nn.Module",
    "nets.py:Missing": "has no `Missing`",
    "broken.py:Net": "not Python",
    "timm:no_such_model": "no model `no_such_model`",
}


SEVERAL = ("compare", "show", "verify", "estimate --device-profile v100", "check")
PAIRS = [
    *((command, bad) for command in SEVERAL for bad in FAILING if "=" not in bad or command not in ("verify", "check")),
    pytest.param("crosscheck", "bad.yaml", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("command", "bad"), PAIRS)
def test_a_model_that_fails_leaves_the_others(command: str, bad: str, folder: Path) -> None:
    result = run(f"{command} good.yaml {bad} cifar_resnet20")
    assert result.exit_code == 2, result.output
    assert FAILING[bad] in result.stderr
    assert "good" in result.stdout or command == "verify"  # which has no figure of it
    assert "cifar_resnet20" in result.stdout or "ResNet-20" in result.stdout
    assert "Traceback" not in result.output


@pytest.mark.parametrize("bad", PYTHON)
def test_a_pytorch_model_that_fails_leaves_the_others(bad: str, folder: Path) -> None:
    result = run(f"compare resnet18 {bad} nets.py:Good --input 3x32x32")
    assert result.exit_code == 2
    assert PYTHON[bad] in result.stderr
    assert f"failed: `{bad}`" in result.stdout
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith((" resnet18", " nets.py"))] == [
        "resnet18",
        "nets.py:Good",
    ]


@pytest.mark.parametrize("command", ["compare", "show", "verify", "estimate --device-profile v100", "list"])
def test_what_failed_is_in_json_and_csv(command: str, folder: Path) -> None:
    good, bad = ("resnet18*", "resnt5") if command == "list" else ("resnet18", "bad.yaml")
    result = run(f"{command} {good} {bad} --format json")
    assert result.exit_code == 2
    record = json.loads(result.stdout)
    assert record["models"][0]["model"] == "resnet18"
    (failed,) = record["failed"]
    assert failed["model"] == bad
    assert failed["parameters"] == {}
    assert failed["error"]
    assert "\n" not in failed["error"]
    assert json.loads(run(f"{command} {good} --format json").stdout)["failed"] == []
    rows = list(csv.reader(io.StringIO(run(f"{command} {good} {bad} --format csv").stdout)))
    assert rows[0][-1] == "error"
    assert [row[-1] for row in rows[1:] if bad in row] == [failed["error"]]
    assert not [row for row in rows[1:] if bad not in row and row[-1]]


def test_of_several_failures_each_is_reported_once(folder: Path) -> None:
    result = run("compare bad.yaml none.yaml resnt50 resnt50 C=8")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.count("unknown model `resnt50`") == 1
    assert result.stderr.count("bad.yaml:2:") == 1
    assert "no such file: `none.yaml`" in result.stderr
    assert run("compare resnt50 resnt51 --format json").stdout == ""
    assert run("compare resnet18 resnet34 --input axb").stderr.count("not an input size") == 1


def test_a_baseline_that_fails_leaves_the_others(folder: Path) -> None:
    result = run("compare resnet18 bad.yaml --baseline bad.yaml")
    assert result.exit_code == 2
    assert "resnet18" in result.stdout
    assert "not among" not in result.stderr


def test_a_model_is_explained_where_the_other_fails(folder: Path) -> None:
    for format in ("table", "md", "csv"):
        result = run(f"explain resnet18 --vs bad.yaml --device-profile v100 --format {format}")
        assert result.exit_code == 2
        assert "conv1" in result.stdout
        assert "bad.yaml:2:" in result.stderr
    record = json.loads(run("explain resnet18 --vs bad.yaml --device-profile v100 --format json").stdout)
    assert record["vs"] is None
    assert record["failed"][0]["model"] == "bad.yaml"


def test_a_run_that_is_none_leaves_the_other_curves(folder: Path) -> None:
    a_run(folder / "run", [point(100, 60.0, 60.0)])
    (folder / "damaged").mkdir()
    (folder / "damaged" / "config.json").write_text("{")
    for format in ("table", "md", "csv", "json"):
        result = run(f"curves run nowhere damaged --format {format}")
        assert result.exit_code == 2, result.output
        assert "60" in result.stdout
        assert "there is no directory `nowhere`" in result.stderr
        assert "damaged" in result.stderr
    assert [each["model"] for each in json.loads(result.stdout)["failed"]] == ["nowhere", "damaged"]
    assert run("curves nowhere damaged").exit_code == 2


def test_times_are_not_saved_where_a_model_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(found: Comparison, *arguments: object, **options: object) -> Comparison:
        return replace(found, profiles=tuple(replace(p, measurements=(MEASURED,)) for p in found.profiles))

    monkeypatch.setattr("resnetcli.reports.compare._measured", measured)
    result = run("compare cifar_resnet20 bad.yaml --device cpu --save times.json")
    assert result.exit_code == 3
    assert "cifar_resnet20" in result.stdout
    assert "not saved: measurements are missing for bad.yaml" in result.stderr
    assert "bad.yaml:2:" in result.stderr
    assert not (folder / "times.json").exists()


def test_explain_does_not_explain_the_other_model_in_place_of_one_that_fails(folder: Path) -> None:
    result = run("explain bad.yaml --vs resnet18 --device-profile v100 --format json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "bad.yaml" in result.stderr
