"""The peak of the CPU memory that a call needs, read from Linux's own account of this process."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def peak_memory(call: Callable[[], T]) -> tuple[T, int | None]:
    """The call's result, and the bytes resident at its worst moment above those before; None where nobody counts.

    The process's own peak is set back first, and what the C library keeps for reuse is returned, or the call would be
    handed memory that already counts as resident.
    """
    with suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    before = None
    with suppress(OSError, KeyError):
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    result = call()
    return result, None if before is None else max(0, _status("VmHWM") - before)


def highest() -> int | None:
    """The most bytes of this process that were ever resident; None where nobody counts."""
    with suppress(OSError, KeyError):
        return _status("VmHWM")
    return None


def _status(key: str) -> int:
    """One of the kernel's figures on this process, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields[key].split()[0]) * 1024
