"""Command-line options from the fields of a dataclass: `BenchmarkOptions`, and the `RunOptions` in it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import Field, fields, is_dataclass
from typing import Annotated, Any, get_origin

import typer

from resnetcli.bench.options import BenchmarkOptions, Option, RunOptions, option_of
from resnetcli.errors import UsageError


def with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each parameter of a command that is a RunOptions or BenchmarkOptions by one option per field.

    `options: RunOptions` stands for all fields, also those of a dataclass in a field; `options: Annotated[RunOptions,
    by_layer]` for those that `by_layer` selects, without a panel in the help. The command receives the object. Raises
    UsageError for a value that the object does not accept, and for an option that requires `--device` without one.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, tuple[type, list[Field[Any]]]] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        kind: Any = parameter.annotation
        select: Callable[[Field[Any]], bool] | None = None
        if get_origin(kind) is Annotated and callable(kind.__metadata__[0]):
            kind, select = kind.__origin__, kind.__metadata__[0]
        if not (isinstance(kind, type) and issubclass(kind, RunOptions | BenchmarkOptions)):
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        leaves = [field for field in _leaves(kind) if select is None or select(field)]
        groups[parameter.name] = kind, leaves
        parameters += [_parameter(field, with_panel=select is None) for field in leaves]

    @functools.wraps(command)
    def run(**values: Any) -> None:
        options: dict[str, Any] = {}
        for name, (kind, leaves) in groups.items():
            typed = {field.name: _read(field, values.pop(field.name)) for field in leaves}
            given = {name: value for name, value in typed.items() if value is not None}
            if issubclass(kind, BenchmarkOptions):
                needy = [option_of(field) for field in leaves if given.get(field.name, field.default) != field.default]
                require_device([option.flag for option in needy if option.needs_device], given.get("device"))
            options[name] = _build(kind, given)
        command(**values, **options)

    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return run


def _leaves(kind: type) -> Iterator[Field[Any]]:
    """The fields that are options, in the order of the help."""
    for field in fields(kind):
        if is_dataclass(field.default):
            yield from _leaves(type(field.default))
        else:
            yield field


def _is_flag(field: Field[Any], option: Option) -> bool:
    return option.given is not True or field.default is False


def _parameter(field: Field[Any], *, with_panel: bool) -> inspect.Parameter:
    """The option of a field as a parameter that Typer reads."""
    option, text = option_of(field), option_of(field).help.replace("[", r"\[")
    kind: Any = str | None
    default: Any = None
    if _is_flag(field, option):
        kind, default = bool, False
    elif option.default_text is not None or isinstance(field.default, str):
        kind, default = str, option.default_text or field.default
    elif "int" in str(field.type):
        kind = int | None
    declared = typer.Option(
        option.flag, metavar=option.metavar, rich_help_panel=option.panel if with_panel else None, help=text
    )
    annotation = Annotated[kind, declared]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _build(kind: type, given: Mapping[str, Any]) -> Any:
    """The options object. Raises UsageError for a value that it does not accept."""
    values = {
        field.name: _build(type(field.default), given) if is_dataclass(field.default) else given[field.name]
        for field in fields(kind) if is_dataclass(field.default) or field.name in given
    }  # fmt: skip
    return kind(**values)


def _read(field: Field[Any], value: Any) -> Any:
    """The field's value of what was typed; None if its option was not given."""
    option = option_of(field)
    if value is None or value is False or value == option.default_text:
        return None
    if _is_flag(field, option):
        return option.given
    return option.parse(value, option.flag) if option.parse else value


def require_device(flags: Sequence[str], device: str | None, *, given: str = "") -> None:
    """Raises UsageError if one of the flags was given without a device to measure on.

    `given`: an option that the command line has and that excludes `--device`.
    """
    if flags and device is None:
        add = f"replace `{given}` by `--device cpu`, or omit `{flags[0]}`" if given else _ADD_DEVICE
        raise UsageError(f"`{flags[0]}` requires --device", add)


_ADD_DEVICE = "add `--device cpu`, or another device"
