"""Compare models side by side: counted, sorted, and timed against each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resnetcli.bench.settings import Settings
from resnetcli.counting.conventions import DEFAULT
from resnetcli.errors import ResourceError, UsageError, did_you_mean, release_frames
from resnetcli.failures import for_each
from resnetcli.reports.accuracy import accuracy as printed_accuracy
from resnetcli.reports.comparison import Comparison, Contest, Row, frame_fields, measured_fields
from resnetcli.reports.profile import (
    DEFAULT_SETTINGS,
    TIME_BUDGET_S,
    Batches,
    Profile,
    as_batches,
    check_best,
    climb_all,
    failed,
    profile_model,
    remembered,
)
from resnetcli.spec.header import FIGURES
from resnetcli.spec.inputs import Size
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field, find_field

if TYPE_CHECKING:
    from resnetcli.bench.interleaved import Together
    from resnetcli.bench.versus import Ratio
    from resnetcli.plan.plan import Plan

HEADLINE = ("resnet50", "resnext50_32x4d")
"""The pair of Xie et al. 2017, Table 1, which `compare` shows unless told otherwise."""
Model = str | tuple[str, Mapping[str, int]]


def compare(
    *models: Model,
    input: Size | None = None,
    batch: Batches = 1,
    device: str | None = None,
    time_budget_s: float = TIME_BUDGET_S,
    settings: Settings = DEFAULT_SETTINGS,
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
    keep_going: bool = False,
    tell: Callable[[float], None] = lambda share: None,
) -> Comparison:
    """The models' profiles: names, or (name, parameters). Without any, ResNet-50 and ResNeXt-50.

    `convention` is how work is counted: a tool's way (`fvcore`, `thop`, ...), which each profile's `tally` has.
    `accuracy` adds what papers print under one evaluation protocol: the one named, or that of most of the nets. `sort`
    is a figure, a printed one of that protocol among them, largest first with a leading `-`. Nets with more than
    `max_params` parameters or `max_macs` MACs are left out. With a `device` those that are left are timed there in
    turns, for some `time_budget_s` a net and batch, relative to the baseline or else the first; `tell` is told how much
    of that is done, from 0 to 1. `settings` are how they are run; with `best` each as a ladder of settings finds it
    quickest. `memory` runs each once more in a process of its own, `energy` reads the device's meter while each of them
    runs. With `keep_going` a model that cannot be counted is among `failed`, and the others are compared. Raises what
    `profile` raises, UsageError for a figure, baseline or protocol that there is not, and if no net is left, and
    ModelsError if with `keep_going` all fail.
    """
    zoo = zoo or Zoo()
    check_best(best, settings, energy)
    batches = as_batches(batch)
    if device is not None:
        from resnetcli.bench.device import find

        device = find(device)
    asked = [(model, {}) if isinstance(model, str) else model for model in models or HEADLINE]

    def counted_as_asked(name: str, given: Mapping[str, int]) -> Profile:
        return profile_model(name, given, input=input, batch=batches, zoo=zoo, modules=True, convention=convention)

    if keep_going:
        counted, failures = for_each(asked, counted_as_asked)
    else:
        counted, failures = [counted_as_asked(name, given) for name, given in asked], []
    limits = {name: most for name, most in (("params", max_params), ("macs", max_macs)) if most is not None}
    profiles = [p for p in counted if all(p.counts.total.figure(name) <= most for name, most in limits.items())]
    if not profiles:
        raise UsageError(f"no net of {len(counted)} costs so little", "raise `--max-params` or `--max-macs`")
    left_out = tuple(p.label for p in counted if p not in profiles)
    printed = printed_accuracy(profiles, protocol, zoo) if accuracy or protocol is not None else None
    base = None if baseline in {name for f in failures for name in (f.model, f.label)} else baseline
    found = Comparison(
        tuple(profiles), _baseline(profiles, base), printed, left_out=left_out, limits=limits, failed=tuple(failures)
    )
    field = None if sort is None else _sort_field(found, sort, measured=device is not None)
    if device is not None:
        if best:
            found = _best(found, device, batches, time_budget_s, settings, tell)
        else:
            found = _measured(found, device, batches, time_budget_s, settings, tell, energy=energy)
        if memory:
            found = _remembered(found, settings)
    return found if field is None else _sorted(found, field, largest_first=str(sort).strip().startswith("-"))


GROUP = 8
"""Nets that are on a device at the same time, besides the one all are compared with."""


def _measured(
    comparison: Comparison, device: str, batches: Sequence[int], time_budget_s: float, settings: Settings,
    tell: Callable[[float], None], *, energy: bool,
) -> Comparison:  # fmt: skip
    """The comparison with its nets timed in turns. Raises a ResourceError if not one could be measured."""

    def time_them(group: Sequence[int], batch: int, tell: Callable[[float], None]) -> Together:
        plans = [comparison.profiles[each].plan for each in group]
        return _together(plans, device, batch, time_budget_s, settings, tell, energy=energy)

    return _contested(comparison, device, batches, range(len(comparison.profiles)), time_them, tell)


def _contested(
    comparison: Comparison, device: str, batches: Sequence[int], places: Sequence[int], time_them: TimeThem,
    tell: Callable[[float], None],
) -> Comparison:  # fmt: skip
    """The comparison with the profiles at those places timed in turns, in groups that have the base in common.

    Raises a ResourceError if not one could be measured.
    """
    from resnetcli.bench.sampling import part

    profiles = list(comparison.profiles)
    base = next((n for n, profile in enumerate(profiles) if profile is comparison.baseline), places[0])
    others = [number for number in places if number != base]
    groups = [[base, *others[start : start + GROUP]] for start in range(0, len(others), GROUP)] or [[base]]
    contests, error = [], None
    for place, batch in enumerate(batches):
        found: list[Together] = []
        for number, group in enumerate(groups):
            piece = part(tell, place * len(groups) + number, len(batches) * len(groups))
            together = time_them(group, batch, piece)
            for each, outcome in zip(group, together.measured, strict=True):
                if number and each == base:
                    continue  # measured with the first group
                profile = profiles[each]
                if isinstance(outcome, ResourceError):
                    error = outcome
                    failures = (*profile.failures, failed(device, batch, outcome))
                    profiles[each] = replace(profile, failures=failures)
                else:
                    profiles[each] = replace(profile, measurements=(*profile.measurements, outcome))
            found.append(together)
        ratios: list[Ratio | None] = [None] * len(profiles)
        for group, together in zip(groups, found, strict=True):
            for each, ratio in zip(group, together.ratios, strict=True):
                ratios[each] = ratio
        floors = [together.floor for together in found if together.floor is not None]
        least = min(together.rounds for together in found)
        contests.append(Contest(batch, profiles[base].label, tuple(ratios), max(floors, default=None), least))
    if error is not None and not any(profile.measurements for profile in profiles):
        raise error
    baseline = profiles[base] if comparison.baseline else None
    return replace(comparison, profiles=tuple(profiles), baseline=baseline, contests=tuple(contests))


TimeThem = Callable[[Sequence[int], int, Callable[[float], None]], "Together"]
"""Times the profiles at those places at a batch, the first being the base."""


def _best(
    comparison: Comparison, device: str, batches: Sequence[int], time_budget_s: float, settings: Settings,
    tell: Callable[[float], None],
) -> Comparison:  # fmt: skip
    """The comparison with each net as quick as it can be made: a ladder for each, and the best of all timed in turns.

    Raises a ResourceError if not one could be measured.
    """
    from resnetcli.bench.interleaved_subprocesses import measure_apart
    from resnetcli.bench.sampling import part
    from resnetcli.bench.worker import Job

    profiles: list[Profile] = []
    for number, profile in enumerate(comparison.profiles):
        piece = part(tell, number, len(comparison.profiles) + 1)
        ladders, found, failures = climb_all(profile.plan, device, batches, time_budget_s, settings, piece)
        profiles.append(replace(profile, ladders=ladders, measurements=found, failures=failures))
    if not any(profile.measurements for profile in profiles):
        raise ResourceError(profiles[-1].failures[-1].problem)
    base = next((n for n, each in enumerate(comparison.profiles) if each is comparison.baseline), None)
    climbed = replace(comparison, profiles=tuple(profiles), baseline=None if base is None else profiles[base])
    places = [number for number, profile in enumerate(profiles) if profile.measurements]
    if len(places) < 2 or (base is not None and base not in places):
        return climbed  # nothing to be compared with

    def time_them(group: Sequence[int], batch: int, tell: Callable[[float], None]) -> Together:
        from resnetcli.bench.interleaved import Together

        jobs = []
        for profile in (profiles[each] for each in group):
            (ladder,) = (ladder for ladder in profile.ladders if ladder.batch == batch)
            way = ladder.best if ladder.passed else ladder.rungs[0]  # which says once more why not
            jobs.append(Job(profile.plan, way.settings, device, batch, time_budget_s))
        try:
            return measure_apart(jobs, tell=tell)
        except ResourceError as error:
            return Together((release_frames(error),) * len(jobs), (None,) * len(jobs), None, 0, False)

    cleared = [replace(p, measurements=(), failures=()) if p.measurements else p for p in profiles]
    bare = replace(climbed, profiles=tuple(cleared), baseline=None if base is None else cleared[base])
    last = part(tell, len(profiles), len(profiles) + 1)
    return _contested(bare, device, batches, places, time_them, last)


def _remembered(comparison: Comparison, settings: Settings) -> Comparison:
    """The comparison with the memory that a process of its own takes for each net at each batch."""
    profiles = []
    for profile in comparison.profiles:
        found, failures = remembered(profile.plan, profile.measurements, settings, profile.ladders)
        profiles.append(replace(profile, measurements=found, failures=(*profile.failures, *failures)))
    base = next((n for n, each in enumerate(comparison.profiles) if each is comparison.baseline), None)
    return replace(comparison, profiles=tuple(profiles), baseline=None if base is None else profiles[base])


def _together(
    plans: list[Plan], device: str, batch: int, time_budget_s: float, settings: Settings,
    tell: Callable[[float], None], *, energy: bool,
) -> Together:  # fmt: skip
    """The nets in turns; none of them where they do not fit at once."""
    from resnetcli.bench.interleaved import Together, measure_together

    try:
        return measure_together(
            plans, device=device, batch=batch, time_budget_s=time_budget_s, settings=settings, energy=energy, tell=tell
        )
    except ResourceError as error:
        return Together((release_frames(error),) * len(plans), (None,) * len(plans), None, 0, False)


def _sort_field(comparison: Comparison, sort: str, measured: bool) -> Field[Row]:
    """The column to sort by. Raises UsageError for an unknown one, before anything is measured."""
    asked = sort.strip().removeprefix("-")
    counted, timed = frame_fields(comparison), measured_fields()
    if found := find_field(counted, asked):
        return found
    if found := find_field(timed, asked):
        if not measured:
            raise UsageError(f"`{found.key}` is measured only with `--device`", "add `--device cpu`, or another device")
        return found
    known = [each.key for each in (*counted, *timed)]
    hint = "with `--accuracy`" if asked in FIGURES else did_you_mean(asked, known, f"one of {', '.join(known)}")
    raise UsageError(f"cannot sort by `{asked}`", hint)


def _sorted(comparison: Comparison, field: Field[Row], *, largest_first: bool) -> Comparison:
    """By a column, at the first batch size if it is measured; models without a value last in either direction."""
    rows = [Row(profile, next(iter(profile.measurements), None)) for profile in comparison.profiles]
    values: list[Any] = [field.of(row) for row in rows]
    places = [place for place, value in enumerate(values) if value is not None]
    places.sort(key=lambda place: values[place], reverse=largest_first)
    places += [place for place, value in enumerate(values) if value is None]
    contests = [replace(each, ratios=tuple(each.ratios[place] for place in places)) for each in comparison.contests]
    profiles = tuple(comparison.profiles[place] for place in places)
    return replace(comparison, profiles=profiles, contests=tuple(contests))


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
