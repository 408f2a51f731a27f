"""A convolution, a sum and a ReLU in one cuDNN kernel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from resnetcli.net.memory import NO_ALGORITHM

NOT_FUSED = (NO_ALGORITHM, "NOT_SUPPORTED")
"""Parts of cuDNN's error messages if it has no fused kernel."""


class CudnnConvReLU:
    """relu(conv(x)) or relu(conv(x) + term) in one cuDNN kernel, bias included; inference on a GPU only.

    cuDNN has no such kernel for some convolutions, layouts and dtypes: if the first call fails for that reason, each
    operation is a separate kernel from then on.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        self.conv = conv
        self.is_fused = True

    def __call__(self, x: Tensor, term: Tensor | None = None) -> Tensor:
        """(b, c, h, w) in and out."""
        conv = self.conv
        if self.is_fused:
            shape = conv.stride, conv.padding, conv.dilation, conv.groups
            try:
                if term is None:
                    return torch.cudnn_convolution_relu(x, conv.weight, conv.bias, *shape)  # type: ignore[arg-type]
                return torch.cudnn_convolution_add_relu(x, conv.weight, term, 1.0, conv.bias, *shape)  # type: ignore[arg-type]
            except RuntimeError as error:  # out of memory reads the same, and is reported by the separate calls below
                if not any(part in str(error) for part in NOT_FUSED):
                    raise
                self.is_fused = False
        y: Tensor = conv(x)
        if term is not None:
            y += term
        return y.relu_()
