"""A run's readings for TensorBoard: event files in its directory that say what metrics.jsonl says.

Each session begins a file with all readings so far, and with the mark by which TensorBoard forgets what it has read in
files before. So a resume takes back what was read after its checkpoint, and there is no gap in a run that was begun, or
for a while gone on with, without them. They are written in the session's own thread, not in one of their own as
`torch.utils.tensorboard.SummaryWriter` does it: on a full disk that one ends with a traceback, and loses what it still
had to write.
"""

from __future__ import annotations

import io
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from resnetcli.errors import UsageError, error_text
from resnetcli.files import drafts_of, write_atomic
from resnetcli.runs.directory import EVENT_FILES
from resnetcli.runs.metrics import COLUMNS, Point, read_metrics

PACKAGE = "tensorboard"
MODULES = ("compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.record_writer")


def _tag(column: str) -> str:
    """`train_loss` is `loss/train`: TensorBoard shows tags with the same beginning together."""
    split, _, what = column.partition("_")
    return f"{what}/{split}" if split in ("train", "validation", "test") else column


TAGS = {column: _tag(column) for column in COLUMNS if column not in ("iteration", "wall_s")}
"""What each column is called there; the other two are an event's step and its time."""


def load() -> list[Any]:
    """The package's modules: events, summaries, records. Raises UsageError where it cannot be used."""
    hint = "`pip install 'resnet-cli[tensorboard]'`, or leave `--tensorboard` out"
    try:
        with warnings.catch_warnings():  # what it would say to its developers
            warnings.simplefilter("ignore")
            return [import_module(f"{PACKAGE}.{name}") for name in MODULES]
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == PACKAGE:
            raise UsageError(f"the package `{PACKAGE}` is not installed", hint) from None
        raise UsageError(f"the package `{PACKAGE}` cannot be imported: {error_text(error)}", hint) from None


def event_files(run: Path) -> list[Path]:
    """A run's event files, the oldest first; none if it has not been asked for them."""
    return sorted(run.glob(EVENT_FILES))


class Board:
    """A session's event file, to append to. What cannot be written now is written as soon as it can be."""

    def __init__(self, run: Path, clock: Callable[[], float] = time.time) -> None:
        """Of a run whose readings are there, and cut off where the session goes on. Raises UsageError as `load`."""
        self._events, self._summaries, self._records = load()
        self._run, self._size, self._clock = run, 0, clock
        self._waiting = read_metrics(run)
        self._begun = clock() - (self._waiting[-1].wall_s if self._waiting else 0.0)
        self._path = self._new()

    def _new(self) -> Path:
        """Named by its time: TensorBoard reads them in the order of their names, also if the clock was set back."""
        numbers = [int(part) for path in event_files(self._run) if (part := path.name.split(".")[3]).isdecimal()]
        now = max(round(self._clock() * 1e9), *(number + 1 for number in numbers), 0)
        return self._run / EVENT_FILES.replace("*", str(now))

    def write(self, *points: Point) -> None:
        """Adds points, and those that could not be written before. Raises OSError if it cannot."""
        self._waiting += points
        if self._size and not self._path.exists():  # somebody has taken it away: another one for what comes
            self._path, self._size = self._new(), 0
        data = b"".join(map(self._point, self._waiting))
        if self._size:
            with self._path.open("r+b") as file:
                file.truncate(self._size)  # of half a record that a full disk has left
                file.seek(self._size)
                file.write(data)
        else:
            data = self._head() + data
            write_atomic(self._path, data)
            self._clear()
        self._size += len(data)
        self._waiting.clear()

    def _clear(self) -> None:
        """Takes away other sessions' files but the last, where a TensorBoard may be that is to find the way on."""
        before = [path for path in event_files(self._run) if path < self._path][-1:]
        drafts = drafts_of(self._path, EVENT_FILES)  # of sessions that were killed
        for path in (*event_files(self._run), *drafts):
            if path not in (*before, self._path):
                with suppress(OSError):  # one that stays does no harm: it comes before the mark
                    path.unlink()

    def _head(self) -> bytes:
        """The version, and the mark that nothing before counts from step 0 on."""
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        return self._record(file_version="brain.Event:2") + self._record(session_log=start)

    def _point(self, point: Point) -> bytes:
        """At the time at which it would have been, had the run not been stopped in between."""
        values = asdict(point)
        scalars = [self._summaries.Summary.Value(tag=tag, simple_value=values[column])
                   for column, tag in TAGS.items() if values[column] is not None]  # fmt: skip
        return self._record(point.wall_s, step=point.iteration, summary=self._summaries.Summary(value=scalars))

    def _record(self, wall_s: float = 0.0, **content: Any) -> bytes:
        event = self._events.Event(wall_time=self._begun + wall_s, **content)
        out = io.BytesIO()
        self._records.RecordWriter(out).write(event.SerializeToString())
        return out.getvalue()
