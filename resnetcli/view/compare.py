"""Several nets, or the whole zoo, as a table."""

from __future__ import annotations

from resnetcli.report.compare import Comparison, label
from resnetcli.report.listing import Listing
from resnetcli.report.profile import Profile
from resnetcli.view.numbers import change, duration, rate, short, size_of
from resnetcli.view.sheet import Cell, Column, Sheet, cell


def comparison_sheet(comparison: Comparison, *, flops: bool = False) -> Sheet:
    """A row a model: counted figures with the printed ones beside them, measured ones if there are any."""
    measured = any(profile.measurements for profile in comparison.profiles)
    base = comparison.baseline
    work = "flops" if flops else "macs"
    sizes = {profile.plan.input for profile in comparison.profiles}
    several = len(sizes) > 1
    heads = {"params": "params", work: "FLOPs" if flops else "MACs", "activations": "activations"}
    columns = [Column("model", "model", "left", "bold"), Column("input", "input", shown=several)]
    for key, head in heads.items():
        columns.append(Column(head, key))
        columns.append(Column("", f"{key}_change", style="cyan", shown=base is not None, exported=base is not None))
        if key != "activations":
            columns.append(Column("printed", f"{key}_printed", style="dim", shown=_any_printed(comparison, key)))
    columns.append(Column("depth", "depth"))
    if measured:
        columns += [
            Column("median", "median_s"),
            Column("", "median_change", style="cyan", shown=base is not None, exported=base is not None),
            Column("IQR", "iqr_s"),
            Column("n", "n"),
            Column("images/s", "throughput_img_s"),
            Column("peak memory", "peak_memory_bytes"),
        ]
    rows = tuple(_line(profile, base, list(heads), measured=measured) for profile in comparison.profiles)
    return Sheet(tuple(columns), rows)


def _line(profile: Profile, base: Profile | None, keys: list[str], *, measured: bool) -> tuple[Cell, ...]:
    size = profile.plan.input
    cells = [cell(label(profile)), cell(f"{size.c}x{size.h}x{size.w}", str(size))]
    for key in keys:
        value = profile.counts.total.figure(key)
        reference = base.counts.total.figure(key) if base else 0
        cells += [cell(value, short(value)), cell(value / reference if reference else None, change(value, reference))]
        if key != "activations":
            cells.append(cell(_printed(profile, key)))
    cells.append(cell(profile.counts.depth))
    if measured:
        m = profile.measurements[0]
        reference_s = base.measurements[0].median_s if base else 0.0
        ratio = m.median_s / reference_s if reference_s else None
        memory = m.peak_memory_bytes
        cells += [
            cell(m.median_s, duration(m.median_s)),
            cell(ratio, change(m.median_s, reference_s)),
            cell(m.iqr_s, duration(m.iqr_s)),
            cell(m.n),
            cell(m.throughput_img_s, rate(m.throughput_img_s)),
            cell(memory, "-" if memory is None else size_of(memory)),
        ]
    return tuple(cells)


def _printed(profile: Profile, key: str) -> str:
    """The figures the papers print, each once."""
    return ", ".join(dict.fromkeys(e.published.printed for e in profile.judged if e.published.figure == key))


def _any_printed(comparison: Comparison, key: str) -> bool:
    return any(_printed(profile, key) for profile in comparison.profiles)


def caption(comparison: Comparison, *, flops: bool = False) -> str:
    """What the columns are."""
    sizes = {str(profile.plan.input) for profile in comparison.profiles}
    where = f", {sizes.pop()}" if len(sizes) == 1 else ""
    work = "FLOPs are 2 x MACs" if flops else "papers call MACs FLOPs"
    printed = "; printed: as the papers have it" if any(profile.judged for profile in comparison.profiles) else ""
    relative = f"; relative to {label(comparison.baseline)}" if comparison.baseline else ""
    return f"counted for one image{where}; {work}{printed}{relative}"


def listing_sheet(listing: Listing) -> Sheet:
    """A row a model of the zoo."""
    columns = (
        Column("model", "model", "left", "bold"),
        Column("family", "family", "left", "dim"),
        Column("params", "params"),
        Column("MACs", "macs"),
        Column("input", "input"),
    )
    rows = []
    for profile in listing.profiles:
        size, counts = profile.plan.input, profile.counts
        rows.append(
            (
                cell(profile.model),
                cell(profile.family),
                cell(counts.params, short(counts.params)),
                cell(counts.macs, short(counts.macs)),
                cell(f"{size.c}x{size.h}x{size.w}", str(size)),
            )
        )
    return Sheet(columns, tuple(rows))
