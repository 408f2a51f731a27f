"""`@frozen`: a dataclass that is frozen and has slots, made in a quarter of the time that `dataclasses` takes.

`dataclass(frozen=True, slots=True)` compiles seven methods for each class, 0.6 ms on Python 3.11, and a table of counts
needs ninety classes. Here only `__init__` is compiled; the other methods are the same functions in every class.
`field`, `fields`, `replace`, `asdict`, `copy` and `pickle` work as with any dataclass.

Not supported: `InitVar`, `field(init=False)`, `field(hash=...)`, and the order, match and weakref arguments of
`dataclass`. The first three raise TypeError; pattern matching by position works.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, FrozenInstanceError, dataclass, field, fields
from operator import attrgetter
from reprlib import recursive_repr
from typing import Any, Final, TypeVar, dataclass_transform, overload

T = TypeVar("T")


@overload
def frozen(cls: type[T], /) -> type[T]: ...
@overload
def frozen(*, kw_only: bool = False, eq: bool = True) -> Callable[[type[T]], type[T]]: ...
@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[T] | None = None, /, *, kw_only: bool = False, eq: bool = True) -> Any:
    """Decorator of a class: a frozen dataclass with slots; arguments as those of `dataclasses.dataclass`."""

    def decorate(cls: type[T]) -> type[T]:
        own = set(vars(cls))
        if "__eq__" in own and vars(cls).get("__hash__") is None:  # Python sets it beside `__eq__`
            own.discard("__hash__")
        cls = dataclass(init=False, repr=False, eq=False, slots=True, kw_only=kw_only)(cls)
        methods = SHARED | {"__init__": _compile_init(cls)} | (_comparisons(cls) if eq else {})
        for name, method in methods.items():
            if name not in own:
                setattr(cls, name, method)
        return cls

    return decorate if cls is None else decorate(cls)


def _compile_init(cls: type[Any]) -> Callable[..., None]:
    """`__init__`, which sets slots through their descriptors: `__setattr__` refuses."""
    if any(item._field_type.name == "_FIELD_INITVAR" for item in cls.__dataclass_fields__.values()):
        raise TypeError(f"{cls.__qualname__}: InitVar is not supported")
    positional, keywords, lines, optional = ["__self"], ["*"], [], False
    scope: dict[str, Any] = {"__missing": MISSING}
    for number, item in enumerate(fields(cls)):
        name, value, default = item.name, item.name, ""
        if not item.init or item.hash is not None:
            raise TypeError(f"field {name!r} of {cls.__qualname__}: init=False and hash= are not supported")
        if item.default is not MISSING:
            scope[f"__default_{number}"], default = item.default, f"=__default_{number}"
        elif item.default_factory is not MISSING:
            scope[f"__new_{number}"], default = item.default_factory, "=__missing"
            value = f"__new_{number}() if {name} is __missing else {name}"
        elif optional and not item.kw_only:
            raise TypeError(f"non-default argument {name!r} follows default argument")
        optional = optional or bool(default and not item.kw_only)
        (keywords if item.kw_only else positional).append(name + default)
        scope[f"__set_{number}"] = getattr(cls, name).__set__
        lines.append(f"__set_{number}(__self, {value})")
    if hasattr(cls, "__post_init__"):
        lines.append("__self.__post_init__()")
    parameters = positional + (keywords if len(keywords) > 1 else [])
    exec(f"def __init__({', '.join(parameters)}):\n " + "\n ".join(lines or ["pass"]), scope)
    init: Callable[..., None] = scope["__init__"]
    init.__qualname__ = f"{cls.__qualname__}.__init__"
    init.__annotations__ = {item.name: item.type for item in fields(cls)} | {"return": None}
    return init


def _comparisons(cls: type[Any]) -> dict[str, Callable[..., Any]]:
    names = [item.name for item in fields(cls) if item.compare]
    values: Callable[[Any], Any] = (
        attrgetter(*names) if len(names) > 1 else lambda instance: tuple(getattr(instance, name) for name in names)
    )  # in a tuple an object equals itself, even NaN

    def equal(self: Any, other: object) -> Any:
        return values(self) == values(other) if other.__class__ is self.__class__ else NotImplemented

    def hash_of(self: Any) -> int:
        return hash(values(self))

    return {"__eq__": equal, "__hash__": hash_of}


@recursive_repr()
def _repr(self: Any) -> str:
    shown = ", ".join(f"{item.name}={getattr(self, item.name)!r}" for item in fields(self) if item.repr)
    return f"{type(self).__qualname__}({shown})"


def _getstate(self: Any) -> list[Any]:
    return [getattr(self, item.name) for item in fields(self)]


def _setstate(self: Any, state: list[Any]) -> None:
    for item, value in zip(fields(self), state, strict=True):
        object.__setattr__(self, item.name, value)


def _setattr(self: Any, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: Any, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")


SHARED: Final[dict[str, Callable[..., Any]]] = {
    "__repr__": _repr,
    "__getstate__": _getstate,
    "__setstate__": _setstate,
    "__setattr__": _setattr,
    "__delattr__": _delattr,
}
