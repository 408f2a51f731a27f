"""Models timed against each other: interleaved rounds, ratios paired by round, and the noise floor."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, hypot, log
from typing import Literal

from resnetcli.bench.sampling import Clock, Progress, Timer, later, no_progress, precise, repeats
from resnetcli.bench.statistics import interval, median

Outcome = Literal["slower", "faster", "same"]


@dataclass(frozen=True, slots=True)
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
    rounds, over at least `least_s`; three suffice where that would take more than four budgets.
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


@dataclass(frozen=True, slots=True)
class Ratio:
    """One time relative to another, above 1 where it is longer."""

    ratio: float
    """The median over rounds, or of two medians."""
    interval: tuple[float, float]
    """Its 95% interval."""
    floor: float
    """Noise floor: how much a model differed from itself, relative. Nothing below it is a difference."""

    @property
    def resolution(self) -> float:
        """Smallest difference that could have been detected, relative."""
        low, high = self.interval
        return max((high - low) / 2 / self.ratio, self.floor)

    @property
    def outcome(self) -> Outcome:
        """A difference only where the interval excludes 1 and the ratio is beyond the noise floor."""
        low, high = self.interval
        if low > 1 and self.ratio - 1 > self.floor:
            return "slower"
        return "faster" if high < 1 and 1 / self.ratio - 1 > self.floor else "same"

    def text(self) -> str:
        """`1.23x slower [1.21, 1.25]`, or `no difference detectable (resolution 1.8%)`."""
        if self.outcome == "same":
            percent = 100 * self.resolution
            return f"no difference detectable (resolution {percent:.{1 if percent < 10 else 0}f}%)"
        low, high = self.interval
        if self.outcome == "slower":
            return f"{_factor(self.ratio, self.ratio)}x slower {_limits(low, high, self.ratio)}"
        return f"{_factor(1 / self.ratio, 1 / self.ratio)}x faster {_limits(1 / high, 1 / low, 1 / self.ratio)}"


def paired(base: Sequence[float], other: Sequence[float], floor: float = 0.0) -> Ratio:
    """The ratio of two models timed in the same rounds."""
    by_round = ratios(base, other)
    return Ratio(median(by_round), interval(by_round), floor)


def unpaired(
    base: float, base_interval: tuple[float, float], other: float, other_interval: tuple[float, float], floor: float
) -> Ratio:
    """The ratio of two medians that were measured separately, such as on different days.

    On a logarithmic scale the distances of its interval's limits are the root of the sum of squares of those of the two
    medians: independent errors add up so.
    """
    ratio = other / base
    up = hypot(log(other_interval[1] / other), log(base / base_interval[0]))
    down = hypot(log(other / other_interval[0]), log(base_interval[1] / base))
    return Ratio(ratio, (ratio * exp(-down), ratio * exp(up)), floor)


def noise_floor(base: Sequence[float], again: Sequence[float]) -> float:
    """How far a model may seem to differ from itself, relative: an A/A test, both timed in every round."""
    low, high = paired(base, again).interval
    return max(high - 1, 1 - low, 0.0)


def _factor(value: float, size: float) -> str:
    """With as many digits as a ratio of that size calls for."""
    return f"{value:.{1 if size >= 9.995 else 2 if size >= 1.0995 else 3}f}"


def _limits(low: float, high: float, size: float) -> str:
    return f"[{_factor(low, size)}, {_factor(high, size)}]"
