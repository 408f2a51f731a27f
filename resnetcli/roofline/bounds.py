"""Lower bound of a model's latency on a device, step by step (Williams et al. 2009, "Roofline").

    step: max(FLOPs / peak, bytes / bandwidth) + kernels x gap
    model: max(sum of steps, kernels x launch)

Nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import field
from typing import Any, Literal

from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.ops import Execution, Linear, Traffic
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from resnetcli.plan.traffic import traffic
from resnetcli.plan.training import is_traced
from resnetcli.roofline.peaks import DTYPE_BYTES, DevicePeaks

MAX_BATCH = 10**12
Bound = Literal["compute", "memory", "overhead"]
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "overhead")


@frozen
class RooflineCost:
    """Work of one or more steps for one batch, and its minimum time by cause."""

    flops: int = 0
    bytes: int = 0
    """Read and written."""
    kernels: int = 0
    compute_s: float = 0.0
    """Compute time of the steps whose compute takes longer than their memory traffic."""
    memory_s: float = 0.0
    """Memory time of the other steps."""
    overhead_s: float = 0.0
    """Launch overhead."""

    @property
    def lower_bound_s(self) -> float:
        return self.compute_s + self.memory_s + self.overhead_s

    @property
    def intensity(self) -> float:
        """Arithmetic intensity in FLOPs per byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def seconds(self) -> dict[Bound, float]:
        """The lower bound by cause."""
        return {"compute": self.compute_s, "memory": self.memory_s, "overhead": self.overhead_s}

    @property
    def bound(self) -> Bound | None:
        """The largest cause; None for steps that launch nothing."""
        if not self.kernels:
            return None
        seconds = self.seconds
        return max(seconds, key=lambda cause: seconds[cause])

    def __add__(self, other: RooflineCost) -> RooflineCost:
        return RooflineCost(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.kernels + other.kernels,
            self.compute_s + other.compute_s,
            self.memory_s + other.memory_s,
            self.overhead_s + other.overhead_s,
        )

    def record(self) -> dict[str, Any]:
        return {
            "lower_bound_s": self.lower_bound_s,
            **{f"{cause}_s": seconds for cause, seconds in self.seconds.items()},
            "flops": self.flops,
            "bytes": self.bytes,
            "kernels": self.kernels,
        }


@frozen
class LowerBound:
    """Minimum latency of a model on a device, for one batch."""

    dtype: str
    batch_size: int
    fused: bool
    """Whether element-wise steps are fused into other kernels, or launched one by one as in eager PyTorch."""
    channels_last: bool
    """Whether feature maps are in that format; a GPU then copies some."""
    steps: tuple[RooflineCost, ...] = field(repr=False)
    """One per step of the plan."""
    total: RooflineCost
    """Their sum; its overhead is larger than theirs if kernels cannot be launched as fast as they run."""

    @property
    def seconds(self) -> float:
        return self.total.lower_bound_s

    @property
    def shares(self) -> dict[Bound, float]:
        """Fractions of the lower bound by cause; they sum to 1."""
        return {cause: seconds / self.seconds for cause, seconds in self.total.seconds.items()}


def lower_bound(
    plan: Plan,
    device_peaks: DevicePeaks,
    *,
    dtype: str = "fp32",
    batch_size: int = 1,
    fused: bool = False,
    channels_last: bool = False,
    linear_dtype: str | None = None,
) -> LowerBound:
    """Compute the minimum latency of a model on a device.

    `linear_dtype` is the compute precision of fully connected layers if it differs from `dtype`: by default PyTorch
    allows TF32 only in convolutions. Raises UsageError for a dtype without a peak, an invalid batch size, a traced
    model (its memory traffic is unknown), a model without kernels, and peaks that give an infinite time.
    """
    if not 1 <= batch_size <= MAX_BATCH:
        hint = f"at least 1{f', at most {MAX_BATCH:,}' if batch_size > 0 else ''}"
        raise UsageError(f"invalid batch size {batch_size}", hint)
    if is_traced(plan):
        raise UsageError(f"`{plan.name}` is a PyTorch model: its memory traffic is not known", "write its spec")
    peak, size = device_peaks.peak(dtype), DTYPE_BYTES[dtype]
    matmul = device_peaks.peak(linear_dtype or dtype).matmul_flop_s
    execution = Execution("cuda" if device_peaks.device == "cuda" else "cpu", dtype, channels_last)
    steps = []
    for step, cost, moved in zip(
        plan.steps, count(plan).steps, traffic(plan, fused=fused, execution=execution), strict=True
    ):
        flops = batch_size * cost.flops
        compute_s = flops / (matmul if isinstance(step.op, Linear) else peak.best)
        steps.append(_step_cost(device_peaks, flops, compute_s, moved, batch_size, size))
    total = add_costs(steps)
    if not total.kernels:
        problem = f"`{plan.name}` launches no kernels, so it has no lower bound"
        raise UsageError(problem, "add a layer that computes, e.g. `3x3 64`")
    if not math.isfinite(total.lower_bound_s) or total.lower_bound_s <= 0:
        problem = f"the peaks of {device_peaks.name} give `{plan.name}` a lower bound of {total.lower_bound_s:g} s"
        raise UsageError(problem, "check the device profile")
    waiting_s = max(0.0, total.kernels * device_peaks.launch_s - total.lower_bound_s)
    return LowerBound(dtype, batch_size, fused, channels_last, tuple(steps), total + RooflineCost(overhead_s=waiting_s))


def _step_cost(
    device_peaks: DevicePeaks, flops: int, compute_s: float, moved: Traffic, batch_size: int, size: int
) -> RooflineCost:
    """The larger of compute and memory takes all of a step's time; its kernels' launch gaps come on top."""
    read, written = moved.read_bytes(batch_size, size), moved.written_bytes(batch_size, size)
    memory_s = device_peaks.seconds(read, written) if read + written else 0.0
    compute_bound = compute_s > memory_s
    return RooflineCost(
        flops,
        read + written,
        moved.kernels,
        compute_s if compute_bound else 0.0,
        0.0 if compute_bound else memory_s,
        moved.kernels * device_peaks.gap_s,
    )


def add_costs(costs: Iterable[RooflineCost]) -> RooflineCost:
    """The sum, exact in its integers."""
    return sum(costs, RooflineCost())
