"""Build dataclasses from parsed JSON: annotations give types and bounds, and every problem is reported with its path.

    @frozen
    class Result:
        model: str
        batch: Annotated[int, Bounds(1, 10**9)]
        input: tuple[Count, Count, Count]
        parameters: Mapping[str, int]
        floor: float | None = None

    structure(Result, json.loads(text))  # StructureError: `batch` must be at least 1, not 0; `model` is missing

Supported are dataclasses, `bool`, `int`, `float`, `str`, `None`, `Any`, `Literal`, unions, `list`, `tuple`, `dict` and
`Mapping` with `str` keys. A field with a default may be missing. The annotations must be importable at run time, so
their imports do not belong under `TYPE_CHECKING`. Depth is bounded by the annotations, work by the size of the text.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")
LARGEST = 10**24
"""Maximum magnitude of a number: what is computed from it stays finite."""
MAX_PROBLEMS = 20
_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", NoneType: "null",
          dict: "an object", Mapping: "an object", list: "a list", tuple: "a list"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Bounds:
    """Inclusive limits of a number, or of the length of a text, list or object."""

    low: float = -LARGEST
    high: float = LARGEST

    def violation(self, value: Any) -> str:
        """The violation: `must be at least 1, not 0`; empty if the value is within bounds."""
        sized = not isinstance(value, int | float)
        number = len(value) if sized else value
        if self.low <= number <= self.high:
            return ""
        limit = f"at least {self.low:,}" if number < self.low else f"at most {self.high:,}"
        return f"must have a length of {limit}, not {number:,}" if sized else f"must be {limit}, not {number:,}"


@dataclass(frozen=True, slots=True)
class Check:
    """A condition on a value of the right type, and what the message says the value must be."""

    holds: Callable[[Any], bool]
    text: str

    def violation(self, value: Any) -> str:
        """`must be a SHA-256`; empty if the condition holds."""
        return "" if self.holds(value) else f"must be {self.text}"


Count = Annotated[int, Bounds(0)]
Positive = Annotated[int, Bounds(1)]


class StructureError(ValueError):
    """Parsed JSON that is not of the expected structure."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)


