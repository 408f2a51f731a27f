"""Inception v2 to v4 and the Inception-ResNets are torchvision's and timm's models and the papers' figures."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from tests.support.numerics import assert_same, built, copy_by_position, foreign, images, logits
from tests.support.written import ZOO, plan_of_model

SIZE = 107
"""Of images, where a net takes small ones: its smallest maps are then 2x2."""

# --- torchvision and timm ----------------------------------------------------------------------------------------


def test_inception_v3_and_its_auxiliary_head_are_torchvision_s_with_its_weights_in_order() -> None:
    """At full size: over anything smaller the head's 5x5 convolution finds no map of 5x5."""

    def make() -> nn.Module:
        net = torchvision.models.inception_v3(init_weights=False, aux_logits=True, transform_input=False)
        assert isinstance(net, nn.Module)
        return net

    theirs = foreign(make)
    plan = lower(read("inception_v3", zoo=ZOO), aux=True)
    net, x = built(plan, random=False), images(plan, batch=1)
    head_last = sorted(theirs.state_dict().items(), key=lambda item: item[0].startswith("AuxLogits."))
    copy_by_position(dict(head_last), net)  # torchvision's stands where it hangs from, ours after the model
    theirs.training = True  # of the model alone: it computes its head, with dropout and BN as in evaluation
    with torch.inference_mode():
        wanted, wanted_aux = theirs(x)
        got, got_aux = net(x)
    assert_same(got, wanted)
    assert_same(got_aux, wanted_aux)


@pytest.mark.parametrize("name", ["inception_resnet_v2", pytest.param("inception_v4", marks=pytest.mark.slow)])
def test_logits_are_timm_s_with_its_weights_in_order(name: str) -> None:
    timm = pytest.importorskip("timm")
    theirs = foreign(lambda: timm.create_model(name))
    plan = plan_of_model(name, size=SIZE)
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan, batch=1)), logits(theirs, images(plan, batch=1)))


# --- the papers' figures -----------------------------------------------------------------------------------------


