"""Every number that is published for a model: each tool's total, parameters, activations, and common variations."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Literal

from resnetcli.counting.conventions import tallies
from resnetcli.counting.tally import Tally, formula
from resnetcli.frozen import frozen
from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Input,
    Linear,
    PadChannels,
    Pool,
    PoolTo,
    ReLU,
    Softmax,
)
from resnetcli.plan.count import Counts, count
from resnetcli.plan.elements import Elements
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.training import is_traced, training

Quantity = Literal["work", "params", "activations"]
"""Quantity of a number: multiply-accumulates and other operations, parameters, or outputs."""


@frozen
class Reading:
    """One number of one model."""

    name: str
    """`thop`, `2 x fvcore`, `parameters without the classifier`."""
    quantity: Quantity
    parts: Mapping[str, int]
    """The terms of the total."""
    text: str
    """The terms with counts and weights: `4,089,184,256 macs + 4 x 11,113,984 batchnorm`."""
    conventions: tuple[str, ...] = ()
    """The conventions with this total; empty for other readings."""
    oddity: int = 1
    """0 for a tool's total and for the parameters; larger for readings that are published less often."""
    single: bool = False
    """Whether the tool sums in single precision."""

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())

    @property
    def printed(self) -> int:
        """The total as the tool prints it."""
        return int(struct.unpack("f", struct.pack("f", self.total))[0]) if self.single else self.total


def readings(plan: Plan) -> tuple[Reading, ...]:
    """The nonzero readings of a model, the likeliest first."""
    counts, by_tool = count(plan), tallies(plan)
    every = (*_work(plan, counts, by_tool), *_parameters(plan, counts), *_activations(plan, counts))
    return tuple(reading for reading in every if reading.total)


def _terms(weights: Mapping[str, int], numbers: Elements) -> tuple[dict[str, int], str]:
    """The terms and the text of a weighted sum."""
    return {kind: weight * numbers[kind] for kind, weight in weights.items()}, formula(weights, numbers)


def _work(plan: Plan, counts: Counts, by_tool: Mapping[str, Tally]) -> Iterator[Reading]:
    same: dict[tuple[tuple[str, int], ...], list[Tally]] = {}
    for tally in by_tool.values():
        same.setdefault(tuple(tally.parts.items()), []).append(tally)
    for equal in same.values():
        names, first = tuple(tally.name for tally in equal), equal[0]
        weights = {kind: first.convention.weights[kind] for kind in first.parts}
        yield Reading(", ".join(names), "work", first.parts, formula(weights, first.numbers), names, 0)
    costs = tuple(zip(plan.steps, counts.steps, strict=True))
    conv = sum(cost.macs for step, cost in costs if not isinstance(step.op, Linear))
    whole = sum(cost.macs * (step.op.groups if isinstance(step.op, Conv) else 1) for step, cost in costs)
    for factor in (1, 2):
        times = f"{factor} x " if factor > 1 else ""
        if conv and conv != counts.macs:
            parts, text = _terms({"conv_macs": factor}, {"conv_macs": conv})
            yield Reading(f"{times}macs of convolutions alone", "work", parts, text)
        if whole != counts.macs:
            parts, text = _terms({"ungrouped_macs": factor}, {"ungrouped_macs": whole})
            yield Reading(f"{times}macs with groups not divided", "work", parts, text)
    for tally in by_tool.values():
        if tally.convention.unit == "MACs" and len(tally.parts) > 1:  # 2 x macs is the convention `flops`
            parts, text = _terms({kind: 2 * tally.convention.weights[kind] for kind in tally.parts}, tally.numbers)
            yield Reading(f"2 x {tally.name}", "work", parts, text)
    yield from _thop_2019(plan, counts)
    if not is_traced(plan):
        step = training(plan).total
        for factor in (1, 2):
            numbers = {"forward_macs": step.forward_macs, "backward_macs": step.backward_macs}
            parts, text = _terms(dict.fromkeys(numbers, factor), numbers)
            yield Reading(f"{'2 x ' if factor > 1 else ''}macs of a training step", "work", parts, text)


_THOP_2019 = (Input, Conv, BatchNorm, ReLU, Pool, PoolTo, Linear, Add, Concat, Dropout, PadChannels, Softmax)


