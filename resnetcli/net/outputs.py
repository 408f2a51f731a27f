"""Find the tensors in a model's output."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Awaitable, Iterator, Mapping

from torch import Tensor, nn

from resnetcli.ops import Shape


def tensors(value: object, depth: int = 4) -> Iterator[Tensor]:
    """Yield the tensors in collections, mappings and attributes of objects, at most `depth` levels deep."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item, depth - 1)
    elif depth and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from tensors(item, depth - 1)
    elif depth and (dataclasses.is_dataclass(value) or hasattr(value, "__dict__")) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else [*vars(value)]
        for name in names:
            yield from tensors(getattr(value, name, None), depth - 1)


def unfinished(value: object, depth: int = 4) -> Iterator[object]:
    """Yield generators, iterators and coroutines in an output: their tensors are not computed yet."""
    if isinstance(value, Iterator | Awaitable) and not isinstance(value, nn.Module):
        yield value
    elif depth and isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from unfinished(item, depth - 1)


def shape_of(tensor: Tensor) -> Shape:
    """(b, c, h, w) as b times c x h x w; (b, c) as c x 1 x 1; sizes after the third are multiplied into the width."""
    sizes = [*tensor.shape] if tensor.dim() > 1 else [1, *tensor.shape]
    sizes += [1] * (4 - len(sizes))
    return Shape(sizes[1], sizes[2], math.prod(sizes[3:]), sizes[0])
