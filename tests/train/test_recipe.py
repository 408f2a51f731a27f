"""Recipes: the built-in ones, what is refused and where, and what is said of those that are not the paper's."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from resnetcli.errors import Source, SpecError, UsageError
from resnetcli.train.recipe import (
    FOLDER,
    SETTINGS,
    Augmentation,
    Recipe,
    format_recipe,
    read_recipe,
    recipe_names,
)
from resnetcli.train.schedule import Schedule, Warmup

SMALL = "batch_size: 128\niterations: 100\nschedule: {kind: fixed, lr: 0.1}\n"
every_recipe = pytest.mark.parametrize("name", recipe_names())


def recipe_of(text: str) -> Recipe:
    return read_recipe(Source("mine.yaml", text))


def problems_of(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        recipe_of(text)
    return str(caught.value)


def test_there_are_the_papers_recipes_and_a_fast_one() -> None:
    assert recipe_names() == ["fast", "preact", "resnet", "resnext", "wrn"]


@every_recipe
def test_a_recipe_written_out_is_read_back_as_the_same(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe_of(format_recipe(recipe)) == recipe


@every_recipe
def test_a_built_in_recipe_says_every_setting_itself(name: str) -> None:
    text = (FOLDER / f"{name}.yaml").read_text("utf-8")
    keys = {line.partition(":")[0] for line in text.splitlines() if line[:1].isalpha()}
    assert not SETTINGS.keys() - keys - {"iterations", "epochs"}


@every_recipe
def test_a_copy_in_a_file_of_its_own_is_the_same_recipe_under_its_own_name(name: str, tmp_path: Path) -> None:
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


# --- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SMALL + "momentun: 0.9\n", ["mine.yaml:4:1: error: unknown key `momentun`", "did you mean `momentum`?"]),
        (SMALL + "momentum: 1\n", ["mine.yaml:4:11", "a number from 0 and below 1"]),
        (SMALL + "momentum: nan\n", ["4:11", "a number from 0"]),
        (SMALL + "momentum: [0.9]\n", ["4:11", "a number from 0"]),
        (SMALL + "weight_decay: -1\n", ["4:15", "from 0 to 1"]),
        (SMALL + "nesterov: maybe\n", ["4:11", "`yes` or `no`"]),
        (SMALL + "decay: weight\n", ["4:8", "did you mean `weights`?"]),
        (SMALL + "bn_batch: 1\n", ["4:11", "from 2 to 65,536, or `all`"]),
        (SMALL + "bn_batch: 48\n", ["4:11", "does not split into groups of 48"]),
        (SMALL + "train_split: 0\n", ["4:14"]),
        (SMALL + "epochs: 3\n", ["4:1", "`iterations:` or `epochs:`"]),
        (SMALL + "augmentation: {pad: 4, flop: yes}\n", ["4:24", "did you mean `flip`?"]),
        (SMALL + "augmentation: {pad: 1000000000}\n", ["4:21", "0 to 256"]),
        (SMALL + "augmentation: yes\n", ["`augmentation` is a mapping", "{pad: 4, mode: zeros, flip: yes}"]),
        (SMALL + "warmup: {lr: 0.01}\n", ["4:1", "some `iterations` or goes on `until_error`"]),
        (SMALL + "warmup: {lr: 0.01, iterations: 4, until_error: 80}\n", ["4:1", "one of them"]),
        (SMALL + "warmup: {iterations: 4}\n", ["4:1", "`warmup` needs `lr`"]),
        (SMALL + "paper: {momentum: 3}\n", ["4:19"]),
        (SMALL + "paper: {like: resnet}\n", ["4:9", "unknown key `like`"]),
        (SMALL + "paper: 1512.03385\n", ["`paper` is a mapping of settings"]),
        (SMALL + "about: [a, b]\n", ["`about` is one text"]),
        ("batch_size: 128\niterations: 100\n", ["1:1", "`schedule:` is missing"]),
        ("iterations: 100\nschedule: {kind: fixed, lr: 0.1}\n", ["`batch_size:` is missing"]),
        ("batch_size: 128\nschedule: {kind: fixed, lr: 0.1}\n", ["`iterations:` or `epochs:`"]),
        (SMALL.replace("128", "1e3"), ["1:13", "whole number"]),
        (SMALL.replace("100", "999999999999"), ["2:13", "100,000,000"]),
        (SMALL.replace("fixed", "cosine"), ["3:18", "`steps` or `one-cycle` or `fixed`"]),
        (SMALL.replace("lr: 0.1", "lr: 0"), ["3:29", "above 0"]),
        (SMALL.replace("lr: 0.1", "lr: 0.1, at: [5]"), ["3:34", "a schedule of kind `fixed` has no `at`"]),
        (SMALL.replace(", lr: 0.1", ""), ["3:1", "`schedule` needs `lr`"]),
        (SMALL.replace("kind: fixed, ", ""), ["3:1", "`schedule` needs `kind`"]),
        (SMALL.replace("fixed", "steps"), ["3:1", "`schedule` needs `at`"]),
        (SMALL.replace("fixed, lr: 0.1", "steps, lr: 0.1, at: [50, 50]"), ["rising"]),
        (SMALL.replace("fixed, lr: 0.1", "steps, lr: 0.1, at: [50, soon]"), ["rising"]),
        (SMALL.replace("fixed, lr: 0.1", "steps, lr: 0.1, at: [50, 100]"), ["3:11", "where training is over"]),
        (SMALL + "momentum: 0.9\nmomentum: 0.9\n", ["`momentum` stands twice"]),
        ("- a\n- list\n", ["mine.yaml:1:1"]),
        ("", ["the file is empty"]),
    ],
)  # fmt: skip
def test_what_a_recipe_cannot_say_is_refused_at_its_place(text: str, expected: list[str]) -> None:
    said = problems_of(text)
    for part in expected:
        assert part in said, said


def test_all_that_is_wrong_is_said_at_once() -> None:
    said = problems_of(SMALL + "momentum: 2\nnesterov: 5\nlr: 3\n")
    assert [part in said for part in (":4:11:", ":5:11:", ":6:1:")] == [True] * 3


@pytest.mark.parametrize(
    ("name", "hint"), [("resnets", "did you mean `resnet`"), ("zzz", "fast, preact, resnet, resnext, wrn")]
)
def test_an_unknown_recipe_is_answered_with_those_there_are(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match="unknown recipe") as caught:
        read_recipe(name)
    assert hint in caught.value.hint


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_recipe(str(tmp_path / "none.yaml"))


# --- changed -------------------------------------------------------------------------------------------------------


def test_another_number_of_iterations_moves_the_milestones_along() -> None:
    changed = read_recipe("resnet").changed(iterations=2000)
    assert (changed.iterations, changed.schedule.at) == (2000, (1000, 1500))
    assert changed.length(50_000) == 2000
    wrn = read_recipe("wrn").changed(iterations=1000)
    assert (wrn.iterations, wrn.epochs, wrn.schedule.at) == (1000, None, (300, 600, 800))


def test_a_warm_up_takes_a_tenth_of_a_shorter_run_at_most() -> None:
    preact = read_recipe("preact")
    lengths = {n: warmup.iterations for n in (64_000, 4000, 300, 5) if (warmup := preact.changed(iterations=n).warmup)}
    assert lengths == {64_000: 400, 4000: 400, 300: 30, 5: 1}
    assert any("warm-up at 0.01 for 30 iterations" in said for said in preact.changed(iterations=300).deviations())
    rate = preact.changed(iterations=300).rate(50_000)
    assert (rate.lr(29), rate.lr(30)) == (0.01, 0.1)


@every_recipe
def test_a_run_of_however_few_iterations_has_a_recipe_that_is_read_back_as_the_same(name: str) -> None:
    for iterations in (*range(1, 25), 100):
        recipe = read_recipe(name).changed(iterations=iterations)
        assert asdict(recipe_of(format_recipe(recipe))) == asdict(recipe)
    assert read_recipe("resnet").changed(iterations=3).schedule.at == (2,)
    assert read_recipe("resnet").changed(iterations=1).schedule.at == ()


def test_another_batch_changes_the_iterations_of_epochs_but_not_iterations() -> None:
    assert read_recipe("wrn").changed(batch_size=256).length(50_000) == 39062
    assert read_recipe("resnet").changed(batch_size=256).length(50_000) == 64000


def test_settings_that_are_none_are_left_as_they_are() -> None:
    assert read_recipe("resnet").changed(iterations=None, bn_batch=None) == read_recipe("resnet")


@pytest.mark.parametrize(
    "settings", [{"iterations": 0}, {"batch_size": 0}, {"batch_size": 10**9}, {"bn_batch": 1}, {"bn_batch": 100},
                 {"train_split": 0}, {"batch_size": 100, "bn_batch": 64}]
)  # fmt: skip
def test_settings_out_of_bounds_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        read_recipe("resnet").changed(**settings)


# --- deviations ----------------------------------------------------------------------------------------------------


def test_the_default_recipe_says_where_it_is_not_the_papers() -> None:
    assert read_recipe("resnet").deviations(images=50_000) == (
        "BN over 128 images; the paper: BN over 64 images",
        "trained on all 50,000 images; the paper: trained on 45,000 images",
    )


def test_a_recipe_set_as_the_paper_says_deviates_nowhere() -> None:
    recipe = read_recipe("resnet").changed(bn_batch=64, train_split=45_000)
    assert recipe.deviations(images=45_000) == ()
    assert read_recipe("resnext").changed(bn_batch=16).deviations(images=50_000) == ()


def test_batchnorm_over_fewer_images_than_the_papers_gpus_had_is_said() -> None:
    recipe = read_recipe("resnet").changed(train_split=45_000, bn_batch=32)
    assert recipe.deviations(images=45_000) == ("BN over 32 images; the paper: BN over 64 images",)


def test_a_shorter_run_says_so_in_the_papers_unit() -> None:
    said = read_recipe("wrn").changed(iterations=2000).deviations(dtype="bf16", images=50_000)
    assert said == (
        "2,000 iterations; the paper: 200 epochs",
        "learning rate 0.1, x 0.2 at iterations 600, 1,200, 1,600; "
        "the paper: learning rate 0.1, x 0.2 at epochs 60, 120, 160",
        "computed in bf16; the paper: fp32",
    )


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


@every_recipe
def test_whatever_a_copy_changes_of_what_the_paper_says_is_said(name: str) -> None:
    recipe = read_recipe(name)
    before = set(recipe.deviations())
    for setting in recipe.paper:
        match setting:
            case "nesterov":
                value: Any = not recipe.nesterov
            case "normalise":
                value = "mean-std" if recipe.normalise == "pixel-mean" else "pixel-mean"
            case "init":
                value = "fan-in" if recipe.init == "fan-out" else "fan-out"
            case _:
                value = OTHERWISE[setting]
        new = set(replace(recipe, **{setting: value}).deviations()) - before
        assert new, setting


def test_a_recipe_of_no_paper_deviates_from_none() -> None:
    assert read_recipe("fast").deviations(dtype="bf16", images=50_000) == ()


def test_a_recipe_that_was_changed_in_every_way_is_read_back_as_the_same() -> None:
    settings = {name: value for name, value in OTHERWISE.items() if value is not None and name != "epochs"}
    recipe = replace(read_recipe("resnet"), about="it's # one: {of} mine", **settings)
    assert asdict(recipe_of(format_recipe(recipe))) == asdict(recipe)


def test_reading_recipes_needs_no_torch() -> None:
    code = "import sys; from resnetcli.train.recipe import read_recipe; read_recipe('resnet'); " \
           "print({'torch', 'numpy'} & set(sys.modules))"  # fmt: skip
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert answer.stdout.strip() == "set()"


def test_the_recipe_in_the_documentation_is_one() -> None:
    text = (FOLDER.parent.parent / "docs" / "recipes.md").read_text("utf-8")
    recipe = recipe_of(text.partition("```yaml\n")[2].partition("```")[0])
    assert recipe.deviations() == (
        "batch size 256; the paper: batch size 128",
        "32,000 iterations; the paper: 64,000 iterations",
    )
    assert all(f"`{key}`" in text for key in SETTINGS)
