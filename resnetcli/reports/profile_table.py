"""A profile as a person reads it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.plan.memory import memory
from resnetcli.plan.training import is_traced, training
from resnetcli.reports.max_batch_table import memory_text, training_line
from resnetcli.reports.profile import By, Failure, Part, Profile, parts, settings_text
from resnetcli.reports.verdict import Judged
from resnetcli.table.numbers import bar, change, duration, exact, factor, figure_name, percent, rate, short, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.plan.plan import Plan
    from resnetcli.plan.receptive import Receptive

_FIGURE = re.compile(r"[0-9]+(?:\.[0-9]+)?")


def heading(profile: Profile) -> list[str]:
    """Who the net is: title, what to type, parameters, citation."""
    plan = profile.plan
    ordered = dict(sorted(plan.parameters.items(), key=lambda entry: entry[0] == "classes"))  # the spec's own first
    lines = [f"{plan.title}   {profile.model}   {settings_text(ordered)}"]
    return [*lines, profile.cite] if profile.cite else lines


def cost_sheet(profile: Profile, by: By, *, width: int = 12, receptive: bool = False) -> Sheet:
    """A row for each part of the net, with its share of the work as a bar of at most `width` characters.

    `receptive` adds what each part sees of the image.
    """
    fields = _fields(profile.plan) if receptive else ()
    found = parts(profile, by)
    total, work = profile.counts.total, profile.tally.total
    most = max((part.figure for part in found), default=0) or 1
    head = profile.convention.label
    columns = (
        Column(by, by, "left", "bold"),
        Column("steps", "layers", "left", "dim", shown=by == "layer", exported=by == "layer", spare=1),
        Column("output", "output", spare=2 if by != "row" else 0),
        *(Column(name, name, legend=meaning) for name, meaning in FIELDS.items() if receptive),
        Column("params", "params"),
        Column(head, profile.convention.key),
        Column("activations", "activations"),
        Column(f"share of {head}", "share", "left", "cyan", spare=3 if by == "layer" else 0),
    )

    def line(part: Part) -> tuple[Cell, ...]:
        cost = part.cost
        share = part.figure / work if work else 0.0
        return (
            cell(part.name),
            cell(part.layers),
            cell(f"{part.output.c}x{part.output.h}x{part.output.w}", str(part.output) if part.output.elements else "-"),
            *map(cell, field_texts(fields[part.step]) if fields else ()),
            cell(cost.params, short(cost.params)),
            cell(part.figure, short(part.figure)),
            cell(cost.activations, short(cost.activations)),
            cell(round(share, 6), f"{percent(share):>6} {bar(part.figure / most, width)}".rstrip()),
        )

    foot = (
        cell("total"),
        cell(""),
        cell(""),
        *(cell("") for _ in FIELDS if receptive),
        cell(total.params, short(total.params)),
        cell(work, short(work)),
        cell(total.activations, short(total.activations)),
        cell(1 if work else 0, f"{percent(1):>6}" if work else ""),
    )
    return Sheet(columns, tuple(map(line, found)), foot)


FIELDS = {
    "field": "field (derived): receptive field in pixels, of the smallest path and of all paths together",
    "stride": "stride: pixels between adjacent fields",
    "padding": "padding: pixels of the first field beyond the edge",
}
"""Receptive-field columns and their legends."""


def _fields(plan: Plan) -> Sequence[Receptive]:
    from resnetcli.plan.receptive import receptive  # which only who asks for it waits for

    return receptive(plan)


def field_texts(seen: Receptive) -> tuple[str, str, str]:
    """Receptive field, stride and padding: `7`, `11-427` from the smallest path to all together, `7 x 1`, `all`."""
    h, w = seen.h, seen.w
    return (
        _both(_range(h.size_min, h.size_max, "all"), _range(w.size_min, w.size_max, "all")),
        _both(_range(h.stride_min, h.stride_max), _range(w.stride_min, w.stride_max)),
        _both(_range(h.padding_min, h.padding_max), _range(w.padding_min, w.padding_max)),
    )


def _both(h: str, w: str) -> str:
    return h if h == w else f"{h} x {w}"


def _range(low: int | None, high: int | None, unbounded: str = "") -> str:
    texts = dict.fromkeys(unbounded if value is None else str(value) for value in (low, high))
    return "-".join(text for text in texts if text)


def totals(profile: Profile) -> list[str]:
    """Requested details of the whole model: a convention's sum, auxiliary heads, batch sizes."""
    counts = profile.counts
    lines = list(profile.tally.lines)
    if heads := heads_line(profile):
        lines.append(heads)
    for batch in profile.batches:
        if batch > 1:
            macs, held = batch * counts.macs, batch * counts.activation_bytes
            lines.append(f"a batch of {batch} (derived): {short(macs)} MACs, activations {size_of(held)}")
    return [*lines, *profile.notes]


