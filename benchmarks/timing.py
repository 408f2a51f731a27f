"""Interleaved samples of several tasks, so that other load on the machine affects all alike, and ratios by round."""

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
    """Wall-clock time of a process, from start to exit."""
    peak_bytes: int = 0
    """Peak resident set of a process, as `process` measures it."""
    result: int = 0
    """Return value of a function."""


Task = Callable[[], Sample]


def interleaved(tasks: Mapping[str, Task], rounds: int, *, warm_up: int = 1) -> dict[str, list[Sample]]:
    """Samples of each task, one per round, in a random order in each round; warm-up rounds are dropped."""
    order, random = list(tasks), Random(0)
    samples: dict[str, list[Sample]] = {name: [] for name in order}
    for _ in range(warm_up + rounds):
        random.shuffle(order)
        for name in order:
            samples[name].append(tasks[name]())
    return {name: samples[name][warm_up:] for name in samples}


def ratio(samples: Sequence[Sample], reference: Sequence[Sample]) -> float:
    """Median over the rounds of the task's time relative to the reference's time in the same round."""
    return median([s.seconds / r.seconds for s, r in zip(samples, reference, strict=True)])


LEAST_S = 0.02


def call(function: Callable[[], int]) -> Task:
    """A task that calls a function in this process, repeatedly for at least `LEAST_S` seconds."""

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

    Linux counts the parent's peak resident set into the child's, so that no peak is reported below this process's own:
    import torch only after the last process has been measured.
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
