"""What one net takes on one device: latency, throughput, peak memory, energy; of a forward pass or a training step."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.energy import Energy, Meter, Sleep, idle_power, meter, spend
from resnetcli.bench.environment import Ledger, Reading, read, spread
from resnetcli.bench.footprint import Footprint, footprint
from resnetcli.bench.prepare import DEFAULT_SETTINGS, Ready, on_device, prepare, set_up, wanted
from resnetcli.bench.runtimes import explained
from resnetcli.bench.sampling import Clock, Samples, Tell, Warmup, sample, tell_nobody, throughput, warm_up
from resnetcli.bench.settings import Mode, Settings, applied, require_possible
from resnetcli.bench.statistics import interval, iqr, median, outliers, p99, quantile
from resnetcli.bench.training_step import Phases, take_apart
from resnetcli.net.memory import fitting
from resnetcli.plan.plan import Plan

HOST_CALLS = 11
"""Calls of which the median is the CPU's time to start one on a GPU."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """Times in seconds for one batch; `dataclasses.asdict` gives what goes into JSON."""

    device: str
    device_name: str
    dtype: str
    tf32: bool
    """Whether convolutions may round their float32 inputs to 10 bits, as PyTorch lets them on a GPU by default."""
    batch: int
    threads: int
    settings: str
    """Mode, dtype, and all that follows up to `keep_memory`, in words: `bf16 channels_last compile`, `train fp32`."""
    runtime: str
    """Who runs the net: `eager`, `inductor`, ..."""
    channels_last: bool
    fold_bn: bool
    """Whether BatchNorm is computed into the weights before it."""
    cuda_graph: bool
    keep_memory: bool
    """Whether the C library kept freed memory for the next call."""
    cudnn_benchmark: bool
    """Whether a GPU's convolutions were autotuned."""
    deviation_maps: float | None
    """How far the last maps are from eager fp32's, relative norm; None where nothing else is computed, or no maps."""
    deviation_outputs: float | None
    """The outputs' likewise."""
    tolerance: float | None
    """What both may be."""
    prepare_s: float
    """Casting, folding, tracing, compiling and the first call; not the drawing and calibrating of weights."""
    median_s: float
    interval_s: tuple[float, float]
    """The median's 95% bootstrap interval."""
    iqr_s: float
    min_s: float
    p90_s: float
    p99_s: float | None
    """None where there are too few samples to speak of one."""
    n: int
    stopped: Literal["precise", "budget"]
    """Why there are n samples: the interval came within 1% of the median, or time ran out."""
    calls_per_sample: int
    throughput_img_s: float
    """With the queue kept full; measured by itself, not derived from the latency."""
    peak_memory_bytes: int | None
    """Above the weights, the input included, in one call; None where it cannot be measured."""
    first_call_s: float
    warmup_s: float
    warmup_calls: int
    warmup_settled: bool
    samples_s: tuple[float, ...]
    outliers: tuple[int, ...]
    """The places of those far outside the middle half; they count like all others."""
    torch: str
    environment: Ledger
    noisy: tuple[str, ...]
    """Why the figures are not to be relied upon, if they are not."""
    mode: Mode = "infer"
    """Of what a call is: `infer` a forward in evaluation, `train` a whole training step."""
    phases: Phases | None = None
    """Where a training step's time goes; None in inference."""
    live_peak_bytes: int | None = None
    """Derived, not measured: the most that tensors take above weights (and momentum), by the plan; eager only."""
    energy: Energy | None = None
    """None where it was not asked for, or the device does not tell."""
    memory: Footprint | None = None
    """Of a process of its own; None where it was not asked for."""
    host_s: float | None = None
    """The CPU's time to start the kernels of a call on an idle GPU; None on a CPU."""


def measure(
    plan: Plan,
    *,
    device: str = "cpu",
    batch: int = 1,
    settings: Settings = DEFAULT_SETTINGS,
    time_budget_s: float = 3.0,
    energy: bool = False,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    tell: Tell = tell_nobody,
) -> Measurement:
    """The plan's net, built on `device` with random weights and timed on random images for about `time_budget_s`.

    Of the budget a third at most goes into warming up, a half into latency, a sixth into throughput; ten samples are
    taken even if that takes longer, or three of a net that is very slow. A CPU's times are read from `clock`, a GPU's
    from CUDA events. Torch's random numbers and switches are left as they were. Unless `settings` compute just what
    eager fp32 does, the values are held to it, and how far they are from it is told. `energy` takes some 8 s more, if
    the device has a meter. Raises UsageError for a device, batch or settings that cannot be, ResourceError if the net
    does not fit into memory or cannot be compiled.
    """
    place = torch.device(devices.find(device))
    require_possible(settings, str(place))
    what, hint = wanted(plan, batch, place, settings)
    with on_device(place):
        with fitting(what, place, hint), applied(settings, place):
            supply = watch(place, clock, sleep) if energy else None
            ready = prepare(plan, place, batch, clock, settings)
            before = look_around(place)  # building and compiling are not what is measured
            warm = warm_up(ready.waited, clock, least_s=min(0.5, time_budget_s / 6), most_s=time_budget_s / 3)
            samples = sample(
                ready.waited, clock, budget_s=time_budget_s / 2, least_s=min(0.5, time_budget_s / 6), tell=tell
            )
            more = afterwards(ready, clock, budget_s=time_budget_s / 6, call_s=median(samples.seconds), supply=supply)
        return measurement(ready, warm, samples, more, Ledger(before, look_around(place)))


