"""Models that take other inputs than one image."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import resnetcli as rc
from tests.support.cli import run

INPUTS = """
import torch
from torch import nn

class Ids(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Embedding(256, 16); self.c = nn.Linear(16, 4)
    def forward(self, ids, mask=None):
        y = self.c(self.e(ids))
        return {"logits": y if mask is None else y * mask[..., None], "loss": None}

class Clip(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv3d(3, 8, 3, padding=1)
    def forward(self, x): return self.c(x)

class Two(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.Conv2d(1, 10, 3); self.b = nn.Conv2d(1, 10, 3)
    def forward(self, u, v): return self.a(u) + self.b(v)

class Timed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1); self.t = nn.Embedding(1000, 4)
    def forward(self, x, t): return self.c(x) + self.t(t)[:, :, None, None]

class Sample(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1)
    def forward(self, batch): return self.c(batch["image"]) * batch["mask"]

class Listed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1)
    def forward(self, images): assert isinstance(images, list); return [self.c(each[None]) for each in images]

class Mlp(nn.Module):
    def __init__(self): super().__init__(); self.l = nn.Linear(784, 10)
    def forward(self, x): return self.l(x)

class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1); self.bn = nn.BatchNorm1d(8); self.fc = nn.Linear(8, 10)
    def forward(self, x): return self.fc(self.bn(self.c(x).mean((2, 3)).squeeze()))

class Crossed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 8, 1)
    def forward(self, x):
        y = self.c(x).mean((2, 3)); assert len(y) > 1
        return y @ y.T

class Whole(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv1d(1, 4, 80, 4)
    def forward(self, x): return self.c(x)

models = {"a": Mlp(), "b": Two}
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inputs.py").write_text(INPUTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("net", "input", "params", "macs"),
    [
        ("Ids", "tokens:192", 4164, 12288),
        ("Ids", "tokens:192:200", 4164, 12288),
        ("Ids", "tokens:3x8x8", 4164, 12288),
        ("Ids", "tokens:192,mask=bool:192", 4164, 12288),
        ("Ids", "ids=tokens:192", 4164, 12288),
        ("Clip", "3x8x8x8", 656, 331776),
        ("Two", "1x28x28,1x28x28", 200, 121680),
        ("Two", ("1x28x28", "1x28x28"), 200, 121680),
        ("Two", "v=1x28x28,u=1x28x28", 200, 121680),
        ("models.b", "1x28x28,v=1x28x28", 200, 121680),
        ("Timed", "3x8x8,int:", 4016, 768),
        ("Sample", "image=3x8x8,mask=4x8x8", 16, 768),
        ("Listed", "list:3x8x8", 16, 768),
        ("Mlp", "float:784", 7850, 7840),
        ("models.a", "float:784", 7850, 7840),
        ("Whole", "1x1000", 324, 320 * 231),
        ("Squeezed", "3x8x8", 330, 13904),
    ],
)
def test_a_model_is_counted_on_the_inputs_it_takes(inputs: Path, net: str, input: Any, params: int, macs: int) -> None:
    found = rc.profile(f"inputs.py:{net}", input=input)
    assert (found.counts.params, found.counts.macs) == (params, macs)


@pytest.mark.parametrize("net", ["Ids", "Clip", "Two", "Timed", "Mlp", "Whole"])
def test_the_hint_names_an_input_that_the_model_runs_on(inputs: Path, net: str) -> None:
    result = run(f"profile inputs.py:{net}")
    assert result.exit_code == 2
    hint = re.search(r"hint: it runs on `(.*)`", result.stderr)
    assert hint, result.stderr
    assert run(f"profile inputs.py:{net} {hint[1]}").exit_code == 0


@pytest.mark.parametrize(
    ("net", "input"),
    [("Ids", "tokens:16"), ("Two", "1x8x8,1x8x8"), ("Timed", "3x8x8,int:"), ("Sample", "image=3x8x8,mask=4x8x8"),
     ("Squeezed", "3x8x8"), ("Clip", "3x8x8x8")],
)  # fmt: skip
def test_a_model_is_timed_on_the_inputs_it_takes(inputs: Path, net: str, input: str) -> None:
    found = rc.profile(f"inputs.py:{net}", input=input, device="cpu", batch_size=(2, 3), time_budget_s=0.01)
    assert [m.batch for m in found.measurements] == [2, 3]
    assert not found.failures


@pytest.mark.parametrize(
    "input",
    ["tokens", "tokens:", "3x", "x3", "3x0x3", "tokens:8:0", "float:8:3", "3x8x8,", "a=3x8x8,3x8x8", "a=3,a=3",
     "words:3", "9x999999999999x999999999999", ",".join(["3x8x8"] * 20)],
)  # fmt: skip
def test_what_is_no_input_is_refused(inputs: Path, input: str) -> None:
    result = run(["profile", "inputs.py:Mlp", "--input", input])
    assert result.exit_code == 2
    assert "is not an input size" in result.stderr
    assert "hint: " in result.stderr


def test_tokens_beyond_the_embedding_are_refused(inputs: Path) -> None:
    result = run("profile inputs.py:Ids --input tokens:8:300")
    assert "error: `tokens:8:300` exceeds the vocabulary of an embedding, 256\nhint: `tokens:8:256`" in result.stderr


@pytest.mark.parametrize("words", ["--input 1x28x28 --input 1x28x28", "--input 1x28x28,1x28x28"])
def test_several_inputs_are_given_one_by_one_or_by_commas(inputs: Path, words: str) -> None:
    result = run(f"profile inputs.py:Two {words} --format json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["macs"] == 121680


def test_a_spec_takes_one_image(inputs: Path) -> None:
    result = run("profile resnet18 --input 3x224x224 --input 3x224x224")
    assert result.exit_code == 2
    assert "`3x224x224,3x224x224` is not an input size" in result.stderr


def test_what_a_batch_shares_is_not_halved(inputs: Path) -> None:
    with pytest.raises(rc.UsageError, match="fails on an image of 3 x 8 x 8"):
        rc.profile("inputs.py:Crossed", input="3x8x8")
