"""Deviation of a model's outputs under some options from those in eager fp32."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor, nn

from resnetcli.bench.execution import rounding
from resnetcli.bench.runtimes import RuntimeVariant, reuse, start
from resnetcli.frozen import frozen
from resnetcli.net.module import Net, layer_of
from resnetcli.net.outputs import tensors
from resnetcli.plan.plan import Plan

CHECKED = 8
"""Images whose outputs are compared. A whole batch would take twice the memory of half precision."""


@frozen
class Deviation:
    """Deviations from eager fp32: the norm of the difference relative to the norm of the reference."""

    feature_map: float | None
    """Of the last feature map before the output; None for a model without any."""
    outputs: float
    """The largest over all outputs, auxiliary heads included."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether both deviations are within tolerance (NaN and inf never are)."""
        return self.outputs <= self.tolerance and (self.feature_map is None or self.feature_map <= self.tolerance)


def check_outputs(variant: RuntimeVariant, x: Tensor, expected: tuple[Tensor, ...]) -> Deviation:
    """Deviation of a variant from `reference_outputs`, for images that are ready; only the first images are compared.

    The last feature map comes from a second instance of the model with one more output: a compiled model gives no
    access to it, and the model that is timed must not return it.
    """
    outputs = as_tuple(variant.call(x))
    if isinstance(variant.net, Net):
        outputs = tuple(y[: len(reference)] for y, reference in zip(outputs, expected, strict=False))
    error = max(map(relative_error, outputs, expected), default=float("inf"))
    map_error = None
    if len(expected) > len(outputs) and isinstance(variant.net, Net):
        plan, net = with_feature_map(variant.plan, variant.net)
        images = x[:CHECKED]
        map_error = relative_error(as_tuple(start(plan, net, images, variant.options)(images))[-1], expected[-1])
    return Deviation(map_error, error, variant.options.tolerance)


def last_feature_map(plan: Plan) -> int | None:
    """The last step before the output whose feature map is larger than 1x1."""
    ancestors = {plan.outputs[0]}
    for index in range(plan.outputs[0], 0, -1):
        if index in ancestors:
            shape = plan.steps[index].shape
            if shape.h * shape.w > 1:
                return index
            ancestors.update(plan.steps[index].inputs)
    return None


def with_feature_map(plan: Plan, net: Net) -> tuple[Plan, Net]:
    """The plan and model with the last feature map as an additional output; the weights are shared."""
    step = last_feature_map(plan)
    if step is None:
        return plan, net
    extended = replace(plan, outputs=(*plan.outputs, step))
    return extended, reuse(extended, {index: layer_of(net, index) for index in range(1, len(plan.steps))})


def reference_outputs(plan: Plan, net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The outputs in eager fp32 without TF32, then the last feature map if there is one.

    Only of the first images, since a model computes each image independently. A PyTorch model may not: it gets all
    images, and returns no feature map.
    """
    model, x = (with_feature_map(plan, net)[1], x[:CHECKED]) if isinstance(net, Net) else (net, x)
    with rounding(allowed=False), torch.inference_mode(False), torch.no_grad():
        return tuple(value.clone() for value in as_tuple(model(x)))


def relative_error(output: Tensor, expected: Tensor) -> float:
    """|output - expected| / |expected| (L2 norms); inf if shapes differ or anything is not finite."""
    if output.shape != expected.shape:
        return float("inf")
    output, expected = output.to(expected.device, torch.float32), expected.to(torch.float32)
    if not bool(output.isfinite().all()):
        return float("inf")
    size = float(torch.linalg.vector_norm(expected))
    difference = float(torch.linalg.vector_norm(output - expected))
    ratio = difference / size if size else (0.0 if difference == 0 else float("inf"))
    return float("inf") if math.isnan(ratio) else ratio  # inf / inf; a maximum would hide it


def as_tuple(output: object) -> tuple[Tensor, ...]:
    """The tensors of an output, whatever a PyTorch model wraps them in."""
    return tuple(tensors(output))
