"""Measure a device's peaks and models on it, for a roofline analysis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from resnetcli.errors import ResourceError, UsageError
from resnetcli.plan.plan import Plan
from resnetcli.roofline.analysis import Explanation, explain
from resnetcli.roofline.bounds import lower_bound
from resnetcli.roofline.peaks import DevicePeaks
from resnetcli.roofline.profiles import cache_file, read_cached, write_profile

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.options import RunOptions
    from resnetcli.bench.versus import Ratio


def get_device_peaks(
    device: str,
    *,
    before: Callable[[str], object] = lambda device: None,
    report: Callable[[str], object] | None = None,
) -> DevicePeaks:
    """The cached peaks of a device of this machine, or else new measurements, which are cached.

    `before` is called before measuring, `report` with each step. Raises UsageError for an unknown device.
    """
    from resnetcli.bench.device import find

    device = find(device)
    if (cached := read_cached(device)) is not None:
        return cached
    from resnetcli.roofline.calibrate import measure_device_peaks

    before(device)
    peaks = measure_device_peaks(device, report=report)
    with suppress(OSError, UsageError):  # a failed cache write must not lose the measurement
        write_profile(peaks, cache_file(device))
    return peaks


def explain_measured(
    models: Sequence[tuple[str, str, Plan]],
    device_peaks: DevicePeaks,
    *,
    device: str,
    batch_size: int = 1,
    options: RunOptions | None = None,
    time_budget_s: float = 3.0,
) -> tuple[tuple[Explanation, ...], Ratio | None]:
    """Measure and analyze one or two models (model, title, plan); the ratio of the first one's latency to the other's.

    Raises what `measure` raises, and UsageError for a dtype without a peak.
    """
    from resnetcli.bench.interleaved import measure_interleaved
    from resnetcli.bench.latency import measure
    from resnetcli.bench.options import DEFAULT
    from resnetcli.roofline.layers import time_layers

    options = options or DEFAULT
    for _, _, plan in models:  # report errors before anything is measured
        lower_bound(plan, device_peaks, dtype=options.precision, batch_size=batch_size)
    plans = [plan for _, _, plan in models]
    ratio = None
    if len(plans) == 1:
        measurements: list[Measurement] = [
            measure(plans[0], device=device, batch_size=batch_size, options=options, time_budget_s=time_budget_s)
        ]
    else:
        timings = measure_interleaved(
            plans, base=1, device=device, batch_size=batch_size, options=options, time_budget_s=time_budget_s
        )
        measurements, ratio = [], timings.ratios[0]
        for outcome in timings.measured:
            if isinstance(outcome, ResourceError):
                raise outcome
            measurements.append(outcome)
    explanations = []
    for (model, title, plan), m in zip(models, measurements, strict=True):
        times = time_layers(plan, device=device, batch_size=batch_size, options=options, budget_s=time_budget_s)
        explanations.append(explain(
            model, plan, title, device_peaks, dtype="tf32" if m.tf32 and "tf32" in device_peaks.peaks else m.dtype,
            batch_size=batch_size, measurement=m, layer_times=times,
            linear_dtype="fp32" if m.dtype == "fp32" else None,
        ))  # fmt: skip
    return tuple(explanations), ratio
