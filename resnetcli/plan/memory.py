"""What memory a net takes, moment by moment: which values are held, for how long, in inference and in training.

Worked out from the plan as the built module runs it (`resnetcli.net.module`): a value is dropped after its last reader,
ReLU and sums work in place where nobody can tell, and in training PyTorch's autograd keeps what each operation's
gradient needs. Tensors are counted, to the byte. What libraries take besides is not: workspaces of convolutions, a
GPU's context, what an allocator rounds up or leaves unused between tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
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
    Softmax,
    Traced,
)
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.schedule import last_uses, overwrites
from resnetcli.plan.training import gradients, has_parameters, is_traced, learning

Mode = Literal["infer", "train"]
Dtype = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["sgd", "adam"]
Place = Literal["cpu", "cuda"]
Phase = Literal["forward", "backward", "update"]

ELEMENT_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
INDEX_BYTES = 8
"""Max pooling notes where each maximum was, as int64."""
STATISTIC_BYTES = 4
"""BatchNorm keeps each channel's mean and deviation of a batch, on a GPU in float32 whatever the dtype."""
STATE_COPIES: dict[Optimizer, int] = {"sgd": 1, "adam": 2}
"""Scalars an optimizer keeps for each parameter: the momentum; the two moving averages."""


@dataclass(frozen=True, slots=True)
class Moment:
    """What is held besides weights and the optimizer's state at one moment, in bytes."""

    phase: Phase
    step: int
    """The step being computed, or whose gradient is; 0 for the optimizer's update."""
    input: int
    """The images: for one, as the next three."""
    activations: int
    """Values that later steps read, and what the backward pass will."""
    gradients: int
    """Gradients with respect to activations."""
    scratch: int
    """What the operation itself needs while it runs."""
    statistics: int = 0
    """BatchNorm's means and deviations: for the whole batch, as the next two."""
    parameter_gradients: int = 0
    update: int = 0
    """The optimizer's own intermediate values."""

    @property
    def image_bytes(self) -> int:
        """Bytes for each image of a batch."""
        return self.input + self.activations + self.gradients + self.scratch

    @property
    def fixed_bytes(self) -> int:
        """Bytes whatever the batch."""
        return self.statistics + self.parameter_gradients + self.update

    def bytes(self, batch: int = 1) -> int:
        """All of it."""
        return batch * self.image_bytes + self.fixed_bytes


