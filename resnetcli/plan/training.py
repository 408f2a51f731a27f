"""What one training step multiplies: forward and backward, for one image, exactly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from resnetcli.ops import Traced
from resnetcli.plan.count import count, row_steps
from resnetcli.plan.plan import Plan, Step


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """Multiply-accumulates of convolutions and fully connected layers for one image in one training step."""

    forward_macs: int = 0
    input_gradient_macs: int = 0
    """As many as forward, where anything learns before the layer: what the chain rule passes on to it."""
    weight_gradient_macs: int = 0
    """As many as forward, wherever a gradient arrives."""

    @property
    def backward_macs(self) -> int:
        """Both gradients'."""
        return self.input_gradient_macs + self.weight_gradient_macs

    @property
    def total_macs(self) -> int:
        """Forward and backward."""
        return self.forward_macs + self.backward_macs


@dataclass(frozen=True, slots=True)
class Training:
    """A plan's costs in training. The loss and the optimizer multiply element by element and are not counted."""

    total: TrainingCost
    rows: Mapping[str, TrainingCost] = field(repr=False)
    """By table row; they sum to the total."""
    steps: tuple[TrainingCost, ...] = field(repr=False)
    """As many as the plan has steps."""


def training(plan: Plan) -> Training:
    """What a training step on a plan's net costs, every parameter being trained, the image not.

    Raises ValueError for a model that was only seen to run.
    """
    if is_traced(plan):
        raise ValueError(f"what training `{plan.name}` costs does not follow from its forward pass")
    learns, passed = learning(plan), gradients(plan)
    steps = []
    for index, (step, cost) in enumerate(zip(plan.steps, count(plan).steps, strict=True)):
        arrives = passed[index]
        further = arrives and any(learns[source] for source in step.inputs)
        # A grouped convolution's gradients are convolutions in the same groups: each of its weights meets each output
        # element of its channel once, forward as in either gradient.
        steps.append(TrainingCost(cost.macs, cost.macs if further else 0, cost.macs if arrives else 0))
    rows = {row: _sum(steps[index] for index in where) for row, where in row_steps(plan).items()}
    return Training(_sum(steps), rows, tuple(steps))


def learning(plan: Plan) -> tuple[bool, ...]:
    """Per step, whether its value depends on a parameter, so that a gradient with respect to it is of use."""
    found: list[bool] = []
    for step in plan.steps:
        found.append(has_parameters(plan, step) or any(found[source] for source in step.inputs))
    return tuple(found)


def gradients(plan: Plan) -> tuple[bool, ...]:
    """Per step, whether training computes the gradient with respect to its value.

    It does where a parameter comes before and an output of the net after: not for the image, not for what is thrown
    away.
    """
    wanted, learns = set(plan.outputs), learning(plan)
    for index in range(len(plan.steps) - 1, -1, -1):
        if index in wanted:
            wanted.update(plan.steps[index].inputs)
    return tuple(index in wanted and learns[index] for index in range(len(plan.steps)))


def is_traced(plan: Plan) -> bool:
    """Whether a plan is of a model that was seen to run: what its backward pass takes does not follow from that."""
    return any(isinstance(step.op, Traced) for step in plan.steps)


def has_parameters(plan: Plan, step: Step) -> bool:
    """Whether a step learns anything itself."""
    return bool(step.inputs) and step.op.params(plan.steps[step.inputs[0]].shape) > 0


def _sum(costs: Iterable[TrainingCost]) -> TrainingCost:
    forward = inputs = weights = 0
    for cost in costs:
        forward += cost.forward_macs
        inputs += cost.input_gradient_macs
        weights += cost.weight_gradient_macs
    return TrainingCost(forward, inputs, weights)