def parse_json(text: str | bytes, *, constants: bool = False) -> Any:
    """Parse JSON. Raises ValueError for anything else and for a key given twice; NaN and infinity need `constants`."""
    try:
        return json.loads(text, parse_constant=None if constants else _refuse_constant, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _refuse_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key, value in pairs:
        if key in values:
            raise ValueError(f"`{key[:40]}` is given twice")
        values[key] = value
    return values


def structure(cls: type[T], value: Any, path: str = "", *, strict: bool = False) -> T:
    """Build an instance of `cls` from parsed JSON; `path` is the name of the value in messages.

    `strict` refuses unknown keys; otherwise they are ignored, because later versions may add some. Raises
    StructureError with every problem, or the first MAX_PROBLEMS.
    """
    problems: list[str] = []
    built = _Builder(problems, strict).build(cls, value, path)
    if problems:
        raise StructureError(problems)
    return cast(T, built)


class _Builder:
    def __init__(self, problems: list[str], strict: bool) -> None:
        self.problems, self.strict = problems, strict

    def add(self, path: str, message: str) -> None:
        self.problems.append(f"`{path}` {message}" if path else f"it {message}")
        self.stop_at_most()

    def stop_at_most(self) -> None:
        if len(self.problems) >= MAX_PROBLEMS:
            raise StructureError(self.problems[:MAX_PROBLEMS])

    def build(self, kind: Any, value: Any, path: str) -> Any:
        """Convert the value to `kind`. After a problem the result is meaningless: the caller raises."""
        origin, arguments = get_origin(kind) or kind, get_args(kind)
        if kind is Any:
            return value
        if origin is Annotated:
            return self.annotated(arguments, value, path)
        if origin in (Union, UnionType):
            return self.union(arguments, value, path)
        if origin is Literal:
            if not any(type(value) is type(word) and value == word for word in arguments):
                self.add(path, f"must be one of {', '.join(map(str, arguments))}{_shown(value)}")
            return value
        if origin is float and type(value) is int and abs(value) <= LARGEST:
            return float(value)
        if is_dataclass(origin):
            return self.instance(cast(type, origin), value, path)
        expected = _json_type(origin)
        if type(value) is not expected:
            self.add(path, f"must be {_NAMES[origin]}{_shown(value)}")
        elif origin in (int, float) and not abs(value) <= LARGEST:
            self.add(path, f"must be {_NAMES[origin]} up to {LARGEST:.0e}")
        elif origin in (dict, Mapping):
            inner = arguments[1] if arguments else Any
            return {key: self.build(inner, item, _below(path, key)) for key, item in value.items()}
        elif origin in (list, tuple):
            return self.items(origin, arguments, value, path)
        return value

    def annotated(self, arguments: tuple[Any, ...], value: Any, path: str) -> Any:
        before = len(self.problems)
        built = self.build(arguments[0], value, path)
        for rule in arguments[1:] if len(self.problems) == before else ():
            if violation := rule.violation(built):
                self.add(path, violation)
        return built

    def union(self, options: tuple[Any, ...], value: Any, path: str) -> Any:
        attempts = []
        for option in options:
            attempt = _Builder([], self.strict)
            with suppress(StructureError):
                built = attempt.build(option, value, path)
            if not attempt.problems:
                return built
            attempts.append((option, attempt.problems))
        others = [problems for option, problems in attempts if option is not NoneType]
        alike = [problems for option, problems in attempts if type(value) is _json_type(option)]
        if len(others) == 1 or len(alike) == 1:  # the only matching option: its own problems are more specific
            self.problems += (alike or others)[0]
            self.stop_at_most()
        else:
            names = [_NAMES.get(_json_type(option), "an object") for option in options]
            self.add(path, f"must be {' or '.join(dict.fromkeys(names))}{_shown(value)}")
        return value

    def items(self, origin: Any, arguments: tuple[Any, ...], value: list[Any], path: str) -> Any:
        if origin is list or not arguments or arguments[1:] == (...,):
            kinds = [arguments[0] if arguments else Any] * len(value)
        elif len(value) != len(arguments):
            self.add(path, f"must be a list of {len(arguments)}, not {len(value)}")
            return value
        else:
            kinds = list(arguments)
        return origin(
            self.build(kind, item, f"{path}[{i}]") for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )

    def instance(self, cls: type, value: Any, path: str) -> Any:
        if type(value) is not dict:
            self.add(path, f"must be an object{_shown(value)}")
            return value
        before, hints, given = len(self.problems), _hints(cls), {}
        names = {field.name: field for field in fields(cls) if field.init}
        for name, field in names.items():
            if name in value:
                given[name] = self.build(hints[name], value[name], _below(path, name))
            elif field.default is MISSING and field.default_factory is MISSING:
                self.add(_below(path, name), "is missing")
        for key in value.keys() - names.keys() if self.strict else ():
            self.add(_below(path, key), "is unknown")
        return cls(**given) if len(self.problems) == before else value


def _json_type(kind: Any) -> Any:
    """The type that parsed JSON has for a kind."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    origin = get_origin(kind) or kind
    return {Mapping: dict, tuple: list}.get(origin, origin)


@lru_cache(maxsize=64)
def _hints(cls: type) -> Mapping[str, Any]:
    return get_type_hints(cls, include_extras=True)


def _below(path: str, key: str) -> str:
    key = key[:40]
    return f"{path}.{key}" if path else key


def _shown(value: Any) -> str:
    """`, not 5`; empty for what is long or has parts."""
    if isinstance(value, str):
        return f", not `{value}`" if len(value) <= 40 else ", not text"
    if value is None or isinstance(value, bool | float):
        return f", not {json.dumps(value)}"
    return f", not {value}" if isinstance(value, int) and abs(value) <= LARGEST else ""
