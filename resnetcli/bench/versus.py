"""Ratios of two models' times, paired by round, and the noise floor."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, hypot, log
from typing import Literal

from resnetcli.bench.sampling import ratios
from resnetcli.bench.statistics import interval, median
from resnetcli.frozen import frozen

Outcome = Literal["slower", "faster", "same"]


@frozen
class Ratio:
    """One time relative to another, above 1 where it is longer."""

    ratio: float
    """The median over rounds, or of two medians."""
    interval: tuple[float, float]
    """Its 95% interval."""
    floor: float
    """Noise floor, relative, from an A/A test of one of the models. A difference below it does not count."""

    @property
    def resolution(self) -> float:
        """Smallest difference that could have been detected, relative."""
        low, high = self.interval
        return max((high - low) / 2 / self.ratio, self.floor)

    @property
    def outcome(self) -> Outcome:
        """A difference only if the interval excludes 1 and the ratio is beyond the noise floor."""
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
    """Noise floor: the largest distance from 1 in the CI of an A/A test's ratio, both copies timed in every round."""
    low, high = paired(base, again).interval
    return max(high - 1, 1 - low, 0.0)


def _factor(value: float, size: float) -> str:
    """With three decimals for a ratio below 1.1, two below 10, else one."""
    return f"{value:.{1 if size >= 9.995 else 2 if size >= 1.0995 else 3}f}"


def _limits(low: float, high: float, size: float) -> str:
    return f"[{_factor(low, size)}, {_factor(high, size)}]"
