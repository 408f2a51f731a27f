"""Measured figures: the columns, conditions and JSON that every report of a measurement shares.

To add a figure: a field of `bench.latency.Measurement`, and its column in `MEASURED`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.table.fields import Field
from resnetcli.table.numbers import duration, factor, percent, rate, size_of
from resnetcli.table.sheet import Sheet

if TYPE_CHECKING:
    from resnetcli.bench.benchmark import Failure
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.training_step import Phase
    from resnetcli.reports.records import Record


def half_interval(m: Measurement) -> float:
    """Half the width of the median's 95% interval, relative to the median."""
    low, high = m.interval_s
    return (high - low) / 2 / m.median_s


def _half_text(m: Measurement) -> str:
    """`1.2%`, with a mark if the warm-up did not converge."""
    return f"{100 * half_interval(m):.1f}%{'' if m.warmup_settled else '*'}"


def _phase(name: str) -> Field[Measurement]:
    def seconds(m: Measurement) -> float | None:
        phase: Phase | None = getattr(m.phases, name) if m.phases else None
        return phase.median_s if phase else None

    return Field(
        f"{name}_s", name, seconds, duration, sparse=True, priority=1,
        legend="forward, backward, optimizer: timed separately, so their medians need not add up",
        help=f"median time of a training step's {name} phase, timed separately",
    )  # fmt: skip


def _energy_legend(measurements: Sequence[Measurement]) -> str:
    metered = [m.energy for m in measurements if m.energy]
    if not metered:
        return ""
    seconds = min(energy.seconds for energy in metered)
    return f"J/image: {metered[0].source} over at least {seconds:.1f} s, {metered[0].idle_w:.0f} W when idle"


def _separate(name: str, head: str, legend: str = "", help: str = "") -> Field[Measurement]:
    """Memory of a separate process: `-` if it was measured and the platform does not report it."""

    def size(m: Measurement) -> int | None:
        value: int | None = getattr(m.memory, f"{name}_bytes") if m.memory else None
        return value

    def text(m: Measurement) -> str:
        value = size(m)
        return ("-" if m.memory else "") if value is None else size_of(value)

    return Field(
        f"own_{name}_bytes", head, size, row_text=text, legend=legend, help=help,
        shown=lambda rows: any(m.memory if legend else size(m) is not None for m in rows),
    )  # fmt: skip


MEASURED: list[Field[Measurement]] = [
    Field("median_s", "median", text=duration, aliases=("latency",), help="median latency of one batch"),
    Field("half_interval", "±", half_interval, row_text=_half_text,
          legend="±: half-width of the 95% CI of the median"),
    Field("iqr_s", "IQR", text=duration, priority=7, help="interquartile range of the samples"),
    Field("min_s", "min", text=duration, priority=9, help="fastest sample"),
    Field("p90_s", "p90", text=duration, priority=9, help="90th percentile of the samples"),
    Field("p99_s", "p99", text=duration, missing="-", sparse=True, priority=9,
          help="99th percentile; needs enough samples to be known"),
    Field("n", "n", priority=8, help="samples"),
    Field("outliers", "outliers", lambda m: len(m.outliers), priority=9,
          help="samples far outside the middle half; they count like all others"),
    Field("throughput_img_s", "images/s", text=rate, priority=1, aliases=("throughput",),
          legend="images/s: pipelined throughput",
          help="throughput with the queue kept full, measured separately from the latency"),
    *map(_phase, ("forward", "backward", "optimizer")),
    Field("joules_per_image", "J/image", lambda m: m.energy.joules_per_image if m.energy else None, factor,
          sparse=True, legend=_energy_legend),
    Field("above_idle_joules_per_image", "above idle",
          lambda m: m.energy.above_idle_joules_per_image if m.energy else None, factor, sparse=True, priority=2,
          help="J/image less the device's idle power"),
    Field("peak_memory_bytes", "peak memory", text=size_of, missing="-", priority=4,
          legend="peak memory: excludes weights", help="peak memory of one call, input included, weights excluded"),
    Field("live_peak_bytes", "derived", text=size_of, sparse=True, priority=8,
          legend="derived: computed tensor memory, excluding library workspaces"),
    _separate("peak", "by itself", "by itself: peak in a fresh process"),
    _separate("reserved", "reserved", help="memory PyTorch's allocator held in the fresh process, weights included"),
    _separate("process", "process", "process: all memory it took"),
    Field("noisy", "noisy", lambda m: "noisy" if m.noisy else "", align="left", style="yellow", sparse=True,
          help="marks figures that are unreliable; the reasons are given below the table"),
]  # fmt: skip
"""The columns of a measurement, in order: every table, CSV, data frame and `--sort` has them."""


def measured_fields(item: str) -> list[Field[Measurement]]:
    """The columns of a measurement whose batch is of images, or of another `item`: `inputs/s`."""

    def renamed(field: Field[Measurement]) -> Field[Measurement]:
        legend = field.legend
        return replace(
            field, head=field.head.replace("image", item), help=field.help.replace("image", item),
            legend=legend.replace("image", item) if isinstance(legend, str)
            else lambda rows: legend(rows).replace("image", item),
        )  # fmt: skip

    return MEASURED if item == "image" else [renamed(field) for field in MEASURED]


