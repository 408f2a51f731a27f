"""The primitive operations: each class holds its shape rule, parameters and multiply-accumulates side by side.

All figures are exact integers for **one image**, whatever the batch. Adding an operation means one class
here, one case in `resnetcli.net.module` and one word in `resnetcli.spec.phrase`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from resnetcli.errors import plural

MAX_ELEMENTS = 2**40
"""Upper bound on the scalars of one activation or one weight: nothing unbounded is ever asked of memory."""


class ShapeError(Exception):
    """The shapes that meet at an operation do not fit. `recovered` is what reading goes on with, if anything."""

    def __init__(
        self, message: str, *, hint: str = "", notes: tuple[str, ...] = (), recovered: Shape | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.notes, self.recovered = message, hint, notes, recovered


@dataclass(frozen=True, slots=True)
class Shape:
    """One image's activation, without the batch: channels x height x width."""

    c: int
    h: int
    w: int
    n: int = 1
    """Maps per image: more than one after `roi`."""

    @property
    def elements(self) -> int:
        """n * c * h * w."""
        return self.n * self.c * self.h * self.w

    def __str__(self) -> str:
        maps = f"{self.n} x " if self.n != 1 else ""
        return f"{maps}{self.c} x {self.h} x {self.w}"


@dataclass(frozen=True, slots=True)
class Sides:
    """Height and width of an image whose channels are the model's own."""

    h: int
    w: int

    def of(self, channels: int) -> Shape:
        """With so many channels."""
        return Shape(channels, self.h, self.w)


class _Op:
    """What holds for an operation unless it says otherwise: same shape out, no parameters, no MACs."""

    __slots__ = ()

    def out(self, x: Shape) -> Shape:
        """The output's shape."""
        return x

    def params(self, x: Shape) -> int:
        """Learnable scalars."""
        return 0

    def macs(self, x: Shape, y: Shape) -> int:
        """Multiply-accumulates of convolutions and fully connected layers, x in, y out; bias not counted."""
        return 0


def _window(size: int, kernel: int, stride: int, pad: int, dilation: int = 1, ceil: bool = False) -> int:
    """Output size of a sliding window along one axis, as PyTorch defines it; below 1 if the window does not fit."""
    room = size + 2 * pad - dilation * (kernel - 1) - 1
    out = (room + (stride - 1 if ceil else 0)) // stride + 1
    if ceil and (out - 1) * stride >= size + pad:  # the last window must start inside the input or its left padding
        out -= 1
    return out


def _shrunk(x: Shape, kernel: tuple[int, int]) -> ShapeError:
    return ShapeError(
        f"nothing is left: a {kernel[0]}x{kernel[1]} window does not fit into {x.h} x {x.w}",
        hint="use a larger input, less stride, or padding",
    )


@dataclass(frozen=True, slots=True)
class Input(_Op):
    """The image itself."""

    shape: Shape


