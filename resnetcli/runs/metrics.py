"""Readings of a training run: one line each in two files, cut off at the last checkpoint by a resume."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from itertools import combinations
from math import lcm
from pathlib import Path

from resnetcli.errors import UsageError
from resnetcli.files import read_bounded, write_atomic
from resnetcli.frozen import frozen
from resnetcli.runs.config import MAX_ITERATIONS, Config
from resnetcli.runs.layout import EDITED, METRICS_FILE, TABLE_FILE

READ_EVERY = 100
"""Iterations between readings. More frequent ones would leave a GPU idle while the host waits."""
MAX_METRICS = 64 * 2**20
MAX_LINE = 512
"""Bytes of a line: eleven numbers of any length."""
MAX_POINTS = MAX_METRICS // MAX_LINE
"""Readings of a run, so that its file stays below MAX_METRICS. A line has some 350 bytes, which leaves space for those
at a signal."""


@frozen
class Point:
    """A reading: training since the previous one, and the test set if an evaluation was due."""

    iteration: int
    epoch: float
    lr: float
    train_loss: float
    train_error_percent: float
    """Augmented training images, each before the update it contributes to."""
    validation_loss: float | None
    validation_error_percent: float | None
    test_loss: float | None
    """None also if it is not finite."""
    test_error_percent: float | None
    images_per_s: float
    """Throughput of training, excluding evaluation and checkpoints."""
    wall_s: float
    """Seconds of all sessions, excluding the time between a stop and a resume."""


COLUMNS = tuple(each.name for each in fields(Point))


def intervals(config: Config) -> tuple[int, int, int]:
    """Iterations between readings, evaluations and checkpoints, each of which is a point; fewer readings in long runs.

    Raises UsageError if evaluations and checkpoints alone are more than MAX_POINTS.
    """
    total, asked, every = config.iterations, (config.eval_every, config.checkpoint_every), READ_EVERY
    if _multiples(total, *asked) > MAX_POINTS:
        raise UsageError(
            f"evaluations and checkpoints at more than {MAX_POINTS:,} of {total:,} iterations",
            f"`--eval-every` and `--checkpoint-every` of {2 * total // MAX_POINTS + 1:,} or more",
        )
    while _multiples(total, every, *asked) > MAX_POINTS:
        every *= 10
    return every, *asked


def _multiples(most: int, *of: int) -> int:
    """How many numbers from 1 to `most` are a multiple of at least one of `of`."""
    return sum((-1) ** (n + 1) * (most // lcm(*some)) for n in range(1, len(of) + 1) for some in combinations(of, n))


@dataclass
class Metrics:
    """The two files of points, to append to. Points that cannot be written are written with the next."""

    folder: Path
    until: int
    """Points after this iteration are cut off: the run resumes there."""
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
        """Append a point and the pending ones. Raises OSError if that fails."""
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
                file.truncate(self._sizes[name])  # half a line that a full disk has left
                file.seek(self._sizes[name])
                file.write(text.encode())
                file.flush()
        for name, text in lines:
            self._sizes[name] += len(text.encode())
        self._waiting.clear()

    def sync(self) -> None:
        """Flush both files to disk. Raises OSError if that fails."""
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
    """The points of a run in order; none before the first reading. An unfinished last line is ignored.

    `until`: stop after that iteration, since a power cut may have left anything behind it. Raises UsageError if the
    lines before it are invalid.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    *lines, _ = read_bounded(path, MAX_METRICS).split(b"\n")
    points: list[Point] = []
    for number, line in enumerate(lines, start=1):
        if (points[-1].iteration if points else 0) >= until:
            break
        point = _point(line)
        if point is None or (points and point.iteration <= points[-1].iteration):
            raise UsageError(f"`{path}`, line {number}: not a reading of a run", EDITED)
        points.append(point)
    return [point for point in points if point.iteration <= until]


def _point(line: bytes) -> Point | None:
    """The reading of a line; None if it is invalid. A file can have 100,000 lines, so this is not `structure`."""
    try:
        values = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != set(COLUMNS):
        return None
    for name, value in values.items():
        if value is None and name.startswith(("test_", "validation_")):
            continue
        most = 100 if name.endswith("_percent") else sys.float_info.max
        if type(value) not in (int, float) or not 0 <= value <= most:  # NaN is not
            return None
    at = values["iteration"]
    return Point(**values) if type(at) is int and 1 <= at <= MAX_ITERATIONS else None
