"""Benchmark models at several batch sizes: one by one, interleaved or autotuned."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

from resnetcli.bench.interleaved import Interleaved, measure_interleaved
from resnetcli.bench.interleaved_subprocesses import measure_interleaved_subprocesses
from resnetcli.bench.latency import Measurement, measure
from resnetcli.bench.options import BenchmarkOptions
from resnetcli.bench.sampling import Progress, portion
from resnetcli.bench.search import SettingsSearch, search
from resnetcli.bench.versus import Ratio
from resnetcli.bench.worker import Job, measure_memory
from resnetcli.errors import ResourceError, release_frames
from resnetcli.frozen import frozen
from resnetcli.plan.plan import Plan

GROUP = 8
"""Models on a device at the same time, besides the base that all are compared with."""


@frozen
class Failure:
    """A measurement that failed."""

    device: str
    batch: int
    problem: str
    """Why, in one line."""

    @classmethod
    def of(cls, device: str, batch_size: int, error: ResourceError) -> Failure:
        """The failure of an error, with the batch size and the hint."""
        unquoted = re.sub("`[^`]*`", "", error.message)  # a file may have any name
        named = re.search(rf"\b(batch of|at batch) {batch_size}(?![\d,])", unquoted)
        problem = error.message if named else f"{error.message}, at batch {batch_size}"
        return cls(device, batch_size, "; ".join(filter(None, (problem, error.hint))))


@frozen
class Results:
    """Everything measured of one model."""

    measurements: tuple[Measurement, ...] = ()
    """One per batch size."""
    failures: tuple[Failure, ...] = ()
    searches: tuple[SettingsSearch, ...] = ()
    """One per batch size with `best`."""

    def plus(self, outcome: Measurement | Failure) -> Results:
        """With the outcome of one more batch size."""
        if isinstance(outcome, Failure):
            return replace(self, failures=(*self.failures, outcome))
        return replace(self, measurements=(*self.measurements, outcome))


@frozen
class PairedTimings:
    """Interleaved timings of several models at one batch size."""

    batch: int
    against: str
    """The name of the model that the others' times are relative to, the base."""
    ratios: tuple[Ratio | None, ...]
    """In the order of the models; None for the base itself, and for models that could not be measured."""
    floor: float | None
    """Noise floor, relative: an A/A test of two builds of the base (`versus`); the largest of several groups."""
    rounds: int
    """Number of rounds, in the group with the fewest."""


def benchmark(plan: Plan, options: BenchmarkOptions, progress: Progress) -> Results:
    """Measure one model at each batch size; those that fail are in `failures`, even if all do."""
    results = _search(plan, options, progress) if options.best else _measure(plan, options, progress)
    return _with_memory(plan, results) if options.memory else results


def benchmark_interleaved(
    plans: Sequence[Plan], names: Sequence[str], options: BenchmarkOptions, *, base: int | None, progress: Progress
) -> tuple[tuple[Results, ...], tuple[PairedTimings, ...]]:
    """Measure several models at each batch size, interleaved; times are relative to `base`, or the first model.

    With `best`, each model is measured under its own fastest options. Raises ResourceError if all fail.
    """
    results, timings = (_search_interleaved if options.best else _measure_interleaved)(
        plans, names, options, base, progress
    )
    if options.memory:
        results = [_with_memory(plan, each) for plan, each in zip(plans, results, strict=True)]
    return tuple(results), timings


def _device(options: BenchmarkOptions) -> str:
    assert options.device is not None, "nothing is measured without a device"
    return options.device


def _measure(plan: Plan, options: BenchmarkOptions, progress: Progress) -> Results:
    device, results = _device(options), Results()
    for number, batch_size in enumerate(options.batch_sizes):
        try:
            measurement = measure(
                plan, device=device, batch_size=batch_size, time_budget_s=options.time_budget_s, options=options.run,
                energy=options.energy, progress=portion(progress, number, len(options.batch_sizes)),
            )  # fmt: skip
            results = results.plus(measurement)
        except ResourceError as error:
            results = results.plus(Failure.of(device, batch_size, error))
    return results


def _search(plan: Plan, options: BenchmarkOptions, progress: Progress) -> Results:
    """The measurement under the fastest options at each batch size."""
    device = _device(options)
    searches = tuple(
        search(
            plan, device=device, batch_size=batch_size, options=options.run, time_budget_s=options.time_budget_s,
            progress=portion(progress, number, len(options.batch_sizes)),
        )
        for number, batch_size in enumerate(options.batch_sizes)
    )  # fmt: skip
    results = Results(searches=searches)
    for trials in searches:
        try:
            best = trials.best.measurement
        except ResourceError as error:
            results = results.plus(Failure.of(device, trials.batch, error))
            continue
        assert best is not None
        results = results.plus(best)
    return results


