"""How long to measure: warm-up, samples of latency, windows of throughput. Calls and clock are passed in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnetcli.bench.statistics import interval, median
from resnetcli.frozen import frozen

Timer = Callable[[int], float]
"""Makes a number of calls and returns the seconds they took in all."""
Clock = Callable[[], float]
"""Seconds since some moment."""
Progress = Callable[[float], None]
"""Receives the share of the work that is done, from 0 to 1."""


def no_progress(share: float) -> None:
    """Ignore progress."""


def portion(progress: Progress, number: int, of: int) -> Progress:
    """The progress of one of several equal pieces of work."""
    return lambda share: progress((number + share) / of)


@dataclass(frozen=True, kw_only=True)  # without slots: a `Measurement` inherits from several such classes
class WarmupResult:
    """The calls before the first sample."""

    warmup_s: float
    warmup_calls: int
    warmup_settled: bool
    """Whether the running median had converged when the warm-up ended."""


@frozen
class Samples:
    """Seconds per call, in the order taken, none omitted."""

    seconds: tuple[float, ...]
    calls: int
    """Calls that each sample is the mean of."""
    precise: bool
    """Whether the median's interval had become narrow enough; otherwise the time budget ended."""


def warm_up(
    timer: Timer, clock: Clock, *, least_s: float = 0.5, most_s: float = 2.0, calls: int = 3, tolerance: float = 0.01
) -> WarmupResult:
    """Calls until `least_s` and `calls` have passed and the running median moves by less than `tolerance`, or `most_s`.

    It has converged when the median of all calls is that of the earlier half of them.
    """
    start = clock()
    times: list[float] = []
    check = calls
    while True:
        times.append(timer(1))
        elapsed = clock() - start
        if len(times) < calls or elapsed < least_s or (len(times) < check and elapsed < most_s):
            continue
        check = later(len(times))
        now = median(times)
        settled = abs(median(times[: len(times) // 2]) - now) <= tolerance * now
        if settled or elapsed >= most_s:
            return WarmupResult(warmup_s=elapsed, warmup_calls=len(times), warmup_settled=settled)


@frozen
class Rounds:
    """Seconds per call of each model, by round: samples of one index were timed in one round."""

    seconds: tuple[tuple[float, ...], ...]
    """One tuple per model, all of one length, no sample omitted."""
    calls: tuple[int, ...]
    """Calls that each model's samples are the mean of."""
    precise: bool
    """Whether every median's and every ratio's interval had become narrow enough; otherwise the time budget ended."""

    @property
    def n(self) -> int:
        """Number of rounds."""
        return len(self.seconds[0])


def sample_interleaved(
    timers: Sequence[Timer],
    clock: Clock,
    order: random.Random,
    *,
    budget_s: float,
    base: int = 0,
    least_s: float = 0.5,
    least: int = 10,
    tick_s: float = 1e-9,
    tolerance: float = 0.01,
    progress: Progress = no_progress,
) -> Rounds:
    """Rounds in which each model is timed once, in a new random order, until all is precise or the budget ends.

    Drifts and stalls then affect all models alike. A median or a ratio to the model `base` is precise when its 95%
    interval is within `tolerance` of it. A sample lasts max(1 ms, 100 ticks of the clock). There are at least `least`
    rounds, over at least `least_s`; three suffice if that would take more than four budgets.
    """
    start = clock()
    calls = tuple(repeats(timer, max(1e-3, 100 * tick_s)) for timer in timers)
    seconds: list[list[float]] = [[] for _ in timers]
    places, n, check = list(range(len(timers))), 0, least
    while True:
        order.shuffle(places)
        for place in places:
            seconds[place].append(timers[place](calls[place]) / calls[place])
        n += 1
        elapsed = clock() - start
        progress(min(1.0, elapsed / budget_s))
        over = elapsed >= (budget_s if n >= least else 4 * budget_s) and n >= min(least, 3)
        if over or (n >= check and elapsed >= least_s):
            check = later(n)
            done = all(
                precise(times, tolerance) and precise(ratios(seconds[base], times), tolerance) for times in seconds
            )
            if done or over:
                return Rounds(tuple(map(tuple, seconds)), calls, done)


def ratios(base: Sequence[float], other: Sequence[float]) -> list[float]:
    """The other's time relative to the base's, in each round."""
    return [b / a for a, b in zip(base, other, strict=True)]


def sample(
    timer: Timer, clock: Clock, *, budget_s: float, least_s: float = 0.5, tick_s: float = 1e-9,
    progress: Progress = no_progress,
) -> Samples:  # fmt: skip
    """`sample_interleaved` for a single model."""
    rounds = sample_interleaved(
        [timer], clock, random.Random(0), budget_s=budget_s, least_s=least_s, tick_s=tick_s, progress=progress
    )
    return Samples(rounds.seconds[0], rounds.calls[0], rounds.precise)


def throughput(timer: Timer, clock: Clock, *, budget_s: float, call_s: float, windows: int = 5) -> float:
    """Calls a second, the median over windows of back-to-back calls; `call_s` is about how long one takes.

    Fewer windows if they would take twice the budget.
    """
    calls = max(1, round(budget_s / windows / call_s))
    start = clock()
    rates = [calls / timer(calls)]
    while len(rates) < windows and clock() - start < 2 * budget_s:
        rates.append(calls / timer(calls))
    return median(rates)


def repeats(timer: Timer, least_s: float) -> int:
    """Calls that together last `least_s`."""
    calls = 1
    while (seconds := timer(calls)) < least_s:
        calls = max(2 * calls, min(10 * calls, round(1.2 * calls * least_s / seconds) if seconds > 0 else 10 * calls))
    return calls


def precise(seconds: Sequence[float], tolerance: float = 0.01) -> bool:
    """Whether the median's 95% interval is within `tolerance` of it."""
    low, high = interval(seconds)
    middle = median(seconds)
    return middle - low <= tolerance * middle and high - middle <= tolerance * middle


def later(n: int) -> int:
    """Sample count at the next check: checks take time, and frequent ones stop at a lucky moment."""
    return n + max(1, n // 10)
