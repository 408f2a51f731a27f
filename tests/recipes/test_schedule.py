"""The learning rate of every iteration, at the papers' milestones and on the way up."""

from __future__ import annotations

import itertools

import pytest

from resnetcli.recipes.schedule import Rate, Schedule, Warmup, resolve_rate
from resnetcli.recipes.text import read_recipe, recipe_names

N = 50_000
STEPS = Schedule("steps", 0.1, 0.1, at=(32000, 48000))
FIXED = Schedule("fixed", 0.1)


@pytest.mark.parametrize(
    ("recipe", "depth", "length", "expected"),
    [
        ("resnet", 56, 64000, {0: 0.1, 31999: 0.1, 32000: 0.01, 47999: 0.01, 48000: 0.001, 63999: 0.001}),
        ("preact", 164, 64000, {0: 0.01, 399: 0.01, 400: 0.1, 31999: 0.1, 32000: 0.01, 48000: 0.001, 63999: 0.001}),
        # 60, 120 and 160 of 200 epochs of 390.625 iterations.
        ("wrn", 26, 78125, {0: 0.1, 23437: 0.1, 23438: 0.02, 46874: 0.02, 46875: 0.004, 62500: 0.0008, 78124: 0.0008}),
        ("resnext", 29, 117188, {0: 0.1, 58593: 0.1, 58594: 0.01, 87890: 0.01, 87891: 0.001, 117187: 0.001}),
        ("fast", 20, 3906, {0: 0.02, 976: 0.2, 488: 0.11, 2441: 0.1, 3905: 0.2 / 2930}),
    ],
)
def test_a_recipe_has_its_papers_rate_at_each_milestone(
    recipe: str, depth: int, length: int, expected: dict[int, float]
) -> None:
    found = read_recipe(recipe).rate(N, depth)
    assert found.iterations == length
    assert {i: found.lr(i) for i in expected} == pytest.approx(expected, rel=1e-12)


def test_every_recipe_is_tested_above() -> None:
    marks = test_a_recipe_has_its_papers_rate_at_each_milestone.pytestmark  # type: ignore[attr-defined]
    assert {case[0] for case in marks[0].args[1]} == set(recipe_names())


def test_rates_of_steps_are_rounded_decimals() -> None:
    found = resolve_rate(Schedule("steps", 0.1, 0.1, (1, 2, 3, 4)), None, iterations=5, at=(1, 2, 3, 4))
    assert [found.lr(i) for i in range(5)] == [0.1, 0.01, 0.001, 0.0001, 0.00001]


def test_one_cycle_rises_to_its_peak_once_and_falls_to_its_end() -> None:
    found = resolve_rate(Schedule("one-cycle", 0.4, peak=0.3, start=0.25, end=0.05), None, iterations=100)
    rates = [found.lr(i) for i in range(101)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[30] == max(rates) == pytest.approx(0.4)
    assert rates[100] == pytest.approx(0.02)
    assert all(a < b for a, b in itertools.pairwise(rates[:31]))
    assert all(a > b for a, b in itertools.pairwise(rates[30:]))


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_one_cycle_of_hardly_any_iterations_has_a_rate(iterations: int) -> None:
    found = resolve_rate(Schedule("one-cycle", 0.4, peak=0.25), None, iterations=iterations)
    assert all(0 < found.lr(i) <= 0.4 for i in range(iterations))


def test_a_linear_warm_up_rises_from_its_rate_to_the_schedules() -> None:
    found = resolve_rate(FIXED, Warmup(0.0, iterations=10, linear=True), iterations=100)
    assert [found.lr(i) for i in range(12)] == pytest.approx([i / 100 for i in range(10)] + [0.1, 0.1])


UNTIL = Warmup(0.01, until_error=80, at_most=2000, from_depth=110)


def test_a_warm_up_until_an_error_has_its_rate_and_then_the_schedules() -> None:
    found = resolve_rate(STEPS, UNTIL, iterations=64000, at=(32000, 48000), depth=110)
    assert (found.lr(300, warming=True), found.lr(300)) == (0.01, 0.1)


@pytest.mark.parametrize(("iterations", "most"), [(64000, 2000), (1000, 100), (5, 0)])
def test_a_warm_up_until_an_error_ends_even_if_the_error_never_falls(iterations: int, most: int) -> None:
    found = resolve_rate(FIXED, UNTIL, iterations=iterations, depth=110)
    assert [found.lr(i, warming=True) for i in (most - 1, most)][-1] == 0.1
    assert [i for i in range(iterations) if found.waits(i)] == list(range(most))
    assert all(found.lr(i, warming=True) == 0.01 for i in range(most))


def test_a_model_less_deep_than_from_depth_has_no_warm_up() -> None:
    shallow = resolve_rate(STEPS, UNTIL, iterations=64000, at=(32000, 48000), depth=109)
    assert shallow == Rate(64000, STEPS, (32000, 48000), None, 0)
    assert not shallow.waits(0)
    assert shallow.lr(0, warming=True) == 0.1
