"""Count elements by kind: every counting convention is a weighted sum of them. Exact integers for one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from resnetcli.ops import KINDS, BatchNorm
from resnetcli.plan.plan import Plan, Step

Elements = Mapping[str, int]
"""Kind -> number of elements, if not zero. The kinds of an operation are in its class; sums, concatenation, dropout,
padding and scaling have none, as no tool counts them."""


def elements(plan: Plan, included: Sequence[bool] | None = None) -> tuple[Elements, ...]:
    """Elements of each step; with `included`, of the steps whose flag is set."""
    return tuple(
        _step_elements(plan, step) if included is None or included[index] else NOTHING
        for index, step in enumerate(plan.steps)
    )


def kept_by_trace(plan: Plan, *, training: bool) -> list[bool]:
    """Per step, whether it is in the graph that `torch.jit` traces.

    The graph has the steps that an output depends on and, in training, those that BatchNorm's running statistics depend
    on: an `aside` is dropped after its last BatchNorm, or entirely.
    """
    kept = [training and isinstance(step.op, BatchNorm) for step in plan.steps]
    for output in plan.outputs:
        kept[output] = True
    for index in range(len(kept) - 1, -1, -1):
        if kept[index]:
            for source in plan.steps[index].inputs:
                kept[source] = True
    return kept


def sum_elements(parts: Iterable[Elements]) -> dict[str, int]:
    """Totals by kind, in the order of KINDS."""
    total: dict[str, int] = {}
    for part in parts:
        for kind, number in part.items():
            total[kind] = total.get(kind, 0) + number
    return {kind: total[kind] for kind in KINDS if kind in total}


NOTHING: Elements = MappingProxyType({})


def _step_elements(plan: Plan, step: Step) -> Elements:
    x = plan.steps[step.inputs[0]].shape if step.inputs else step.shape
    counted = step.op.counted(x, step.shape)
    return {kind: number for kind, number in counted.items() if number} if counted else NOTHING
