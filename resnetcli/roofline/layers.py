"""Time of each layer: passes timed after every step, checked against passes timed as a whole."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import field
from itertools import pairwise

import torch
from torch import Tensor

from resnetcli.bench import device as devices
from resnetcli.bench.execution import configure_torch, require_supported
from resnetcli.bench.options import DEFAULT, RunOptions
from resnetcli.bench.prepare import on_device, out_of_memory_message
from resnetcli.bench.runtimes import transform
from resnetcli.bench.sampling import Clock
from resnetcli.bench.weights import build_random, calibrate_norms
from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.net.module import Net
from resnetcli.plan.plan import Plan

TOLERANCE = 0.1
"""Maximum relative difference between the layers' sum and the whole; beyond it the layers' times are unreliable."""
FASTEST_CLOCK = 2e9
"""Hz of the fastest GPU clocks: a GPU with a slower clock is kept busy for longer."""
MOST_AHEAD_S = 0.25
"""Longest time to keep a GPU busy before a pass."""


@frozen
class LayerTimes:
    """Seconds of each step of a forward pass."""

    steps_s: tuple[float, ...] = field(repr=False)
    """Each step's mean over the middle half of the passes; the input's is 0."""
    whole_s: float
    """Mean time of the passes interleaved with those and timed as a whole."""
    n: int
    """Passes of either kind."""

    @property
    def total_s(self) -> float:
        """The steps' sum."""
        return sum(self.steps_s)

    @property
    def ratio(self) -> float:
        """The steps' sum / the whole."""
        return self.total_s / self.whole_s

    @property
    def agrees(self) -> bool:
        """Whether the sum differs from the whole by no more than the tolerance."""
        return abs(self.ratio - 1) <= TOLERANCE

    @property
    def reliable_s(self) -> tuple[float, ...] | None:
        """The steps' times; None if they do not add up."""
        return self.steps_s if self.agrees else None


def time_layers(
    plan: Plan,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    options: RunOptions = DEFAULT,
    budget_s: float = 3.0,
    clock: Clock = time.perf_counter,
) -> LayerTimes:
    """Time the layers of a model with random weights, run eagerly on random images.

    Only dtype and memory format may be set: compiled models have no separate layers. Raises UsageError for an
    unsupported device or option, ResourceError if memory does not suffice.
    """
    place = torch.device(devices.find(device))
    require_supported(options, str(place))
    if options.mode == "train":
        raise UsageError("layers can only be timed in inference", "use `--mode infer`")
    if options.runtime != "eager" or options.fold_bn or options.cuda_graph:
        raise UsageError("a compiled or folded model has no separate layers to time", "use eager mode")
    subject, hint = out_of_memory_message(plan, batch_size, place, options)
    with on_device(place), fitting(subject, place, hint), configure_torch(options, place):
        net = build_random(plan, place)
        x = torch.randn(batch_size, plan.input.c, plan.input.h, plan.input.w, device=place)
        calibrate_norms(net, x, plan)
        x = transform(plan, net, options, x).images
        if place.type != "cuda":
            return alternate(lambda: _whole(net, x, clock), lambda: _steps(net, x, clock), clock, budget_s=budget_s)
        queue = _Queue(net, x, len(plan.steps), place, clock)
        return alternate(queue.whole, queue.steps, clock, budget_s=budget_s)


def alternate(
    time_whole: Callable[[], float],
    time_steps: Callable[[], list[float]],
    clock: Clock,
    *,
    budget_s: float,
    least: int = 5,
) -> LayerTimes:
    """Time passes as a whole and step by step, interleaved, `least` pairs or until the budget ends."""
    time_whole(), time_steps()  # warm-up
    pairs: list[tuple[float, list[float]]] = []
    start = clock()
    while len(pairs) < least or clock() - start < budget_s:
        pairs.append((time_whole(), time_steps()))
        if len(pairs) >= 3 and clock() - start > 4 * budget_s:
            break
    # Medians per step would drop stalls that hit a different step each time, and would not sum to a pass. The middle
    # half of the pairs is taken by the time of both passes: a slow phase of the machine slows both.
    pairs.sort(key=lambda pair: pair[0] + sum(pair[1]))
    middle = pairs[len(pairs) // 4 : len(pairs) - len(pairs) // 4]
    means = tuple(sum(times) / len(middle) for times in zip(*(steps for _, steps in middle), strict=True))
    return LayerTimes(means, sum(whole for whole, _ in middle) / len(middle), len(pairs))


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
    """Passes on a GPU that begin when all of their kernels are queued, so that events measure the GPU alone.

    Otherwise the GPU would wait for the CPU at small batches, longer if it records an event after every step.
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
