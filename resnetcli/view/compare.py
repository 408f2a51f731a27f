"""Several nets as a table."""

from __future__ import annotations

from resnetcli.report.compare import Comparison, label
from resnetcli.report.profile import Profile
from resnetcli.view.convention import convention_notes, work_head, work_key
from resnetcli.view.numbers import change, duration, figure_name, rate, short, size_of
from resnetcli.view.profile import half_width
from resnetcli.view.sheet import Cell, Column, Sheet, cell


def comparison_sheet(comparison: Comparison) -> Sheet:
    """A row a model: counted figures with the printed ones beside them, measured ones if there are any."""
    measured = any(profile.measurements for profile in comparison.profiles)
    base = comparison.baseline
    convention = comparison.profiles[0].convention
    work = work_key(convention)
    several = len({profile.plan.input for profile in comparison.profiles}) > 1
    columns = [Column("model", "model", "left", "bold"), Column("input", "input", shown=several, spare=5)]
    for key, head in (("params", "params"), (work, work_head(convention)), ("activations", "acts")):
        columns.append(Column(head, key, spare=6 if key == "activations" and measured else 0))
        columns += _relative(base, f"{key}_ratio")
        if key != "activations":
            printed = any(_printed(profile, key) for profile in comparison.profiles)
            columns.append(Column("printed", f"{key}_printed", style="dim", shown=printed, spare=3))
    columns.append(Column("depth", "depth", spare=7 if measured else 2))
    for (figure, _), key in comparison.accuracy.keys.items() if comparison.accuracy else ():
        head = key.replace(figure, figure_name(figure), 1)
        columns.append(Column(head, f"{key} sources".replace(" ", "_"), "left", wrap=True))
        columns.append(Column("", key.replace(" ", "_"), shown=False))  # for programs: the best of them
    if measured:
        columns += [
            Column("median", "median_s"),
            Column("±", "interval", exported=False),
            *_relative(base, "median_ratio"),
            Column("IQR", "iqr_s", spare=2),
            Column("n", "n", spare=1),
            Column("images/s", "throughput_img_s"),
            Column("peak memory", "peak_memory_bytes"),
        ]
    return Sheet(tuple(columns), tuple(_line(profile, comparison, work) for profile in comparison.profiles))


def _relative(base: Profile | None, key: str) -> list[Column]:
    return [] if base is None else [Column("", key, style="cyan")]


def _line(profile: Profile, comparison: Comparison, work: str) -> tuple[Cell, ...]:
    base, measured = comparison.baseline, any(p.measurements for p in comparison.profiles)
    size = profile.plan.input
    cells = [cell(label(profile)), cell(f"{size.c}x{size.h}x{size.w}", str(size))]
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
    if measured:
        m = profile.measurements[0]
        cells += [cell(m.median_s, duration(m.median_s)), cell(half_width(m))]
        if base is not None:
            cells.append(_ratio(m.median_s, base.measurements[0].median_s))
        memory = m.peak_memory_bytes
        cells += [
            cell(m.iqr_s, duration(m.iqr_s)),
            cell(m.n),
            cell(m.throughput_img_s, rate(m.throughput_img_s)),
            cell(memory, "-" if memory is None else size_of(memory)),
        ]
    return tuple(cells)


def _ratio(value: float, reference: float) -> Cell:
    return cell(value / reference if reference else None, change(value, reference))


def _printed(profile: Profile, key: str) -> str:
    """The figures the papers print, each once; with a mark if the count is another."""
    found = [entry for entry in profile.judged if entry.published.figure == key]
    return "/".join(dict.fromkeys(e.published.printed + "*" * (e.verdict == "differs") for e in found))


def caption(comparison: Comparison) -> list[str]:
    """What the columns are."""
    sizes = {str(profile.plan.input) for profile in comparison.profiles}
    where = f", {sizes.pop()}" if len(sizes) == 1 else ""
    convention = comparison.profiles[0].convention
    told = {"macs": "; papers call MACs FLOPs", "flops": "; FLOPs are 2 x MACs"}.get(convention.name, "")
    lines = [f"counted for one image{where}{told}; acts: outputs of convolutions and fc"]
    if not told:
        lines += convention_notes({label(profile): profile.tally for profile in comparison.profiles})
    judged = [entry for profile in comparison.profiles for entry in profile.judged]
    notes = ["printed: as the papers have it"] if judged else []
    notes += ["*: differs, see `verify`"] if any(entry.verdict == "differs" for entry in judged) else []
    if accuracy := comparison.accuracy:
        datasets = dict.fromkeys(dataset for _, dataset in accuracy.columns)
        notes.append(f"accuracy as published: {', '.join(datasets)}, {accuracy.protocol}")
        if accuracy.others:
            notes.append(f"not shown: {', '.join(accuracy.others)} (--protocol)")
    notes += [f"changes relative to {label(comparison.baseline)}"] if comparison.baseline else []
    lines += ["; ".join(notes)] if notes else []
    said: dict[str, list[str]] = {}
    for profile in comparison.profiles:
        for note in profile.notes:
            said.setdefault(note, []).append(label(profile))
    return [*lines, *(f"{', '.join(dict.fromkeys(models))}: {note}" for note, models in said.items())]