def _with_memory(plan: Plan, results: Results) -> Results:
    """Add the memory of a separate process to each measurement, under its options."""
    extended = replace(results, measurements=())
    for m in results.measurements:
        footprint = measure_memory(Job(plan, m.options, m.device, m.batch, 0.0))
        if isinstance(footprint, str):
            problem = f"memory of `{plan.name}` with a batch of {m.batch}: {footprint}"
            extended = extended.plus(Failure(m.device, m.batch, problem)).plus(m)
        else:
            extended = extended.plus(replace(m, memory=footprint))
    return extended


# --- interleaved -------------------------------------------------------------------------------------------------

TimeGroup = Callable[[Sequence[int], int, Progress], Interleaved]
"""Times the models of some indices at a batch size; the first is the base."""


def _measure_interleaved(
    plans: Sequence[Plan], names: Sequence[str], options: BenchmarkOptions, base: int | None, progress: Progress
) -> tuple[list[Results], tuple[PairedTimings, ...]]:
    def time_group(group: Sequence[int], batch_size: int, progress: Progress) -> Interleaved:
        return measure_interleaved(
            [plans[number] for number in group], device=_device(options), batch_size=batch_size, options=options.run,
            time_budget_s=options.time_budget_s, energy=options.energy, progress=progress,
        )  # fmt: skip

    results = [Results() for _ in plans]
    return _in_groups(results, names, options, range(len(plans)), base or 0, time_group, progress)


def _search_interleaved(
    plans: Sequence[Plan], names: Sequence[str], options: BenchmarkOptions, base: int | None, progress: Progress
) -> tuple[list[Results], tuple[PairedTimings, ...]]:
    """Search each model's fastest options, then time the models interleaved, each in its own process."""
    device, parts = _device(options), len(plans) + 1
    results = [_search(plan, options, portion(progress, number, parts)) for number, plan in enumerate(plans)]
    if not any(each.measurements for each in results):
        raise ResourceError(results[-1].failures[-1].problem)
    places = [number for number, each in enumerate(results) if each.measurements]
    if len(places) < 2 or (base is not None and base not in places):
        return results, ()  # there is nothing to compare with

    def time_group(group: Sequence[int], batch_size: int, progress: Progress) -> Interleaved:
        jobs = []
        for number in group:
            (trials,) = (trials for trials in results[number].searches if trials.batch == batch_size)
            trial = trials.best if trials.passed else trials.trials[0]  # fails once more, with the reason
            jobs.append(Job(plans[number], trial.options, device, batch_size, options.time_budget_s))
        return measure_interleaved_subprocesses(jobs, progress=progress)

    cleared = [Results(searches=each.searches) if each.measurements else each for each in results]
    last = portion(progress, len(plans), parts)
    return _in_groups(cleared, names, options, places, places[0] if base is None else base, time_group, last)


def _in_groups(
    results: list[Results], names: Sequence[str], options: BenchmarkOptions, places: Sequence[int], base: int,
    time_group: TimeGroup, progress: Progress,
) -> tuple[list[Results], tuple[PairedTimings, ...]]:  # fmt: skip
    """Add the measurements of the models at those places, timed in groups that have the base in common.

    Raises the last ResourceError if all fail.
    """
    results, others = list(results), [number for number in places if number != base]
    groups = [[base, *others[start : start + GROUP]] for start in range(0, len(others), GROUP)] or [[base]]
    timings, error = [], None
    for place, batch_size in enumerate(options.batch_sizes):
        ratios: list[Ratio | None] = [None] * len(results)
        outcomes: list[Interleaved] = []
        for number, group in enumerate(groups):
            piece = portion(progress, place * len(groups) + number, len(options.batch_sizes) * len(groups))
            try:
                timed = time_group(group, batch_size, piece)
            except ResourceError as reason:  # the models do not fit at once
                timed = Interleaved.failed([release_frames(reason)] * len(group))
            outcomes.append(timed)
            for each, outcome, ratio in zip(group, timed.measured, timed.ratios, strict=True):
                ratios[each] = ratio
                if number and each == base:
                    continue  # is in the first group
                if isinstance(outcome, ResourceError):
                    error = outcome
                    results[each] = results[each].plus(Failure.of(_device(options), batch_size, outcome))
                else:
                    results[each] = results[each].plus(outcome)
        floor = max((timed.floor for timed in outcomes if timed.floor is not None), default=None)
        rounds = min(timed.rounds for timed in outcomes)
        timings.append(PairedTimings(batch_size, names[base], tuple(ratios), floor, rounds))
    if error is not None and not any(each.measurements for each in results):
        raise error
    return results, tuple(timings)
