"""Convolutions and fully connected layers: the operations that make up a model's depth, MACs and activations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal

from resnetcli.errors import plural
from resnetcli.frozen import frozen
from resnetcli.ops.base import (
    NO_TRAFFIC,
    WHOLE,
    Execution,
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
from resnetcli.ops.windows import no_room, read_elements, window_size

if TYPE_CHECKING:
    from torch import nn


@register
@frozen
class Conv(Op):
    """y[o] = sum over (i in o's group, kh, kw) of w[o, i, kh, kw] * x[i]."""

    kinds: ClassVar[Mapping[str, str]] = {
        "macs": "multiply-accumulates of convolutions and fully connected layers",
        "conv_bias": "additions of the bias of a convolution",
    }
    weighted = True
    needs_map = True
    overwritable = True

    channels: int
    kernel: tuple[int, int]
    stride: int = 1
    pad: tuple[int, int] = (0, 0)
    dilation: int = 1
    groups: int = 1
    bias: bool = False

    @property
    def name(self) -> str:
        """`conv`; in the grammar it is written by its window."""
        return "conv"

    @property
    def label(self) -> str:
        """`conv 3x3`, `grouped conv 3x3`."""
        return f"{'grouped ' if self.groups > 1 else ''}conv {self.kernel[0]}x{self.kernel[1]}"

    def out(self, x: Shape) -> Shape:
        """(channels, h', w')."""
        h = window_size(x.h, self.kernel[0], self.stride, self.pad[0], self.dilation)
        w = window_size(x.w, self.kernel[1], self.stride, self.pad[1], self.dilation)
        if h < 1 or w < 1:
            raise no_room(x, self.kernel)
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
        """kh*kw * c_in/groups * c_out * h_out * w_out, times the feature maps per image; bias not counted."""
        return self.kernel[0] * self.kernel[1] * (x.c // self.groups) * y.elements

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """MACs, and the additions of the bias."""
        return {"macs": self.macs(x, y), "conv_bias": y.elements if self.bias else 0}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """dilation*(kernel-1) + 1 positions, the first at stride*o - pad."""
        pad = self.pad[axis]
        return Window(self.stride, (-pad,), (self.dilation * (self.kernel[axis] - 1) - pad,))

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Reads the input under its windows and the weights; writes the output."""
        read = read_elements(x, y, self.kernel, self.stride, self.pad, self.dilation)
        return Traffic(read, y.elements, weights=self.params(x), kernels=1)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """A separate kernel adds the bias, which cuDNN's convolutions do not."""
        if not self.bias or not self._is_by_cudnn(x, execution):
            return NO_TRAFFIC
        return Traffic(y.elements, y.elements, kernels=1)

    def _is_by_cudnn(self, x: Shape, execution: Execution) -> bool:
        """Whether PyTorch calls cuDNN; most depthwise convolutions run PyTorch's own kernels.

        In fp16 PyTorch also uses cuDNN for some at stride 2, depending on the batch size.
        """
        if self.groups != x.c or x.c == 1 or execution.channels_last:
            return True
        square = self.kernel in {(1, 1), (3, 3), (5, 5)} and self.dilation == 1 and self.stride == 1
        return execution.dtype == "fp16" and square and x.c >= 32 and x.w >= 7

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.Conv2d`, with uninitialised weights."""
        from resnetcli.ops.modules import conv2d

        arguments = self.channels, self.kernel, self.stride, self.pad, self.dilation, self.groups, self.bias
        return conv2d(x.c, *arguments, **settings.factory)


def _group_hint(c_in: int, c_out: int) -> str:
    divisors = [g for g in range(1, min(c_in, c_out, 4096) + 1) if c_in % g == 0 and c_out % g == 0]
    shown = ", ".join(map(str, divisors[:12])) + (", ..." if len(divisors) > 12 else "")
    return f"C must divide both {c_in} (in) and {c_out} (out): {shown}"


@register
@frozen
class Linear(Op):
    """Fully connected: y = W x + b, on all c*h*w inputs as one vector."""

    word = "fc"
    kinds: ClassVar[Mapping[str, str]] = {"fc_bias": "additions of the bias of a fully connected layer"}
    weighted = True
    gives_vector = True
    overwritable = True

    features: int
    bias: bool = True

    @property
    def label(self) -> str:
        """`fully connected`."""
        return "fully connected"

    def out(self, x: Shape) -> Shape:
        """(features, 1, 1)."""
        return Shape(self.features, 1, 1, x.n)

    def params(self, x: Shape) -> int:
        """c*h*w * features, plus features with a bias."""
        weight = x.c * x.h * x.w * self.features
        return weight + self.features if self.bias else weight

    def macs(self, x: Shape, y: Shape) -> int:
        """c*h*w * features, times the feature maps per image; bias not counted."""
        return x.c * x.h * x.w * y.elements

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """MACs, and the additions of the bias."""
        return {"macs": self.macs(x, y), "fc_bias": y.elements if self.bias else 0}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window:
        """The whole feature map."""
        return WHOLE

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """In channels_last the input is copied: a vector has NCHW order."""
        return Traffic(x.elements, x.elements, kernels=1) if execution.reorders(x) else NO_TRAFFIC

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.Linear`, with uninitialised weights."""
        from resnetcli.ops.modules import linear

        return linear(x.c * x.h * x.w, self.features, self.bias, **settings.factory)
