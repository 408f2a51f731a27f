"""What memory a net takes, moment by moment: which values are held, for how long, in inference and in training.

Worked out from the plan as the built module runs it (`resnetcli.net.module`): a value is dropped after its last reader,
ReLU and sums work in place where nobody can tell, and in training PyTorch's autograd keeps what each operation's
gradient needs. Tensors are counted, to the byte. What libraries take besides is not: workspaces of convolutions, a
GPU's context, what an allocator rounds up or leaves unused between tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from resnetcli.ops import Add, Concat, Join, Place, TensorSettings
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.schedule import last_uses, overwrites
from resnetcli.plan.training import gradients, has_parameters, is_traced, learning

Mode = Literal["infer", "train"]
Dtype = Literal["fp32", "bf16", "fp16"]
Optimizer = Literal["sgd", "adam"]
Phase = Literal["forward", "backward", "update"]

ELEMENT_BYTES: dict[Dtype, int] = {"fp32": 4, "bf16": 2, "fp16": 2}
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
    buffers = sum(step.op.buffer_bytes(step.shape, size) for step in plan.steps)
    run = _Run(plan, TensorSettings(size, place, mode == "train", adds_in_place))
    run.forward()
    if mode == "infer":
        return Memory(mode, dtype, None, params + buffers, 0, tuple(run.moments))
    run.backward()
    run.update(params)
    state = STATE_COPIES[optimizer] * params
    return Memory(mode, dtype, optimizer, params + buffers, state, tuple(run.moments))


@dataclass(slots=True)
class _Storage:
    """A tensor's memory, which several values may share: bytes an image, bytes a batch, how many hold it."""

    image: int
    batch: int = 0
    holders: int = 0


class _Run:
    """A training step, or the forward pass of one, with a ledger of what is held."""

    def __init__(self, plan: Plan, settings: TensorSettings) -> None:
        self.plan, self.settings = plan, settings
        self.moments: list[Moment] = []
        self.learns = learning(plan) if settings.train else (False,) * len(plan.steps)
        self.image = self.activations = self.statistics = self.gradients = self.weights = 0
        self.values: list[_Storage] = []
        self.saved: list[tuple[_Storage, ...]] = []
        self.nodes: list[int] = []  # per step, what keeps its part of autograd's graph: its value and its readers

    # --- forward ---------------------------------------------------------------------------------------------

    def forward(self) -> None:
        plan = self.plan
        written, dying = overwrites(plan), last_uses(plan)
        self.image = plan.input.elements * self.settings.size
        for index, step in enumerate(plan.steps):
            if not step.inputs:
                value = _Storage(0, 0, 1)  # counted apart: the caller holds the images
            elif index in written:
                value = self.values[written[index]]
            elif self.passes_on(step):
                value = self.values[step.inputs[0]]
            else:
                value = _Storage(step.shape.elements * self.settings.size)
            self.hold(value)
            self.values.append(value)
            self.saved.append(self.save(step, value) if self.learns[index] else ())
            self.nodes.append(1)
            for source in set(step.inputs) if self.learns[index] else ():
                self.nodes[source] += 1
            self.note("forward", index, self.scratch(step))
            for gone in dying[index]:
                self.drop(self.values[gone])
                self.unlink(gone)

    def passes_on(self, step: Step) -> bool:
        """Whether a step's output is its input, and nothing is computed."""
        return len(step.inputs) == 1 if isinstance(step.op, Add) else step.op.is_identity(self.settings.train)

    def save(self, step: Step, output: _Storage) -> tuple[_Storage, ...]:
        """The tensors that autograd keeps of a step until its gradient has been computed."""
        if isinstance(step.op, Join) or not step.inputs:
            return ()
        saved = step.op.saved(self.plan.steps[step.inputs[0]].shape, step.shape, self.settings)
        tensors = [self.values[step.inputs[0]]] if saved.input else []
        if saved.output:
            tensors.append(output)
        if saved.image_bytes or saved.batch_bytes:
            tensors.append(_Storage(saved.image_bytes, saved.batch_bytes))
        for storage in tensors:
            self.hold(storage)
        return tuple(tensors)

    def scratch(self, step: Step, *, backward: bool = False) -> int:
        """Bytes per image that an operation allocates above its inputs, its outputs and what is saved."""
        if isinstance(step.op, Join) or not step.inputs:
            return 0
        bytes_of = step.op.gradient_scratch_bytes if backward else step.op.scratch_bytes
        return bytes_of(self.plan.steps[step.inputs[0]].shape, step.shape, self.settings)

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
                self.weights += step.op.params(plan.steps[step.inputs[0]].shape) * self.settings.size
            self.note("backward", index, self.scratch(step, backward=True))
            self.drop_gradient(gradient)
            arrived[index] = None
            self.release(index)
            for source, result in zip(wanted, results, strict=True):
                self.drop_gradient(result)
                self.deliver(arrived, views, source, result, index)
                if isinstance(step.op, Concat) or (aliased and index in views):
                    views.add(source)

    def fresh_gradient(self, index: int) -> _Storage:
        return _Storage(self.plan.steps[index].shape.elements * self.settings.size)

    def deliver(self, arrived: list[_Storage | None], views: set[int], to: int, gradient: _Storage, index: int) -> None:
        """Hands a gradient on; one that comes second is added to the first."""
        first = arrived[to]
        self.hold_gradient(gradient)
        if first is None:
            arrived[to] = gradient
            return
        if first.holders > 1 or to in views or not self.settings.adds_in_place:
            total = self.fresh_gradient(to)
            self.hold_gradient(total)
            self.note("backward", index, 0)
            self.drop_gradient(first)
            arrived[to] = total
            views.discard(to)
        self.drop_gradient(gradient)

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
