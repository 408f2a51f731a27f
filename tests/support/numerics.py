"""Helpers for tests of numerics: random weights, other libraries' models, and a paper's equations written by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.net.module import Net, build
from resnetcli.plan.plan import Plan

TOLERANCE = 1e-4
"""Relative to the largest expected magnitude."""


def assert_same(got: Tensor, wanted: Tensor) -> None:
    assert got.shape == wanted.shape
    scale = float(wanted.abs().max())
    assert 0 < scale < 1e12  # neither vanished nor exploded: otherwise the comparison is void
    if len(wanted) > 1:  # the outputs depend on the images
        assert float((wanted[0] - wanted[1]).abs().max()) > 10 * TOLERANCE * scale
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE * scale)


def images(plan: Plan, batch: int = 2) -> Tensor:
    shape = plan.input
    return torch.randn(batch, shape.c, shape.h, shape.w, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def randomise(net: nn.Module, seed: int = 0) -> nn.Module:
    """Weights that keep activations in range, and BatchNorm statistics as after some training."""
    generator = torch.Generator().manual_seed(seed)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.weight.normal_(0, (2 / module.weight[0].numel()) ** 0.5, generator=generator)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.weight.uniform_(0.7, 1.4, generator=generator)  # away from zero, so that differences persist
            module.running_mean.normal_(0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
        elif isinstance(module, nn.PReLU):
            module.weight.uniform_(0, 0.5, generator=generator)
        if isinstance(module, nn.Conv2d | nn.Linear | nn.BatchNorm2d) and module.bias is not None:
            module.bias.normal_(0, 0.2, generator=generator)
    return net.eval()


def built(plan: Plan, *, random: bool = True) -> Net:
    net = build(plan, init=randomise if random else lambda net: None)
    return net.eval()


def logits(net: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        y = net(x)
    assert isinstance(y, Tensor)
    return y


def foreign(make: Callable[[], nn.Module]) -> nn.Module:
    """Another library's model with random weights, built on the meta device to initialise them only once."""
    with torch.device("meta"):
        net = make()
    return randomise(net.to_empty(device="cpu"))


@torch.no_grad()
def copy_by_position(state: dict[str, Tensor], net: nn.Module) -> None:
    """Copy all parameters and statistics by their position in the state dict."""
    for mine, theirs in zip(net.state_dict().values(), state.values(), strict=True):
        assert mine.numel() == theirs.numel()
        mine.copy_(theirs.view_as(mine))


@dataclass
class Weights:
    """A model's weights by path, and the layers that use them, in evaluation mode."""

    state: dict[str, Tensor]

    def conv(self, x: Tensor, path: str, stride: int = 1, pad: int = 0, groups: int = 1, dilation: int = 1) -> Tensor:
        return F.conv2d(x, self.state[f"{path}.weight"], self.state.get(f"{path}.bias"), stride, pad, dilation, groups)

    def bn(self, x: Tensor, path: str) -> Tensor:
        gamma, beta, mean, var = (
            self.state[f"{path}.{name}"][:, None, None] for name in ("weight", "bias", "running_mean", "running_var")
        )
        return gamma * (x - mean) / (var + 1e-5) ** 0.5 + beta

    def conv_bn(self, x: Tensor, path: str, stride: int = 1, pad: int = 0) -> Tensor:
        return self.bn(self.conv(x, f"{path}.conv", stride, pad), f"{path}.bn")

    def fc(self, x: Tensor, path: str) -> Tensor:
        return x.flatten(1) @ self.state[f"{path}.weight"].T + self.state[f"{path}.bias"]


def check(plan: Plan, equation: Callable[[Weights, Tensor], Tensor]) -> None:
    """Assert that the built model computes the equation."""
    net, x = built(plan), images(plan)
    with torch.inference_mode():
        assert_same(logits(net, x), equation(Weights(net.state_dict()), x))
