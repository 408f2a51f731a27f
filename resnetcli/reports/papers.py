"""The papers' results tables, rebuilt from what the specs state as published, with the counts beside the figures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from resnetcli.errors import UsageError, did_you_mean, plural
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, published_record
from resnetcli.reports.verdict import Judged
from resnetcli.spec.header import FIGURES
from resnetcli.spec.papers import Paper
from resnetcli.spec.spec import Published
from resnetcli.spec.summary import summarize
from resnetcli.spec.zoo import Zoo, natural
from resnetcli.table.fields import Field
from resnetcli.table.numbers import figure_name, short
from resnetcli.table.sheet import Cell, Column, Sheet, cell

MAX_NOTES = 3
"""Maximum lines below a table; `verify` reports the others."""


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A row of a published table: a model's figures, with the counted ones."""

    label: str
    """The model's name in the table."""
    profile: Profile
    entries: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A paper's table, restricted to models of the zoo."""

    paper: Paper
    table: str
    rows: tuple[PaperRow, ...]

    @property
    def name(self) -> str:
        """`ResNet Table 3`, which `papers` accepts."""
        return f"{self.paper.name} {self.table}"

    @property
    def heading(self) -> str:
        """`ResNet Table 3: He et al. 2015, ..., arXiv:1512.03385`."""
        return f"{self.name}: {self.paper.citation}"

    def facts(self, name: str) -> list[str]:
        """The distinct values of `dataset`, `protocol` or `detail`."""
        return list(dict.fromkeys(v for row in self.rows for e in row.entries if (v := getattr(e.published, name))))


def paper_tables(*words: str, zoo: Zoo | None = None) -> tuple[PaperTable, ...]:
    """The tables that match, for example `resnext table 3`, `1611.05431` or `wrn`; all without words.

    Only models of these tables are counted. Raises UsageError if no table matches.
    """
    zoo = zoo or Zoo()
    places: dict[_Key, list[tuple[int, str, int]]] = {}
    for name in zoo.files:
        for index, published in enumerate(summarize(name, zoo).published):
            if (paper := zoo.paper(published.source)) is not None:
                row = published.row or len(zoo.files) + 1  # rows without a number are last
                places.setdefault((paper.key, published.table), []).append((row, name, index))
    order = list(zoo.papers)
    keys = sorted(places, key=lambda key: (order.index(key[0]), natural(key[1])))
    if "".join(words).strip():
        keys = _select(words, keys, zoo)
    profiles = {name: profile_model(name, {}, zoo=zoo) for name in {name for key in keys for _, name, _ in places[key]}}
    return tuple(
        PaperTable(
            zoo.papers[key[0]],
            key[1],
            tuple(
                _row(profiles[name], [index for *_, index in entries])
                for (_, name), entries in groupby(sorted(places[key]), key=itemgetter(0, 1))
            ),
        )
        for key in keys
    )


_Key = tuple[str, str]
"""A paper's key and one of its tables."""


def _select(words: tuple[str, ...], keys: list[_Key], zoo: Zoo) -> list[_Key]:
    """The tables named by the words, or else those they resemble. Raises UsageError if there is none."""
    wanted = " ".join(words).lower()
    for matches in (_matches, _resembles):
        if found := [key for key in keys if matches(wanted, zoo.papers[key[0]], key[1])]:
            return found
    names = [f"{zoo.papers[key].name} {table}" for key, table in keys]
    raise UsageError(
        f"no table matches `{' '.join(words)}`", did_you_mean(wanted, names, "see `resnet-cli papers --list`")
    )


def _row(profile: Profile, entries: list[int]) -> PaperRow:
    judged = tuple(profile.judged[index] for index in entries)
    return PaperRow(judged[0].published.label or profile.spec.title, profile, judged)


def _matches(wanted: str, paper: Paper, table: str) -> bool:
    """Whether the words are the paper's name, followed by nothing, the table, or the table's number."""
    table = table.lower()
    for name in (paper.name, paper.key, paper.key.removeprefix("arXiv:"), paper.title):
        if wanted.startswith(name.lower()):
            rest = wanted[len(name) :].strip(" ,:")
            number = re.fullmatch(r"table (\S+)", table)
            if rest in ("", table) or (number and rest == number[1]):
                return True
    return False


def _resembles(wanted: str, paper: Paper, table: str) -> bool:
    """Whether every word is the beginning of a word in the paper's name, key or title, or the table's name."""
    known = re.findall(r"[a-z0-9]+", f"{paper.citation} {paper.name} {table}".lower())
    starts = re.findall(r"[a-z0-9]+", wanted)
    return bool(starts) and all(any(word.startswith(start) for word in known) for start in starts)


# --- as a table ------------------------------------------------------------------------------------------------------

Key = tuple[str, ...]
"""A column of published figures: the figure, and its conditions if the table has several."""


