"""Directories of runs as `train-cifar` writes them, without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from resnetcli.runs.config import Config
from resnetcli.runs.directory import create
from resnetcli.runs.group import write_group
from resnetcli.runs.metrics import Metrics, Point
from tests.support import tiny

CONFIG = replace(
    tiny.CONFIG, model="cifar_resnet20", parameters={}, title="ResNet-20 (CIFAR)", train_images=50_000,
    test_images=10_000, iterations=64_000, batch_size=128, checkpoint_every=1000, eval_every=1000,
    recipe={"name": "resnet", "schedule": {"kind": "steps"}},
)  # fmt: skip
"""The configuration of the paper's run."""
Error = Callable[[int], float]


def point(iteration: int, train: float, test: float | None = None, lr: float = 0.1) -> Point:
    """A reading with these errors."""
    loss = None if test is None else 1.0
    return Point(iteration, iteration * 128 / 50_000, lr, 1.0, train, None, None, loss, test, 1000.0, 1.0)


def points(config: Config, train: Error, test: Error, every: int = 100, until: int | None = None) -> list[Point]:
    """Readings of a run with errors by iteration; the learning rate is divided by 10 after 1/2 and 3/4 of the run."""
    n = config.iterations
    return [
        point(at, train(at), test(at) if at % config.eval_every == 0 or at == n else None,
              0.1 if at <= n // 2 else 0.01 if at <= n * 3 // 4 else 0.001)
        for at in range(every, (until or n) + 1, every)
    ]  # fmt: skip


def falling(start: float, end: float, over: float) -> Error:
    """An error that decays exponentially from `start` to `end`, with time constant `over` in iterations."""
    return lambda at: end + (start - end) * math.exp(-at / over)


def a_run(path: Path, readings: Sequence[Point], **changes: Any) -> Path:
    """Write a run's directory with these readings, and return its path."""
    run = create(path, replace(CONFIG, **changes), spec="", model="", recipe="")
    metrics = Metrics(run.path, 0)
    for reading in readings:
        metrics.append(reading)
    return path


def some_seeds(path: Path, runs: Sequence[Sequence[Point]], **changes: Any) -> Path:
    """Write a directory of several seeds with the readings of each, and return its path."""
    path.mkdir(parents=True)
    write_group(path, "seeds", [f"seed{seed}" for seed in range(len(runs))])
    for seed, readings in enumerate(runs):
        a_run(path / f"seed{seed}", readings, seed=seed, **changes)
    return path
