"""What a net must not cost, for continuous integration: limits, or what it cost before."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from resnetcli.errors import At, Problem, UsageError
from resnetcli.files import load_json
from resnetcli.quantities import parse_bytes, parse_count
from resnetcli.reports.profile import Profile

COUNTED = ("params", "macs", "activations")
"""The figures that rows sum up to."""
MEMORY = "memory"
MOST_ROWS = 6
"""Rows named below a figure."""
MAX_SAVED = 16 * 2**20
"""Bytes of a saved profile; one of the deepest net takes some 30 KB."""
MAX_FIGURE = 10**24


@dataclass(frozen=True, slots=True)
class Saved:
    """A profile that was written before by `profile --format json`: what of it is compared."""

    label: str
    model: str
    input: tuple[int, ...]
    parameters: Mapping[str, Any]
    figures: Mapping[str, int]
    """`memory` only if it is there: older files have none."""
    rows: Mapping[str, Mapping[str, int]]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a net may cost at most, for one image; nothing if nothing is said."""

    most: Mapping[str, int] = field(default_factory=dict)
    """`params`, `macs`, `activations`, `memory` in bytes."""
    before: Saved | None = None
    """No figure may be larger than here."""

    def __bool__(self) -> bool:
        return bool(self.most) or self.before is not None


def limits(
    *,
    params: str | int | None = None,
    macs: str | int | None = None,
    activations: str | int | None = None,
    memory: str | int | None = None,
    against: str | os.PathLike[str] | None = None,
) -> Limits:
    """Limits as people type them: `26M`, `4.2G`, `50MB`, and the path of a saved profile. Raises UsageError."""
    given = {"params": params, "macs": macs, "activations": activations}
    most = {name: parse_count(text, f"--max-{name}") for name, text in given.items() if text is not None}
    if memory is not None:
        most[MEMORY] = parse_bytes(memory, "--max-memory")
    return Limits(most, None if against is None else read_saved(against))


def exceeded(profile: Profile, limits: Limits) -> tuple[Problem, ...]:
    """Where a net costs more than it may, with the rows that are most of it or that have risen."""
    problems = [_above(profile, name, most) for name, most in limits.most.items() if _figure(profile, name) > most]
    if limits.before is not None:
        before = limits.before
        problems += [
            _risen(profile, name, before) for name, old in before.figures.items() if _figure(profile, name) > old
        ]
    return tuple(problems)


def unlike(profile: Profile, limits: Limits) -> tuple[Problem, ...]:
    """What was otherwise when the profile was saved that a net is compared with: warnings.

    Raises UsageError for one of another net.
    """
    before = limits.before
    if before is None:
        return ()
    if Path(before.model).stem != Path(profile.model).stem:
        raise UsageError(f"`{before.label}` is of `{before.model}`, not of `{profile.model}`", _HINT)
    size = profile.plan.input
    then = {name: before.parameters.get(name) for name in profile.plan.parameters}
    said = [f"{name}={value}, now {profile.plan.parameters[name]}" for name, value in then.items()
            if value != profile.plan.parameters[name]]  # fmt: skip
    if before.input != (size.c, size.h, size.w):
        said.append(f"input {'x'.join(map(str, before.input))}, now {size.c}x{size.h}x{size.w}")
    if MEMORY not in before.figures:
        said.append("no figure of memory, so that is not compared")
    return tuple(Problem(f"`{before.label}` was counted with {each}", None, severity="warning") for each in said)


def _figure(profile: Profile, name: str) -> int:
    return profile.memory.bytes() if name == MEMORY else profile.counts.total.figure(name)


def _above(profile: Profile, name: str, most: int) -> Problem:
    value = _figure(profile, name)
    message = f"{_amount(value, name)}, {value - most:,} more than the {most:,} it may have"
    if name == MEMORY:
        return Problem(message, _place(profile, _memory_row(profile)), notes=(_peak_note(profile),))
    costs = sorted(((cost.figure(name), row) for row, cost in profile.counts.rows.items()), key=lambda each: -each[0])
    notes = _in_columns([(row, f"{cost:,}", f"{100 * cost / value:.1f}%") for cost, row in costs if cost])
    return Problem(message, _place(profile, costs[0][1]), notes=notes)