def measured_sheet(measurements: Sequence[Measurement], item: str = "image") -> Sheet:
    """Latency, throughput and memory, a row for each setting and batch size."""
    sweep = len({m.batch for m in measurements}) > 1

    def how(m: Measurement) -> str:  # the first column, which each part of a split table repeats
        return f"{m.device} {m.settings}" + (f", batch {m.batch}" if sweep else "")

    fields: list[Field[Measurement]] = [
        Field("device", "measured", row_text=how, align="left", style="bold", wrap=True, help="device and settings"),
        Field("settings", "settings", shown=False, help="execution options"),
        Field("batch", "batch", shown=not sweep, help="batch size"),
        *measured_fields(item),
    ]
    return Sheet.of(fields, measurements)


def measurement_record(measured: Measurement) -> Record:
    """A measurement in JSON: the options it was run with, its figures and its conditions."""
    shares = {name: getattr(measured.environment, name) for name in ("others", "stolen", "throttled")}
    fields = asdict(measured)
    del fields["options"]
    for name in ("deviation_maps", "deviation_outputs"):
        if fields[name] is not None and not math.isfinite(fields[name]):
            fields[name] = None  # JSON has no infinity; the trial's `problem` says so
    return {
        **measured.options.record(), **fields, "noisy": [noise.text for noise in measured.noisy],
        "environment": {**fields["environment"], **shares},
    }  # fmt: skip


def failure_lines(failures: Iterable[Failure]) -> list[str]:
    """Settings and batch sizes that could not be measured, a line each."""
    return [f"not measured: {failure.problem}" for failure in failures]


def conditions(measurements: Sequence[Measurement]) -> list[str]:
    """Conditions of one run's measurements, the most important first."""
    m = measurements[0]
    tf32 = ", TF32 allowed" if m.tf32 else ""
    what = ", training steps" if m.mode == "train" else ""
    return [
        f"measured on {m.device_name}, {plural(m.threads, 'thread')}, torch {m.torch}{tf32}{what}"
        f"{_preparation(measurements)}; {_stop_reason(measurements)}",
        *environment_lines(measurements),
    ]


def _stop_reason(measurements: Sequence[Measurement]) -> str:
    wide, n = sum(m.stopped == "budget" for m in measurements), len(measurements)
    if not wide:
        return "every median's 95% CI is within 1%"
    which = "the median's 95% CI was" if n == 1 else f"{wide} of {n} medians' 95% CIs were"
    return f"the time budget ended before {which} within 1%"


def _preparation(measurements: Sequence[Measurement]) -> str:
    """The settings and the time they took to prepare; nothing for eager fp32, or if the settings differ."""
    ways = {(m.settings, m.options.runtime) for m in measurements}
    if len(ways) > 1 or ways == {("fp32", "eager")}:
        return ""
    times = sorted(m.prepare_s for m in measurements)
    upto = f" to {duration(times[-1])}" if len(times) > 1 else ""
    return f"; {measurements[0].settings}, prepared in {duration(times[0])}{upto}"


def environment_lines(measurements: Sequence[Measurement]) -> list[str]:
    """Load before the run, and the worst interference during it, as far as the platform reports them."""
    ledgers = [m.environment for m in measurements]
    first, last = ledgers[0].before, ledgers[-1].after
    parts = [] if first.load_average is None else [f"load average before {first.load_average:.2f}"]
    for name, words in (("others", "other programs"), ("stolen", "stolen by the host"), ("throttled", "throttled")):
        shares = [share for ledger in ledgers if (share := getattr(ledger, name)) is not None]
        parts += [f"{words} {percent(max(shares))}"] if shares else []
    gpu = last.gpu
    if gpu is None:
        parts += [f"governor {last.governor}"] if last.governor else []
    elif gpu.other_processes is not None:
        parts.append(f"other programs on the GPU {gpu.other_processes}")
    sensors = last if gpu is None else gpu
    parts += [] if sensors.clock_mhz is None else [f"clock {sensors.clock_mhz:,.0f} MHz"]
    parts += [] if sensors.temperature_c is None else [f"temperature {sensors.temperature_c:.0f} C"]
    return [f"environment: {', '.join(parts)}"] if parts else []


def measurement_warnings(
    measurements: Sequence[Measurement], *, models: Sequence[str] = (), energy: bool = False
) -> list[str]:
    """Why figures may be unreliable; `models` names each measurement's model if there are several.

    `energy`: whether `--energy` was given.
    """
    from resnetcli.bench.search import deviates

    lines = []
    if energy and not any(m.energy for m in measurements):
        lines.append("energy: not available, this device has no readable energy meter")
    names = [f"{model}: " for model in models] or [""] * len(measurements)
    lines += [
        f"{name}at batch {m.batch} {problem}"
        for name, m in zip(names, measurements, strict=True)
        if (problem := deviates(m))
    ]
    if not all(m.warmup_settled for m in measurements):
        lines.append("*: warm-up did not converge")
    if reasons := worst_reasons(measurements):
        lines.append(f"noisy: {'; '.join(reasons)}; unreliable, measure again on an idle machine")
    return lines


def worst_reasons(measurements: Sequence[Measurement]) -> list[str]:
    """Why measurements are noisy: each reason once, with its largest share."""
    from resnetcli.bench.environment import worst_noise

    return [noise.text for noise in worst_noise(noise for m in measurements for noise in m.noisy)]
