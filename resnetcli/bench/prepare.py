"""A net set up on a device to be measured: built, under its settings, run once, and the ways to time it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetcli.bench import training_step as training
from resnetcli.bench.peak import peak_memory
from resnetcli.bench.runtimes import (
    Deviation,
    Pool,
    calibrate,
    check,
    explained,
    image_sizes,
    model,
    reference,
    transform,
    weights,
)
from resnetcli.bench.sampling import Clock, Timer
from resnetcli.bench.settings import Settings, gpu_computes
from resnetcli.bench.training_step import seconds_of
from resnetcli.errors import UsageError
from resnetcli.net.memory import fitting, physical_memory, require
from resnetcli.net.module import Net
from resnetcli.plan.memory import Dtype as MemoryDtype
from resnetcli.plan.memory import memory
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

DEFAULT_SETTINGS = Settings()


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
    live_peak_bytes: int | None = None
    apart: Callable[[], tuple[float, float, float]] | None = None
    """The seconds of a training step's three phases; None in inference."""
    host: Callable[[], float] | None = None
    """The seconds until a call on an idle GPU returns, which is before it has finished; None on a CPU."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A net on its device with its images, that has yet to run."""

    call: Callable[[], object]
    images: Tensor
    check: Callable[[], Deviation] | None
    """To be called after the first call; None where the settings compute just what eager fp32 does."""
    seconds: float
    """Casting, folding, tracing."""
    plan: Plan
    """What is computed, BatchNorm folded or not."""
    step: training.Step | None = None
    """A training step that tells when its phases are over; None in inference."""
    captured_bytes: int | None = None
    """Peak memory of what a CUDA graph captured, without the images; None without a graph."""


def wanted(plan: Plan, batch: int, place: torch.device, settings: Settings) -> tuple[str, str]:
    """What is to fit into memory, in words, and where it does not a batch to try: the half, or less by the plan."""
    most = batch // 2
    if not is_traced(plan):  # what a PyTorch model keeps is not known
        cast = settings.mode == "infer" and settings.dtype in ("bf16", "fp16")
        room = free_memory(place) if place.type == "cuda" else physical_memory()
        most = min(most, memory(plan, settings.mode, dtype="bf16" if cast else "fp32").largest_batch(room))
    return f"`{plan.name}` with a batch of {batch}", f"`--batch {most}` or less may fit" if most > 0 else ""


def free_memory(place: torch.device) -> int:
    """Bytes of GPU memory that this process can still allocate; the total if that is unknown."""
    with suppress(RuntimeError):  # not even a context fits
        free, _ = torch.cuda.mem_get_info(place)
        return free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return torch.cuda.get_device_properties(place).total_memory


def prepare(
    plan: Plan,
    place: torch.device,
    batch: int,
    clock: Clock,
    settings: Settings = DEFAULT_SETTINGS,
    pool: Pool | None = None,
) -> Ready:
    """The plan's net with random weights on random images, run once. Within `settings.applied`; `pool` as `transform`.

    Raises UsageError for an impossible batch or settings, ResourceError for what cannot be compiled.
    """
    made = set_up(plan, place, batch, clock, settings, pool)
    with explained(plan, settings):
        first_call_s, peak = _first_call(made.call, made.images, place, clock)
        if made.captured_bytes is not None:  # a replay allocates nothing
            peak = made.captured_bytes + made.images.nbytes
        deviation = made.check() if made.check else None
    waited, queued = _timers(made.call, place, clock)
    if is_traced(plan):  # which may fail at any call
        waited, queued = _explaining(waited, plan, settings), _explaining(queued, plan, settings)
    step = made.step
    return Ready(
        place, batch, waited, queued, first_call_s, peak, settings,
        threads=torch.get_num_threads(),
        tf32=place.type == "cuda" and settings.dtype in ("fp32", "tf32") and _tf32(place),
        cudnn_benchmark=place.type == "cuda" and torch.backends.cudnn.benchmark,
        deviation=deviation,
        prepare_s=made.seconds + first_call_s,
        live_peak_bytes=_live_peak(made.plan, place, batch, settings),
        apart=None if step is None else lambda: seconds_of(step, place, clock),
        host=None if place.type == "cpu" else _host(made.call, place, clock),
    )  # fmt: skip


