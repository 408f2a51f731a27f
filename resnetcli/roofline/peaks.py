"""Peak rates of a device: FLOP/s per dtype, memory bandwidth, and the cost of launching a kernel.

They are measured (`roofline.calibrate`) or taken from a datasheet, stored as JSON (`roofline.profiles`), and used
without torch.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import field
from itertools import pairwise
from typing import Annotated, Literal

from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.structure import Bounds, Check

DTYPE_BYTES: Mapping[str, int] = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}
"""Compute dtypes, and the bytes of an element in memory."""
PerSecond = Annotated[float, Bounds(1, 1e21)]
Seconds = Annotated[float, Bounds(0, 1)]
"""Limits of a profile: within these the lower bound of every model is finite."""


@frozen
class Peak:
    """Peak FLOP/s in one dtype; a multiply-accumulate is two."""

    matmul_flop_s: PerSecond
    conv_flop_s: PerSecond
    """Of a dense 3x3 convolution, as direct convolution: no FLOPs are deducted for a transform."""

    @property
    def best(self) -> float:
        """The larger of the two: the limit of a convolution, which may run as either."""
        return max(self.matmul_flop_s, self.conv_flop_s)


@frozen
class Bandwidth:
    """Bytes per second at one working set."""

    working_set_bytes: Annotated[int, Bounds(1, 2**50)]
    """Bytes read and written, together. Up to 2^50, the logarithms of two whole numbers differ."""
    copy_bytes_s: PerSecond
    """Read and written, each byte of both counted."""
    read_bytes_s: PerSecond
    """Read only; at least `copy_bytes_s`."""


def _rises(entries: tuple[Bandwidth, ...]) -> bool:
    return all(low.working_set_bytes < high.working_set_bytes for low, high in pairwise(entries))


def _reads_fast(entries: tuple[Bandwidth, ...]) -> bool:
    return all(rate.copy_bytes_s <= rate.read_bytes_s for rate in entries)


def _by_dtype(peaks: Mapping[str, Peak]) -> bool:
    return peaks.keys() <= DTYPE_BYTES.keys()


PEAKS_RULES = (Bounds(1), Check(_by_dtype, f"by dtype: {', '.join(DTYPE_BYTES)}"))
BANDWIDTH_RULES = (
    Bounds(1),
    Check(_rises, "sorted by working_set_bytes, each size once"),
    Check(_reads_fast, "such that read_bytes_s is at least copy_bytes_s"),
)


@frozen
class DevicePeaks:
    """Peak rates of a device. The annotations are the format of a device profile."""

    name: str
    """The maker's name of the device."""
    device: str
    """`cpu`, `cuda`."""
    source: Literal["measured", "datasheet"]
    peaks: Annotated[Mapping[str, Peak], *PEAKS_RULES]
    """By dtype; a missing one is not supported or was not measured."""
    bandwidth: Annotated[tuple[Bandwidth, ...], *BANDWIDTH_RULES]
    """By rising working set."""
    launch_s: Seconds
    """Time to launch one kernel after another; 0 if unknown."""
    gap_s: Seconds
    """Idle time of the device between queued kernels; on a CPU `launch_s`."""
    conditions: Mapping[str, str] = field(default_factory=dict)
    """Conditions of the measurement, or the datasheet."""
    noisy: tuple[str, ...] = ()
    """Why the figures are unreliable: what else ran during the measurement."""

    def seconds(self, read: int, written: int) -> float:
        """Minimum time to read and write so many bytes.

        t = (both + written) / copy rate + (read - both) / read rate, both = min(read, written): written bytes are
        copied, further bytes only read. The rates are those of a working set of all the bytes.
        """
        copy, only = self.rates_at(read + written)
        both = min(read, written)
        return (both + written) / copy + (read - both) / only

    def rates_at(self, working_set: int) -> tuple[float, float]:
        """Copy and read rate at a working set, linear in its logarithm between measured sizes."""
        rates = self.bandwidth
        above = bisect_right([rate.working_set_bytes for rate in rates], working_set)
        if above in {0, len(rates)}:
            nearest = rates[0 if above == 0 else -1]
            return nearest.copy_bytes_s, nearest.read_bytes_s
        low, high = rates[above - 1], rates[above]
        size = low.working_set_bytes
        part = math.log(working_set / size) / math.log(high.working_set_bytes / size)
        return (
            low.copy_bytes_s + part * (high.copy_bytes_s - low.copy_bytes_s),
            low.read_bytes_s + part * (high.read_bytes_s - low.read_bytes_s),
        )

    def peak(self, dtype: str) -> Peak:
        """Peak FLOP/s in a dtype. Raises UsageError if it is unknown."""
        if dtype not in self.peaks:
            raise UsageError(f"no peak FLOP/s of {self.name} in `{dtype}`", f"known: {', '.join(self.peaks)}")
        return self.peaks[dtype]
