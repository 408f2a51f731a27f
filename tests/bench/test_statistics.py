from __future__ import annotations

import random
import time
from itertools import product
from math import comb

import pytest

from resnetcli.bench.statistics import P99_LEAST, at_least, interval, iqr, median, outliers, p99, quantile


@pytest.mark.parametrize(
    ("samples", "middle", "spread"),
    [
        ([7.0], 7.0, 0.0),
        ([1.0, 2.0], 1.5, 0.5),
        ([3.0, 1.0, 2.0], 2.0, 1.0),
        ([4.0, 1.0, 3.0, 2.0], 2.5, 1.5),
        ([1.0, 2.0, 3.0, 4.0, 1000.0], 3.0, 2.0),
    ],
)
def test_median_and_interquartile_range_are_those_worked_out_by_hand(
    samples: list[float], middle: float, spread: float
) -> None:
    assert median(samples) == middle
    assert iqr(samples) == spread


def test_quantiles_lie_on_a_line_between_neighbours() -> None:
    assert [quantile([10.0, 30.0, 20.0], q) for q in (0, 0.25, 0.5, 0.75, 0.9, 1)] == [10, 15, 20, 25, 28, 30]


def test_statistics_leave_the_samples_in_their_order() -> None:
    samples = [3.0, 1.0, 2.0]
    median(samples), iqr(samples), interval(samples)
    assert samples == [3, 1, 2]


@pytest.mark.parametrize("draws", [1, 2, 7, 40])
def test_a_binomial_tail_is_the_sum_of_its_terms(draws: int) -> None:
    for hits, p in product(range(1, draws + 1), (0.01, 0.3, 0.5, 0.9, 0.999)):
        exact = sum(comb(draws, i) * p**i * (1 - p) ** (draws - i) for i in range(hits, draws + 1))
        assert at_least(hits, draws, p) == pytest.approx(exact, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    [(1, 1, 1), (2, 1, 2), (3, 1, 3), (5, 1, 5), (10, 2, 9), (11, 3, 9), (100, 40, 61)],
)
def test_the_interval_s_ranks_are_those_of_the_binomial_tails(n: int, low: int, high: int) -> None:
    """By hand for n = 3: a resample's median is the smallest with probability 7/27, the largest with 7/27."""
    samples = [float(k) for k in range(1, n + 1)]
    random.Random(n).shuffle(samples)
    assert interval(samples) == (low, high)


@pytest.mark.parametrize("n", [7, 15, 51])
def test_the_interval_is_that_of_a_bootstrap_that_draws(n: int) -> None:
    draw = random.Random(0)
    samples = [draw.lognormvariate(0, 0.5) for _ in range(n)]
    medians = sorted(median(draw.choices(samples, k=n)) for _ in range(20_000))
    low, high = interval(samples)
    ordered = sorted(samples)
    for limit, level in ((low, 0.025), (high, 0.975)):
        drawn = medians[round(level * len(medians))]
        assert abs(ordered.index(limit) - ordered.index(drawn)) <= 1


def test_the_interval_covers_the_true_median_about_as_often_as_it_says() -> None:
    draw = random.Random(0)
    covered = 0
    for _ in range(1000):
        low, high = interval([draw.expovariate(1.0) for _ in range(41)])
        covered += low <= 0.6931 <= high
    assert 925 <= covered <= 980


def test_a_single_stall_moves_no_limit() -> None:
    quiet = [1.0 + k / 1000 for k in range(50)]
    assert interval([*quiet[:-1], 100.0]) == interval(quiet)


def test_equal_samples_have_an_interval_without_width() -> None:
    assert interval([2.0] * 30) == (2.0, 2.0)


def test_many_samples_take_little_time() -> None:
    draw = random.Random(0)
    samples = [draw.random() for _ in range(20_000)]
    start = time.process_time()
    low, high = interval(samples)
    assert time.process_time() - start < 0.5
    assert 0.48 < low < median(samples) < high < 0.52


def test_the_least_samples_for_a_99th_percentile_are_those_of_the_normal_approximation() -> None:
    from statistics import NormalDist

    z = NormalDist().inv_cdf(0.995)  # 99% between both tails
    assert (z**2 * 0.99 * 0.01 / 0.005**2) == pytest.approx(P99_LEAST, abs=1)


def test_there_is_a_99th_percentile_only_of_enough_samples() -> None:
    samples = [float(k) for k in range(P99_LEAST)]
    assert p99(samples) == pytest.approx(0.99 * (P99_LEAST - 1))
    assert p99(samples[1:]) is None


def test_outliers_are_named_by_place_and_left_in() -> None:
    samples = [10.0, 30.0, 11.0, 12.0, 1.0, 13.0, 14.0]  # middle half 10.5 to 13.5: fences at 6 and 18
    assert outliers(samples) == (1, 4)
    assert len(samples) == 7
    assert outliers([10.0, 18.0, 11.0, 12.0, 6.0, 13.0, 14.0]) == ()
    assert outliers([1.0] * 20 + [1.1]) == (20,)
    assert outliers([5.0]) == ()
