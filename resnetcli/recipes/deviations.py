"""Deviations of a training run from the paper, and every setting of a recipe in words."""

from __future__ import annotations

from typing import Any

from resnetcli.data.dataset import TITLES
from resnetcli.errors import plural
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup

SIDE = 32
"""Height and width of CIFAR's images, in pixels."""


def deviations(
    recipe: Recipe, *, dtype: str = "fp32", images: int | None = None, data: str | None = None,
    size: tuple[int, int] = (SIDE, SIDE),
) -> tuple[str, ...]:  # fmt: skip
    """How a training run differs from the paper, a sentence each; empty if the recipe is not a paper's.

    `images`: the number of training images; `data`: the dataset's name; `size`: height and width of its images.
    """
    if not recipe.paper:
        return ()
    settings = dict(recipe.paper)
    datasets = settings.pop("datasets", ())
    differences = [] if data is None else _data_text(data, size, datasets)
    for name, published in settings.items():
        own: Any = getattr(recipe, name)
        if name == "bn_batch":
            own, published = (size or recipe.batch_size for size in (own, published))
        if name in ("iterations", "epochs") and own is None:
            other = "epochs" if name == "iterations" else "iterations"
            own_text = setting_text(other, getattr(recipe, other))
        elif name == "train_split" and own is None and images is not None:
            own_text = f"trained on all {plural(images, 'image')}" if published else setting_text(name, own)
        else:
            own_text = setting_text(name, own, "iterations" if recipe.epochs is None else "epochs")
        text = setting_text(name, published, "epochs" if "epochs" in recipe.paper else "iterations")
        if text != own_text:
            differences.append(f"{own_text}; the paper: {text}")
    if dtype != "fp32":
        differences.append(f"computed in {dtype}; the paper: fp32")
    return tuple(differences)


def _data_text(data: str, size: tuple[int, int], datasets: tuple[str, ...]) -> list[str]:
    """How the data differ from the paper's; empty if its datasets are not known."""
    if not datasets or (data in datasets and size == (SIDE, SIDE)):
        return []
    own = {"custom": "other data", "synthetic": "random images"}.get(data) or TITLES[data]
    own_size, paper_size = f", {size[0]} x {size[1]} pixels", f", {SIDE} x {SIDE} pixels"
    if size == (SIDE, SIDE):
        own_size = paper_size = ""
    return [f"trained on {own}{own_size}; the paper: {' and '.join(TITLES[name] for name in datasets)}{paper_size}"]


def setting_text(name: str, value: Any, unit: str = "iterations") -> str:
    """A setting in words; `unit`: of the recipe's length, and so of a schedule's milestones."""
    match name, value:
        case "batch_size", _:
            return f"batch size {value:,}"
        case "iterations" | "epochs", None:
            return f"no number of {name}"
        case "iterations" | "epochs", _:
            return plural(value, name.removesuffix("s"))
        case "nesterov", _:
            return "Nesterov momentum" if value else "momentum without Nesterov"
        case "decay", _:
            return "weight decay on all parameters" if value == "all" else "weight decay on weights only"
        case "weight_decay", _:
            return f"weight decay {value:g}"
        case "label_smoothing", _:
            return f"label smoothing {value:g}" if value else "no label smoothing"
        case "bn_batch", _:
            return "BN over the whole batch" if value is None else f"BN over {plural(value, 'image')}"
        case "train_split", _:
            return "trained on all training images" if value is None else f"trained on {plural(value, 'image')}"
        case "normalise", "pixel-mean":
            return "per-pixel mean subtracted"
        case "normalise", _:
            return "each channel to mean 0 and standard deviation 1"
        case "init", _:
            return f"weights drawn by {value}"
        case _, Schedule():
            return value.text(unit)
        case "warmup", None:
            return "no warm-up"
        case _, Warmup() | Augmentation():
            return value.text
    return f"{name} {value:g}"
