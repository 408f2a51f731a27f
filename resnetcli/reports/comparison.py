"""A comparison: its models, their timings relative to one of them, and the columns that show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any

from resnetcli.frozen import frozen
from resnetcli.reports.counted import COUNTS, under_convention
from resnetcli.reports.measured import measured_fields
from resnetcli.table.fields import Field, to_frame
from resnetcli.table.numbers import change, figure_name

if TYPE_CHECKING:
    import pandas as pd

    from resnetcli.bench.benchmark import PairedTimings
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.versus import Ratio
    from resnetcli.failures import ModelFailure
    from resnetcli.reports.accuracy import Accuracy
    from resnetcli.reports.profile import Profile


@frozen
class Comparison:
    """Profiles in the order asked for, or sorted."""

    profiles: tuple[Profile, ...]
    baseline: Profile | None = None
    """The model that relative columns refer to."""
    accuracy: Accuracy | None = None
    """Published accuracies under one protocol."""
    timings: tuple[PairedTimings, ...] = ()
    """One per batch size; empty without a device."""
    left_out: tuple[str, ...] = ()
    """Labels of the models above the limits."""
    limits: Mapping[str, int] = field(default_factory=dict)
    """Upper limits: `params`, `macs`."""
    failed: tuple[ModelFailure, ...] = ()
    """Models that could not be counted."""

    def ratio(self, place: int, batch: int) -> Ratio | None:
        """The time of the profile at that place relative to the model it was paired with; None without one."""
        return next((timing.ratios[place] for timing in self.timings if timing.batch == batch), None)

    def to_frame(self) -> pd.DataFrame:
        """One row per model, exact values, indexed by model; measured figures of the first batch. Imports pandas."""
        rows = [Row(profile, next(iter(profile.measurements), None)) for profile in self.profiles]
        return to_frame(frame_fields(self), rows, "model")


@frozen
class Row:
    """One model, at one batch size if it was measured."""

    profile: Profile
    measurement: Measurement | None = None
    ratio: Ratio | None = None
    """Its latency relative to the model it was timed against."""


def comparison_rows(comparison: Comparison) -> list[Row]:
    """The rows of a comparison's table."""
    rows = []
    for place, profile in enumerate(comparison.profiles):
        rows += [Row(profile, m, comparison.ratio(place, m.batch)) for m in profile.measurements]
        rows += [] if profile.measurements else [Row(profile)]
    return rows


def comparison_fields(comparison: Comparison) -> list[Field[Row]]:
    """The columns of a comparison's table."""
    profiles = comparison.profiles
    measurements = [m for profile in profiles for m in profile.measurements]
    several_inputs = len({profile.plan.input_text for profile in profiles}) > 1
    fields: list[Field[Row]] = [
        Field("model", "model", lambda row: row.profile.label, align="left", style="bold",
              help="model and parameters set"),
        Field("input", "input", lambda row: _input(row.profile), row_text=lambda row: row.profile.plan.input_text,
              shown=several_inputs, priority=5, help="one image: channels x height x width"),
    ]  # fmt: skip
    for count in under_convention(COUNTS, profiles[0].convention, lambda profile: profile.tally.total):
        fields += [column.through(_profile) for column in _beside(comparison, count, essential=not measurements)]
    if accuracy := comparison.accuracy:
        for column, key in accuracy.keys.items():
            fields += _accuracy_fields(comparison, column, key)
    if not measurements:
        return fields
    against = comparison.timings[0].against if comparison.timings else ""
    several_settings = len({m.settings for m in measurements}) > 1
    sweep = len({m.batch for m in measurements}) > 1
    fields += [
        _condition("settings", align="left", wrap=True, shown=several_settings),
        _condition("batch", shown=sweep),
    ]
    judged = bool(against) and len(profiles) > 1
    ratios: list[Field[Ratio]] = [
        Field("median_ratio", "ratio", lambda ratio: ratio.ratio, shown=False, help=f"latency relative to {against}"),
        Field("median_ratio_low", "from", lambda ratio: ratio.interval[0], shown=False, help="low end of its 95% CI"),
        Field("median_ratio_high", "to", lambda ratio: ratio.interval[1], shown=False, help="high end of its 95% CI"),
        Field("verdict", f"against {against}", lambda ratio: ratio.text(), align="left", style="cyan", wrap=True,
              shown=judged, help="latency relative to that model, with its 95% CI"),
    ]  # fmt: skip
    for measured in timing_fields(comparison):
        fields.append(measured)
        fields += [ratio.through(_of_ratio) for ratio in ratios] if measured.key == "half_interval" else []
    return fields


