"""Recipes: what their settings come to, and how options change them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from resnetcli.errors import UsageError
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.text import read_recipe


def test_another_number_of_iterations_scales_the_milestones() -> None:
    changed = read_recipe("resnet").changed(iterations=2000)
    assert (changed.iterations, changed.schedule.at) == (2000, (1000, 1500))
    assert changed.length(50_000) == 2000
    wrn = read_recipe("wrn").changed(iterations=1000)
    assert (wrn.iterations, wrn.epochs, wrn.schedule.at) == (1000, None, (300, 600, 800))


def test_a_warm_up_takes_a_tenth_of_a_shorter_run_at_most() -> None:
    preact = read_recipe("preact")
    lengths = {n: warmup.iterations for n in (64_000, 4000, 300, 5) if (warmup := preact.changed(iterations=n).warmup)}
    assert lengths == {64_000: 400, 4000: 400, 300: 30, 5: 1}
    assert any("warm-up at 0.01 for 30 iterations" in said for said in deviations(preact.changed(iterations=300)))
    rate = preact.changed(iterations=300).rate(50_000)
    assert (rate.lr(29), rate.lr(30)) == (0.01, 0.1)


def test_another_batch_changes_the_iterations_of_epochs_but_not_iterations() -> None:
    assert read_recipe("wrn").changed(batch_size=256).length(50_000) == 39062
    assert read_recipe("resnet").changed(batch_size=256).length(50_000) == 64000


@pytest.mark.parametrize(
    ("epochs", "images", "said"),
    [(0.01, 30, "0.01 epochs of 30 images are 0 iterations of 128"),
     (1e5, 10**8, "100,000 epochs of 100,000,000 images are 78,125,000,000 iterations of 128")],
)  # fmt: skip
def test_epochs_of_less_than_an_iteration_or_too_many_are_refused(epochs: float, images: int, said: str) -> None:
    recipe = replace(read_recipe("fast"), epochs=epochs)
    for ask in (recipe.length, recipe.rate):
        with pytest.raises(UsageError, match=said) as found:
            ask(images)
        assert found.value.hint == "from 1 to 100,000,000 iterations"


def test_settings_of_none_are_unchanged() -> None:
    assert read_recipe("resnet").changed(iterations=None, bn_batch=None) == read_recipe("resnet")


@pytest.mark.parametrize(
    "settings", [{"iterations": 0}, {"batch_size": 0}, {"batch_size": 10**9}, {"bn_batch": 1}, {"bn_batch": 100},
                 {"train_split": 0}, {"batch_size": 100, "bn_batch": 64}]
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_recipe("resnet").changed(**settings)
