"""A model, recipe and dataset so small that a whole run takes a moment, and a fake trainer."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from resnetcli.data.dataset import Split
from resnetcli.data.write import write_custom
from resnetcli.errors import ResourceError
from resnetcli.runs.config import Config, PublishedError
from resnetcli.runs.metrics import Point
from resnetcli.train.evaluate import Evaluation
from resnetcli.train.loop import Progress

NET = """\
name: tiny
input: 3x8x8
classes: 4
conv: conv bn relu
residual: relu(x + F)
shortcut: pad
let: {n: 1}
table:
  conv1: 3x3 4
  conv2_x: [residual x n: [3x3 4, 3x3 4]]
  conv3_x: [residual x n: [3x3 8 /2, 3x3 8]]
  head: [global avg, dropout 0.2, fc classes]
"""
RECIPE = """\
batch_size: 8
iterations: 40
schedule: {kind: steps, lr: 0.05, factor: 0.1, at: [20, 30]}
warmup: {lr: 0.01, until_error: 70, at_most: 15}
"""
PATTERNS = np.random.default_rng(7).integers(0, 256, (4, 3, 8, 8))


def split(n: int, seed: int) -> Split:
    """Images of four patterns with noise."""
    random = np.random.default_rng(seed)
    labels = random.permutation(np.arange(n, dtype=np.int64) % 4)
    images = (PATTERNS[labels] + random.integers(0, 256, (n, 3, 8, 8))) // 2
    return Split(images.astype(np.uint8), labels)


def files(folder: Path, recipe: str = RECIPE) -> Path:
    """Write `tiny.yaml`, `recipe.yaml` and the dataset in `data/`; return the folder."""
    (folder / "tiny.yaml").write_text(NET)
    (folder / "recipe.yaml").write_text(recipe)
    (folder / "data").mkdir()
    write_custom(folder / "data", split(30, 1), split(20, 2), ["a", "b", "c", "d"])
    return folder


def words(folder: Path, out: str = "run") -> list[str]:
    """The command that trains it."""
    return [
        "train-cifar", "--model", str(folder / "tiny.yaml"), "--recipe", str(folder / "recipe.yaml"),
        "--data", "custom", "--data-dir", str(folder / "data"), "--threads", "1",
        "--device", "cpu", "--out", str(folder / out),
    ]  # fmt: skip


CONFIG = Config(
    model="cifar_resnet20", parameters={"depth": 20}, title="ResNet-20", input=(3, 32, 32), classes=10, params=269722,
    spec="ab",
    recipe={"name": "resnet", "schedule": {"lr": 0.1}, "train_split": None, "bn_batch": None,
            "normalise": "pixel-mean", "augmentation": {"pad": 4, "mode": "zeros", "flip": True}},
    data="cifar10", data_text="CIFAR-10 (verified)", data_digest="cd", data_folder=None, train_images=20,
    validation_images=0, test_images=10, iterations=40, batch_size=4, seed=0, dtype="fp32", channels_last=False,
    compile=False, cuda_graph=False, device="cpu", device_name="a CPU", threads=1, checkpoint_every=10, eval_every=20,
    deviations=("BN over 128 images; the paper: BN over 64 images",),
    published=(PublishedError("top1_error", "8.75", "CIFAR-10 test", "test", "arXiv:1512.03385"),),
    versions={"resnet-cli": "0", "python": "3", "torch": "2", "numpy": "2", "safetensors": "0"}, deterministic=False,
    processes=1,
)  # fmt: skip


def command(arguments: list[str], folder: Path) -> None:
    """Run the command; the target of a `multiprocessing` process."""
    from resnetcli.cli.main import main

    os.chdir(folder)
    sys.argv = ["resnet-cli", *arguments]
    with (folder / "said.txt").open("a") as output:
        sys.stdout = sys.stderr = output
        main()


def config(**changes: object) -> Config:
    """The configuration of a run with a fake trainer."""
    return replace(CONFIG, **changes)  # type: ignore[arg-type]


def point(iteration: int, test: float | None = None) -> Point:
    """A reading."""
    return Point(iteration, iteration / 5, 0.1, 1.5, 40.0, None, None, test, test, 100.0, float(iteration))


@dataclass
class Fake:
    """A trainer whose weight is the sum of all iterations so far."""

    bad: int = 0
    """The iteration whose loss is not finite; 0 for none."""
    iteration: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    weight: Tensor = field(default_factory=lambda: torch.zeros(2, 3))
    read_at: int = 0
    before_step: object = None

    def step(self) -> None:
        if callable(self.before_step):
            self.before_step(self.iteration)
        if not self.broken:
            self.weight += self.iteration
        self.iteration += 1

    @property
    def broken(self) -> bool:
        return bool(self.bad) and self.iteration >= self.bad

    def read(self) -> Progress:
        if self.broken:
            raise ResourceError(f"the loss of iteration {self.bad + 1} is not finite")
        since, self.read_at = self.iteration - self.read_at, self.iteration
        return Progress(self.iteration, since, 2.5, 90.0, 0.1)

    def evaluate(self, split: str = "test") -> Evaluation:
        return Evaluation({"test": 3, "train": 1, "validation": 2}[split], 0.5, 10)

    def state(self) -> dict[str, Tensor]:
        return {"weight": self.weight.clone(), "count": torch.tensor(3)}

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        self.weight, self.iteration, self.read_at = state["weight"].clone(), iteration, iteration


@dataclass
class Ear:
    """A listener that records every call."""

    lines: list[str] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)
    left: list[float] = field(default_factory=list)
    estimates: list[tuple[float, int, float]] = field(default_factory=list)

    def say(self, line: str) -> None:
        self.lines.append(line)

    def begin(self, config: Config, run: Path) -> None:
        self.lines.append(f"begin {run.name}")

    def stepped(self, iteration: int) -> None:
        pass

    def estimate(self, step_s: float, steps: int, left_s: float) -> None:
        self.estimates.append((step_s, steps, left_s))

    def reading(self, point: Point, left_s: float) -> None:
        self.points.append(point)
        self.left.append(left_s)
