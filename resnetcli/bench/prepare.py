"""A model set up on a device to be measured: built, transformed by its options, run once; and its timers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stdout, suppress
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from resnetcli.bench import training_step as training
from resnetcli.bench.deviation import Deviation, check_outputs, reference_outputs
from resnetcli.bench.execution import gpu_computes
from resnetcli.bench.options import DEFAULT, RunOptions
from resnetcli.bench.peak import gpu_peak_memory, peak_memory
from resnetcli.bench.runtimes import Pool, explain_errors, transform
from resnetcli.bench.sampling import Clock, Timer
from resnetcli.bench.training_step import seconds_of
from resnetcli.bench.weights import build_random, calibrate_norms, image_sizes, pytorch_model
from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting, physical_memory, require
from resnetcli.net.module import Net
from resnetcli.plan.memory import Dtype as MemoryDtype
from resnetcli.plan.memory import memory
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced


@dataclass(frozen=True, kw_only=True)  # without slots: a `Measurement` inherits from several such classes
class Setup:
    """How a model was run, and the figures of preparing it."""

    options: RunOptions
    batch: int
    tf32: bool
    """Whether convolutions may round their float32 inputs to 10 bits, as PyTorch allows on a GPU by default."""
    threads: int
    cudnn_benchmark: bool
    """Whether a GPU's convolutions were autotuned."""
    deviation_maps: float | None
    """Of the last feature maps from eager fp32's, relative norm; None without a check, or without feature maps."""
    deviation_outputs: float | None
    """Of the outputs likewise."""
    tolerance: float | None
    """Maximum of both; None if the options compute exactly what eager fp32 does."""
    prepare_s: float
    """Casting, folding, tracing, compiling and the first call; not drawing and calibrating the weights."""
    first_call_s: float
    peak_memory_bytes: int | None
    """Above the weights, the input included, in one call; None if it cannot be measured."""
    live_peak_bytes: int | None = None
    """Derived, not measured: peak of the tensors above weights (and momentum), by the plan; eager only."""


@frozen
class Ready:
    """A model on its device with its images, which has run once."""

    place: torch.device
    setup: Setup
    waited: Timer
    """Times calls, waiting for each before the next."""
    queued: Timer
    """Times calls made back to back."""
    phases: Callable[[], tuple[float, float, float]] | None = None
    """The seconds of a training step's three phases; None in inference."""
    host: Callable[[], float] | None = None
    """The seconds until a call on an idle GPU returns, which is before it has finished; None on a CPU."""


@frozen
class Prepared:
    """A model on its device with its images, which has yet to run."""

    call: Callable[[], object]
    images: Tensor
    check: Callable[[], Deviation] | None
    """To be called after the first call; None if the options compute exactly what eager fp32 does."""
    seconds: float
    """Casting, folding, tracing."""
    plan: Plan
    """The plan that is executed: with `fold_bn`, without the folded BatchNorms."""
    step: training.Step | None = None
    """A training step that reports the end of its phases; None in inference."""
    captured_bytes: int | None = None
    """Peak memory of what a CUDA graph captured, without the images; None without a graph."""


def out_of_memory_message(plan: Plan, batch_size: int, place: torch.device, options: RunOptions) -> tuple[str, str]:
    """Subject and hint for an out-of-memory error; the hint names a batch that may fit: the half, or less by the plan.

    The hint is empty if none may fit.
    """
    most = batch_size // 2
    if not is_traced(plan):  # the memory of a PyTorch model is unknown
        cast = options.mode == "infer" and options.dtype in ("bf16", "fp16")
        room = free_memory(place) if place.type == "cuda" else physical_memory()
        most = min(most, memory(plan, options.mode, dtype="bf16" if cast else "fp32").largest_batch(room))
    return f"`{plan.name}` with a batch of {batch_size}", f"`--batch-size {most}` or less may fit" if most > 0 else ""


def free_memory(place: torch.device) -> int:
    """Bytes of GPU memory that this process can still allocate; the total if that is unknown."""
    with suppress(RuntimeError):  # not even a context fits
        free, _ = torch.cuda.mem_get_info(place)
        return free + torch.cuda.memory_reserved(place) - torch.cuda.memory_allocated(place)
    return torch.cuda.get_device_properties(place).total_memory


def prepare(
    plan: Plan,
    place: torch.device,
    batch_size: int,
    clock: Clock,
    options: RunOptions = DEFAULT,
    pool: Pool | None = None,
) -> Ready:
    """A plan's model with random weights, run once on random images. Within `execution.configure_torch`.

    `pool` is as for `transform`. Raises UsageError for an impossible batch or option, ResourceError for what cannot be
    compiled.
    """
    prepared = set_up(plan, place, batch_size, clock, options, pool)
    with explain_errors(plan, options):
        first_call_s, peak = _first_call(prepared.call, prepared.images, place, clock)
        if prepared.captured_bytes is not None:  # a replay allocates nothing
            peak = prepared.captured_bytes + prepared.images.nbytes
        deviation = prepared.check() if prepared.check else None
    waited, queued = timers(prepared.call, place, clock)
    if is_traced(plan):  # which may fail at any call
        waited, queued = _explaining(waited, plan, options), _explaining(queued, plan, options)
    step = prepared.step
    setup = Setup(
        options=options,
        batch=batch_size,
        tf32=place.type == "cuda" and options.precision in ("fp32", "tf32") and _tf32(place),
        threads=torch.get_num_threads(),
        cudnn_benchmark=place.type == "cuda" and torch.backends.cudnn.benchmark,
        deviation_maps=deviation.feature_map if deviation else None,
        deviation_outputs=deviation.outputs if deviation else None,
        tolerance=deviation.tolerance if deviation else None,
        prepare_s=prepared.seconds + first_call_s,
        first_call_s=first_call_s,
        peak_memory_bytes=peak,
        live_peak_bytes=_live_peak(prepared.plan, place, batch_size, options),
    )
    return Ready(
        place, setup, waited, queued,
        phases=None if step is None else lambda: seconds_of(step, place, clock),
        host=None if place.type == "cpu" else _host(prepared.call, place, clock),
    )  # fmt: skip


