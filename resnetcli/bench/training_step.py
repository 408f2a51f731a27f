"""A training step to be measured: forward with its loss, backward and update, as a whole or by phase."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetcli.bench.deviation import Deviation, as_tuple, relative_error
from resnetcli.bench.environment import Noise
from resnetcli.bench.execution import rounding
from resnetcli.bench.options import RunOptions
from resnetcli.bench.runtimes import Call, Output
from resnetcli.bench.sampling import Clock, precise
from resnetcli.bench.statistics import interval, median
from resnetcli.errors import ResourceError, UsageError
from resnetcli.frozen import frozen
from resnetcli.net.module import Net, build
from resnetcli.ops import BatchNorm
from resnetcli.plan.plan import Plan

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
"""SGD's, as in the papers (He et al. 2016, arXiv:1512.03385, 3.4)."""
LEARNING_RATE = 0.0
"""Zero: every step does all its work and leaves the weights unchanged, so that all steps are alike."""
TOLERANCE = 0.1
"""Largest relative difference between the sum of the phases and the step time at which phases are reliable."""
Mark = Callable[[], object]
"""Called when a phase ends."""
Step = Callable[[Mark], object]
"""A whole training step, which calls its argument when forward, backward and update end."""


def no_mark() -> None:
    """Ignore the end of a phase."""


@frozen
class Phase:
    """One of the three phases, over all steps in which they were timed."""

    median_s: float
    interval_s: tuple[float, float]
    """The median's 95% bootstrap interval."""


@frozen
class Phases:
    """Times of a training step's phases; the three medians need not add up to the step's median."""

    forward: Phase
    """The loss included."""
    backward: Phase
    optimizer: Phase
    """SGD's update, and freeing the gradients."""
    n: int
    """Steps timed by phase."""

    def inconsistencies(self, whole_s: float) -> tuple[Noise, ...]:
        """Why the phases are unreliable: their sum differs from the step time by more than 10%."""
        share = (self.forward.median_s + self.backward.median_s + self.optimizer.median_s) / whole_s
        return () if abs(share - 1) <= TOLERANCE else (Noise("phases", share),)


@frozen
class TrainableModel:
    """A model with its optimizer and labels. To be used within `execution.configure_torch`."""

    net: Net
    call: Call
    """Its forward pass, compiled with `--compile`."""
    labels: tuple[Tensor, ...]
    """Random classes for each output."""
    optimizer: torch.optim.Optimizer
    options: RunOptions
    place: torch.device

    def ready(self, images: Tensor) -> Tensor:
        """(b, c, h, w) in fp32 -> the images that a step takes; autocast does the casting."""
        layout = torch.channels_last if self.options.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def outputs(self, x: Tensor) -> Output:
        """A forward pass in the chosen precision; weights stay in fp32."""
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.options.dtype == "bf16"):
            return self.call(x)

    def step(self, x: Tensor, mark: Mark = no_mark) -> None:
        """One training step, which leaves no gradients behind."""
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.options.dtype == "bf16"):
            loss = loss_of(self.call(x), self.labels)
        mark()
        loss.backward()  # type: ignore[no-untyped-call]
        mark()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark()


def make_trainable(plan: Plan, net: Net, options: RunOptions, batch_size: int, place: torch.device) -> TrainableModel:
    """A plan's fp32 model, ready to be trained on batches of that size. The model itself is modified.

    Raises UsageError for a model without weights, ResourceError for a batch too small for its BatchNorms.
    """
    if next(net.parameters(), None) is None:
        raise UsageError(f"`{plan.name}` has no weights to train", "omit `--mode train`")
    if any(isinstance(s.op, BatchNorm) and batch_size * s.shape.n * s.shape.h * s.shape.w == 1 for s in plan.steps):
        hint = "use `--batch-size 2` or more"
        raise ResourceError(f"`{plan.name}` normalises each channel over one value, which has no variance", hint)
    if options.channels_last:
        with torch.no_grad():
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    call: Call = torch.compile(net, dynamic=False) if options.compile else net
    labels = tuple(
        torch.randint(shape[1], (shape[0], *shape[2:]), device=place) for shape in output_shapes(plan, batch_size)
    )
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return TrainableModel(net, call, labels, optimizer, options, place)


def output_shapes(plan: Plan, batch_size: int) -> tuple[tuple[int, ...], ...]:
    """Shapes of the outputs: (batch, classes, ...). Nothing is computed."""
    size = plan.input
    with torch.no_grad():
        outputs = build(plan, device="meta").eval()(torch.empty(batch_size, size.c, size.h, size.w, device="meta"))
    return tuple(tuple(output.shape) for output in as_tuple(outputs))


def loss_of(outputs: Output, labels: Sequence[Tensor]) -> Tensor:
    """Sum of the outputs' cross entropies with their labels; for an output with a single class its mean square."""
    total: Tensor | None = None
    for y, classes in zip(as_tuple(outputs), labels, strict=True):
        # The only class is always right: its gradient would be zero, and computing on zeros can be faster.
        term = functional.cross_entropy(y, classes) if y.shape[1] > 1 else y.float().square().mean()
        total = term if total is None else total + term
    assert total is not None
    return total


def training_reference(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    """Outputs in training mode in eager fp32 without TF32, dropout disabled."""
    net.train()
    with rounding(allowed=False), torch.no_grad(), without_dropout(net):
        return tuple(value.clone() for value in as_tuple(net(x)))


def check_training_outputs(model: TrainableModel, x: Tensor, expected: tuple[Tensor, ...]) -> Deviation:
    """Deviation of the outputs in training mode from `training_reference`, for images that are ready."""
    with without_dropout(model.net):  # with gradients, as it is timed: a compiler generates other code without them
        outputs = [y.detach() for y in as_tuple(model.outputs(x))]
    return Deviation(None, max(map(relative_error, outputs, expected)), model.options.tolerance)


@contextmanager
def without_dropout(net: nn.Module) -> Iterator[None]:
    """Context manager: disable dropout, whose random masks differ between two runs."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def seconds_of(step: Step, place: torch.device, clock: Clock) -> tuple[float, float, float]:
    """Seconds of one step's forward, backward and update, by the clock or by CUDA events."""
    if place.type == "cpu":
        times = [clock()]
        step(lambda: times.append(clock()))
        forward, backward, optimizer = (after - before for before, after in pairwise(times))
        return forward, backward, optimizer
    events: list[torch.cuda.Event] = []

    def mark() -> None:
        events.append(torch.cuda.Event(enable_timing=True))  # type: ignore[no-untyped-call]
        events[-1].record()

    mark()
    step(mark)
    events[-1].synchronize()
    forward, backward, optimizer = (float(before.elapsed_time(after)) / 1e3 for before, after in pairwise(events))
    return forward, backward, optimizer


def time_phases(
    timed: Callable[[], tuple[float, float, float]], clock: Clock, *, budget_s: float, least: int = 10
) -> Phases:
    """Time steps by phase until the budget ends: at least `least`, or three if that takes four budgets."""
    start = clock()
    steps: list[tuple[float, float, float]] = []
    while True:
        steps.append(timed())
        elapsed, n = clock() - start, len(steps)
        if elapsed >= (budget_s if n >= least else 4 * budget_s) and n >= 3:
            break
        if n >= 10 * least and all(map(precise, zip(*steps, strict=True))):
            break
    forward, backward, optimizer = (Phase(median(times), interval(times)) for times in zip(*steps, strict=True))
    return Phases(forward, backward, optimizer, len(steps))
