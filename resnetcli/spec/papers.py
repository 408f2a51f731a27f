"""The papers that models and figures are from: `specs/papers.yaml`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from resnetcli.errors import Problems
from resnetcli.frozen import frozen
from resnetcli.spec.source import Map, Text, parse, read_source


@frozen
class Paper:
    """One paper; `cite:` and `source:` refer to it by its key."""

    key: str
    """`arXiv:1512.03385`."""
    name: str
    """Short name: `ResNet`."""
    authors: str
    """`He et al. 2015`."""
    title: str

    @property
    def citation(self) -> str:
        """Authors, title and key on one line."""
        return f"{self.authors}, {self.title}, {self.key}"


def read_papers(path: Path) -> Mapping[str, Paper]:
    """Read the papers of a file, in its order. Raises SpecError for an invalid entry."""
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
