"""BatchNorm folded into what it normalises, as a rewrite of the plan: what a net at inference need not compute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from resnetcli.ops import BatchNorm, Conv, Linear
from resnetcli.plan.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class Folded:
    """A plan that computes the same at inference with fewer steps, and where its steps' weights are from."""

    plan: Plan
    origins: tuple[int, ...]
    """Per step of `plan`, the step of the original plan that it is."""
    norms: Mapping[int, int]
    """Step of `plan` that is a convolution or fully connected -> the BatchNorm of the original plan now in it."""


def fold(plan: Plan) -> Folded:
    """Every BatchNorm that reads a convolution or fully connected layer becomes part of it, as its bias and scale.

    Only where nobody else reads the layer and its value is no output of the net. A BatchNorm before a convolution, as
    in pre-activation nets, stays: past zero padding it is another function than any convolution.
    """
    readers = [0] * len(plan.steps)
    for step in plan.steps:
        for source in step.inputs:
            readers[source] += 1
    into: dict[int, int] = {}
    """BatchNorm -> the layer that takes it in."""
    for index, step in enumerate(plan.steps):
        if not isinstance(step.op, BatchNorm):
            continue
        (source,) = step.inputs
        taken = isinstance(plan.steps[source].op, Conv | Linear)
        if taken and readers[source] == 1 and source not in plan.outputs:
            into[index] = source
    now: list[int] = []
    """Per step of the original plan, the step of the new one that has its value."""
    steps: list[Step] = []
    origins: list[int] = []
    for index, step in enumerate(plan.steps):
        if index in into:
            now.append(now[into[index]])
            continue
        now.append(len(steps))
        origins.append(index)
        steps.append(replace(step, inputs=tuple(now[source] for source in step.inputs)))
    norms = {now[layer]: norm for norm, layer in into.items()}
    for index in norms:
        op = steps[index].op
        assert isinstance(op, Conv | Linear)
        steps[index] = replace(steps[index], op=replace(op, bias=True))
    rewritten = replace(
        plan,
        steps=tuple(steps),
        rows={row: now[index] for row, index in plan.rows.items()},
        outputs=tuple(now[index] for index in plan.outputs),
    )
    return Folded(rewritten, tuple(origins), MappingProxyType(norms))