def set_up(
    plan: Plan, place: torch.device, batch_size: int, clock: Clock, options: RunOptions, pool: Pool | None = None
) -> Prepared:
    """A plan's model with random weights and random images. Within `execution.configure_torch`.

    Raises what `prepare` does.
    """
    if batch_size < 1:
        raise UsageError("`--batch-size` must be at least 1", "for example `--batch-size 8`")
    if is_traced(plan) and options.mode == "train":
        raise UsageError(f"`{plan.name}` is a PyTorch model: its training step is not measured",
                         "omit `--mode train`")  # fmt: skip
    subject, hint = out_of_memory_message(plan, batch_size, place, options)
    require(subject, batch_size * _widest(plan) * torch.float32.itemsize, place, hint)
    if options.mode == "train":  # at least half of it if activations are cast to bf16
        require(subject, memory(plan, "train").bytes(batch_size) // (2 if options.dtype == "bf16" else 1), place, hint)
    with pytorch_model(plan, place, batch_size) if is_traced(plan) else nullcontext(build_random(plan, place)) as net:
        # Never zeros: computing on zeros draws less power and can be faster.
        x = torch.randn((batch_size, *image_sizes(plan)), device=place)
        with torch.no_grad(), explain_errors(plan, options):
            calibrate_norms(net, x, plan)
        if isinstance(net, Net) and options.mode == "train":
            return _set_up_training(plan, net, x, options, place, clock)
        return _set_up_inference(plan, net, x, options, place, clock, pool)


def _set_up_inference(
    plan: Plan, net: nn.Module, x: Tensor, options: RunOptions, place: torch.device, clock: Clock, pool: Pool | None
) -> Prepared:
    with explain_errors(plan, options):
        expected = None if options.plain else reference_outputs(plan, net, x)
        start = clock()
        variant = transform(plan, net, options, x, pool)
        ready = variant.images
        _wait(place)
        seconds = clock() - start
    checked = None if expected is None else lambda: check_outputs(variant, ready, expected)
    return Prepared(
        lambda: variant.call(ready), ready, checked, seconds, variant.plan, captured_bytes=variant.captured_bytes
    )


def _set_up_training(
    plan: Plan, net: Net, x: Tensor, options: RunOptions, place: torch.device, clock: Clock
) -> Prepared:
    expected = None if options.plain else training.training_reference(net, x)
    with explain_errors(plan, options):
        start = clock()
        model = training.make_trainable(plan, net, options, len(x), place)
        ready = model.ready(x)
        _wait(place)
        seconds = clock() - start
    checked = None if expected is None else lambda: training.check_training_outputs(model, ready, expected)
    return Prepared(
        lambda: model.step(ready), ready, checked, seconds, plan, step=lambda mark: model.step(ready, mark)
    )  # fmt: skip


def _live_peak(plan: Plan, place: torch.device, batch_size: int, options: RunOptions) -> int | None:
    """Peak bytes of the tensors beyond those that stay, by the plan; None for a run that it does not describe."""
    if is_traced(plan) or options.runtime != "eager" or (options.mode == "train" and options.dtype == "bf16"):
        return None
    dtype: MemoryDtype = "fp32" if options.precision == "tf32" else options.precision
    held = memory(plan, options.mode, dtype=dtype, place="cpu" if place.type == "cpu" else "cuda")
    return held.peak(batch_size).bytes(batch_size)


def _tf32(place: torch.device) -> bool:
    if not gpu_computes("tf32", place):
        return False
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:  # it was set through the newer interface, which cannot be mixed with the older one
        return bool(torch.backends.cudnn.conv.fp32_precision == "tf32")  # type: ignore[attr-defined]


def _widest(plan: Plan) -> int:
    """Scalars in the inputs and output of the largest step, for one image: a lower bound of the memory."""
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
    # Of the second call: the first one also loads libraries' pages and reuses memory the allocator had cached.
    if place.type == "cpu":
        _, above = peak_memory(call)
        return seconds, None if above is None else above + x.nbytes
    return seconds, gpu_peak_memory(call, place) + x.nbytes


def timers(call: Callable[[], object], place: torch.device, clock: Clock) -> tuple[Timer, Timer]:
    """Two timers: one waits for each call before the next, one makes calls back to back."""

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
        return host, host  # on a CPU a call has finished when it returns
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


def _explaining(timer: Timer, plan: Plan, options: RunOptions) -> Timer:
    def timed(calls: int) -> float:
        with explain_errors(plan, options):  # the clock runs within
            return timer(calls)

    return timed


def _wait(place: torch.device) -> None:
    if place.type == "cuda":
        torch.cuda.synchronize(place)


@contextmanager
def on_device(place: torch.device) -> Iterator[None]:
    """Context manager for building and measuring: that GPU is the current one, random numbers start from a fixed seed.

    Output of PyTorch models goes to stderr: it is not a result. Raises ResourceError if the GPU cannot be used.
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
    """A fixed seed, the caller's state restored: not by `torch.manual_seed`, which seeds every device."""
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.default_generator.manual_seed(0)
        if place.type == "cuda":
            torch.cuda.manual_seed(0)
        yield


def _on(place: torch.device) -> AbstractContextManager[object]:
    """Make a GPU the current one: it is seeded, and events are recorded on its stream."""
    return torch.cuda.device(place) if place.type == "cuda" else nullcontext()
