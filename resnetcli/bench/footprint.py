"""Memory of a process that only runs one model, measured in a separate process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

import torch

from resnetcli.bench.environment import Ask, ask
from resnetcli.bench.peak import gpu_peak_memory, highest, peak_memory
from resnetcli.frozen import frozen


@frozen
class Footprint:
    """Sizes in bytes; None if the platform does not report them."""

    peak_bytes: int | None
    """Peak above the level before the call, plus the images. CPU: resident memory, which includes pages of libraries
    that were not needed before. GPU: memory allocated by PyTorch."""
    reserved_bytes: int | None
    """Peak GPU memory held by PyTorch's allocator, the weights included."""
    process_bytes: int | None
    """The whole process. CPU: its peak resident memory. GPU: its memory by the driver."""


def footprint(
    call: Callable[[], object],
    images_bytes: int,
    place: torch.device,
    *,
    captured_bytes: int | None = None,
    ask: Ask = ask,
) -> Footprint:
    """The memory of a model that is built and has not run; `images_bytes` is the size of its images, already allocated.

    On a CPU that of the first call: memory kept for reuse would hide what the next one takes. On a GPU that of the
    second: in the first, convolutions try algorithms that take more than the one they choose. That of a CUDA graph is
    the memory of its capture: a replay allocates nothing.
    """
    if place.type == "cpu":
        _, above = peak_memory(call)
        return Footprint(None if above is None else above + images_bytes, None, highest())
    call()
    torch.cuda.synchronize(place)
    torch.cuda.empty_cache()
    peak = gpu_peak_memory(call, place)
    above = peak if captured_bytes is None else captured_bytes
    return Footprint(above + images_bytes, torch.cuda.max_memory_reserved(place), driver_memory(os.getpid(), ask))


def driver_memory(process: int, ask: Ask = ask) -> int | None:
    """GPU bytes of a process by the driver; None if it does not list the process, as in most containers."""
    listed = ask(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]) or ""
    sizes = []
    for line in listed.splitlines():
        pid, _, mebibytes = line.partition(",")
        with suppress(ValueError):  # "[N/A]"
            if int(pid) == process:
                sizes.append(int(mebibytes) * 2**20)
    return sum(sizes) or None
