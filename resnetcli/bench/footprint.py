"""What memory a process takes that does nothing but run a net: to be asked for in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import torch

from resnetcli.bench.environment import Ask, ask
from resnetcli.bench.peak import highest, peak_memory


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes; None is what nobody tells."""

    peak_bytes: int | None
    """The most above what there was before the call, the images included: of a CPU what is resident, pages of libraries
    that were not needed before among it; of a GPU what PyTorch has allocated."""
    reserved_bytes: int | None
    """The most of a GPU that PyTorch's allocator held, the weights included."""
    process_bytes: int | None
    """All of the process: of a CPU the most that was ever resident, of a GPU what its driver says of it."""


def footprint(
    call: Callable[[], object],
    images_bytes: int,
    place: torch.device,
    *,
    captured_bytes: int | None = None,
    ask: Ask = ask,
) -> Footprint:
    """Of a net that is built and has not run; `images_bytes` is what its images take, which are there already.

    A CPU's is of the first call, after which memory that was kept for reuse would hide what the next one takes. A GPU's
    is of the second, since at the first convolutions try out algorithms that take more than the one they choose; that
    of a CUDA graph is what its capture took, since a replay allocates nothing.
    """
    if place.type == "cpu":
        _, above = peak_memory(call)
        return Footprint(None if above is None else above + images_bytes, None, highest())
    call()
    torch.cuda.synchronize(place)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place) - images_bytes
    call()
    torch.cuda.synchronize(place)
    above = torch.cuda.max_memory_allocated(place) - before
    if captured_bytes is not None:
        above = captured_bytes + images_bytes
    return Footprint(above, torch.cuda.max_memory_reserved(place), driver_s_account(os.getpid(), ask))


def driver_s_account(process: int, ask: Ask = ask) -> int | None:
    """The bytes of GPUs that the driver says a process has; None where it does not list it, as in most containers."""
    listed = ask(["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]) or ""
    found = []
    for line in listed.splitlines():
        pid, _, mebibytes = line.partition(",")
        with suppress(ValueError):  # "[N/A]"
            if int(pid) == process:
                found.append(int(mebibytes) * 2**20)
    return sum(found) or None
