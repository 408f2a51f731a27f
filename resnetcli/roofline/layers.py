"""What each layer of a net takes: a pass that looks at the clock after every step, held to the time without looking."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from resnetcli.bench import device as devices
from resnetcli.bench.execution import configure_torch, require_supported
from resnetcli.bench.options import DEFAULT, RunOptions
from resnetcli.bench.prepare import on_device, out_of_memory_message
from resnetcli.bench.runtimes import calibrate, transform, weights
from resnetcli.bench.sampling import Clock
from resnetcli.errors import UsageError
from resnetcli.net.memory import fitting
from resnetcli.net.module import Net
from resnetcli.plan.plan import Plan

TOLERANCE = 0.1
"""Beyond this disagreement with the time of the whole, the layers' times are not shown."""
FASTEST_CLOCK = 2e9
"""Hz of the fastest GPU clocks: a GPU with a slower clock is kept busy for longer."""
MOST_AHEAD_S = 0.25
"""Longest time to keep a GPU busy before a pass."""


@dataclass(frozen=True, slots=True)
class Split:
    """The seconds of one forward pass, step by step, and whether they are to be trusted."""

    every_s: tuple[float, ...] = field(repr=False)
    """Each step's mean over the usual passes; the input's is 0."""
    total_s: float
    """The mean of the passes taken in turn with those, in which nobody looked at the clock."""
    n: int
    """Passes of either kind."""

    @property
    def ratio(self) -> float:
        """The steps' sum to the total."""
        return sum(self.every_s) / self.total_s

    @property
    def agrees(self) -> bool:
        """Whether the sum is the total, to within a tenth."""
        return abs(self.ratio - 1) <= TOLERANCE

    @property
    def steps_s(self) -> tuple[float, ...] | None:
        """The steps' times; None where they do not add up."""
        return self.every_s if self.agrees else None


def split(
    plan: Plan,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    options: RunOptions = DEFAULT,
    budget_s: float = 3.0,
    clock: Clock = time.perf_counter,
) -> Split:
    """The layers' times of a net built on `device` with random weights and run eagerly on random images.

    Of the options the dtype and the layout count: what a compiler makes has no layers to be timed. Raises UsageError
    for an impossible device or option, ResourceError if memory does not suffice.
    """
    place = torch.device(devices.find(device))
    require_supported(options, str(place))
    if options.mode == "train":
        raise UsageError("layers are timed in inference only", "use `--mode infer`")
    if options.runtime != "eager" or options.fold_bn or options.cuda_graph:
        raise UsageError("a net that is compiled or folded has no layers to be timed", "measure it eagerly")
    subject, hint = out_of_memory_message(plan, batch_size, place, options)
    with on_device(place), fitting(subject, place, hint), configure_torch(options, place):
        net = weights(plan, place)
        x = torch.randn(batch_size, plan.input.c, plan.input.h, plan.input.w, device=place)
        calibrate(net, x, plan)
        x = transform(plan, net, options, x).images
        if place.type != "cuda":
            return take_turns(lambda: _whole(net, x, clock), lambda: _steps(net, x, clock), clock, budget_s=budget_s)
        queue = _Queue(net, x, len(plan.steps), place, clock)
        return take_turns(queue.whole, queue.steps, clock, budget_s=budget_s)


def take_turns(
    whole: Callable[[], float],
    steps: Callable[[], list[float]],
    clock: Clock,
    *,
    budget_s: float,
    least: int = 5,
) -> Split:
    """A pass timed as a whole and one timed step by step, in turn, `least` times or until the budget ends."""
    whole(), steps()  # what is done once is done now
    totals: list[float] = []
    found: list[list[float]] = []
    start = clock()
    while len(totals) < least or clock() - start < budget_s:
        totals.append(whole())
        found.append(steps())
        if len(totals) >= 3 and clock() - start > 4 * budget_s:
            break
    # Medians step by step would leave out what strikes now one step, now another, and never sum up to a pass. The usual
    # pairs are the middle half of them, as long as both took: what slows a machine for a while slows both of a pair.
    pairs = sorted(zip(totals, found, strict=True), key=lambda pair: pair[0] + sum(pair[1]))
    usual = pairs[len(pairs) // 4 : len(pairs) - len(pairs) // 4]
    each = tuple(sum(times) / len(usual) for times in zip(*(steps for _, steps in usual), strict=True))
    return Split(each, sum(total for total, _ in usual) / len(usual), len(totals))


def _whole(net: Net, x: Tensor, clock: Clock) -> float:
    start = clock()
    net(x)
    return clock() - start


def _steps(net: Net, x: Tensor, clock: Clock) -> list[float]:
    """Seconds of each step except the first, the input."""
    times: list[float] = []
    net.run(x, observe=lambda _: times.append(clock()))
    return [0.0, *(after - before for before, after in pairwise(times))]


class _Queue:
    """Passes on a GPU that begin when all of their kernels are queued, so that events see the GPU's time alone.

    Otherwise the GPU would wait for the CPU at small batches, and longer where it records an event after every step.
    """

    def __init__(self, net: Net, x: Tensor, steps: int, place: torch.device, clock: Clock) -> None:
        self.net, self.x = net, x
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(steps)]  # type: ignore[no-untyped-call]
        self.cycles = 0
        self._steps()  # convolutions choose their algorithms
        torch.cuda.synchronize(place)
        start = clock()
        self._steps()
        self.cycles = int(min(2 * (clock() - start), MOST_AHEAD_S) * FASTEST_CLOCK)
        torch.cuda.synchronize(place)

    def _hold(self) -> None:
        """Keeps the GPU busy for about twice the time that the CPU takes to queue a pass."""
        if self.cycles:
            torch.cuda._sleep(self.cycles)  # type: ignore[no-untyped-call]

    def whole(self) -> float:
        begin, end = self.events[0], self.events[-1]
        self._hold()
        begin.record()
        self.net(self.x)
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    def steps(self) -> list[float]:
        """Seconds of each step except the first, the input."""
        self._hold()
        self._steps()
        self.events[-1].synchronize()
        return [0.0, *(float(before.elapsed_time(after)) / 1e3 for before, after in pairwise(self.events))]

    def _steps(self) -> None:
        events = iter(self.events)
        self.net.run(self.x, observe=lambda _: next(events).record())
