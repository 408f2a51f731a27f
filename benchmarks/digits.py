"""Degradation of plain networks with depth, and ResNets for comparison: He et al. 2015's experiment on digits.

`python -m benchmarks.digits` trains plain-20, plain-56, ResNet-20 and ResNet-56 with two seeds each on scikit-learn's
digits, by the commands a user types, and writes the results into docs/how-to/curves.md and its picture. `--quick`
trains a few iterations and prints the results.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import PAGE, machine, put
from resnetcli.data.write import write_cifar10_binary
from resnetcli.table.sheet import Column, Sheet, cell, to_markdown

DOCS = PAGE.parent.parent
MODELS = ("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56")
RECIPE = """about: For digits; no horizontal flips, which would change the digit
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
    """Write scikit-learn's 1,797 digits, 8 x 8 enlarged to 3 x 32 x 32, as CIFAR-10 records; every fifth for test."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    grey = np.kron(np.rint(digits.images * (255 / 16)).astype(np.uint8), np.ones((1, 4, 4), np.uint8))
    images = np.repeat(grey[:, None], 3, 1)  # (n, 3, 32, 32)
    labels = digits.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 0
    write_cifar10_binary(folder, images[~test], labels[~test], images[test], labels[test])


@dataclass(frozen=True, slots=True)
class Errors:
    """Final errors of one model in percent: the mean, and in parentheses each seed's."""

    name: str
    test: str
    train: str
    """On the training images without augmentation."""


def resnet_cli(*words: object) -> None:
    """Run a command. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "resnetcli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def errors(runs: list[dict[str, Any]], name: str) -> str:
    """The mean error, and in parentheses each seed's."""
    values = [run[f"final_{name}_error_percent"] for run in runs]
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def experiment(folder: Path, iterations: int, seeds: int, picture: Path, dtype: str = "bf16") -> list[Errors]:
    """Train the four models and plot their curves."""
    write_digits(folder / "digits")
    (folder / "digits.yaml").write_text(RECIPE)
    resnet_cli(
        "train-cifar", *(word for model in MODELS for word in ("--model", model)), "--data", "custom",
        "--data-dir", folder / "digits", "--recipe", folder / "digits.yaml", "--iterations", iterations,
        "--eval-every", max(1, iterations // 30), "--seeds", seeds, "--device", "cpu",
        "--dtype", dtype, "--channels-last", "--out", folder / "all",
    )  # fmt: skip
    resnet_cli("curves", folder / "all", "-o", picture)
    results = []
    for model in MODELS:
        runs = [json.loads(path.read_text()) for path in sorted((folder / "all" / model).glob("*/result.json"))]
        results.append(Errors(model, errors(runs, "test"), errors(runs, "train")))
    return results


def main() -> None:
    """Train; write the results, or print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="train a few iterations and print the results")
    quick = parser.parse_args().quick
    iterations, seeds = (6, 2) if quick else (300, 2)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "degradation.svg" if quick else DOCS / "pictures" / "degradation.svg"
        results = experiment(Path(folder), iterations, seeds, picture)
    columns = (
        Column("model", "model", "left"), Column("test error, %", "test"), Column("training error, %", "train"),
    )  # fmt: skip
    rows = tuple((cell(result.name), cell(None, result.test), cell(None, result.train)) for result in results)
    text = (
        f"{to_markdown(Sheet(columns, rows))}\n{iterations} iterations of 128 images, one-cycle learning rate up "
        f"to 0.2, bf16 channels_last; 1,437 training images, 360 test images. Mean over {seeds} seeds, and in "
        f"parentheses each seed. "
        f"{machine(('torch', 'scikit-learn'), before)}"
    )
    if quick:
        print(text)
    else:
        put("digits", text, DOCS / "how-to" / "curves.md")


if __name__ == "__main__":
    main()
