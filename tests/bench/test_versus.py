from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, cycle, repeat

import pytest

from resnetcli.bench.sampling import Timer, ratios, sample_interleaved
from resnetcli.bench.versus import Ratio, noise_floor, paired, unpaired


class World:
    """A clock that only calls move on, and models whose n-th call takes the n-th of their durations."""

    def __init__(self, *nets: Iterable[float]) -> None:
        self.now = 0.0
        self.made: list[int] = []
        self.timers = [self._timer(number, iter(net)) for number, net in enumerate(nets)]

    def clock(self) -> float:
        return self.now

    def _timer(self, number: int, durations: Iterator[float]) -> Timer:
        def timer(calls: int) -> float:
            self.made.append(number)
            seconds = sum(next(durations) for _ in range(calls))
            self.now += seconds
            return seconds

        return timer

    def rounds(self, nets: int) -> list[list[int]]:
        """Who was timed in each round; before them each model once, to learn how long a call takes."""
        made = self.made[nets:]
        return [made[start : start + nets] for start in range(0, len(made), nets)]


def backwards(places: list[int]) -> None:
    places.reverse()


class Reversing(random.Random):
    """Shuffles by turning round."""

    shuffle: Callable[[object, list[int]], None] = staticmethod(backwards)  # type: ignore[assignment]


def test_the_order_of_each_round_is_the_one_that_is_drawn() -> None:
    world = World(repeat(0.01), repeat(0.02), repeat(0.03))
    sample_interleaved(world.timers, world.clock, Reversing(), budget_s=10, least_s=0.1)
    assert world.rounds(3)[:4] == [[2, 1, 0], [0, 1, 2], [2, 1, 0], [0, 1, 2]]


def test_every_round_times_every_model_once_and_orders_are_about_equally_frequent() -> None:
    world = World(repeat(0.01), repeat(0.01), repeat(0.01))
    sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=20, least_s=18)
    rounds = world.rounds(3)
    assert all(sorted(order) == [0, 1, 2] for order in rounds)
    assert len(rounds) >= 590
    for order in {tuple(order) for order in rounds}:
        assert 60 <= sum(tuple(each) == order for each in rounds) <= 140  # of six orders, 100 each expected
    assert len({tuple(order) for order in rounds}) == 6


def test_rounds_stop_when_every_interval_is_narrow_enough() -> None:
    world = World(repeat(0.010), cycle([0.0200, 0.0201, 0.0199]))
    found = sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=100)
    assert found.precise
    assert 0.5 <= world.now < 0.7
    assert found.calls == (1, 1)


def test_rounds_go_on_until_the_budget_where_one_model_stays_uncertain() -> None:
    world = World(repeat(0.010), cycle([0.010, 0.020]))
    found = sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=3)
    assert not found.precise
    assert 3 <= world.now <= 3.06


def test_a_ratio_can_be_precise_where_the_machine_drifts_and_times_are_not() -> None:
    drift = [0.01 * (1 + k / 100) for k in range(2000)]
    world = World(drift, [2 * each for each in drift])
    found = sample_interleaved(world.timers, world.clock, random.Random(1), budget_s=2)
    assert not found.precise  # the medians have no narrow interval
    ratio = paired(found.seconds[0], found.seconds[1])
    assert ratio.ratio == pytest.approx(2)
    assert ratio.interval == pytest.approx((2, 2))


def test_what_was_timed_in_one_round_stands_at_one_place() -> None:
    world = World(chain([9.0], map(float, range(1, 100))), chain([9.0], (10.0 * k for k in range(1, 100))))
    found = sample_interleaved(world.timers, world.clock, random.Random(5), budget_s=1, least=10)
    assert found.seconds[1] == tuple(10 * each for each in found.seconds[0])
    assert ratios(*found.seconds) == [10.0] * found.n


def test_a_stall_is_kept() -> None:
    world = World(chain(repeat(0.01, 5), [1.0], repeat(0.01)), repeat(0.01))
    found = sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=2, least_s=1.9)
    assert found.seconds[0].count(1.0) == 1


def test_slow_models_get_ten_rounds_and_very_slow_ones_three() -> None:
    world = World(repeat(0.5), repeat(0.5))
    assert sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=3).n == 10
    world = World(repeat(60.0), repeat(60.0))
    assert sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=3).n == 3


def test_fast_models_are_repeated_each_by_itself() -> None:
    world = World(repeat(1e-5), repeat(0.1))
    found = sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=2)
    assert 100 <= found.calls[0] <= 200
    assert found.calls[1] == 1
    assert found.seconds[0] == pytest.approx([1e-5] * found.n)


