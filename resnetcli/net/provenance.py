"""Track the sources of each tensor in a run: steps that depend on the image, or tensors that existed before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from resnetcli.frozen import frozen
from resnetcli.net.operations import tensors_in


@frozen
class Dependent:
    """A tensor that depends on the image."""

    steps: frozenset[int]
    """Steps that it is computed from; -1 is the input."""
    layers: int = 0
    """Weighted layers since these steps, in the segment that is being recorded."""
    by: str = ""
    """The operation that computed it."""


class Provenance:
    """The sources of tensors, by storage (views share one), which is either in `dependents` or in `constants`."""

    def __init__(self) -> None:
        self.dependents: dict[int, Dependent] = {}
        self.constants: dict[int, frozenset[int]] = {}
        """Storages that do not depend on the image -> the initial storages they are computed from."""
        self.sizes: dict[int, int] = {}
        """Elements of each initial storage: parameters, buffers, other tensors that existed before the run."""
        self.read: set[int] = set()
        """Storages that an operation has read."""
        self._alive: dict[int, object] = {}
        """References by key, so that no key is reused for another storage."""

    def storage(self, tensor: Tensor) -> int:
        """Key of a tensor's storage, which only its views share."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a sparse tensor has none
            self._alive[id(tensor)] = tensor
            return id(tensor)
        key = int(storage._cdata)
        if key not in self._alive:
            # a weak reference: the memory is freed, but the key is not reused
            self._alive[key] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return key

    def dependent(self, tensor: Tensor | None) -> Dependent | None:
        """The sources of a tensor if it depends on the image."""
        return None if tensor is None else self.dependents.get(self.storage(tensor))

    def sources(self, tensors: Iterable[Tensor]) -> tuple[list[Dependent], frozenset[int]]:
        """The sources of those tensors that depend on the image, and the initial storages of the others."""
        dependents, origins = [], set[int]()
        for tensor in tensors:
            key = self.storage(tensor)
            if dependent := self.dependents.get(key):
                dependents.append(dependent)
                continue
            if key not in self.constants:
                self.constants[key] = frozenset({key})
                self.sizes[key] = tensor.numel()
            origins |= self.constants[key]
        return dependents, frozenset(origins)

    def derive(
        self, outputs: Iterable[Tensor], sources: Sequence[Dependent], origins: frozenset[int], layers: int, by: str
    ) -> tuple[frozenset[int], list[int]]:
        """Record the sources of an operation's outputs.

        Returns the steps, and the outputs' storages if they depend on the image.
        """
        steps = frozenset[int]().union(*(source.steps for source in sources))
        keys = [self.storage(tensor) for tensor in outputs]
        if sources:
            self.dependents |= dict.fromkeys(keys, Dependent(steps, layers, by))
            return steps, keys
        self.constants |= dict.fromkeys(keys, origins)
        return steps, []

    def weights(self, factors: Iterable[Any], path: str) -> list[frozenset[int]]:
        """For each factor that does not depend on the image, the initial storages it is computed from."""
        keys = [self.factor(each, path) for each in factors]
        return [self.constants[key] for key in keys if key not in self.dependents]

    def factor(self, factor: Any, path: str) -> int:
        """Key of a product's factor: its storage; of packed weights, one for the module at `path`."""
        if isinstance(factor, Tensor):
            return self.storage(factor)
        weights = tensors_in(factor.unpack())
        key = hash((path, *(each.shape for each in weights)))
        self.constants[key], self.sizes[key] = frozenset({key}), sum(each.numel() for each in weights)
        return key


def max_layers(dependents: Iterable[Dependent]) -> int:
    """Most weighted layers on a path from the image."""
    return max((each.layers for each in dependents), default=0)
