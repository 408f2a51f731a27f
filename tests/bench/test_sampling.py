from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, cycle, repeat

import pytest

from resnetcli.bench.sampling import Samples, sample, throughput, warm_up


@dataclass
class Fake:
    """A clock that only calls move on: the n-th takes the n-th of `durations`, and asking `overhead`."""

    durations: Iterable[float]
    overhead: float = 0.0
    now: float = 1000.0
    made: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._next: Iterator[float] = iter(self.durations)

    def clock(self) -> float:
        return self.now

    def timer(self, calls: int) -> float:
        seconds = sum(next(self._next) for _ in range(calls))
        self.now += seconds + self.overhead
        self.made.append(calls)
        return seconds


def test_warm_up_makes_three_calls_even_if_the_first_outlasts_the_half_second() -> None:
    fake = Fake(repeat(0.4))
    result = warm_up(fake.timer, fake.clock)
    assert (result.warmup_calls, result.warmup_settled) == (3, True)
    assert result.warmup_s == pytest.approx(1.2)


def test_warm_up_lasts_half_a_second_even_if_all_calls_are_alike() -> None:
    fake = Fake(repeat(0.01))
    result = warm_up(fake.timer, fake.clock)
    assert result.warmup_settled
    assert 0.5 <= result.warmup_s < 0.55


def test_warm_up_continues_until_the_median_of_a_model_that_gets_faster_has_settled() -> None:
    fake = Fake(chain(repeat(0.1, 4), repeat(0.02)))
    result = warm_up(fake.timer, fake.clock)
    assert result.warmup_settled
    assert 17 <= result.warmup_calls <= 24


def test_warm_up_ends_unsettled_when_its_time_is_over() -> None:
    fake = Fake(1 / n for n in count(5))
    result = warm_up(fake.timer, fake.clock, most_s=2)
    assert not result.warmup_settled
    assert 2 <= result.warmup_s < 2.2


def test_samples_stop_when_the_interval_is_narrow_enough() -> None:
    fake = Fake(cycle([0.0100, 0.0101, 0.0099]))
    result = sample(fake.timer, fake.clock, budget_s=10)
    assert result.precise
    assert 0.5 <= fake.now - 1000 <= 0.6
    assert len(result.seconds) == len(fake.made) - 1  # one call to learn how long one takes


def test_samples_stop_at_the_budget_when_the_interval_stays_wide() -> None:
    fake = Fake(cycle([0.010, 0.020]))
    result = sample(fake.timer, fake.clock, budget_s=3)
    assert not result.precise
    assert 3 <= fake.now - 1000 <= 3.05


def test_no_sample_is_left_out() -> None:
    durations = [0.1, *[0.01] * 60, 2.0, *[0.01] * 200]
    fake = Fake(durations)
    result = sample(fake.timer, fake.clock, budget_s=3, least_s=2.9)
    assert result.seconds == tuple(durations[1 : len(result.seconds) + 1])
    assert 2.0 in result.seconds


def test_slow_calls_are_sampled_ten_times_though_the_budget_ends() -> None:
    fake = Fake(repeat(0.5))
    assert sample(fake.timer, fake.clock, budget_s=2) == Samples((0.5,) * 10, 1, True)


def test_very_slow_calls_are_sampled_three_times() -> None:
    fake = Fake(repeat(60.0))
    assert len(sample(fake.timer, fake.clock, budget_s=2).seconds) == 3


def test_fast_calls_are_repeated_until_a_sample_lasts_a_millisecond() -> None:
    fake = Fake(repeat(2e-6))
    result = sample(fake.timer, fake.clock, budget_s=1)
    assert 500 <= result.calls <= 1000
    assert result.seconds == pytest.approx([2e-6] * len(result.seconds))


def test_a_sample_lasts_a_hundred_ticks_of_a_coarse_clock() -> None:
    fake = Fake(repeat(1e-3))
    assert 1600 <= sample(fake.timer, fake.clock, budget_s=10, tick_s=0.016).calls <= 3200


def test_calls_too_fast_for_the_clock_to_see_are_repeated_too() -> None:
    class Coarse(Fake):
        def timer(self, calls: int) -> float:
            return round(super().timer(calls) * 1e4) / 1e4

    fake = Coarse(repeat(1e-6))
    assert sample(fake.timer, fake.clock, budget_s=0.5, least_s=0.1).calls >= 900


def test_throughput_is_the_median_over_windows_of_calls_in_a_row() -> None:
    fake = Fake(chain(repeat(0.01, 10), repeat(0.05, 10), repeat(0.01)))
    assert throughput(fake.timer, fake.clock, budget_s=0.5, call_s=0.01) == pytest.approx(100)
    assert set(fake.made) == {10}


def test_throughput_of_a_slow_model_is_that_of_one_call() -> None:
    fake = Fake(repeat(4.0))
    assert throughput(fake.timer, fake.clock, budget_s=0.5, call_s=4.0) == 0.25
    assert fake.made == [1]
