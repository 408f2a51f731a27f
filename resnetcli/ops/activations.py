"""Activations. An activation is one class: word, formula, module, counted elements, saved tensors.

The fields of a class are its arguments in the grammar, in brackets: `leaky(0.1)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from resnetcli.frozen import frozen
from resnetcli.ops.base import Activation, ModuleSettings, Saved, Shape, TensorSettings, register

if TYPE_CHECKING:
    from torch import nn


@register
@frozen
class ReLU(Activation):
    """max(x, 0)."""

    word = "relu"
    kinds: ClassVar[Mapping[str, str]] = {"relu": "output elements of ReLU"}
    in_place = True

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The output."""
        return Saved(output=True)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.ReLU`."""
        from torch import nn

        return nn.ReLU(settings.in_place)


@register
@frozen
class LeakyReLU(Activation):
    """x if x > 0 else slope * x."""

    word = "leaky"
    kinds: ClassVar[Mapping[str, str]] = {"leaky_relu": "output elements of leaky ReLU"}

    slope: float

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.LeakyReLU`."""
        from torch import nn

        return nn.LeakyReLU(self.slope)


@register
@frozen
class PReLU(Activation):
    """x if x > 0 else a[c] * x, with a learnt per channel (He et al. 2015, arXiv:1502.01852)."""

    word = "prelu"
    kinds: ClassVar[Mapping[str, str]] = {
        "prelu": "output elements of PReLU",
        "prelu_params": "PReLU's slopes, once per feature map",
    }

    def params(self, x: Shape) -> int:
        """One slope per channel: c."""
        return x.c

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element, and the slopes."""
        return {"prelu": y.elements, "prelu_params": self.params(x) * y.n}

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input."""
        return Saved(input=True)

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """The gradient of the slopes, before it is summed."""
        return x.elements * settings.size

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.PReLU`."""
        from torch import nn

        return nn.PReLU(x.c, **settings.factory)
