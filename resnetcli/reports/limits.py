"""Limits on a model's costs, for continuous integration: maxima, or the figures of a saved profile."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from resnetcli.errors import At, Problem, UsageError
from resnetcli.files import load_json
from resnetcli.frozen import frozen
from resnetcli.quantities import parse_bytes, parse_count
from resnetcli.reports.profile import Profile
from resnetcli.structure import Count, StructureError, structure

COUNTED = ("params", "macs", "activations")
"""The figures that the stages sum up to."""
MEMORY = "memory"
MAX_STAGES = 6
"""Stages listed below a figure."""
MAX_BYTES = 16 * 2**20
"""Size of a saved profile; that of one of the deepest models is some 30 KB."""
_HINT = "save one with `resnet-cli profile MODEL.yaml --format json > old.json`"


@frozen
class SavedCounts:
    """The counts of a saved profile or of one of its stages."""

    params: Count
    macs: Count
    activations: Count


@frozen
class SavedStage(SavedCounts):
    """A stage of a saved profile."""

    stage: str


@frozen
class SavedMemory:
    """The memory of a saved profile."""

    peak_bytes: Count


@frozen
class SavedProfile(SavedCounts):
    """The compared figures of a file written by `profile --format json`."""

    model: str
    input: tuple[Count, Count, Count]
    stages: tuple[SavedStage, ...]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    memory: SavedMemory | None = None
    """None in files of early versions."""
    aux: Mapping[str, Any] | None = None
    label: str = ""
    """The file's name."""

    @property
    def figures(self) -> dict[str, int]:
        """COUNTED, and `memory` if the file has it."""
        memory = {MEMORY: self.memory.peak_bytes} if self.memory else {}
        return {name: getattr(self, name) for name in COUNTED} | memory

    @property
    def input_text(self) -> str:
        """`3x224x224`."""
        return "x".join(map(str, self.input))


@frozen
class Limits:
    """Limits for one image; none by default."""

    maxima: Mapping[str, int] = field(default_factory=dict)
    """`params`, `macs`, `activations`, `memory` in bytes."""
    before: SavedProfile | None = None
    """No figure may be larger than in this one."""

    def __bool__(self) -> bool:
        return bool(self.maxima) or self.before is not None


def limits(
    *,
    params: str | int | None = None,
    macs: str | int | None = None,
    activations: str | int | None = None,
    memory: str | int | None = None,
    against: str | os.PathLike[str] | None = None,
) -> Limits:
    """Limits as people type them (`26M`, `4.2G`, `50MB`), and the path of a saved profile. Raises UsageError."""
    given = {"params": params, "macs": macs, "activations": activations}
    maxima = {name: parse_count(text, f"--max-{name}") for name, text in given.items() if text is not None}
    if memory is not None:
        maxima[MEMORY] = parse_bytes(memory, "--max-memory")
    return Limits(maxima, None if against is None else read_saved_profile(against))


def read_saved_profile(path: str | os.PathLike[str]) -> SavedProfile:
    """Read a file written by `profile --format json`. Raises UsageError for any other file."""
    label = os.fspath(path)
    record = load_json(label, MAX_BYTES, _HINT)
    if not isinstance(record, dict) or record.get("schema") != "resnet-cli/profile@2":
        raise UsageError(f"`{label}` is not a saved profile", _HINT)
    try:
        saved = structure(SavedProfile, record)
    except StructureError as error:
        raise UsageError(f"`{label}` is not a valid profile: {error}", _HINT) from None
    if saved.aux and saved.aux.get("counted"):
        raise UsageError(f"`{label}` was counted with auxiliary heads", "save it without `--aux`")
    return replace(saved, label=Path(label).name)


def exceeded(profile: Profile, limits: Limits) -> tuple[Problem, ...]:
    """The figures above their limits, each with the stages that account for most of it or have grown."""
    problems = [
        _too_large(profile, name, limit) for name, limit in limits.maxima.items() if _figure(profile, name) > limit
    ]
    if before := limits.before:
        problems += [_grown(profile, name, before) for name, old in before.figures.items()
                     if _figure(profile, name) > old]  # fmt: skip
    return tuple(problems)


