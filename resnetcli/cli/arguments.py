"""Parse the command line's models and their parameters."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnetcli.errors import UsageError
from resnetcli.quantities import parse_whole

if TYPE_CHECKING:
    from resnetcli.spec.zoo import Zoo

ModelArgs = tuple[str, dict[str, Any]]
"""A model and its parameters: whole numbers, for PyTorch models any value."""
_SETTING = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)")


def split_words(text: str) -> list[str]:
    """Split an option's value into the model and its parameters: `net.yaml width=8`. Paths may contain spaces."""
    return re.split(r"\s+(?=[^\s=/]+=)", text.strip())


def asked_models(words: Sequence[str], zoo: Zoo) -> list[ModelArgs]:
    """Models, each with the `NAME=VALUE` words that follow it. A glob stands for every name that it matches.

    A glob without a match is kept as it is: the lookup reports it.

    Raises UsageError for a parameter without a model or a value that is not a whole number.
    """
    models: list[ModelArgs] = []
    latest: list[ModelArgs] = []  # the models of the last word, which its parameters are for
    for word in words:
        if setting := _SETTING.fullmatch(word):
            _set(setting[1], setting[2], word, latest)
            continue
        if latest and (example := _parameter_example(word, latest[-1][0], zoo)):
            raise UsageError(f"`{word}` is a parameter, not a model", f"`{example}`")
        latest = [(name, {}) for name in expand_globs([word], zoo)]
        models += latest
    return models


def expand_globs(words: Sequence[str], zoo: Zoo) -> list[str]:
    """Replace each glob by the names that it matches; one without a match stays."""
    from resnetcli.spec.reference import is_wild

    return [name for word in words for name in (zoo.matching([word]) if is_wild(word) else []) or [word]]


def command_line(command: str, words: Sequence[str]) -> str:
    """A command with the words as the shell needs them, for hints."""
    import shlex

    return shlex.join(["resnet-cli", *command.split(), *words])


def model_words(model: ModelArgs) -> list[str]:
    """A model and its parameters as they are typed."""
    name, parameters = model
    return [name, *(f"{key}={value}" for key, value in parameters.items())]


def refuse_device_name(words: Sequence[str], command: str) -> None:
    """Raises UsageError for a device among the models: `profile resnet50 cpu`."""
    device = next((word for word in words if _DEVICE.fullmatch(word)), "")
    if device:
        others = [word for word in words if not _DEVICE.fullmatch(word)] or ["resnet50"]
        if command == "explain":
            others = others[:1] + [word for word in others[1:] if _SETTING.fullmatch(word)]
        hint = f"did you mean `{command_line(command, [*others, '--device', device])}`?"
        raise UsageError(f"`{device}` is a device, not a model", hint)


_DEVICE = re.compile(r"cpu|cuda(:[0-9]+)?")


def _parameter_example(word: str, model: str, zoo: Zoo) -> str:
    """`classes=1000` if the word, which no model has as its name, is a parameter of that model; else empty."""
    if not (word.isidentifier() and word not in zoo.files and model in zoo.files):
        return ""
    from resnetcli.spec.read import read

    parameters = read(model, zoo=zoo).parameters
    return f"{word}={parameters[word]}" if word in parameters else ""


def _set(name: str, value: str, word: str, models: list[ModelArgs]) -> None:
    if not models:
        raise UsageError(f"`{word}` is not preceded by a model", "NAME=VALUE sets a parameter of the preceding model")
    from resnetcli.spec.reference import origin_of

    number = parse_whole(value)
    for model, parameters in models:
        if number is None and not origin_of(model).is_pytorch:
            raise UsageError(f"`{word}`: `{value}` is not a whole number", f"for example `{name}=8`")
        known = literal(value) if number is None else number
        if name in parameters and parameters[name] != known:
            hint = f"set it once: `{name}={parameters[name]}` or `{word}`"
            raise UsageError(f"`{name}` is set twice for one model", hint)
        parameters[name] = known


_WORDS = {"true": True, "false": False, "null": None, "~": None}
MAX_VALUE = 10_000
"""Characters in a value."""


def literal(text: str) -> Any:
    """Parse a Python or YAML literal, `0.5`, `1e-3`, `true`, `None`, `(1, 2)`, `'text'`; else return the text."""
    import ast

    if text in _WORDS:
        return _WORDS[text]
    if len(text) > MAX_VALUE:
        raise UsageError(f"the value has {len(text):,} characters", f"at most {MAX_VALUE:,}")
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return text


def complete_model(incomplete: str) -> list[str]:
    """Names in the zoo that begin so, for the shell."""
    from resnetcli.spec.zoo import Zoo

    return [name for name in Zoo().files if name.startswith(incomplete)]
