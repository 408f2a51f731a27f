"""A spec and those it extends -> one set of sections: the nearest file's word counts."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from resnetcli.errors import Problems, Source, UsageError, did_you_mean
from resnetcli.spec.reference import SUFFIXES, is_path
from resnetcli.spec.source import Map, Node, Text, parse
from resnetcli.spec.zoo import Zoo

KEYS = (
    "name", "cite", "about", "deviations", "input", "classes", "conv", "residual", "shortcut", "let", "blocks",
    "extends", "aux", "table", "published", "expect",
)  # fmt: skip
NOT_INHERITED = ("name", "cite", "about", "deviations", "published", "expect", "extends")
BY_NAME = ("let", "blocks", "table")
MAX_EXTENDS = 16
MAX_ENTRIES = 512
"""Of a table, of `let:`, of `blocks:`."""

ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
TAKEN = {"total": "it names the last line of a table", "aux": "it names the auxiliary heads"}
"""Names that no stage can have, and why. Those of a module's attributes are allowed: `net.module` renames them."""

Entry = tuple[Text, Node]
"""A key with its value."""


@dataclass(frozen=True, slots=True)
class Document:
    """One file of a lineage, by the name it was asked for."""

    name: str
    source: Source
    root: Map


@dataclass
class Merged:
    """What a lineage comes to."""

    keys: dict[str, Entry] = field(default_factory=dict)
    let: dict[str, Entry] = field(default_factory=dict)
    blocks: dict[str, Entry] = field(default_factory=dict)
    table: dict[str, Entry] = field(default_factory=dict)
    aux: dict[str, Entry] = field(default_factory=dict)


def open_document(reference: str | Source, zoo: Zoo) -> Document:
    """A spec's file by its name in the zoo or its path, or a text.

    Raises UsageError or SpecError if it cannot be read.
    """
    if isinstance(reference, Source):
        return Document(Path(reference.path or reference.label).stem, reference, parse(reference))
    path = zoo.find(reference)
    return _document(path, reference if is_path(reference) else _label(path, zoo), zoo)


def _document(path: Path, label: str | None, zoo: Zoo) -> Document:
    return Document(path.stem, *zoo.parsed(path, label))


def lineage(document: Document, zoo: Zoo, problems: Problems) -> list[Document]:
    """The file and those it extends, nearest first."""
    found = [document]
    seen = {_identity(document.source)}
    while (node := found[-1].root.get("extends")) is not None:
        source = found[-1].source
        if not isinstance(node, Text) or not node.value:
            problems.add("`extends` names one spec", node.at, "a name in the zoo, or a path to a YAML file")
            break
        if is_path(node.value) and not node.value.endswith(SUFFIXES):
            problems.add("`extends` names a spec", node.at, "a name in the zoo, or a file that ends in .yaml")
            break
        base = Path(source.path).parent if source.path else None
        try:
            path = zoo.find(node.value, base)
            parent = _document(path, None if is_path(node.value) else _label(path, zoo), zoo)
        except UsageError as error:
            problems.add(error.message, node.at, error.hint)
            break
        if _identity(parent.source) in seen:
            chain = " -> ".join([*(known.name for known in found), path.stem])
            problems.add(f"`extends` goes in a circle: {chain}", node.at)
            break
        seen.add(_identity(parent.source))
        found.append(parent)
        if len(found) > MAX_EXTENDS:
            problems.add(f"`extends` goes more than {MAX_EXTENDS} deep", node.at)
            break
    return found


def merge(lineage: list[Document], problems: Problems) -> Merged:
    """Rows, `let` entries and blocks are replaced by name, every other key as a whole."""
    merged = Merged()
    for depth, document in enumerate(reversed(lineage)):
        for key, node in sorted(document.root.pairs, key=lambda pair: pair[0].value == "aux"):  # after the rows
            if key.value not in KEYS:
                problems.add(
                    f"unknown key `{key.value}`",
                    key.at,
                    did_you_mean(key.value, KEYS, f"the keys are {' '.join(KEYS)}"),
                )
            elif key.value in BY_NAME:
                _by_name(merged, key, node, problems, child=depth > 0)
            elif key.value == "aux":
                none = isinstance(node, Map) and not node.pairs  # `aux: {}` drops what was inherited
                merged.aux = {} if none else dict(entries(key, node, problems))
            elif key.value not in NOT_INHERITED or document is lineage[0]:
                merged.keys[key.value] = key, node
    return merged


def entries(key: Text, node: Node, problems: Problems) -> list[tuple[str, Entry]]:
    """A section's entries by name; none, and a problem noted, if it is no mapping."""
    if not isinstance(node, Map) or not node.pairs:
        what = "an empty value" if isinstance(node, Text) and not node.value else f"`{key.value}` is a mapping"
        problems.add(what, node.at if not isinstance(node, Text) or node.value else key.at,
                          f"`{key.value}:` holds `name: value` entries")  # fmt: skip
        return []
    if len(node.pairs) > MAX_ENTRIES:
        problems.add(f"`{key.value}` has {len(node.pairs):,} entries, at most {MAX_ENTRIES} are read", key.at)
    return [(name.value, (name, value)) for name, value in node.pairs[:MAX_ENTRIES]]


def _by_name(merged: Merged, key: Text, node: Node, problems: Problems, *, child: bool) -> None:
    into = {"let": merged.let, "blocks": merged.blocks, "table": merged.table}[key.value]
    if key.value == "let":
        merged.let = _let_into(into, entries(key, node, problems))
        return
    for name, (at, value) in entries(key, node, problems):
        if key.value == "blocks":
            name = name.split()[0] if name.split() else ""
        if key.value == "table":
            if not _row_name(at, problems):
                continue
            if child and name not in into:
                problems.add(
                    f"row `{name}` is not in the spec this one extends", at.at,
                    did_you_mean(name, into, f"its rows are {' '.join(into)}; a child adds none"),
                )  # fmt: skip
                continue
            if isinstance(value, Text) and value.value == "null" and value.plain:
                if not child:
                    problems.add("nothing to drop: `null` drops an inherited row", value.at)
                into.pop(name, None)
                merged.aux.pop(name, None)
                continue
        into[name] = at, value


def _row_name(name: Text, problems: Problems) -> bool:
    if not ROW.fullmatch(name.value) or len(name.value) > 60:
        problems.add(
            f"`{name.value}` cannot name a row", name.at, "a letter or digit, then letters, digits and _: `conv2_x`"
        )
        return False
    if name.value in TAKEN:
        problems.add(f"`{name.value}` cannot name a row: {TAKEN[name.value]}", name.at, f"for example `{name.value}_`")
        return False
    return True


def _let_into(inherited: dict[str, Entry], own: list[tuple[str, Entry]]) -> dict[str, Entry]:
    """A child's entries among those it inherits: a replaced one keeps its place, a new one stands above the next."""
    merged: dict[str, Entry] = {}
    waiting: dict[str, Entry] = {}
    before: dict[str, dict[str, Entry]] = {}
    for name, entry in own:
        if name in inherited:
            before[name], waiting = waiting, {}
        else:
            waiting[name] = entry
    replaced = dict(own)
    for name, entry in inherited.items():
        merged |= before.get(name, {}) | {name: replaced.get(name, entry)}
    return merged | waiting


def _identity(source: Source) -> str:
    return str(Path(source.path).resolve()) if source.path else source.label


def _label(path: Path, zoo: Zoo) -> str:
    return f"specs/{path.relative_to(zoo.root)}"
