"""Construct a model with the arguments a user typed; hints if the constructor fails."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.net.guard import is_model_error, line_of, model_error_text

Call = Callable[..., object]


def constructor(
    title: str, signed: Call, build: Call, values: Mapping[str, Any], given: Mapping[str, Any], file: str = ""
) -> Callable[[], nn.Module]:
    """A function that constructs a model by `build(**values)`; hints of its errors name the parameters of `signed`.

    `given`: the arguments that the user typed, for messages. The function raises UsageError if the call fails or
    returns anything but a module.
    """

    def make() -> nn.Module:
        try:
            module = build(**_as_annotated(signed, values))
        except BaseException as error:
            if not is_model_error(error):
                raise
            line = f" ({line})" if (line := line_of(error, file)) else ""
            label = " ".join([title, *(f"{name}={value}" for name, value in given.items())])
            raise UsageError(
                f"`{label}` cannot be constructed: {model_error_text(error)}{line}", _hint(signed, error, given)
            ) from None
        if not isinstance(module, nn.Module):
            what = f"`{title}` returns a {type(module).__name__}, not a torch.nn.Module"
            raise UsageError(what, "name a class of modules, or a function that returns one")
        return module

    return make


def _parameters(build: Call) -> dict[str, inspect.Parameter]:
    """Parameters by name; of a class that forwards keywords, also those of its bases."""
    known: dict[str, inspect.Parameter] = {}
    makers: list[Any] = [build]
    if isinstance(build, type):
        makers += [base for base in build.__mro__ if "__init__" in vars(base) and base not in (nn.Module, object)]
    for maker in makers:
        try:
            parameters = inspect.signature(maker).parameters
        except (TypeError, ValueError):
            break
        known = {**{name: each for name, each in parameters.items() if each.kind not in _VARIADIC}, **known}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break
    return known


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _as_annotated(build: Call, values: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an integer to text where the constructor expects text: `version=2`."""
    known = _parameters(build)

    def is_text(name: str) -> bool:
        each = known.get(name)
        return each is not None and (each.annotation in (str, "str") or isinstance(each.default, str))

    return {name: str(value) if type(value) is int and is_text(name) else value for name, value in values.items()}


def _hint(build: Call, error: BaseException, given: Mapping[str, Any]) -> str:
    """The constructor's parameters, or those without a value."""
    if not isinstance(error, Exception):
        return ""
    text = str(error)
    known = _parameters(build)
    if isinstance(error, TypeError) and (
        match := re.search(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'", text)
    ):
        owner, name = match[1].partition(".")[0], match[2]
        inner = getattr(sys.modules.get(getattr(build, "__module__", "")), owner, None)
        names = [*dict.fromkeys([*known, *(_parameters(inner) if callable(inner) else ())])]
        names = [each for each in names if each not in ("self", name)]
        if name in given:
            return did_you_mean(name, names, f"it takes {', '.join(map('`{}`'.format, names[:12]))}" if names else "")
    if isinstance(error, TypeError) and re.search(r"missing \d+ required .*argument", text):
        needed = [name for name in re.findall(r"'(\w+)'", text.rpartition(":")[2]) if name in known]
        if needed:
            return f"add the missing values after the model: `{' '.join(f'{name}=VALUE' for name in needed)}`"
    if known:
        return f"`NAME=VALUE` after the model sets {', '.join(map('`{}`'.format, [*known][:12]))}"
    return "its constructor takes no `NAME=VALUE`"