def totals_notes(profile: Profile) -> list[str]:
    """Exact counts for one image, with its memory and a training step."""
    counts, plan = profile.counts, profile.plan
    one = f"one {'input' if plan.inputs else 'image'}, {plan.input_text}"
    lines = [
        f"{exact(counts.params)} parameters   {profile.tally.text}   {exact(counts.activations)} activations "
        f"(outputs of convolutions and fc)   depth {counts.depth}",
        f"{one}, in float32 (derived): weights {size_of(counts.weight_bytes)}, "
        f"activations {size_of(counts.activation_bytes)}",
    ]
    if not is_traced(plan):
        lines[1] += f", {memory_text(plan, memory(plan))}"
        lines.append(training_line(training(plan).total))
    return lines


def heads_line(profile: Profile) -> str:
    """What the net's auxiliary training heads add to what was counted, or would; empty for a net without any."""
    if profile.heads is None:
        return ""
    counted, other = profile.heads.without, profile.heads.with_them
    which = "with its auxiliary training heads (--aux)"
    if profile.counts == other:
        counted, other, which = other, counted, "without its auxiliary training heads, as at inference"
    return f"{which}: {exact(other.params)} parameters, {exact(other.macs)} MACs ({change(other.macs, counted.macs)})"


def published_sheet(profile: Profile) -> Sheet | None:
    """The printed figures beside the counted ones; None where there is none to compare."""
    if not profile.judged:
        return None
    columns = (
        Column("published", "figure", "left", "bold"),
        Column("printed", "printed"),
        Column("counted", "counted"),
        Column("verdict", "verdict", "left"),
        Column("dataset", "dataset", "left", wrap=True, shown=any(entry.published.dataset for entry in profile.judged)),
        Column("protocol", "protocol", "left", wrap=True, shown=any(e.published.protocol for e in profile.judged)),
        Column("source", "source", "left", "dim"),
        Column("note", "note", "left", wrap=True, shown=any(entry.published.note for entry in profile.judged)),
        Column(
            "detail",
            "detail",
            "left",
            "dim",
            wrap=True,
            spare=2,
            shown=any(entry.published.detail for entry in profile.judged),
        ),
    )
    return Sheet(columns, tuple(map(_published_line, profile.judged)))


def _published_line(entry: Judged) -> tuple[Cell, ...]:
    published = entry.published
    return (
        cell(published.figure, figure_name(published.figure)),
        cell(published.printed),
        cell(entry.counted, "" if entry.counted is None else short(entry.counted)),
        cell(entry.verdict),
        cell(published.dataset),
        cell(published.protocol),
        cell(f"{published.source} {published.table}", f"{published.source.removeprefix('arXiv:')} {published.table}"),
        cell(published.note),
        cell(published.detail),
    )


def unjudged(profile: Profile) -> str:
    """Why printed figures are not shown, if that is so."""
    spec = profile.parsed
    if spec is None or not spec.published:
        return ""
    if spec.changed:
        changed = ", ".join(sorted(spec.changed))
        return f"published figures are for the net as the paper has it; {changed} changed, so none is compared"
    if not profile.judged:
        return "published figures leave auxiliary heads out, so none is compared with --aux"
    return ""


def with_times(costs: Sheet, measurements: Sequence[Measurement]) -> Sheet:
    """Costs and times in one table, for programs: the total once for every measurement, which is of the whole net."""
    if not measurements or costs.total is None:
        return costs
    times, total = measured_sheet(measurements), costs.total
    rows = [(*row, *(cell(None) for _ in times.columns)) for row in costs.rows]
    rows += [(*total, *row) for row in times.rows]
    return Sheet((*costs.columns, *times.columns), tuple(rows))


def measured_sheet(measurements: Sequence[Measurement]) -> Sheet:
    """Latency, throughput and memory, a row a setting and batch."""
    sweep = len({m.batch for m in measurements}) > 1
    columns = (
        Column("measured", "device", "left", "bold", wrap=True),
        Column("", "settings", shown=False),
        Column("batch", "batch", shown=not sweep),
        Column("median", "median_s"),
        HALF_WIDTH,
        Column("IQR", "iqr_s", spare=1),
        Column("min", "min_s", spare=1),
        Column("p90", "p90_s", spare=2),
        Column("p99", "p99_s", spare=2, shown=any(m.p99_s is not None for m in measurements)),
        Column("n", "n"),
        Column("outliers", "outliers", spare=3),
        Column("images/s", "throughput_img_s", legend=IMAGES_S),
        *extra_columns(measurements),
        Column("peak memory", "peak_memory_bytes", legend=PEAK_MEMORY),
        derived_column(measurements, 4),
        *memory_columns(measurements),
        Column("noisy", "noisy", "left", "yellow", shown=any(m.noisy for m in measurements)),
    )
    return Sheet(columns, tuple(_measured_line(m, sweep) for m in measurements))


