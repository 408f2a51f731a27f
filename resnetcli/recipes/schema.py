"""Dataclasses from YAML by their annotations: types, ranges, and a problem at the place of every wrong value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields, is_dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from resnetcli.errors import Problems, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.spec.header import Header
from resnetcli.spec.numbers import decimal
from resnetcli.spec.source import Map, Node, Seq, Text


@frozen
class Range:
    """Allowed numbers; `above` excludes `low`, `below` excludes `high`."""

    low: float
    high: float
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high and not (
            (self.above and value == self.low) or (self.below and value == self.high)
        )

    def __str__(self) -> str:
        """`from 0 and below 1`."""
        low, high = (f"{limit:,.12g}" for limit in (self.low, self.high))
        return f"{'above' if self.above else 'from'} {low} {'and below' if self.below else 'to'} {high}"


@frozen
class Written:
    """How a value is written: the word for None, an example for hints, the maximum length of a list."""

    none: str = ""
    example: str = ""
    length: int = 0


class _Invalid(Exception):  # noqa: N818 - the problem has been added already
    pass


Reader = Callable[[Text, Node, Problems], Any]


def read_fields(
    cls: type, node: Map, problems: Problems, names: Iterable[str] = (), special: Mapping[str, Reader] | None = None
) -> dict[str, Any]:
    """The values of a dataclass's fields from a mapping: of all, or of those in `names`; `special` reads others.

    Adds a problem for every unknown key and every invalid value, and leaves these out.
    """
    special = special or {}
    hints = get_type_hints(cls, include_extras=True)
    known = [name for name in hints if not names or name in names] + list(special)
    values = {}
    for key, value in node.pairs:
        if key.value not in known:
            hint = did_you_mean(key.value, known, f"the keys are {', '.join(known)}")
            problems.add(f"unknown key `{key.value}`", key.at, hint)
            continue
        with suppress(_Invalid):
            if key.value in special:
                values[key.value] = special[key.value](key, value, problems)
            else:
                values[key.value] = _read(hints[key.value], key, value, problems)
    return values


def _read(hint: Any, key: Text, node: Node, problems: Problems) -> Any:
    """A value by the annotation of its field: `Annotated[KIND, Range(...), Written(...)]`."""
    kind, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    allowed = next((rule for rule in rules if isinstance(rule, Range)), Range(0, 0))
    written = next((rule for rule in rules if isinstance(rule, Written)), Written())
    kind = next((option for option in get_args(kind) if option is not type(None)), kind) if _optional(kind) else kind
    text = node.value if isinstance(node, Text) else ""

    def refuse(message: str, hint: str = "") -> _Invalid:
        problems.add(f"`{key.value}` must be {message}", node.at, hint)
        return _Invalid()

    if written.none and text == written.none:
        return None
    if kind is str:
        return Header(problems).text(key, node)
    if kind is bool:
        if text not in ("yes", "no", "true", "false"):
            raise refuse("`yes` or `no`")
        return text in ("yes", "true")
    if kind is int:
        if not re.fullmatch("[0-9]{1,12}", text) or int(text) not in allowed:
            raise refuse(f"a whole number {allowed}{f', or `{written.none}`' if written.none else ''}")
        return int(text)
    if kind is float:
        number = decimal(text)
        if number is None or number not in allowed:
            raise refuse(f"a number {allowed}", "for example 0.1 or 1e-4")
        return number
    if get_origin(kind) is Literal:
        words = get_args(kind)
        if text not in words:
            raise refuse(" or ".join(f"`{word}`" for word in words), did_you_mean(text, words))
        return text
    if get_origin(kind) is tuple:
        numbers = _rising(node)
        if numbers is None or len(numbers) > written.length or not all(number in allowed for number in numbers):
            raise refuse("a list of rising numbers", f"for example `{key.value}: {written.example}`")
        return numbers
    assert is_dataclass(kind)
    return _mapping(kind, key, node, problems, f"for example `{key.value}: {written.example}`")


def _optional(kind: Any) -> bool:
    return type(None) in get_args(kind)


def _rising(node: Node) -> tuple[float, ...] | None:
    items = node.items if isinstance(node, Seq) else [node]
    numbers = [decimal(item.value) if isinstance(item, Text) else None for item in items]
    known = tuple(number for number in numbers if number is not None)
    is_rising = isinstance(node, Seq) and len(known) == len(numbers) and all(a < b for a, b in pairwise(known))
    return known if is_rising else None


def _mapping(cls: Any, key: Text, node: Node, problems: Problems, example: str) -> Any:
    """A dataclass; its `problems` method, if it has one, yields key, message and hint of each invalid combination."""
    if not isinstance(node, Map):
        problems.add(f"`{key.value}` must be a mapping", node.at, example)
        raise _Invalid
    before = len(problems.found)
    values = read_fields(cls, node, problems)
    keys = {name.value: name for name, _ in node.pairs}
    for field in fields(cls):
        if field.name not in keys and field.default is MISSING:
            problems.add(f"`{key.value}` needs `{field.name}`", key.at, example)
    if len(problems.found) > before:
        raise _Invalid
    value = cls(**values)
    for name, message, hint in value.problems(keys) if hasattr(cls, "problems") else ():
        problems.add(message, keys.get(name, key).at, hint or example)
    if len(problems.found) > before:
        raise _Invalid
    return value
