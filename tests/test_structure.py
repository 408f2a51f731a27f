"""Dataclasses from JSON: types and bounds are the annotations', and every problem is reported with its path."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import pytest

from resnetcli.structure import LARGEST, MAX_PROBLEMS, Bounds, Check, Count, StructureError, parse_json, structure


@dataclass(frozen=True, slots=True)
class Part:
    name: Annotated[str, Bounds(1, 8)]
    share: Annotated[float, Bounds(0, 1)] = 0.5


@dataclass(frozen=True, slots=True)
class Record:
    number: Count
    kind: Literal["a", "b", 3]
    size: tuple[int, int, int]
    parts: tuple[Part, ...] = ()
    values: Mapping[str, bool | int | float | str | None] = field(default_factory=dict)
    note: str | None = None
    digest: Annotated[str, Check(str.isalnum, "letters and digits")] = "x"
    names: Annotated[list[str], Bounds(0, 3)] = field(default_factory=list)
    tree: Any = None


GOOD: dict[str, Any] = {"number": 0, "kind": "a", "size": [3, 224, 224]}


def problems(value: Any, cls: type[Any] = Record, **options: Any) -> tuple[str, ...]:
    with pytest.raises(StructureError) as caught:
        structure(cls, value, **options)
    return caught.value.problems


def test_values_become_what_the_annotations_say() -> None:
    more: dict[str, Any] = {
        "parts": [{"name": "a"}, {"name": "b", "share": 1}], "values": {"x": True, "y": 2, "z": 0.5, "w": None},
        "note": "n", "names": ["one"], "tree": [[{}]], "from a later version": 1,
    }  # fmt: skip
    found = structure(Record, GOOD | more)
    assert found == Record(
        0, "a", (3, 224, 224), (Part("a"), Part("b", 1.0)), more["values"], "n", names=["one"], tree=[[{}]]
    )
    assert type(found.parts[1].share) is float
    assert structure(Record, GOOD) == Record(0, "a", (3, 224, 224))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("number", -1, "`number` must be at least 0, not -1"),
        ("number", True, "`number` must be a whole number, not true"),
        ("number", 1.0, "`number` must be a whole number, not 1.0"),
        ("number", "5", "`number` must be a whole number, not `5`"),
        ("number", None, "`number` must be a whole number, not null"),
        ("number", 10 * LARGEST, "`number` must be a whole number up to 1e+24"),
        ("number", [[[1]]], "`number` must be a whole number"),
        ("kind", "c", "`kind` must be one of a, b, 3, not `c`"),
        ("kind", ["a"], "`kind` must be one of a, b, 3"),
        ("kind", 3.0, "`kind` must be one of a, b, 3, not 3.0"),
        ("size", [3, 224], "`size` must be a list of 3, not 2"),
        ("size", [3, 224, "224"], "`size[2]` must be a whole number, not `224`"),
        ("size", {"0": 3}, "`size` must be a list"),
        ("parts", [1], "`parts[0]` must be an object, not 1"),
        ("parts", [{"name": "a"}, {}], "`parts[1].name` is missing"),
        ("parts", [{"name": ""}], "`parts[0].name` must have a length of at least 1, not 0"),
        ("parts", [{"name": "a", "share": 1.5}], "`parts[0].share` must be at most 1, not 1.5"),
        ("parts", [{"name": "a", "share": float("nan")}], "`parts[0].share` must be a number up to 1e+24"),
        ("parts", [{"name": "a", "share": float("inf")}], "`parts[0].share` must be a number up to 1e+24"),
        ("parts", [{"name": "a", "share": 10**400}], "`parts[0].share` must be a number"),
        ("values", {"x": []}, "`values.x` must be true or false or a whole number or a number or text or null"),
        ("values", [], "`values` must be an object"),
        ("note", 5, "`note` must be text, not 5"),
        ("digest", "a b", "`digest` must be letters and digits"),
        ("names", ["a"] * 4, "`names` must have a length of at most 3, not 4"),
    ],
)  # fmt: skip
def test_a_problem_says_where_it_is_and_what_was_expected(key: str, value: Any, message: str) -> None:
    assert problems(GOOD | {key: value}) == (message,)


def test_every_problem_is_reported_at_once() -> None:
    assert problems({"kind": "z", "size": [1], "parts": [{"share": 7}]}) == (
        "`number` is missing",
        "`kind` must be one of a, b, 3, not `z`",
        "`size` must be a list of 3, not 1",
        "`parts[0].name` is missing",
        "`parts[0].share` must be at most 1, not 7.0",
    )
    assert problems([]) == ("it must be an object",)
    assert problems([], path="config") == ("`config` must be an object",)


def test_a_long_list_of_wrong_values_ends_early() -> None:
    assert len(problems(GOOD | {"parts": [0] * 1_000_000})) == MAX_PROBLEMS
    assert len(problems(GOOD | {"values": {str(n): [] for n in range(10_000)}})) == MAX_PROBLEMS

    @dataclass
    class Sparse:
        parts: list[Part | None]

    assert len(problems({"parts": [{}] * 10_000}, Sparse)) == MAX_PROBLEMS


def test_unknown_keys_are_refused_where_that_is_asked_for() -> None:
    assert problems(GOOD | {"numbr": 1, "x" * 500: 1}, strict=True)[0].endswith("is unknown")
    assert problems(GOOD | {"parts": [{"name": "a", "b": 1}]}, strict=True) == ("`parts[0].b` is unknown",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ("[NaN]", "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1, "b": {"c": 2, "c": 3}}', "`c` is given twice"),
        (b"\xff", "decode"),
        ("9" * 10_000, "digits"),
        ("", "Expecting value"),
    ],
)
def test_text_that_is_not_json_is_refused(text: str | bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_json(text)


def test_json_is_parsed() -> None:
    value = {"a": [1, 2.5, None, True, "x"], "b": {"a": {}}}
    assert parse_json(json.dumps(value)) == value
