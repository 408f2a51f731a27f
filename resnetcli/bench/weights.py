"""Models with random weights that keep them numerically well conditioned, to be measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from resnetcli.errors import ResourceError
from resnetcli.net.feed import Fed
from resnetcli.net.feed import image_argument_sizes as sizes_of
from resnetcli.net.foreign import rebuilt
from resnetcli.net.module import Net, build, initialise
from resnetcli.ops import BatchNorm
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

SHIFT = 2.0
"""BatchNorm's bias: with it most activations pass a ReLU unchanged.

Without it, a deep model with random weights is chaotic: bf16 rounding in ResNet-50's first layers grows to 65% of its
last feature maps (Inception v3: 91%), like an error. With a bias of 2 it is 1.2% and 4.9%.
"""


def build_random(plan: Plan, place: torch.device) -> Net:
    """The plan's model in fp32 and eval mode with random weights; `calibrate_norms` sets BatchNorm's statistics.

    Built outside inference mode, which compilers do not support.
    """
    with torch.inference_mode(False):
        return build(plan, device=place, dtype=torch.float32, init=_fill).eval()


@contextmanager
def pytorch_model(plan: Plan, place: torch.device, batch: int) -> Iterator[nn.Module]:
    """Context manager: the PyTorch model a plan was recorded from, with its own initial weights but BatchNorm's biases.

    It can be compiled only within, see `rebuilt`. Raises UsageError if it cannot be built again, ResourceError if it
    cannot be moved to the device.
    """
    with ExitStack() as stack:
        with torch.inference_mode(False):
            net = stack.enter_context(rebuilt(plan))
            if any(tensor.is_meta for tensor in (*net.parameters(), *net.buffers())):
                raise ResourceError(
                    f"`{plan.name}` cannot be timed: its weights are on the meta device, without values",
                    "do not construct it on `meta`, or omit `--device` to count it",
                )
            net = net.to(place, torch.float32)
            _shift(net)
            if plan.inputs:
                net = Fed(net, plan.inputs, batch, place).eval()
        yield net


def image_sizes(plan: Plan) -> tuple[int, ...]:
    """The shape of one input image of the plan's model."""
    return sizes_of(plan.inputs) if plan.inputs else plan.input_sizes


def _fill(net: nn.Module) -> None:
    """Initialize weights from a uniform distribution, five times faster than a normal one of the same variance."""
    initialise(net, lambda weight, std: nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std))
    _shift(net)


def _shift(net: nn.Module) -> None:
    """Set all BatchNorm biases to `SHIFT`."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.bias, SHIFT)


def calibrate_norms(net: nn.Module, x: Tensor, plan: Plan) -> None:
    """Set BatchNorm's statistics to those of x's first image, or of two if one has a single value per channel.

    With the initial statistics every residual block doubles the variance, up to infinities in a deep model.
    """
    single = any(
        isinstance(step.op, BatchNorm) and step.shape.n * step.shape.h * step.shape.w == 1 for step in plan.steps
    )
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        two = x[:2] if len(x) > 1 else torch.cat((x, torch.randn_like(x)))
        try:
            net(two if single else x[:1])
        except ValueError:  # BatchNorm inside a PyTorch model had a single value per channel
            if not is_traced(plan):
                raise
            net(two)
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1
