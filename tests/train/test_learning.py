"""A model really learns: handwritten digits in CIFAR-10's binary records, by the command a user types."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.digits import RECIPE, experiment, write_digits
from tests.support.cli import run


@pytest.fixture(autouse=True)
def digits() -> None:
    pytest.importorskip("sklearn.datasets")


@pytest.mark.slow
def test_resnet_8_learns_handwritten_digits(tmp_path: Path) -> None:
    write_digits(tmp_path / "digits")
    recipe = tmp_path / "digits.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path / "run"
    words = f"train-cifar --depth 8 --data custom --data-dir {tmp_path / 'digits'} --recipe {recipe} --out {out}"
    done = run(f"{words} --device cpu --batch-size 64 --format json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["final_test_error_percent"] < 3
    assert (result["test_images"], result["train_images"]) == (360, 1437)
    again = run(f"eval {out} --data-dir {tmp_path / 'digits'} --format json")
    assert json.loads(again.stdout)["error_percent"] == result["final_test_error_percent"]
    assert run(f"profile {out}").stdout.startswith("ResNet (CIFAR)")


@pytest.mark.slow
def test_plain_and_residual_models_of_two_depths_come_into_one_picture(tmp_path: Path) -> None:
    """Whether the deeper plain model is the worse one is reported (docs/how-to/curves.md), not asked for."""
    found = experiment(tmp_path, 3, 1, tmp_path / "degradation.svg", "fp32")
    assert [each.name for each in found] == ["cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56"]
    picture = (tmp_path / "degradation.svg").read_text()
    assert all(name in picture for name in ("plain-20", "plain-56", "ResNet-20", "ResNet-56"))
    assert all(0 <= float(each.test.split()[0]) <= 100 for each in found)
