"""The papers' tables, put together again from what the specs say was printed where."""

from __future__ import annotations

import re
from dataclasses import dataclass

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.report.profile import Profile, profile_model
from resnetcli.report.verdict import Judged
from resnetcli.spec.papers import Paper
from resnetcli.spec.zoo import Zoo, natural


@dataclass(frozen=True, slots=True)
class PaperRow:
    """A printed line: one net's figures, each with the count beside it where there is one."""

    label: str
    """What the table calls the net."""
    profile: Profile
    entries: tuple[Judged, ...]


@dataclass(frozen=True, slots=True)
class PaperTable:
    """A paper's table, as far as its nets are in the zoo."""

    paper: Paper
    table: str
    rows: tuple[PaperRow, ...]

    @property
    def name(self) -> str:
        """`ResNet Table 3`, which is what one asks for."""
        return f"{self.paper.name} {self.table}"


def paper_tables(*words: str, zoo: Zoo | None = None) -> tuple[PaperTable, ...]:
    """The tables that match, for example `resnext table 3`, `1611.05431` or `wrn`; all without a word.

    Raises UsageError if none does.
    """
    zoo = zoo or Zoo()
    lines: dict[tuple[str, str], dict[tuple[int, str], list[tuple[Profile, Judged]]]] = {}
    for name in zoo.files:
        profile = profile_model(name, {}, zoo=zoo)
        for entry in profile.judged:
            published = entry.published
            paper = zoo.paper(published.source)
            if paper is None:
                continue
            rows = lines.setdefault((paper.key, published.table), {})
            place = published.row or len(zoo.files) + 1  # those of no known place stand below the others
            rows.setdefault((place, name), []).append((profile, entry))
    order = list(zoo.papers)
    tables = [
        PaperTable(zoo.papers[key], table, tuple(_row(found) for _, found in sorted(rows.items())))
        for (key, table), rows in sorted(lines.items(), key=lambda t: (order.index(t[0][0]), natural(t[0][1])))
    ]
    wanted = " ".join(words).lower()
    if not wanted:
        return tuple(tables)
    found = [table for table in tables if _matches(wanted, table)]
    found = found or [table for table in tables if _resembles(wanted, table)]
    if not found:
        names = [table.name for table in tables]
        raise UsageError(
            f"no table matches `{' '.join(words)}`", did_you_mean(wanted, names, "see `resnet-cli papers --list`")
        )
    return tuple(found)


def _row(found: list[tuple[Profile, Judged]]) -> PaperRow:
    profile, entry = found[0]
    return PaperRow(entry.published.label or profile.spec.title, profile, tuple(entry for _, entry in found))


def _matches(wanted: str, table: PaperTable) -> bool:
    """Whether what was asked for names the paper, and behind it nothing, the table, or the table's number."""
    paper, rest = table.paper, table.table.lower()
    for name in (paper.name, paper.key, paper.key.removeprefix("arXiv:"), paper.title):
        if wanted.startswith(name.lower()):
            behind = wanted[len(name) :].strip(" ,:")
            number = re.fullmatch(r"table (\S+)", rest)
            if behind in ("", rest) or (number and behind == number[1]):
                return True
    return False


def _resembles(wanted: str, table: PaperTable) -> bool:
    """Whether every word that was asked for begins a word of the paper's name, key or title, or of the table's."""
    words = re.findall(r"[a-z0-9]+", f"{table.paper.citation} {table.name}".lower())
    asked = re.findall(r"[a-z0-9]+", wanted)
    return bool(asked) and all(any(word.startswith(start) for word in words) for start in asked)
