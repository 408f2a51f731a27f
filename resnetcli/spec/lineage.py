"""Merge a spec with those it extends; the nearest file takes precedence."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from resnetcli.errors import Problems, Source, UsageError, did_you_mean
from resnetcli.frozen import frozen
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
"""Entries of a table, of `let:`, of `blocks:`."""

ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
TAKEN = {"total": "it is the last line of a table", "aux": "it is the name of auxiliary heads"}
"""Names that a stage cannot have, and why. A module's attribute names are allowed: `net.module` renames them."""

Entry = tuple[Text, Node]
"""A key with its value."""


@frozen
class Document:
    """One file, by the name that refers to it."""

    name: str
    source: Source
    root: Map


@dataclass
class Merged:
    """A spec merged with those it extends."""

    keys: dict[str, Entry] = field(default_factory=dict)
    let: dict[str, Entry] = field(default_factory=dict)
    blocks: dict[str, Entry] = field(default_factory=dict)
    table: dict[str, Entry] = field(default_factory=dict)
    aux: dict[str, Entry] = field(default_factory=dict)


def open_document(reference: str | Source, zoo: Zoo) -> Document:
    """Open a spec: a name in the zoo, a path, or a text.

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
            problems.add("`extends` takes one spec", node.at, "a name in the zoo, or a path to a YAML file")
            break
        if is_path(node.value) and not node.value.endswith(SUFFIXES):
            problems.add("`extends` takes a spec", node.at, "a name in the zoo, or a file that ends in .yaml")
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
            problems.add(f"`extends` is circular: {chain}", node.at)
            break
        seen.add(_identity(parent.source))
        found.append(parent)
        if len(found) > MAX_EXTENDS:
            problems.add(f"`extends` is nested more than {MAX_EXTENDS} deep", node.at)
            break
    return found


def merge(lineage: list[Document], problems: Problems) -> Merged:
    """Merge files, nearest first: stages, `let` entries and blocks by name, every other key as a whole."""
    merged = Merged()
    for depth, document in enumerate(reversed(lineage)):
        for key, node in sorted(document.root.pairs, key=lambda pair: pair[0].value == "aux"):  # after the table
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
    """A section's entries by name; if it is not a mapping, add a problem."""
    if not isinstance(node, Map) or not node.pairs:
        what = "an empty value" if isinstance(node, Text) and not node.value else f"`{key.value}` must be a mapping"
        problems.add(what, node.at if not isinstance(node, Text) or node.value else key.at,
                          f"`{key.value}:` takes `name: value` entries")  # fmt: skip
        return []
    if len(node.pairs) > MAX_ENTRIES:
        problems.add(f"`{key.value}` has {len(node.pairs):,} entries; at most {MAX_ENTRIES} are allowed", key.at)
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
            if not _is_stage_name(at, problems):
                continue
            if child and name not in into:
                problems.add(
                    f"stage `{name}` is not in the extended spec", at.at,
                    did_you_mean(name, into, f"its stages are {' '.join(into)}; stages cannot be added"),
                )  # fmt: skip
                continue
            if isinstance(value, Text) and value.value == "null" and value.plain:
                if not child:
                    problems.add("nothing to drop: `null` drops an inherited stage", value.at)
                into.pop(name, None)
                merged.aux.pop(name, None)
                continue
        into[name] = at, value


def _is_stage_name(name: Text, problems: Problems) -> bool:
    if not ROW.fullmatch(name.value) or len(name.value) > 60:
        problems.add(f"`{name.value}` cannot be a stage name", name.at, "use letters, digits and _, as in `conv2_x`")
        return False
    if name.value in TAKEN:
        problems.add(
            f"`{name.value}` cannot be a stage name: {TAKEN[name.value]}", name.at, f"for example `{name.value}_`"
        )
        return False
    return True


def _let_into(inherited: dict[str, Entry], own: list[tuple[str, Entry]]) -> dict[str, Entry]:
    """Merge `let` entries: a replaced one keeps its place, a new one goes before the next replaced one."""
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
