"""Physical memory, and clear errors for models that do not fit."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from resnetcli.cgroup import own_folders
from resnetcli.errors import ResourceError, first_line


class NoRoom(ResourceError):  # noqa: N818
    """Out of memory."""


def physical_memory(root: Path = Path("/")) -> int:
    """Bytes this process can use: the machine's memory, or the limit of its container or job if that is lower."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limits = [folder / "memory.max" for folder in own_folders("", "", root)]
    limits += [folder / "memory.limit_in_bytes" for folder in own_folders("memory", "memory", root)]
    for limit in limits:
        with suppress(OSError, ValueError):  # the content is "max" if there is no limit
            total = min(total, int(limit.read_text()))
    return total


def require(what: str, needed: int, device: torch.device, hint: str = "") -> None:
    """Raise NoRoom if `needed` bytes exceed the machine's memory.

    Only for the CPU: Linux overcommits and kills the process later, whereas allocating on a GPU fails at once.
    """
    if device.type == "cpu" and needed > physical_memory():
        raise NoRoom(f"{what} would take {gigabytes(needed)}, this machine has {gigabytes(physical_memory())}", hint)


NO_ALGORITHM = "unable to find an engine"
"""cuDNN's message if no convolution algorithm runs: PyTorch hides the out-of-memory errors of those it tried."""
OUT_OF_MEMORY = (
    "out of memory",  # CUDA's runtime and driver, as when a context is created, and Triton
    "can't allocate memory",  # the CPU allocator
    "not enough memory",  # the same on Windows
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
    NO_ALGORITHM,
)
"""Parts of out-of-memory messages that are raised as plain RuntimeError."""
DEVICE_ERROR = re.compile(r"CUDA (driver )?error|cuDNN error|CUDNN_STATUS_\w+|CUBLAS_STATUS_\w+|CUFFT_\w+|NCCL error")
"""Parts of messages of GPU libraries, also raised as plain RuntimeError."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of any library means out of memory."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(part in str(error) for part in OUT_OF_MEMORY)


def is_device_lost(error: BaseException) -> bool:
    """Whether this process cannot use the GPU any more: a kernel failed, or the GPU is lost."""
    return "CUDA error" in str(error) and "_STATUS_" not in str(error) and not is_out_of_memory(error)


@contextmanager
def fitting(what: str, device: torch.device, hint: str = "") -> Iterator[None]:
    """Context manager: raise out-of-memory errors as NoRoom, errors of GPU libraries as ResourceError, about `what`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is a RuntimeError
        text = str(error)
        if is_out_of_memory(error):
            size = re.search(r"tried to allocate ([\d.]+ \w+)", text, re.IGNORECASE)
            piece = f" (failed to allocate {size[1]})" if size else ""
            if NO_ALGORITHM in text:
                piece = ": cuDNN found no convolution algorithm that can run"
            raise NoRoom(f"{what} does not fit into the memory of `{device}`{piece}", hint) from None
        if DEVICE_ERROR.search(text):  # the device is lost, a kernel failed, a library cannot be loaded
            raise ResourceError(f"{what} could not be run on `{device}`: {first_line(text)}", hint) from None
        raise


def gigabytes(size: int) -> str:
    """Format bytes: "25.3 GB"."""
    return f"{size / 1e9:.3g} GB" if size < 999.5e9 else f"{size / 1e12:,.4g} TB"
