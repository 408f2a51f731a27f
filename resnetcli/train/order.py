"""What is random in training, as functions of (seed, epoch, sample): nothing has a state that a resume would need.

A hash of counters in 64-bit integers, the same on every device and in every version of PyTorch.
"""

from __future__ import annotations

import torch
from torch import Tensor

ORDER, CROP, SPLIT, INIT, DROPOUT = range(1, 6)
"""What a number is drawn for; each has its own stream."""
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
    """splitmix64's finaliser (Steele et al. 2014): each bit of the result depends on all of x's."""
    x = (x ^ x >> 30) * _FIRST & _ALL
    x = (x ^ x >> 27) * _SECOND & _ALL
    return x ^ x >> 31


def bits(key: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """64 random bits for each of the samples 0 to n - 1, as int64: splitmix64's sequence from `key`."""
    x = torch.arange(1, n + 1, device=device) * _signed(_GOLDEN) + _signed(key)
    x = (x ^ _shifted(x, 30)) * _signed(_FIRST)
    x = (x ^ _shifted(x, 27)) * _signed(_SECOND)
    return x ^ _shifted(x, 31)


def _signed(x: int) -> int:
    """The int64 of the same bits."""
    return x - 2**64 if x >= 2**63 else x


def _shifted(x: Tensor, by: int) -> Tensor:
    """x >> by, zeros coming in at the top, which an int64's sign would not be."""
    return x.bitwise_right_shift(by).bitwise_and(2 ** (64 - by) - 1)


def epoch_order(seed: int, epoch: int, n: int, device: torch.device | str = "cpu") -> Tensor:
    """The samples 0 to n - 1 in the order of an epoch, int64."""
    return torch.argsort(bits(key(seed, ORDER, epoch), n, device), stable=True)


def crops(seed: int, epoch: int, n: int, places: int, flip: bool, device: torch.device | str = "cpu") -> Tensor:
    """Each sample's crop in an epoch: (3, n) of its top and left, 0 to places - 1, and 1 where it is mirrored."""
    x = bits(key(seed, CROP, epoch), n, device)
    field = 2**21 - 1  # 21 bits each, so that no place is likelier than another by more than 1 in 2^17
    top, left = (_shifted(x, 43) & field) * places >> 21, (_shifted(x, 22) & field) * places >> 21
    return torch.stack((top, left, x & 1 if flip else torch.zeros_like(x)))


def stream(seed: int, epoch: int, n: int, places: int, flip: bool, device: torch.device | str = "cpu") -> Tensor:
    """An epoch of samples in its order: (4, n) of index, top, left, mirrored."""
    order = epoch_order(seed, epoch, n, device)
    return torch.cat((order[None], crops(seed, epoch, n, places, flip, device)[:, order]))


def split(n: int, kept: int) -> tuple[Tensor, Tensor]:
    """The indices of `kept` training images and of the others, the same for every seed; each in rising order."""
    order = torch.argsort(bits(key(0, SPLIT), n), stable=True)
    return order[:kept].sort().values, order[kept:].sort().values
