"""Stateless random numbers of training: functions of (seed, epoch, sample), so a resume needs no generator state.

They hash 64-bit counters, and are the same on every device and in every version of PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor

ORDER, CROP, SPLIT, INIT, DROPOUT = range(1, 6)
"""Purposes of random numbers; each has a separate stream."""
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_ALL = 2**64 - 1
MAX_SEED = 2**63 - 1


def key(seed: int, purpose: int, counter: int = 0) -> int:
    """64 bits that a seed, a purpose and an epoch (or an iteration) determine."""
    state = 0
    for part in (seed, purpose, counter):
        state = _mix((state + part + 1) * _GOLDEN & _ALL)
    return state


def _mix(x: int) -> int:
    """The finaliser of splitmix64 (Steele et al. 2014): each bit of the result depends on all bits of x."""
    x = (x ^ x >> 30) * _FIRST & _ALL
    x = (x ^ x >> 27) * _SECOND & _ALL
    return x ^ x >> 31


def bits(key: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """64 random bits for each of the samples 0 to n - 1, as int64: the splitmix64 sequence from `key`."""
    x = torch.arange(1, n + 1, device=device) * _signed(_GOLDEN) + _signed(key)
    x = (x ^ _shift_right(x, 30)) * _signed(_FIRST)
    x = (x ^ _shift_right(x, 27)) * _signed(_SECOND)
    return x ^ _shift_right(x, 31)


def _signed(x: int) -> int:
    """The int64 with the same bits."""
    return x - 2**64 if x >= 2**63 else x


def _shift_right(x: Tensor, by: int) -> Tensor:
    """Logical right shift of an int64: zeros are shifted in, not the sign."""
    return x.bitwise_right_shift(by).bitwise_and(2 ** (64 - by) - 1)


def epoch_order(seed: int, epoch: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """The samples 0 to n - 1 in the order of an epoch, int64."""
    return torch.argsort(bits(key(seed, ORDER, epoch), n, device), stable=True)


def crops(seed: int, epoch: int, n: int, places: int, flip: bool, device: torch.device | str = "cpu") -> Tensor:
    """Each sample's crop in an epoch: (3, n) of top and left, from 0 to places - 1, and 1 for a flip."""
    x = bits(key(seed, CROP, epoch), n, device)
    field = 2**21 - 1  # 21 bits each: probabilities of positions differ by at most 1 in 2^17
    top, left = (_shift_right(x, 43) & field) * places >> 21, (_shift_right(x, 22) & field) * places >> 21
    return torch.stack((top, left, x & 1 if flip else torch.zeros_like(x)))


def sample_order(seed: int, epoch: int, n: int, places: int, flip: bool, device: torch.device | str = "cpu") -> Tensor:
    """The samples of an epoch in order: (4, n) of index, top, left, flip."""
    order = epoch_order(seed, epoch, n, device)
    return torch.cat((order[None], crops(seed, epoch, n, places, flip, device)[:, order]))


def split_indices(n: int, size: int) -> tuple[Tensor, Tensor]:
    """Indices of `size` training images and of the validation images, both sorted; the same for every seed."""
    order = torch.argsort(bits(key(0, SPLIT), n), stable=True)
    return order[:size].sort().values, order[size:].sort().values
