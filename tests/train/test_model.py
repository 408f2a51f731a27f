"""Models and options that cannot be trained are refused with the reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from resnetcli.errors import ResourceError, UsageError
from resnetcli.recipes.recipe import Augmentation
from resnetcli.train.loop import Trainer
from resnetcli.train.model import trainable
from tests.support.trainers import SHORT, data, steps, tiny, trainer
from tests.support.written import plan_of

pytestmark = pytest.mark.usefixtures("one_thread")
# --- what cannot be trained ----------------------------------------------------------------------------------------

HEAD = "[global avg, fc classes]"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{input: 3x32x32, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes]}}", "reads images of 3 x 32"),
        ("{input: 3x8x8, classes: 5, table: {a: 3x3 8, head: [global avg, fc classes]}}", "has 4 classes"),
        ("{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [1x1 classes]}}", "ends in 4 x 8 x 8"),
    ],
)
def test_a_model_that_does_not_fit_the_data_is_refused(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Trainer(plan_of(text), SHORT, data())


def test_a_model_with_auxiliary_heads_is_refused() -> None:
    text = "{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes]}, " \
           "aux: {a: [global avg, fc classes]}}"  # fmt: skip
    with pytest.raises(UsageError, match="auxiliary heads"):
        trainable(plan_of(text, aux=True), data())
    assert trainable(plan_of(text), data()) == plan_of(text)


def test_a_softmax_at_the_end_is_left_to_the_loss() -> None:
    text = "{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [global avg, fc classes%s]}}"
    with_one, without = (Trainer(plan_of(text % end), SHORT, data(), seed=1) for end in (", softmax", ""))
    for one in (with_one, without):
        steps(one, 2)
    assert with_one.read() == without.read()


def test_a_model_that_ends_in_maps_of_one_pixel_is_trained() -> None:
    plan = plan_of("{input: 3x8x8, classes: 4, table: {a: 3x3 8, head: [1x1 classes linear, global avg]}}")
    assert np.isfinite(steps(Trainer(plan, SHORT, data()), 2).read().loss)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"dtype": "fp8"}, "unknown dtype"),
        ({"dtype": "tf32"}, "TF32"),
        ({"cuda_graph": True}, "requires a GPU"),
        ({"seed": -1}, "seed -1 is out of range"),
        ({"world": 3}, "cannot be split over 3 processes"),
        ({"rank": 2, "world": 2}, "cannot be split"),
        ({"bn_batch": 3}, "groups of 3"),
        ({"bn_batch": 4, "recipe": replace(SHORT, batch_size=12), "world": 2}, "groups of 4"),
        ({"recipe": replace(SHORT, train_split=21)}, "20 training images, not 21"),
        (
            {"recipe": replace(SHORT, augmentation=Augmentation(8, "reflect"))},
            "reflection padding of 8 pixels",
        ),
    ],
)
def test_what_cannot_be_done_is_refused(how: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trainer(**how)


def test_labels_beyond_the_classes_are_refused() -> None:
    of = data(classes=5)
    with pytest.raises(UsageError, match="do not match its 4 classes"):
        Trainer(tiny(), SHORT, replace(of, classes=4))


def test_training_images_that_do_not_fit_into_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetcli.net.memory.physical_memory", lambda: 1000)
    with pytest.raises(ResourceError, match="the training images would take"):
        trainer()
