"""Several nets as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.reports.compare import Comparison, label
from resnetcli.reports.profile import Profile
from resnetcli.reports.profile_table import (
    HALF_WIDTH,
    IMAGES_S,
    PEAK_MEMORY,
    derived_column,
    extra_cells,
    extra_columns,
    half_width,
    memory_cells,
    memory_columns,
    noisy_cell,
)
from resnetcli.table.numbers import change, duration, figure_name, percent, rate, short, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.reports.baseline import Changes


def comparison_sheet(comparison: Comparison) -> Sheet:
    """A row a model: counted figures with the printed ones beside them, measured ones if there are any."""
    measured = any(profile.measurements for profile in comparison.profiles)
    base = comparison.baseline
    convention = comparison.profiles[0].convention
    work = convention.key
    several = len({profile.plan.input_text for profile in comparison.profiles}) > 1
    columns = [Column("model", "model", "left", "bold"), Column("input", "input", shown=several, spare=5)]
    for key, head in (("params", "params"), (work, convention.label), ("activations", "acts")):
        spare = {"params": 3, work: 2, "activations": 7}[key] if measured else 0
        columns.append(Column(head, key, spare=spare, legend=ACTS if head == "acts" else ""))
        if base is not None:
            columns.append(Column(f"{head}\nchange", f"{key}_ratio", style="cyan", spare=spare, legend=_relative(base)))
        if key != "activations":
            printed = any(_printed(profile, key) for profile in comparison.profiles)
            columns.append(Column(f"{head}\nprinted", f"{key}_printed", style="dim", shown=printed,
                                  spare=6 if measured else 3, legend=_printed_legend(comparison)))  # fmt: skip
    columns.append(Column("depth", "depth", spare=8 if measured else 2))
    for (figure, _), key in comparison.accuracy.keys.items() if comparison.accuracy else ():
        head = key.replace(figure, figure_name(figure), 1)
        columns.append(Column(head, f"{key} sources".replace(" ", "_"), "left", wrap=True))
        columns.append(Column(f"best {head}", key.replace(" ", "_"), shown=False))  # for programs
    if measured:
        every = [m for profile in comparison.profiles for m in profile.measurements]
        ways = {m.settings for profile in comparison.profiles for m in profile.measurements}
        sweep = len({m.batch for profile in comparison.profiles for m in profile.measurements}) > 1
        against = comparison.contests[0].against if comparison.contests else ""
        judged = bool(against) and len(comparison.profiles) > 1
        noisy = any(m.noisy for profile in comparison.profiles for m in profile.measurements)
        columns += [
            Column("settings", "settings", "left", wrap=True, shown=len(ways) > 1),
            Column("batch", "batch", shown=sweep),
            Column("median", "median_s"),
            HALF_WIDTH,
            Column("ratio", "median_ratio", shown=False),  # for programs: the verdict as a number
            Column("from", "median_ratio_low", shown=False),
            Column("to", "median_ratio_high", shown=False),
            Column(f"against {against}", "verdict", "left", "cyan", wrap=True, shown=judged),
            Column("IQR", "iqr_s", spare=5),
            Column("min", "min_s", spare=9),
            Column("p90", "p90_s", spare=9),
            Column("p99", "p99_s", spare=9, shown=any(m.p99_s is not None for m in every)),
            Column("n", "n", spare=6),
            Column("images/s", "throughput_img_s", spare=1, legend=IMAGES_S),
            *extra_columns(every),
            Column("peak memory", "peak_memory_bytes", spare=4, legend=PEAK_MEMORY),
            derived_column(every, 6),
            *memory_columns(every),
            Column("noisy", "noisy", "left", "yellow", shown=noisy),
        ]
    lines = []
    for place, profile in enumerate(comparison.profiles):
        counted = _counted(profile, comparison, work)
        lines += [(*counted, *_times(comparison, place, m)) for m in profile.measurements]
        if not profile.measurements:
            lines.append((*counted, *(cell(None) for _ in columns[len(counted) :])))
    return Sheet(tuple(columns), tuple(lines))


ACTS = "acts: outputs of convolutions and fc"


def _relative(base: Profile) -> str:
    return f"change: relative to {label(base)}"


def _printed_legend(comparison: Comparison) -> str:
    differs = any(e.verdict == "differs" for profile in comparison.profiles for e in profile.judged)
    return "printed: as the papers have it" + (" (*: differs, see `verify`)" if differs else "")


def _counted(profile: Profile, comparison: Comparison, work: str) -> tuple[Cell, ...]:
    base = comparison.baseline
    plan = profile.plan
    size = ",".join(each.text for each in plan.inputs) or "x".join(map(str, plan.input_sizes))
    cells = [cell(label(profile)), cell(size, plan.input_text)]
    for key in ("params", work, "activations"):
        value = profile.tally.total if key == work else profile.counts.total.figure(key)
        cells.append(cell(value, short(value)))
        if base is not None:
            cells.append(_ratio(value, base.tally.total if key == work else base.counts.total.figure(key)))
        if key != "activations":
            cells.append(cell(_printed(profile, key)))
    cells.append(cell(profile.counts.depth))
    if comparison.accuracy:
        for column in comparison.accuracy.columns:
            printed = comparison.accuracy.printed(profile, *column)
            cells.append(cell(", ".join(f"{value} {'/'.join(papers)}" for value, papers in printed.items())))
            cells.append(cell(comparison.accuracy.best(profile, *column)))
    return tuple(cells)


def _times(comparison: Comparison, place: int, m: Measurement) -> tuple[Cell, ...]:
    """What was measured of the profile at that place at one batch."""
    ratio, memory = comparison.ratio(place, m.batch), m.peak_memory_bytes
    low, high = ratio.interval if ratio else (None, None)
    return (
        cell(m.settings),
        cell(m.batch),
        cell(m.median_s, duration(m.median_s)),
        half_width(m),
        cell(ratio.ratio if ratio else None),
        cell(low),
        cell(high),
        cell(ratio.text() if ratio else ""),
        cell(m.iqr_s, duration(m.iqr_s)),
        cell(m.min_s, duration(m.min_s)),
        cell(m.p90_s, duration(m.p90_s)),
        cell(m.p99_s, "-" if m.p99_s is None else duration(m.p99_s)),
        cell(m.n),
        cell(m.throughput_img_s, rate(m.throughput_img_s)),
        *extra_cells(m),
        cell(memory, "-" if memory is None else size_of(memory)),
        cell(m.live_peak_bytes, "" if m.live_peak_bytes is None else size_of(m.live_peak_bytes)),
        *memory_cells(m),
        noisy_cell(m),
    )


def changes_sheet(found: Changes) -> Sheet:
    """Times now against those of a file."""
    columns = (
        Column(f"against {found.file}", "model", "left", "bold"),
        Column("batch", "batch"),
        Column("then", "then_s", spare=1),
        Column("now", "now_s", spare=1),
        Column("ratio", "text", "left", wrap=True),
        Column("verdict", "verdict", "left", "cyan"),
    )
    lines = [
        (
            cell(change.model),
            cell(change.batch),
            cell(change.then_s, duration(change.then_s)),
            cell(change.now_s, duration(change.now_s)),
            cell("; ".join((change.ratio.text(), *change.notes))),
            cell(change.verdict, "undecided: noisy" if change.verdict == "undecided" else None),
        )
        for change in found.changes
    ]
    return Sheet(columns, tuple(lines))


def changes_lines(found: Changes) -> list[str]:
    """What was not compared."""
    lines = [f"not in {found.file}: {', '.join(found.unsaved)}"] if found.unsaved else []
    return lines + ([f"not measured now: {', '.join(found.unmeasured)}"] if found.unmeasured else [])


def contest_lines(comparison: Comparison) -> list[str]:
    """How the nets were timed against each other, and the noise floor of it."""
    lines = []
    for contest in comparison.contests:
        if contest.floor is None:
            continue
        at = f" at batch {contest.batch}" if len(comparison.contests) > 1 else ""
        if any(profile.ladders for profile in comparison.profiles):
            at += ", each at its best settings in a process of its own"
        lines.append(
            f"timed in turns{at}, {contest.rounds} rounds in random order, ratios paired by round; "
            f"{contest.against} against itself: within {percent(contest.floor)}"
        )
    return lines


def _ratio(value: float, reference: float) -> Cell:
    return cell(value / reference if reference else None, change(value, reference))


def _printed(profile: Profile, key: str) -> str:
    """The figures the papers print, each once; with a mark if the count is another."""
    found = [entry for entry in profile.judged if entry.published.figure == key]
    return "/".join(dict.fromkeys(e.published.printed + "*" * (e.verdict == "differs") for e in found))


def caption(comparison: Comparison) -> list[str]:
    """Conditions of the figures, the most important first."""
    sizes = {profile.plan.input_text for profile in comparison.profiles}
    where = f", {sizes.pop()}" if len(sizes) == 1 else ""
    convention = comparison.profiles[0].convention
    told = {"macs": "; papers call MACs FLOPs", "flops": "; FLOPs are 2 x MACs"}.get(convention.name, "")
    lines = [f"counted for one image{where}{told}"]
    if accuracy := comparison.accuracy:
        datasets = dict.fromkeys(dataset for _, dataset in accuracy.columns)
        others = f"; not shown: {', '.join(accuracy.others)} (--protocol)" if accuracy.others else ""
        lines.append(f"accuracy as published: {', '.join(datasets)}, {accuracy.protocol}{others}")
    return lines


def results_lines(comparison: Comparison) -> list[str]:
    """A tool's figures as sums, omitted models, and notes on single models."""
    tallies = {label(profile): profile.tally for profile in comparison.profiles}
    lines = comparison.profiles[0].convention.lines(tallies)
    if comparison.left_out:
        words = " or ".join(
            f"more than {short(most)} {'parameters' if name == 'params' else 'MACs'}"
            for name, most in comparison.limits.items()
        )
        lines.append(f"left out: {plural(len(comparison.left_out), 'net')} with {words}")
    said: dict[str, list[str]] = {}
    for profile in comparison.profiles:
        for note in profile.notes:
            said.setdefault(note, []).append(label(profile))
    return [*lines, *(f"{', '.join(dict.fromkeys(models))}: {note}" for note, models in said.items())]
