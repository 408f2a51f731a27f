"""Where a training is not as in the paper, and every setting of a recipe in words."""

from __future__ import annotations

from typing import Any

from resnetcli.data.dataset import TITLES
from resnetcli.errors import plural
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup

SETS = {
    "1512.03385": ("cifar10",), "1603.05027": ("cifar10", "cifar100"), "1605.07146": ("cifar10", "cifar100"),
    "1611.05431": ("cifar10", "cifar100"),
}  # fmt: skip
"""What the nets of a paper are trained on in it, by the paper that a recipe names as its source."""
SIDE = 32
"""Of the images in all of these, in pixels."""


def deviations(
    recipe: Recipe, *, dtype: str = "fp32", images: int | None = None, data: str | None = None,
    size: tuple[int, int] = (SIDE, SIDE),
) -> tuple[str, ...]:  # fmt: skip
    """Where a training is not the paper's, a sentence each; none by a recipe that is no paper's.

    `images`: how many are trained on; `data`: the name of the set; `size`: height and width of its images.
    """
    if not recipe.paper:
        return ()
    found = [] if data is None else _data_text(recipe, data, size)
    for name, printed in recipe.paper.items():
        own: Any = getattr(recipe, name)
        if name == "bn_batch":
            own, printed = (size or recipe.batch_size for size in (own, printed))
        if name in ("iterations", "epochs") and own is None:
            other = "epochs" if name == "iterations" else "iterations"
            own_text = setting_text(other, getattr(recipe, other))
        elif name == "train_split" and own is None and images is not None:
            own_text = f"trained on all {plural(images, 'image')}" if printed else setting_text(name, own)
        else:
            own_text = setting_text(name, own, "iterations" if recipe.epochs is None else "epochs")
        text = setting_text(name, printed, "epochs" if "epochs" in recipe.paper else "iterations")
        if text != own_text:
            found.append(f"{own_text}; the paper: {text}")
    if dtype != "fp32":
        found.append(f"computed in {dtype}; the paper: fp32")
    return tuple(found)


def _data_text(recipe: Recipe, data: str, size: tuple[int, int]) -> list[str]:
    """That the data are not the paper's; nothing where it is not known on which the paper trains."""
    sets = next((sets for paper, sets in SETS.items() if f"arXiv:{paper}" in recipe.source), None)
    if sets is None or (data in sets and size == (SIDE, SIDE)):
        return []
    own = {"custom": "other data", "synthetic": "images made up from a seed"}.get(data) or TITLES[data]
    own_size, printed_size = f", {size[0]} x {size[1]} pixels", f", {SIDE} x {SIDE} pixels"
    if size == (SIDE, SIDE):
        own_size = printed_size = ""
    return [f"trained on {own}{own_size}; the paper: {' and '.join(TITLES[name] for name in sets)}{printed_size}"]


def setting_text(name: str, value: Any, unit: str = "iterations") -> str:
    """A setting in words; `unit`: what the recipe's length, and so a schedule's milestones, are in."""
    match name, value:
        case "batch_size", _:
            return f"batch size {value:,}"
        case "iterations" | "epochs", None:
            return f"no number of {name}"
        case "iterations" | "epochs", _:
            return plural(value, name.removesuffix("s"))
        case "nesterov", _:
            return "Nesterov momentum" if value else "momentum as it is, not Nesterov's"
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
            return _schedule_text(value, unit)
        case "warmup", None:
            return "no warm-up"
        case _, Warmup():
            return _warmup_text(value)
        case _, Augmentation():
            flip = " and flips" if value.flip else ", no flips"
            padding = "reflection" if value.mode == "reflect" else "zeros"
            return (f"crops of images padded by {value.pad} ({padding})" if value.pad else "no crops") + flip
    return f"{name} {value:g}"


def _schedule_text(schedule: Schedule, unit: str) -> str:
    match schedule.kind, schedule.at:
        case ("fixed", _) | ("steps", ()):
            return f"learning rate {schedule.lr:g}"
        case "one-cycle", _:
            return f"learning rate up to {schedule.lr:g} at {schedule.peak:.0%} and down again"
    steps = ", ".join(f"{milestone:,.12g}" for milestone in schedule.at)
    return f"learning rate {schedule.lr:g}, x {schedule.factor:g} at {unit} {steps}"


def _warmup_text(warmup: Warmup) -> str:
    whom = f", from depth {warmup.from_depth} on" if warmup.from_depth else ""
    if warmup.iterations is None:
        return f"warm-up at {warmup.lr:g} until the training error is below {warmup.until_error:g}%{whom}"
    way = f"from {warmup.lr:g} up" if warmup.linear else f"at {warmup.lr:g}"
    return f"warm-up {way} for {plural(warmup.iterations, 'iteration')}{whom}"