@dataclass(frozen=True, slots=True)
class Memory:
    """A net's memory over one forward pass, or over one training step."""

    mode: Mode
    dtype: Dtype
    optimizer: Optimizer | None
    """None in inference."""
    weight_bytes: int
    """Parameters, and BatchNorm's running statistics."""
    state_bytes: int
    """The optimizer's."""
    moments: tuple[Moment, ...] = field(repr=False)
    """In order."""

    @property
    def standing_bytes(self) -> int:
        """What is there all the time: weights and the optimizer's state."""
        return self.weight_bytes + self.state_bytes

    def peak(self, batch: int = 1) -> Moment:
        """The moment when most is held."""
        return max(self.moments, key=lambda moment: moment.bytes(batch))

    def bytes(self, batch: int = 1) -> int:
        """The most that is held at once, the weights included."""
        return self.standing_bytes + self.peak(batch).bytes(batch)

    def largest_batch(self, available: int) -> int:
        """The most images that fit into `available` bytes; 0 if not even one does."""
        room = available - self.standing_bytes
        return max(0, min((room - moment.fixed_bytes) // moment.image_bytes for moment in self.moments))


def memory(
    plan: Plan,
    mode: Mode = "infer",
    *,
    dtype: Dtype = "fp32",
    optimizer: Optimizer = "sgd",
    place: Place = "cuda",
    adds_in_place: bool = True,
) -> Memory:
    """A plan's memory; weights, values, gradients and the optimizer's state all in `dtype`, without autocast.

    The caller holds the images throughout, and the outputs until the step is over. In training, gradients of parameters
    are dropped after each update and come up during the backward pass; what a loss keeps of the outputs is not counted.
    SGD has momentum and weight decay. `place` matters to dropout, whose mask takes a byte an element on a GPU and is a
    whole tensor on a CPU, and to BatchNorm's statistics. Autograd sums gradients in place where it can;
    `adds_in_place=False` is how it does so while somebody watches it through a `TorchDispatchMode`.

    Raises ValueError for a model that was only seen to run.
    """
    if is_traced(plan):
        raise ValueError(f"what `{plan.name}` keeps in memory is not known")
    size = ELEMENT_BYTES[dtype]
    params = count(plan).params * size
    run = _Run(plan, mode == "train", size, place, adds_in_place)
    run.forward()
    if mode == "infer":
        return Memory(mode, dtype, None, params + _buffers(plan, size), 0, tuple(run.moments))
    run.backward()
    run.update(params)
    state = STATE_COPIES[optimizer] * params
    return Memory(mode, dtype, optimizer, params + _buffers(plan, size), state, tuple(run.moments))


def _buffers(plan: Plan, size: int) -> int:
    """BatchNorm's running mean and variance and its counter, and the boxes that regions are read from."""
    total = 0
    for step in plan.steps:
        if isinstance(step.op, BatchNorm):
            total += 2 * step.shape.c * size + INDEX_BYTES
        elif isinstance(step.op, RegionPool):
            total += 2 * step.shape.n * step.shape.h * step.shape.w * size
    return total


@dataclass(slots=True)
class _Storage:
    """A tensor's memory, which several values may share: bytes an image, bytes a batch, how many hold it."""

    image: int
    batch: int = 0
    holders: int = 0


@dataclass(frozen=True, slots=True)
class _Kept:
    """What an operation leaves behind for its gradient."""

    input: bool = False
    output: bool = False
    image: int = 0
    """Bytes an image besides."""
    batch: int = 0
    """Bytes a batch besides."""


class _Run:
    """A training step, or the forward pass of one, with a ledger of what is held."""

    def __init__(self, plan: Plan, train: bool, size: int, place: Place, adds_in_place: bool) -> None:
        self.plan, self.train, self.size, self.place, self.adds_in_place = plan, train, size, place, adds_in_place
        self.moments: list[Moment] = []
        self.learns = learning(plan) if train else (False,) * len(plan.steps)
        self.image = self.activations = self.statistics = self.gradients = self.weights = 0
        self.values: list[_Storage] = []
        self.saved: list[tuple[_Storage, ...]] = []
        self.nodes: list[int] = []  # per step, what keeps its part of autograd's graph: its value and its readers

    # --- forward ---------------------------------------------------------------------------------------------

    def forward(self) -> None:
        plan = self.plan
        written, dying = overwrites(plan), last_uses(plan)
        self.image = plan.input.elements * self.size
        for index, step in enumerate(plan.steps):
            if not step.inputs:
                value = _Storage(0, 0, 1)  # counted apart: the caller holds the images
            elif index in written:
                value = self.values[written[index]]
            elif self.passes_on(step):
                value = self.values[step.inputs[0]]
            else:
                value = _Storage(step.shape.elements * self.size)
            self.hold(value)
            self.values.append(value)
            self.saved.append(self.keep(step, value) if self.learns[index] else ())
            self.nodes.append(1)
            for source in set(step.inputs) if self.learns[index] else ():
                self.nodes[source] += 1
            self.note("forward", index, self.forward_scratch(step))
            for gone in dying[index]:
                self.drop(self.values[gone])
                self.unlink(gone)

    def passes_on(self, step: Step) -> bool:
        """Whether a step's value is its input's, and nothing is computed."""
        match step.op:
            case Add():
                return len(step.inputs) == 1
            case Dropout(p=p):
                return not self.train or p == 0
            case _:
                return False

    def keep(self, step: Step, value: _Storage) -> tuple[_Storage, ...]:
        """What autograd keeps of a step until its gradient has been computed."""
        kept = self.kept(step)
        found = [self.values[step.inputs[0]]] if kept.input else []
        if kept.output:
            found.append(value)
        if kept.image or kept.batch:
            found.append(_Storage(kept.image, kept.batch))
        for storage in found:
            self.hold(storage)
        return tuple(found)

    def kept(self, step: Step) -> _Kept:
        if isinstance(step.op, Add | Concat | Traced) or not step.inputs:
            return _Kept()
        x, y = self.plan.steps[step.inputs[0]].shape, step.shape
        match step.op:
            case Conv() | Linear() | LeakyReLU() | PReLU() | Pool(kind="avg") | RegionPool():
                return _Kept(input=True)
            case BatchNorm():
                return _Kept(input=True, batch=2 * x.c * (STATISTIC_BYTES if self.place == "cuda" else self.size))
            case ReLU() | Softmax():
                return _Kept(output=True)
            case Pool() | PyramidPool() | PoolTo(kind="max"):
                return _Kept(input=True, image=INDEX_BYTES * y.elements)
            case PoolTo(size=size):  # to 1x1 it is a mean, which needs nothing to be undone
                return _Kept(input=size != (1, 1))
            case LocalResponseNorm(size=span):  # its squares, padded; the sums, before and after the power
                return _Kept(input=True, image=(_padded(x.c, span) * x.h * x.w * x.n + 2 * x.elements) * self.size)
            case Dropout(p=p) if 0 < p < 1:
                return _Kept(image=x.elements * (1 if self.place == "cuda" else self.size))
            case _:
                return _Kept()

    def forward_scratch(self, step: Step) -> int:
        """Bytes an image that an operation takes above its inputs, its output and what it keeps."""
        if not step.inputs:
            return 0
        x, y = self.plan.steps[step.inputs[0]].shape, step.shape
        match step.op:
            case Pool(kind="max") | PoolTo(kind="max"):  # with its indices, even where nobody will ask
                return 0 if self.train else INDEX_BYTES * y.elements
            case PyramidPool(levels=levels):  # every level's maxima, until they are joined
                most = done = 0
                for level in levels:
                    done += x.c * level * level * self.size
                    indices = 0 if self.train else INDEX_BYTES * x.c * level * level
                    most = max(most, done + indices - y.elements * self.size)
                return max(most, done)
            case LocalResponseNorm():
                return 0 if self.train else 2 * x.elements * self.size
            case RegionPool(maps=maps):  # the regions one below the other, before each is a map of its own
                return y.elements * self.size if maps > 1 else 0
            case _:
                return 0

    # --- backward --------------------------------------------------------------------------------------------

    def backward(self) -> None:
        """In the reverse of the forward's order, as autograd goes: each gradient as soon as all of it has arrived."""
        plan, passed = self.plan, gradients(self.plan)
        arrived: list[_Storage | None] = [None] * len(plan.steps)
        views: set[int] = set()  # steps whose gradient is a part of a larger one
        for output in plan.outputs:
            if passed[output]:
                self.deliver(arrived, views, output, self.fresh_gradient(output), output)
        for index in range(len(plan.steps) - 1, -1, -1):
            gradient, step = arrived[index], plan.steps[index]
            if gradient is None:
                continue
            wanted = [source for source in step.inputs if passed[source]]
            aliased = isinstance(step.op, Concat | Add) or self.passes_on(step)
            results = [gradient if aliased else self.fresh_gradient(source) for source in wanted]
            for result in results:
                self.hold_gradient(result)
            if has_parameters(plan, step):
                op = step.op
                assert not isinstance(op, Add | Concat | Traced)
                self.weights += op.params(plan.steps[step.inputs[0]].shape) * self.size
            self.note("backward", index, self.backward_scratch(step))
            self.drop_gradient(gradient)
            arrived[index] = None
            self.release(index)
            for source, result in zip(wanted, results, strict=True):
                self.drop_gradient(result)
                self.deliver(arrived, views, source, result, index)
                if isinstance(step.op, Concat) or (aliased and index in views):
                    views.add(source)

    def fresh_gradient(self, index: int) -> _Storage:
        return _Storage(self.plan.steps[index].shape.elements * self.size)

    def deliver(self, arrived: list[_Storage | None], views: set[int], to: int, gradient: _Storage, index: int) -> None:
        """Hands a gradient on; one that comes second is added to the first."""
        first = arrived[to]
        self.hold_gradient(gradient)
        if first is None:
            arrived[to] = gradient
            return
        if first.holders > 1 or to in views or not self.adds_in_place:
            total = self.fresh_gradient(to)
            self.hold_gradient(total)
            self.note("backward", index, 0)
            self.drop_gradient(first)
            arrived[to] = total
            views.discard(to)
        self.drop_gradient(gradient)

    def backward_scratch(self, step: Step) -> int:
        """Bytes an image that a gradient takes above its operands and its results."""
        if not step.inputs:
            return 0
        x, y = self.plan.steps[step.inputs[0]].shape, step.shape
        match step.op:
            case PReLU():  # the slopes' gradient, before it is summed
                return x.elements * self.size
            case LocalResponseNorm():
                return 3 * x.elements * self.size
            case PyramidPool(levels=levels) if len(levels) > 1:  # one level's, to be added to those before
                return (1 if self.adds_in_place else 2) * x.elements * self.size
            case PadChannels(stride=stride) if stride > 1:  # what was left out comes back axis by axis
                return max(0, (x.c * y.h * x.w - y.elements)) * self.size
            case RegionPool():  # the boxes' gradient, which nobody reads
                return max(2 * y.n * y.h * y.w, y.elements - x.elements) * self.size
            case _:
                return 0

    def update(self, params: int) -> None:
        """The optimizer's step: it needs all gradients, and once more as much while it works."""
        self.moments.append(Moment("update", 0, self.image, 0, 0, 0, parameter_gradients=self.weights, update=params))

    # --- the ledger ------------------------------------------------------------------------------------------

    def note(self, phase: Phase, index: int, scratch: int) -> None:
        self.moments.append(
            Moment(phase, index, self.image, self.activations, self.gradients, scratch, self.statistics, self.weights)
        )

    def hold(self, storage: _Storage) -> None:
        if not storage.holders:
            self.activations += storage.image
            self.statistics += storage.batch
        storage.holders += 1

    def drop(self, storage: _Storage) -> None:
        storage.holders -= 1
        if not storage.holders:
            self.activations -= storage.image
            self.statistics -= storage.batch

    def hold_gradient(self, storage: _Storage) -> None:
        if not storage.holders:
            self.gradients += storage.image
        storage.holders += 1

    def drop_gradient(self, storage: _Storage) -> None:
        storage.holders -= 1
        if not storage.holders:
            self.gradients -= storage.image

    def release(self, index: int) -> None:
        """Drops what was kept for a step's gradient."""
        for storage in self.saved[index]:
            self.drop(storage)
        self.saved[index] = ()

    def unlink(self, index: int) -> None:
        """Takes one holder from a step's part of the graph; without any it goes, as what is computed aside does."""
        waiting = [index]
        while waiting:
            step = waiting.pop()
            self.nodes[step] -= 1
            if not self.nodes[step] and self.learns[step]:
                self.release(step)
                waiting.extend(set(self.plan.steps[step].inputs))


def _padded(channels: int, span: int) -> int:
    """Channels with the margin that a window over `span` of them needs."""
    return channels + span // 2 + (span - 1) // 2
