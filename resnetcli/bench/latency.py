"""Benchmark one model on one device: latency, throughput, peak memory, energy; of a forward pass or a training step."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.energy import Energy, Meter, Sleep, idle_power, meter, spend
from resnetcli.bench.environment import HostState, Ledger, Noise, spread, take_reading
from resnetcli.bench.execution import configure_torch, require_supported
from resnetcli.bench.footprint import Footprint, footprint
from resnetcli.bench.options import DEFAULT, TIME_BUDGET_S, Dtype, Mode, RunOptions
from resnetcli.bench.prepare import Ready, Setup, on_device, out_of_memory_message, prepare, set_up
from resnetcli.bench.runtimes import explain_errors
from resnetcli.bench.sampling import Clock, Progress, Samples, WarmupResult, no_progress, sample, throughput, warm_up
from resnetcli.bench.statistics import interval, iqr, median, outliers, p99, quantile
from resnetcli.bench.training_step import Phases, time_phases
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.plan.plan import Plan

HOST_CALLS = 11
"""Calls whose median is the CPU's time to start one on a GPU."""


@dataclass(frozen=True, kw_only=True)  # these classes have no slots: a `Measurement` inherits from all of them
class Timing:
    """Statistics of the samples, in seconds for one batch."""

    median_s: float
    interval_s: tuple[float, float]
    """The median's 95% bootstrap interval."""
    iqr_s: float
    min_s: float
    p90_s: float
    p99_s: float | None
    """None if there are too few samples for one."""
    n: int
    stopped: Literal["precise", "budget"]
    """Why there are n samples: the interval came within 1% of the median, or the time budget ended."""
    calls_per_sample: int
    samples_s: tuple[float, ...]
    outliers: tuple[int, ...]
    """Indices of samples far outside the middle half; they count like all others."""

    @classmethod
    def of(cls, samples: Samples) -> Timing:
        """The statistics of some samples."""
        seconds = samples.seconds
        return cls(
            median_s=median(seconds),
            interval_s=interval(seconds),
            iqr_s=iqr(seconds),
            min_s=min(seconds),
            p90_s=quantile(seconds, 0.9),
            p99_s=p99(seconds),
            n=len(seconds),
            stopped="precise" if samples.precise else "budget",
            calls_per_sample=samples.calls,
            samples_s=seconds,
            outliers=outliers(seconds),
        )


@dataclass(frozen=True, kw_only=True)
class Extras:
    """Figures measured after the latency."""

    throughput_img_s: float
    """Images per second with the queue kept full; measured separately, not derived from the latency."""
    phases: Phases | None = None
    """Times of a training step's phases; None in inference."""
    energy: Energy | None = None
    """None unless requested, and if the device has no meter."""
    host_s: float | None = None
    """The CPU's time to start the kernels of a call on an idle GPU; None on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Measurement(Extras, Timing, WarmupResult, Setup):
    """All figures of one model on one device at one batch size, with the conditions.

    Each base class has the figures of one source. A new figure is a field of one of them, filled in where it is built.
    """

    device: str
    device_name: str
    torch: str
    environment: Ledger
    noisy: tuple[Noise, ...]
    """Why the figures are unreliable; empty if they are reliable."""
    memory: Footprint | None = None
    """Of a separate process; None unless requested."""

    @property
    def dtype(self) -> Dtype:
        """The precision of weights and activations."""
        return self.options.precision

    @property
    def mode(self) -> Mode:
        """`infer` for a forward pass in evaluation, `train` for a whole training step."""
        return self.options.mode

    @property
    def settings(self) -> str:
        """The options as text: `bf16 channels_last compile`, `train fp32`."""
        return self.options.text


@frozen
class IdleMeter:
    """A device's energy meter, and the watts drawn while idle."""

    meter: Meter
    idle_w: float


