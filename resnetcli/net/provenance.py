"""What each tensor of a run is computed from: steps that depend on the image, or tensors that existed before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from resnetcli.net.operations import tensors_in


@dataclass(frozen=True, slots=True)
class Dependent:
    """A tensor that depends on the image."""

    steps: frozenset[int]
    """The steps it is computed from; -1 is the input."""
    layers: int = 0
    """Weighted layers since these steps, in the segment that is being recorded."""
    by: str = ""
    """The operation that computed it."""


class Provenance:
    """By storage, because views of a tensor share one: a storage is in `dependents` or in `constants`."""

    def __init__(self) -> None:
        self.dependents: dict[int, Dependent] = {}
        self.constants: dict[int, frozenset[int]] = {}
        """Storages that do not depend on the image -> the initial storages they are computed from."""
        self.sizes: dict[int, int] = {}
        """Elements of each initial storage: parameters, buffers, other tensors that existed before the run."""
        self.read: set[int] = set()
        """Storages that an operation has read."""
        self._alive: dict[int, object] = {}
        """References by number, so that no number is reused for another storage."""

    def storage(self, tensor: Tensor) -> int:
        """A number that a tensor shares with its views, and with no other tensor."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a sparse tensor has none
            self._alive[id(tensor)] = tensor
            return id(tensor)
        key = int(storage._cdata)
        if key not in self._alive:
            # its memory is freed with it, but its number is not reused
            self._alive[key] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return key

    def dependent(self, tensor: Tensor | None) -> Dependent | None:
        """What a tensor is computed from, if it depends on the image."""
        return None if tensor is None else self.dependents.get(self.storage(tensor))

    def sources(self, tensors: Iterable[Tensor]) -> tuple[list[Dependent], frozenset[int]]:
        """Of those tensors that depend on the image, and initial storages of those that do not."""
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
        """Note what an operation's outputs are computed from.

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