def _risen(profile: Profile, name: str, before: Saved) -> Problem:
    value, old = _figure(profile, name), before.figures[name]
    message = f"{_amount(value, name)}, {value - old:,} more than the {old:,} of {before.label}"
    size = profile.plan.input
    resized = () if before.input == (size.c, size.h, size.w) else (f"the input was {'x'.join(map(str, before.input))}",)
    if name == MEMORY:
        return Problem(message, _place(profile, _memory_row(profile)), notes=(_peak_note(profile), *resized))
    rises = []
    for row, cost in profile.counts.rows.items():
        now, then = cost.figure(name), before.rows[row][name] if row in before.rows else None
        if now > (then or 0):
            rises.append((now - (then or 0), row, f"was {then:,}" if then is not None else "a new row"))
    rises.sort(key=lambda each: -each[0])
    at = _place(profile, rises[0][1]) if rises else None
    return Problem(message, at, notes=(*_in_columns([(row, f"+{rise:,}", was) for rise, row, was in rises]), *resized))


def _amount(value: int, name: str) -> str:
    words = {"params": "parameters", "macs": "MACs", MEMORY: "bytes of memory at the peak for one image"}
    return f"{value:,} {words.get(name, name)}"


def _memory_row(profile: Profile) -> str:
    """The row that takes most: of the weights if they are most of it, else that in which values peak."""
    held, rows = profile.memory, profile.counts.rows
    peak = held.peak()
    if held.weight_bytes > peak.bytes():
        return max(rows, key=lambda row: rows[row].params)
    stage = profile.plan.steps[peak.step].where.stage
    return stage if stage in rows else ""


def _peak_note(profile: Profile) -> str:
    held = profile.memory
    peak = held.peak()
    return (
        f"weights {held.weight_bytes:,}, values {peak.bytes():,} in float32; "
        f"the peak is in {profile.plan.steps[peak.step].path}"
    )


def _place(profile: Profile, row: str) -> At | None:
    return profile.spec.places.get(row)


def _in_columns(lines: list[tuple[str, str, str]]) -> tuple[str, ...]:
    shown = lines[:MOST_ROWS]
    name, figure = (max((len(line[i]) for line in shown), default=0) for i in (0, 1))
    texts = [f"{line[0]:{name}}  {line[1]:>{figure}}  {line[2]}" for line in shown]
    return (*texts, *([f"... and {len(lines) - MOST_ROWS} more"] if len(lines) > MOST_ROWS else []))


# --- what was saved ----------------------------------------------------------------------------------------------


def read_saved(path: str | os.PathLike[str]) -> Saved:
    """A profile saved as JSON. Raises UsageError for whatever else a file may hold."""
    label = os.fspath(path)
    return _saved(load_json(label, MAX_SAVED, _HINT), label)


_HINT = "save one with `resnet-cli profile NET.yaml --format json > old.json`"


def _saved(record: Any, label: str) -> Saved:
    if not isinstance(record, dict) or record.get("schema") != "resnet-cli/profile@1":
        raise UsageError(f"`{label}` is not a profile", _HINT)
    model, size, rows = record.get("model"), record.get("input"), record.get("rows")
    heads = record.get("aux")
    if isinstance(heads, dict) and heads.get("counted"):
        raise UsageError(f"`{label}` was counted with auxiliary heads", "save it without `--aux`")
    if not isinstance(model, str) or not isinstance(size, list) or len(size) != 3 or not isinstance(rows, list):
        raise UsageError(f"`{label}` is not a whole profile: its `model`, `input` or `rows` are missing", _HINT)
    figures = {name: _whole(record, name, label) for name in COUNTED}
    held = record.get("memory")
    if isinstance(held, dict):
        figures[MEMORY] = _whole(held, "peak_bytes", label)
    found: dict[str, dict[str, int]] = {}
    for row in rows:
        if not isinstance(row, dict) or not isinstance(row.get("row"), str):
            raise UsageError(f"`{label}` is not a whole profile: one of its `rows` has no name", _HINT)
        found[row["row"]] = {name: _whole(row, name, label) for name in COUNTED}
    sides = tuple(_whole({"input": side}, "input", label) for side in size)
    given = record.get("parameters")
    parameters = dict(given) if isinstance(given, dict) else {}
    return Saved(Path(label).name, model, sides, parameters, figures, found)


def _whole(record: Mapping[str, Any], key: str, label: str) -> int:
    value = record.get(key)
    if type(value) is not int or not 0 <= value <= MAX_FIGURE:
        raise UsageError(f"`{label}` is not a whole profile: a `{key}` in it is no count", _HINT)
    return value
