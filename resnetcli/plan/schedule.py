"""When a step's value can be dropped or written over, which steps one kernel can do: pure functions of a plan."""

from __future__ import annotations

from typing import NamedTuple

from resnetcli.ops import Add, Conv, ReLU
from resnetcli.plan.plan import Plan, Step


def last_uses(plan: Plan) -> list[tuple[int, ...]]:
    """Per step, the steps whose values nobody needs once it is done; itself among them if it has no reader."""
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
    """Step -> the input whose memory its result takes over: a ReLU's, or one of a sum's first two.

    Only where nobody can tell: the input has no other reader, is no output of the net, and was made by an operation
    whose gradient does not need it.
    """
    once = _read_once(plan)
    free = {index for index, step in enumerate(plan.steps) if index in once and (step.op.overwritable or _is_sum(step))}
    found: dict[int, int] = {}
    for index, step in enumerate(plan.steps):
        if step.op.in_place or _is_sum(step):
            # No further than the second: a + b is exactly b + a, whereas a + b + c depends on the order.
            found.update((index, source) for source in step.inputs[1::-1] if source in free)
    return found


class FusedConv(NamedTuple):
    """A ReLU whose input one kernel can compute with it: relu(conv(x)), or relu(conv(x) + term)."""

    relu: int
    conv: int
    sum: int | None = None
    """The step that adds the term."""
    term: int | None = None


def fused_convs(plan: Plan) -> tuple[FusedConv, ...]:
    """The convolutions that a kernel can compute together with the sum of two and the ReLU behind them.

    Only where nothing else reads the values in between. Of a sum of two convolutions the later one is fused.
    """
    once = _read_once(plan)
    found = []
    for index, step in enumerate(plan.steps):
        if not isinstance(step.op, ReLU) or step.inputs[0] not in once:
            continue
        (source,) = step.inputs
        before = plan.steps[source]
        if isinstance(before.op, Conv):
            found.append(FusedConv(index, source))
        elif isinstance(before.op, Add) and len(before.inputs) == 2:
            convs = [each for each in before.inputs if each in once and isinstance(plan.steps[each].op, Conv)]
            if convs:
                conv = max(convs)
                term = before.inputs[1 - before.inputs.index(conv)]
                found.append(FusedConv(index, conv, source, term))
    return tuple(found)


def _read_once(plan: Plan) -> set[int]:
    """The steps whose value one other step reads, and that are no output."""
    readers = [0] * len(plan.steps)
    for step in plan.steps:
        for source in step.inputs:
            readers[source] += 1
    return {index for index, count in enumerate(readers) if count == 1 and index not in plan.outputs}


def _is_sum(step: Step) -> bool:
    """Whether there is something to add: the sum of one value is that value itself, which may have more readers."""
    return isinstance(step.op, Add) and len(step.inputs) > 1
