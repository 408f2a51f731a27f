"""Save measured latencies as a baseline file, and compare a later run with one."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

from resnetcli.bench.options import DEFAULT, option_of
from resnetcli.errors import ResourceError, UsageError, clean
from resnetcli.failures import for_each
from resnetcli.files import check_writable, load_json, write_output
from resnetcli.frozen import frozen
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan, settings_text
from resnetcli.reports.comparison import Comparison
from resnetcli.reports.foreign import of_reference
from resnetcli.reports.measured import measurement_record
from resnetcli.reports.profile import Profile
from resnetcli.reports.records import Record, model_head, pick
from resnetcli.spec.inputs import Size, as_inputs, as_shape
from resnetcli.spec.read import read
from resnetcli.spec.reference import origin_of
from resnetcli.spec.zoo import Zoo
from resnetcli.structure import Bounds, Check, Count, Positive, StructureError, structure

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.versus import Ratio

NamedPlan = tuple[str, Plan]
"""A model as the user named it, and its plan."""
SCHEMA = "resnet-cli/baseline@1"
MAX_BYTES = 16 * 2**20
"""Size of a baseline file; an entry is 1 KB."""
DRIFT = 0.02
"""Times of two runs that differ by less, relatively, are equal, however narrow their intervals are."""
OPTIONS = DEFAULT.record()
"""The options of a run and their defaults, which apply to files saved before an option existed."""
CONDITIONS = tuple(dict.fromkeys(("device", "device_name", "processors", "tf32", "cudnn_benchmark", *OPTIONS)))
"""Keys of a measurement that must be equal for two times to be comparable."""
SEARCHED = frozenset({"dtype", "tf32", "settings"} | {f.name for f in fields(DEFAULT) if option_of(f).searched})
"""The conditions that `--best` chooses, and may choose differently another day."""
_HINT = "save one with `resnet-cli compare MODEL... --device cpu --save FILE`"
_FIGURES = (
    "median_s", "interval_s", "iqr_s", "min_s", "p90_s", "p99_s", "n", "stopped", "throughput_img_s",
    "peak_memory_bytes", "torch",
)  # fmt: skip
Seconds = Annotated[float, Bounds(1e-9, 1e6)]
Scalar = Annotated[Any, Check(lambda value: not isinstance(value, list | dict), "a number, text, true, false or null")]


@frozen
class BaselineEntry:
    """The latency of one model at one batch size."""

    model: str
    parameters: Mapping[str, int]
    input: tuple[int, int, int]
    batch: Positive
    params: Count
    macs: Count
    conditions: Mapping[str, Scalar]
    median_s: Seconds
    interval_s: tuple[Seconds, Seconds]
    torch: str
    noise_floor: Annotated[float, Bounds(0)] | None = None
    """The relative noise floor of that run; None if it was not measured."""
    best: bool = False
    """Whether `--best` chose the settings."""

    @property
    def key(self) -> tuple[Any, ...]:
        """Identity of the model and batch size in a later run."""
        return self.model, tuple(sorted(self.parameters.items())), self.input, self.batch


@frozen
class _Content:
    results: Annotated[tuple[BaselineEntry, ...], Bounds(1)]


@frozen
class Baseline:
    """The entries of a baseline file."""

    file: str
    entries: tuple[BaselineEntry, ...]


@frozen
class EntryDiff:
    """A model's latency now, compared with the baseline."""

    model: str
    batch: int
    then_s: float
    now_s: float
    ratio: Ratio
    noisy: bool
    """Whether the present run is noisy."""
    notes: tuple[str, ...]
    """Other differences."""

    @property
    def verdict(self) -> Literal["regressed", "improved", "same", "undecided"]:
        """`undecided` for a noisy run."""
        if self.noisy:
            return "undecided"
        outcome = self.ratio.outcome
        return "regressed" if outcome == "slower" else "improved" if outcome == "faster" else "same"


@frozen
class BaselineDiff:
    """A run compared with a baseline."""

    file: str
    changes: tuple[EntryDiff, ...]
    unsaved: tuple[str, ...]
    """Measured now, missing from the file."""
    unmeasured: tuple[str, ...]
    """In the file, not measured now."""

    @property
    def regressed(self) -> tuple[EntryDiff, ...]:
        """Models that have become slower."""
        return tuple(change for change in self.changes if change.verdict == "regressed")

    @property
    def undecided(self) -> tuple[EntryDiff, ...]:
        """Models whose run was noisy."""
        return tuple(change for change in self.changes if change.verdict == "undecided")


