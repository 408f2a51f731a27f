"""A printed figure against the count: papers round and truncate, and mix the two in one table."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_UP
from typing import Literal

from resnetcli.plan.count import Counts
from resnetcli.spec.spec import Published, Spec

Verdict = Literal["rounds", "truncates", "differs"]
COUNTED = ("params", "macs", "flops", "activations", "depth")


@dataclass(frozen=True, slots=True)
class Judged:
    """A published figure with what was counted; both None where the figure is none a plan can give."""

    published: Published
    counted: int | None
    verdict: Verdict | None


def judge(published: Published, counted: int) -> Verdict:
    """Whether the count rounds or truncates to the printed digits."""
    count, printed = counted / published.quantum, published.value / published.quantum
    if count.to_integral_value(ROUND_HALF_UP) == printed:
        return "rounds"
    return "truncates" if count.to_integral_value(ROUND_FLOOR) == printed else "differs"


def judged(spec: Spec, counts: Counts) -> tuple[Judged, ...]:
    """Every published figure of a spec; none if it was changed, for then the figures are another net's."""
    if spec.changed:
        return ()
    found = []
    for figure in spec.published:
        counted = int(getattr(counts, figure.figure)) if figure.figure in COUNTED else None
        found.append(Judged(figure, counted, None if counted is None else judge(figure, counted)))
    return tuple(found)
