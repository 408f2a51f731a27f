"""Samples taken in turn, so that whatever else the machine does falls on all tasks alike, and ratios by round."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from time import perf_counter

from resnetcli.bench.statistics import median


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a task."""

    seconds: float
    """CPU time of a process, user and system; wall-clock time of a function."""
    wall_s: float = 0.0
    """Of a process, from start to exit."""
    peak_bytes: int = 0
    """Largest resident set of a process."""
    result: int = 0
    """What a function returned."""


Task = Callable[[], Sample]


def interleaved(tasks: Mapping[str, Task], rounds: int, *, warm_up: int = 1) -> dict[str, list[Sample]]:
    """Each task's samples, one a round, every round in an order of its own; those of the warm-up are dropped."""
    order, random = list(tasks), Random(0)
    found: dict[str, list[Sample]] = {name: [] for name in order}
    for _ in range(warm_up + rounds):
        random.shuffle(order)
        for name in order:
            found[name].append(tasks[name]())
    return {name: samples[warm_up:] for name, samples in found.items()}


def ratio(samples: Sequence[Sample], reference: Sequence[Sample]) -> float:
    """The median over rounds of what a task took relative to the reference in the same round."""
    return median([s.seconds / r.seconds for s, r in zip(samples, reference, strict=True)])


LEAST_S = 0.02


def call(function: Callable[[], int]) -> Task:
    """A task that calls a function in this process: once, or as often as fits into `LEAST_S`."""

    def run() -> Sample:
        gc.collect()
        start, calls = perf_counter(), 0
        while True:
            result, calls = function(), calls + 1
            if (seconds := perf_counter() - start) >= LEAST_S:
                return Sample(seconds / calls, result=result)

    return run


def process(arguments: Sequence[str], environment: Mapping[str, str]) -> Task:
    """A task that runs Python with these arguments, from start to exit.

    Linux counts what the parent held at the fork into a child's peak, so this process must be smaller than any child:
    no torch here before the last process has been measured.
    """

    def run() -> Sample:
        start = perf_counter()
        child = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL, env=environment)
        _, status, usage = os.wait4(child.pid, 0)
        wall = perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            raise SystemExit(f"exit code {child.returncode} from: python {' '.join(arguments)}")
        peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        return Sample(usage.ru_utime + usage.ru_stime, wall, peak)

    return run
