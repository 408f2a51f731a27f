"""A net really learns: handwritten digits in CIFAR-10's binary records, by the command a user types."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from resnetcli.data.write import write_cifar10_binary
from tests.cli.test_cli import run

RECIPE = """about: For digits, which are not themselves when mirrored
batch_size: 128
iterations: 300
schedule: {kind: one-cycle, lr: 0.2, peak: 0.25, start: 0.1, end: 0}
warmup: none
momentum: 0.9
nesterov: yes
weight_decay: 5e-4
decay: weights
augmentation: {pad: 4, mode: zeros, flip: no}
normalise: mean-std
init: fan-out
label_smoothing: 0.1
bn_batch: all
train_split: all
"""


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 digits, 8 x 8, as 3 x 32 x 32; every fifth one is a test image."""
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    grey = np.kron(np.rint(digits.images * (255 / 16)).astype(np.uint8), np.ones((1, 4, 4), np.uint8))
    images = np.repeat(grey[:, None], 3, 1)  # (n, 3, 32, 32)
    labels = digits.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 0
    write_cifar10_binary(folder, images[~test], labels[~test], images[test], labels[test])


@pytest.mark.slow
def test_resnet_20_learns_handwritten_digits(tmp_path: Path) -> None:
    write_digits(tmp_path / "digits")
    recipe = tmp_path / "digits.yaml"
    recipe.write_text(RECIPE)
    out = tmp_path / "run"
    words = f"train-cifar --depth 20 --data custom --data-dir {tmp_path / 'digits'} --recipe {recipe} --out {out}"
    done = run(f"{words} --device cpu --format json")
    assert done.exit_code == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["final_test_error_percent"] < 3
    assert (result["test_images"], result["train_images"]) == (360, 1437)
    again = run(f"eval {out} --data-dir {tmp_path / 'digits'} --format json")
    assert json.loads(again.stdout)["error_percent"] == result["final_test_error_percent"]
    assert run(f"profile {out}").stdout.startswith("ResNet-20")