class Drawn:
    """The boxes of the papers' figures, with a model's weights by path; epsilon is 0.001."""

    def __init__(self, state: dict[str, Tensor]) -> None:
        self.state = state

    def unit(self, x: Tensor, path: str, stride: int = 1, *, valid: bool = False) -> Tensor:
        """A convolution, normalised and activated; without padding if `valid`, else the size is kept."""
        weight = self.state[f"{path}.conv.weight"]
        pad = (0, 0) if valid else (weight.shape[2] // 2, weight.shape[3] // 2)
        mean, var, gamma, beta = (
            self.state[f"{path}.bn.{name}"] for name in ("running_mean", "running_var", "weight", "bias")
        )
        x = F.conv2d(x, weight, None, stride, pad)
        return F.batch_norm(x, mean, var, gamma, beta, eps=0.001).relu()

    def chain(self, x: Tensor, path: str, units: int) -> Tensor:
        for index in range(units):
            x = self.unit(x, f"{path}.{index}")
        return x

    def pooled(self, x: Tensor, path: str) -> Tensor:
        """A 3x3 mean, in which padding counts, and a 1x1."""
        return self.unit(F.avg_pool2d(x, 3, 1, 1), f"{path}.1")

    def halved(self, x: Tensor, path: str, units: Sequence[int]) -> Tensor:
        """Branches of so many units, of which each one's last has stride 2; beside them, last, a 3x3 maximum."""
        branches = [
            self.unit(
                self.chain(x, f"{path}.branch{index}", many - 1), f"{path}.branch{index}.{many - 1}", 2, valid=True
            )
            for index, many in enumerate(units)
        ]
        return torch.cat([*branches, F.max_pool2d(x, 3, 2)], 1)

    def spread(self, x: Tensor, path: str) -> Tensor:
        """1x3 and 3x1 side by side."""
        return torch.cat([self.unit(x, f"{path}.branch{index}.0") for index in range(2)], 1)

    def residual(self, x: Tensor, path: str, units: Sequence[int], scale: float) -> Tensor:
        """relu(x + scale * F), where F ends in a 1x1 that reads branches of so many units and has no activation."""
        f = torch.cat([self.chain(x, f"{path}.F.0.branch{i}", many) for i, many in enumerate(units)], 1)
        f = F.conv2d(f, self.state[f"{path}.F.1.conv.weight"], self.state[f"{path}.F.1.conv.bias"])
        return (x + scale * f).relu()

    def logits(self, x: Tensor, path: str) -> Tensor:
        return F.linear(x.mean((2, 3)), self.state[f"{path}.weight"], self.state[f"{path}.bias"])


def check_drawn(plan: Plan, figure: Callable[[Drawn, Tensor], Tensor]) -> None:
    net, x = built(plan), images(plan)
    with torch.inference_mode():
        assert_same(logits(net, x), figure(Drawn(net.state_dict()), x))


def test_inception_v2_is_the_outline_of_its_paper() -> None:
    """Szegedy et al. 2015, arXiv:1512.00567, Table 1 and Figures 5, 6, 7 and 10."""

    def net(d: Drawn, x: Tensor) -> Tensor:
        x = d.unit(x, "conv1.0", 2, valid=True)
        x = d.unit(x, "conv2.0", valid=True)
        x = F.max_pool2d(d.unit(x, "conv3.0"), 3, 2)
        x = d.unit(x, "conv4.0", valid=True)
        x = d.unit(x, "conv5.0", 2, valid=True)
        x = d.unit(x, "conv6.0")
        for copy in range(3):
            path = f"figure5.0.{copy}.0.branch"
            x = torch.cat([*(d.chain(x, f"{path}{i}", 1 + i) for i in range(3)), d.pooled(x, f"{path}3")], 1)
        x = d.halved(x, "reduce1.0", (1, 3))
        for module in range(5):
            path = f"figure6.{module}.0.branch"
            x = torch.cat([*(d.chain(x, f"{path}{i}", 1 + 2 * i) for i in range(3)), d.pooled(x, f"{path}3")], 1)
        x = d.halved(x, "reduce2.0", (2, 4))
        for copy in range(2):
            path = f"figure7.0.{copy}.0.branch"
            three = d.spread(d.chain(x, f"{path}1", 1), f"{path}1.1")
            double = d.spread(d.chain(x, f"{path}2", 2), f"{path}2.2")
            x = torch.cat([d.unit(x, f"{path}0.0"), three, double, d.pooled(x, f"{path}3")], 1)
        return d.logits(x, "head.1.fc")

    check_drawn(plan_of_model("inception_v2", size=SIZE), net)


def test_inception_resnet_v1_is_its_paper_s_drawing() -> None:
    """Szegedy et al. 2016, arXiv:1602.07261, Figures 7 and 10 to 15."""

    def net(d: Drawn, x: Tensor) -> Tensor:
        x = d.unit(x, "stem1.0", 2, valid=True)
        x = d.unit(x, "stem1.1", valid=True)
        x = F.max_pool2d(d.unit(x, "stem1.2"), 3, 2)
        x = d.unit(x, "stem2.0")
        x = d.unit(x, "stem2.1", valid=True)
        x = d.unit(x, "stem2.2", 2, valid=True)
        for copy in range(5):
            x = d.residual(x, f"inception_resnet_a.0.{copy}.0.0", (1, 2, 3), 0.17)
        x = d.halved(x, "reduction_a.0.0", (1, 3))
        for copy in range(10):
            x = d.residual(x, f"inception_resnet_b.0.{copy}.0.0", (1, 3), 0.10)
        x = d.halved(x, "reduction_b.0.0", (2, 2, 3))
        for copy in range(5):
            x = d.residual(x, f"inception_resnet_c.0.{copy}.0.0", (1, 3), 0.20)
        return d.logits(x, "head.2.fc")

    check_drawn(plan_of_model("inception_resnet_v1", size=SIZE), net)
