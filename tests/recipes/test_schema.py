"""What a recipe can say under each key: all else is refused at its place."""

from __future__ import annotations

import pytest

from resnetcli.errors import SpecError
from tests.support.recipes import recipe_of

SMALL = "batch_size: 128\niterations: 100\nschedule: {kind: fixed, lr: 0.1}\n"


def problems_of(text: str) -> str:
    with pytest.raises(SpecError) as caught:
        recipe_of(text)
    return str(caught.value)


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
        (SMALL + "augmentation: yes\n", ["`augmentation` must be a mapping", "{pad: 4, mode: zeros, flip: yes}"]),
        (SMALL + "warmup: {lr: 0.01}\n", ["4:1", "a warm-up needs either `iterations` or `until_error`"]),
        (SMALL + "warmup: {lr: 0.01, iterations: 4, until_error: 80}\n", ["4:1", "a warm-up needs either"]),
        (SMALL + "warmup: {iterations: 4}\n", ["4:1", "`warmup` needs `lr`"]),
        (SMALL + "paper: {momentum: 3}\n", ["4:19"]),
        (SMALL + "paper: {like: resnet}\n", ["4:9", "unknown key `like`"]),
        (SMALL + "paper: {datasets: [cifar11]}\n", ["4:19", "unknown dataset `cifar11`", "did you mean `cifar10`"]),
        (SMALL + "paper: {datasets: cifar10}\n", ["4:9", "`datasets` must be a list of texts"]),
        (SMALL + "paper: 1512.03385\n", ["`paper` must be a mapping of settings"]),
        (SMALL + "about: [a, b]\n", ["`about` must be text"]),
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
        (SMALL.replace("fixed, lr: 0.1", "steps, lr: 0.1, at: [50, 100]"), ["3:11", "not before the end of training"]),
        (SMALL + "momentum: 0.9\nmomentum: 0.9\n", ["duplicate key `momentum`"]),
        ("- a\n- list\n", ["mine.yaml:1:1"]),
        ("", ["the file is empty"]),
    ],
)  # fmt: skip
def test_an_invalid_setting_is_refused_at_its_place(text: str, expected: list[str]) -> None:
    said = problems_of(text)
    for part in expected:
        assert part in said, said


def test_all_problems_are_reported_at_once() -> None:
    said = problems_of(SMALL + "momentum: 2\nnesterov: 5\nlr: 3\n")
    assert [part in said for part in (":4:11:", ":5:11:", ":6:1:")] == [True] * 3
