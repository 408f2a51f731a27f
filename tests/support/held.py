"""Bytes of the tensors that PyTorch keeps alive: the reference for `resnetcli.plan.memory`."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from resnetcli.net.module import Net, build
from resnetcli.plan.memory import Memory, memory
from resnetcli.plan.plan import Plan

BATCH = 2
EVALUATING_NORM = torch.ops.aten.native_batch_norm.default


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Current and peak bytes of the tensors created in the context, without the model's own."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.own = [tensor.untyped_storage() for tensor in (*net.parameters(), *net.buffers())]
        self.known: dict[int, Any] = {id(storage): None for storage in self.own}
        self.now: int = 0
        self.most: int = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = function(*args, **(kwargs or {}))
        # In evaluation mode a CPU returns no statistics; the meta device does.
        counted = made[0] if function is EVALUATING_NORM and not args[5] else made
        for leaf in tree_leaves(counted):
            if isinstance(leaf, Tensor) and leaf.dim():
                self.add(leaf)
        return made

    def add(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self.known:
            return

        def gone(_: object) -> None:
            del self.known[key]
            self.now -= size

        self.known[key] = weakref.ref(storage, gone)
        self.now += size
        self.most = max(self.most, self.now)


class Loss(torch.autograd.Function):
    """A loss that saves no tensors and whose gradients are separate tensors."""

    @staticmethod
    def forward(ctx: Any, *outputs: Tensor) -> Tensor:
        ctx.like = [(output.shape, output.device, output.dtype) for output in outputs]
        return outputs[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor, ...]:
        return tuple(torch.ones(shape, device=device, dtype=dtype) for shape, device, dtype in ctx.like)


def inference(net: Net, shape: tuple[int, ...], device: str = "meta") -> int:
    """Peak bytes in a forward pass, the images included."""
    net.eval()
    with torch.no_grad(), Ledger(net) as ledger:
        x = torch.empty(shape, device=device)
        net(x)
    return int(ledger.most)


def training(net: Net, shape: tuple[int, ...], device: str = "meta") -> tuple[int, int]:
    """Bytes alive between forward and backward, and the peak of both; the images included."""
    net.train()
    with Ledger(net) as ledger:
        x = torch.empty(shape, device=device)
        outputs = net(x)
        between = ledger.now
        loss(outputs).backward()  # type: ignore[no-untyped-call]
    return between, ledger.most


def loss(outputs: Tensor | tuple[Tensor, ...]) -> Tensor:
    """A scalar loss of a model's outputs."""
    result = Loss.apply(*(outputs if isinstance(outputs, tuple) else (outputs,)))  # type: ignore[no-untyped-call]
    assert isinstance(result, Tensor)
    return result


def shape_of(plan: Plan, batch: int = BATCH) -> tuple[int, int, int, int]:
    """The shape of a batch of images."""
    return batch, plan.input.c, plan.input.h, plan.input.w


def measured(plan: Plan, device: str = "meta") -> tuple[int, int, int]:
    """Bytes alive in PyTorch: the peak in inference; in training, those between forward and backward, and the peak."""
    net = build(plan, device=device)
    return inference(net, shape_of(plan), device), *training(net, shape_of(plan), device)


def derived(plan: Plan, batch: int = BATCH) -> tuple[int, int, int]:
    """The same by the memory model, under the conditions of a `Ledger`."""
    watched = memory(plan, "train", place="cpu", adds_in_place=False)
    first = next(moment for moment in watched.moments if moment.phase == "backward")
    between = batch * (first.input + first.activations) + first.statistics
    return memory(plan).peak(batch).bytes(batch), between, most(watched, batch)


def most(memory: Memory, batch: int = BATCH) -> int:
    """The peak above the weights, without the optimizer."""
    return max(moment.bytes(batch) for moment in memory.moments if moment.phase != "update")


def saved(net: Net, x: Tensor) -> int:
    """Bytes of the tensors that autograd saves for the backward pass, by its own hooks, each storage once."""
    own = {tensor.untyped_storage()._cdata for tensor in (*net.parameters(), *net.buffers())}
    kept: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own and tensor.dim():
            kept[storage._cdata] = storage
        return tensor

    net.train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = net(x)
    del outputs
    return sum(storage.nbytes() for storage in kept.values())
