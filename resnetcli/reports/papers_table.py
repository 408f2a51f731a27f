"""Printed figures beside the counts: a paper's table, and the verdict on every figure."""

from __future__ import annotations

from resnetcli.errors import plural
from resnetcli.reports.papers import PaperRow, PaperTable
from resnetcli.reports.profile import Profile
from resnetcli.reports.verdict import Judged
from resnetcli.reports.verify import Verification
from resnetcli.spec.header import FIGURES
from resnetcli.spec.spec import Published
from resnetcli.table.numbers import figure_name, short
from resnetcli.table.sheet import Cell, Column, Sheet, cell

Key = tuple[str, ...]
"""A column of printed figures: which figure, and under which conditions where the table has several."""

MOST_NOTES = 3
"""Maximum lines below a table; `verify` reports the others."""


def paper_sheet(table: PaperTable) -> Sheet:
    """A paper's table as printed, each figure that can be counted with the count beside it."""
    split = [name for name in ("dataset", "protocol") if _in_columns(table, name)]
    told = [name for name in ("dataset", "protocol") if name not in split and len(_values(table, name)) > 1]

    def key(published: Published) -> Key:
        return (published.figure, *(getattr(published, name) for name in split))

    places = {name: place for place, name in enumerate(FIGURES)}
    found = {key(entry.published) for row in table.rows for entry in row.entries}
    keys = sorted(found, key=lambda k: (k[1:], places[k[0]]))
    counted = {key(e.published) for row in table.rows for e in row.entries if e.counted is not None}
    columns = [Column("net", "label", "left", "bold"), Column("model", "model", "left", spare=1)]
    columns += [Column(name, name, "left", wrap=True) for name in told]
    for k in keys:
        head = ", ".join([figure_name(k[0]), *filter(None, k[1:])])
        columns.append(Column(head, "_".join(filter(None, k)), wrap=True))
        if k in counted:
            columns.append(Column(f"counted\n{', '.join([figure_name(k[0]), *filter(None, k[1:])])}",
                                  "_".join([*filter(None, k), "counted"]), style="dim"))  # fmt: skip
    detailed = bool(_values(table, "detail")) and not _shared(table, "detail")
    columns.append(Column("detail", "detail", "left", "dim", wrap=True, spare=2, shown=detailed))

    def line(row: PaperRow) -> tuple[Cell, ...]:
        cells = [
            cell(row.label),
            cell(row.profile.model),
            *(cell(_told(row, name)) for name in told),
        ]
        for k in keys:
            found = [entry for entry in row.entries if key(entry.published) == k]
            cells.append(cell("/".join(entry.published.printed for entry in found)))
            if k in counted:
                counts = dict.fromkeys(entry.counted for entry in found if entry.counted is not None)
                value = next(iter(counts), None)
                cells.append(cell(value, "" if value is None else short(value)))
        return (*cells, cell(_told(row, "detail")))

    return Sheet(tuple(columns), tuple(map(line, table.rows)))


def figures_sheet(tables: tuple[PaperTable, ...]) -> Sheet:
    """All tables in one, for programs: a line a figure."""
    keys = ("paper", "table", "row", "label", "model", "figure", "printed", "counted", "verdict", "dataset", "protocol",
            "detail", "note")  # fmt: skip
    rows = []
    for table in tables:
        for row in table.rows:
            for entry in row.entries:
                printed = entry.published
                rows.append(tuple(map(cell, (
                    table.paper.key, table.table, printed.row, row.label, row.profile.model, printed.figure,
                    printed.printed, entry.counted, entry.verdict, printed.dataset, printed.protocol, printed.detail,
                    printed.note,
                ))))  # fmt: skip
    return Sheet(tuple(Column(key, key) for key in keys), tuple(rows))


def _values(table: PaperTable, name: str) -> list[str]:
    return list(dict.fromkeys(v for row in table.rows for e in row.entries if (v := getattr(e.published, name))))


def _in_columns(table: PaperTable, name: str) -> bool:
    """Whether a printed line has figures under several of these conditions, which then head columns."""
    return any(len({v for e in row.entries if (v := getattr(e.published, name))}) > 1 for row in table.rows)


