"""The memory traffic of a model's forward pass in evaluation: what each step reads and writes, in how many kernels.

Computed twice from the plan: as executed, the way `resnetcli.net.module` runs it in eager PyTorch, one kernel after
another; and fused, where pointwise operations (BatchNorm, activations, scaling), sums, concatenation and padding are
part of the kernel that writes their input or reads their output. Each element that a kernel reads counts once: a lower
bound, whatever the caches do.

On a GPU eager PyTorch launches other kernels than on a CPU: it adds the bias of a convolution with a separate kernel,
and BatchNorm takes three kernels where PyTorch does not use cuDNN (recorded in tests/plan/kernels_cuda.json).
"""

from __future__ import annotations

from collections.abc import Iterator

from resnetcli.ops import NO_TRAFFIC, Add, Concat, Conv, Execution, Join, PadChannels, RegionPool, Traffic
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.training import is_traced

DEFAULT_EXECUTION = Execution()


def traffic(plan: Plan, *, fused: bool = False, execution: Execution = DEFAULT_EXECUTION) -> tuple[Traffic, ...]:
    """Memory traffic of each step; if fused, `execution` does not matter.

    Raises ValueError for a recorded PyTorch model.
    """
    if is_traced(plan):
        raise ValueError(f"the memory traffic of `{plan.name}` is unknown: it is a PyTorch model")
    if fused:
        return _fused(plan)
    executed = tuple(_executed(plan, step) for step in plan.steps)
    if execution.place == "cpu":
        return executed
    return tuple(moved + extra for moved, extra in zip(executed, _on_gpu(plan, execution), strict=True))


def _executed(plan: Plan, step: Step) -> Traffic:
    """A step as eager PyTorch runs it on a CPU."""
    if not step.inputs:
        return NO_TRAFFIC
    y = step.shape.elements
    if isinstance(step.op, Concat):
        return Traffic(y, y, kernels=1)
    if isinstance(step.op, Add):  # two at a time
        sums = len(step.inputs) - 1
        return Traffic(2 * y * sums, y * sums, kernels=sums)
    return step.op.traffic(plan.steps[step.inputs[0]].shape, step.shape)


def _on_gpu(plan: Plan, execution: Execution) -> Iterator[Traffic]:
    """Extra traffic of each step in eager PyTorch on a GPU, compared with a CPU."""
    vectors: list[bool] = []  # per step: whether its output is (b, c) and not (b, c, h, w)
    contiguous: list[bool] = []  # in channels_last: whether its output is in NCHW nevertheless
    for step in plan.steps:
        op, inputs = step.op, [vectors[source] for source in step.inputs]
        inherited = bool(step.inputs) and all(contiguous[source] for source in step.inputs)
        vectors.append(op.gives_vector or (all(inputs) and bool(inputs) and not op.needs_map))
        contiguous.append(isinstance(op, RegionPool) or (inherited and not isinstance(op, Conv)))
        if not step.inputs or isinstance(op, Join):
            yield NO_TRAFFIC
            continue
        x = plan.steps[step.inputs[0]].shape
        extra = op.gpu_traffic(x, step.shape, execution, vector=inputs[0])
        if execution.channels_last and inherited and isinstance(op, Conv):
            extra += Traffic(x.elements, x.elements, kernels=1)
        yield extra


# --- fused -------------------------------------------------------------------------------------------------------


_Part = tuple[int, int]
"""A tensor in memory, by the step that begins it, and the number of its elements that are read."""


def _fused(plan: Plan) -> tuple[Traffic, ...]:
    """One kernel per step that is not pointwise, a sum, a concatenation or padding; these are part of another kernel.

    A tensor and the results of pointwise operations on it are stored once: a reader can compute the rest. A sum is
    computed by the kernel of its last term, which reads the other terms.
    """
    shapes, steps = [step.shape.elements for step in plan.steps], plan.steps
    parts: list[tuple[_Part, ...]] = []
    owner: dict[int, int] = {}  # tensor -> the step whose kernel writes it
    needed: set[int] = set()
    moved = [NO_TRAFFIC] * len(steps)

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
            moved[at] += Traffic(more, 0, kernels=0 if whole else 1)
            parts.append(((index, shapes[index]),))
            owner[index] = at
        elif step.op.pointwise or isinstance(step.op, Add):
            if alone.weights:
                moved[max(owner[value] for value, _ in sources[0])] += Traffic(weights=alone.weights)
            parts.append(sources[0])
        elif isinstance(step.op, PadChannels):
            x = steps[step.inputs[0]].shape
            share = x.h * x.w, step.shape.h * step.shape.w
            parts.append(tuple((value, elements // share[0] * share[1]) for value, elements in sources[0]))
        else:
            moved[index] += Traffic(min(read(sources[0]), alone.read), weights=alone.weights, kernels=1)
            parts.append(((index, shapes[index]),))
            owner[index] = index
    for output in plan.outputs:
        read(parts[output])
    for value in needed:
        if steps[value].inputs:
            moved[owner[value]] += Traffic(written=shapes[value])
    return tuple(moved)
