"""A printed figure against the count: papers round and truncate, and mix the two in one table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Decimal
from typing import Literal, Protocol

from resnetcli.ops import Conv
from resnetcli.plan.count import Counts
from resnetcli.plan.plan import Plan
from resnetcli.spec.spec import Published, Spec

Verdict = Literal["rounds", "truncates", "differs"]
COUNTED = ("params", "macs", "flops", "activations", "depth")
TEMPLATE = ("bottleneck_width_d", "group_conv_width")
"""Widths in conv2 of Xie et al. 2017, Table 2."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A published figure with what was counted; both None where the figure is none a plan can give."""

    published: Published
    counted: int | None
    verdict: Verdict | None


class Printed(Protocol):
    """A figure as it stands somewhere."""

    @property
    def value(self) -> Decimal:
        """As a number."""

    @property
    def quantum(self) -> Decimal:
        """What its last digit stands for."""


def judge(printed_figure: Printed, counted: int) -> Verdict:
    """Whether the count rounds or truncates to the printed digits."""
    count, printed = counted / printed_figure.quantum, printed_figure.value / printed_figure.quantum
    if count.to_integral_value(ROUND_HALF_UP) == printed:
        return "rounds"
    return "truncates" if count.to_integral_value(ROUND_FLOOR) == printed else "differs"


def judged(spec: Spec, plan: Plan, counts: Counts) -> tuple[Judged, ...]:
    """Every published figure of a spec; none if it was changed, for then the figures are another net's."""
    if spec.changed:
        return ()
    found = []
    for figure in spec.published:
        counted = _counted(figure.figure, plan, counts)
        found.append(Judged(figure, counted, None if counted is None else judge(figure, counted)))
    return tuple(found)


def _counted(figure: str, plan: Plan, counts: Counts) -> int | None:
    """None for a figure that follows from no plan, such as an error rate."""
    if figure in COUNTED:
        return int(getattr(counts, figure))
    if figure not in TEMPLATE:
        return None
    for step in plan.steps:  # ResNeXt's template: the first block's convolution with a window, in its groups
        if isinstance(step.op, Conv) and max(step.op.kernel) > 1 and step.where.inside("F"):
            return step.op.channels // (step.op.groups if figure == "bottleneck_width_d" else 1)
    return None
