"""Helpers for tests of recipes: the built-in ones, one from a text, and a different value for every setting."""

from __future__ import annotations

from typing import Any

import pytest

from resnetcli.errors import Source
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.recipes.text import read_recipe, recipe_names

every_recipe = pytest.mark.parametrize("name", recipe_names())
OTHERWISE: dict[str, Any] = {
    "batch_size": 64,
    "iterations": 100,
    "epochs": 1.5,
    "schedule": Schedule("one-cycle", 0.3),
    "warmup": Warmup(0.02, iterations=7, linear=True),
    "momentum": 0.5,
    "nesterov": None,
    "weight_decay": 0.5,
    "decay": "all",
    "augmentation": Augmentation(pad=0, flip=False),
    "normalise": None,
    "init": None,
    "label_smoothing": 0.2,
    "bn_batch": 32,
    "train_split": 123,
}
"""Setting -> a value that no built-in recipe and no paper has; None for settings with only two values."""


def recipe_of(text: str) -> Recipe:
    return read_recipe(Source("mine.yaml", text))
