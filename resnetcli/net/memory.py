"""What memory there is, and a clear error where it does not suffice."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from resnetcli.cgroup import own_folders
from resnetcli.errors import ResourceError


class NoRoom(ResourceError):  # noqa: N818 - what is the matter
    """A memory that does not suffice."""


def physical_memory(root: Path = Path("/")) -> int:
    """Bytes this process may use: the machine's memory, or its container's or job's if that has less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [folder / "memory.max" for folder in own_folders("", "", root)]
    limits += [folder / "memory.limit_in_bytes" for folder in own_folders("memory", "memory", root)]
    for limit in limits:
        with suppress(OSError, ValueError):  # the file says "max" where there is no limit
            total = min(total, int(limit.read_text()))
    return total


def require(what: str, needed: int, device: torch.device, hint: str = "") -> None:
    """Raises ResourceError if `needed` bytes are more than the machine has.

    Asked before anything is allocated on a CPU, since Linux grants memory that it does not have and kills the process
    later. A GPU says so itself.
    """
    if device.type == "cpu" and needed > physical_memory():
        raise NoRoom(f"{what} would take {gigabytes(needed)}, this machine has {gigabytes(physical_memory())}", hint)


@contextmanager
def fitting(what: str, device: torch.device, hint: str = "") -> Iterator[None]:
    """Turns an allocator's error into a ResourceError that says `what` was to fit, and where; and a GPU's own."""
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one; the CPU's allocator raises the plain class
        text = str(error)
        if "CUDA error" in text:  # it has vanished, or a kernel has failed
            raise ResourceError(f"{what} could not be run on `{device}`: {text.splitlines()[0]}", hint) from None
        if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in text:
            raise
        asked = re.search(r"tried to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
        piece = f", {asked[1]} of it at once" if asked else ""
        raise NoRoom(f"{what} does not fit into the memory of `{device}`{piece}", hint) from None


def gigabytes(size: int) -> str:
    """`size` bytes in words: "25.3 GB"."""
    return f"{size / 1e9:.3g} GB" if size < 999.5e9 else f"{size / 1e12:,.4g} TB"