def measured_conditions(measurement: Mapping[str, Any]) -> dict[str, Any]:
    """The conditions of a measurement, given as a record."""
    conditions = {name: measurement[name] for name in CONDITIONS if name in measurement}
    return conditions | {"processors": measurement["environment"]["after"]["processors"]}


def named_plans(
    models: Sequence[tuple[str, Mapping[str, int]]], *, input: Size | None, zoo: Zoo, most: Mapping[str, int]
) -> list[NamedPlan]:
    """The models that `compare` will measure: those within the limits `most`. Raises as `compare` does."""

    def plan_of(model: str, parameters: Mapping[str, int]) -> NamedPlan:
        if origin_of(model).is_pytorch:
            return model, of_reference(model, parameters, as_inputs(input)).plan
        return model, lower(read(model, zoo=zoo, input=as_shape(input), parameters=parameters))

    plans, _ = for_each(models, plan_of)  # `compare` reports failures
    totals = [(named, count(named[1]).total) for named in plans]
    return [named for named, total in totals if all(total.figure(name) <= limit for name, limit in most.items())]


# --- saving ----------------------------------------------------------------------------------------------------------


def save_baseline(comparison: Comparison, path: str | os.PathLike[str]) -> None:
    """Write the measurements of a comparison atomically.

    Raises ResourceError for a noisy or incomplete run and if the file cannot be written, UsageError for a model that
    was measured twice.
    """
    noise = [noise for p in comparison.profiles for m in p.measurements for noise in m.noisy]
    if noise:
        reasons = "; ".join(dict.fromkeys(reason.text for reason in noise))
        raise ResourceError(f"not saved: the run was noisy: {reasons}", "measure again on an idle machine")
    failed = [p.label for p in comparison.profiles if p.failures] + [model.label for model in comparison.failed]
    if failed:
        raise ResourceError(f"not saved: measurements are missing for {', '.join(failed)}", "omit what does not fit")
    check_unique([(p.model, p.plan) for p in comparison.profiles if p.measurements])
    check_writable(path, "--save")
    write_output(path, json.dumps(baseline_record(comparison), indent=2, ensure_ascii=False) + "\n")


def check_unique(plans: Iterable[NamedPlan]) -> None:
    """Raises UsageError if a model is given twice: a later run could not tell its two results apart."""
    seen = set()
    for model, plan in plans:
        key = _key(model, plan, 0)
        if key in seen:
            raise UsageError(f"not saved: two results of `{model}` at one batch size", "name each model once")
        seen.add(key)


def baseline_record(comparison: Comparison) -> Record:
    """`resnet-cli/baseline@1`: the measurements without samples."""
    return {
        "schema": SCHEMA,
        "date": datetime.now(UTC).date().isoformat(),
        "results": [
            {
                **model_head(profile),
                **pick(profile.counts, "params", "macs"),
                "batch": record["batch"],
                "conditions": measured_conditions(record),
                **{name: record[name] for name in _FIGURES},
                "noise_floor": _noise_floor(comparison, record["batch"]) or None,
                "best": bool(profile.searches),
            }
            for profile in comparison.profiles
            for record in map(measurement_record, profile.measurements)
        ],
    }


# --- comparing -------------------------------------------------------------------------------------------------------


def read_baseline(path: str | os.PathLike[str]) -> Baseline:
    """Read a baseline file. Raises UsageError for any other file."""
    file = os.fspath(path)
    record = load_json(file, MAX_BYTES, _HINT)
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        raise UsageError(f"`{file}` is not a baseline", _HINT)
    try:
        entries = structure(_Content, record).results
    except StructureError as error:
        raise UsageError(f"`{file}` is not a valid baseline: {error}", _HINT) from None
    for number, entry in enumerate(entries):
        low, high = entry.interval_s
        if not low <= entry.median_s <= high:
            raise UsageError(
                f"`{file}` is not a valid baseline: `results[{number}].median_s` is outside its interval", _HINT
            )
    if len({entry.key for entry in entries}) < len(entries):
        raise UsageError(f"`{file}` has two results of one model at one batch size", _HINT)
    return Baseline(file, entries)


