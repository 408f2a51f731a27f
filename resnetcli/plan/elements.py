"""Elements by kind, exact integers for one image, per step: every counting convention is a weighted sum of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

from resnetcli.ops import KINDS, BatchNorm
from resnetcli.plan.plan import Plan, Step

Elements = Mapping[str, int]
"""Kind -> number of elements; kinds that do not occur are left out. Each operation says which kinds it has. Sums,
concatenation, dropout, padding and scaling have none: no tool counts them."""


def elements(plan: Plan, included: Sequence[bool] | None = None) -> tuple[Elements, ...]:
    """A plan's elements, step by step; with `included`, those of the steps whose flag is set."""
    return tuple(
        _step_elements(plan, step) if included is None or included[index] else NOTHING
        for index, step in enumerate(plan.steps)
    )


def kept_by_trace(plan: Plan, *, training: bool) -> list[bool]:
    """Per step, whether `torch.jit` keeps it when it traces the model.

    It keeps what an output needs and, in training, what updates BatchNorm's running statistics: an `aside` is dropped
    from its last BatchNorm on, or as a whole.
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
