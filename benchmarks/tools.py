"""MACs of a PyTorch module for one input, counted by other tools, each with its own counting rules."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable

import torch
import torchinfo
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # deprecations of distutils and torch.jit
    import thop
    from fvcore.nn import FlopCountAnalysis

logging.getLogger("fvcore").setLevel(logging.ERROR)
logging.getLogger("torch.jit").setLevel(logging.ERROR)


def fvcore(net: nn.Module, x: Tensor) -> int:
    """Traces the model; counts BatchNorm and pooling too."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return int(FlopCountAnalysis(net, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False).total())


def thop_profile(net: nn.Module, x: Tensor) -> int:
    """Runs the model with hooks; counts BatchNorm and pooling too."""
    return int(thop.profile(net, inputs=(x,), verbose=False)[0])


def torchinfo_summary(net: nn.Module, x: Tensor) -> int:
    """Runs the model with hooks; counts a MAC for every parameter of BatchNorm and every bias too."""
    return int(torchinfo.summary(net, input_data=x, verbose=0).total_mult_adds)


def flop_counter(net: nn.Module, x: Tensor) -> int:
    """Runs the model in a dispatch mode; counts convolutions and matrix products only."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(x)
    return int(counter.get_total_flops()) // 2


TOOLS: dict[str, Callable[[nn.Module, Tensor], int]] = {
    "fvcore": fvcore,
    "thop": thop_profile,
    "torchinfo": torchinfo_summary,
    "FlopCounterMode": flop_counter,
}
