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


NO_ALGORITHM = "unable to find an engine"
"""cuDNN's words if no algorithm for a convolution runs: PyTorch catches the out-of-memory errors of those it tries."""
OUT_OF_MEMORY = (
    "out of memory",  # CUDA's runtime and driver, as when a context is created, and Triton
    "can't allocate memory",  # the CPU allocator
    "not enough memory",  # the same on Windows
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    NO_ALGORITHM,
)
"""Parts of error messages that mean too little memory but come as a plain RuntimeError."""
DEVICE_ERROR = re.compile(r"CUDA (driver )?error|cuDNN error|CUDNN_STATUS_\w+|CUBLAS_STATUS_\w+|CUFFT_\w+|NCCL error")
"""What errors of a GPU's libraries have in their messages. PyTorch raises them as RuntimeError, too."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory does not suffice, whichever library raised it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether nothing more can be computed on a GPU in this process: a kernel has failed, or the GPU has vanished."""
    return "CUDA error" in str(error) and "_STATUS_" not in str(error) and not is_out_of_memory(error)


@contextmanager
def fitting(what: str, device: torch.device, hint: str = "") -> Iterator[None]:
    """Turn an out-of-memory error into NoRoom and an error of a GPU's libraries into ResourceError, naming `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error)
        if is_out_of_memory(error):
            asked = re.search(r"tried to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
            piece = f" (failed to allocate {asked[1]})" if asked else ""
            if NO_ALGORITHM in text:
                piece = ": cuDNN found no convolution algorithm that can run"
            raise NoRoom(f"{what} does not fit into the memory of `{device}`{piece}", hint) from None
        if DEVICE_ERROR.search(text):  # the device has vanished, a kernel has failed, a library does not load
            raise ResourceError(f"{what} could not be run on `{device}`: {text.splitlines()[0]}", hint) from None
        raise


def gigabytes(size: int) -> str:
    """`size` bytes in words: "25.3 GB"."""
    return f"{size / 1e9:.3g} GB" if size < 999.5e9 else f"{size / 1e12:,.4g} TB"