def diff_baseline(comparison: Comparison, baseline: Baseline) -> BaselineDiff:
    """Compare measurements with a baseline.

    Raises UsageError if it is from another machine or other settings, or has none of these models.
    """
    from resnetcli.bench.versus import unpaired

    entries = {entry.key: entry for entry in baseline.entries}
    changes, unsaved, seen = [], [], set()
    for profile in comparison.profiles:
        for measured in profile.measurements:
            entry = entries.get(_key(profile.model, profile.plan, measured.batch))
            if entry is None:
                unsaved.append(_at(profile.label, measured.batch))
                continue
            seen.add(entry.key)
            now = measured_conditions(measurement_record(measured))
            _check_conditions(entry, now, baseline.file, SEARCHED if entry.best and profile.searches else ())
            floor = max(DRIFT, entry.noise_floor or 0.0, _noise_floor(comparison, measured.batch))
            ratio = unpaired(entry.median_s, entry.interval_s, measured.median_s, measured.interval_s, floor)
            changes.append(
                EntryDiff(profile.label, measured.batch, entry.median_s, measured.median_s, ratio,
                          bool(measured.noisy), _notes(entry, now, profile, measured))
            )  # fmt: skip
    if not changes:
        raise _no_common_model(baseline)
    unmeasured = [_at(_label(entry, baseline), entry.batch) for entry in baseline.entries if entry.key not in seen]
    return BaselineDiff(baseline.file, tuple(changes), tuple(unsaved), tuple(unmeasured))


def _label(entry: BaselineEntry, baseline: Baseline) -> str:
    """The model; with its parameters if the baseline has it with others too."""
    variants = {each.key[:2] for each in baseline.entries if each.model == entry.model}
    return " ".join(filter(None, (entry.model, settings_text(entry.parameters)))) if len(variants) > 1 else entry.model


def check_machine(baseline: Baseline, device: str) -> None:
    """Raises UsageError if the baseline is from another device; called before anything is measured."""
    from resnetcli.bench.device import describe_device, find

    name = describe_device(find(device))
    known = {str(entry.conditions.get("device_name")) for entry in baseline.entries}
    if name not in known:
        others = ", ".join(sorted(f"`{other}`" for other in known))
        raise UsageError(f"`{baseline.file}` was measured on another machine: {others}, not `{name}`", _HINT)


def check_models(baseline: Baseline, plans: Sequence[NamedPlan], batches: Sequence[int]) -> None:
    """Raises UsageError if the baseline has none of the models; called before anything is measured."""
    keys = {entry.key for entry in baseline.entries}
    if plans and not any(_key(model, plan, batch) in keys for model, plan in plans for batch in batches):
        raise _no_common_model(baseline)


def _no_common_model(baseline: Baseline) -> UsageError:
    return UsageError(f"`{baseline.file}` has none of these models at these batch sizes and inputs", _HINT)


def _noise_floor(comparison: Comparison, batch: int) -> float:
    """The noise floor of a run at a batch size; 0 if it was not measured."""
    return next((timing.floor or 0.0 for timing in comparison.timings if timing.batch == batch), 0.0)


def _key(model: str, plan: Plan, batch: int) -> tuple[Any, ...]:
    return model, tuple(sorted(plan.parameters.items())), plan.input_sizes, batch


def _at(name: str, batch: int) -> str:
    return f"{name} at batch {batch}"


def _check_conditions(entry: BaselineEntry, now: Mapping[str, Any], file: str, free: Collection[str]) -> None:
    """Raises UsageError if a condition other than those in `free` has changed."""
    for name in CONDITIONS:
        then, here = entry.conditions.get(name, OPTIONS.get(name)), now.get(name)
        if then != here and name not in free:
            what = "on another machine" if name in {"device_name", "processors"} else "with other settings"
            raise UsageError(f"`{file}` was measured {what}: {name.replace('_', ' ')} `{then}`, now `{here}`", _HINT)


def _notes(entry: BaselineEntry, now: Mapping[str, Any], profile: Profile, measured: Measurement) -> tuple[str, ...]:
    notes = []
    if any(entry.conditions.get(name) != now.get(name) for name in SEARCHED):
        then = clean(str(entry.conditions.get("settings")), 80)
        notes.append(f"the fastest settings were `{then}`, now `{measured.settings}`")
    if (entry.params, entry.macs) != (profile.counts.params, profile.counts.macs):
        notes.append(f"the model had {entry.params:,} parameters and {entry.macs:,} MACs")
    if entry.torch != measured.torch:
        notes.append(f"torch was {clean(entry.torch, 40)}")
    return tuple(notes)