def _thop_2019(plan: Plan, counts: Counts) -> Iterator[Reading]:
    """Thop before July 2019, on torchvision's residual models.

    It also counted the additions of a fully connected layer, one side of the window for each output of max pooling, and
    only the last call of a module that is called several times: of a block's ReLUs, which share a module there, the one
    after the sum. The total was summed in single precision.
    """
    steps = plan.steps
    if not all(isinstance(step.op, _THOP_2019) for step in steps):
        return
    if not any(isinstance(step.op, ReLU) and isinstance(steps[step.inputs[0]].op, Add) for step in steps):
        return  # blocks that are not torchvision's
    numbers = dict.fromkeys(("macs", "fc_adds", "batchnorm", "last_relu", "pool", "adaptive_avg_work"), 0)
    numbers["macs"] = counts.macs
    for step in steps[1:]:
        x, y = steps[step.inputs[0]].shape, step.shape
        match step.op:
            case Linear() as op:
                numbers["fc_adds"] += op.macs(x, y) - y.elements
            case Conv(bias=True, groups=groups):
                numbers["macs"] += x.c // groups * y.elements
            case BatchNorm():
                numbers["batchnorm"] += y.elements
            case ReLU() if not _in_branch(step):
                numbers["last_relu"] += y.elements
            case Pool(kind=kind, kernel=kernel):
                numbers["pool"] += (kernel[0] + (kind == "avg")) * y.elements
            case PoolTo(kind="avg"):
                numbers["adaptive_avg_work"] += (x.h // y.h * (x.w // y.w) + 1) * y.elements
            case _:
                pass
    weights = {kind: 4 if kind == "batchnorm" else 1 for kind, number in numbers.items() if number}
    yield Reading("thop of spring 2019", "work", *_terms(weights, numbers), oddity=0, single=True)


def _in_branch(step: Step) -> bool:
    return step.where.inside("F") is not None


def _parameters(plan: Plan, counts: Counts) -> Iterator[Reading]:
    costs = tuple(zip(plan.steps, counts.steps, strict=True))
    params = counts.params
    norms = [cost.params for step, cost in costs if isinstance(step.op, BatchNorm)]
    running = sum(norms)  # a mean for each scale, a variance for each shift
    layers = [(step, cost) for step, cost in costs if isinstance(step.op, Conv | Linear)]
    biases = sum(step.op.channels for step, _ in layers if isinstance(step.op, Conv) and not step.op.bias)

    def reading(name: str, oddity: int = 1, **numbers: int) -> Reading:
        parts, text = _terms(dict.fromkeys(numbers, 1), numbers)
        return Reading(name, "params", parts, text, oddity=oddity)

    yield reading("parameters", 0, params=params)
    if running:
        yield reading("parameters and BatchNorm's running statistics", 2, params=params, running_statistics=running)
        yield reading("elements of the state_dict", 2, params=params, running_statistics=running, batches=len(norms))
        yield reading("parameters without BatchNorm", weights_and_biases=params - running)
    if biases:
        yield reading("parameters with a bias in every convolution, as in Keras", 2,
                      params=params, conv_biases=biases)  # fmt: skip
        if running:
            yield reading("parameters with a bias in every convolution and running statistics, as in Keras", 2,
                          params=params, conv_biases=biases, running_statistics=running)  # fmt: skip
            yield reading("parameters without the classifier, with Keras' biases and statistics", 2,
                          backbone_params=params - layers[-1][1].params, conv_biases=biases,
                          running_statistics=running)  # fmt: skip
    if len(layers) > 1:
        yield reading("parameters without the classifier", backbone_params=params - layers[-1][1].params)
    conv = sum(cost.params for step, cost in layers if isinstance(step.op, Conv))
    if conv not in (params, params - running):
        yield reading("parameters of convolutions alone", conv_params=conv)
    whole = params + sum(
        (step.op.groups - 1) * (cost.params - step.op.bias * step.op.channels)
        for step, cost in layers
        if isinstance(step.op, Conv)
    )
    if whole != params:
        yield reading("parameters with groups not divided", ungrouped_params=whole)


def _activations(plan: Plan, counts: Counts) -> Iterator[Reading]:
    pools = sum(step.shape.elements for step in plan.steps if isinstance(step.op, Pool | PoolTo))
    numbers = {"activations": counts.activations}
    yield Reading("activations", "activations", *_terms({"activations": 1}, numbers))
    if pools:
        numbers["pool_out"] = pools
        yield Reading("activations and outputs of pooling", "activations", *_terms(dict.fromkeys(numbers, 1), numbers))
