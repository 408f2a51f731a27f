"""The papers that nets and figures are from: `specs/papers.yaml`, where alone a paper has its name and title."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from resnetcli.errors import Problems
from resnetcli.spec.source import Map, Text, parse, read_source


@dataclass(frozen=True, slots=True)
class Paper:
    """One paper, by the key that `cite:` and `source:` call it by."""

    key: str
    """`arXiv:1512.03385`."""
    name: str
    """What people call it: `ResNet`."""
    authors: str
    """`He et al. 2015`."""
    title: str

    @property
    def citation(self) -> str:
        """In one line."""
        return f"{self.authors}, {self.title}, {self.key}"


def read_papers(path: Path) -> Mapping[str, Paper]:
    """The papers of a file, by key and in its order. Raises SpecError for what is none."""
    source = read_source(path)
    root, problems = parse(source), Problems()
    found: dict[str, Paper] = {}
    for key, node in root.pairs:
        pairs = node.pairs if isinstance(node, Map) else []
        facts = {name.value: value.value for name, value in pairs if isinstance(value, Text)}
        if facts.keys() != {"name", "authors", "title"}:
            problems.add(f"`{key.value}` needs a name, authors and a title", key.at)
            continue
        found[key.value] = Paper(key.value, **facts)
    problems.close()
    return found
