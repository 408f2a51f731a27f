"""A plan under construction: steps with their shapes, the problems found so far, the warnings."""

from __future__ import annotations

from typing import NoReturn

from resnetcli.errors import At, Problem, Problems
from resnetcli.ops import MAX_ELEMENTS, Activation, Norm, Op, Shape, ShapeError
from resnetcli.plan.plan import Step, Where

MAX_STEPS = 16_384
"""About four times the steps of the deepest published model, with 1,202 layers (He et al. 2015)."""


class StopLowering(Exception):  # noqa: N818 - not an error: its problem is in the list
    """Raised if there is no shape to continue with."""


class PlanBuilder:
    """Appends steps, each with its output shape."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.active: list[bool] = []  # per step: whether its output is activated
        self.normed: list[bool] = []  # per step: whether its output is normalised, then only activated or pooled
        self.places: list[At | None] = []
        self.warnings: dict[tuple[str, At | None], Problem] = {}
        self.problems = Problems()
        self.stage_failed = False
        self.at: At | None = None

    def fail(self, message: str, at: At | None, hint: str = "", notes: tuple[str, ...] = ()) -> None:
        """Add the first problem of a stage; later ones may be consequences."""
        if not self.stage_failed:
            self.problems.add(message, at, hint, notes)
        self.stage_failed = True

    def warn(self, message: str, at: At | None, hint: str) -> None:
        """Add a warning, once per position."""
        self.warnings.setdefault((message, at), Problem(message, at, hint, severity="warning"))

    def stop(self, message: str, hint: str = "") -> NoReturn:
        """Add a problem and stop: there is no shape to continue with."""
        self.fail(message, self.at, hint)
        raise StopLowering

    def emit(
        self, op: Op, where: Where, shape: Shape, *inputs: int, active: bool = False, normed: bool = False
    ) -> int:  # fmt: skip
        """Append a step with a known output shape; returns its index."""
        if len(self.steps) >= MAX_STEPS:
            self.stop(f"the model has more than {MAX_STEPS:,} steps", "the deepest models published have about 4,000")
        if shape.elements > MAX_ELEMENTS:
            self.stop(f"an activation of {shape} exceeds the limit of 2^40 scalars")
        self.steps.append(Step(where, op, inputs, shape))
        self.active.append(active)
        self.normed.append(normed)
        self.places.append(self.at)
        return len(self.steps) - 1

    def apply(self, op: Op, where: Where, x: int) -> int:
        """Append an operation on the output of step x; returns its index."""
        before = self.steps[x].shape
        try:
            shape = op.out(before)
        except ShapeError as error:
            self.fail(error.message, self.at, error.hint, error.notes)
            if error.recovered is None:
                raise StopLowering from None
            shape = error.recovered
        if op.params(before) > MAX_ELEMENTS:
            self.stop(f"a weight of {op.params(before):,} scalars exceeds the limit of 2^40")
        activates = isinstance(op, Activation)
        active = activates or (op.transparent and self.active[x])
        normed = isinstance(op, Norm) or ((activates or op.transparent) and self.normed[x])
        return self.emit(op, where, shape, x, active=active, normed=normed)

    def before_transparent(self, x: int) -> int:
        """Step x, or the step before it if x is pooling or dropout."""
        while self.steps[x].op.transparent:
            x = self.steps[x].inputs[0]
        return x

    def activated(self, step: int, x: int | None) -> bool:
        """Whether a step is step x, or is computed from it by normalisation and activation only."""
        while step != x and isinstance(self.steps[step].op, Norm | Activation):
            step = self.steps[step].inputs[0]
        return step == x
