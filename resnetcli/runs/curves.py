"""Training and test error against iterations, read from run directories: of one run, or of all seeds of a model.

No torch is needed.
"""

from __future__ import annotations

import math
import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from resnetcli.errors import UsageError, plural
from resnetcli.failures import ModelFailure, ModelsError, for_each
from resnetcli.frozen import frozen
from resnetcli.recipes.schedule import MAX_LR, MAX_MILESTONES, Rate, Schedule
from resnetcli.runs.config import MAX_ITERATIONS, Config
from resnetcli.runs.directory import Record, Run, open_run
from resnetcli.runs.group import models_of, seeds_of
from resnetcli.runs.layout import CONFIG_FILE
from resnetcli.runs.metrics import Point, read_metrics


@frozen
class Line:
    """Error in percent against iterations: mean, minimum and maximum over seeds."""

    iterations: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    @property
    def last(self) -> float | None:
        """The mean at the last iteration; None without readings."""
        return self.mean[-1] if self.mean else None


@frozen
class Drop:
    """A drop of the learning rate in a step schedule."""

    iteration: int
    """The first at the lower rate, counted from 0; without a milestone, the last reading at the higher one."""
    before: float
    after: float


@frozen
class Curve:
    """Training and test error of one model."""

    label: str
    path: Path
    """As given: a run, or the directory of several seeds."""
    runs: tuple[Run, ...]
    """The run, or the runs of the seeds that the lines average."""
    train: Line
    """On augmented images, each before the update it contributes to."""
    test: Line
    drops: tuple[Drop, ...]

    @property
    def config(self) -> Config:
        """Configuration of the run, or of the first seed."""
        return self.runs[0].config

    @property
    def reached(self) -> int:
        """The last iteration of the curve."""
        return self.train.iterations[-1]

    @property
    def seeds(self) -> tuple[int, ...]:
        """Seeds of the runs."""
        return tuple(run.config.seed for run in self.runs)


@frozen
class Curves:
    """The curves of one plot, and notes about omissions."""

    curves: tuple[Curve, ...]
    notes: tuple[str, ...]
    """One sentence per omission."""
    failed: tuple[ModelFailure, ...] = ()
    """Paths that are not runs, or whose files are damaged."""


def read_curves(paths: Sequence[str | os.PathLike[str]]) -> Curves:
    """A curve for each run, or directory of seeds, that has a reading; notes name the others.

    A directory of several models stands for all of them. A path that is not a run, or has invalid metrics,
    is in `failed`. Raises UsageError or ModelsError if there is no curve.
    """
    notes: list[str] = []
    folders, not_listed = for_each(
        ((os.fspath(path), {}) for path in paths),
        lambda path, _: models_of(Path(path)),
    )
    places = dict.fromkeys(place for several in folders for place in several)  # each once
    read, not_read = for_each(
        ((os.fspath(place), {}) for place in places), lambda path, _: _curve(Path(path), _runs(Path(path)), notes)
    )
    found = [curve for curve in read if curve is not None]
    failed = (*not_listed, *not_read)
    if not found:
        if failed:
            raise ModelsError(failed)
        raise UsageError(notes[0] if len(notes) == 1 else "none of these runs has a reading yet",
                         "the first one is written after at most 100 iterations")  # fmt: skip
    labelled = tuple(replace(curve, label=label) for curve, label in zip(found, distinct_labels(found), strict=True))
    untested = [curve.label for curve in labelled if not curve.test.iterations]
    if untested:
        what = untested[0] if len(untested) == 1 else f"{len(untested)} runs, the first is {untested[0]}"
        notes.append(f"training error only, not evaluated yet: {what}")
    return Curves(labelled, tuple(notes), failed)


def _runs(path: Path) -> list[Run]:
    """The run in a directory, or the runs of all seeds."""
    if (seeds := seeds_of(path)) is not None:
        return [open_run(folder) for folder in seeds.folders]
    try:
        return [open_run(path)]
    except UsageError as error:
        if os.path.isdir(path) and not (path / CONFIG_FILE).exists():  # noqa: PTH112
            inside = next((child for child in sorted(path.iterdir()) if (child / CONFIG_FILE).is_file()), None)
            if inside is not None:
                error.hint = f"it contains runs: `{inside}`, or all of them: `{path}/*`"
        raise


def _curve(path: Path, runs: Sequence[Run], notes: list[str]) -> Curve | None:
    """The curve of the runs; omissions are appended to `notes`."""
    read = [(run, points) for run in runs if (points := read_metrics(run.path))]
    if not read:
        notes.append(f"`{path}` has no reading yet")
        return None
    done = [(run, points) for run, points in read if points[-1].iteration >= run.config.iterations]
    # A mean over fewer and fewer seeds would jump: either complete runs, or all of them up to the shortest.
    drawn = done or read
    if len(drawn) < len(runs):
        what = "are complete" if done else "have a reading"
        notes.append(f"`{path}`: mean of {len(drawn)} of {len(runs)} seeds, those that {what}")
    readings = [points for _, points in drawn]
    train = _line(readings, lambda point: point.train_error_percent)
    if not train.iterations:
        notes.append(f"`{path}`: its seeds have no readings at a common iteration yet")
        return None
    return Curve(
        label="",
        path=path,
        runs=tuple(run for run, _ in drawn),
        train=train,
        test=_line(readings, lambda point: point.test_error_percent),
        drops=_drops(drawn[0][0].config, readings[0]),
    )


