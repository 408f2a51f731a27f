"""Darknet-19 and Darknet-53 compute what the paper's table and timm compute."""

from __future__ import annotations

import pytest
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from tests.support.numerics import Weights, assert_same, built, copy_by_position, foreign, images, logits
from tests.support.written import plan_of_model


def test_darknet53_s_logits_are_timm_s_with_its_weights_in_order() -> None:
    timm = pytest.importorskip("timm")

    def make() -> nn.Module:
        net: nn.Module = timm.create_model("darknet53")
        for module in net.modules():
            if isinstance(module, nn.LeakyReLU):
                module.negative_slope = 0.1  # as in Darknet's own code; timm has torch's 0.01
        return net

    plan = plan_of_model("darknet53", size=64)
    theirs = foreign(make)
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


def test_darknet19_is_its_table() -> None:
    """Redmon and Farhadi 2016, arXiv:1612.08242, Table 6."""

    def net(w: Weights, x: Tensor) -> Tensor:
        for stage, layers in enumerate((1, 1, 3, 3, 5, 5), start=1):
            if stage > 1:
                x = F.max_pool2d(x, 2, 2)
            for layer in range(layers):
                path, pad = f"conv{stage}.{layer + (stage > 1)}", 0 if layer % 2 else 1
                x = F.leaky_relu(w.conv_bn(x, path, 1, pad), 0.1)
        assert x.shape[1:] == (1024, 2, 2)
        return w.conv(x, "head.0.conv").mean((2, 3))

    plan = plan_of_model("darknet19", size=64)
    mine, x = built(plan), images(plan)
    assert_same(logits(mine, x).flatten(1), net(Weights(mine.state_dict()), x))