def paper_sheet(table: PaperTable) -> Sheet:
    """A table as published, each figure that can be counted next to the count."""
    split = [name for name in ("dataset", "protocol") if _heads_columns(table, name)]
    own_columns = [name for name in ("dataset", "protocol") if name not in split and len(table.facts(name)) > 1]

    def key(published: Published) -> Key:
        return (published.figure, *(getattr(published, name) for name in split))

    places = {name: place for place, name in enumerate(FIGURES)}
    keys = sorted({key(e.published) for row in table.rows for e in row.entries}, key=lambda k: (k[1:], places[k[0]]))
    counted = {key(e.published) for row in table.rows for e in row.entries if e.counted is not None}
    columns = [Column("name", "label", "left", "bold"), Column("model", "model", "left", spare=1)]
    columns += [Column(name, name, "left", wrap=True) for name in own_columns]
    for k in keys:
        head = ", ".join([figure_name(k[0]), *filter(None, k[1:])])
        columns.append(Column(head, "_".join(filter(None, k)), wrap=True))
        if k in counted:
            columns.append(Column(f"counted\n{head}", "_".join([*filter(None, k), "counted"]), style="dim"))
    has_details = bool(table.facts("detail")) and not _shared(table, "detail")
    columns.append(Column("detail", "detail", "left", "dim", wrap=True, spare=2, shown=has_details))

    def line(row: PaperRow) -> tuple[Cell, ...]:
        cells = [cell(row.label), cell(row.profile.model), *(cell(_facts(row, name)) for name in own_columns)]
        for k in keys:
            entries = [entry for entry in row.entries if key(entry.published) == k]
            cells.append(cell("/".join(entry.published.printed for entry in entries)))
            if k in counted:
                value = next((entry.counted for entry in entries if entry.counted is not None), None)
                cells.append(cell(value, "" if value is None else short(value)))
        return (*cells, cell(_facts(row, "detail")))

    return Sheet(tuple(columns), tuple(map(line, table.rows)))


def _heads_columns(table: PaperTable, name: str) -> bool:
    """Whether a row has figures under several of these conditions, which then are part of the columns' heads."""
    return any(len({v for e in row.entries if (v := getattr(e.published, name))}) > 1 for row in table.rows)


def _facts(row: PaperRow, name: str) -> str:
    return "; ".join(dict.fromkeys(v for entry in row.entries if (v := getattr(entry.published, name))))


def _shared(table: PaperTable, name: str) -> str:
    """The value that all rows have in common; empty if they differ."""
    values = {_facts(row, name) for row in table.rows}
    return values.pop() if len(values) == 1 else ""


def paper_notes(table: PaperTable) -> list[str]:
    """The conditions that all figures share, and why a count differs from a published figure."""
    single = [values[0] if len(values := table.facts(name)) == 1 else "" for name in ("dataset", "protocol")]
    shared = ", ".join(filter(None, (*single, _shared(table, "detail"))))
    lines = [shared] if shared else []
    differing = [(row.profile, e) for row in table.rows for e in row.entries if e.verdict == "differs"]
    if len(lines) + len(differing) > MAX_NOTES:
        models = " ".join(dict.fromkeys(profile.model for profile, _ in differing))
        number = plural(len(differing), "count differs", "counts differ")
        return [*lines, f"{number}, see `resnet-cli verify {models}`"]
    return lines + [f"{profile.model}: {_reason(entry)}" for profile, entry in differing]


def _reason(entry: Judged) -> str:
    published = entry.published
    return f"{figure_name(published.figure)} {published.printed} differs: {published.note or 'no `note:` explains it'}"


_Figure = tuple[PaperTable, PaperRow, Judged]


def _published(key: str) -> Field[_Figure]:
    return Field(key, key, lambda figure: getattr(figure[2].published, key))


FIGURE_FIELDS: tuple[Field[_Figure], ...] = (
    Field("paper", "paper", lambda figure: figure[0].paper.key),
    Field("table", "table", lambda figure: figure[0].table),
    _published("row"),
    Field("label", "label", lambda figure: figure[1].label),
    Field("model", "model", lambda figure: figure[1].profile.model),
    _published("figure"),
    Field("published", "published", lambda figure: figure[2].published.printed),
    Field("counted", "counted", lambda figure: figure[2].counted),
    Field("verdict", "verdict", lambda figure: figure[2].verdict),
    *map(_published, ("dataset", "protocol", "detail", "note")),
)


def figures_sheet(tables: tuple[PaperTable, ...]) -> Sheet:
    """All tables in one, for programs: one row per figure."""
    return Sheet.of(
        FIGURE_FIELDS, [(table, row, entry) for table in tables for row in table.rows for entry in row.entries]
    )


TABLE_FIELDS: tuple[Field[PaperTable], ...] = (
    Field("table", "table", lambda table: table.name, align="left", style="bold"),
    Field("models", "models", lambda table: len({row.profile.model for row in table.rows})),
    Field("figures", "figures", lambda table: ", ".join(
        dict.fromkeys(figure_name(entry.published.figure) for row in table.rows for entry in row.entries)
    ), align="left", wrap=True),
    Field("paper", "paper", lambda table: table.paper.citation, align="left", style="dim", wrap=True, priority=1),
)  # fmt: skip


def tables_sheet(tables: tuple[PaperTable, ...]) -> Sheet:
    """The available tables."""
    return Sheet.of(TABLE_FIELDS, tables)


def papers_record(tables: tuple[PaperTable, ...]) -> Record:
    """`resnet-cli/papers@2`."""
    return {
        "schema": "resnet-cli/papers@2",
        "tables": [
            {
                "paper": table.paper.key,
                "name": table.paper.name,
                "cite": table.paper.citation,
                "table": table.table,
                "rows": [
                    {
                        "label": row.label,
                        "model": row.profile.model,
                        "published": [published_record(entry) for entry in row.entries],
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ],
    }