def _shared(table: PaperTable, name: str) -> str:
    """What all rows say alike."""
    told = {_told(row, name) for row in table.rows}
    return told.pop() if len(told) == 1 else ""


def _told(row: PaperRow, name: str) -> str:
    return "; ".join(dict.fromkeys(v for entry in row.entries if (v := getattr(entry.published, name))))


def paper_heading(table: PaperTable) -> str:
    """`ResNet Table 3: He et al. 2015, ..., arXiv:1512.03385`."""
    return f"{table.name}: {table.paper.citation}"


def paper_notes(table: PaperTable) -> list[str]:
    """The conditions that all figures share, and why a count is not what is printed."""
    alone = [values[0] if len(values := _values(table, name)) == 1 else "" for name in ("dataset", "protocol")]
    shared = ", ".join(filter(None, (*alone, _shared(table, "detail"))))
    lines = [shared] if shared else []
    differing = [(row.profile, e) for row in table.rows for e in row.entries if e.verdict == "differs"]
    if len(lines) + len(differing) > MOST_NOTES:
        models = dict.fromkeys(profile.model for profile, _ in differing)
        return [*lines, f"{plural(len(differing), 'count differs', 'counts differ')}, see `resnet-cli verify "
                f"{' '.join(models)}`"]  # fmt: skip
    return lines + [f"{profile.model}: {_reason(entry)}" for profile, entry in differing]


def _reason(entry: Judged) -> str:
    published = entry.published
    return f"{figure_name(published.figure)} {published.printed} differs: {published.note or 'no note says why'}"


def tables_sheet(tables: tuple[PaperTable, ...]) -> Sheet:
    """What tables there are."""
    columns = (
        Column("table", "table", "left", "bold"),
        Column("nets", "nets"),
        Column("figures", "figures", "left", wrap=True),
        Column("paper", "paper", "left", "dim", wrap=True, spare=1),
    )
    rows = []
    for table in tables:
        figures = dict.fromkeys(figure_name(entry.published.figure) for row in table.rows for entry in row.entries)
        nets = len({row.profile.model for row in table.rows})
        rows.append((cell(table.name), cell(nets), cell(", ".join(figures)), cell(table.paper.citation)))
    return Sheet(columns, tuple(rows))


def verification_sheet(found: Verification) -> Sheet:
    """A line for each printed figure that can be counted."""
    columns = (
        Column("model", "model", "left", "bold"),
        Column("figure", "figure", "left"),
        Column("printed", "printed"),
        Column("counted", "counted"),
        Column("verdict", "verdict", "left"),
        Column("source", "source", "left", "dim", spare=1),
        Column("note", "note", "left", wrap=True),
    )
    rows = [_verified(net.profile, entry) for net in found.nets for entry in net.judged]
    return Sheet(columns, tuple(rows))


def _verified(profile: Profile, entry: Judged) -> tuple[Cell, ...]:
    published = entry.published
    assert entry.counted is not None  # only such are verified
    return (
        cell(profile.model),
        cell(published.figure, figure_name(published.figure)),
        cell(published.printed),
        cell(entry.counted, short(entry.counted)),
        cell(entry.verdict),
        cell(f"{published.source} {published.table}", f"{published.source.removeprefix('arXiv:')} {published.table}"),
        cell(published.note),
    )


def verification_lines(found: Verification) -> list[str]:
    """The sum of it: how many figures agree, how many do not and why, and what fails."""
    verdicts = [entry.verdict for entry in found.figures]
    figures = "no printed figure" if not verdicts else plural(len(verdicts), "printed figure")
    said = [f"{verdicts.count(verdict)} {verdict[:-1]}" for verdict in ("rounds", "truncates", "differs")]
    expected = sum(net.profile.spec.expect is not None for net in found.nets)
    reasons = "what differs has its note" if "differs" in verdicts else "none differs"
    return [
        f"{figures} of {plural(len(found.nets), 'net')}: {', '.join(said)}; "
        f"{plural(expected, 'net')} held to exact counts (`expect:`)",
        plural(len(found.faults), "fault") if found.faults else f"no fault: {reasons}",
    ]
