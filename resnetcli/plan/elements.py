"""What every counting convention is a weighted sum of: elements by kind, exact integers for one image, per step."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import assert_never

from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    Input,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    PadChannels,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Scale,
    Shape,
    Softmax,
    Traced,
)
from resnetcli.plan.plan import Plan, Step

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "macs": "multiply-accumulates of convolutions and fully connected layers",
        "conv_bias": "additions of a convolution's bias",
        "fc_bias": "additions of a fully connected layer's bias",
        "batchnorm": "elements that BatchNorm puts out",
        "batchnorm_params": "BatchNorm's scales and shifts, once for every map they are applied to",
        "relu": "elements that ReLU puts out",
        "leaky_relu": "elements that leaky ReLU puts out",
        "prelu": "elements that PReLU puts out",
        "prelu_params": "PReLU's slopes, once for every map they are applied to",
        "pool_in": "elements that pooling over a window reads, max and average",
        "avg_pool_out": "elements that average pooling over a window puts out",
        "adaptive_max_in": "elements that max pooling to a size (`global max`, `max to`) reads",
        "adaptive_avg_in": "elements that average pooling to a size (`global avg`, `avg to`) reads",
        "adaptive_avg_out": "elements that average pooling to a size puts out",
        "adaptive_avg_work": "input and output elements of average pooling to a size, rounded as float64 rounds them",
        "pyramid_in": "elements that pyramid pooling reads, once a level",
        "lrn": "elements that local response normalisation puts out",
        "lrn_padded": "elements it averages: with the channels of zeros put before the first and after the last",
        "softmax": "elements that softmax puts out",
        "softmax_groups": "sums of a softmax: one a pixel",
        "roi": "elements that pooling of regions puts out",
    }
)
"""Kind -> what is counted. Additions of `residual`, `concat`, dropout, padding and scaling are of none: no tool counts
them."""
Elements = Mapping[str, int]
"""Kind -> how many; a kind that does not occur is not there."""


def elements(plan: Plan, seen: Sequence[bool] | None = None) -> tuple[Elements, ...]:
    """A plan's elements, step by step; of the steps that are `seen`, a flag each, if that is given."""
    return tuple(
        _of_step(plan, step) if seen is None or seen[index] else NOTHING for index, step in enumerate(plan.steps)
    )


def kept_by_trace(plan: Plan, *, training: bool) -> list[bool]:
    """Per step, whether `torch.jit` keeps it when it traces the net.

    Kept is what an output needs, and in training what BatchNorm's running statistics are moved by: an `aside` is
    dropped from its last BatchNorm on, or whole.
    """
    kept = [training and isinstance(step.op, BatchNorm) for step in plan.steps]
    for output in plan.outputs:
        kept[output] = True
    for index in range(len(kept) - 1, -1, -1):
        if kept[index]:
            for source in plan.steps[index].inputs:
                kept[source] = True
    return kept


def sum_elements(found: Iterable[Elements]) -> dict[str, int]:
    """Kind by kind, in the order of KINDS."""
    total: dict[str, int] = {}
    for each in found:
        for kind, number in each.items():
            total[kind] = total.get(kind, 0) + number
    return {kind: total[kind] for kind in KINDS if kind in total}


NOTHING: Elements = MappingProxyType({})


def _of_step(plan: Plan, step: Step) -> Elements:
    if isinstance(step.op, Traced):  # of a PyTorch model only its multiply-accumulates are known
        return {"macs": step.op.products} if step.op.products else NOTHING
    if not step.inputs:
        return NOTHING
    return {kind: number for kind, number in _counted(step, plan.steps[step.inputs[0]].shape) if number}


def _counted(step: Step, x: Shape) -> Iterator[tuple[str, int]]:
    """Kinds and numbers of a step that reads x (or, of several inputs, x first)."""
    y = step.shape
    match step.op:
        case Conv() | Linear() as op:
            yield "macs", op.macs(x, y)
            if op.bias:
                yield "conv_bias" if isinstance(op, Conv) else "fc_bias", y.elements
        case BatchNorm() as op:
            yield "batchnorm", y.elements
            yield "batchnorm_params", op.params(x) * y.n
        case ReLU():
            yield "relu", y.elements
        case LeakyReLU():
            yield "leaky_relu", y.elements
        case PReLU() as op:
            yield "prelu", y.elements
            yield "prelu_params", op.params(x) * y.n
        case Pool(kind=kind):
            yield "pool_in", x.elements
            if kind == "avg":
                yield "avg_pool_out", y.elements
        case PoolTo(kind="max"):
            yield "adaptive_max_in", x.elements
        case PoolTo():
            yield "adaptive_avg_in", x.elements
            yield "adaptive_avg_out", y.elements
            yield "adaptive_avg_work", int((x.h / y.h * (x.w / y.w) + 1) * y.elements)
        case PyramidPool(levels=levels):
            yield "pyramid_in", x.elements * len(levels)
        case LocalResponseNorm(size=size):
            yield "lrn", y.elements
            yield "lrn_padded", y.elements // y.c * (y.c + size // 2 + (size - 1) // 2)
        case Softmax():
            yield "softmax", y.elements
            yield "softmax_groups", y.elements // y.c
        case RegionPool():
            yield "roi", y.elements
        case Traced() | Input() | Dropout() | Scale() | PadChannels() | Add() | Concat():
            return
        case _:
            assert_never(step.op)
