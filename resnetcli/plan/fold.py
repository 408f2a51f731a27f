"""Fold BatchNorm into the layers before it: the plan of a model optimised for inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from resnetcli.frozen import frozen
from resnetcli.ops import BatchNorm, Conv, Linear
from resnetcli.plan.plan import Plan, Step


@frozen
class Folded:
    """A plan with BatchNorm folded, and the origin of its steps' weights."""

    plan: Plan
    origins: tuple[int, ...]
    """Per step of `plan`, its step in the original plan."""
    norms: Mapping[int, int]
    """Convolution or fully connected layer of `plan` -> the BatchNorm of the original plan that is folded into it."""


def fold(plan: Plan) -> Folded:
    """Fold every BatchNorm that follows a convolution or fully connected layer into its weights and bias.

    Not if another step reads the layer's output, or if it is an output of the model. A BatchNorm before a convolution,
    as in pre-activation models, stays: with zero padding no convolution is equal to both.
    """
    readers = [0] * len(plan.steps)
    for step in plan.steps:
        for source in step.inputs:
            readers[source] += 1
    into: dict[int, int] = {}
    """BatchNorm -> the layer that it is folded into."""
    for index, step in enumerate(plan.steps):
        if not isinstance(step.op, BatchNorm):
            continue
        (source,) = step.inputs
        foldable = isinstance(plan.steps[source].op, Conv | Linear)
        if foldable and readers[source] == 1 and source not in plan.outputs:
            into[index] = source
    new_index: list[int] = []
    """Per step of the original plan, the step of the new plan with its output."""
    steps: list[Step] = []
    origins: list[int] = []
    for index, step in enumerate(plan.steps):
        if index in into:
            new_index.append(new_index[into[index]])
            continue
        new_index.append(len(steps))
        origins.append(index)
        steps.append(replace(step, inputs=tuple(new_index[source] for source in step.inputs)))
    norms = {new_index[layer]: norm for norm, layer in into.items()}
    for index in norms:
        op = steps[index].op
        assert isinstance(op, Conv | Linear)
        steps[index] = replace(steps[index], op=replace(op, bias=True))
    rewritten = replace(
        plan,
        steps=tuple(steps),
        stages={stage: new_index[index] for stage, index in plan.stages.items()},
        outputs=tuple(new_index[index] for index in plan.outputs),
    )
    return Folded(rewritten, tuple(origins), MappingProxyType(norms))
