"""The memory traffic of a net's forward pass in evaluation: what each step reads and writes, and with how many kernels.

Worked out twice from the plan: as executed, the way `resnetcli.net.module` runs it in eager PyTorch, one kernel after
another; and fused, where BatchNorm, activations, sums, scaling, concatenation and padding cost no pass of their own
over memory: they are done while a convolution, a pooling or another such step writes its result, or the next reads.
Each value a kernel reads is counted once, however often its caches read it again: no kernel can do with less.

On a GPU eager PyTorch starts other kernels than on a CPU: it adds the bias of a convolution with a separate kernel, and
BatchNorm takes three kernels where PyTorch does not use cuDNN (recorded in tests/plan/kernels_cuda.json).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, assert_never

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
    Op,
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
    Unary,
)
from resnetcli.plan.memory import INDEX_BYTES
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.training import is_traced


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of one step, or summed over some."""

    read: int = 0
    """Elements of activations read for one image."""
    written: int = 0
    """Elements of activations written for one image."""
    weights: int = 0
    """Elements of parameters and running statistics read, whatever the batch."""
    indices: int = 0
    """Positions of maxima, 8 bytes each, that max pooling writes for one image."""
    kernels: int = 0

    def read_bytes(self, batch: int, size: int) -> int:
        """Bytes read for a batch, elements of `size` bytes."""
        return (batch * self.read + self.weights) * size

    def written_bytes(self, batch: int, size: int) -> int:
        """Bytes written likewise."""
        return batch * (self.written * size + self.indices * INDEX_BYTES)

    def bytes(self, batch: int = 1, size: int = 4) -> int:
        """Both."""
        return self.read_bytes(batch, size) + self.written_bytes(batch, size)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            self.weights + other.weights,
            self.indices + other.indices,
            self.kernels + other.kernels,
        )


NOTHING = Traffic()


@dataclass(frozen=True, slots=True)
class Execution:
    """Settings that determine which kernels eager PyTorch starts."""

    place: Literal["cpu", "cuda"] = "cpu"
    dtype: str = "fp32"
    channels_last: bool = False


DEFAULT_EXECUTION = Execution()


def traffic(plan: Plan, *, fused: bool = False, execution: Execution = DEFAULT_EXECUTION) -> tuple[Traffic, ...]:
    """A plan's traffic, step by step; if fused, `execution` does not matter.

    Raises ValueError for a traced PyTorch model.
    """
    if is_traced(plan):
        raise ValueError(f"what `{plan.name}` reads and writes is not known")
    if fused:
        return _fused(plan)
    every = tuple(_executed(plan, step) for step in plan.steps)
    if execution.place == "cpu":
        return every
    return tuple(moved + extra for moved, extra in zip(every, _on_gpu(plan, execution), strict=True))


# --- as executed -------------------------------------------------------------------------------------------------


def _executed(plan: Plan, step: Step) -> Traffic:
    """A step as PyTorch runs it by itself."""
    if not step.inputs:
        return NOTHING
    y = step.shape.elements
    if isinstance(step.op, Concat):
        return Traffic(y, y, kernels=1)
    if isinstance(step.op, Add):  # two at a time
        sums = len(step.inputs) - 1
        return Traffic(2 * y * sums, y * sums, kernels=sums)
    assert not isinstance(step.op, Traced)
    x = plan.steps[step.inputs[0]].shape
    return _alone(step, step.op, x)


