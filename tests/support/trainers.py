"""A small model, dataset and recipe for tests of the trainer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from resnetcli.data.dataset import Dataset, Split, make_dataset
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule
from resnetcli.train.loop import Trainer
from tests.support.written import plan_of

TINY = """
    input: 3x8x8
    classes: 4
    conv: conv bn relu
    residual: relu(x + F)
    shortcut: pad
    table:
      conv1: 3x3 8
      conv2: [residual x 2: [3x3 8, 3x3 8]]
      conv3: [residual x 1: [3x3 16 /2, 3x3 16]]
      head:  [global avg, fc classes]
"""
CPU = torch.device("cpu")
SHORT = Recipe(
    "short",
    batch_size=8,
    schedule=Schedule("steps", 0.1, 0.1, at=(4, 6)),
    iterations=8,
    augmentation=Augmentation(pad=2),
)
ON_GPU = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def tiny(dropout: bool = False) -> Plan:
    return plan_of(TINY.replace("[global avg,", "[global avg, dropout 0.5,") if dropout else TINY)


def data(n: int = 20, classes: int = 4, seed: int = 0) -> Dataset:
    """Images whose class determines the brightness of the centre."""
    random = np.random.default_rng(seed)

    def split(n: int) -> Split:
        labels = np.arange(n, dtype=np.int64) % classes
        images = random.integers(0, 100, (n, 3, 8, 8), dtype=np.uint8)
        images[:, :, 2:6, 2:6] += (labels * 35).astype(np.uint8)[:, None, None, None]
        return Split(images, labels)

    return make_dataset("custom", split(n), split(12), tuple(map(str, range(classes))))


def trainer(recipe: Recipe = SHORT, *, dropout: bool = False, n: int = 20, **how: Any) -> Trainer:
    return Trainer(tiny(dropout), recipe, data(n), **{"seed": 3, **how})


def steps(of: Trainer, n: int) -> Trainer:
    for _ in range(n):
        of.step()
    return of


def weights(of: Trainer) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in of.state().items() if name.startswith("net.")}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def spoil(of: Trainer, where: str) -> Any:
    """Make the next step's loss or gradient non-finite; returns a function that undoes it."""
    if where == "gradient":
        return next(of.model.parameters()).register_hook(lambda grad: grad * float("inf")).remove  # type: ignore[no-untyped-call]
    model = of.forward
    of.forward = lambda x: model(x) * float("nan")
    return lambda: setattr(of, "forward", model)
