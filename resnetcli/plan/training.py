"""MACs of one training step: forward and backward, exact, for one image."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from resnetcli.frozen import frozen
from resnetcli.ops import Traced
from resnetcli.plan.count import count, stage_steps
from resnetcli.plan.plan import Plan, Step


@frozen
class TrainingCost:
    """Multiply-accumulates of convolutions and fully connected layers for one image in one training step."""

    forward_macs: int = 0
    input_gradient_macs: int = 0
    """As many as forward if the layer's input depends on parameters; else 0."""
    weight_gradient_macs: int = 0
    """As many as forward if the layer affects an output; else 0."""

    @property
    def backward_macs(self) -> int:
        """Sum of both gradients."""
        return self.input_gradient_macs + self.weight_gradient_macs

    @property
    def total_macs(self) -> int:
        """Forward and backward."""
        return self.forward_macs + self.backward_macs


@frozen
class Training:
    """Training MACs of a plan. Loss and optimizer are element-wise and not counted."""

    total: TrainingCost
    stages: Mapping[str, TrainingCost] = field(repr=False)
    """By stage; they sum to the total."""
    steps: tuple[TrainingCost, ...] = field(repr=False)
    """By step of the plan."""


def training(plan: Plan) -> Training:
    """Count a training step of all parameters; the image has no gradient.

    Raises ValueError for a recorded PyTorch model.
    """
    if is_traced(plan):
        raise ValueError(f"the training cost of `{plan.name}` is unknown: only its forward pass was recorded")
    learns, passed = learning(plan), gradients(plan)
    steps = []
    for index, (step, cost) in enumerate(zip(plan.steps, count(plan).steps, strict=True)):
        arrives = passed[index]
        further = arrives and any(learns[source] for source in step.inputs)
        # A grouped convolution's gradients are convolutions in the same groups: each of its weights meets each output
        # element of its channel once, forward as in either gradient.
        steps.append(TrainingCost(cost.macs, cost.macs if further else 0, cost.macs if arrives else 0))
    stages = {stage: _sum(steps[i] for i in indices) for stage, indices in stage_steps(plan).items()}
    return Training(_sum(steps), stages, tuple(steps))


def learning(plan: Plan) -> tuple[bool, ...]:
    """Per step, whether its output depends on a parameter, so that its gradient is needed."""
    learns: list[bool] = []
    for step in plan.steps:
        learns.append(has_parameters(plan, step) or any(learns[source] for source in step.inputs))
    return tuple(learns)


def gradients(plan: Plan) -> tuple[bool, ...]:
    """Per step, whether training computes the gradient of its output.

    It does if the output depends on a parameter and the model's output depends on it: not for the image, not in
    `aside`.
    """
    used, learns = set(plan.outputs), learning(plan)
    for index in range(len(plan.steps) - 1, -1, -1):
        if index in used:
            used.update(plan.steps[index].inputs)
    return tuple(index in used and learns[index] for index in range(len(plan.steps)))


def is_traced(plan: Plan) -> bool:
    """Whether a plan is of a recorded PyTorch model, whose backward pass is unknown."""
    return any(isinstance(step.op, Traced) for step in plan.steps)


def has_parameters(plan: Plan, step: Step) -> bool:
    """Whether a step has parameters."""
    return bool(step.inputs) and step.op.params(plan.steps[step.inputs[0]].shape) > 0


def _sum(costs: Iterable[TrainingCost]) -> TrainingCost:
    forward = inputs = weights = 0
    for cost in costs:
        forward += cost.forward_macs
        inputs += cost.input_gradient_macs
        weights += cost.weight_gradient_macs
    return TrainingCost(forward, inputs, weights)
