"""What one net takes on one device: latency, throughput and peak memory of its forward pass in evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from resnetcli.errors import UsageError
from resnetcli.measure import device as devices
from resnetcli.measure.peak import peak_memory
from resnetcli.measure.sampling import Clock, Timer, sample, throughput, warm_up
from resnetcli.measure.statistics import interval, iqr, median
from resnetcli.net.memory import fitting, require
from resnetcli.net.module import Net, build, initialise
from resnetcli.ops import BatchNorm
from resnetcli.plan.plan import Plan


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
    median_s: float
    interval_s: tuple[float, float]
    """The median's 95% bootstrap interval."""
    iqr_s: float
    min_s: float
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
    torch: str


def measure(
    plan: Plan,
    *,
    device: str = "cpu",
    batch: int = 1,
    time_budget_s: float = 3.0,
    clock: Clock = time.perf_counter,
) -> Measurement:
    """The plan's net, built on `device` with random weights and timed on random images for about `time_budget_s`.

    Of the budget a third at most goes into warming up, a half into latency, a sixth into throughput; ten samples are
    taken even if that takes longer, or three of a net that is very slow. A CPU's times are read from `clock`, a GPU's
    from CUDA events. Torch's random numbers are left as they were. Raises UsageError for a device or batch that cannot
    be, ResourceError if the net does not fit into memory.
    """
    place = torch.device(devices.find(device))
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", "use `--batch 1` or more")
    what, hint = f"`{plan.name}` with a batch of {batch}", "" if batch == 1 else "use a smaller `--batch`"
    require(what, batch * _widest(plan) * torch.float32.itemsize, place, hint)
    with fitting(what, place, hint), _on(place), _own_random_numbers(place):
        net = build(plan, device=place, dtype=torch.float32, init=_fill).eval()
        with torch.inference_mode():
            return _measure(net, plan, place, batch, time_budget_s, clock)


def _measure(net: Net, plan: Plan, place: torch.device, batch: int, budget_s: float, clock: Clock) -> Measurement:
    (x, first_call_s), peak = _first_call(net, (batch, plan.input.c, plan.input.h, plan.input.w), place, clock)
    _calibrate(net, x, plan)
    waited, queued = _timers(lambda: net(x), place, clock)
    warm = warm_up(waited, clock, least_s=min(0.5, budget_s / 6), most_s=budget_s / 3)
    samples = sample(waited, clock, budget_s=budget_s / 2, least_s=min(0.5, budget_s / 6))
    middle = median(samples.seconds)
    rate = throughput(queued, clock, budget_s=budget_s / 6, call_s=middle)
    return Measurement(
        device=str(place),
        device_name=devices.describe(str(place)),
        dtype="fp32",
        tf32=place.type == "cuda" and _tf32(),
        batch=batch,
        threads=torch.get_num_threads(),
        median_s=middle,
        interval_s=interval(samples.seconds),
        iqr_s=iqr(samples.seconds),
        min_s=min(samples.seconds),
        n=len(samples.seconds),
        stopped="precise" if samples.precise else "budget",
        calls_per_sample=samples.calls,
        throughput_img_s=rate * batch,
        peak_memory_bytes=peak,
        first_call_s=first_call_s,
        warmup_s=warm.seconds,
        warmup_calls=warm.calls,
        warmup_settled=warm.settled,
        samples_s=samples.seconds,
        torch=str(torch.__version__),
    )


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


def _fill(net: nn.Module) -> None:
    """Weights of the usual size from a uniform distribution, which takes a fifth of the time of a normal one."""
    initialise(net, lambda weight, std: nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std))


def _first_call(
    net: Net, shape: tuple[int, ...], place: torch.device, clock: Clock
) -> tuple[tuple[Tensor, float], int | None]:
    """Random images and the seconds of the first forward, and the peak memory of a forward above the weights."""
    x = torch.randn(shape, device=place)  # never zeros: arithmetic on zeros draws less power and can be faster
    _wait(place)
    start = clock()
    net(x)
    _wait(place)
    seconds = clock() - start
    # The second forward's: the first also has libraries paged in and kept memory that would be charged to this net.
    if place.type == "cpu":
        _, above = peak_memory(lambda: net(x))
        return (x, seconds), None if above is None else above + x.nbytes
    torch.cuda.reset_peak_memory_stats(place)
    before = torch.cuda.memory_allocated(place) - x.nbytes
    net(x)
    _wait(place)
    return (x, seconds), torch.cuda.max_memory_allocated(place) - before


def _calibrate(net: nn.Module, x: Tensor, plan: Plan) -> None:
    """Sets BatchNorm's statistics to those of x's first image, or of two where one has a single value to a channel.

    With the initial ones every residual block doubles the variance, and a deep net would be timed on infinities.
    """
    single = any(
        isinstance(step.op, BatchNorm) and step.shape.n * step.shape.h * step.shape.w == 1 for step in plan.steps
    )
    images = x[: 2 if single else 1]
    if single and len(x) == 1:
        images = torch.cat((x, torch.randn_like(x)))
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.train().momentum = 1.0
    if norms:
        net(images)
    for norm in norms:
        norm.eval().momentum = 0.1


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
