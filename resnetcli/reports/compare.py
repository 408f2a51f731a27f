"""Several nets side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from resnetcli.bench.settings import Settings
from resnetcli.counting.conventions import DEFAULT
from resnetcli.errors import ResourceError, UsageError, did_you_mean, release_frames
from resnetcli.failures import ModelFailure, for_each
from resnetcli.reports.accuracy import Accuracy
from resnetcli.reports.accuracy import accuracy as printed_accuracy
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
    settings_text,
)
from resnetcli.spec.header import FIGURES
from resnetcli.spec.inputs import Size
from resnetcli.spec.zoo import Zoo

if TYPE_CHECKING:
    import pandas as pd

    from resnetcli.bench.interleaved import Together
    from resnetcli.bench.versus import Ratio
    from resnetcli.plan.plan import Plan

HEADLINE = ("resnet50", "resnext50_32x4d")
"""The pair of Xie et al. 2017, Table 1, which `compare` shows unless told otherwise."""
Model = str | tuple[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Contest:
    """Nets timed in turns at one batch."""

    batch: int
    against: str
    """The label of the net that the others' times are relative to."""
    ratios: tuple[Ratio | None, ...]
    """In the order of the comparison's profiles; None for that net itself, and what could not be measured."""
    floor: float | None
    """How far that net may seem to be from itself, relative; the largest where there were several groups."""
    rounds: int
    """How many there were, in the group that had the fewest."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """Profiles in the order asked for, or sorted."""

    profiles: tuple[Profile, ...]
    baseline: Profile | None = None
    """What relative columns are relative to."""
    accuracy: Accuracy | None = None
    """The printed accuracies to be shown, of one protocol."""
    contests: tuple[Contest, ...] = ()
    """What timing the nets against each other showed, one a batch; empty unless a device was named."""
    left_out: tuple[str, ...] = ()
    """The labels of those that cost more than was asked for."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """What they may cost: `params`, `macs`."""
    failed: tuple[ModelFailure, ...] = ()
    """Models that could not be counted."""

    def ratio(self, place: int, batch: int) -> Ratio | None:
        """The time of the profile at that place relative to the net it was timed against; None if there is none."""
        return next((contest.ratios[place] for contest in self.contests if contest.batch == batch), None)

    def to_frame(self) -> pd.DataFrame:
        """One row a model, exact integers, indexed by model; imports pandas."""
        import pandas as pd

        return pd.DataFrame([figures(p) | self.accuracies(p) for p in self.profiles]).set_index("model")

    def accuracies(self, profile: Profile) -> dict[str, float | None]:
        """The best printed figure of each column, by name; with the dataset where there are several."""
        if self.accuracy is None:
            return {}
        keys = self.accuracy.keys
        return {keys[column]: self.accuracy.best(profile, *column) for column in self.accuracy.columns}


def figures(profile: Profile) -> dict[str, Any]:
    """What a comparison compares: exact counts, and the first measurement if there is one."""
    counts = profile.counts
    found: dict[str, Any] = {
        "model": label(profile),
        "name": profile.plan.title,
        "input": profile.plan.input_text,
        "params": counts.params,
        "macs": counts.macs,
        "flops": counts.flops,
        "activations": counts.activations,
        "depth": counts.depth,
    }
    tally = profile.tally
    found.setdefault(tally.name, tally.total)
    if profile.measurements:
        m = profile.measurements[0]
        found |= {
            "device": m.device,
            "batch": m.batch,
            "median_s": m.median_s,
            "iqr_s": m.iqr_s,
            "n": m.n,
            "throughput_img_s": m.throughput_img_s,
            "peak_memory_bytes": m.peak_memory_bytes,
        }
    return found


def label(profile: Profile) -> str:
    """The model with the parameters that were set: `resnext50_32x4d C=8 d=14`."""
    return " ".join(filter(None, (profile.model, settings_text(profile.settings))))


MEASURED = ("median_s", "throughput_img_s", "peak_memory_bytes", "min_s", "p90_s", "p99_s", "iqr_s", "n")
SORTS = ("name", "params", "macs", "flops", "activations", "depth", *MEASURED)


HEADS = {
    "model": "name", "acts": "activations", "median": "median_s", "images/s": "throughput_img_s",
    "peak memory": "peak_memory_bytes", "min": "min_s", "p90": "p90_s", "p99": "p99_s", "IQR": "iqr_s",
    "latency": "median_s", "throughput": "throughput_img_s",
}  # fmt: skip
"""What columns are called where they are printed -> the figure."""


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
    left_out = tuple(label(p) for p in counted if p not in profiles)
    printed = printed_accuracy(profiles, protocol, zoo) if accuracy or protocol is not None else None
    base = None if baseline in {name for f in failures for name in (f.model, f.label)} else baseline
    found = Comparison(
        tuple(profiles), _baseline(profiles, base), printed, left_out=left_out, limits=limits, failed=tuple(failures)
    )
    key = None if sort is None else _sort_key(found, sort, measured=device is not None)
    if device is not None:
        if best:
            found = _best(found, device, batches, time_budget_s, settings, tell)
        else:
            found = _measured(found, device, batches, time_budget_s, settings, tell, energy=energy)
        if memory:
            found = _remembered(found, settings)
    return found if key is None else _sorted(found, key, largest_first=str(sort).strip().startswith("-"))


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
        contests.append(Contest(batch, label(profiles[base]), tuple(ratios), max(floors, default=None), least))
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


def _sort_key(comparison: Comparison, sort: str, measured: bool) -> str:
    """The figure to sort by. Raises UsageError for one that there is not, before anything is measured."""
    first = comparison.profiles[0]
    asked = sort.strip().removeprefix("-")
    known = tuple(dict.fromkeys((*SORTS, first.convention.name, *comparison.accuracies(first))))
    written = {_bare(word): name for word, name in (HEADS | {name: name for name in known}).items()}
    key = written.get(_bare(asked), asked)
    if key not in known:
        hint = "with `--accuracy`" if key in FIGURES else did_you_mean(key, known, f"one of {', '.join(known)}")
        raise UsageError(f"cannot sort by `{asked}`", hint)
    if key in MEASURED and not measured:
        raise UsageError(f"`{key}` is measured only with `--device`", "add `--device cpu`, or another device")
    return key


def _bare(text: str) -> str:
    """`fvcore-train` and `fvcore_train`, `MACs` and `macs` are one."""
    return "".join(char for char in text.casefold() if char.isalnum() or char in "/@.")


def _value(comparison: Comparison, profile: Profile, key: str) -> Any:
    if key in MEASURED:
        return getattr(profile.measurements[0], key) if profile.measurements else None
    return (figures(profile) | comparison.accuracies(profile)).get(key)


def _sorted(comparison: Comparison, key: str, *, largest_first: bool) -> Comparison:
    """By a figure, of the first batch where it is measured; nets without it last, whatever the direction."""
    values = [_value(comparison, p, key) for p in comparison.profiles]
    places = [place for place, value in enumerate(values) if value is not None]
    places.sort(key=lambda place: values[place] or 0, reverse=largest_first)
    places += [place for place, value in enumerate(values) if value is None]
    contests = [replace(each, ratios=tuple(each.ratios[place] for place in places)) for each in comparison.contests]
    profiles = tuple(comparison.profiles[place] for place in places)
    return replace(comparison, profiles=profiles, contests=tuple(contests))


def _baseline(profiles: list[Profile], name: str | None) -> Profile | None:
    if name is None:
        return None
    known = {p.model: p for p in reversed(profiles)} | {label(p): p for p in profiles}
    if name not in known:
        raise UsageError(
            f"the baseline `{name}` is not among the models compared",
            did_you_mean(name, known, f"one of {', '.join(known)}"),
        )
    return known[name]
