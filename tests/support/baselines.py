"""Saved benchmark results, for tests of comparisons with a baseline file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import resnetcli as rc
from resnetcli.bench.benchmark import PairedTimings
from resnetcli.bench.latency import Measurement
from resnetcli.reports.baseline import (
    BaselineDiff,
    EntryDiff,
    diff_baseline,
    read_baseline,
    save_baseline,
)
from resnetcli.reports.comparison import Comparison


def run(
    *measurements: Measurement, model: str = "resnet18", floor: float | None = 0.005, **settings: Any
) -> Comparison:
    """A comparison of one model with these measurements."""
    profile = dataclasses.replace(rc.profile(model, **settings), measurements=measurements)
    timings = [PairedTimings(m.batch, model, (None,), floor, 40) for m in measurements]
    return Comparison((profile,), timings=tuple(timings))


def keep(comparison: Comparison, path: Path) -> Path:
    save_baseline(comparison, path)
    return path


def against(comparison: Comparison, path: Path) -> BaselineDiff:
    return diff_baseline(comparison, read_baseline(path))


def only(found: BaselineDiff) -> EntryDiff:
    (change,) = found.changes
    return change