def _line(runs: Sequence[Sequence[Point]], error: Callable[[Point], float | None]) -> Line:
    """The readings of one run, or statistics of several at the iterations that all of them have."""
    readings: list[Mapping[int, float]] = [
        {point.iteration: value for point in points if (value := error(point)) is not None} for points in runs
    ]
    if len(readings) == 1:
        values = tuple(readings[0].values())
        return Line(tuple(readings[0]), values, values, values)
    common = tuple(at for at in readings[0] if all(at in other for other in readings[1:]))
    errors = [[reading[at] for reading in readings] for at in common]
    return Line(common, tuple(map(statistics.fmean, errors)), tuple(map(min, errors)), tuple(map(max, errors)))


def _drops(config: Config, points: Sequence[Point]) -> tuple[Drop, ...]:
    """Drops of the learning rate, if the schedule is `steps`; a reading has the rate of the iteration before it.

    From the recipe, which also knows drops between two readings; from the readings if they disagree.
    """
    schedule = config.recipe.get("schedule")
    if not isinstance(schedule, Mapping) or schedule.get("kind") != "steps":
        return ()
    milestones = _milestones(config, schedule.get("at"))
    rate = _rate(config, schedule, milestones)
    if rate is not None and rate.at:
        lower = [point for point in points if point.iteration > rate.at[0]]
        # A reading has the rate in fp32.
        if all(math.isclose(point.lr, rate.lr(point.iteration - 1), rel_tol=1e-6) for point in lower):
            passed = [at for at in dict.fromkeys(rate.at) if 0 < at < points[-1].iteration]
            return tuple(Drop(at, rate.lr(at - 1), rate.lr(at)) for at in passed if rate.lr(at) < rate.lr(at - 1))
    return tuple(
        Drop(next((at for at in milestones if a.iteration <= at < b.iteration), a.iteration), a.lr, b.lr)
        for a, b in pairwise(points)
        if b.lr < a.lr
    )


def _rate(config: Config, schedule: Mapping[str, object], milestones: Sequence[int]) -> Rate | None:
    """The learning rate after any warm-up; None if the run's configuration is invalid."""
    lr, factor = schedule.get("lr"), schedule.get("factor")
    if not isinstance(lr, int | float) or not isinstance(factor, int | float):
        return None
    if not (0 < lr <= MAX_LR and 0 < factor <= 1):
        return None
    return Rate(config.iterations, Schedule("steps", lr, factor), tuple(sorted(milestones)), None)


def _milestones(config: Config, at: object) -> list[int]:
    """The first iteration, counted from 0, of each lower rate; the recipe has iterations or epochs."""
    known = at if isinstance(at, list) and len(at) <= MAX_MILESTONES else []
    numbers = [Fraction(str(one)) for one in known if type(one) in (int, float) and 0 <= one <= MAX_ITERATIONS]
    epoch = 1 if config.recipe.get("epochs") is None else Fraction(config.train_images, config.batch_size)
    return [round(number * epoch) for number in numbers]


def data_texts(curves: Sequence[Curve]) -> list[str]:
    """The datasets of the curves: `CIFAR-10 (verified)`."""
    return list(dict.fromkeys(curve.config.data_text for curve in curves))


def _base_label(curve: Curve) -> str:
    """`plain (CIFAR) depth=20, mean of 5 seeds`."""
    config, seeds = curve.config, len(curve.runs)
    settings = "".join(f" {name}={value}" for name, value in config.parameters.items())
    return config.title + settings + (f", mean of {seeds} seeds" if seeds > 1 else "")


_DISTINCTIONS: tuple[Callable[[Curve], str], ...] = (
    lambda curve: f"recipe {curve.config.recipe.get('name')}",
    lambda curve: f"batch {curve.config.batch_size}",
    lambda curve: plural(curve.config.iterations, "iteration"),
    lambda curve: curve.config.dtype,
    lambda curve: f"seed {', '.join(map(str, curve.seeds[:3]))}",
    lambda curve: str(curve.path),
)
"""Differences between runs of one model, in order of preference."""


def distinct_labels(curves: Sequence[Curve]) -> list[str]:
    """A label per curve: the model, the dataset if there are several, and what distinguishes equal ones."""
    several = len(data_texts(curves)) > 1
    labels = [_base_label(curve) + (f", {curve.config.data_text}" if several else "") for curve in curves]
    for describe in _DISTINCTIONS:
        same: dict[str, list[int]] = {}
        for index, label in enumerate(labels):
            same.setdefault(label, []).append(index)
        for indices in same.values():
            words = {index: describe(curves[index]) for index in indices} if len(indices) > 1 else {}
            if len(set(words.values())) > 1:
                for index, word in words.items():
                    labels[index] += f", {word}"
    return labels


def curves_record(found: Curves) -> Record:
    """`resnet-cli/curves@2`."""
    return {
        "schema": "resnet-cli/curves@2",
        "curves": [
            {
                "name": curve.label,
                "path": str(curve.path),
                "model": curve.config.model,
                "parameters": dict(curve.config.parameters),
                "recipe": str(curve.config.recipe.get("name")),
                "data": curve.config.data_text,
                "seeds": list(curve.seeds),
                "iterations": curve.config.iterations,
                "reached": curve.reached,
                "drops": [asdict(drop) for drop in curve.drops],
                "train": _line_record(curve.train),
                "test": _line_record(curve.test),
            }
            for curve in found.curves
        ],
        "notes": list(found.notes),
    }


def _line_record(line: Line) -> Record:
    return {
        "iterations": list(line.iterations),
        "error_percent": list(line.mean),
        "lowest": list(line.low),
        "highest": list(line.high),
    }
