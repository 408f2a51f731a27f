"""The keys of a recipe: how the text under each becomes a value, with a problem at its place where it does not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, fields
from itertools import pairwise
from typing import Any, TypeVar

from resnetcli.errors import Problems, did_you_mean
from resnetcli.recipes.recipe import BOUNDS, MAX_ITERATIONS, Augmentation
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.spec.header import Header
from resnetcli.spec.numbers import decimal
from resnetcli.spec.source import Map, Node, Seq, Text

MAX_EPOCHS = 100_000
MAX_LR = 1000
MAX_MILESTONES = 64
MAX_PAD = 256
T = TypeVar("T")
Reader = Callable[[Text, Node, Problems], Any]


class _Wrong(Exception):  # noqa: N818 - a value was no value, which has been noted
    pass


def values_of(node: Map, readers: Mapping[str, Reader], problems: Problems) -> dict[str, Any]:
    """The values under known keys; each other key, and each value that is none, becomes a problem."""
    found = {}
    for key, value in node.pairs:
        if key.value not in readers:
            problems.add(f"unknown key `{key.value}`", key.at,
                         did_you_mean(key.value, readers, f"the keys are {', '.join(readers)}"))  # fmt: skip
            continue
        with suppress(_Wrong):
            found[key.value] = readers[key.value](key, value, problems)
    return found


def _text(key: Text, node: Node, problems: Problems) -> str:
    return Header(problems).text(key, node)


def _whole(low: int, high: int, word: str = "") -> Reader:
    """Reads a whole number from `low` to `high`; `word` stands for None."""

    def read(key: Text, node: Node, problems: Problems) -> int | None:
        text = node.value if isinstance(node, Text) else ""
        if word and text == word:
            return None
        if not re.fullmatch("[0-9]{1,12}", text) or not low <= int(text) <= high:
            problems.add(
                f"`{key.value}` is a whole number from {low:,} to {high:,}{f', or `{word}`' if word else ''}", node.at
            )
            raise _Wrong
        return int(text)

    return read


def _number(low: float, high: float, *, above: bool = False, below: bool = False) -> Reader:
    """Reads a number from `low` to `high`; `above`: and not `low` itself; `below`: and not `high`."""
    bounds = f"{'above' if above else 'from'} {low:g} {'and below' if below else 'to'} {high:,.12g}"

    def read(key: Text, node: Node, problems: Problems) -> float:
        value = decimal(node.value) if isinstance(node, Text) else None
        if value is None or not low <= value <= high or (above and value == low) or (below and value == high):
            problems.add(f"`{key.value}` is a number {bounds}", node.at, "for example 0.1 or 1e-4")
            raise _Wrong
        return value

    return read


def _word(*words: str) -> Reader:
    def read(key: Text, node: Node, problems: Problems) -> str:
        text = node.value if isinstance(node, Text) else ""
        if text not in words:
            problems.add(f"`{key.value}` is {' or '.join(f'`{word}`' for word in words)}", node.at,
                         did_you_mean(text, words))  # fmt: skip
            raise _Wrong
        return text

    return read


def _yes(key: Text, node: Node, problems: Problems) -> bool:
    text = node.value if isinstance(node, Text) else ""
    if text not in ("yes", "no", "true", "false"):
        problems.add(f"`{key.value}` is `yes` or `no`", node.at)
        raise _Wrong
    return text in ("yes", "true")


def _milestones(key: Text, node: Node, problems: Problems) -> tuple[float, ...]:
    items = node.items if isinstance(node, Seq) else []
    values = [decimal(item.value) if isinstance(item, Text) else None for item in items]
    numbers = tuple(value for value in values if value is not None)
    rising = all(a < b for a, b in pairwise(numbers))
    too_far = bool(numbers) and numbers[-1] > MAX_ITERATIONS
    if not isinstance(node, Seq) or None in values or len(items) > MAX_MILESTONES or not rising or too_far:
        problems.add(f"`{key.value}` is a list of rising numbers, in what the recipe's length is in", node.at,
                     "for example `at: [32000, 48000]`")  # fmt: skip
        raise _Wrong
    return numbers


def _mapping(make: type[T], readers: Mapping[str, Reader], example: str, word: str = "") -> Reader:
    """Reads a mapping as one of `make`; `word` stands for None."""
    needed = {f.name for f in fields(make) if f.default is MISSING}  # type: ignore[arg-type]

    def read(key: Text, node: Node, problems: Problems) -> T | None:
        if word and isinstance(node, Text) and node.value == word:
            return None
        if not isinstance(node, Map):
            problems.add(f"`{key.value}` is a mapping", node.at, f"for example `{key.value}: {example}`")
            raise _Wrong
        before = len(problems.found)
        values = values_of(node, readers, problems)
        missing = needed - {name.value for name, _ in node.pairs}
        for name in sorted(missing):
            problems.add(f"`{key.value}` needs `{name}`", key.at, f"for example `{key.value}: {example}`")
        if len(problems.found) > before:
            raise _Wrong
        return make(**values)

    return read


USES = {"steps": {"factor", "at"}, "one-cycle": {"peak", "start", "end"}, "fixed": set[str]()}
"""What each kind of schedule takes besides `lr`."""


def _schedule(key: Text, node: Node, problems: Problems) -> Schedule:
    readers = {
        "kind": _word("steps", "one-cycle", "fixed"),
        "lr": _number(0, MAX_LR, above=True),
        "factor": _number(0, 1, above=True),
        "at": _milestones,
        "peak": _number(0, 1, above=True, below=True),
        "start": _number(0, 1),
        "end": _number(0, 1),
    }
    example = "{kind: steps, lr: 0.1, factor: 0.1, at: [32000, 48000]}"
    schedule: Schedule = _mapping(Schedule, readers, example)(key, node, problems)
    assert isinstance(node, Map)  # anything else has been reported
    given = {name.value: name for name, _ in node.pairs}
    wrong = [name for name in given if name not in {"kind", "lr", *USES[schedule.kind]}]
    needed = [name for name in ("kind", "lr", *(("at",) if schedule.kind == "steps" else ())) if name not in given]
    for name in wrong:
        problems.add(f"a schedule of kind `{schedule.kind}` has no `{name}`", given[name].at,
                     f"it has {', '.join(('lr', *sorted(USES[schedule.kind])))}")  # fmt: skip
    for name in needed:
        problems.add(f"`{key.value}` needs `{name}`", key.at, f"for example `{key.value}: {example}`")
    if wrong or needed:
        raise _Wrong
    return schedule


def _warmup(key: Text, node: Node, problems: Problems) -> Warmup | None:
    readers = {
        "lr": _number(0, MAX_LR),
        "iterations": _whole(1, MAX_ITERATIONS),
        "linear": _yes,
        "until_error": _number(0, 100, above=True),
        "at_most": _whole(1, MAX_ITERATIONS),
        "from_depth": _whole(0, 1_000_000),
    }
    example = "{lr: 0.01, iterations: 400}"
    warmup: Warmup | None = _mapping(Warmup, readers, example, word="none")(key, node, problems)
    if warmup is not None and (warmup.iterations is None) == (warmup.until_error is None):
        problems.add("a warm-up lasts some `iterations` or goes on `until_error`, one of them", key.at,
                     f"`{example}` or `{{lr: 0.01, until_error: 80, at_most: 2000}}`")  # fmt: skip
        raise _Wrong
    return warmup


def _paper(key: Text, node: Node, problems: Problems) -> dict[str, Any]:
    if not isinstance(node, Map):
        problems.add("`paper` is a mapping of settings", node.at, "for example `paper: {batch_size: 128}`")
        raise _Wrong
    return values_of(node, SETTINGS, problems)


TEXTS: Mapping[str, Reader] = {"name": _text, "about": _text, "source": _text}
"""The keys that are for people."""
SETTINGS: Mapping[str, Reader] = {
    "batch_size": _whole(*BOUNDS["batch_size"]),
    "iterations": _whole(*BOUNDS["iterations"]),
    "epochs": _number(0, MAX_EPOCHS, above=True),
    "schedule": _schedule,
    "warmup": _warmup,
    "momentum": _number(0, 1, below=True),
    "nesterov": _yes,
    "weight_decay": _number(0, 1),
    "decay": _word("weights", "all"),
    "augmentation": _mapping(
        Augmentation,
        {"pad": _whole(0, MAX_PAD), "mode": _word("zeros", "reflect"), "flip": _yes},
        "{pad: 4, mode: zeros, flip: yes}",
    ),
    "normalise": _word("pixel-mean", "mean-std"),
    "init": _word("fan-out", "fan-in"),
    "label_smoothing": _number(0, 1, below=True),
    "bn_batch": _whole(*BOUNDS["bn_batch"], word="all"),
    "train_split": _whole(*BOUNDS["train_split"], word="all"),
}
"""The keys of a recipe that are a setting, with what reads each."""
KEYS: Mapping[str, Reader] = {**TEXTS, **SETTINGS, "paper": _paper}
