"""What one net takes on one device: latency, throughput and peak memory of its forward pass in evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from resnetcli.errors import UsageError
from resnetcli.measure import device as devices
from resnetcli.measure.ledger import Ledger, Reading, read, spread
from resnetcli.measure.peak import peak_memory
from resnetcli.measure.sampling import Clock, Samples, Tell, Timer, Warmup, sample, tell_nobody, throughput, warm_up
from resnetcli.measure.settings import Settings, applied, require_possible
from resnetcli.measure.statistics import interval, iqr, median, outliers, p99, quantile
from resnetcli.measure.variants import Deviation, calibrate, check, explained, reference, transform, weights
from resnetcli.net.memory import fitting, require
from resnetcli.plan.plan import Plan

DEFAULT_SETTINGS = Settings()


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
    """All that follows up to `keep_memory`, and the dtype, in words: `bf16 channels_last compile`."""
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
    """Above the weights, the input included, in one forward; None where it cannot be measured."""
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


def measure(
    plan: Plan,
    *,
    device: str = "cpu",
    batch: int = 1,
    settings: Settings = DEFAULT_SETTINGS,
    time_budget_s: float = 3.0,
    clock: Clock = time.perf_counter,
    tell: Tell = tell_nobody,
) -> Measurement:
    """The plan's net, built on `device` with random weights and timed on random images for about `time_budget_s`.

    Of the budget a third at most goes into warming up, a half into latency, a sixth into throughput; ten samples are
    taken even if that takes longer, or three of a net that is very slow. A CPU's times are read from `clock`, a GPU's
    from CUDA events. Torch's random numbers and switches are left as they were. Unless `settings` compute just what
    eager fp32 does, the values are held to it, and how far they are from it is told. Raises UsageError for a device,
    batch or settings that cannot be, ResourceError if the net does not fit into memory or cannot be compiled.
    """
    place = torch.device(devices.find(device))
    require_possible(settings, str(place))
    with on_device(place):
        before = look_around(place)
        with fitting(wanted(plan, batch)[0], place, wanted(plan, batch)[1]), applied(settings, place):
            ready = prepare(plan, place, batch, clock, settings)
            warm = warm_up(ready.waited, clock, least_s=min(0.5, time_budget_s / 6), most_s=time_budget_s / 3)
            samples = sample(
                ready.waited, clock, budget_s=time_budget_s / 2, least_s=min(0.5, time_budget_s / 6), tell=tell
            )
            rate = throughput(ready.queued, clock, budget_s=time_budget_s / 6, call_s=median(samples.seconds))
        return measurement(ready, warm, samples, rate, Ledger(before, look_around(place)))


@dataclass(frozen=True, slots=True)
class Ready:
    """A net on its device with its images, that has run once."""

    place: torch.device
    batch: int
    waited: Timer
    """Each call waited for before the next is made."""
    queued: Timer
    """One call straight after the other."""
    first_call_s: float
    peak_memory_bytes: int | None
    settings: Settings
    threads: int
    tf32: bool
    cudnn_benchmark: bool
    deviation: Deviation | None
    """None where the settings compute just what eager fp32 does."""
    prepare_s: float


def wanted(plan: Plan, batch: int) -> tuple[str, str]:
    """What is to fit into memory, in words, and what to do where it does not."""
    return f"`{plan.name}` with a batch of {batch}", "" if batch == 1 else "use a smaller `--batch`"


def prepare(plan: Plan, place: torch.device, batch: int, clock: Clock, settings: Settings = DEFAULT_SETTINGS) -> Ready:
    """The plan's net with random weights on random images, run once. Within `settings.applied`.

    Raises UsageError for an impossible batch or settings, ResourceError for what cannot be compiled.
    """
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", "use `--batch 1` or more")
    what, hint = wanted(plan, batch)
    require(what, batch * _widest(plan) * torch.float32.itemsize, place, hint)
    net = weights(plan, place)
    # Never zeros: arithmetic on zeros draws less power and can be faster.
    x = torch.randn((batch, plan.input.c, plan.input.h, plan.input.w), device=place)
    calibrate(net, x, plan)
    expected = None if settings.plain else reference(plan, net, x)
    with explained(plan, settings):
        start = clock()
        variant = transform(plan, net, settings, x)
        x = variant.ready(x)
        _wait(place)
        tuned = clock() - start
        first_call_s, peak = _first_call(lambda: variant.call(x), x, place, clock)
        deviation = None if expected is None else check(variant, x, expected)
    waited, queued = _timers(lambda: variant.call(x), place, clock)
    return Ready(
        place, batch, waited, queued, first_call_s, peak, settings,
        threads=torch.get_num_threads(),
        tf32=place.type == "cuda" and settings.dtype in ("fp32", "tf32") and _tf32(),
        cudnn_benchmark=place.type == "cuda" and torch.backends.cudnn.benchmark,
        deviation=deviation,
        prepare_s=tuned + first_call_s,
    )  # fmt: skip


def measurement(ready: Ready, warm: Warmup, samples: Samples, rate: float, environment: Ledger) -> Measurement:
    """What was measured of a net, with the conditions; `rate` is calls a second with the queue full."""
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
        throughput_img_s=rate * ready.batch,
        peak_memory_bytes=ready.peak_memory_bytes,
        first_call_s=ready.first_call_s,
        warmup_s=warm.seconds,
        warmup_calls=warm.calls,
        warmup_settled=warm.settled,
        samples_s=samples.seconds,
        outliers=outliers(samples.seconds),
        torch=str(torch.__version__),
        environment=environment,
        noisy=(*environment.noisy(), *spread(limits, middle)),
    )


def look_around(place: torch.device) -> Reading:
    """What else goes on, on the machine and on that device."""
    if place.type != "cuda":
        return read(str(place))
    uuid = getattr(torch.cuda.get_device_properties(place), "uuid", None)  # PyTorch's numbers need not be the driver's
    return read(str(place), gpu=f"GPU-{uuid}" if uuid else None)


def _tf32() -> bool:
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # somebody has set it through the newer interface, which the older one refuses to mix with
        return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def _widest(plan: Plan) -> int:
    """Scalars of the one step whose inputs and output are most, for one image: less than that cannot suffice."""
    return max(
        step.shape.elements + sum(plan.steps[source].shape.elements for source in step.inputs) for step in plan.steps
    )


def _first_call(call: Callable[[], object], x: Tensor, place: torch.device, clock: Clock) -> tuple[float, int | None]:
    """The seconds of the first call, and the peak memory of a second one above the weights, its images x included."""
    _wait(place)
    start = clock()
    call()
    _wait(place)
    seconds = clock() - start
    # The second forward's: the first also has libraries paged in and kept memory that would be charged to this net.
    if place.type == "cpu":
        _, above = peak_memory(call)
        return seconds, None if above is None else above + x.nbytes
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place) - x.nbytes
    call()
    _wait(place)
    return seconds, torch.cuda.max_memory_allocated(place) - before


def _timers(call: Callable[[], object], place: torch.device, clock: Clock) -> tuple[Timer, Timer]:
    """Two ways to time calls: each waited for before the next is made, and one straight after the other."""

    def host(calls: int) -> float:
        start = clock()
        for _ in range(calls):
            call()
        return clock() - start

    def waited(calls: int) -> float:
        seconds = 0.0
        for _ in range(calls):
            begin.record()
            call()
            end.record()
            end.synchronize()
            seconds += begin.elapsed_time(end) / 1e3
        return seconds

    def queued(calls: int) -> float:
        begin.record()
        for _ in range(calls):
            call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    if place.type == "cpu":
        return host, host  # a CPU has returned when it has finished
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    return waited, queued


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


@contextmanager
def on_device(place: torch.device) -> Iterator[None]:
    """Where one builds and measures: that GPU is the current one, and random numbers begin from a fixed seed."""
    with _on(place), _own_random_numbers(place):
        yield


@contextmanager
def _own_random_numbers(place: torch.device) -> Iterator[None]:
    """A fixed seed within, the caller's state untouched: not `torch.manual_seed`, which seeds every device there is."""
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(0)
        if place.type == "cuda":
            torch.cuda.manual_seed(0)
        yield


def _on(place: torch.device) -> AbstractContextManager[object]:
    """Makes a GPU the current one: the one that is seeded, and on whose stream events are recorded."""
    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()
