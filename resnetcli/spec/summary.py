"""Summary of a spec's file without its table, for commands that list many models."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from resnetcli.errors import Problems, SpecError
from resnetcli.frozen import frozen
from resnetcli.ops import Shape
from resnetcli.spec.header import Header
from resnetcli.spec.lineage import Document, lineage, open_document
from resnetcli.spec.source import Node, Text
from resnetcli.spec.spec import Expect, Published
from resnetcli.spec.zoo import Zoo

T = TypeVar("T")


@frozen
class Summary:
    """Facts from a file, and its input, which may be inherited."""

    name: str
    cite: str
    input: Shape | None
    published: tuple[Published, ...]
    expect: Expect | None


def summarize(name: str, zoo: Zoo) -> Summary:
    """The summary of a model of the zoo. Raises SpecError for an invalid header; `read` finds every problem."""
    problems = Problems()
    documents = lineage(open_document(name, zoo), zoo, problems)
    problems.close()
    header, own = Header(problems), documents[:1]
    none: tuple[Published, ...] = ()
    summary = Summary(
        name,
        _first(own, "cite", header.text, ""),
        _first(documents, "input", header.input, None),
        _first(own, "published", header.published, none),
        _first(own, "expect", header.expect, None),
    )
    problems.close()
    return summary


def parents(zoo: Zoo) -> dict[str, str]:
    """Each model of the zoo that `extends:` another -> the model it names. Invalid files are left out."""
    parent_of = {}
    for name, path in zoo.files.items():
        try:
            parent = zoo.parsed(path)[1].get("extends")
        except SpecError:
            continue
        if isinstance(parent, Text):
            parent_of[name] = parent.value
    return parent_of


def _first(documents: list[Document], key: str, read: Callable[[Text, Node], T], default: T) -> T:
    for document in documents:
        for name, node in document.root.pairs:
            if name.value == key:
                return read(name, node)
    return default
