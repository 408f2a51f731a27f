"""Reliability of measured latencies, and the gain of `--best`: each claim of docs/how-to/measuring.md as a table.

`python -m benchmarks.latency` measures everything and writes its parts of docs/why/benchmarks.md; `--only NAME`
writes one table; `--quick` is short and only prints. Run it on a quiet machine: it prints the load average.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import statistics
import sys
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from unittest import mock

import torch
from torch import Tensor, nn

import resnetcli as rc
from benchmarks.page import machine, put
from resnetcli.bench.allocator import keep_freed_memory
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.interleaved import measure_interleaved
from resnetcli.bench.prepare import Ready, prepare
from resnetcli.bench.sampling import sample, sample_interleaved, warm_up
from resnetcli.bench.search import search
from resnetcli.bench.versus import noise_floor, paired
from resnetcli.bench.weights import build_random
from resnetcli.net.module import Net
from resnetcli.roofline.calibrate import measure_device_peaks
from resnetcli.roofline.measure import explain_measured
from resnetcli.table.numbers import duration
from resnetcli.table.sheet import Cell, Column, Sheet, cell, to_markdown

sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

NETS = ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "inception_v3")
"""Models with the same name in the zoo and in torchvision."""
BATCHES = (1, 16)
KEPT = rc.RunOptions(keep_memory=True)
"""Otherwise a third of the time of a batch of 16 is spent in page faults, which vary."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table and its note."""

    title: str
    note: str
    sheet: Sheet

    @property
    def markdown(self) -> str:
        """The section in Markdown."""
        return f"### {self.title}\n\n{to_markdown(self.sheet)}\n{self.note}\n"


def percent(value: float, digits: int = 1) -> Cell:
    """A share as a cell."""
    return cell(value, f"{100 * value:.{digits}f}%")


def limits(interval: tuple[float, float]) -> Cell:
    """An interval of ratios."""
    return cell(None, f"[{interval[0]:.3f}, {interval[1]:.3f}]")


def image(plan: rc.Plan, batch: int) -> Tensor:
    """Random images for a model."""
    return torch.randn(batch, plan.input.c, plan.input.h, plan.input.w)


# --- against a loop written by hand ------------------------------------------------------------------------------


def by_hand(net: nn.Module, x: Tensor, seconds: float) -> float:
    """A hand-written loop: warm up, time each call, take the median."""
    with torch.inference_mode():
        for _ in range(3):
            net(x)
        times: list[float] = []
        end = perf_counter() + seconds
        while perf_counter() < end or len(times) < 5:
            start = perf_counter()
            net(x)
            times.append(perf_counter() - start)
    return statistics.median(times)


def by_us(ready: Ready, seconds: float) -> float:
    """What `measure` does with a net that is ready."""
    warm_up(ready.waited, perf_counter, least_s=seconds / 4, most_s=seconds / 2)
    return statistics.median(sample(ready.waited, perf_counter, budget_s=seconds, least_s=seconds / 4).seconds)


def with_net(plan: rc.Plan, batch: int) -> tuple[Ready, nn.Module]:
    """A net as `measure` makes it ready, and the net: where another of its kind comes to lie it may be quicker."""
    made: list[nn.Module] = []

    def keeping(plan: rc.Plan, place: torch.device) -> Net:
        made.append(net := build_random(plan, place))
        return net

    with mock.patch("resnetcli.bench.prepare.weights", keeping):
        return prepare(plan, torch.device("cpu"), batch, perf_counter, KEPT), made[0]


