"""Statistics of timing samples, which are skewed and have outliers: order statistics only, no means."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from math import exp, lgamma, log, log1p


def quantile(samples: Sequence[float], q: float) -> float:
    """The q-th quantile, 0 <= q <= 1, linear between neighbours (R's type 7, NumPy's default)."""
    ordered = sorted(samples)
    place = q * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (place - below) * (ordered[above] - ordered[below])


P99_LEAST = 2628
"""Least samples for p99. At 99% confidence it then lies between p98.5 and p99.5: 2.576^2 * 0.99 * 0.01 / 0.005^2."""


def p99(samples: Sequence[float]) -> float | None:
    """The 99th percentile; None below `P99_LEAST` samples."""
    return quantile(samples, 0.99) if len(samples) >= P99_LEAST else None


def outliers(samples: Sequence[float], reach: float = 1.5) -> tuple[int, ...]:
    """Indices of the samples more than `reach` interquartile ranges outside the middle half (Tukey 1977).

    They are reported and not removed: users experience stalls, too.
    """
    low, high, spread = quantile(samples, 0.25), quantile(samples, 0.75), iqr(samples)
    return tuple(place for place, x in enumerate(samples) if x < low - reach * spread or x > high + reach * spread)


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the middle two."""
    return quantile(samples, 0.5)


def iqr(samples: Sequence[float]) -> float:
    """Interquartile range: the width of the middle half."""
    return quantile(samples, 0.75) - quantile(samples, 0.25)


def interval(samples: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The bootstrap's percentile interval of the median in the limit of infinitely many resamples.

    A resample's median is at most the k-th smallest of n samples if more than half of its n draws are, each with
    probability k/n: a binomial tail, so nothing needs to be drawn (Efron 1982, "The Jackknife, the Bootstrap and Other
    Resampling Plans", 10.3). Where n is even, the lower limit is that of the lower middle sample and the upper limit
    that of the upper one.
    """
    ordered = sorted(samples)
    n = len(ordered)
    tail = (1 - confidence) / 2

    def rank(middle: int, level: float) -> int:
        """The smallest k for which the middle-th smallest draw is at most the k-th sample at this level."""
        return bisect_left(range(1, n), level, key=lambda k: at_least(middle, n, k / n))

    return ordered[rank((n + 1) // 2, tail)], ordered[rank(n // 2 + 1, 1 - tail)]


def at_least(hits: int, draws: int, p: float) -> float:
    """The probability of `hits` or more, 0 < hits <= draws, in independent draws of probability 0 < p < 1 each."""
    odds = p / (1 - p)
    upwards = hits > draws * p  # always away from the peak, so that terms shrink and the sum ends soon
    i = hits if upwards else hits - 1
    term = exp(lgamma(draws + 1) - lgamma(i + 1) - lgamma(draws - i + 1) + i * log(p) + (draws - i) * log1p(-p))
    total = 0.0
    while term > 1e-17 and 0 <= i <= draws:
        total += term
        if upwards:
            term *= (draws - i) / (i + 1) * odds
            i += 1
        else:
            term *= i / ((draws - i + 1) * odds)
            i -= 1
    return total if upwards else 1 - total
