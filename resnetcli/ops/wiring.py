"""Operations that connect the others: input, sums and concatenation, dropout, scaling, option A's padding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from resnetcli.frozen import frozen
from resnetcli.ops.base import (
    NO_TRAFFIC,
    Join,
    ModuleSettings,
    Op,
    Saved,
    Shape,
    ShapeError,
    TensorSettings,
    Traffic,
    Window,
    register,
)

if TYPE_CHECKING:
    from torch import nn


@register
@frozen
class Input(Op):
    """The image itself."""

    shape: Shape

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """None: the image is already in memory."""
        return NO_TRAFFIC


@register
@frozen
class Dropout(Op):
    """Zeroes each element with probability p in training; nothing in evaluation."""

    word = "dropout"
    transparent = True
    pointwise = True

    p: float

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The mask: one byte per element on a GPU, a tensor of the compute dtype on a CPU."""
        size = 1 if settings.place == "cuda" else settings.size
        return Saved(image_bytes=x.elements * size if 0 < self.p < 1 else 0)

    def is_identity(self, train: bool) -> bool:
        """In evaluation, and with p = 0."""
        return not train or self.p == 0

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """None in evaluation."""
        return NO_TRAFFIC

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.Dropout`."""
        from torch import nn

        return nn.Dropout(self.p)


@register
@frozen
class Scale(Op):
    """factor * x: the scaled residual of Inception-ResNet (Szegedy et al. 2016, 3.3)."""

    pointwise = True

    factor: float

    @property
    def name(self) -> str:
        """`scale`."""
        return "scale"

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`resnetcli.ops.modules.ScaleModule`."""
        from resnetcli.ops import modules

        return modules.ScaleModule(self.factor)


@register
@frozen
class PadChannels(Op):
    """Every stride-th pixel, zero channels appended: option A of He et al. 2015, 3.3."""

    needs_map = True

    channels: int
    stride: int = 1

    @property
    def name(self) -> str:
        """`pad`."""
        return "pad"

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

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """Position stride*o alone."""
        return Window(self.stride, (0,), (0,))

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The gradients of skipped pixels are filled with zeros, one axis after the other."""
        if self.stride == 1:
            return 0
        return max(0, (x.c * y.h * x.w - y.elements)) * settings.size

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Filled with zeros, then copied into."""
        copied = x.elements // (x.h * x.w) * y.h * y.w
        return Traffic(copied, y.elements + copied, kernels=2)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`resnetcli.ops.modules.PadChannelsModule`."""
        from resnetcli.ops import modules

        return modules.PadChannelsModule(self.channels - x.c, self.stride)


@register
@frozen
class Concat(Join):
    """Concatenation along the channels."""

    overwritable = True

    @property
    def name(self) -> str:
        """`cat`."""
        return "cat"

    @property
    def label(self) -> str:
        """`concatenation`."""
        return "concatenation"

    def join(self, xs: tuple[Shape, ...]) -> Shape:
        """(sum of c, h, w)."""
        first = xs[0]
        y = Shape(sum(x.c for x in xs), first.h, first.w, first.n)
        if any((x.h, x.w, x.n) != (first.h, first.w, first.n) for x in xs):
            raise ShapeError(
                "branches of `concat` differ in size", hint="give every branch the same stride", recovered=y
            )
        return y


@register
@frozen
class Add(Join):
    """The element-wise sum of its inputs."""

    @property
    def name(self) -> str:
        """`add`."""
        return "add"

    @property
    def label(self) -> str:
        """`sum`."""
        return "sum"

    def join(self, xs: tuple[Shape, ...]) -> Shape:
        """The inputs' common shape."""
        if any(x != xs[0] for x in xs):
            raise ShapeError("the terms of a sum differ in shape", recovered=xs[0])
        return xs[0]


@register
@frozen
class Traced(Op):
    """Part of a PyTorch model, with the costs recorded in one forward pass (`resnetcli.net`).

    It is valid for the recorded shapes only and cannot be built.
    """

    text: str
    """The layer in tables: `Conv2d 3x3 64`."""
    scalars: int
    """Learnable scalars first used here."""
    products: int
    """Multiply-accumulates of all its convolutions and matrix products; bias not counted."""
    elements: int
    """Output elements of its convolutions and matrix products."""
    layers: int
    """Convolutions and fully connected layers on its longest path."""

    def params(self, x: Shape) -> int:
        """As recorded."""
        return self.scalars

    def macs(self, x: Shape, y: Shape) -> int:
        """As recorded."""
        return self.products

    def activations(self, y: Shape) -> int:
        """As recorded."""
        return self.elements

    def depth(self) -> int:
        """As recorded."""
        return self.layers

    def counted(self, x: Shape, y: Shape) -> dict[str, int]:
        """Multiply-accumulates only: other elements of a PyTorch model are unknown."""
        return {"macs": self.products}