class ModelRunner:
    """One model in this process, measured step by step: warm-up, samples, extras. Within `execution.configure_torch`.

    Of `time_budget_s` a third at most goes into warming up, a half into latency, a sixth into the rest.
    """

    def __init__(self, ready: Ready, clock: Clock, time_budget_s: float, meter: IdleMeter | None = None) -> None:
        self.ready, self.clock, self.budget_s, self.meter = ready, clock, time_budget_s, meter
        self.least_s = min(0.5, time_budget_s / 6)
        self.warmup: WarmupResult
        self.timing: Timing
        self.extras: Extras

    def warm_up(self) -> None:
        """Call until times have converged."""
        self.warmup = warm_up(self.ready.waited, self.clock, least_s=self.least_s, most_s=self.budget_s / 3)

    def seconds(self, calls: int) -> float:
        """Time some calls."""
        return self.ready.waited(calls)

    def sample(self, progress: Progress) -> Samples:
        """Time calls until the median's CI is within 1% of it, or half of the budget has passed."""
        return sample(
            self.ready.waited, self.clock, budget_s=self.budget_s / 2, least_s=self.least_s, progress=progress
        )

    def measure_extras(self, samples: Samples) -> None:
        """Measure throughput, and in training the phases of a step in half of the time; energy if there is a meter."""
        ready, clock, batch_size = self.ready, self.clock, self.ready.setup.batch
        self.timing = Timing.of(samples)
        budget_s = self.budget_s / 6
        half = budget_s / 2
        calls = throughput(
            ready.queued, clock, budget_s=half if ready.phases else budget_s, call_s=self.timing.median_s
        )
        phases = time_phases(ready.phases, clock, budget_s=half) if ready.phases else None
        energy = None
        if self.meter is not None:
            with suppress(OSError):  # the other figures are of use without it
                energy = spend(
                    ready.queued, self.meter.meter, clock, batch=batch_size, call_s=1 / calls, idle_w=self.meter.idle_w
                )
        host_s = None if ready.host is None else median([ready.host() for _ in range(HOST_CALLS)])
        self.extras = Extras(throughput_img_s=calls * batch_size, phases=phases, energy=energy, host_s=host_s)

    def measurement(self, environment: Ledger) -> Measurement:
        """All figures, with the conditions."""
        device, timing, phases = str(self.ready.place), self.timing, self.extras.phases
        noisy = (*environment.noise(), *spread(timing.interval_s, timing.median_s))
        return Measurement(
            **vars(self.ready.setup), **vars(self.warmup), **vars(timing), **vars(self.extras),
            device=device,
            device_name=devices.describe_device(device),
            torch=str(torch.__version__),
            environment=environment,
            noisy=(*noisy, *phases.inconsistencies(timing.median_s)) if phases else noisy,
        )  # fmt: skip


def measure(
    plan: Plan,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    options: RunOptions = DEFAULT,
    time_budget_s: float = TIME_BUDGET_S,
    energy: bool = False,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    progress: Progress = no_progress,
) -> Measurement:
    """The plan's model, built on `device` with random weights and timed on random images for about `time_budget_s`.

    At least ten samples are taken even if that takes longer, or three of a very slow model. A CPU's times are read from
    `clock`, a GPU's from CUDA events. Torch's random numbers and switches are restored. Unless `options` compute
    exactly what eager fp32 does, outputs are compared with it and the deviation is reported. `energy` takes some 8 s
    more, if the device has a meter. Raises UsageError for an impossible device, batch size or option, ResourceError if
    the model does not fit into memory or cannot be compiled.
    """
    place = torch.device(devices.find(device))
    require_supported(options, str(place))
    subject, hint = out_of_memory_message(plan, batch_size, place, options)
    with on_device(place), fitting(subject, place, hint), configure_torch(options, place):
        idle = measure_idle(place, clock, sleep) if energy else None
        runner = ModelRunner(prepare(plan, place, batch_size, clock, options), clock, time_budget_s, idle)
        before = read_environment(place)  # after building and compiling, which are not measured
        runner.warm_up()
        runner.measure_extras(runner.sample(progress))
        return runner.measurement(Ledger(before, read_environment(place)))


def measure_idle(place: torch.device, clock: Clock, sleep: Sleep) -> IdleMeter | None:
    """The device's meter, after some seconds of rest; None if there is none, or it fails.

    Within `on_device`: with a context a GPU draws more than without, whether or not anything runs.
    """
    found = meter(str(place), gpu=nvml_uuid(place))
    with suppress(OSError):
        return IdleMeter(found, idle_power(found, clock, sleep)) if found else None
    return None


def measure_footprint(plan: Plan, *, device: str, batch_size: int, options: RunOptions) -> Footprint:
    """The memory that this process takes to run the model: the model's alone only if the process is new.

    Raises what `measure` does.
    """
    place = torch.device(devices.find(device))
    require_supported(options, str(place))
    subject, hint = out_of_memory_message(plan, batch_size, place, options)
    with on_device(place), fitting(subject, place, hint), configure_torch(options, place):
        prepared = set_up(plan, place, batch_size, time.perf_counter, options)
        with explain_errors(plan, options):
            return footprint(prepared.call, prepared.images.nbytes, place, captured_bytes=prepared.captured_bytes)


def read_environment(place: torch.device) -> HostState:
    """The state of the machine and of that device."""
    return take_reading(str(place), gpu=nvml_uuid(place))


def nvml_uuid(place: torch.device) -> str | None:
    """The UUID of a GPU, or of a slice of one (MIG), in NVML; None for a CPU.

    PyTorch's device index may differ from the driver's.
    """
    if place.type != "cuda":
        return None
    properties = torch.cuda.get_device_properties(place)
    uuid, kind = getattr(properties, "uuid", None), "MIG" if " MIG " in properties.name else "GPU"
    return f"{kind}-{uuid}" if uuid else None