def _alone(step: Step, op: Unary, x: Shape) -> Traffic:
    y, n = step.shape.elements, x.elements
    match op:
        case Conv():
            return Traffic(_seen(op, x, step.shape), y, weights=op.params(x), kernels=1)
        case Linear():
            return Traffic(n, y, weights=op.params(x), kernels=1)
        case BatchNorm():
            return Traffic(n, y, weights=4 * x.c, kernels=1)  # gamma, beta, mean, variance
        case PReLU():
            return Traffic(n, y, weights=x.c, kernels=1)
        case ReLU() | LeakyReLU() | Softmax() | Scale():
            return Traffic(n, y, kernels=1)
        case Pool() | PoolTo():
            seen = n if isinstance(op, PoolTo) else _seen(op, x, step.shape)
            indices = y if op.kind == "max" else 0  # where the maxima were, even where nobody asks
            return Traffic(seen, y, indices=indices, kernels=1)
        case PyramidPool(levels=levels):  # each level by itself, then all of them joined
            return Traffic(len(levels) * n + y, 2 * y, indices=y, kernels=len(levels) + 1)
        case LocalResponseNorm(size=size):
            # x*x; padded: filled, then copied into; averaged; times alpha, plus k, to the power; x divided by it
            padded = n // x.c * (x.c + size - 1)
            return Traffic(7 * n + padded, 7 * n + padded, kernels=8)
        case PadChannels():  # filled with zeros, then copied into
            kept = n // (x.h * x.w) * step.shape.h * step.shape.w
            return Traffic(kept, y + kept, kernels=2)
        case RegionPool(maps=maps):  # four neighbours make a sample; several maps are then each made a map of its own
            apart = y if maps > 1 else 0
            return Traffic(min(n, 4 * y) + apart, y + apart, weights=2 * y // x.c, kernels=2 if apart else 1)
        case Dropout() | Input():
            return NOTHING
        case _:
            assert_never(op)


def _on_gpu(plan: Plan, execution: Execution) -> Iterator[Traffic]:
    """Extra traffic of each step in eager PyTorch on a GPU, compared with a CPU."""
    vectors: list[bool] = []  # per step: whether its value is (b, c) and not (b, c, h, w)
    contiguous: list[bool] = []  # in channels_last: whether its value is in NCHW nevertheless
    for step in plan.steps:
        op, flats = step.op, [vectors[source] for source in step.inputs]
        inherited = bool(step.inputs) and all(contiguous[source] for source in step.inputs)
        vectors.append(isinstance(op, Linear | PyramidPool) or (all(flats) and bool(flats) and not _is_spatial(op)))
        contiguous.append(isinstance(op, RegionPool) or (inherited and not isinstance(op, Conv)))
        if not step.inputs or isinstance(op, Add | Concat | Traced):
            yield NOTHING
            continue
        x = plan.steps[step.inputs[0]].shape
        extra = _extra(op, x, step.shape.elements, execution, vector=flats[0])
        if execution.channels_last and inherited and isinstance(op, Conv):
            extra += Traffic(x.elements, x.elements, kernels=1)
        yield extra


def _is_spatial(op: Op) -> bool:
    return isinstance(op, Conv | Pool | PoolTo | PyramidPool | LocalResponseNorm | PadChannels | RegionPool)


def _extra(op: Unary, x: Shape, y: int, execution: Execution, *, vector: bool) -> Traffic:
    """Extra traffic of a step that reads x, vectors or feature maps, and writes y elements."""
    n, size = x.elements, x.h * x.w
    reordered = execution.channels_last and x.c > 1 and size > 1  # the layout differs from a vector's
    match op:
        case Conv(bias=True):  # cuDNN omits the bias: a separate kernel adds it
            return Traffic(y, y, kernels=1) if _by_cudnn(op, x, execution) else NOTHING
        case BatchNorm() if vector or execution.dtype == "bf16":  # PyTorch does not use cuDNN for it
            # First the inverse deviations are computed, and the means copied; the third kernel reads both.
            return Traffic(weights=2 * x.c, kernels=2)
        case Linear() | Softmax() if reordered:
            return Traffic(n, n, kernels=1)
        case PoolTo(kind="max") if reordered:
            return _reordered_max(n, y, y // x.c)
        case PyramidPool(levels=levels) if reordered:
            found = NOTHING
            for level in levels:
                part = x.c * level * level
                joined = Traffic(part, part, kernels=1) if level > 1 else NOTHING
                found += _reordered_max(n, part, level * level) + joined
            return found
        case _:
            return NOTHING


def _by_cudnn(op: Conv, x: Shape, execution: Execution) -> bool:
    """Whether PyTorch gives a convolution to cuDNN: all but most depthwise ones, which it computes itself.

    In fp16 PyTorch also uses cuDNN for some at stride 2, depending on the batch size.
    """
    if op.groups != x.c or x.c == 1 or execution.channels_last:
        return True
    square = op.kernel in {(1, 1), (3, 3), (5, 5)} and op.dilation == 1 and op.stride == 1
    return execution.dtype == "fp16" and square and x.c >= 32 and x.w >= 7


def _reordered_max(x: int, y: int, places: int) -> Traffic:
    """Adaptive max pooling computes in NCHW: it copies its input, then maxima and indices back."""
    back = Traffic(y, y, indices=y, kernels=2) if places > 1 else NOTHING
    return Traffic(x, x, kernels=1) + back


def _seen(op: Conv | Pool, x: Shape, y: Shape) -> int:
    """Elements of x in some window: of those two apart, as a 1x1 convolution with stride 2 has them, a quarter."""
    dilation = op.dilation if isinstance(op, Conv) else 1
    sides = zip((x.h, x.w), (y.h, y.w), op.kernel, op.pad, strict=True)
    rows, columns = (_covered(side, out, kernel, op.stride, pad, dilation) for side, out, kernel, pad in sides)
    return x.elements // (x.h * x.w) * rows * columns


@lru_cache(maxsize=4096)
def _covered(side: int, windows: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Places of `side` ones in a row that windows have in them, `stride` apart; dilated, all from first to last."""
    if stride <= kernel or (dilation > 1 and kernel > 1):
        return max(0, min(side, (windows - 1) * stride + (kernel - 1) * dilation + 1 - pad))
    begins = range(-pad, windows * stride - pad, stride)
    return sum(max(0, min(begin + kernel, side) - max(begin, 0)) for begin in begins)


# --- fused -------------------------------------------------------------------------------------------------------


_Part = tuple[int, int]
"""A value that is kept in memory, by the step that began it, and the elements of it that are read."""


def _fused(plan: Plan) -> tuple[Traffic, ...]:
    """Each step that is no mere epilogue as one kernel, to which the others' reads are charged.

    A value and what BatchNorm, activations and scaling make of it lie in memory once, as whichever is needed: a reader
    can do the rest itself. A sum is formed by the kernel that made its last term, which reads the other terms.
    """
    shapes, steps = [step.shape.elements for step in plan.steps], plan.steps
    parts: list[tuple[_Part, ...]] = []
    owner: dict[int, int] = {}  # value -> the step whose kernel writes it
    needed: set[int] = set()
    found = [NOTHING] * len(steps)

    def read(sources: tuple[_Part, ...]) -> int:
        largest: dict[int, int] = {}
        for value, elements in sources:
            needed.add(value)
            largest[value] = max(largest.get(value, 0), elements)
        return sum(largest.values())

    for index, step in enumerate(steps):
        sources = [parts[source] for source in step.inputs]
        if not step.inputs:
            parts.append(((index, shapes[index]),))
            owner[index] = index
            continue
        alone = _executed(plan, step)
        if isinstance(step.op, Concat):
            parts.append(tuple(part for source in sources for part in source))
        elif isinstance(step.op, Add) and len(sources) > 1:
            last = max((source for source in sources), key=lambda source: max(owner[value] for value, _ in source))
            kernel = max(owner[value] for value, _ in last)
            whole = len(last) == 1 and last[0][1] == shapes[index] and bool(steps[kernel].inputs)
            others = list(sources)
            if whole:
                others.remove(last)
            more = read(tuple(part for source in others for part in source))
            at = kernel if whole else index
            found[at] += Traffic(more, 0, kernels=0 if whole else 1)
            parts.append(((index, shapes[index]),))
            owner[index] = at
        elif isinstance(step.op, BatchNorm | PReLU):
            found[max(owner[value] for value, _ in sources[0])] += Traffic(weights=alone.weights)
            parts.append(sources[0])
        elif isinstance(step.op, ReLU | LeakyReLU | Scale | Dropout | Add):
            parts.append(sources[0])
        elif isinstance(step.op, PadChannels):
            x = steps[step.inputs[0]].shape
            share = x.h * x.w, step.shape.h * step.shape.w
            parts.append(tuple((value, elements // share[0] * share[1]) for value, elements in sources[0]))
        else:
            found[index] += Traffic(min(read(sources[0]), alone.read), weights=alone.weights, kernels=1)
            parts.append(((index, shapes[index]),))
            owner[index] = index
    for output in plan.outputs:
        read(parts[output])
    for value in needed:
        if steps[value].inputs:
            found[owner[value]] += Traffic(written=shapes[value])
    return tuple(found)
