"""How a model is trained: every setting of a recipe, and its length and learning rate for a dataset. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, field, fields, replace
from fractions import Fraction
from typing import Annotated, Any, Literal

from resnetcli.errors import UsageError, plural
from resnetcli.frozen import frozen
from resnetcli.recipes.schedule import MAX_ITERATIONS, Rate, Schedule, Warmup, resolve_rate
from resnetcli.recipes.schema import Range, Written

MAX_BATCH = 65_536
BOUNDS = {
    "iterations": (1, MAX_ITERATIONS),
    "batch_size": (1, MAX_BATCH),
    "bn_batch": (2, MAX_BATCH),
    "train_split": (1, MAX_ITERATIONS),
}
"""Minimum and maximum of the settings that options can change, too."""


@frozen
class Augmentation:
    """A random crop of the padded image, and a random flip."""

    pad: Annotated[int, Range(0, 256)] = 4
    """Pixels on each side, so that there are (2 * pad + 1)^2 crops."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """Padding: zeros after normalising, or the image's own reflection."""
    flip: bool = True
    """Whether half of the images are mirrored."""

    @property
    def text(self) -> str:
        """`crops of images padded by 4 (zeros) and flips`."""
        flip = " and flips" if self.flip else ", no flips"
        padding = "reflection" if self.mode == "reflect" else "zeros"
        return (f"crops of images padded by {self.pad} ({padding})" if self.pad else "no crops") + flip


@frozen
class Recipe:
    """All settings of a training run except the model, the dataset, the seed and the machine.

    The annotations say what a YAML file may give: `recipes.text` reads and writes it by them.
    """

    name: str
    """A built-in recipe's name or a file's stem."""
    _: KW_ONLY
    about: str = ""
    source: str = ""
    """The paper, if the recipe is a paper's: `arXiv:1512.03385, Section 4.2`."""
    batch_size: Annotated[int, Range(*BOUNDS["batch_size"])]
    """Images per iteration, over all processes."""
    iterations: Annotated[int | None, Range(*BOUNDS["iterations"])] = None
    """The length of a run; exactly one of this and `epochs` is set."""
    epochs: Annotated[float | None, Range(0, 100_000, above=True)] = None
    schedule: Annotated[Schedule, Written(example="{kind: steps, lr: 0.1, factor: 0.1, at: [32000, 48000]}")]
    warmup: Annotated[Warmup | None, Written("none", example="{lr: 0.01, iterations: 400}")] = None
    momentum: Annotated[float, Range(0, 1, below=True)] = 0.9
    nesterov: bool = False
    weight_decay: Annotated[float, Range(0, 1)] = 1e-4
    decay: Literal["weights", "all"] = "weights"
    """Parameters with weight decay: the weights of convolutions and fully connected layers, or all."""
    augmentation: Annotated[Augmentation, Written(example="{pad: 4, mode: zeros, flip: yes}")] = Augmentation()
    normalise: Literal["pixel-mean", "mean-std"] = "pixel-mean"
    """pixel-mean: x/255 less the training images' mean at each pixel; mean-std: each channel to mean 0 and std 1."""
    init: Literal["fan-out", "fan-in"] = "fan-out"
    """The fan in the variance 2/fan of a convolution's initial weights."""
    label_smoothing: Annotated[float, Range(0, 1, below=True)] = 0.0
    bn_batch: Annotated[int | None, Range(*BOUNDS["bn_batch"]), Written("all")] = None
    """Images BatchNorm normalises over; None: a process's whole share of the batch."""
    train_split: Annotated[int | None, Range(*BOUNDS["train_split"]), Written("all")] = None
    """Number of training images, the others are the validation set; None: all of them."""
    paper: Mapping[str, Any] = field(default_factory=dict)
    """The paper's value of any of the settings above, by name, and `datasets`, the names of those it trains on."""

    @property
    def paper_id(self) -> str:
        """`arXiv:1512.03385`; empty if the recipe is not a paper's."""
        return self.source.partition(",")[0]

    def length(self, images: int) -> int:
        """Iterations of a run over `images` training images. Raises UsageError if there are none or too many."""
        length = self._iterations(self.iterations if self.epochs is None else self.epochs, images)
        low, high = BOUNDS["iterations"]
        if not low <= length <= high:
            epochs = plural(self.epochs or 0, "epoch")
            raise UsageError(
                f"{epochs} of {plural(images, 'image')} are {plural(length, 'iteration')} of {self.batch_size:,}",
                f"from {low:,} to {high:,} iterations",
            )
        return length

    def rate(self, images: int, depth: int = 0) -> Rate:
        """The learning rate of a run over `images` training images, for a model of `depth` weighted layers."""
        at = tuple(self._iterations(milestone, images) for milestone in self.schedule.at)
        return resolve_rate(self.schedule, self.warmup, iterations=self.length(images), at=at, depth=depth)

    def _iterations(self, amount: float | None, images: int) -> int:
        """Convert iterations or epochs to iterations, in exact arithmetic: rounding must not move a milestone."""
        exact = Fraction(str(amount or 0))
        return max(0, round(exact if self.epochs is None else exact * images / self.batch_size))

    def changed(
        self,
        *,
        iterations: int | None = None,
        batch_size: int | None = None,
        bn_batch: int | None = None,
        train_split: int | None = None,
    ) -> Recipe:
        """The recipe with other settings; None leaves one unchanged.

        With another number of iterations the milestones of a step schedule scale, and a warm-up takes a tenth of them
        at most. Raises UsageError for a value out of bounds.
        """
        given = {"iterations": iterations, "batch_size": batch_size, "bn_batch": bn_batch, "train_split": train_split}
        settings: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        for name, value in settings.items():
            low, high = BOUNDS[name]
            if not low <= value <= high:
                raise UsageError(f"`{name}` of {value:,} is out of range", f"from {low:,} to {high:,}")
        if iterations is not None:
            whole = Fraction(str(self.iterations if self.epochs is None else self.epochs))
            at = [round(Fraction(str(milestone)) / whole * iterations) for milestone in self.schedule.at]
            # In a run of a few iterations, milestones may coincide.
            milestones = tuple(float(milestone) for milestone in dict.fromkeys(at) if 0 < milestone < iterations)
            warmup = self.warmup
            if warmup is not None and warmup.iterations is not None:  # a short run would consist of it
                warmup = replace(warmup, iterations=min(warmup.iterations, max(1, iterations // 10)))
            settings |= {"schedule": replace(self.schedule, at=milestones), "warmup": warmup, "epochs": None}
        recipe: Recipe = replace(self, **settings)
        if recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
            raise UsageError(
                f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch} for BatchNorm",
                "choose a `bn_batch` that divides `batch_size`",
            )
        return recipe


TEXTS = ("name", "about", "source")
"""Fields without effect on training."""
SETTINGS = tuple(each.name for each in fields(Recipe) if each.name not in (*TEXTS, "paper"))