HALF_WIDTH = Column("±", "half_interval", legend="±: half-width of the 95% CI of the median")
IMAGES_S = "images/s: pipelined throughput"
PEAK_MEMORY = "peak memory: excludes weights"


def derived_column(measurements: Sequence[Measurement], spare: int) -> Column:
    """The peak computed from the plan, if there is one."""
    shown = any(m.live_peak_bytes is not None for m in measurements)
    meaning = "derived: computed tensor memory, excluding library workspaces"
    return Column("derived", "live_peak_bytes", spare=spare, shown=shown, legend=meaning)


def extra_columns(measurements: Sequence[Measurement]) -> tuple[Column, ...]:
    """The phases of a training step, and energy; shown where there are any."""
    trained, metered = any(m.phases for m in measurements), any(m.energy for m in measurements)
    step = "forward, backward, optimizer: timed apart, so their medians need not add up"
    return (
        *(
            Column(name, f"{name}_s", spare=1, shown=trained, legend=step)
            for name in ("forward", "backward", "optimizer")
        ),
        Column("J/image", "joules_per_image", shown=metered, legend=_energy_text(measurements)),
        Column("above idle", "above_idle_joules_per_image", spare=2, shown=metered),
    )


def extra_cells(m: Measurement) -> tuple[Cell, ...]:
    """Theirs."""
    phases, energy = m.phases, m.energy
    each = (phases.forward, phases.backward, phases.optimizer) if phases else ()
    joules = (energy.joules_per_image, energy.above_idle_joules_per_image) if energy else ()
    return (
        *(cell(phase.median_s, duration(phase.median_s)) for phase in each),
        *(cell(None) for _ in range(3 - len(each))),
        *(cell(value, factor(value)) for value in joules),
        *(cell(None) for _ in range(2 - len(joules))),
    )


def memory_columns(measurements: Sequence[Measurement]) -> tuple[Column, ...]:
    """What a process of its own took; shown where it was asked for."""
    asked = [m.memory for m in measurements if m.memory]
    reserved = any(held.reserved_bytes is not None for held in asked)
    return (
        Column("by itself", "own_peak_bytes", shown=bool(asked), legend="by itself: peak in a fresh process"),
        Column("reserved", "own_reserved_bytes", shown=reserved),
        Column("process", "own_process_bytes", shown=bool(asked), legend="process: all memory it took"),
    )


def memory_cells(m: Measurement) -> tuple[Cell, ...]:
    """Theirs."""
    held = m.memory
    found = (held.peak_bytes, held.reserved_bytes, held.process_bytes) if held else (None, None, None)
    return tuple(cell(value, "-" if held and value is None else None if value is None else size_of(value))
                 for value in found)  # fmt: skip


def _measured_line(m: Measurement, sweep: bool) -> tuple[Cell, ...]:
    memory = m.peak_memory_bytes
    how = f"{m.device} {m.settings}"
    return (
        cell(m.device, f"{how}, batch {m.batch}" if sweep else how),  # first in each part of a table that is split
        cell(m.settings),
        cell(m.batch),
        cell(m.median_s, duration(m.median_s)),
        half_width(m),
        cell(m.iqr_s, duration(m.iqr_s)),
        cell(m.min_s, duration(m.min_s)),
        cell(m.p90_s, duration(m.p90_s)),
        cell(m.p99_s, "-" if m.p99_s is None else duration(m.p99_s)),
        cell(m.n),
        cell(len(m.outliers)),
        cell(m.throughput_img_s, rate(m.throughput_img_s)),
        *extra_cells(m),
        cell(memory, "-" if memory is None else size_of(memory)),
        cell(m.live_peak_bytes, "" if m.live_peak_bytes is None else size_of(m.live_peak_bytes)),
        *memory_cells(m),
        noisy_cell(m),
    )


def noisy_cell(m: Measurement) -> Cell:
    """A mark on what is not to be relied upon."""
    return cell("noisy" if m.noisy else "")


def half_width(m: Measurement) -> Cell:
    """Half the median's 95% interval, relative to the median: `1.2%`; with a mark if the net was not yet steady."""
    low, high = m.interval_s
    half = (high - low) / 2 / m.median_s
    return cell(half, f"{100 * half:.1f}%{'' if m.warmup_settled else '*'}")


