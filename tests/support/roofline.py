"""A device with round figures, and analyses of small models on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from resnetcli.bench.environment import Noise
from resnetcli.bench.options import DEFAULT, RunOptions
from resnetcli.ops import Conv
from resnetcli.plan.plan import Plan
from resnetcli.roofline.analysis import Explanation, explain
from resnetcli.roofline.peaks import Bandwidth, DevicePeaks, Peak
from tests.support.sketch import Sketch

ROUND = DevicePeaks("round", "cpu", "measured", {"fp32": Peak(1e6, 2e6), "bf16": Peak(8e6, 8e6)},
                    (Bandwidth(2**20, 1e6, 1e6),), 1e-3, 1e-3)  # fmt: skip
"""1 MB/s, 1 MFLOP/s, 2 MFLOP/s in convolutions, 1 ms per launch."""

NOISE = (Noise("others", 0.4),)


def one_convolution() -> Plan:
    """100 x 10 x 10 -> 1x1 -> 50: 500,000 MACs; 10,000 + 5,000 weights in, 5,000 out."""
    s = Sketch(100, 10, 10)
    s.step("conv", Conv(50, (1, 1)))
    return s.plan()


@dataclass
class FakeMeasurement:
    """The fields of a measurement that an analysis uses."""

    median_s: float
    interval_s: tuple[float, float] = (0.0, 0.0)
    n: int = 10
    noisy: tuple[Noise, ...] = ()
    dtype: str = "fp32"
    settings: str = "fp32"
    options: RunOptions = DEFAULT
    host_s: float | None = None


def explained(plan: Plan, seconds: float | None, device_peaks: DevicePeaks = ROUND, **more: Any) -> Explanation:
    """An analysis with that measured latency, or without one."""
    m: Any = None if seconds is None else FakeMeasurement(seconds, (seconds, seconds))
    return explain("net", plan, "Net", device_peaks, measurement=m, **more)