@dataclass(frozen=True, slots=True)
class Conv(_Op):
    """y[o] = sum over (i in o's group, kh, kw) of w[o, i, kh, kw] * x[i]."""

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    bias: bool = False

    def out(self, x: Shape) -> Shape:
        """(channels, h', w')."""
        h = _window(x.h, self.kernel[0], self.stride, self.pad[0], self.dilation)
        w = _window(x.w, self.kernel[1], self.stride, self.pad[1], self.dilation)
        if h < 1 or w < 1:
            raise _shrunk(x, self.kernel)
        y = Shape(self.channels, h, w, x.n)
        if self.groups > 1 and (x.c % self.groups or self.channels % self.groups):
            bad = x.c if x.c % self.groups else self.channels
            raise ShapeError(
                f"{plural(bad, 'channel does not', 'channels do not')} split into {self.groups} groups",
                hint=_group_hint(x.c, self.channels),
                recovered=y,
            )
        return y

    def params(self, x: Shape) -> int:
        """kh*kw * c_in/groups * c_out, plus c_out with a bias."""
        weight = self.kernel[0] * self.kernel[1] * (x.c // self.groups) * self.channels
        return weight + self.channels if self.bias else weight

    def macs(self, x: Shape, y: Shape) -> int:
        """kh*kw * c_in/groups * c_out * h_out * w_out, times the maps per image; bias not counted."""
        return self.kernel[0] * self.kernel[1] * (x.c // self.groups) * y.elements


def _group_hint(c_in: int, c_out: int) -> str:
    divisors = [g for g in range(1, min(c_in, c_out, 4096) + 1) if c_in % g == 0 and c_out % g == 0]
    shown = ", ".join(map(str, divisors[:12])) + (", ..." if len(divisors) > 12 else "")
    return f"C must divide both {c_in} (in) and {c_out} (out): {shown}"


@dataclass(frozen=True, slots=True)
class BatchNorm(_Op):
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, per channel."""

    eps: float = 1e-5

    def params(self, x: Shape) -> int:
        """gamma and beta: 2c. Running statistics are not learnable."""
        return 2 * x.c


@dataclass(frozen=True, slots=True)
class ReLU(_Op):
    """max(x, 0)."""


@dataclass(frozen=True, slots=True)
class LeakyReLU(_Op):
    """x if x > 0 else slope * x."""

    slope: float


@dataclass(frozen=True, slots=True)
class PReLU(_Op):
    """x if x > 0 else a[c] * x, with a learnt per channel (He et al. 2015, arXiv:1502.01852)."""

    def params(self, x: Shape) -> int:
        """One slope a channel: c."""
        return x.c


Activation = ReLU | LeakyReLU | PReLU


@dataclass(frozen=True, slots=True)
class Pool(_Op):
    """Max or mean over a sliding window."""

    kind: Literal["max", "avg"]
    kernel: tuple[int, int]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    ceil: bool = False
    count_pad: bool = False
    """Whether a mean counts the padding: the grammar's `avg(pad)`."""

    def out(self, x: Shape) -> Shape:
        """(c, h', w')."""
        if 2 * self.pad[0] > self.kernel[0] or 2 * self.pad[1] > self.kernel[1]:
            raise ShapeError(
                f"a pooling window of {self.kernel[0]}x{self.kernel[1]} cannot be padded by {max(self.pad)}",
                hint="padding is at most half the window",
                recovered=x,
            )
        h = _window(x.h, self.kernel[0], self.stride, self.pad[0], ceil=self.ceil)
        w = _window(x.w, self.kernel[1], self.stride, self.pad[1], ceil=self.ceil)
        if h < 1 or w < 1:
            raise _shrunk(x, self.kernel)
        return Shape(x.c, h, w, x.n)


@dataclass(frozen=True, slots=True)
class PoolTo(_Op):
    """Max or mean over as many windows as give the size asked for; `global avg` is `avg to 1x1`."""

    kind: Literal["max", "avg"]
    size: tuple[int, int]

    def out(self, x: Shape) -> Shape:
        """(c, size)."""
        return Shape(x.c, self.size[0], self.size[1], x.n)


@dataclass(frozen=True, slots=True)
class PyramidPool(_Op):
    """Max pooling to each level's grid, all of it as one vector (He et al. 2014, arXiv:1406.4729)."""

    levels: tuple[int, ...]

    def out(self, x: Shape) -> Shape:
        """(c * sum of level^2, 1, 1)."""
        return Shape(x.c * sum(level * level for level in self.levels), 1, 1, x.n)


@dataclass(frozen=True, slots=True)
class Linear(_Op):
    """Fully connected: y = W x + b, on all c*h*w inputs as one vector."""

    features: int
    bias: bool = True

    def out(self, x: Shape) -> Shape:
        """(features, 1, 1)."""
        return Shape(self.features, 1, 1, x.n)

    def params(self, x: Shape) -> int:
        """c*h*w * features, plus features with a bias."""
        weight = x.c * x.h * x.w * self.features
        return weight + self.features if self.bias else weight

    def macs(self, x: Shape, y: Shape) -> int:
        """c*h*w * features, times the maps per image; bias not counted."""
        return x.c * x.h * x.w * y.elements


@dataclass(frozen=True, slots=True)
class LocalResponseNorm(_Op):
    """x / (k + alpha/size * sum over `size` neighbouring channels of x^2) ^ beta, as Caffe and PyTorch have it.

    Krizhevsky et al. 2012, 3.3, do not divide alpha by the size.
    """

    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True, slots=True)
class Dropout(_Op):
    """Zeroes each element with probability p in training; nothing in evaluation."""

    p: float


@dataclass(frozen=True, slots=True)
class Softmax(_Op):
    """exp(x) / sum over channels of exp(x)."""


@dataclass(frozen=True, slots=True)
class Scale(_Op):
    """factor * x: the scaled residual of Inception-ResNet (Szegedy et al. 2016, 3.3)."""

    factor: float


@dataclass(frozen=True, slots=True)
class PadChannels(_Op):
    """Every stride-th pixel, zero channels appended: option A of He et al. 2015, 3.3."""

    channels: int
    stride: int = 1

    def out(self, x: Shape) -> Shape:
        """(channels, ceil(h/stride), ceil(w/stride))."""
        y = Shape(self.channels, -(-x.h // self.stride), -(-x.w // self.stride), x.n)
        if x.c > self.channels:
            raise ShapeError(
                f"`pad` cannot take {x.c} channels down to {self.channels}",
                hint="zero channels can only be appended: use `shortcut: project`",
                recovered=y,
            )
        return y


@dataclass(frozen=True, slots=True)
class RegionPool(_Op):
    """One size of feature map for each of `maps` regions of the image; everything after runs once a region."""

    size: tuple[int, int]
    maps: int

    def out(self, x: Shape) -> Shape:
        """(c, size), `maps` times an image."""
        y = Shape(x.c, self.size[0], self.size[1], self.maps)
        if x.n != 1:
            raise ShapeError("`roi` inside a region head", hint="a net has one `roi`", recovered=y)
        return y


@dataclass(frozen=True, slots=True)
class Concat(_Op):
    """The branches' channels one after another."""

    def join(self, xs: tuple[Shape, ...]) -> Shape:
        """(sum of c, h, w)."""
        first = xs[0]
        y = Shape(sum(x.c for x in xs), first.h, first.w, first.n)
        if any((x.h, x.w, x.n) != (first.h, first.w, first.n) for x in xs):
            raise ShapeError(
                "branches of `concat` differ in size", hint="give every branch the same stride", recovered=y
            )
        return y


@dataclass(frozen=True, slots=True)
class Add(_Op):
    """The element-wise sum of its inputs."""

    def join(self, xs: tuple[Shape, ...]) -> Shape:
        """The inputs' common shape."""
        if any(x != xs[0] for x in xs):
            raise ShapeError("what is added differs in shape", recovered=xs[0])
        return xs[0]


@dataclass(frozen=True, slots=True)
class Traced(_Op):
    """A piece of a PyTorch model that was seen to run once (`resnetcli.net.trace`): what it cost then, whatever it was.

    It cannot be asked about other shapes, nor be built.
    """

    text: str
    """What it is, for people: `Conv2d 3x3 64`."""
    scalars: int
    """Learnable ones that are counted here."""
    products: int
    """Multiply-accumulates of all its convolutions and matrix products; bias not counted."""
    elements: int
    """What these put out."""
    layers: int
    """Convolutions and fully connected layers on the longest path through it."""

    def params(self, x: Shape) -> int:
        """As seen."""
        return self.scalars

    def macs(self, x: Shape, y: Shape) -> int:
        """As seen."""
        return self.products


Unary = (
    Input
    | Conv
    | BatchNorm
    | ReLU
    | LeakyReLU
    | PReLU
    | Pool
    | PoolTo
    | PyramidPool
    | Linear
    | LocalResponseNorm
    | Dropout
    | Softmax
    | Scale
    | PadChannels
    | RegionPool
)
Op = Unary | Concat | Add | Traced
WEIGHTED = (Conv, Linear)
"""The operations that make up a net's depth, its MACs and its activations (Dollar et al. 2021, 2.1)."""
