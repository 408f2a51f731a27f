"""Do plain nets degrade with depth, and do shortcuts cure it? He et al. 2015's question, of scikit-learn's digits.

`python -m benchmarks.digits` trains plain-20, plain-56, ResNet-20 and ResNet-56 with two seeds each, by the commands
a user types, and writes what it finds into docs/how-to/curves.md and its picture: whatever it is. `--quick` trains
a few iterations and prints.
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
NETS = ("cifar_plain20", "cifar_plain56", "cifar_resnet20", "cifar_resnet56")
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
    """scikit-learn's 1,797 digits, 8 x 8, as 3 x 32 x 32 in CIFAR-10's records; every fifth one is a test image."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]

    digits = load_digits()
    grey = np.kron(np.rint(digits.images * (255 / 16)).astype(np.uint8), np.ones((1, 4, 4), np.uint8))
    images = np.repeat(grey[:, None], 3, 1)  # (n, 3, 32, 32)
    labels = digits.target.astype(np.int64)
    test = np.arange(len(labels)) % 5 == 0
    write_cifar10_binary(folder, images[~test], labels[~test], images[test], labels[test])


@dataclass(frozen=True, slots=True)
class Found:
    """What one net came to."""

    name: str
    test: str
    """Final test errors in percent, by seed."""
    train: str
    """Likewise of the training images, as they are."""


def resnet_cli(*words: object) -> None:
    """Runs a command. Raises CalledProcessError if it fails."""
    subprocess.run([sys.executable, "-m", "resnetcli", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def errors(runs: list[dict[str, Any]], name: str) -> str:
    """Mean, and every seed's."""
    values = [run[f"final_{name}_error_percent"] for run in runs]
    return f"{np.mean(values):.1f} ({', '.join(f'{value:.1f}' for value in values)})"


def experiment(folder: Path, iterations: int, seeds: int, picture: Path, dtype: str = "bf16") -> list[Found]:
    """Trains the four nets and draws them."""
    write_digits(folder / "digits")
    (folder / "digits.yaml").write_text(RECIPE)
    resnet_cli(
        "train-cifar", *(word for net in NETS for word in ("--model", net)), "--data", "custom",
        "--data-dir", folder / "digits", "--recipe", folder / "digits.yaml", "--iterations", iterations,
        "--eval-every", max(1, iterations // 30), "--seeds", seeds, "--device", "cpu",
        "--dtype", dtype, "--channels-last", "--out", folder / "all",
    )  # fmt: skip
    resnet_cli("curves", folder / "all", "-o", picture)
    found = []
    for net in NETS:
        runs = [json.loads(each.read_text()) for each in sorted((folder / "all" / net).glob("*/result.json"))]
        found.append(Found(net, errors(runs, "test"), errors(runs, "train")))
    return found


def main() -> None:
    """Trains, and writes or prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few iterations, printed")
    quick = parser.parse_args().quick
    iterations, seeds = (6, 2) if quick else (300, 2)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder) / "degradation.svg" if quick else DOCS / "pictures" / "degradation.svg"
        found = experiment(Path(folder), iterations, seeds, picture)
    columns = (
        Column("net", "net", "left"), Column("test error, %", "test"), Column("training error, %", "train"),
    )  # fmt: skip
    rows = tuple((cell(each.name), cell(None, each.test), cell(None, each.train)) for each in found)
    text = (
        f"{to_markdown(Sheet(columns, rows))}\n{iterations} iterations of 128 images, one cycle up to 0.2, bf16 "
        f"channels_last; 1,437 digits to train on, 360 to test. Means over {seeds} seeds, and each. "
        f"{machine(('torch', 'scikit-learn'), before)}"
    )
    if quick:
        print(text)
    else:
        put("digits", text, DOCS / "how-to" / "curves.md")


if __name__ == "__main__":
    main()
