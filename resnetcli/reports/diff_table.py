"""How two nets differ, as a person reads it."""

from __future__ import annotations

from resnetcli.errors import plural
from resnetcli.reports.diff import Amounts, Diff, RowDiff, names_of
from resnetcli.table.numbers import change, exact, percent, short, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell

_HEADS = {"params": "params", "macs": "MACs", "activations": "acts", "memory_bytes": "memory"}
LEGENDS = {
    "activations": "acts: outputs of convolutions and fc",
    "memory_bytes": "memory (derived): every step's output in float32",
}
SHARE = "share: of the total difference"
LONGEST = 160
"""Characters of one change that are shown; programs get all of it."""


def diff_heading(found: Diff) -> list[str]:
    """What is compared, and what the headers say differently."""
    before, after = names_of(found)
    return [f"{before} -> {after}", *(f"  {_clipped(text)}" for text in found.header)]


def diff_sheet(found: Diff) -> Sheet:
    """A line a row that differs: what changed, what it costs more or less, and its share of the whole difference."""
    columns = [
        Column("row", "row", "left", "bold"),
        Column("in the first", "row_before", shown=False),
        Column("status", "status", shown=False),
        Column("what changed", "changes", "left", wrap=True),
    ]
    for spare, (key, head) in enumerate(_HEADS.items(), start=2):
        columns.append(Column(head, key, legend=LEGENDS.get(key, "")))
        columns.append(Column(f"share of\n{head}", f"{key}_share", style="cyan", spare=2 * spare, legend=SHARE))
    return Sheet(tuple(columns), tuple(_line(found, row) for row in found.rows), _foot(found))


def _line(found: Diff, row: RowDiff) -> tuple[Cell, ...]:
    cells = [
        cell(row.after, row.name),
        cell(row.before),
        cell(row.status),
        cell("; ".join(row.changes), "; ".join(map(_clipped, row.changes)) or "by the header alone"),
    ]
    for key in _HEADS:
        share = found.share(row, key)
        cells += [_signed(row.difference, key), cell(share and round(share, 6), _share(share))]
    return tuple(cells)


def _share(share: float | None) -> str:
    text = percent(share) if share else ""
    return "0.0%" if text == "-0.0%" else text


def _foot(found: Diff) -> tuple[Cell, ...]:
    cells = [cell("total"), cell(None), cell(None), cell(None)]
    for key in _HEADS:
        some = bool(found.difference.figure(key))
        cells += [_signed(found.difference, key), cell(1 if some else None, percent(1) if some else "")]
    return tuple(cells)


def _signed(amounts: Amounts, key: str) -> Cell:
    value = amounts.figure(key)
    text = size_of(abs(value)) if key == "memory_bytes" else short(abs(value))
    return cell(value, f"{'+' if value > 0 else '-'}{text}" if value else "=")


def totals_sheet(found: Diff) -> Sheet:
    """Exact figures of both models, and the difference."""
    before, after = names_of(found)
    names = {"params": "parameters", "macs": "MACs", "activations": "activations", "memory_bytes": "bytes of memory"}
    pairs = {name: (found.total_before.figure(key), found.total_after.figure(key)) for key, name in names.items()}
    pairs["depth"] = found.before.counts.depth, found.after.counts.depth
    pairs["peak memory (derived)"] = found.peaks
    columns = (
        Column("in total", "figure", "left", "bold"),
        Column(before, "before"),
        Column(after if after != before else f"{after} (second)", "after"),
        Column("difference", "difference"),
        Column("change", "change", style="cyan"),
    )
    rows = [(cell(name), cell(old, exact(old)), cell(new, exact(new)),
             cell(new - old, f"{new - old:+,}" if new != old else "="),
             cell(new / old if old else None, change(new, old) if new != old else ""))
            for name, (old, new) in pairs.items()]  # fmt: skip
    return Sheet(columns, tuple(rows))


def diff_notes(found: Diff) -> list[str]:
    """The number of different and of identical rows."""
    rows = plural(len(found.rows), "row differs", "rows differ")
    return [f"{rows}, {plural(found.equal, 'identical row')} omitted; counted for one image"]


def no_difference(found: Diff) -> str:
    """For two nets that are alike."""
    before, after = names_of(found)
    return f"no difference between {before} and {after}: {plural(found.equal, 'row')} written alike at the same cost"


def _clipped(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4]} ..."