def changed_conditions(profile: Profile, limits: Limits) -> tuple[Problem, ...]:
    """Warnings about conditions that differ from those of the saved profile.

    Raises UsageError if it is of another model.
    """
    before = limits.before
    if before is None:
        return ()
    if Path(before.model).stem != Path(profile.model).stem:
        raise UsageError(f"`{before.label}` is a profile of `{before.model}`, not of `{profile.model}`", _HINT)
    then, now = before.parameters, profile.plan.parameters
    differences = [f"{name}={then.get(name)}, now {now[name]}" for name in now if then.get(name) != now[name]]
    if before.input != profile.plan.input_sizes:
        differences.append(f"input {before.input_text}, now {'x'.join(map(str, profile.plan.input_sizes))}")
    warnings = [f"`{before.label}` was counted with {difference}" for difference in differences]
    if before.memory is None:
        warnings.append(f"`{before.label}` has no memory figure, so memory is not compared")
    return tuple(Problem(warning, None, severity="warning") for warning in warnings)


def _figure(profile: Profile, name: str) -> int:
    return profile.memory.bytes() if name == MEMORY else profile.counts.total.figure(name)


def _too_large(profile: Profile, name: str, limit: int) -> Problem:
    value = _figure(profile, name)
    message = f"{_amount(value, name)}, {value - limit:,} more than the limit of {limit:,}"
    if name == MEMORY:
        return _memory_problem(profile, message)
    costs = [(stage, cost.figure(name)) for stage, cost in profile.counts.stages.items()]
    return _problem(profile, message, [(stage, cost, f"{cost:,}", f"{100 * cost / value:.1f}%")
                                       for stage, cost in costs if cost])  # fmt: skip


def _grown(profile: Profile, name: str, before: SavedProfile) -> Problem:
    value, old = _figure(profile, name), before.figures[name]
    message = f"{_amount(value, name)}, {value - old:,} more than the {old:,} in {before.label}"
    resized = () if before.input == profile.plan.input_sizes else (f"the input was {before.input_text}",)
    if name == MEMORY:
        return _memory_problem(profile, message, resized)
    costs = {saved.stage: getattr(saved, name) for saved in before.stages}
    growth = []
    for stage, cost in profile.counts.stages.items():
        increase = cost.figure(name) - costs.get(stage, 0)
        was = f"was {costs[stage]:,}" if stage in costs else "a new stage"
        growth += [(stage, increase, f"+{increase:,}", was)] if increase > 0 else []
    return _problem(profile, message, growth, resized)


def _problem(
    profile: Profile, message: str, stages: Iterable[tuple[str, int, str, str]], notes: tuple[str, ...] = ()
) -> Problem:
    """The problem, placed at the largest of the stages (name, size, texts of two columns), all in columns below it."""
    ordered = sorted(stages, key=lambda stage: -stage[1])
    shown = ordered[:MAX_STAGES]
    width = max((len(stage) for stage, *_ in shown), default=0)
    figures = max((len(figure) for _, _, figure, _ in shown), default=0)
    lines = [f"{stage:{width}}  {figure:>{figures}}  {text}" for stage, _, figure, text in shown]
    if len(ordered) > MAX_STAGES:
        lines.append(f"... and {len(ordered) - MAX_STAGES} more")
    return Problem(message, _place(profile, ordered[0][0]) if ordered else None, notes=(*lines, *notes))


def _memory_problem(profile: Profile, message: str, notes: tuple[str, ...] = ()) -> Problem:
    """The problem, placed at the stage with most weights if they are the larger part, else at that of the peak."""
    memory, stages = profile.memory, profile.counts.stages
    peak = memory.peak()
    step = profile.plan.steps[peak.step]
    stage = step.where.stage
    if memory.weight_bytes > peak.bytes():
        stage = max(stages, key=lambda name: stages[name].params)
    note = f"weights {memory.weight_bytes:,}, activations {peak.bytes():,} bytes in float32; the peak is in {step.path}"
    return Problem(message, _place(profile, stage), notes=(note, *notes))


def _amount(value: int, name: str) -> str:
    words = {"params": "parameters", "macs": "MACs", MEMORY: "bytes of peak memory for one image"}
    return f"{value:,} {words.get(name, name)}"


def _place(profile: Profile, stage: str) -> At | None:
    return profile.spec.places.get(stage)
