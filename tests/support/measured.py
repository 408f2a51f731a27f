"""Made-up measurements, for tests of code that uses measurements."""

from __future__ import annotations

import dataclasses
from typing import Any

from resnetcli.bench.energy import Energy
from resnetcli.bench.environment import Gpu, HostState, Ledger
from resnetcli.bench.footprint import Footprint
from resnetcli.bench.latency import Measurement
from resnetcli.bench.options import RunOptions
from resnetcli.bench.training_step import Phase, Phases

QUIET = HostState(
    at_s=0.0, own_s=0.0, processors=2, load_average=0.1, busy_s=10.0, stolen_s=0.0, throttled_s=0.0, governor=None,
    clock_mhz=2000.0, temperature_c=None, gpu=None,
)  # fmt: skip
ENVIRONMENT = Ledger(QUIET, dataclasses.replace(QUIET, at_s=5.0, own_s=9.0, busy_s=19.2))
MEASURED = Measurement(
    device="cpu", device_name="x", options=RunOptions(), tf32=False, batch=2, threads=2, cudnn_benchmark=False,
    deviation_maps=None, deviation_outputs=None, tolerance=None, prepare_s=0.6, median_s=0.1, interval_s=(0.09, 0.13),
    iqr_s=0.02, min_s=0.08, p90_s=0.124, p99_s=None, n=3, stopped="budget", calls_per_sample=1, throughput_img_s=21.0,
    peak_memory_bytes=None, first_call_s=0.5, warmup_s=0.6, warmup_calls=3, warmup_settled=False,
    samples_s=(0.08, 0.1, 0.13), outliers=(), torch="2", environment=ENVIRONMENT, noisy=(),
)  # fmt: skip


def measured(median_s: float = 0.1, half: float = 0.01, **changes: Any) -> Measurement:
    """A measurement with that median and the interval median * (1 - half) to median * (1 + half)."""
    limits = (median_s * (1 - half), median_s * (1 + half))
    return dataclasses.replace(MEASURED, median_s=median_s, interval_s=limits, samples_s=(median_s,) * 3, **changes)


GPU = Gpu(1980.0, 2619.0, 40.0, 120.0, ("too hot",), 0)
PHASE = Phase(0.03, (0.029, 0.031))
GPU_MEASURED = dataclasses.replace(
    MEASURED,
    device="cuda:0",
    options=RunOptions(mode="train"),
    phases=Phases(PHASE, PHASE, PHASE, 10),
    live_peak_bytes=10**8,
    energy=Energy("NVML", 0.5, 0.4, 400.0, 80.0, 3.1, 2480),
    memory=Footprint(2 * 10**8, 3 * 10**8, 10**9),
    environment=Ledger(dataclasses.replace(QUIET, gpu=GPU), dataclasses.replace(QUIET, at_s=5.0, gpu=GPU)),
)
