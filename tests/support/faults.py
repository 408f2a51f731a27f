"""Count file operations and let one fail: the process is killed before, during or after it, or the disk is full."""

from __future__ import annotations

import errno
import fcntl
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import pytest

MODES = ("before", "half", "after", "full")
"""Killed before, half-way through or after an operation; or it fails once with ENOSPC, half-way through."""


class Killed(BaseException):
    """The process was killed. A BaseException, so that no handler of the package catches it."""


@dataclass
class Faults:
    """Counts operations, and lets operation number `at` fail."""

    at: int = -1
    mode: str = "before"
    error: int = errno.ENOSPC
    operations: list[str] = field(default_factory=list)
    dead: bool = False

    def operation(self, name: str, do: Callable[[], Any], half: Callable[[], object] | None = None) -> Any:
        """Do the operation, unless it is the one that fails. After a kill, every operation raises Killed."""
        if self.dead:
            raise Killed
        number = len(self.operations)
        self.operations.append(name)
        if number != self.at:
            return do()
        if self.mode in ("half", "full") and half is not None:
            half()
        if self.mode == "full":
            raise OSError(self.error, os.strerror(self.error))
        self.dead = True
        if self.mode == "after":
            opened = do()
            if name == "open":  # as the system does when a process ends
                opened.close()
            elif name == "os.open":
                os.close(opened)
        raise Killed


class Written:
    """A file open for writing; bytes reach the disk only when flushed, and are lost if the process is killed before."""

    def __init__(self, raw: IO[bytes], faults: Faults) -> None:
        self.raw, self.faults, self.pending = raw, faults, b""

    def __enter__(self) -> Written:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            if not self.faults.dead:
                self.flush()
        finally:
            self.raw.close()

    def write(self, data: bytes) -> int:
        self.pending += bytes(data)
        return len(data)

    def flush(self) -> None:
        data, self.pending = self.pending, b""
        if data:
            self.faults.operation("write", lambda: self.raw.write(data), lambda: self.raw.write(data[: len(data) // 2]))

    def truncate(self, size: int) -> None:
        self.flush()
        self.faults.operation("truncate", lambda: self.raw.truncate(size))

    def seek(self, place: int) -> int:
        self.flush()
        return self.raw.seek(place)

    def fileno(self) -> int:
        return self.raw.fileno()


@contextmanager
def installed(faults: Faults) -> Iterator[Faults]:
    """Context manager: every file operation that changes something goes through `faults`."""
    with pytest.MonkeyPatch.context() as patched:

        def wrap(module: Any, name: str) -> None:
            real = getattr(module, name)
            patched.setattr(
                module, name, lambda *args, **more: faults.operation(name, lambda: real(*args, **more))
            )  # fmt: skip

        for name in ("mkdir", "unlink", "rmdir", "replace", "rename", "fsync", "pwrite"):
            wrap(os, name)
        wrap(fcntl, "flock")
        real_open, real_os_open = io.open, os.open

        def opened(file: Any, mode: str = "r", *args: Any, **more: Any) -> Any:
            if not set(mode) & set("wax+"):
                return real_open(file, mode, *args, **more)
            assert "b" in mode
            raw = faults.operation("open", lambda: real_open(file, mode, 0))
            return Written(raw, faults)

        def os_opened(path: Any, flags: int, *args: Any, **more: Any) -> int:
            if not flags & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
                return real_os_open(path, flags, *args, **more)
            return int(faults.operation("os.open", lambda: real_os_open(path, flags, *args, **more)))

        patched.setattr(io, "open", opened)
        patched.setattr(os, "open", os_opened)
        yield faults
