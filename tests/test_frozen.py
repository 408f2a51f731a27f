"""`@frozen` behaves as `dataclass(frozen=True, slots=True)` does."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError, InitVar, asdict, dataclass, field, fields, replace
from typing import Any

import pytest

from resnetcli.frozen import frozen


@frozen
class Point:
    """A point."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)
    note: str = field(default="", compare=False, repr=False)


@frozen
class Named(Point):
    name: str = "origin"

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("no name")


@frozen(kw_only=True, eq=False)
class Options:
    width: int = 1
    depth: int


@dataclass(frozen=True, slots=True)
class Standard:
    """A point."""

    x: int
    y: int = 2
    tags: list[str] = field(default_factory=list)
    note: str = field(default="", compare=False, repr=False)


def test_arguments_and_defaults() -> None:
    assert (Point(1).x, Point(1).y, Point(y=3, x=4).y, Named(1, name="a").name) == (1, 2, 3, "a")
    assert Point(1).tags == []
    assert Point(1).tags is not Point(1).tags
    assert Options(depth=3).width == 1


@pytest.mark.parametrize(
    "wrong",
    [lambda: Point(), lambda: Point(1, z=2), lambda: Options(1, 2), lambda: Options(), lambda: Point(1, x=1)],  # type: ignore[call-arg, misc]
)
def test_wrong_arguments_are_a_type_error(wrong: Callable[[], object]) -> None:
    with pytest.raises(TypeError, match="__init__"):
        wrong()


def test_equal_values_of_one_class_are_equal_and_have_one_hash() -> None:
    assert Named(1, 2, ()) == Named(1, 2, (), "other note") != Named(2, 2, ())  # type: ignore[arg-type]
    assert hash(Named(1, 2, ())) == hash(Named(1, 2, (), "other note"))  # type: ignore[arg-type]
    assert Point(1) != Named(1)
    standard: object = Standard(1)
    assert Point(1) != standard
    assert Options(depth=1) != Options(depth=1)


def test_a_class_of_one_field_compares_as_a_dataclass_does() -> None:
    @frozen
    class One:
        x: float

    @dataclass(frozen=True)
    class StandardOne:
        x: float

    nan = float("nan")
    for kind in (One, StandardOne):
        assert kind(nan) == kind(nan)
        assert kind(nan) != kind(float("nan"))
        assert hash(kind(1.0)) == hash((1.0,))


def test_methods_of_the_class_itself_are_kept() -> None:
    @frozen
    class Own:
        x: int

        def __repr__(self) -> str:
            return "own"

        def __eq__(self, other: object) -> bool:
            return True

    assert repr(Own(1)) == "own"
    assert Own(1) == Own(2)
    assert hash(Own(1)) != hash(Own(2))


def test_a_structure_that_contains_itself_has_a_repr() -> None:
    tags: list[Any] = []
    point = Point(1, tags=tags)
    tags.append(point)
    assert repr(point).endswith("Point(x=1, y=2, tags=[...])")


def test_any_name_can_be_a_field() -> None:
    @frozen
    class Names:
        self: int
        set_x: int
        default_x: int
        x: int = 4
        new_x: list[int] = field(default_factory=list)

    assert asdict(Names(1, 2, 3)) == {"self": 1, "set_x": 2, "default_x": 3, "x": 4, "new_x": []}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("x: int = field(default=1, init=False)", "init=False and hash= are not supported"),
        ("x: int = field(hash=False)", "init=False and hash= are not supported"),
        ("x: int = 1; y: int", "non-default argument 'y' follows default argument"),
    ],
)
def test_what_is_not_supported_is_a_type_error(body: str, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        exec(f"@frozen\nclass Refused:\n    {body}", {"frozen": frozen, "field": field})


def test_init_var_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="InitVar is not supported"):

        @frozen
        class Refused:
            x: InitVar[int]


def test_nothing_can_be_changed() -> None:
    point: Any = Point(1)
    for name in ("x", "z"):
        with pytest.raises(FrozenInstanceError, match=f"cannot assign to field '{name}'"):
            setattr(point, name, 5)
    with pytest.raises(FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    assert not hasattr(point, "__dict__")
    assert point == Point(1)


def test_after_init_runs() -> None:
    with pytest.raises(ValueError, match="no name"):
        Named(1, name="")


def test_text_and_fields_are_those_of_the_standard_decorator() -> None:
    assert repr(Point(1, 2, ["a"])) == repr(Standard(1, 2, ["a"])).replace("Standard", "Point")
    assert [(item.name, item.type, item.default) for item in fields(Point)] == [
        (item.name, item.type, item.default) for item in fields(Standard)
    ]
    assert Point.__match_args__ == Standard.__match_args__
    assert vars(Point)["__slots__"] == vars(Standard)["__slots__"]
    assert asdict(Named(1)) == asdict(Standard(1)) | {"name": "origin"}
    assert replace(Named(1), y=5) == Named(1, 5)


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda value: pickle.loads(pickle.dumps(value))])
def test_copies_are_equal(copied: Callable[[Named], Named]) -> None:
    point = Named(1, 3, ["a"], "note", "b")
    assert copied(point) == point
    assert copied(point).note == "note"
