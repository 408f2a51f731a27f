"""Let glibc's allocator keep freed memory for the next call, instead of returning it to the system."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping
from typing import cast

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Parameters of glibc's `mallopt`."""
OTHER_ALLOCATORS = ("mallctl", "tc_malloc", "mi_malloc")
"""Symbols that only jemalloc, tcmalloc and mimalloc have, which, if used, are loaded before the C library."""


def keep_freed_memory() -> None:
    """Keep all freed memory: otherwise the system has to map and clear its pages again at every call.

    M_MMAP_MAX = 0 stops mapping large blocks one by one: glibc before 2.35 refuses a sufficient M_MMAP_THRESHOLD.
    """
    _set({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def return_freed_memory() -> None:
    """Return freed memory to the system again, up to the largest thresholds that glibc sets by default."""
    _set({M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26})


def is_adjustable() -> bool:
    """Whether the allocator in use is glibc's."""
    return _mallopt() is not None


def _set(parameters: Mapping[int, int]) -> None:
    if (mallopt := _mallopt()) is not None:
        for parameter, value in parameters.items():
            mallopt(parameter, value)


def _mallopt() -> Callable[[int, int], object] | None:
    """glibc's; None for another C library, and if another allocator was loaded before it."""
    try:
        loaded = ctypes.CDLL(None)
        # Not by the address of `malloc`, which in some programs, Debian's Python among them, is the program's own stub.
        if any(hasattr(loaded, name) for name in OTHER_ALLOCATORS):
            return None
        return cast("Callable[[int, int], object]", ctypes.CDLL("libc.so.6").mallopt)
    except (OSError, AttributeError, TypeError):
        return None
