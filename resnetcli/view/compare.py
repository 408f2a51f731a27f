"""Several nets, or the whole zoo, as a table."""

from __future__ import annotations

from resnetcli.report.compare import Comparison, label
from resnetcli.report.listing import Listing
from resnetcli.report.profile import Profile
from resnetcli.view.numbers import change, duration, figure_name, rate, short, size_of, spoken
from resnetcli.view.profile import half_width
from resnetcli.view.sheet import Cell, Column, Sheet, cell


def comparison_sheet(comparison: Comparison, *, flops: bool = False) -> Sheet:
    """A row a model: counted figures with the printed ones beside them, measured ones if there are any."""
    measured = any(profile.measurements for profile in comparison.profiles)
    base = comparison.baseline
    work = "flops" if flops else "macs"
    several = len({profile.plan.input for profile in comparison.profiles}) > 1
    columns = [Column("model", "model", "left", "bold"), Column("input", "input", shown=several, spare=5)]
    for key, head in (("params", "params"), (work, "FLOPs" if flops else "MACs"), ("activations", "acts")):
        columns.append(Column(head, key, spare=6 if key == "activations" and measured else 0))
        columns += _relative(base, f"{key}_ratio")
        if key != "activations":
            printed = any(_printed(profile, key) for profile in comparison.profiles)
            columns.append(Column("printed", f"{key}_printed", style="dim", shown=printed, spare=3))
    columns.append(Column("depth", "depth", spare=7 if measured else 2))
    datasets = {dataset for _, dataset in comparison.accuracy.columns} if comparison.accuracy else set()
    for figure, dataset in comparison.accuracy.columns if comparison.accuracy else ():
        head = f"{figure_name(figure)} {dataset if len(datasets) > 1 else ''}".strip()
        key = f"{figure} {dataset}" if len(datasets) > 1 else figure
        columns.append(Column(head, key, "left", wrap=True))
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
        value = profile.counts.total.figure(key)
        cells.append(cell(value, short(value)))
        if base is not None:
            cells.append(_ratio(value, base.counts.total.figure(key)))
        if key != "activations":
            cells.append(cell(_printed(profile, key)))
    cells.append(cell(profile.counts.depth))
    if comparison.accuracy:
        for column in comparison.accuracy.columns:
            printed = comparison.accuracy.printed(profile, *column)
            cells.append(cell(", ".join(f"{value} {'/'.join(papers)}" for value, papers in printed.items())))
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
    """The figures the papers print, each once."""
    return "/".join(dict.fromkeys(e.published.printed for e in profile.judged if e.published.figure == key))


def caption(comparison: Comparison, *, flops: bool = False) -> list[str]:
    """What the columns are."""
    sizes = {str(profile.plan.input) for profile in comparison.profiles}
    where = f", {sizes.pop()}" if len(sizes) == 1 else ""
    work = "FLOPs are 2 x MACs" if flops else "papers call MACs FLOPs"
    lines = [f"counted for one image{where}; {work}; acts: outputs of convolutions and fc"]
    notes = ["printed: as the papers have it"] if any(profile.judged for profile in comparison.profiles) else []
    if accuracy := comparison.accuracy:
        datasets = dict.fromkeys(dataset for _, dataset in accuracy.columns)
        notes.append(f"accuracy as published: {', '.join(datasets)}, {spoken(accuracy.protocol)}")
    notes += [f"changes relative to {label(comparison.baseline)}"] if comparison.baseline else []
    return [*lines, "; ".join(notes)] if notes else lines


def listing_sheet(listing: Listing) -> Sheet:
    """A row a model of the zoo, under its family and the paper it is from."""
    columns = (
        Column("model", "model", "left", "bold"),
        Column("family", "family", "left", "dim", shown=False),
        Column("params", "params"),
        Column("MACs", "macs"),
        Column("depth", "depth"),
        Column("input", "input"),
        Column("paper", "paper", "left", shown=False),
    )
    rows: list[tuple[Cell, ...]] = []
    headings: dict[int, str] = {}
    for group in listing.groups:
        paper = group.paper.citation if group.paper else ""
        headings[len(rows)] = f"{group.family}: {paper}" if paper else group.family
        for profile in group.profiles:
            size, counts = profile.plan.input, profile.counts
            rows.append(
                (
                    cell(profile.model),
                    cell(profile.family),
                    cell(counts.params, short(counts.params)),
                    cell(counts.macs, short(counts.macs)),
                    cell(counts.depth),
                    cell(f"{size.c}x{size.h}x{size.w}", str(size)),
                    cell(paper),
                )
            )
    return Sheet(columns, tuple(rows), headings=headings)
