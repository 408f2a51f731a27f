"""Warnings about specs that are valid but probably unintended: a BN after a BN, weights that affect no output."""

from __future__ import annotations

import re
from collections.abc import Sequence

from resnetcli.ops import Activation, Add, Concat, Conv, Dropout, Input, Norm, Op, Scale
from resnetcli.plan.build import PlanBuilder
from resnetcli.spec.spec import PoolLayer, Spec


def outputs(plan: PlanBuilder, spec: Spec, outputs: Sequence[int]) -> None:
    """Warn of dropout on the output, and of unused parameters unless `deviations:` names the stage."""
    for output in outputs:
        if isinstance(plan.steps[output].op, Dropout):
            plan.warn("dropout on the output", plan.places[output], "put the dropout before the last layer")
    used = [False] * len(plan.steps)
    for output in outputs:
        used[output] = True
    for index in range(len(used) - 1, -1, -1):
        for source in plan.steps[index].inputs if used[index] else ():
            used[source] = True
    deviations = " ".join(spec.deviations)
    unused: dict[str, list[int]] = {}
    for index, step in enumerate(plan.steps):
        if not used[index] and len(step.inputs) == 1:
            stage = step.where.stage
            params = step.op.params(plan.steps[step.inputs[0]].shape)
            if params and not re.search(rf"\baside\b|\b{re.escape(stage)}\b", deviations):
                unused.setdefault(stage, []).append(index)
    for stage, indices in unused.items():
        plan.warn(
            f"the weights of {len(indices)} layers in stage `{stage}` affect no output", plan.places[indices[0]],
            f"if intended (`aside` discards its output), mention `{stage}` under `deviations:`",
        )  # fmt: skip


def vgg_without_norm(plan: PlanBuilder, spec: Spec) -> None:
    """Warn that `conv3-64`, the spelling of VGG's table, has the default BN unless the file has `conv:`."""
    if not any(isinstance(op, Norm) for op in (*spec.style.before, *spec.style.after)):
        return
    for source in dict.fromkeys(at.source for at in plan.places if at is not None):
        if not re.search(r"(?i)conv[0-9]+-[0-9]", source.text) or re.search(r"(?m)^conv\s*:", source.text):
            continue
        for step, at in zip(plan.steps, plan.places, strict=True):
            if at is None or at.source is not source or not isinstance(step.op, Conv):
                continue
            text = source.line(at.line)[at.column - 1 : at.column - 1 + at.length]
            if re.match(r"conv[0-9]+-[0-9]+", text, re.IGNORECASE):
                hint = "VGG has none: add `conv: conv relu`; otherwise add `conv: conv bn relu`"
                plan.warn(f"`{text}` has a BN, which is the default", at, hint)
                return


def second_norm(plan: PlanBuilder, spec: Spec, op: Op, x: int) -> None:
    """Warn of a normalisation of a normalised input."""
    if isinstance(op, Norm) and plan.normed[x]:
        before, after = ([each.name for each in ops] for ops in (spec.style.before, spec.style.after))
        style = " ".join([*before, "conv", *after])
        hint = f"`conv: {style}` includes it: omit `{op.name}`, or write the convolution as `bare`"
        plan.warn("a second BN on a normalised input", plan.at, hint)


def second_activation(plan: PlanBuilder, op: Activation, x: int) -> None:
    """Warn of an activation of an activated input."""
    if plan.active[x]:
        hint = "`conv:` or the residual's equation includes it: omit it"
        plan.warn(f"`{op.name}` on an activated input", plan.at, hint)


def padded_pool(plan: PlanBuilder, pool: PoolLayer, x: int, stride: int) -> None:
    """Warn of average pooling over the whole feature map that also averages its padding."""
    size, (h, w) = plan.steps[x].shape, pool.kernel
    padded = pool.kind == "avg" and stride == 1 and pool.pad is None and min(h, w) > 3
    if padded and h >= size.h > 1 and w >= size.w > 1:
        hint = f"use `global avg`, or `{h}x{w} avg V` without padding"
        plan.warn(f"padded average pooling over the whole {size.h}x{size.w} feature map", plan.at, hint)


def pre_activation(plan: PlanBuilder, spec: Spec, x: int, *, skipped: bool) -> None:
    """Warn of a pre-activation convolution on the image, or without BN because its input is activated."""
    if skipped and spec.style.norm_before and not plan.normed[x]:
        after_sum = spec.equation.activation is not None
        hint = "`residual: x + F` has no activation after the sum" if after_sum else "write `bn, relu` before it"
        plan.warn("a convolution without its BN: its input is activated, but not normalised", plan.at, hint)
    elif not skipped and isinstance(plan.steps[plan.before_transparent(x)].op, Input):
        hint = "write the first convolution as `bare`: `7x7 64 /2 bare`"
        plan.warn("BN and activation on the image itself, before the first convolution", plan.at, hint)


def end(plan: PlanBuilder, spec: Spec, x: int, reported: set[int]) -> None:
    """Warn of a pre-activation model without a final BN and activation before its pooling or fully connected layer."""
    normed = plan.normed[x] or spec.style.norm_before is None
    if not spec.style.activates_first or (normed and plan.active[x]):
        return
    while plan.steps[x].op.transparent or isinstance(plan.steps[x].op, Norm | Activation):
        x = plan.steps[x].inputs[0]
    if isinstance(plan.steps[x].op, Conv | Add | Concat | Scale) and x not in reported:
        reported.add(x)
        hint = "for example `[bn, relu, global avg, fc classes]`"
        plan.warn("a pre-activation model without a final BN and activation", plan.at, hint)
