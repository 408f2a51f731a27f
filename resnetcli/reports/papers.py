"""The papers' results tables, rebuilt from what the specs state as published, with the counts beside the figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from itertools import groupby
from operator import itemgetter

from resnetcli.errors import UsageError, did_you_mean, plural
from resnetcli.frozen import frozen
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
from resnetcli.table.sheet import Sheet, Value

MAX_NOTES = 3
"""Maximum lines below a table; `verify` reports the others."""


@frozen
class PaperRow:
    """A row of a published table: a model's figures, with the counted ones."""

    label: str
    """The model's name in the table."""
    profile: Profile
    entries: tuple[Judged, ...]


@frozen
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


@frozen
class ListedTable:
    """A paper's table, before its models are counted."""

    paper: Paper
    table: str
    entries: tuple[tuple[int, str, int, str], ...]
    """Row, model, index among the model's published figures, and figure; in the order of the table."""

    @property
    def name(self) -> str:
        """`ResNet Table 3`, which `papers` accepts."""
        return f"{self.paper.name} {self.table}"


def list_paper_tables(*words: str, zoo: Zoo | None = None) -> tuple[ListedTable, ...]:
    """The tables that match, as for `paper_tables`; nothing is counted. Raises UsageError if no table matches."""
    zoo = zoo or Zoo()
    places: dict[_Key, list[tuple[int, str, int, str]]] = {}
    for name in zoo.files:
        for index, published in enumerate(summarize(name, zoo).published):
            if (paper := zoo.paper(published.source)) is not None:
                row = published.row or len(zoo.files) + 1  # rows without a number are last
                places.setdefault((paper.key, published.table), []).append((row, name, index, published.figure))
    order = list(zoo.papers)
    keys = sorted(places, key=lambda key: (order.index(key[0]), natural(key[1])))
    if "".join(words).strip():
        keys = _select(words, keys, zoo)
    return tuple(ListedTable(zoo.papers[key[0]], key[1], tuple(sorted(places[key]))) for key in keys)


def paper_tables(*words: str, zoo: Zoo | None = None) -> tuple[PaperTable, ...]:
    """The tables that match, for example `resnext table 3`, `1611.05431` or `wrn`; all without words.

    Only models of these tables are counted. Raises UsageError if no table matches.
    """
    zoo = zoo or Zoo()
    listed = list_paper_tables(*words, zoo=zoo)
    names = {name for each in listed for _, name, *_ in each.entries}
    profiles = {name: profile_model(name, {}, zoo=zoo) for name in names}
    return tuple(
        PaperTable(
            each.paper,
            each.table,
            tuple(
                _row(profiles[name], [index for _, _, index, _ in entries])
                for (_, name), entries in groupby(each.entries, key=itemgetter(0, 1))
            ),
        )
        for each in listed
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

    def printed(row: PaperRow, k: Key) -> str:
        return "/".join(entry.published.printed for entry in row.entries if key(entry.published) == k)

    def count(row: PaperRow, k: Key) -> int | None:
        return next((e.counted for e in row.entries if key(e.published) == k and e.counted is not None), None)

    fields: list[Field[PaperRow]] = [
        Field("label", "name", align="left", style="bold", help=_MEANINGS["label"]),
        Field("model", "model", lambda row: row.profile.model, align="left", priority=1, help=_MEANINGS["model"]),
        *(Field(name, name, partial(_facts, name=name), align="left", wrap=True, help=_MEANINGS[name])
          for name in own_columns),
    ]  # fmt: skip
    for k in keys:
        words = list(filter(None, k))
        head = ", ".join([figure_name(k[0]), *words[1:]])
        fields.append(Field("_".join(words), head, partial(printed, k=k), wrap=True, help=_MEANINGS["published"]))
        if k in counted:
            fields.append(Field("_".join([*words, "counted"]), f"counted\n{head}", partial(count, k=k), short,
                                style="dim", help=_MEANINGS["counted"]))  # fmt: skip
    has_details = bool(table.facts("detail")) and not _shared(table, "detail")
    fields.append(Field("detail", "detail", partial(_facts, name="detail"), align="left", style="dim", wrap=True,
                        priority=2, shown=has_details, help=_MEANINGS["detail"]))  # fmt: skip
    return Sheet.of(fields, table.rows)


_MEANINGS = {
    "paper": "key of the paper",
    "table": "table or figure of the paper",
    "row": "row of the table, counted from the top",
    "label": "name of the model in the table",
    "model": "name of the model in the zoo",
    "figure": "published quantity",
    "published": "value as printed in the paper",
    "counted": "computed from the spec",
    "verdict": "whether the count rounds or truncates to the published value, or differs",
    "dataset": "dataset of the published value",
    "protocol": "evaluation protocol of the published value",
    "detail": "other conditions of the published value",
    "note": "why the count differs",
}
"""Column -> its meaning."""


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


def _column(key: str, value: Callable[[_Figure], Value] | None = None) -> Field[_Figure]:
    """The column of a value, by default of the published figure's attribute."""
    return Field(key, key, value or (lambda figure: getattr(figure[2].published, key)), help=_MEANINGS[key])


FIGURE_FIELDS: tuple[Field[_Figure], ...] = (
    _column("paper", lambda figure: figure[0].paper.key),
    _column("table", lambda figure: figure[0].table),
    _column("row"),
    _column("label", lambda figure: figure[1].label),
    _column("model", lambda figure: figure[1].profile.model),
    _column("figure"),
    _column("published", lambda figure: figure[2].published.printed),
    _column("counted", lambda figure: figure[2].counted),
    _column("verdict", lambda figure: figure[2].verdict),
    *map(_column, ("dataset", "protocol", "detail", "note")),
)


def figures_sheet(tables: tuple[PaperTable, ...]) -> Sheet:
    """All tables in one, for programs: one row per figure."""
    return Sheet.of(
        FIGURE_FIELDS, [(table, row, entry) for table in tables for row in table.rows for entry in row.entries]
    )


TABLE_FIELDS: tuple[Field[ListedTable], ...] = (
    Field("table", "table", lambda table: table.name, align="left", style="bold", help="name, as `papers` takes it"),
    Field("models", "models", lambda table: len({model for _, model, *_ in table.entries}),
          help="models of the zoo in the table"),
    Field("figures", "figures", lambda table: ", ".join(
        dict.fromkeys(figure_name(figure) for *_, figure in table.entries)
    ), align="left", wrap=True, help="published quantities"),
    Field("paper", "paper", lambda table: table.paper.citation, align="left", style="dim", wrap=True, priority=1,
          help="citation of the paper"),
)  # fmt: skip


def tables_sheet(tables: tuple[ListedTable, ...]) -> Sheet:
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
