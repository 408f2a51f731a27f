"""The papers' tables, put together again from what the specs say was printed where."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, published_record
from resnetcli.reports.verdict import Judged
from resnetcli.spec.papers import Paper
from resnetcli.spec.read import read
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
    found: dict[_Key, list[tuple[int, str, int]]] = {}
    for name in zoo.files:
        for index, published in enumerate(read(name, zoo=zoo).published):
            if (paper := zoo.paper(published.source)) is not None:
                place = published.row or len(zoo.files) + 1  # those of no known place stand below the others
                found.setdefault((paper.key, published.table), []).append((place, name, index))
    order = list(zoo.papers)
    keys = sorted(found, key=lambda key: (order.index(key[0]), natural(key[1])))
    if "".join(words).strip():
        keys = _asked(words, keys, zoo)
    profiles = {name: profile_model(name, {}, zoo=zoo) for name in {name for key in keys for _, name, _ in found[key]}}
    return tuple(
        PaperTable(
            zoo.papers[key[0]],
            key[1],
            tuple(
                _row(profiles[name], [index for *_, index in entries])
                for (_, name), entries in groupby(sorted(found[key]), key=itemgetter(0, 1))
            ),
        )
        for key in keys
    )


_Key = tuple[str, str]
"""A paper's key and one of its tables."""


def _asked(words: tuple[str, ...], keys: list[_Key], zoo: Zoo) -> list[_Key]:
    """The tables that words name, or else those they resemble. Raises UsageError if there is none."""
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
    """Whether what was asked for names the paper, and behind it nothing, the table, or the table's number."""
    rest = table.lower()
    for name in (paper.name, paper.key, paper.key.removeprefix("arXiv:"), paper.title):
        if wanted.startswith(name.lower()):
            behind = wanted[len(name) :].strip(" ,:")
            number = re.fullmatch(r"table (\S+)", rest)
            if behind in ("", rest) or (number and behind == number[1]):
                return True
    return False


def _resembles(wanted: str, paper: Paper, table: str) -> bool:
    """Whether every word that was asked for begins a word of the paper's name, key or title, or of the table's."""
    words = re.findall(r"[a-z0-9]+", f"{paper.citation} {paper.name} {table}".lower())
    asked = re.findall(r"[a-z0-9]+", wanted)
    return bool(asked) and all(any(word.startswith(start) for word in words) for start in asked)


def papers_record(tables: tuple[PaperTable, ...]) -> Record:
    """`resnet-cli/papers@1`."""
    return {
        "schema": "resnet-cli/papers@1",
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
