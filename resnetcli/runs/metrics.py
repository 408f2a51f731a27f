"""What is read while a run trains, a line each in two files, which a resume cuts off where it goes on."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from math import lcm
from pathlib import Path

from resnetcli.errors import UsageError
from resnetcli.files import read_bounded, write_atomic
from resnetcli.runs.directory import LARGEST, MAX_ITERATIONS, METRICS_FILE, TABLE_FILE, Config

READ_EVERY = 100
"""Iterations between readings: waiting for a GPU at each step would leave it idle."""
MAX_METRICS = 64 * 2**20
MAX_LINE = 512
"""Bytes of a line with eleven numbers, however long they are."""
MAX_POINTS = MAX_METRICS // MAX_LINE
"""What a run may come to, so that its file is one that is read; a line has some 350 bytes, which leaves room for those
at a stop."""


@dataclass(frozen=True, slots=True)
class Point:
    """What was read at one iteration: of training since the reading before, and of the test set where it was due."""

    iteration: int
    epoch: float
    lr: float
    train_loss: float
    train_error_percent: float
    """Images as augmented, each before the update it went into."""
    validation_loss: float | None
    validation_error_percent: float | None
    test_loss: float | None
    """None also where it is not finite."""
    test_error_percent: float | None
    images_per_s: float
    """While training: without evaluation and checkpoints."""
    wall_s: float
    """Since the run was first started, the time between a stop and a resume left out."""


COLUMNS = tuple(each.name for each in fields(Point))


def intervals(config: Config) -> tuple[int, int, int]:
    """Iterations between readings, tests and checkpoints, each of which is a point: a very long run is read less often.

    Raises UsageError where tests and checkpoints alone are more than MAX_POINTS.
    """
    total, asked, every = config.iterations, (config.eval_every, config.checkpoint_every), READ_EVERY
    if _multiples(total, *asked) > MAX_POINTS:
        raise UsageError(
            f"tests and checkpoints at more than {MAX_POINTS:,} of {total:,} iterations",
            f"`--eval-every` and `--checkpoint-every` of {2 * total // MAX_POINTS + 1:,} or more",
        )
    while _multiples(total, every, *asked) > MAX_POINTS:
        every *= 10
    return every, *asked


def _multiples(most: int, *of: int) -> int:
    """How many numbers from 1 to `most` are a multiple of one of the given ones."""
    return sum((-1) ** (n + 1) * (most // lcm(*some)) for n in range(1, len(of) + 1) for some in combinations(of, n))


@dataclass
class Metrics:
    """The files of points, to append to. What cannot be written now is written as soon as it can be."""

    folder: Path
    until: int
    """Points after this iteration are of a future that did not happen: they are cut off."""
    _waiting: list[Point] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)
    _begun: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._begun = read_metrics(self.folder, self.until)
        self._rewrite()

    @property
    def last(self) -> Point | None:
        """The last point that a resume kept."""
        return self._begun[-1] if self._begun else None

    def amend(self, point: Point) -> None:
        """Replace the last point, before any is added. Raises OSError if it cannot: the next write does it then."""
        self._begun[-1] = point
        self._sizes.clear()
        self._rewrite()

    def _rewrite(self) -> None:
        for name, text in (
            (METRICS_FILE, "".join(map(_line, self._begun))), (TABLE_FILE, _table(self._begun, head=True))
        ):  # fmt: skip
            data = text.encode()
            write_atomic(self.folder / name, data)
            self._sizes[name] = len(data)

    def append(self, point: Point) -> None:
        """Adds a point, and those that could not be written before. Raises OSError if it still cannot be."""
        self._waiting.append(point)
        self.write()

    def write(self) -> None:
        """Append the pending points. Raises OSError if that fails again."""
        if len(self._sizes) < 2:
            self._rewrite()
        if not self._waiting:
            return
        lines = (METRICS_FILE, "".join(map(_line, self._waiting))), (TABLE_FILE, _table(self._waiting))
        for name, text in lines:
            with (self.folder / name).open("r+b") as file:
                file.truncate(self._sizes[name])  # of half a line that a full disk has left
                file.seek(self._sizes[name])
                file.write(text.encode())
                file.flush()
        for name, text in lines:
            self._sizes[name] += len(text.encode())
        self._waiting.clear()

    def keep(self) -> None:
        """Has all that was added on the disk. Raises OSError if it cannot."""
        for name in self._sizes:
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())


def _line(point: Point) -> str:
    return json.dumps(asdict(point)) + "\n"


def _table(points: Sequence[Point], head: bool = False) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([COLUMNS] if head else [])
    writer.writerows([["" if value is None else value for value in asdict(point).values()] for point in points])
    return out.getvalue()


def read_metrics(folder: Path, until: int = MAX_ITERATIONS) -> list[Point]:
    """The points of a run in order; none if nothing was read yet. A last line that was not finished is no point.

    `until`: none after that iteration, behind which a power cut may have left anything. Raises UsageError if what comes
    before is not what a run writes.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    *lines, _ = read_bounded(path, MAX_METRICS).split(b"\n")
    found: list[Point] = []
    for number, line in enumerate(lines, start=1):
        if (found[-1].iteration if found else 0) >= until:
            break
        point = _point(line)
        if point is None or (found and point.iteration <= found[-1].iteration):
            raise UsageError(f"`{path}`, line {number}: not what a run writes")
        found.append(point)
    return [point for point in found if point.iteration <= until]


def _point(line: bytes) -> Point | None:
    try:
        values = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != set(COLUMNS):
        return None
    for name, value in values.items():
        if value is None and name.startswith(("test_", "validation_")):
            continue
        most = 100 if name.endswith("_percent") else LARGEST
        if type(value) not in (int, float) or not 0 <= value <= most:  # which NaN is not
            return None
    whole = values["iteration"]
    return Point(**values) if type(whole) is int and 1 <= whole <= MAX_ITERATIONS else None
