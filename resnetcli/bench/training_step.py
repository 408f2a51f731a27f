"""A training step as it is measured: forward with its loss, backward and the optimizer's update, also timed apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from resnetcli.bench.runtimes import Call, Deviation, Output, as_tuple, relative
from resnetcli.bench.sampling import Clock, precise
from resnetcli.bench.settings import Settings, rounding
from resnetcli.bench.statistics import interval, median
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import Net, build
from resnetcli.ops import BatchNorm
from resnetcli.plan.plan import Plan

MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
"""Of SGD, as in the papers (He et al. 2016, arXiv:1512.03385, 3.4)."""
LEARNING_RATE = 0.0
"""Every step computes all of it and leaves the weights as they were, so that the last one does what the first did."""
TOLERANCE = 0.1
"""Beyond this disagreement with the time of the whole, phases are not to be relied upon."""
Mark = Callable[[], object]
"""Is told that a phase is over."""
Step = Callable[[Mark], object]
"""A whole training step, which tells when its forward, its backward and its update are over."""


def nobody() -> None:
    """For who times the step as a whole."""


@dataclass(frozen=True, slots=True)
class Phase:
    """One of the three, over all steps in which they were timed apart."""

    median_s: float
    interval_s: tuple[float, float]
    """The median's 95% bootstrap interval."""


@dataclass(frozen=True, slots=True)
class Phases:
    """Where a training step's time goes; three medians need not add up to the median of the whole."""

    forward: Phase
    """The loss included."""
    backward: Phase
    optimizer: Phase
    """SGD's update, and letting go of the gradients."""
    n: int
    """Steps that were timed so."""

    def amiss(self, whole_s: float) -> tuple[str, ...]:
        """That they do not add up to the time of the whole, in words, if it is by more than a tenth."""
        share = (self.forward.median_s + self.backward.median_s + self.optimizer.median_s) / whole_s
        return () if abs(share - 1) <= TOLERANCE else (f"a step's phases add up to {100 * share:.0f}% of it",)


@dataclass(frozen=True, slots=True)
class Trained:
    """A net under settings with what trains it. To be used within `settings.applied`."""

    net: Net
    call: Call
    """Its forward, compiled if it is to be."""
    labels: tuple[Tensor, ...]
    """Random classes for each output."""
    optimizer: torch.optim.Optimizer
    settings: Settings
    place: torch.device

    def ready(self, images: Tensor) -> Tensor:
        """(b, c, h, w) in fp32 -> what a step takes: autocast casts by itself."""
        layout = torch.channels_last if self.settings.channels_last else torch.contiguous_format
        return images.contiguous(memory_format=layout)

    def outputs(self, x: Tensor) -> Output:
        """A forward in the precision asked for; weights stay in fp32."""
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.settings.dtype == "bf16"):
            return self.call(x)

    def step(self, x: Tensor, mark: Mark = nobody) -> None:
        """One training step; afterwards no gradients are left."""
        with torch.autocast(self.place.type, torch.bfloat16, enabled=self.settings.dtype == "bf16"):
            loss = loss_of(self.call(x), self.labels)
        mark()
        loss.backward()  # type: ignore[no-untyped-call]
        mark()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        mark()


def trained(plan: Plan, net: Net, settings: Settings, batch: int, place: torch.device) -> Trained:
    """The fp32 net of a plan ready to be trained on batches of that size. The net itself is used up.

    Raises UsageError for a net that has nothing to train, ResourceError for a batch too small for its BatchNorms.
    """
    if next(net.parameters(), None) is None:
        raise UsageError(f"`{plan.name}` has no weights to be trained", "leave `--mode train` out")
    if any(isinstance(s.op, BatchNorm) and batch * s.shape.n * s.shape.h * s.shape.w == 1 for s in plan.steps):
        hint = "use `--batch 2` or more"
        raise ResourceError(f"`{plan.name}` normalises each channel over one value, which has no variance", hint)
    if settings.channels_last:
        with torch.no_grad():
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    net.train()
    call: Call = torch.compile(net, dynamic=False) if settings.compile else net
    labels = tuple(
        torch.randint(shape[1], (shape[0], *shape[2:]), device=place) for shape in output_shapes(plan, batch)
    )
    optimizer = torch.optim.SGD(net.parameters(), LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    return Trained(net, call, labels, optimizer, settings, place)


def output_shapes(plan: Plan, batch: int) -> tuple[tuple[int, ...], ...]:
    """What the net gives for a batch, the batch first and then the classes; nothing is computed."""
    size = plan.input
    with torch.no_grad():
        found = build(plan, device="meta").eval()(torch.empty(batch, size.c, size.h, size.w, device="meta"))
    return tuple(tuple(output.shape) for output in as_tuple(found))


def loss_of(outputs: Output, labels: Sequence[Tensor]) -> Tensor:
    """The outputs' cross entropies with their labels, summed; of an output with a single class its mean square."""
    total: Tensor | None = None
    for y, classes in zip(as_tuple(outputs), labels, strict=True):
        # One class is always right: its gradient would be zero, and arithmetic on zeros can be faster.
        each = functional.cross_entropy(y, classes) if y.shape[1] > 1 else y.float().square().mean()
        total = each if total is None else total + each
    assert total is not None
    return total


def reference(net: Net, x: Tensor) -> tuple[Tensor, ...]:
    """The net's outputs in training in eager fp32 without TF32, nothing dropped."""
    net.train()
    with rounding(allowed=False), torch.no_grad(), without_dropout(net):
        return tuple(value.clone() for value in as_tuple(net(x)))


def check(made: Trained, x: Tensor, expected: tuple[Tensor, ...]) -> Deviation:
    """How far the outputs in training are from `reference`'s, for images that are ready."""
    with without_dropout(made.net):  # with gradients, as it is timed: a compiler makes another net without them
        found = [y.detach() for y in as_tuple(made.outputs(x))]
    return Deviation(None, max(map(relative, found, expected)), made.settings.tolerance)


@contextmanager
def without_dropout(net: nn.Module) -> Iterator[None]:
    """Within, nothing is dropped: what chance leaves out of two runs is not the same."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.Dropout)]
    for layer in layers:
        layer.eval()
    try:
        yield
    finally:
        for layer in layers:
            layer.train()


def seconds_of(step: Step, place: torch.device, clock: Clock) -> tuple[float, float, float]:
    """Of one step those of its forward, its backward and its update, by the clock or a GPU's own events."""
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


def take_apart(
    timed: Callable[[], tuple[float, float, float]], clock: Clock, *, budget_s: float, least: int = 10
) -> Phases:
    """Steps timed phase by phase until the budget ends: `least` of them, or three where four budgets are over."""
    start = clock()
    found: list[tuple[float, float, float]] = []
    while True:
        found.append(timed())
        elapsed, n = clock() - start, len(found)
        if elapsed >= (budget_s if n >= least else 4 * budget_s) and n >= 3:
            break
        if n >= 10 * least and all(map(precise, zip(*found, strict=True))):
            break
    forward, backward, optimizer = (Phase(median(times), interval(times)) for times in zip(*found, strict=True))
    return Phases(forward, backward, optimizer, len(found))