def in_turn(plan: rc.Plan, batch: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Medians of `measure`'s way and the loop's, and of the loop's again, by round."""
    with configure_torch(KEPT, torch.device("cpu")):
        ready, net = with_net(plan, batch)
        x = image(plan, batch)
        tasks: dict[str, Callable[[], float]] = {
            "ours": lambda: by_us(ready, seconds),
            "loop": lambda: by_hand(net, x, seconds),
            "again": lambda: by_hand(net, x, seconds),
        }
        found: dict[str, list[float]] = {task: [] for task in tasks}
        for number in range(rounds):
            for task in random.Random(number).sample(list(tasks), len(tasks)):
                found[task].append(tasks[task]())
    return found


def plain_loop(quick: bool) -> Section:
    """Our median relative to the loop's, and the loop's relative to itself."""
    rows = []
    for batch in BATCHES:
        for name in NETS:
            found = in_turn(rc.load(name), batch, 0.5 if quick else (1.0 if batch == 1 else 3.0), 3 if quick else 9)
            gc.collect()
            ratio, floor = paired(found["loop"], found["ours"]), noise_floor(found["loop"], found["again"])
            bound = max(0.02, floor)
            rows.append(
                (
                    cell(name), cell(batch),
                    *(cell(value := statistics.median(found[task]), duration(value)) for task in ("loop", "ours")),
                    cell(ratio.ratio, f"{ratio.ratio:.3f}"), limits(ratio.interval), percent(floor),
                    cell("yes" if abs(ratio.ratio - 1) <= bound else "no"),
                )
            )  # fmt: skip
    columns = (
        Column("model", "model", "left"), Column("batch size", "batch"), Column("loop", "loop"),
        Column("resnet-cli", "ours"), Column("ratio", "ratio"), Column("95% CI", "interval"), Column("A/A", "floor"),
        Column("within max(2%, A/A)", "within", "left"),
    )  # fmt: skip
    note = (
        "Eager fp32 with `--keep-memory`, medians of 9 rounds. Each round interleaves a hand-written loop (warm up, "
        "time each call, take the median), the same loop again (A/A), and `measure`, in random order, on one module."
    )
    return Section("Compared with a hand-written loop", note, Sheet(columns, tuple(rows)))


# --- run to run --------------------------------------------------------------------------------------------------


def runs(quick: bool) -> Section:
    """Deviation of the ratio of two models from one run of `compare` to the next."""
    rows = []
    count = 3 if quick else 4
    plans = [rc.load(name) for name in NETS]
    base = NETS.index("resnet50")
    for batch in BATCHES:
        budget = 0.5 if quick else 6.0
        found = []
        for _ in range(count):
            found.append(measure_interleaved(plans, base=base, batch_size=batch, options=KEPT, time_budget_s=budget))
            gc.collect()
        floor = max(one.floor or 0.0 for one in found)
        for place, name in enumerate(NETS):
            ratios = [ratio.ratio for one in found if (ratio := one.ratios[place]) is not None]
            if not ratios:
                continue
            middle = statistics.median(ratios)
            apart = max(abs(ratio / middle - 1) for ratio in ratios)
            times = [m.median_s for one in found if not isinstance(m := one.measured[place], Exception)]
            moved = max(abs(time / statistics.median(times) - 1) for time in times)
            rows.append(
                (
                    cell(f"{name} to resnet50"), cell(batch), cell(middle, f"{middle:.3f}"), percent(apart),
                    percent(floor), cell("yes" if apart <= max(0.02, floor) else "no"), percent(moved),
                )
            )  # fmt: skip
    columns = (
        Column("ratio of", "models", "left"), Column("batch size", "batch"), Column("median", "ratio"),
        Column("largest deviation", "deviation"), Column("A/A floor", "floor"),
        Column("within max(2%, A/A)", "within", "left"), Column("largest deviation of the time", "time_deviation"),
    )  # fmt: skip
    note = (
        f"{count} runs of `compare --keep-memory` with all five models: the largest deviation of a run's ratio from "
        "the median ratio, next to the largest noise floor that a run printed, and the deviation of the time itself."
    )
    return Section("From run to run", note, Sheet(columns, tuple(rows)))


# --- lower bounds and layers -------------------------------------------------------------------------------------


def floors(quick: bool) -> Section:
    """The roofline lower bound as a share of the measured time, and whether the layers' times add up."""
    device_peaks = measure_device_peaks("cpu")
    rows = []
    for dtype in ("fp32", "bf16"):
        for batch in BATCHES:
            for name in NETS:
                plan = rc.load(name)
                (found,), _ = explain_measured(
                    [(name, name, plan)], device_peaks, device="cpu", batch_size=batch,
                    options=rc.RunOptions(dtype=dtype, keep_memory=True),
                    time_budget_s=0.5 if quick else (3.0 if batch == 1 else 6.0),
                )  # fmt: skip
                assert found.attained is not None
                assert found.layer_times is not None
                shares = found.shares
                rows.append(
                    (
                        cell(name), cell(dtype), cell(batch), cell(found.time_s, duration(found.time_s)),
                        cell(found.eager.seconds, duration(found.eager.seconds)), percent(found.attained, 0),
                        *(percent(shares[part], 0) for part in ("compute", "memory", "overhead", "unexplained")),
                        cell(found.layer_times.ratio, f"{found.layer_times.ratio:.3f}"),
                    )
                )  # fmt: skip
    columns = (
        Column("model", "model", "left"), Column("dtype", "dtype", "left"), Column("batch size", "batch"),
        Column("measured", "measured"), Column("lower bound", "lower_bound"), Column("attained", "attained"),
        Column("compute", "compute"), Column("memory", "memory"), Column("overhead", "overhead"),
        Column("unexplained", "unexplained"), Column("sum of layers / whole", "layers"),
    )  # fmt: skip
    peaks = ", ".join(f"{dtype} {peak.best / 1e12:.2f} TFLOP/s" for dtype, peak in device_peaks.peaks.items())
    return Section(
        "Roofline and layers",
        f"Eager with `--keep-memory`; peaks measured just before: {peaks}. Attained: the roofline lower bound as a "
        "share of the measured time; compute, memory, overhead and unexplained sum to 1. The layers' times come from "
        "separate passes, interleaved with whole passes.",
        Sheet(columns, tuple(rows)),
    )


# --- built modules -----------------------------------------------------------------------------------------------


def modules(quick: bool) -> Section:
    """Built modules compared with torchvision's."""
    import torchvision

    keep_freed_memory()
    rows = []
    for batch in BATCHES:
        for name in NETS:
            plan = rc.load(name)
            # Inception's flag leaves its head out; the others have none.
            given = {"init_weights": False, "transform_input": False} if name == "inception_v3" else {}
            nets: Sequence[nn.Module] = (getattr(torchvision.models, name)(**given).eval(), rc.build(plan).eval())
            x = image(plan, batch)
            with torch.inference_mode():
                timers = [timer(net, x) for net in (nets[0], nets[1], nets[0])]
                for each in timers:
                    each(3)
                found = sample_interleaved(
                    timers, perf_counter, random.Random(0), budget_s=2 if quick else (12 if batch == 1 else 30),
                    least=5 if quick else 60,
                )  # fmt: skip
            theirs, ours, again = found.seconds
            ratio, floor = paired(theirs, ours), noise_floor(theirs, again)
            rows.append(
                (
                    cell(name), cell(batch), cell(theirs[0], duration(statistics.median(theirs))),
                    cell(ours[0], duration(statistics.median(ours))), cell(ratio.ratio, f"{ratio.ratio:.3f}"),
                    limits(ratio.interval), percent(floor), cell(found.n),
                )
            )  # fmt: skip
    columns = (
        Column("model", "model", "left"), Column("batch size", "batch"), Column("torchvision", "torchvision"),
        Column("resnet-cli", "ours"), Column("ratio", "ratio"), Column("95% CI", "interval"),
        Column("A/A floor", "floor"), Column("n", "n"),
    )  # fmt: skip
    note = (
        "Eager fp32 in evaluation mode with `--keep-memory`, both in one process, interleaved; the ratio is the median "
        "over the rounds."
    )
    return Section("Built modules compared with torchvision's", note, Sheet(columns, tuple(rows)))


def timer(net: nn.Module, x: Tensor) -> Callable[[int], float]:
    """A function that returns the seconds of n calls."""

    def run(calls: int) -> float:
        start = perf_counter()
        for _ in range(calls):
            net(x)
        return perf_counter() - start

    return run


# --- the ladder --------------------------------------------------------------------------------------------------


def ladder(quick: bool) -> Section:
    """The speedup of each setting that `--best` tries."""
    nets = NETS[1:2]
    searches = {
        (name, batch): search(rc.load(name), batch_size=batch, time_budget_s=0.5 if quick else 3.0)
        for name in nets for batch in BATCHES
    }  # fmt: skip
    every = list(dict.fromkeys(trial.options for found in searches.values() for trial in found.trials))
    rows = []
    for setting in every:
        cells = [cell(setting.text)]
        for found in searches.values():
            trial = next(trial for trial in found.trials if trial.options == setting)
            speed = found.speedup(trial)
            if trial.passed and speed is not None:
                mark = "**" if trial is found.best else ""
                cells.append(cell(speed, f"{mark}{speed:.2f}{mark}"))
            else:
                cells.append(cell(None, "-"))
        rows.append(tuple(cells))
    first = tuple(
        cell(None, duration(m.median_s)) if (m := found.trials[0].measurement) else cell(None)
        for found in searches.values()
    )
    rows.insert(0, (cell("eager fp32, time"), *first))
    columns = (
        Column("speedup", "settings", "left"),
        *(Column(f"{name}, batch {batch}", f"{name}_{batch}") for name, batch in searches),
    )
    note = (
        "Each setting in a separate process, its outputs checked against eager fp32; the one that `--best` reports is "
        "in bold. A dash: the outputs differ, or it does not run."
    )
    return Section("`--best`", note, Sheet(columns, tuple(rows)))


SECTIONS: dict[str, Callable[[bool], Section]] = {
    "loop": plain_loop,
    "runs": runs,
    "floors": floors,
    "modules": modules,
    "ladder": ladder,
}


def main() -> None:
    """Measure, and write or print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, help="one table")
    parser.add_argument("--quick", action="store_true", help="short, printed")
    asked = parser.parse_args()
    for name, section in SECTIONS.items():
        if asked.only in (None, name):
            print(f"{name} ...", file=sys.stderr)
            before = os.getloadavg()[0]
            text = f"{section(asked.quick).markdown}\n{machine(('torch', 'torchvision'), before)}"
            print(text, flush=True)
            if not asked.quick:
                put(f"latency {name}", text)


if __name__ == "__main__":
    main()
