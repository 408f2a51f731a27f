"""A run's readings as TensorBoard events: files in its directory with the content of metrics.jsonl.

Each session starts a file with all readings so far, preceded by the mark that makes TensorBoard discard those of older
files. A resume thus drops the readings after its checkpoint, and a run that was trained without events for a while has
no gap. The files are written in the session's thread. `torch.utils.tensorboard.SummaryWriter` has its own: on a full
disk that thread ends with a traceback and its pending events are lost.
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
from resnetcli.runs.layout import EVENT_FILES
from resnetcli.runs.metrics import COLUMNS, Point, read_metrics

PACKAGE = "tensorboard"
MODULES = ("compat.proto.event_pb2", "compat.proto.summary_pb2", "summary.writer.record_writer")


def _tag(column: str) -> str:
    """`train_loss` is `loss/train`: TensorBoard groups tags by their prefix."""
    split, _, what = column.partition("_")
    return f"{what}/{split}" if split in ("train", "validation", "test") else column


TAGS = {column: _tag(column) for column in COLUMNS if column not in ("iteration", "wall_s")}
"""The tag of each column; the other two are an event's step and time."""


def import_package() -> list[Any]:
    """The package's modules: events, summaries, records. Raises UsageError if it cannot be imported."""
    hint = "`pip install 'resnet-cli[tensorboard]'`, or omit `--tensorboard`"
    try:
        with warnings.catch_warnings():  # for its developers
            warnings.simplefilter("ignore")
            return [import_module(f"{PACKAGE}.{name}") for name in MODULES]
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == PACKAGE:
            raise UsageError(f"the package `{PACKAGE}` is not installed", hint) from None
        raise UsageError(f"the package `{PACKAGE}` cannot be imported: {error_text(error)}", hint) from None


def event_files(run: Path) -> list[Path]:
    """A run's event files, oldest first; empty if it never had `--tensorboard`."""
    return sorted(run.glob(EVENT_FILES))


class EventWriter:
    """A session's event file, to append to. Points that cannot be written are written with the next."""

    def __init__(self, run: Path, clock: Callable[[], float] = time.time) -> None:
        """For a run whose readings end where the session resumes. Raises UsageError as `import_package`."""
        self._events, self._summaries, self._records = import_package()
        self._run, self._size, self._clock = run, 0, clock
        self._waiting = read_metrics(run)
        self._begun = clock() - (self._waiting[-1].wall_s if self._waiting else 0.0)
        self._path = self._new()

    def _new(self) -> Path:
        """A name after all others, even if the clock was set back: TensorBoard reads files in order of name."""
        numbers = [int(part) for path in event_files(self._run) if (part := path.name.split(".")[3]).isdecimal()]
        now = max(round(self._clock() * 1e9), *(number + 1 for number in numbers), 0)
        return self._run / EVENT_FILES.replace("*", str(now))

    def write(self, *points: Point) -> None:
        """Append points and the pending ones. Raises OSError if that fails."""
        self._waiting += points
        if self._size and not self._path.exists():  # it was removed: continue in another file
            self._path, self._size = self._new(), 0
        data = b"".join(map(self._point, self._waiting))
        if self._size:
            with self._path.open("r+b") as file:
                file.truncate(self._size)  # half a record that a full disk has left
                file.seek(self._size)
                file.write(data)
        else:
            data = self._head() + data
            write_atomic(self._path, data)
            self._clear()
        self._size += len(data)
        self._waiting.clear()

    def _clear(self) -> None:
        """Remove the files of other sessions except the last, which an open TensorBoard may be reading."""
        before = [path for path in event_files(self._run) if path < self._path][-1:]
        drafts = drafts_of(self._path, EVENT_FILES)  # of killed sessions
        for path in (*event_files(self._run), *drafts):
            if path not in (*before, self._path):
                with suppress(OSError):  # harmless: it precedes the mark
                    path.unlink()

    def _head(self) -> bytes:
        """The version, and the mark that discards everything before from step 0 on."""
        start = self._events.SessionLog(status=self._events.SessionLog.START)
        return self._record(file_version="brain.Event:2") + self._record(session_log=start)

    def _point(self, point: Point) -> bytes:
        """A point's event, at the time it would have had without interruptions."""
        values = asdict(point)
        scalars = [self._summaries.Summary.Value(tag=tag, simple_value=values[column])
                   for column, tag in TAGS.items() if values[column] is not None]  # fmt: skip
        return self._record(point.wall_s, step=point.iteration, summary=self._summaries.Summary(value=scalars))

    def _record(self, wall_s: float = 0.0, **content: Any) -> bytes:
        event = self._events.Event(wall_time=self._begun + wall_s, **content)
        out = io.BytesIO()
        self._records.RecordWriter(out).write(event.SerializeToString())
        return out.getvalue()
