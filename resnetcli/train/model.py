"""The model as it is trained: its plan for a dataset, its initial weights, and the images it is trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from resnetcli.errors import UsageError, plural
from resnetcli.net.memory import fitting
from resnetcli.net.module import Net, build, initialise
from resnetcli.ops import Shape, Softmax
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.train import order

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from resnetcli.data.dataset import Dataset


def trainable(plan: Plan, data: Dataset) -> Plan:
    """The plan as it is trained on a dataset: without a final softmax, which the loss computes.

    Raises UsageError if the model reads other images, has other classes, or has auxiliary heads.
    """
    _, c, h, w = data.train.images.shape
    if len(plan.outputs) > 1:
        raise UsageError(f"`{plan.name}` has auxiliary heads", "train it without them: no recipe weights their losses")
    if plan.input != Shape(c, h, w):
        raise UsageError(
            f"`{plan.name}` reads images of {plan.input}, the dataset has {c} x {h} x {w}",
            f"`--input {c}x{h}x{w}`, or another model",
        )
    last = plan.steps[plan.outputs[0]]
    if last.shape != Shape(data.classes, 1, 1):
        raise UsageError(
            f"`{plan.name}` ends in {last.shape}, the dataset has {plural(data.classes, 'class', 'classes')}",
            "its last layer should be `fc classes`",
        )
    if isinstance(last.op, Softmax) and plan.outputs[0] == len(plan.steps) - 1:
        return replace(plan, steps=plan.steps[:-1], outputs=last.inputs)
    return plan


def initial_model(plan: Plan, recipe: Recipe, seed: int, device: torch.device) -> Net:
    """The plan's model with weights drawn from the seed, the same on every device."""
    generator = torch.Generator().manual_seed(order.key(seed, order.INIT) >> 1)

    def draw(weight: Tensor, std: float) -> None:
        if recipe.init == "fan-in" and weight.dim() == 4:
            std = (2 / weight[0].numel()) ** 0.5  # (c_in / groups) * kh * kw
        nn.init.normal_(weight, std=std, generator=generator)

    return _on_device(plan, lambda model: initialise(model, draw), device)


def empty_model(plan: Plan, device: torch.device) -> Net:
    """The plan's model for weights of a checkpoint."""
    return _on_device(plan, lambda model: None, device)


def _on_device(plan: Plan, init: Callable[[nn.Module], None], device: torch.device) -> Net:
    model = build(plan, dtype=torch.float32, init=init)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.num_batches_tracked = None  # one kernel per layer, for a counter only cumulative averages read
    with fitting(f"the weights of `{plan.name}`", device):
        return model.to(device).train()


def training_subset(recipe: Recipe, data: Dataset) -> NDArray[np.int64] | None:
    """Indices of the training images to train on; None for all. Raises UsageError if there are not enough."""
    n, labels = len(data.train.images), data.train.labels
    if not n or len(labels) != n or labels.min() < 0 or labels.max() >= data.classes:
        classes = plural(data.classes, "class", "classes")
        raise UsageError(
            f"the dataset has {plural(n, 'training image')}, whose labels do not match its {classes}",
            "check the dataset: `resnet-cli data check DIR`",
        )
    if recipe.train_split is None or recipe.train_split == n:
        return None
    if recipe.train_split > n:
        raise UsageError(
            f"the dataset has {plural(n, 'training image')}, not {recipe.train_split:,}",
            f"use `--train-split` below {n:,}",
        )
    subset: NDArray[np.int64] = order.split_indices(n, recipe.train_split)[0].numpy()
    return subset


def as_tensor(array: NDArray[Any], device: torch.device | str = "cpu") -> Tensor:
    """The array as a tensor; a copy of a read-only array, for which torch would warn."""
    array = np.ascontiguousarray(array)
    return torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)


def state_template(model: nn.Module, recipe: Recipe, dtype: str) -> dict[str, Tensor]:
    """Names, shapes and dtypes of `Trainer.state()` for this model, as meta tensors."""
    tensors = {f"net.{name}": tensor for name, tensor in model.state_dict(keep_vars=True).items()}
    if recipe.momentum:
        tensors |= {f"momentum.{name}": parameter for name, parameter in model.named_parameters()}
    scalar, scalars = torch.zeros(()), ["warmup.on", "warmup.error"]
    if dtype == "fp16":
        tensors["scale.steps"] = scalar.int()
        scalars.append("scale")
    tensors |= dict.fromkeys(scalars, scalar) | {"totals": torch.zeros(3, dtype=torch.float64)}
    return {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
