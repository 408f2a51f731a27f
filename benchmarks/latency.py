"""Reliability of measured latencies, and the speedups of `--best`: a table for each claim in docs/how-to/measuring.md.

`python -m benchmarks.latency` measures all tables and writes its sections of docs/why/benchmarks.md; `--only NAME`
writes one table; `--quick` measures for a shorter time and prints the tables. Run it on a quiet machine: each section
has the load average.
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

MODELS = ("resnet18", "resnet50", "resnext50_32x4d", "wide_resnet50_2", "inception_v3")
"""Models with the same name in the zoo and in torchvision."""
BATCHES = (1, 16)
KEEP_MEMORY = rc.RunOptions(keep_memory=True)
"""Without it, page faults take a third of the latency at batch size 16, and vary."""


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


def images(plan: rc.Plan, batch: int) -> Tensor:
    """Random images for a model."""
    return torch.randn(batch, plan.input.c, plan.input.h, plan.input.w)


# --- compared with a hand-written loop ---------------------------------------------------------------------------


def time_by_loop(net: nn.Module, x: Tensor, seconds: float) -> float:
    """The median latency by a hand-written loop: warm up, time each call, take the median."""
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


def time_by_measure(ready: Ready, seconds: float) -> float:
    """The median latency of a prepared model, by the warm-up and the sampling of `measure`."""
    warm_up(ready.waited, perf_counter, least_s=seconds / 4, most_s=seconds / 2)
    return statistics.median(sample(ready.waited, perf_counter, budget_s=seconds, least_s=seconds / 4).seconds)


def prepare_with_module(plan: rc.Plan, batch: int) -> tuple[Ready, nn.Module]:
    """A model prepared as by `measure`, and its module.

    The loop times the same module: a second one has its weights at other addresses and may have another latency.
    """
    built: list[nn.Module] = []

    def build_and_append(plan: rc.Plan, place: torch.device) -> Net:
        built.append(net := build_random(plan, place))
        return net

    with mock.patch("resnetcli.bench.prepare.build_random", build_and_append):
        return prepare(plan, torch.device("cpu"), batch, perf_counter, KEEP_MEMORY), built[0]


def time_interleaved(plan: rc.Plan, batch: int, seconds: float, rounds: int) -> dict[str, list[float]]:
    """Median latencies by round: by `measure`, by the loop, and by the loop again."""
    with configure_torch(KEEP_MEMORY, torch.device("cpu")):
        ready, net = prepare_with_module(plan, batch)
        x = images(plan, batch)
        tasks: dict[str, Callable[[], float]] = {
            "ours": lambda: time_by_measure(ready, seconds),
            "loop": lambda: time_by_loop(net, x, seconds),
            "again": lambda: time_by_loop(net, x, seconds),
        }
        times: dict[str, list[float]] = {task: [] for task in tasks}
        for number in range(rounds):
            for task in random.Random(number).sample(list(tasks), len(tasks)):
                times[task].append(tasks[task]())
    return times


def hand_written_loop(quick: bool) -> Section:
    """Ratio of our median latency to the loop's, and the loop's noise floor."""
    rows = []
    for batch in BATCHES:
        for name in MODELS:
            seconds = 0.5 if quick else (1.0 if batch == 1 else 3.0)
            times = time_interleaved(rc.load(name), batch, seconds, 3 if quick else 9)
            gc.collect()
            ratio, floor = paired(times["loop"], times["ours"]), noise_floor(times["loop"], times["again"])
            bound = max(0.02, floor)
            rows.append(
                (
                    cell(name), cell(batch),
                    *(cell(value := statistics.median(times[task]), duration(value)) for task in ("loop", "ours")),
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


def run_to_run(quick: bool) -> Section:
    """Deviation of the ratio of two models from one run of `compare` to the next."""
    rows = []
    count = 3 if quick else 4
    plans = [rc.load(name) for name in MODELS]
    base = MODELS.index("resnet50")
    for batch in BATCHES:
        budget = 0.5 if quick else 6.0
        runs = []
        for _ in range(count):
            runs.append(
                measure_interleaved(plans, base=base, batch_size=batch, options=KEEP_MEMORY, time_budget_s=budget)
            )
            gc.collect()
        floor = max(run.floor or 0.0 for run in runs)
        for index, name in enumerate(MODELS):
            ratios = [ratio.ratio for run in runs if (ratio := run.ratios[index]) is not None]
            if not ratios:
                continue
            middle = statistics.median(ratios)
            deviation = max(abs(ratio / middle - 1) for ratio in ratios)
            times = [m.median_s for run in runs if not isinstance(m := run.measured[index], Exception)]
            time_deviation = max(abs(time / statistics.median(times) - 1) for time in times)
            rows.append(
                (
                    cell(f"{name} to resnet50"), cell(batch), cell(middle, f"{middle:.3f}"), percent(deviation),
                    percent(floor), cell("yes" if deviation <= max(0.02, floor) else "no"), percent(time_deviation),
                )
            )  # fmt: skip
    columns = (
        Column("ratio of", "models", "left"), Column("batch size", "batch"), Column("median", "ratio"),
        Column("largest deviation", "deviation"), Column("A/A floor", "floor"),
        Column("within max(2%, A/A)", "within", "left"), Column("largest deviation of the time", "time_deviation"),
    )  # fmt: skip
    note = (
        f"{count} runs of `compare --keep-memory` with all five models. Largest deviation: of a run's ratio from the "
        "median ratio; A/A floor: the largest noise floor that a run printed; the last column: the largest deviation "
        "of a run's latency from the median latency."
    )
    return Section("From run to run", note, Sheet(columns, tuple(rows)))


# --- lower bounds and layers -------------------------------------------------------------------------------------


def lower_bounds(quick: bool) -> Section:
    """The roofline lower bound as a share of the measured time; the sum of the layers' times relative to the whole."""
    device_peaks = measure_device_peaks("cpu")
    rows = []
    for dtype in ("fp32", "bf16"):
        for batch in BATCHES:
            for name in MODELS:
                plan = rc.load(name)
                (explanation,), _ = explain_measured(
                    [(name, name, plan)], device_peaks, device="cpu", batch_size=batch,
                    options=rc.RunOptions(dtype=dtype, keep_memory=True),
                    time_budget_s=0.5 if quick else (3.0 if batch == 1 else 6.0),
                )  # fmt: skip
                assert explanation.attained is not None
                assert explanation.layer_times is not None
                shares, bound_s = explanation.shares, explanation.eager.seconds
                rows.append(
                    (
                        cell(name), cell(dtype), cell(batch), cell(explanation.time_s, duration(explanation.time_s)),
                        cell(bound_s, duration(bound_s)), percent(explanation.attained, 0),
                        *(percent(shares[part], 0) for part in ("compute", "memory", "overhead", "unexplained")),
                        cell(explanation.layer_times.ratio, f"{explanation.layer_times.ratio:.3f}"),
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
        f"Eager with `--keep-memory`; device peaks measured just before: {peaks}. Attained: the roofline lower bound "
        "as a share of the measured time; compute, memory, overhead and unexplained: shares of the measured time, "
        "which sum to 1. The layers' times come from separate passes, interleaved with whole passes.",
        Sheet(columns, tuple(rows)),
    )


# --- built modules -----------------------------------------------------------------------------------------------


def modules(quick: bool) -> Section:
    """Built modules compared with torchvision's."""
    import torchvision

    keep_freed_memory()
    rows = []
    for batch in BATCHES:
        for name in MODELS:
            plan = rc.load(name)
            # Initialising Inception's weights is slow. Its auxiliary head does not run in evaluation mode.
            arguments = {"init_weights": False, "transform_input": False} if name == "inception_v3" else {}
            nets: Sequence[nn.Module] = (getattr(torchvision.models, name)(**arguments).eval(), rc.build(plan).eval())
            x = images(plan, batch)
            with torch.inference_mode():
                timers = [timer(net, x) for net in (nets[0], nets[1], nets[0])]
                for warm_up_timer in timers:
                    warm_up_timer(3)
                samples = sample_interleaved(
                    timers, perf_counter, random.Random(0), budget_s=2 if quick else (12 if batch == 1 else 30),
                    least=5 if quick else 60,
                )  # fmt: skip
            theirs, ours, again = samples.seconds
            ratio, floor = paired(theirs, ours), noise_floor(theirs, again)
            rows.append(
                (
                    cell(name), cell(batch), cell(theirs[0], duration(statistics.median(theirs))),
                    cell(ours[0], duration(statistics.median(ours))), cell(ratio.ratio, f"{ratio.ratio:.3f}"),
                    limits(ratio.interval), percent(floor), cell(samples.n),
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


# --- the settings of --best --------------------------------------------------------------------------------------


def settings_search(quick: bool) -> Section:
    """The speedup of each setting that `--best` tries."""
    models = MODELS[1:2]
    searches = {
        (name, batch): search(rc.load(name), batch_size=batch, time_budget_s=0.5 if quick else 3.0)
        for name in models for batch in BATCHES
    }  # fmt: skip
    all_options = list(dict.fromkeys(trial.options for result in searches.values() for trial in result.trials))
    rows = []
    for options in all_options:
        cells = [cell(options.text)]
        for result in searches.values():
            trial = next(trial for trial in result.trials if trial.options == options)
            speedup = result.speedup(trial)
            if trial.passed and speedup is not None:
                mark = "**" if trial is result.best else ""
                cells.append(cell(speedup, f"{mark}{speedup:.2f}{mark}"))
            else:
                cells.append(cell(None, "-"))
        rows.append(tuple(cells))
    first = tuple(
        cell(None, duration(m.median_s)) if (m := result.trials[0].measurement) else cell(None)
        for result in searches.values()
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
    "loop": hand_written_loop,
    "runs": run_to_run,
    "floors": lower_bounds,
    "modules": modules,
    "ladder": settings_search,
}


def main() -> None:
    """Measure; print the tables, and write their sections unless `--quick`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SECTIONS, help="measure this table alone")
    parser.add_argument("--quick", action="store_true", help="measure for a shorter time and print the tables")
    arguments = parser.parse_args()
    for name, section in SECTIONS.items():
        if arguments.only in (None, name):
            print(f"{name} ...", file=sys.stderr)
            before = os.getloadavg()[0]
            text = f"{section(arguments.quick).markdown}\n{machine(('torch', 'torchvision'), before)}"
            print(text, flush=True)
            if not arguments.quick:
                put(f"latency {name}", text)


if __name__ == "__main__":
    main()
