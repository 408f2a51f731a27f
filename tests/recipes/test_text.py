"""Recipes as they are written: the built-in ones, those in files, and what is read back of one written out."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from resnetcli.errors import UsageError
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.recipe import SETTINGS, Augmentation
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.recipes.text import FOLDER, format_recipe, read_recipe, recipe_names
from tests.support.recipes import OTHERWISE, every_recipe, recipe_of


def test_the_built_in_recipes_are_the_papers_and_fast() -> None:
    assert recipe_names() == ["fast", "preact", "resnet", "resnext", "wrn"]


@every_recipe
def test_a_written_recipe_is_read_back_unchanged(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe_of(format_recipe(recipe)) == recipe


@every_recipe
def test_a_built_in_recipe_has_every_setting(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    keys = {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()}
    assert not set(SETTINGS) - keys - {"iterations", "epochs"}


@every_recipe
def test_a_copied_file_is_the_same_recipe_under_another_name(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text((FOLDER / f"{name}.yaml").read_text("utf-8"))
    assert read_recipe(str(path)) == replace(read_recipe(name), name="mine")


def test_a_recipes_values_are_the_papers() -> None:
    resnet, wrn = read_recipe("resnet"), read_recipe("wrn")
    assert (resnet.batch_size, resnet.iterations, resnet.epochs) == (128, 64000, None)
    assert resnet.schedule == Schedule("steps", 0.1, 0.1, at=(32000, 48000))
    assert resnet.warmup == Warmup(0.01, until_error=80, at_most=2000, from_depth=110)
    assert (resnet.momentum, resnet.nesterov, resnet.weight_decay, resnet.decay) == (0.9, False, 1e-4, "weights")
    assert (resnet.augmentation, resnet.normalise, resnet.init) == (Augmentation(), "pixel-mean", "fan-out")
    assert (resnet.bn_batch, resnet.train_split, resnet.label_smoothing) == (None, None, 0)
    assert (wrn.epochs, wrn.nesterov, wrn.weight_decay, wrn.schedule.factor) == (200, True, 5e-4, 0.2)
    assert (wrn.augmentation.mode, wrn.normalise, wrn.init) == ("reflect", "mean-std", "fan-in")


@pytest.mark.parametrize(
    ("name", "hint"), [("resnets", "did you mean `resnet`"), ("zzz", "fast, preact, resnet, resnext, wrn")]
)
def test_an_unknown_recipe_is_refused_with_the_known_ones(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown recipe") as caught:
        read_recipe(name)
    assert hint in caught.value.hint


def test_a_missing_recipe_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_recipe(str(tmp_path / "none.yaml"))


@every_recipe
def test_a_recipe_of_any_number_of_iterations_is_read_back_unchanged(name: str) -> None:
    for iterations in (*range(1, 25), 100):
        recipe = read_recipe(name).changed(iterations=iterations)
        assert asdict(recipe_of(format_recipe(recipe))) == asdict(recipe)
    assert read_recipe("resnet").changed(iterations=3).schedule.at == (2,)
    assert read_recipe("resnet").changed(iterations=1).schedule.at == ()


def test_a_recipe_with_every_setting_changed_is_read_back_unchanged() -> None:
    settings = {name: value for name, value in OTHERWISE.items() if value is not None and name != "epochs"}
    recipe = replace(read_recipe("resnet"), about="it's # one: {of} mine", **settings)
    assert asdict(recipe_of(format_recipe(recipe))) == asdict(recipe)


def test_reading_recipes_needs_no_torch() -> None:
    code = "import sys; from resnetcli.recipes.text import read_recipe; read_recipe('resnet'); " \
           "print({'torch', 'numpy'} & set(sys.modules))"  # fmt: skip
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "set()"


def test_the_recipe_in_the_documentation_is_valid() -> None:
    text = (FOLDER.parent.parent / "docs" / "reference" / "recipes.md").read_text("utf-8")
    recipe = recipe_of(text.partition("```yaml\n")[2].partition("```")[0])
    assert deviations(recipe) == (
        "batch size 256; the paper: batch size 128",
        "32,000 iterations; the paper: 64,000 iterations",
    )
    assert all(f"`{key}`" in text for key in SETTINGS)
