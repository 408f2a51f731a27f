"""Compare published figures with counts: papers round and truncate, even within one table."""

from __future__ import annotations

from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Literal, Protocol

from resnetcli.frozen import frozen
from resnetcli.ops import Conv
from resnetcli.plan.count import Counts
from resnetcli.plan.plan import Plan
from resnetcli.spec.spec import Published, Spec

Verdict = Literal["rounds", "truncates", "differs"]
COUNTED = ("params", "macs", "flops", "activations", "depth")
TEMPLATE = ("bottleneck_width_d", "group_conv_width")
"""Widths in conv2 of Xie et al. 2017, Table 2."""


@frozen
class Judged:
    """A published figure with the count; count and verdict are None for figures that cannot be counted."""

    published: Published
    counted: int | None
    verdict: Verdict | None


class RoundedFigure(Protocol):
    """A number with a limited number of digits."""

    @property
    def value(self) -> Decimal:
        """The number."""

    @property
    def quantum(self) -> Decimal:
        """The unit of its last digit."""


def judge(figure: RoundedFigure, counted: int) -> Verdict:
    """Whether the count rounds or truncates to the figure's digits."""
    count, published = counted / figure.quantum, figure.value / figure.quantum
    if count.to_integral_value(ROUND_HALF_UP) == published:
        return "rounds"
    return "truncates" if count.to_integral_value(ROUND_FLOOR) == published else "differs"


def judge_published(spec: Spec, plan: Plan, counts: Counts) -> tuple[Judged, ...]:
    """Every published figure of a spec; none if parameters or input were changed."""
    if spec.changed:
        return ()
    judged = []
    for figure in spec.published:
        counted = _counted(figure.figure, plan, counts)
        judged.append(Judged(figure, counted, None if counted is None else judge(figure, counted)))
    return tuple(judged)


def _counted(figure: str, plan: Plan, counts: Counts) -> int | None:
    """None for a figure that cannot be counted, such as an error rate."""
    if figure in COUNTED:
        return int(getattr(counts, figure))
    if figure not in TEMPLATE:
        return None
    for step in plan.steps:  # ResNeXt's template: the 3x3 convolution of the first block
        if isinstance(step.op, Conv) and max(step.op.kernel) > 1 and step.where.inside("F"):
            return step.op.channels // (step.op.groups if figure == "bottleneck_width_d" else 1)
    return None
