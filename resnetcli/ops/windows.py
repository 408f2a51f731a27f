"""Sliding windows: output size, and the input elements they cover."""

from __future__ import annotations

from functools import lru_cache

from resnetcli.ops.base import Shape, ShapeError


def window_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output size of a sliding window along one axis, as PyTorch defines it; below 1 if the window does not fit."""
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    out = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (out - 1) * stride >= size + pad:  # the last window must start inside the input or its left padding
        out -= 1
    return out


def no_room(x: Shape, kernel: tuple[int, int]) -> ShapeError:
    """The error for a window larger than its input."""
    return ShapeError(
        f"a {kernel[0]}x{kernel[1]} window does not fit into a {x.h} x {x.w} feature map",
        hint="use a larger input, smaller strides, or padding",
    )


def read_elements(
    x: Shape, y: Shape, kernel: tuple[int, int], stride: int, pad: tuple[int, int], dilation: int = 1
) -> int:
    """Elements of x covered by any window: a 1x1 convolution with stride 2 reads a quarter."""
    sides = zip((x.h, x.w), (y.h, y.w), kernel, pad, strict=True)
    rows, columns = (_covered(side, out, length, stride, edge, dilation) for side, out, length, edge in sides)
    return x.elements // (x.h * x.w) * rows * columns


@lru_cache(maxsize=4096)
def _covered(side: int, windows: int, kernel: int, stride: int, pad: int, dilation: int) -> int:
    """Positions of an axis covered by any window; the gaps of a dilated window count as covered."""
    if stride <= kernel or (dilation > 1 and kernel > 1):
        return max(0, min(side, (windows - 1) * stride + (kernel - 1) * dilation + 1 - pad))
    begins = range(-pad, windows * stride - pad, stride)
    return sum(max(0, min(begin + kernel, side) - max(begin, 0)) for begin in begins)
