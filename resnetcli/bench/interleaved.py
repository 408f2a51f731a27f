"""Several nets measured against each other on one device: each by itself what `measure` gives, and their ratios."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.energy import Sleep
from resnetcli.bench.environment import Ledger
from resnetcli.bench.latency import Measurement, afterwards, look_around, measurement, watch
from resnetcli.bench.prepare import DEFAULT_SETTINGS, Ready, on_device, prepare, wanted
from resnetcli.bench.sampling import Clock, Samples, Tell, Warmup, precise, tell_nobody, warm_up
from resnetcli.bench.settings import Settings, applied, require_possible
from resnetcli.bench.statistics import median
from resnetcli.bench.versus import Ratio, noise_floor, paired, take_turns
from resnetcli.errors import ResourceError, release_frames
from resnetcli.net.memory import fitting
from resnetcli.plan.plan import Plan

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Together:
    """What each net took, or why it could not be measured, in the order of the plans."""

    measured: tuple[Measurement | ResourceError, ...]
    ratios: tuple[Ratio | None, ...]
    """To the base's time; None for the base itself, and wherever one of the two could not be measured."""
    floor: float | None
    """How far the base may seem to be from itself; None where nothing is compared with it."""
    rounds: int
    precise: bool
    """Whether every interval came within 1%; else time had run out."""


def measure_together(
    plans: Sequence[Plan],
    *,
    base: int = 0,
    device: str = "cpu",
    batch: int = 1,
    settings: Settings = DEFAULT_SETTINGS,
    time_budget_s: float = 3.0,
    energy: bool = False,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    tell: Tell = tell_nobody,
) -> Together:
    """The plans' nets, all on the device at once and timed in turns, for about `time_budget_s` each.

    The base is built twice, and both are timed in each round, which shows what a difference is that is none: where a
    net's weights come to lie in memory makes it quicker or slower too. Shares of the budget and clocks are as `measure`
    has them. A net that does not fit into memory is left out of the rounds. Raises UsageError
    for a device or batch that cannot be, ResourceError where nets fit one by one but not together.
    """
    place = torch.device(devices.find(device))
    require_possible(settings, str(place))
    found: list[Measurement | ResourceError] = []
    ready: dict[int, Ready] = {}
    failed: dict[int, ResourceError] = {}

    warm: dict[int, Warmup] = {}
    least_s, most_s = min(0.5, time_budget_s / 6), time_budget_s / 3
    graphs = settings.cuda_graph  # the models never run at the same time, so that their graphs can share memory
    pool = torch.cuda.graph_pool_handle() if graphs else None

    def build(number: int) -> Ready:
        return prepare(plans[number], place, batch, clock, settings, pool)

    def settle(number: int) -> Warmup:
        return warm_up(ready[number].waited, clock, least_s=least_s, most_s=most_s)

    def each(numbers: Sequence[int], work: Callable[[int], T], results: dict[int, T]) -> None:
        """The results of what succeeds. Only `ready` may refer to a model: one that fails has to be freed at once."""
        nonlocal pool
        for number in numbers:
            what, hint = wanted(plans[number], batch, place, settings)
            try:
                with fitting(what, place, hint):
                    results[number] = work(number)
            except ResourceError as error:
                failed[number] = release_frames(error)
                ready.pop(number, None)
            if number in failed and place.type == "cuda":
                torch.cuda.empty_cache()
                pool = torch.cuda.graph_pool_handle() if graphs else None  # a failed capture may leave a pool unusable
            tell(len(warm) / len(plans) / 3)

    with on_device(place), applied(settings, place):
        with fitting("measuring the idle power", place):
            supply = watch(place, clock, sleep) if energy else None
        each(range(len(plans)), build, ready)
        compared = base in ready and len(ready) > 1
        again = _twin(ready[base], lambda: build(base)) if compared else None
        before = look_around(place)  # building and compiling are not what is measured
        each(list(ready), settle, warm)
        if not ready:
            return Together(tuple(failed[number] for number in range(len(plans))), (None,) * len(plans), None, 0, False)
        numbers, compared = list(ready), base in ready and len(ready) > 1
        timers = [net.waited for net in ready.values()]
        fewer = "" if batch == 1 else "use a smaller `--batch`"
        with fitting(f"{len(plans)} nets at once with a batch of {batch}", place, fewer):
            if compared and again is not None:
                warm_up(again.waited, clock, least_s=least_s, most_s=most_s)
                timers.append(again.waited)
            rounds = take_turns(
                timers, clock, random.Random(0), base=numbers.index(base) if compared else 0, least_s=least_s,
                budget_s=time_budget_s / 2 * len(timers), tell=lambda share: tell((2 + 3 * share) / 6),
            )  # fmt: skip
            seconds = dict(zip(numbers, rounds.seconds, strict=False))  # the base's second ones come last
            more = {
                number: afterwards(
                    net, clock, budget_s=time_budget_s / 6, call_s=median(seconds[number]), supply=supply
                )
                for number, net in ready.items()
            }
        environment = Ledger(before, look_around(place))
    tell(1.0)
    floor = noise_floor(seconds[base], rounds.seconds[-1]) if compared else None
    for number in range(len(plans)):
        if number in failed:
            found.append(failed[number])
            continue
        samples = Samples(seconds[number], rounds.calls[numbers.index(number)], precise(seconds[number]))
        found.append(measurement(ready[number], warm[number], samples, more[number], environment))
    ratios = tuple(
        paired(seconds[base], seconds[number], floor) if floor is not None and number in ready and number != base
        else None
        for number in range(len(plans))
    )  # fmt: skip
    return Together(tuple(found), ratios, floor, rounds.n, rounds.precise)


def _twin(net: Ready, build: Callable[[], Ready]) -> Ready:
    """The net built once more, or itself where memory does not suffice for two."""
    with suppress(ResourceError), fitting("a net twice", net.place):
        return build()
    if net.place.type == "cuda":
        torch.cuda.empty_cache()
    return net