def set_up(
    plan: Plan, place: torch.device, batch: int, clock: Clock, settings: Settings, pool: Pool | None = None
) -> Prepared:
    """The plan's net with random weights and its random images, and how to run it. Within `settings.applied`.

    Raises what `prepare` does.
    """
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", "use `--batch 1` or more")
    if is_traced(plan) and settings.mode == "train":
        raise UsageError(f"`{plan.name}` is a PyTorch model: its training step is not measured",
                         "leave `--mode train` out")  # fmt: skip
    what, hint = wanted(plan, batch, place, settings)
    require(what, batch * _widest(plan) * torch.float32.itemsize, place, hint)
    if settings.mode == "train":  # half of it at least where values are cast to bf16
        require(what, memory(plan, "train").bytes(batch) // (2 if settings.dtype == "bf16" else 1), place, hint)
    with model(plan, place, batch) if is_traced(plan) else nullcontext(weights(plan, place)) as net:
        # Never zeros: arithmetic on zeros draws less power and can be faster.
        x = torch.randn((batch, *image_sizes(plan)), device=place)
        with torch.no_grad(), explained(plan, settings):
            calibrate(net, x, plan)
        if isinstance(net, Net) and settings.mode == "train":
            return _set_up_training(plan, net, x, settings, place, clock)
        return _set_up_inference(plan, net, x, settings, place, clock, pool)


def _set_up_inference(
    plan: Plan, net: nn.Module, x: Tensor, settings: Settings, place: torch.device, clock: Clock, pool: Pool | None
) -> Prepared:
    with explained(plan, settings):
        expected = None if settings.plain else reference(plan, net, x)
        start = clock()
        variant = transform(plan, net, settings, x, pool)
        ready = variant.images
        _wait(place)
        seconds = clock() - start
    checked = None if expected is None else lambda: check(variant, ready, expected)
    return Prepared(
        lambda: variant.call(ready), ready, checked, seconds, variant.plan, captured_bytes=variant.captured_bytes
    )


def _set_up_training(
    plan: Plan, net: Net, x: Tensor, settings: Settings, place: torch.device, clock: Clock
) -> Prepared:
    expected = None if settings.plain else training.reference(net, x)
    with explained(plan, settings):
        start = clock()
        made = training.trained(plan, net, settings, len(x), place)
        ready = made.ready(x)
        _wait(place)
        seconds = clock() - start
    checked = None if expected is None else lambda: training.check(made, ready, expected)
    return Prepared(
        lambda: made.step(ready), ready, checked, seconds, plan, step=lambda mark: made.step(ready, mark)
    )  # fmt: skip


def _live_peak(plan: Plan, place: torch.device, batch: int, settings: Settings) -> int | None:
    """What the plan says that tensors take above what is there all the time; None for what it does not describe."""
    if is_traced(plan) or settings.runtime != "eager" or (settings.mode == "train" and settings.dtype == "bf16"):
        return None
    dtype: MemoryDtype = "fp32" if settings.dtype == "tf32" else settings.dtype
    held = memory(plan, settings.mode, dtype=dtype, place="cpu" if place.type == "cpu" else "cuda")
    return held.peak(batch).bytes(batch)


def _tf32(place: torch.device) -> bool:
    if not gpu_computes("tf32", place):
        return False
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


def _host(call: Callable[[], object], place: torch.device, clock: Clock) -> Callable[[], float]:
    def seconds() -> float:
        _wait(place)
        start = clock()
        call()
        returned = clock() - start
        _wait(place)
        return returned

    return seconds


def _explaining(timer: Timer, plan: Plan, settings: Settings) -> Timer:
    def timed(calls: int) -> float:
        with explained(plan, settings):  # the clock runs within
            return timer(calls)

    return timed


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


@contextmanager
def on_device(place: torch.device) -> Iterator[None]:
    """Where one builds and measures: that GPU is the current one, and random numbers begin from a fixed seed.

    What a PyTorch model prints goes to stderr: it is no result. Raises ResourceError if the GPU cannot be used at all,
    for which its first use is enough.
    """
    with ExitStack() as stack:
        with fitting("PyTorch", place, "see `nvidia-smi` for the processes that use the GPU"):
            stack.enter_context(_on(place))
            stack.enter_context(_own_random_numbers(place))
            if place.type == "cuda":
                torch.zeros(1, device=place)
        stack.enter_context(redirect_stdout(sys.stderr))
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
