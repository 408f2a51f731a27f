"""Count parameters, MACs and activations of a plan: exact integers for one image, per step, per stage and in total."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import field

from resnetcli.frozen import frozen
from resnetcli.plan.plan import Plan, Step

BYTES_FP32 = 4


@frozen
class Cost:
    """Counts of one step, or of several."""

    params: int = 0
    """Learnable scalars, including BN's gamma and beta, without running statistics."""
    macs: int = 0
    """Multiply-accumulates of convolutions and fully connected layers for one image; bias not counted."""
    activations: int = 0
    """Output elements of convolutions and fully connected layers for one image (Dollar et al. 2021, 2.1)."""

    @property
    def flops(self) -> int:
        """2 x MACs."""
        return 2 * self.macs

    def figure(self, name: str) -> int:
        """`params`, `macs`, `flops` or `activations`."""
        return int(getattr(self, name))


NOTHING = Cost()


@frozen
class Counts:
    """Counts of a plan."""

    total: Cost
    stages: Mapping[str, Cost] = field(repr=False)
    """By stage; they sum to the total."""
    steps: tuple[Cost, ...] = field(repr=False)
    """By step of the plan."""
    depth: int
    """Weighted layers on the longest path to the output."""

    @property
    def params(self) -> int:
        """Learnable scalars."""
        return self.total.params

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return self.total.macs

    @property
    def flops(self) -> int:
        """2 x MACs."""
        return self.total.flops

    @property
    def activations(self) -> int:
        """Output elements of convolutions and fully connected layers for one image."""
        return self.total.activations

    @property
    def weight_bytes(self) -> int:
        """Bytes of the parameters in float32."""
        return BYTES_FP32 * self.total.params

    @property
    def activation_bytes(self) -> int:
        """Bytes of the activations of one image in float32."""
        return BYTES_FP32 * self.total.activations


def count(plan: Plan) -> Counts:
    """Count a plan."""
    steps = tuple(_cost(plan, step) for step in plan.steps)
    stages = {stage: sum_costs(steps[i] for i in indices) for stage, indices in stage_steps(plan).items()}
    return Counts(sum_costs(steps), stages, steps, _depth(plan))


def stage_steps(plan: Plan) -> dict[str, range]:
    """Stage -> indices of its steps, which are consecutive."""
    stages: dict[str, range] = {}
    start = 1  # step 0 is the input
    for stage in plan.stages:
        end = start
        while end < len(plan.steps) and plan.steps[end].where.stage == stage:
            end += 1
        stages[stage] = range(start, end)
        start = end
    return stages


def sum_costs(costs: Iterable[Cost]) -> Cost:
    """Sum of each field."""
    params = macs = activations = 0
    for cost in costs:
        params += cost.params
        macs += cost.macs
        activations += cost.activations
    return Cost(params, macs, activations)


def _cost(plan: Plan, step: Step) -> Cost:
    x, op = plan.steps[step.inputs[0]].shape if step.inputs else step.shape, step.op
    params, macs, activations = op.params(x), op.macs(x, step.shape), op.activations(step.shape)
    return Cost(params, macs, activations) if params or macs or activations else NOTHING


def _depth(plan: Plan) -> int:
    depths: list[int] = []
    for step in plan.steps:
        below = max((depths[i] for i in step.inputs), default=0)
        depths.append(below + step.op.depth())
    return depths[plan.outputs[0]]
