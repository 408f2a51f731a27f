"""Memory of a model over time, in inference and in training, derived from its plan.

The model is that of `resnetcli.net.module`: activations are freed after their last use, ReLU and sums work in place
where possible, and in training autograd saves tensors for the backward pass. Tensors are counted to the byte; library
workspaces, a GPU's context and the allocator's rounding and fragmentation are not included.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from resnetcli.frozen import frozen
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
"""Optimizer state per parameter: the momentum; the two moving averages."""


@frozen
class Moment:
    """Allocated bytes at one moment, apart from weights and optimizer state."""

    phase: Phase
    step: int
    """The step whose output or gradient is being computed; 0 for the optimizer's update."""
    input: int
    """The image; this and the next three are per image."""
    activations: int
    """Outputs that later steps read, and tensors saved for the backward pass."""
    gradients: int
    """Gradients with respect to activations."""
    scratch: int
    """Temporary tensors of the operation."""
    statistics: int = 0
    """BatchNorm's means and deviations; this and the next two are per batch."""
    parameter_gradients: int = 0
    update: int = 0
    """Temporary tensors of the optimizer."""

    @property
    def image_bytes(self) -> int:
        """Bytes per image."""
        return self.input + self.activations + self.gradients + self.scratch

    @property
    def fixed_bytes(self) -> int:
        """Bytes independent of the batch size."""
        return self.statistics + self.parameter_gradients + self.update

    def bytes(self, batch: int = 1) -> int:
        """Total for a batch."""
        return batch * self.image_bytes + self.fixed_bytes


@frozen
class Memory:
    """A model's memory over one forward pass, or over one training step."""

    mode: Mode
    dtype: Dtype
    optimizer: Optimizer | None
    """None in inference."""
    weight_bytes: int
    """Parameters, and BatchNorm's running statistics."""
    state_bytes: int
    """Optimizer state."""
    moments: tuple[Moment, ...] = field(repr=False)
    """In order of execution."""

    @property
    def standing_bytes(self) -> int:
        """Weights and optimizer state."""
        return self.weight_bytes + self.state_bytes

    def peak(self, batch: int = 1) -> Moment:
        """The moment of peak memory."""
        return max(self.moments, key=lambda moment: moment.bytes(batch))

    def bytes(self, batch: int = 1) -> int:
        """Peak memory, including weights."""
        return self.standing_bytes + self.peak(batch).bytes(batch)

    def largest_batch(self, available: int) -> int:
        """Largest batch size that fits into `available` bytes; 0 if one image does not fit."""
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
    """Memory of a plan; weights, activations, gradients and optimizer state all in `dtype`, without autocast.

    The caller holds the images throughout, and the outputs until the end of the step. In training, parameter gradients
    are freed after each update and allocated during the backward pass; tensors that the loss saves are not counted. SGD
    has momentum and weight decay. `place` matters for dropout, whose mask has one byte per element on a GPU and is a
    full tensor on a CPU, and for BatchNorm's statistics. Autograd sums gradients in place where it can; under a
    `TorchDispatchMode` it does not (`adds_in_place=False`).

    Raises ValueError for a recorded PyTorch model.
    """
    if is_traced(plan):
        raise ValueError(f"the memory of `{plan.name}` is unknown: it is a PyTorch model")
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
    """A tensor's memory, which several tensors may share: bytes per image, bytes per batch, reference count."""

    image: int
    batch: int = 0
    holders: int = 0


class _Run:
    """Simulates a forward pass or training step, and records what is allocated."""

    def __init__(self, plan: Plan, settings: TensorSettings) -> None:
        self.plan, self.settings = plan, settings
        self.moments: list[Moment] = []
        self.learns = learning(plan) if settings.train else (False,) * len(plan.steps)
        self.image = self.activations = self.statistics = self.gradients = self.weights = 0
        self.values: list[_Storage] = []
        self.saved: list[tuple[_Storage, ...]] = []
        self.nodes: list[int] = []  # per step, references to its autograd node: its output and its readers

    # --- forward ---------------------------------------------------------------------------------------------

    def forward(self) -> None:
        plan = self.plan
        written, dying = overwrites(plan), last_uses(plan)
        self.image = plan.input.elements * self.settings.size
        for index, step in enumerate(plan.steps):
            if not step.inputs:
                value = _Storage(0, 0, 1)  # counted separately: the caller holds the images
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
                self.release_node(gone)

    def passes_on(self, step: Step) -> bool:
        """Whether a step returns its input without computing anything."""
        return len(step.inputs) == 1 if isinstance(step.op, Add) else step.op.is_identity(self.settings.train)

    def save(self, step: Step, output: _Storage) -> tuple[_Storage, ...]:
        """The tensors that autograd saves for a step until its gradient is computed."""
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
        """Bytes per image that an operation allocates besides its inputs, its outputs and the saved tensors."""
        if isinstance(step.op, Join) or not step.inputs:
            return 0
        bytes_of = step.op.gradient_scratch_bytes if backward else step.op.scratch_bytes
        return bytes_of(self.plan.steps[step.inputs[0]].shape, step.shape, self.settings)

    # --- backward --------------------------------------------------------------------------------------------

    def backward(self) -> None:
        """Run the steps in reverse, as autograd does."""
        plan, passed = self.plan, gradients(self.plan)
        arrived: list[_Storage | None] = [None] * len(plan.steps)
        views: set[int] = set()  # steps whose gradient is a view of a larger one
        for output in plan.outputs:
            if passed[output]:
                self.deliver(arrived, views, output, self.fresh_gradient(output), output)
        for index in range(len(plan.steps) - 1, -1, -1):
            gradient, step = arrived[index], plan.steps[index]
            if gradient is None:
                continue
            sources = [source for source in step.inputs if passed[source]]
            aliased = isinstance(step.op, Concat | Add) or self.passes_on(step)
            results = [gradient if aliased else self.fresh_gradient(source) for source in sources]
            for result in results:
                self.hold_gradient(result)
            if has_parameters(plan, step):
                self.weights += step.op.params(plan.steps[step.inputs[0]].shape) * self.settings.size
            self.note("backward", index, self.scratch(step, backward=True))
            self.drop_gradient(gradient)
            arrived[index] = None
            self.release(index)
            for source, result in zip(sources, results, strict=True):
                self.drop_gradient(result)
                self.deliver(arrived, views, source, result, index)
                if isinstance(step.op, Concat) or (aliased and index in views):
                    views.add(source)

    def fresh_gradient(self, index: int) -> _Storage:
        return _Storage(self.plan.steps[index].shape.elements * self.settings.size)

    def deliver(self, arrived: list[_Storage | None], views: set[int], to: int, gradient: _Storage, index: int) -> None:
        """Pass a gradient on; a second one is added to the first."""
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
        """The optimizer's step: all gradients, and as much again for its temporary tensors."""
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
        """Free the tensors saved for a step's gradient."""
        for storage in self.saved[index]:
            self.drop(storage)
        self.saved[index] = ()

    def release_node(self, index: int) -> None:
        """Drop one reference to a step's autograd node; at zero, free its saved tensors, recursively."""
        waiting = [index]
        while waiting:
            step = waiting.pop()
            self.nodes[step] -= 1
            if not self.nodes[step] and self.learns[step]:
                self.release(step)
                waiting.extend(set(self.plan.steps[step].inputs))
