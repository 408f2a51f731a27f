"""A model's error on a dataset: no augmentation, running statistics, fp32 whatever the dtype of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F  # noqa: N812 - PyTorch's convention

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.train.augment import Normalisation
from resnetcli.train.model import as_tensor
from resnetcli.train.precision import convolution_settings

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnetcli.data.dataset import Dataset

BATCH = 500
"""Images per forward pass. Affects only the last digits of the loss."""
MAX_RESIDENT = 2**28
"""Bytes of a split that stays in a GPU's memory between evaluations, at most."""
SPLITS = ("test", "train", "validation")


@frozen
class Evaluation:
    """Error of a model on some images."""

    wrong: int
    """Misclassified images."""
    loss: float
    """Mean cross-entropy, without label smoothing."""
    n: int
    """Images."""

    @property
    def error_percent(self) -> float:
        """100 * wrong / n."""
        return 100 * self.wrong / self.n


@torch.no_grad()
def evaluate(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    normalise: Normalisation,
    *,
    weights: Mapping[str, Tensor] | None = None,
    channels_last: bool = False,
    batch: int = BATCH,
) -> Evaluation:
    """The model's error on images, uint8 (n, c, h, w), on any device.

    In fp32, also if training rounds to bf16, so that the error does not depend on the machine by more than fp32's
    rounding. `weights`: replace the model's own, by name. The model keeps its mode.
    """
    device = next(model.parameters()).device
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    was_training = model.training
    model.eval()
    try:
        for begin in range(0, len(images), batch):
            x = normalise(images[begin : begin + batch].to(device))  # (b, c, h, w)
            y = labels[begin : begin + batch].to(device)
            x = x.contiguous(memory_format=torch.channels_last) if channels_last else x
            logits = (model(x) if weights is None else functional_call(model, dict(weights), (x,))).flatten(1)
            totals += torch.stack((F.cross_entropy(logits, y, reduction="sum").double(), (logits.argmax(1) != y).sum()))
    finally:
        model.train(was_training)
    loss, wrong = totals.tolist()
    return Evaluation(round(wrong), loss / max(len(images), 1), len(images))


class Evaluator:
    """Evaluates a model on the splits of its dataset."""

    def __init__(
        self, model: nn.Module, data: Dataset, normalise: Normalisation, device: torch.device, *,
        subset: NDArray[np.int64] | None = None, train: tuple[Tensor, Tensor] | None = None,
        channels_last: bool = False, deterministic: bool = False,
    ) -> None:  # fmt: skip
        """`subset`: indices of the images trained on, None for all; `train`: these, if they are tensors already."""
        self.model, self.normalise, self.device, self.channels_last = model, normalise, device, channels_last
        self._data, self._subset, self._train, self._deterministic = data, subset, train, deterministic
        self._resident: dict[str, tuple[Tensor, Tensor]] = {}

    def evaluate(self, split: str = "test", part: tuple[int, int] = (0, 1)) -> Evaluation:
        """The error on `test`, `train` or `validation`. Raises as `measure`, and UsageError for any other split.

        `part`: (i, k) evaluates share i of k, in the same batches as the whole.
        """
        return self.measure(*(share(tensor, *part) for tensor in self._split(split)))

    def by_class(self) -> list[Evaluation]:
        """The error on the test images of each class; together they are the whole test set."""
        images, labels = self._data.test.images, self._data.test.labels
        places = (np.nonzero(labels == number)[0] for number in range(self._data.classes))
        return [self.measure(as_tensor(images[place]), as_tensor(labels[place])) for place in places]

    def measure(self, images: Tensor, labels: Tensor) -> Evaluation:
        """The error on images, uint8 (n, c, h, w). Raises NoRoom if memory does not suffice.

        On a GPU in NCHW: without TF32, cuDNN's NHWC convolutions are slower.
        """
        planar = None
        if self.channels_last and self.device.type == "cuda":
            planar = {name: weight.detach().contiguous() for name, weight in self.model.named_parameters()}
        settings = convolution_settings(self.device, tf32=False, deterministic=self._deterministic)
        with fitting("evaluation", self.device), settings:
            return evaluate(self.model, images, labels, self.normalise, weights=planar,
                            channels_last=self.channels_last and planar is None)  # fmt: skip

    def _split(self, split: str) -> tuple[Tensor, Tensor]:
        """A split's images and labels; a small one stays in a GPU's memory."""
        if split not in self._resident:
            images, labels = self._read_split(split)
            if self.device.type != "cuda" or images.nbytes > MAX_RESIDENT:
                return images, labels
            try:
                self._resident[split] = images.to(self.device), labels.to(self.device)
            except torch.OutOfMemoryError:  # evaluated in batches instead
                return images, labels
        return self._resident[split]

    def _read_split(self, split: str) -> tuple[Tensor, Tensor]:
        if split not in SPLITS:
            raise UsageError(f"unknown split `{split}`", did_you_mean(split, SPLITS, f"one of {', '.join(SPLITS)}"))
        if split == "train" and self._train is not None:
            return self._train
        images, labels = self._data.test.images, self._data.test.labels
        if split != "test":
            images, labels = self._data.train.images, self._data.train.labels
        if split == "validation":
            if self._subset is None:
                raise UsageError("no validation images", "`--train-split 45000` keeps 5,000 of 50,000 for validation")
            rest = np.setdiff1d(np.arange(len(images)), self._subset)
            images, labels = images[rest], labels[rest]
        elif split == "train" and self._subset is not None:
            images, labels = images[self._subset], labels[self._subset]
        return as_tensor(images), as_tensor(labels)


def share(tensor: Tensor, index: int, parts: int) -> Tensor:
    """Share `index` of the images or labels, in whole batches of an evaluation except the last; may be empty."""
    batches = -(-len(tensor) // BATCH)
    return tensor[batches * index // parts * BATCH : batches * (index + 1) // parts * BATCH]
