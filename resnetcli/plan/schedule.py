"""Lifetimes of a plan's activations: last uses, in-place operations, convolutions that can be fused."""

from __future__ import annotations

from typing import NamedTuple

from resnetcli.ops import Add, Conv, ReLU
from resnetcli.plan.plan import Plan, Step


def last_uses(plan: Plan) -> list[tuple[int, ...]]:
    """Per step, the steps whose outputs are freed after it: its last reads; itself if nothing reads it."""
    last = list(range(len(plan.steps)))
    for index, step in enumerate(plan.steps):
        for source in step.inputs:
            last[source] = index
    dying: list[list[int]] = [[] for _ in plan.steps]
    for index, end in enumerate(last):
        if index not in plan.outputs:
            dying[end].append(index)
    return [tuple(indices) for indices in dying]


def overwrites(plan: Plan) -> dict[int, int]:
    """Step -> the input that its output overwrites: that of a ReLU, or one of a sum's first two.

    Only if the input has no other reader, is not an output of the model, and comes from an operation whose gradient
    does not need it.
    """
    once = _read_once(plan)
    free = {index for index, step in enumerate(plan.steps) if index in once and (step.op.overwritable or _is_sum(step))}
    overwritten: dict[int, int] = {}
    for index, step in enumerate(plan.steps):
        if step.op.in_place or _is_sum(step):
            # No further than the second: a + b is exactly b + a, whereas a + b + c depends on the order.
            overwritten.update((index, source) for source in step.inputs[1::-1] if source in free)
    return overwritten


class FusedConv(NamedTuple):
    """A ReLU, and the convolution that the same kernel can compute: relu(conv(x)), or relu(conv(x) + term)."""

    relu: int
    conv: int
    sum: int | None = None
    """The step that adds the term."""
    term: int | None = None


def fused_convs(plan: Plan) -> tuple[FusedConv, ...]:
    """The convolutions that one kernel can compute together with a sum and the ReLU after it.

    Only if nothing else reads the activations in between. In a sum of two convolutions, the later one is fused.
    """
    once = _read_once(plan)
    fused = []
    for index, step in enumerate(plan.steps):
        if not isinstance(step.op, ReLU) or step.inputs[0] not in once:
            continue
        (source,) = step.inputs
        before = plan.steps[source]
        if isinstance(before.op, Conv):
            fused.append(FusedConv(index, source))
        elif isinstance(before.op, Add) and len(before.inputs) == 2:
            convs = [each for each in before.inputs if each in once and isinstance(plan.steps[each].op, Conv)]
            if convs:
                conv = max(convs)
                term = before.inputs[1 - before.inputs.index(conv)]
                fused.append(FusedConv(index, conv, source, term))
    return tuple(fused)


def _read_once(plan: Plan) -> set[int]:
    """The steps that exactly one other step reads, and that are not an output."""
    readers = [0] * len(plan.steps)
    for step in plan.steps:
        for source in step.inputs:
            readers[source] += 1
    return {index for index, count in enumerate(readers) if count == 1 and index not in plan.outputs}


def _is_sum(step: Step) -> bool:
    """Whether a step adds: the sum of one input is that input itself."""
    return isinstance(step.op, Add) and len(step.inputs) > 1
