"""The output of `explain` as text and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from resnetcli.reports.measured import worst_reasons
from resnetcli.reports.records import AS_GIVEN
from resnetcli.roofline.analysis import Cause, Explanation, KindDifference, RooflinePart, TimeDifference
from resnetcli.roofline.peaks_table import (
    bytes_per_second,
    device_name,
    flops_per_second,
    launch_text,
    noisy_warning,
    origin,
)
from resnetcli.roofline.suggestions import Suggestion
from resnetcli.roofline.summary import launch_time
from resnetcli.table.fields import Field
from resnetcli.table.numbers import change, duration, factor, percent, short, size_of
from resnetcli.table.sheet import Sheet, Value

CAUSES: dict[Cause, str] = {
    "compute": "compute-bound",
    "memory": "memory-bound",
    "overhead": "overhead-bound",
    "unexplained": "unexplained",
}
FIGURES = {"macs": "MACs", "activations": "activations", "bytes": "bytes moved", "kernels": "kernels"}


# --- one model ---------------------------------------------------------------------------------------------------


def explain_heading(explanation: Explanation) -> list[str]:
    """Model, device and its peaks; times and their shares by cause."""
    bound, peaks, m = explanation.eager, explanation.device_peaks, explanation.measurement
    compute, memory = peaks.peak(bound.dtype).best, peaks.bandwidth[-1].copy_bytes_s
    rates = f"{flops_per_second(compute)}, {bytes_per_second(memory)} memory bandwidth, {launch_text(peaks)}"
    times = []
    if m:
        low, high = m.interval_s
        times.append(f"measured {duration(m.median_s)} [{duration(low)}, {duration(high)}] (median, 95% CI, n={m.n})")
    attained = f" ({percent(explanation.attained)})" if explanation.attained is not None else ""
    times += [f"lower bound: eager {duration(bound.seconds)}{attained}", f"fused {duration(explanation.fused.seconds)}"]
    return [
        f"{explanation.title}   {explanation.label}   {execution_text(explanation)}, batch {bound.batch_size}, eager   "
        f"on {device_name(peaks)}",
        f"peaks {origin(peaks)}: {rates}",
        "   ".join(times),
        _shares_line(explanation),
        *([launch_time(explanation)] if m and m.host_s is not None else []),
        *unreliable(explanation),
    ]


def unreliable(explanation: Explanation) -> list[str]:
    """Why the device peaks and the measured time are unreliable."""
    return [*noisy_warning(explanation.device_peaks), *_noisy_line(explanation)]


def execution_text(explanation: Explanation) -> str:
    """How the model was run: `bf16 channels_last`; only the dtype if it was not measured."""
    m, dtype = explanation.measurement, explanation.eager.dtype
    return dtype if m is None else m.settings.replace(m.dtype, dtype, 1)  # TF32 may have been used for fp32


def _noisy_line(explanation: Explanation) -> list[str]:
    if explanation.measurement is None or not explanation.measurement.noisy:
        return []
    reasons = "; ".join(worst_reasons([explanation.measurement]))
    return [f"noisy, measure {explanation.label} again on a quiet machine: {reasons}"]


def _shares_line(explanation: Explanation) -> str:
    measured = explanation.measurement is not None
    shares = [
        f"{text} {percent(explanation.shares[cause])}"
        for cause, text in CAUSES.items()
        if measured or cause != "unexplained"
    ]
    return "   ".join([f"shares of the {'measured time' if measured else 'lower bound'}:", *shares])


def parts_sheet(head: str, parts: Sequence[RooflinePart], *, legend: bool = True) -> Sheet:
    """Work, lower bounds and measured time by part of the model; with legends."""
    return Sheet.of(_part_fields(head, parts, legend=legend), parts)


def stages_sheet(models: Sequence[Explanation]) -> Sheet:
    """The stages of all models as one table for programs."""
    rows = [(each.label, part) for each in models for part in each.stages]
    fields: list[Field[tuple[str, RooflinePart]]] = [Field("model", "model", lambda row: row[0], help=AS_GIVEN)]
    fields += [field.through(lambda row: row[1]) for field in _part_fields("stage", [part for _, part in rows])]
    return Sheet.of(fields, rows)


def _part_fields(head: str, parts: Sequence[RooflinePart], *, legend: bool = False) -> list[Field[RooflinePart]]:
    moved, bound = (
        ("moved: bytes read and written per batch",
         "lower bound: max(FLOPs / peak, bytes / bandwidth) + kernels x launch overhead")
        if legend else ("", "")
    )  # fmt: skip
    fields: list[Field[RooflinePart]] = [
        Field("name", head, align="left", style="bold", help="part of the model"),
        Field("macs", "MACs", text=short, priority=3, help="multiply-accumulates per image"),
        Field("activations", "acts", text=short, priority=4,
              help="outputs of convolutions and fully connected layers per image"),
        Field("bytes", "moved", lambda part: part.eager.bytes, size_of, legend=moved,
              help="bytes read and written per batch"),
        Field("intensity", "FLOPs/B", lambda part: part.eager.intensity, "{:.1f}".format, priority=2,
              help="arithmetic intensity: FLOPs per byte moved"),
        Field("kernels", "kernels", lambda part: part.eager.kernels, priority=1, help="kernel launches"),
        Field("bound", "bound", lambda part: part.eager.bound, align="left",
              help="largest part of the lower bound: compute, memory or launch overhead"),
        Field("lower_bound_s", "lower bound", lambda part: part.eager.lower_bound_s, duration, legend=bound,
              help="minimum time in eager mode: max(FLOPs / peak, bytes / bandwidth) + kernels x launch overhead"),
        Field("fused_s", "fused", lambda part: part.fused.lower_bound_s, duration, priority=5,
              help="lower bound with element-wise steps fused"),
    ]  # fmt: skip
    if any(part.measured_s is not None for part in parts):
        fields += [
            Field("measured_s", "measured", text=duration, missing="-", help="time from a pass timed per layer"),
            Field("attained", "attained", text=percent, missing="-", help="lower bound / measured time"),
        ]
    return fields


def layer_times_line(explanation: Explanation) -> str:
    """How the layers were timed, or why their times are omitted; empty if they were not timed."""
    times = explanation.layer_times
    if times is None:
        return ""
    if times.agrees:
        return (
            f"measured: by a pass timed per layer, whose sum is {percent(times.ratio)} of a whole pass "
            f"({duration(times.whole_s)}, n={times.n})"
        )
    return (
        f"per-layer times omitted: their sum is {percent(times.ratio)} of a whole pass ({duration(times.whole_s)}, "
        f"n={times.n}; limit 90% to 110%)"
    )


def suggestions_sheet(explanation: Explanation, suggestions: Sequence[Suggestion]) -> Sheet:
    """Options worth trying, their lower bounds, and benchmarks if there are any."""
    now = explanation.eager.seconds
    fields: list[Field[Suggestion]] = [
        Field("setting", "worth trying", align="left", style="bold", help="options of `profile`"),
        Field("lower_bound_s", "lower bound", lambda each: each.seconds, duration, help="minimum time of a batch"),
        Field(
            "ratio",
            "speedup",
            lambda each: each.seconds / now,
            lambda ratio: f"{factor(1 / ratio, 2)}x",
            help="current lower bound / this one",
        ),
    ]
    if any(each.measurement or each.problem for each in suggestions):
        fields += [
            Field("measured_s", "measured", lambda each: each.measurement.median_s if each.measurement else None,
                  duration, missing="-", help="median latency of a batch"),
            Field("noisy", "noisy", lambda each: "noisy" if each.measurement and each.measurement.noisy else "",
                  align="left", style="yellow", help="marks an unreliable benchmark"),
        ]  # fmt: skip
    fields.append(Field("why", "why", lambda each: each.problem or each.why, align="left", style="dim", wrap=True,
                        priority=1, help="reason, or why its benchmark does not count"))  # fmt: skip
    return Sheet.of(fields, suggestions)


# --- two models --------------------------------------------------------------------------------------------------


def difference_lines(difference: TimeDifference) -> list[str]:
    """Both times and their difference by cause; the work that differs."""
    model, other, seconds = difference.model, difference.other, difference.seconds
    measured = model.measurement is not None and other.measurement is not None
    causes = [
        f"{text} {_signed(seconds[cause])}"
        for cause, text in CAUSES.items()
        if (measured if cause == "unexplained" else seconds[cause])
    ]
    figures = [
        f"{text} {change(new, old) or '(the other model has none)'}"
        for name, text in FIGURES.items()
        for old, new in [difference.figures[name]]
    ]
    ratio = difference.paired.text() if difference.paired else change(model.time_s, other.time_s)
    return [
        f"against {other.label}: {'measured' if measured else 'lower bound'} {duration(other.time_s)} -> "
        f"{duration(model.time_s)} ({ratio}): {_signed(model.time_s - other.time_s)} = {'   '.join(causes)}",
        f"work: {', '.join(figures)}",
        *_noisy_line(other),
    ]


def _signed(seconds: float) -> str:
    return ("-" if seconds < 0 else "+") + duration(abs(seconds))


def difference_sheet(difference: TimeDifference, limit: int = 8) -> Sheet:
    """The kinds of step that differ most."""
    other_name, model_name = difference.other.label, difference.model.label
    if other_name == model_name:
        model_name += " (first)"  # the other model is given by `--vs`
    sides: list[tuple[str, str, Callable[[KindDifference], RooflinePart | None]]] = [
        ("other", other_name, lambda kind: kind.other),
        ("model", model_name, lambda kind: kind.model),
    ]
    fields: list[Field[KindDifference]] = [Field("kind", "steps", align="left", style="bold", help="kind of step")]
    for key, name, side in sides:
        bound: Field[RooflinePart] = Field(
            f"{key}_lower_bound_s", f"lower bound {name}", lambda part: part.eager.lower_bound_s, duration,
            help=f"minimum time of these steps in {name}",
        )  # fmt: skip
        measured: Field[RooflinePart] = Field(
            f"{key}_measured_s", f"measured {name}", lambda part: part.measured_s, duration,
            help=f"measured time of these steps in {name}",
        )  # fmt: skip
        fields += [_side(field, side) for field in (bound, *([measured] if difference.timed else ()))]
    fields.append(
        Field("difference_s", "difference", text=_signed, help="time of the first model less that of the other")
    )
    return Sheet.of(fields, difference.kinds[:limit])


def _side(field: Field[RooflinePart], side: Callable[[KindDifference], RooflinePart | None]) -> Field[KindDifference]:
    def value(kind: KindDifference) -> Value:
        return None if (part := side(kind)) is None else field.of(part)

    return Field(field.key, field.head, value, field.text, missing="-", wrap=True, help=field.help)
