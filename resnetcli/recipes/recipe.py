"""How a net is trained: every setting of a recipe, and what it comes to for some data. Needs no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any, Literal

from resnetcli.errors import UsageError, plural
from resnetcli.recipes.schedule import Rate, Schedule, Warmup, rate

MAX_BATCH = 65_536
MAX_ITERATIONS = 100_000_000
BOUNDS = {
    "iterations": (1, MAX_ITERATIONS),
    "batch_size": (1, MAX_BATCH),
    "bn_batch": (2, MAX_BATCH),
    "train_split": (1, MAX_ITERATIONS),
}
"""The least and the most of what options can change too."""


@dataclass(frozen=True, slots=True)
class Augmentation:
    """A random crop of the padded image, and a random flip."""

    pad: int = 4
    """Pixels on each side, so that there are (2 * pad + 1)^2 crops."""
    mode: Literal["zeros", "reflect"] = "zeros"
    """What is padded: zeros after normalising, or the image's own reflection."""
    flip: bool = True
    """Whether half of the images are mirrored."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything about a training run but the net, the data, the seed and the machine."""

    name: str
    """A built-in recipe's name or a file's stem."""
    batch_size: int
    """Images a step, over all processes."""
    schedule: Schedule
    iterations: int | None = None
    """How long it trains; exactly one of this and `epochs` is set."""
    epochs: float | None = None
    warmup: Warmup | None = None
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    decay: Literal["weights", "all"] = "weights"
    """What decays: the weights of convolutions and fully connected layers, or every parameter."""
    augmentation: Augmentation = Augmentation()
    normalise: Literal["pixel-mean", "mean-std"] = "pixel-mean"
    """pixel-mean: x/255 less the training images' mean at each pixel; mean-std: each channel to mean 0 and std 1."""
    init: Literal["fan-out", "fan-in"] = "fan-out"
    """Which of a convolution's fans the variance of its weights is 2 over."""
    label_smoothing: float = 0.0
    bn_batch: int | None = None
    """Images BatchNorm normalises over; None: a process's whole share of the batch."""
    train_split: int | None = None
    """Training images that are trained on, the others kept for validation; None: all of them."""
    about: str = ""
    source: str = ""
    """The paper, if it is one's."""
    paper: Mapping[str, Any] = field(default_factory=dict)
    """What the paper says of any of the settings above, by name."""

    def length(self, images: int) -> int:
        """Iterations of a run over so many training images. Raises UsageError for epochs that are none, or too many."""
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
        """The learning rate of a run over so many training images, of a net of `depth` weighted layers."""
        at = tuple(self._iterations(milestone, images) for milestone in self.schedule.at)
        return rate(self.schedule, self.warmup, iterations=self.length(images), at=at, depth=depth)

    def _iterations(self, much: float | None, images: int) -> int:
        """Iterations, of which `much` is a number already or epochs; exactly, so that no milestone moves by one."""
        exact = Fraction(str(much or 0))
        return max(0, round(exact if self.epochs is None else exact * images / self.batch_size))

    def changed(
        self,
        *,
        iterations: int | None = None,
        batch_size: int | None = None,
        bn_batch: int | None = None,
        train_split: int | None = None,
    ) -> Recipe:
        """The recipe with other settings, as options give them; None leaves one as it is.

        Another number of iterations moves a step schedule's milestones along, and leaves a warm-up a tenth of them at
        most. Raises UsageError for a value out of bounds.
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
            # A run of a few iterations has no room for all of them: two that fall together are one.
            kept = tuple(float(milestone) for milestone in dict.fromkeys(at) if 0 < milestone < iterations)
            warmup = self.warmup
            if warmup is not None and warmup.iterations is not None:  # of which a short run would consist
                warmup = replace(warmup, iterations=min(warmup.iterations, max(1, iterations // 10)))
            settings |= {"schedule": replace(self.schedule, at=kept), "warmup": warmup, "epochs": None}
        recipe: Recipe = replace(self, **settings)
        if recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
            raise UsageError(
                f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch} for BatchNorm",
                "`bn_batch` divides `batch_size`",
            )
        return recipe
