"""What is said of a recipe that is not the paper's."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from resnetcli.recipes.deviations import deviations, setting_text
from resnetcli.recipes.schedule import Warmup
from resnetcli.recipes.text import read_recipe
from tests.support.recipes import OTHERWISE, every_recipe


def test_the_default_recipe_lists_its_deviations() -> None:
    assert deviations(read_recipe("resnet"), images=50_000) == (
        "BN over 128 images; the paper: BN over 64 images",
        "trained on all 50,000 images; the paper: trained on 45,000 images",
    )


def test_a_recipe_with_the_papers_values_has_no_deviations() -> None:
    recipe = read_recipe("resnet").changed(bn_batch=64, train_split=45_000)
    assert deviations(recipe, images=45_000) == ()
    assert deviations(read_recipe("resnext").changed(bn_batch=16), images=50_000) == ()


def test_another_bn_batch_is_a_deviation() -> None:
    recipe = read_recipe("resnet").changed(train_split=45_000, bn_batch=32)
    assert deviations(recipe, images=45_000) == ("BN over 32 images; the paper: BN over 64 images",)


def test_a_shorter_run_deviates_in_the_papers_unit() -> None:
    said = deviations(read_recipe("wrn").changed(iterations=2000), dtype="bf16", images=50_000)
    assert said == (
        "2,000 iterations; the paper: 200 epochs",
        "learning rate 0.1, x 0.2 at iterations 600, 1,200, 1,600; "
        "the paper: learning rate 0.1, x 0.2 at epochs 60, 120, 160",
        "computed in bf16; the paper: fp32",
    )


@every_recipe
def test_every_changed_setting_of_a_copy_is_a_deviation(name: str) -> None:
    recipe = read_recipe(name)
    before = set(deviations(recipe))
    for setting in recipe.paper.keys() - {"datasets"}:
        match setting:
            case "nesterov":
                value: Any = not recipe.nesterov
            case "normalise":
                value = "mean-std" if recipe.normalise == "pixel-mean" else "pixel-mean"
            case "init":
                value = "fan-in" if recipe.init == "fan-out" else "fan-out"
            case _:
                value = OTHERWISE[setting]
        new = set(deviations(replace(recipe, **{setting: value}))) - before
        assert new, setting


@pytest.mark.parametrize(
    ("recipe", "data", "size", "said"),
    [
        ("resnet", "cifar10", (32, 32), ()),
        ("wrn", "cifar100", (32, 32), ()),
        ("resnet", "cifar100", (32, 32), ("trained on CIFAR-100; the paper: CIFAR-10",)),
        ("resnet", "synthetic", (32, 32), ("trained on random images; the paper: CIFAR-10",)),
        ("preact", "custom", (32, 32), ("trained on other data; the paper: CIFAR-10 and CIFAR-100",)),
        ("resnet", "custom", (8, 9), ("trained on other data, 8 x 9 pixels; the paper: CIFAR-10, 32 x 32 pixels",)),
        ("fast", "custom", (8, 8), ()),
    ],
)  # fmt: skip
def test_other_datasets_are_a_deviation(recipe: str, data: str, size: tuple[int, int], said: tuple[str, ...]) -> None:
    found = read_recipe(recipe)
    assert deviations(found, data=data, size=size)[: len(said)] == said
    assert len(deviations(found, data=data, size=size)) == len(deviations(found)) + len(said)


def test_without_known_datasets_no_dataset_is_a_deviation() -> None:
    recipe = read_recipe("resnet")
    recipe = replace(recipe, paper={name: value for name, value in recipe.paper.items() if name != "datasets"})
    assert deviations(recipe, data="custom", size=(8, 8)) == deviations(recipe)


@every_recipe
def test_papers_recipes_have_their_datasets(name: str) -> None:
    recipe = read_recipe(name)
    assert bool(recipe.paper) == (deviations(recipe, data="synthetic") != deviations(recipe))


def test_a_recipe_without_a_paper_has_no_deviations() -> None:
    assert deviations(read_recipe("fast"), dtype="bf16", images=50_000) == ()


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("iterations", 1, "1 iteration"),
        ("iterations", 64_000, "64,000 iterations"),
        ("epochs", 1.0, "1 epoch"),
        ("epochs", 0.5, "0.5 epochs"),
        ("train_split", 1, "trained on 1 image"),
        ("warmup", Warmup(0.01, iterations=1), "warm-up at 0.01 for 1 iteration"),
    ],
)
def test_one_of_a_thing_is_singular(name: str, value: Any, said: str) -> None:
    assert setting_text(name, value) == said