@dataclass(frozen=True, slots=True)
class Afterwards:
    """What is measured of a net when its latency is known."""

    rate: float
    """Calls a second with the queue full."""
    phases: Phases | None = None
    energy: Energy | None = None
    host_s: float | None = None


@dataclass(frozen=True, slots=True)
class Supply:
    """A device's meter, and the watts it told when nothing ran."""

    meter: Meter
    idle_w: float


def watch(place: torch.device, clock: Clock, sleep: Sleep) -> Supply | None:
    """The device's meter, after some seconds of rest; None where there is none, or it falls silent."""
    # Within `on_device`: with a context a GPU draws more than without, whether or not anything runs.
    found = meter(str(place), gpu=driver_s_name(place))
    with suppress(OSError):
        return Supply(found, idle_power(found, clock, sleep)) if found else None
    return None


def afterwards(
    ready: Ready, clock: Clock, *, budget_s: float, call_s: float, supply: Supply | None = None
) -> Afterwards:
    """Throughput, and in training half of the budget for the phases of a step; energy if there is a meter."""
    half = budget_s / 2
    rate = throughput(ready.queued, clock, budget_s=half if ready.apart else budget_s, call_s=call_s)
    phases = take_apart(ready.apart, clock, budget_s=half) if ready.apart else None
    spent = None
    if supply is not None:
        with suppress(OSError):  # what was measured before is worth having without it
            spent = spend(ready.queued, supply.meter, clock, batch=ready.batch, call_s=1 / rate, idle_w=supply.idle_w)
    host_s = None if ready.host is None else median([ready.host() for _ in range(HOST_CALLS)])
    return Afterwards(rate, phases, spent, host_s)


def take_footprint(plan: Plan, *, device: str, batch: int, settings: Settings) -> Footprint:
    """What memory this process takes to run the net. It is of the net alone only in a process that is new.

    Raises what `measure` does.
    """
    place = torch.device(devices.find(device))
    require_possible(settings, str(place))
    what, hint = wanted(plan, batch, place, settings)
    with on_device(place), fitting(what, place, hint), applied(settings, place):
        made = set_up(plan, place, batch, time.perf_counter, settings)
        with explained(plan, settings):
            return footprint(made.call, made.images.nbytes, place, captured_bytes=made.captured_bytes)


def measurement(ready: Ready, warm: Warmup, samples: Samples, more: Afterwards, environment: Ledger) -> Measurement:
    """What was measured of a net, with the conditions."""
    place, middle, limits = ready.place, median(samples.seconds), interval(samples.seconds)
    settings, deviation = ready.settings, ready.deviation
    return Measurement(
        device=str(place),
        device_name=devices.describe(str(place)),
        dtype=settings.dtype,
        tf32=ready.tf32,
        batch=ready.batch,
        threads=ready.threads,
        settings=settings.text,
        runtime=settings.runtime,
        channels_last=settings.channels_last,
        fold_bn=settings.fold_bn,
        cuda_graph=settings.cuda_graph,
        keep_memory=settings.keep_memory,
        cudnn_benchmark=ready.cudnn_benchmark,
        deviation_maps=deviation.maps if deviation else None,
        deviation_outputs=deviation.outputs if deviation else None,
        tolerance=deviation.tolerance if deviation else None,
        prepare_s=ready.prepare_s,
        median_s=middle,
        interval_s=limits,
        iqr_s=iqr(samples.seconds),
        min_s=min(samples.seconds),
        p90_s=quantile(samples.seconds, 0.9),
        p99_s=p99(samples.seconds),
        n=len(samples.seconds),
        stopped="precise" if samples.precise else "budget",
        calls_per_sample=samples.calls,
        throughput_img_s=more.rate * ready.batch,
        peak_memory_bytes=ready.peak_memory_bytes,
        first_call_s=ready.first_call_s,
        warmup_s=warm.seconds,
        warmup_calls=warm.calls,
        warmup_settled=warm.settled,
        samples_s=samples.seconds,
        outliers=outliers(samples.seconds),
        torch=str(torch.__version__),
        environment=environment,
        noisy=(
            *environment.noisy(), *spread(limits, middle), *(more.phases.amiss(middle) if more.phases else ()),
        ),
        mode=settings.mode,
        phases=more.phases,
        live_peak_bytes=ready.live_peak_bytes,
        energy=more.energy,
        host_s=more.host_s,
    )  # fmt: skip


def look_around(place: torch.device) -> Reading:
    """What else goes on, on the machine and on that device."""
    if place.type != "cuda":
        return read(str(place))
    return read(str(place), gpu=driver_s_name(place))


def driver_s_name(place: torch.device) -> str | None:
    """The UUID by which the driver knows a GPU, or a slice of one (MIG); None for a CPU.

    PyTorch's device index may differ from the driver's.
    """
    if place.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(place)
    uuid, kind = getattr(properties, "uuid", None), "MIG" if " MIG " in properties.name else "GPU"
    return f"{kind}-{uuid}" if uuid else None
