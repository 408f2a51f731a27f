"""Normalisation layers, and softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

from resnetcli.frozen import frozen
from resnetcli.ops.base import (
    INDEX_BYTES,
    NO_TRAFFIC,
    Execution,
    ModuleSettings,
    Norm,
    Op,
    Saved,
    Shape,
    TensorSettings,
    Traffic,
    register,
)

if TYPE_CHECKING:
    from torch import nn

STATISTIC_BYTES = 4
"""On a GPU, BatchNorm saves the mean and inverse deviation of each channel in float32 whatever the dtype."""


@register
@frozen
class BatchNorm(Norm):
    """y = gamma * (x - mean) / sqrt(var + eps) + beta, per channel."""

    word = "bn"
    kinds: ClassVar[Mapping[str, str]] = {
        "batchnorm": "output elements of BatchNorm",
        "batchnorm_params": "BatchNorm's scales and shifts, once per feature map",
    }
    pointwise = True
    overwritable = True

    eps: float = 1e-5

    def params(self, x: Shape) -> int:
        """gamma and beta: 2c. Running statistics are buffers."""
        return 2 * x.c

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element, and gamma and beta."""
        return {"batchnorm": y.elements, "batchnorm_params": self.params(x) * y.n}

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input, and the batch's mean and inverse deviation per channel."""
        size = STATISTIC_BYTES if settings.place == "cuda" else settings.size
        return Saved(input=True, batch_bytes=2 * x.c * size)

    def buffer_bytes(self, y: Shape, size: int) -> int:
        """Running mean and variance, and the number of batches."""
        return 2 * y.c * size + INDEX_BYTES

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """gamma, beta, mean and variance are read besides the input."""
        return Traffic(x.elements, y.elements, weights=4 * x.c, kernels=1)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """Without cuDNN, two more kernels compute the inverse deviations and copy the means."""
        by_cudnn = not vector and execution.dtype != "bf16"
        return NO_TRAFFIC if by_cudnn else Traffic(weights=2 * x.c, kernels=2)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.BatchNorm2d`, on vectors `nn.BatchNorm1d`."""
        from torch import nn

        return (nn.BatchNorm1d if settings.vector else nn.BatchNorm2d)(x.c, self.eps, **settings.factory)


@register
@frozen
class LocalResponseNorm(Op):
    """x / (k + alpha/size * sum over `size` neighbouring channels of x^2) ^ beta, as in Caffe and PyTorch.

    Krizhevsky et al. 2012, 3.3, does not divide alpha by the size.
    """

    word = "lrn"
    kinds: ClassVar[Mapping[str, str]] = {
        "lrn": "output elements of local response normalisation",
        "lrn_padded": "elements that it averages, including zero channels before the first and after the last",
    }
    needs_map = True

    size: int
    alpha: float
    beta: float
    k: float

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element, and the elements that are averaged."""
        return {"lrn": y.elements, "lrn_padded": y.elements // y.c * self._padded(y.c)}

    def _padded(self, channels: int) -> int:
        """Channels including the padding of a window over `size` of them."""
        return channels + self.size // 2 + (self.size - 1) // 2

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The input; its squares, padded; the sums, before and after the power."""
        image = self._padded(x.c) * x.h * x.w * x.n + 2 * x.elements
        return Saved(input=True, image_bytes=image * settings.size)

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """In inference, two of the tensors that training saves."""
        return 0 if settings.train else 2 * x.elements * settings.size

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """Three tensors of the input's size."""
        return 3 * x.elements * settings.size

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """x*x; padded: filled, then copied into; averaged; times alpha, plus k, to the power; x divided by it."""
        elements = 7 * x.elements + x.elements // x.c * (x.c + self.size - 1)
        return Traffic(elements, elements, kernels=8)

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.LocalResponseNorm`."""
        from torch import nn

        return nn.LocalResponseNorm(self.size, self.alpha, self.beta, self.k)


@register
@frozen
class Softmax(Op):
    """exp(x) / sum over channels of exp(x)."""

    word = "softmax"
    kinds: ClassVar[Mapping[str, str]] = {
        "softmax": "output elements of softmax",
        "softmax_groups": "sums of softmax, one per pixel",
    }

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element, and each pixel."""
        return {"softmax": y.elements, "softmax_groups": y.elements // y.c}

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """The output."""
        return Saved(output=True)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """In channels_last the input is copied."""
        return Traffic(x.elements, x.elements, kernels=1) if execution.reorders(x) else NO_TRAFFIC

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """`nn.Softmax` over channels."""
        from torch import nn

        return nn.Softmax(dim=1)
