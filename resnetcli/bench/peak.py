"""Peak memory of a call: on a CPU from Linux's accounting of this process, on a GPU from PyTorch's allocator."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def peak_memory(call: Callable[[], T]) -> tuple[T, int | None]:
    """The call's result, and its peak of resident bytes above those before; None if the platform does not report it.

    The process's peak is reset first, and memory that the C library keeps for reuse is returned: the call could be
    given memory that already counts as resident.
    """
    with suppress(OSError, AttributeError):  # not every C library has it
        ctypes.CDLL(None).malloc_trim(0)
    before = None
    with suppress(OSError, KeyError):
        Path("/proc/self/clear_refs").write_text("5")
        before = _status("VmRSS")
    result = call()
    return result, None if before is None else max(0, _status("VmHWM") - before)


def gpu_peak_memory(call: Callable[[], object], place: torch.device) -> int:
    """Peak bytes that PyTorch allocates on a GPU during the call, above those before."""
    import torch

    torch.cuda.synchronize(place)
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place)
    call()
    torch.cuda.synchronize(place)
    return torch.cuda.max_memory_allocated(place) - before


def highest() -> int | None:
    """Peak resident bytes of this process; None if the platform does not report them."""
    with suppress(OSError, KeyError):
        return _status("VmHWM")
    return None


def _status(key: str) -> int:
    """A value of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return int(fields[key].split()[0]) * 1024
