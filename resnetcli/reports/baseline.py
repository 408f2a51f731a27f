"""Measured times as a file that one keeps, and a later run held against it."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from resnetcli.bench.options import DEFAULT, option_of
from resnetcli.errors import ResourceError, UsageError, clean
from resnetcli.failures import for_each
from resnetcli.files import check_writable, load_json, write_output
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.reports.comparison import Comparison
from resnetcli.reports.foreign import of_reference
from resnetcli.reports.measured import measurement_record
from resnetcli.reports.profile import Profile
from resnetcli.reports.records import Record
from resnetcli.spec.inputs import Size, as_inputs, as_shape
from resnetcli.spec.read import read
from resnetcli.spec.reference import origin_of
from resnetcli.spec.zoo import Zoo

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.versus import Ratio

Net = tuple[str, Plan]
"""A model as it was asked for, and its plan."""
SCHEMA = "resnet-cli/saved@1"
MAX_SAVED = 16 * 2**20
"""Bytes of a file; a net at one batch takes 1 KB."""
DRIFT = 0.02
"""Below this, relative, no time is called different from one of another day, however narrow the intervals are."""
OPTIONS = DEFAULT.record()
"""The options of a run and their defaults, which files saved before an option existed were measured with."""
CONDITIONS = tuple(dict.fromkeys(("device", "device_name", "processors", "tf32", "cudnn_benchmark", *OPTIONS)))
"""What must be the same for two times to be comparable."""
WAY = frozenset({"dtype", "tf32", "settings"} | {f.name for f in fields(DEFAULT) if option_of(f).searched})
"""The conditions that `--best` chooses, and may choose differently another day."""
_HINT = "save one with `resnet-cli compare NET... --device cpu --save FILE`"
_SHORTEST_S, _LONGEST_S, _LARGEST = 1e-9, 1e6, 10**24


@dataclass(frozen=True, slots=True)
class Kept:
    """One net's times at one batch, as saved before."""

    model: str
    parameters: Mapping[str, int]
    input: tuple[int, ...]
    batch: int
    params: int
    macs: int
    conditions: Mapping[str, Any]
    median_s: float
    interval_s: tuple[float, float]
    floor: float
    """What that run could not have told from nothing, relative; 0 where it had no pair to learn it from."""
    torch: str
    best: bool = False
    """Whether its settings were the quickest that a ladder found."""

    @property
    def key(self) -> tuple[Any, ...]:
        """What a later result must have to be of the same net."""
        return self.model, tuple(sorted(self.parameters.items())), self.input, self.batch