def test_progress_rises_to_one() -> None:
    told: list[float] = []
    world = World(repeat(0.01), cycle([0.01, 0.02]))
    sample_interleaved(world.timers, world.clock, random.Random(0), budget_s=1, progress=told.append)
    assert told == sorted(told)
    assert told[-1] == 1.0
    assert told[0] < 0.1


# --- what ratios prove, worked out by hand -----------------------------------------------------------------------


def test_the_ratio_is_the_median_of_the_rounds_and_its_interval_theirs() -> None:
    base, other = [1.0, 2.0, 4.0], [1.5, 2.0, 8.0]  # ratios 1.5, 1 and 2
    found = paired(base, other, floor=0.1)
    assert (found.ratio, found.interval, found.floor) == (1.5, (1.0, 2.0), 0.1)


@pytest.mark.parametrize(
    ("ratio", "interval", "floor", "text"),
    [
        (1.23, (1.21, 1.25), 0.005, "1.23x slower [1.21, 1.25]"),
        (0.8, (0.75, 0.875), 0.0, "1.25x faster [1.14, 1.33]"),
        (1.02, (1.015, 1.025), 0.01, "1.020x slower [1.015, 1.025]"),
        (0.5, (0.5, 0.5), 0.0, "2.00x faster [2.00, 2.00]"),
        (12.34, (12.0, 13.0), 0.0, "12.3x slower [12.0, 13.0]"),
        (1.0, (0.982, 1.018), 0.0, "no difference detectable (resolution 1.8%)"),
        (1.01, (1.005, 1.015), 0.018, "no difference detectable (resolution 1.8%)"),  # below the floor
        (0.99, (0.985, 0.995), 0.018, "no difference detectable (resolution 1.8%)"),
        (1.5, (0.9, 2.1), 0.0, "no difference detectable (resolution 40%)"),  # the interval has 1 in it
    ],
)
def test_the_verdict_in_words(ratio: float, interval: tuple[float, float], floor: float, text: str) -> None:
    assert Ratio(ratio, interval, floor).text() == text


def test_slower_one_way_is_faster_the_other() -> None:
    draw = random.Random(0)
    a = [draw.uniform(0.9, 1.1) for _ in range(101)]
    b = [1.5 * draw.uniform(0.9, 1.1) for _ in range(101)]
    forth, back = paired(a, b), paired(b, a)
    assert (forth.outcome, back.outcome) == ("slower", "faster")
    assert forth.ratio == pytest.approx(1 / back.ratio)
    assert forth.text().replace("slower", "faster") == back.text()


def test_a_model_against_itself_is_rarely_called_different() -> None:
    draw, called = random.Random(0), 0
    for _ in range(300):
        a, again, b = ([draw.lognormvariate(0, 0.05) for _ in range(60)] for _ in range(3))
        called += paired(a, b, noise_floor(a, again)).outcome != "same"
    assert called <= 9  # 3%: with the interval alone it would be 5%


def test_a_difference_of_five_percent_is_found_in_noise_of_five() -> None:
    draw, found = random.Random(1), 0
    for _ in range(100):
        a, again, b = ([draw.lognormvariate(0, 0.05) for _ in range(200)] for _ in range(3))
        found += paired(a, [1.05 * each for each in b], noise_floor(a, again)).outcome == "slower"
    assert found >= 95


def test_the_noise_floor_is_the_farther_limit() -> None:
    assert noise_floor([1.0, 1.0, 1.0], [0.97, 1.0, 1.01]) == pytest.approx(0.03)
    assert noise_floor([1.0, 1.0, 1.0], [0.99, 1.0, 1.04]) == pytest.approx(0.04)
    assert noise_floor([2.0, 3.0], [2.0, 3.0]) == 0


def test_errors_of_two_days_add_up_as_squares_do() -> None:
    """By hand: limits a factor 2^3 and 2^4 away make one 2^5 away."""
    found = unpaired(8.0, (1.0, 64.0), 16.0, (1.0, 256.0), 0.02)
    assert found.ratio == 2
    assert found.interval == pytest.approx((2 / 2**5, 2 * 2**5))
    alone = unpaired(1.0, (1.0, 1.0), 1.5, (1.4, 1.6), 0.02)
    assert alone.interval == pytest.approx((1.4, 1.6))
    upwards = unpaired(1.0, (0.5, 1.0), 1.0, (1.0, 1.0), 0.0)
    assert upwards.interval == pytest.approx((1.0, 2.0))  # it may have been quicker then, so it may be slower now
