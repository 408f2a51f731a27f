"""Compare models side by side: counted, sorted, and timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from resnetcli.bench.options import DEFAULT as DEFAULT_RUN
from resnetcli.bench.options import TIME_BUDGET_S, BenchmarkOptions, RunOptions
from resnetcli.counting.conventions import DEFAULT
from resnetcli.errors import UsageError, did_you_mean
from resnetcli.failures import for_each
from resnetcli.reports.accuracy import accuracy as published_accuracy
from resnetcli.reports.comparison import Comparison, Row, frame_fields, timing_fields
from resnetcli.reports.profile import STATIC, Batches, Profile, as_batches, profile_model
from resnetcli.spec.header import FIGURES
from resnetcli.spec.inputs import Size
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field, find_field

HEADLINE = ("resnet50", "resnext50_32x4d")
"""The models of Xie et al. 2017, Table 1: the default of `compare`."""
Model = str | tuple[str, Mapping[str, int]]


def compare(
    *models: Model,
    input: Size | None = None,
    batch_size: Batches = 1,
    device: str | None = None,
    time_budget_s: float = TIME_BUDGET_S,
    options: RunOptions = DEFAULT_RUN,
    best: bool = False,
    memory: bool = False,
    energy: bool = False,
    max_params: int | None = None,
    max_macs: int | None = None,
    sort: str | None = None,
    baseline: str | None = None,
    accuracy: bool = False,
    protocol: str | None = None,
    convention: str = DEFAULT,
    zoo: Zoo | None = None,
) -> Comparison:
    """The models' profiles: names, or (name, parameters). Without any, ResNet-50 and ResNeXt-50.

    `convention` selects a tool's counting rules (`fvcore`, `thop`, ...), for each profile's `tally`. `accuracy` adds
    published accuracies under one evaluation protocol: the one named, or that of most of the models. `sort` is a
    column, also a published accuracy; a leading `-` sorts in descending order. Models with more than `max_params`
    parameters or `max_macs` MACs are left out. With a `device` the others are timed there in interleaved rounds, for
    about `time_budget_s` per model and batch size, relative to the baseline or else the first. `options` are how they
    are run; with `best` each under its own fastest options. `memory` also measures the peak memory of a separate
    process for each, `energy` reads the device's meter while each of them runs. Raises what `profile` raises, and
    UsageError for an unknown column, baseline or protocol, and if no model is left.
    """
    benchmark = BenchmarkOptions(
        batch_sizes=as_batches(batch_size), device=device, time_budget_s=time_budget_s, run=options, best=best,
        memory=memory, energy=energy,
    )  # fmt: skip
    return compare_models(
        models, benchmark=benchmark, input=input, max_params=max_params, max_macs=max_macs, sort=sort,
        baseline=baseline, accuracy=accuracy, protocol=protocol, convention=convention, zoo=zoo,
    )  # fmt: skip


def compare_models(
    models: Sequence[Model],
    *,
    benchmark: BenchmarkOptions = STATIC,
    input: Size | None = None,
    max_params: int | None = None,
    max_macs: int | None = None,
    sort: str | None = None,
    baseline: str | None = None,
    accuracy: bool = False,
    protocol: str | None = None,
    convention: str = DEFAULT,
    zoo: Zoo | None = None,
    keep_going: bool = False,
    progress: Callable[[float], None] = lambda share: None,
) -> Comparison:
    """`compare` with everything about measuring as one object.

    `progress` receives the completed share of the benchmark, from 0 to 1. With `keep_going` a model that cannot be
    counted is among `failed` and the others are compared; raises ModelsError if all fail.
    """
    zoo = zoo or Zoo()
    benchmark = benchmark.resolve_device()
    named = [(model, {}) if isinstance(model, str) else model for model in models or HEADLINE]

    def count_model(name: str, given: Mapping[str, int]) -> Profile:
        static = replace(benchmark, device=None)
        return profile_model(name, given, input=input, benchmark=static, zoo=zoo, modules=True, convention=convention)

    if keep_going:
        counted, failures = for_each(named, count_model)
    else:
        counted, failures = [count_model(name, given) for name, given in named], []
    limits = {name: most for name, most in (("params", max_params), ("macs", max_macs)) if most is not None}
    profiles = [p for p in counted if all(p.counts.total.figure(name) <= most for name, most in limits.items())]
    if not profiles:
        bounds = " and ".join(f"--max-{name} {limit}" for name, limit in limits.items())
        raise UsageError(f"no model within {bounds}", "raise `--max-params` or `--max-macs`")
    left_out = tuple(p.label for p in counted if p not in profiles)
    published = published_accuracy(profiles, protocol, zoo) if accuracy or protocol is not None else None
    failed = {name for f in failures for name in (f.model, f.label)}
    base = None if baseline in failed else _baseline(counted, baseline)
    if base is not None:
        _require_within(base, profiles, limits)
    comparison = Comparison(tuple(profiles), base, published, left_out=left_out, limits=limits, failed=tuple(failures))
    field = None if sort is None else _sort_field(comparison, sort, measured=benchmark.device is not None)
    if benchmark.device is not None:
        comparison = _measured(comparison, benchmark, progress)
    return comparison if field is None else _sorted(comparison, field, largest_first=str(sort).strip().startswith("-"))


def _measured(comparison: Comparison, benchmark: BenchmarkOptions, progress: Callable[[float], None]) -> Comparison:
    """The comparison with its models measured. Raises a ResourceError if all fail."""
    from resnetcli.bench.benchmark import benchmark_interleaved

    profiles = comparison.profiles
    base = next((place for place, profile in enumerate(profiles) if profile is comparison.baseline), None)
    results, timings = benchmark_interleaved(
        [profile.plan for profile in profiles], [profile.label for profile in profiles], benchmark, base=base,
        progress=progress,
    )  # fmt: skip
    profiles = tuple(profile.with_results(result) for profile, result in zip(profiles, results, strict=True))
    baseline = None if base is None else profiles[base]
    return replace(comparison, profiles=profiles, baseline=baseline, timings=timings)


def _sort_field(comparison: Comparison, sort: str, measured: bool) -> Field[Row]:
    """The column to sort by. Raises UsageError for an unknown one, before anything is measured."""
    name = sort.strip().removeprefix("-")
    counted, timed = frame_fields(comparison), timing_fields(comparison)
    if found := find_field(counted, name):
        return found
    if found := find_field(timed, name):
        if not measured:
            raise UsageError(f"`{found.key}` is measured only with `--device`", "add `--device cpu`, or another device")
        return found
    known = [field.key for field in (*counted, *timed)]
    hint = did_you_mean(name, known, f"one of {', '.join(known)}")
    if name in FIGURES:
        hint = "add `--accuracy`"
    elif name.endswith("_ratio") and comparison.baseline is None:
        hint = "add `--baseline MODEL`"
    raise UsageError(f"cannot sort by `{name}`", hint)


def _sorted(comparison: Comparison, field: Field[Row], *, largest_first: bool) -> Comparison:
    """By a column, at the first batch size if it is measured; models without a value last in either direction."""
    rows = [Row(profile, next(iter(profile.measurements), None)) for profile in comparison.profiles]
    values: list[Any] = [field.of(row) for row in rows]
    places = [place for place, value in enumerate(values) if value is not None]
    places.sort(key=lambda place: values[place], reverse=largest_first)
    places += [place for place, value in enumerate(values) if value is None]
    timings = [replace(timing, ratios=tuple(timing.ratios[place] for place in places)) for timing in comparison.timings]
    profiles = tuple(comparison.profiles[place] for place in places)
    return replace(comparison, profiles=profiles, timings=tuple(timings))


def _require_within(baseline: Profile, profiles: Sequence[Profile], limits: Mapping[str, int]) -> None:
    """Raise UsageError if the limits leave out the baseline."""
    if baseline in profiles:
        return
    figures = {name: baseline.counts.total.figure(name) for name in limits}
    needed = [f"--max-{name} {figure}" for name, figure in figures.items() if figure > limits[name]]
    options = " and ".join(f"`--max-{name}`" for name, figure in figures.items() if figure > limits[name])
    raise UsageError(
        f"the baseline `{baseline.label}` is left out by {options}",
        f"include it with `{' '.join(needed)}`, or use another baseline, e.g. `{profiles[0].label}`",
    )


def _baseline(profiles: list[Profile], name: str | None) -> Profile | None:
    if name is None:
        return None
    known = {p.model: p for p in reversed(profiles)} | {p.label: p for p in profiles}
    if name not in known:
        raise UsageError(
            f"the baseline `{name}` is not among the models compared",
            did_you_mean(name, known, f"one of {', '.join(known)}"),
        )
    return known[name]