@dataclass(frozen=True, slots=True)
class Saved:
    """A file of results."""

    file: str
    kept: tuple[Kept, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A net's time now against its time then."""

    model: str
    batch: int
    then_s: float
    now_s: float
    ratio: Ratio
    noisy: bool
    """Whether the run now is not to be relied upon."""
    notes: tuple[str, ...]
    """What else is different."""

    @property
    def verdict(self) -> Literal["regressed", "improved", "same", "undecided"]:
        """Undecided where a noisy run looks different, or cannot be trusted to be the same."""
        if self.noisy:
            return "undecided"
        outcome = self.ratio.outcome
        return "regressed" if outcome == "slower" else "improved" if outcome == "faster" else "same"


@dataclass(frozen=True, slots=True)
class Changes:
    """A run against a file."""

    file: str
    changes: tuple[Change, ...]
    unsaved: tuple[str, ...]
    """What was measured now and is not in the file."""
    unmeasured: tuple[str, ...]
    """What is in the file and was not measured now."""

    @property
    def regressed(self) -> tuple[Change, ...]:
        """Those that are slower than they were."""
        return tuple(change for change in self.changes if change.verdict == "regressed")

    @property
    def undecided(self) -> tuple[Change, ...]:
        """Those that a noisy run says nothing of."""
        return tuple(change for change in self.changes if change.verdict == "undecided")


def conditions_of(measured: Mapping[str, Any]) -> dict[str, Any]:
    """Of a measurement as a record those that matter here."""
    found = {name: measured[name] for name in CONDITIONS if name in measured}
    return found | {"processors": measured["environment"]["after"]["processors"]}


def nets_of(
    asked: Sequence[tuple[str, Mapping[str, int]]], *, input: Size | None, zoo: Zoo, most: Mapping[str, int]
) -> list[Net]:
    """Those of what is asked for that `compare` measures, which cost no more than `most`. Raises what it raises."""

    def plan_of(model: str, parameters: Mapping[str, int]) -> Net:
        if origin_of(model).is_pytorch:
            return model, of_reference(model, parameters, as_inputs(input)).plan
        return model, lower(read(model, zoo=zoo, input=as_shape(input), parameters=parameters))

    nets, _ = for_each(asked, plan_of)  # `compare` reports what fails
    totals = [(net, count(net[1]).total) for net in nets]
    return [net for net, total in totals if all(total.figure(name) <= limit for name, limit in most.items())]


# --- keeping -----------------------------------------------------------------------------------------------------


def save(record: Mapping[str, Any], comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Writes the record of the comparison, all or nothing.

    Raises ResourceError for a noisy run, and if it cannot; UsageError where a net was measured twice.
    """
    noisy = {p.label: m.noisy for p in comparison.profiles for m in p.measurements if m.noisy}
    if noisy:
        reasons = dict.fromkeys(reason.text for reasons in noisy.values() for reason in reasons)
        raise ResourceError(f"not saved: the run was noisy: {'; '.join(reasons)}", "measure again on a quiet machine")
    failed = [p.label for p in comparison.profiles if p.failures] + [each.label for each in comparison.failed]
    if failed:
        raise ResourceError(f"not saved: not all was measured of {', '.join(failed)}", "leave out what does not fit")
    check_once([(p.model, p.plan) for p in comparison.profiles if p.measurements])
    check_writable(path, "--save")
    write_output(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def check_once(nets: Iterable[Net]) -> None:
    """Raises UsageError where a net is there twice, whose two results no later run could tell apart."""
    seen = set()
    for model, plan in nets:
        key = _key(model, plan, 0)
        if key in seen:
            raise UsageError(f"not saved: two results of `{model}` at one batch", "name each net once")
        seen.add(key)


# --- holding against ---------------------------------------------------------------------------------------------


def changes(comparison: Comparison, records: Mapping[int, list[Mapping[str, Any]]], saved: Saved) -> Changes:
    """What became of the saved times; `records` has each profile's measurements as records, by its place.

    Raises UsageError if the file is of another machine or setting, or has none of these nets.
    """
    from resnetcli.bench.versus import unpaired

    by_key = {kept.key: kept for kept in saved.kept}
    found, unsaved, seen = [], [], set()
    for place, profile in enumerate(comparison.profiles):
        for measured, record in zip(profile.measurements, records[place], strict=True):
            kept = by_key.get(_key(profile.model, profile.plan, measured.batch))
            if kept is None:
                unsaved.append(_at(profile.label, measured.batch))
                continue
            seen.add(kept.key)
            now = conditions_of(record)
            free = WAY if kept.best and profile.searches else frozenset()
            _same_conditions(kept, now, saved.file, free)
            floor = max(DRIFT, kept.floor, floor_of(comparison, measured.batch))
            ratio = unpaired(kept.median_s, kept.interval_s, measured.median_s, measured.interval_s, floor)
            found.append(
                Change(profile.label, measured.batch, kept.median_s, measured.median_s, ratio, bool(measured.noisy),
                       _notes(kept, now, profile, measured))
            )  # fmt: skip
    if not found:
        raise _none_of_these(saved)
    unmeasured = [_at(kept.model, kept.batch) for kept in saved.kept if kept.key not in seen]
    return Changes(saved.file, tuple(found), tuple(unsaved), tuple(unmeasured))


def floor_of(comparison: Comparison, batch: int) -> float:
    """The noise floor that the run found at a batch; 0 where it had no pair to learn it from."""
    return next((contest.floor or 0.0 for contest in comparison.contests if contest.batch == batch), 0.0)


def check_machine(saved: Saved, device: str) -> None:
    """Raises UsageError where the device is none of the file's, which is known before anything is measured."""
    from resnetcli.bench.device import describe, find

    name = describe(find(device))
    known = {str(kept.conditions.get("device_name")) for kept in saved.kept}
    if name not in known:
        others = ", ".join(sorted(f"`{other}`" for other in known))
        raise UsageError(f"`{saved.file}` is of another machine: {others}, here it is `{name}`", _HINT)


def check_nets(saved: Saved, nets: Sequence[Net], batches: Sequence[int]) -> None:
    """Raises UsageError where the file has none of the nets, which is known before anything is measured."""
    kept = {each.key for each in saved.kept}
    if nets and not any(_key(model, plan, batch) in kept for model, plan in nets for batch in batches):
        raise _none_of_these(saved)


def _none_of_these(saved: Saved) -> UsageError:
    return UsageError(f"`{saved.file}` has none of these nets at these batches and inputs", _HINT)


def _key(model: str, plan: Plan, batch: int) -> tuple[Any, ...]:
    return model, tuple(sorted(plan.parameters.items())), plan.input_sizes, batch


def _at(name: str, batch: int) -> str:
    return f"{name} at batch {batch}"


def _same_conditions(kept: Kept, now: Mapping[str, Any], file: str, free: Collection[str]) -> None:
    """Raises UsageError where something other than what is `free` is not as it was."""
    for name in CONDITIONS:
        then, here = kept.conditions.get(name, OPTIONS.get(name)), now.get(name)
        if then != here and name not in free:
            what = "machine" if name in {"device_name", "processors"} else "setting"
            raise UsageError(
                f"`{file}` is of another {what}: {name.replace('_', ' ')} `{then}`, here it is `{here}`", _HINT
            )


def _notes(kept: Kept, now: Mapping[str, Any], profile: Profile, measured: Measurement) -> tuple[str, ...]:
    notes = []
    if any(kept.conditions.get(name) != now.get(name) for name in WAY):
        then = clean(str(kept.conditions.get("settings")), 80)
        notes.append(f"the quickest settings were `{then}`, now `{measured.settings}`")
    if (kept.params, kept.macs) != (profile.counts.params, profile.counts.macs):
        notes.append(f"the net had {kept.params:,} parameters and {kept.macs:,} MACs")
    if kept.torch != measured.torch:
        notes.append("it was another version of torch")
    return tuple(notes)


def read_saved(path: str | os.PathLike[str]) -> Saved:
    """A file of results. Raises UsageError for whatever else a file may hold."""
    file = os.fspath(path)
    record = load_json(file, MAX_SAVED, _HINT)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UsageError(f"`{file}` is no file of saved times", _HINT)
    results = record.get("results")
    if not isinstance(results, list) or not results:
        raise UsageError(f"`{file}` has no results", _HINT)
    kept = tuple(_kept(result, file) for result in results)
    if len({each.key for each in kept}) < len(kept):
        raise UsageError(f"`{file}` has two results of one net at one batch", _HINT)
    return Saved(file, kept)


def _kept(result: Any, file: str) -> Kept:
    def need(key: str, good: bool) -> None:
        if not good:
            raise UsageError(f"`{file}` is not whole: a `{key}` in it is missing or wrong", _HINT)

    need("results", isinstance(result, dict))
    values = {key: result.get(key) for key in ("model", "torch")}
    for key, value in values.items():
        need(key, isinstance(value, str))
    parameters, size, conditions = result.get("parameters"), result.get("input"), result.get("conditions")
    need("parameters", isinstance(parameters, dict) and all(map(_whole, parameters.values())))
    need("input", isinstance(size, list) and len(size) == 3 and all(map(_whole, size)))
    need("conditions", isinstance(conditions, dict) and all(map(_plain, conditions.values())))
    for key in ("batch", "params", "macs"):
        need(key, _whole(result.get(key)) and result[key] >= (1 if key == "batch" else 0))
    median, interval, floor = result.get("median_s"), result.get("interval_s"), result.get("floor")
    need("median_s", _seconds(median))
    need("interval_s", isinstance(interval, list) and len(interval) == 2 and all(map(_seconds, interval)))
    need("interval_s", interval[0] <= median <= interval[1])
    need("floor", floor is None or (_real(floor) and floor >= 0))
    need("best", result.get("best") in (None, False, True))
    return Kept(
        values["model"], parameters, tuple(size), result["batch"], result["params"], result["macs"], conditions,
        float(median), (float(interval[0]), float(interval[1])), float(floor or 0.0), values["torch"],
        bool(result.get("best")),
    )  # fmt: skip


def _plain(value: Any) -> bool:
    return value is None or type(value) in (bool, int, float, str)


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) <= _LARGEST


def _real(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= _LARGEST and math.isfinite(value)


def _seconds(value: Any) -> bool:
    return _real(value) and _SHORTEST_S <= value <= _LONGEST_S


def saved_record(comparison: Comparison) -> Record:
    """`resnet-cli/saved@1`: what a later run is held against, without the samples."""
    measured = measurement_records(comparison)
    figures = (
        "median_s", "interval_s", "iqr_s", "min_s", "p90_s", "p99_s", "n", "stopped", "throughput_img_s",
        "peak_memory_bytes", "torch",
    )  # fmt: skip
    return {
        "schema": "resnet-cli/saved@1",
        "date": datetime.now(UTC).date().isoformat(),
        "results": [
            {
                "model": profile.model,
                "parameters": dict(profile.plan.parameters),
                "input": list(profile.plan.input_sizes),
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "batch": record["batch"],
                "conditions": conditions_of(record),
                **{name: record[name] for name in figures},
                "floor": floor_of(comparison, record["batch"]) or None,
                "best": bool(profile.searches),
            }
            for place, profile in enumerate(comparison.profiles)
            for record in measured[place]
        ],
    }


def measurement_records(comparison: Comparison) -> dict[int, list[Mapping[str, Any]]]:
    """Each profile's measurements, by its place."""
    return {n: [measurement_record(m) for m in profile.measurements] for n, profile in enumerate(comparison.profiles)}