def frame_fields(comparison: Comparison) -> list[Field[Row]]:
    """The columns of a data frame, which are also what `--sort` accepts; measured ones if there are any."""
    fields: list[Field[Row]] = [
        Field("name", "name", lambda row: row.profile.plan.title),
        Field("model", "model", lambda row: row.profile.label),
        Field("input", "input", lambda row: row.profile.plan.input_text),
        *(count.through(_profile) for count in COUNTS),
        Field("flops", "FLOPs", lambda row: row.profile.counts.flops),
    ]
    convention = comparison.profiles[0].convention
    if convention.key not in {field.key for field in fields}:
        fields.append(Field(convention.key, convention.label, lambda row: row.profile.tally.total))
    for count in under_convention(COUNTS, convention, lambda profile: profile.tally.total):
        fields += [column.through(_profile) for column in _changes(comparison, count)]
    if accuracy := comparison.accuracy:
        fields += [_best_accuracy(accuracy, column, key) for column, key in accuracy.keys.items()]
    if any(profile.measurements for profile in comparison.profiles):
        fields += [*map(_condition, CONDITIONS), *timing_fields(comparison)]
    return fields


def timing_fields(comparison: Comparison) -> list[Field[Row]]:
    """The columns of the models' measurements."""
    item = max((profile.item for profile in comparison.profiles), key=lambda item: item != "image")
    return [field.through(_measurement) for field in measured_fields(item)]


CONDITIONS = {"device": "device", "batch": "batch size", "settings": "execution options"}
"""Conditions of a measurement -> their meaning."""


def _condition(key: str, **options: Any) -> Field[Row]:
    field: Field[Measurement] = Field(key, key, help=CONDITIONS[key], **options)
    return field.through(_measurement)


def _profile(row: Row) -> Profile:
    return row.profile


def _measurement(row: Row) -> Measurement | None:
    return row.measurement


def _of_ratio(row: Row) -> Ratio | None:
    return row.ratio


def _input(profile: Profile) -> str:
    plan = profile.plan
    return ",".join(tensor.text for tensor in plan.inputs) or "x".join(map(str, plan.input_sizes))


def _beside(comparison: Comparison, count: Field[Profile], *, essential: bool) -> Iterator[Field[Profile]]:
    """A count, its change relative to the baseline, and the published figure."""
    priority = 0 if essential and count.key != "depth" else count.priority
    yield replace(count, priority=priority)
    yield from _changes(comparison, count, priority)
    if count.key in ("params", comparison.profiles[0].convention.key):
        differs = any(e.verdict == "differs" for profile in comparison.profiles for e in profile.judged)
        yield Field(
            f"{count.key}_published", f"{count.head}\npaper", lambda profile: _published(profile, count.key),
            style="dim", sparse=True, priority=6,
            legend="paper: published value" + (" (*: differs, see `verify`)" if differs else ""),
        )  # fmt: skip


def _changes(comparison: Comparison, count: Field[Profile], priority: int = 0) -> Iterator[Field[Profile]]:
    """A count relative to the baseline's, if there is a baseline."""
    base = comparison.baseline
    if base is not None and count.key != "depth":
        yield Field(
            f"{count.key}_ratio", f"{count.head}\nchange", lambda profile: _ratio(count.of(profile), count.of(base)),
            row_text=lambda profile: _change(count.of(profile), count.of(base)), style="cyan",
            priority=priority, legend=f"change: relative to {base.label}",
        )  # fmt: skip


def _change(value: Any, reference: Any) -> str:
    return change(value or 0, reference or 0)


def _ratio(value: Any, reference: Any) -> float | None:
    return value / reference if reference else None


def _published(profile: Profile, key: str) -> str:
    """The published figures, each once; marked if the count differs."""
    entries = [entry for entry in profile.judged if entry.published.figure == key]
    return "/".join(dict.fromkeys(e.published.printed + "*" * (e.verdict == "differs") for e in entries))


def _accuracy_fields(comparison: Comparison, column: tuple[str, str], key: str) -> Iterator[Field[Row]]:
    """Published accuracies with their papers; for programs also the best of them."""
    accuracy = comparison.accuracy
    assert accuracy is not None

    def texts(row: Row) -> str:
        published = accuracy.published(row.profile, *column)
        return ", ".join(f"{value} {'/'.join(papers)}" for value, papers in published.items())

    head = key.replace(column[0], figure_name(column[0]), 1)
    yield Field(f"{key} sources".replace(" ", "_"), head, texts, align="left", wrap=True,
                help="published values and their papers")  # fmt: skip
    yield _best_accuracy(accuracy, column, key)


def _best_accuracy(accuracy: Accuracy, column: tuple[str, str], key: str) -> Field[Row]:
    head = key.replace(column[0], figure_name(column[0]), 1)
    return Field(key.replace(" ", "_"), head, lambda row: accuracy.best(row.profile, *column), shown=False,
                 help="best published value")  # fmt: skip