def worst_reasons(measurements: Sequence[Measurement]) -> list[str]:
    """Why they are noisy: of reasons that differ in their figure alone the one with the largest."""
    worst: dict[str, tuple[float, str]] = {}
    for reason in (reason for m in measurements for reason in m.noisy):
        figures = [float(figure) for figure in _FIGURE.findall(reason)]
        kind = _FIGURE.sub("", reason)
        worst[kind] = max(worst.get(kind, (0.0, reason)), (max(figures, default=0.0), reason))
    return [reason for _, reason in worst.values()]


def failure_lines(failures: Iterable[Failure]) -> list[str]:
    """What could not be measured, a line each."""
    return [f"not measured: {failure.problem}" for failure in failures]


def environment_lines(measurements: Sequence[Measurement]) -> list[str]:
    """What else went on: the load before, and the worst of what followed."""
    ledgers = [m.environment for m in measurements]
    first, last = ledgers[0].before, ledgers[-1].after
    load = "not available" if first.load_average is None else f"{first.load_average:.2f}"
    parts = [f"load average before {load}"]
    for name, words in (("others", "other programs"), ("stolen", "stolen by the host"), ("throttled", "throttled")):
        shares = [share for ledger in ledgers if (share := getattr(ledger, name)) is not None]
        parts.append(f"{words} {percent(max(shares)) if shares else 'not available'}")
    gpu = last.gpu
    if gpu is None:
        parts.append(f"governor {last.governor or 'not available'}")
        clock, temperature = last.clock_mhz, last.temperature_c
    else:
        others = "not available" if gpu.other_processes is None else gpu.other_processes
        parts.append(f"other programs on the GPU {others}")
        clock, temperature = gpu.clock_mhz, gpu.temperature_c
    parts.append(f"clock {'not available' if clock is None else f'{clock:,.0f} MHz'}")
    parts.append(f"temperature {'not available' if temperature is None else f'{temperature:.0f} C'}")
    return [f"environment: {', '.join(parts)}"]


def _energy_text(measurements: Sequence[Measurement]) -> str:
    found = [m.energy for m in measurements if m.energy]
    if not found:
        return ""
    seconds, idle = min(each.seconds for each in found), found[0].idle_w
    return f"J/image: by {found[0].source} over {seconds:.1f} s or more, {idle:.0f} W when idle"


def _end_line(measurements: Sequence[Measurement]) -> str:
    """Why no more samples were taken."""
    wide, n = sum(m.stopped == "budget" for m in measurements), len(measurements)
    if not wide:
        return "measured until each median's interval was within 1% of it"
    which = "the median's interval was" if n == 1 else f"{wide} of {n} medians' intervals were"
    return f"the time budget ended before {which} within 1%"


def _prepared(measurements: Sequence[Measurement]) -> str:
    """How they were run and what that took to prepare, unless it is eager fp32 or not one way for all."""
    ways = {(m.settings, m.runtime) for m in measurements}
    if len(ways) > 1 or ways == {("fp32", "eager")}:
        return ""
    times = sorted(m.prepare_s for m in measurements)
    upto = f" to {duration(times[-1])}" if len(times) > 1 else ""
    return f"; {measurements[0].settings}, prepared in {duration(times[0])}{upto}"


def conditions(measurements: Sequence[Measurement]) -> list[str]:
    """Conditions of one run's measurements, the most important first."""
    m = measurements[0]
    tf32 = ", TF32 allowed" if m.tf32 else ""
    what = ", training steps" if m.mode == "train" else ""
    return [
        f"measured on {m.device_name}, {plural(m.threads, 'thread')}, torch {m.torch}{tf32}{what}"
        f"{_prepared(measurements)}; {_end_line(measurements)}",
        *environment_lines(measurements),
    ]


def doubts(measurements: Sequence[Measurement], *, models: Sequence[str] = (), energy: bool = False) -> list[str]:
    """What is not as it should be with measurements, of `models` if of several; whether `energy` was asked for."""
    from resnetcli.bench.search import deviates

    lines = ["energy: not available, this device has no readable energy meter"] if (
        energy and not any(m.energy for m in measurements)) else []  # fmt: skip
    names = [f"{model}: " for model in models] or [""] * len(measurements)
    lines += [
        f"{name}at batch {m.batch} {problem}"
        for name, m in zip(names, measurements, strict=True)
        if (problem := deviates(m))
    ]
    if not all(m.warmup_settled for m in measurements):
        lines.append("*: times were still moving when the warm-up had to end")
    if reasons := worst_reasons(measurements):
        lines.append(f"noisy: {'; '.join(reasons)}; not to be relied upon, measure again on a quiet machine")
    return lines
