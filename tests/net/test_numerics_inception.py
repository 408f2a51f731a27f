"""GoogLeNet, BN-Inception and their modules compute what torchvision's model and the papers' figures say."""

from __future__ import annotations

import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.ops import Shape
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from tests.support.numerics import Weights, assert_same, built, check, copy_by_position, foreign, images, logits
from tests.support.written import ZOO, plan_of, plan_of_model


def plan_with_heads(name: str, size: int) -> Plan:
    return lower(read(name, zoo=ZOO, input=Shape(3, size, size)), aux=True)


def outputs(net: torch.nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        found = net(x)
    assert isinstance(found, tuple)
    return found


def test_googlenet_with_bn_is_torchvision_s_with_its_weights_in_order() -> None:
    def make() -> torch.nn.Module:
        net = torchvision.models.googlenet(init_weights=False, transform_input=False, aux_logits=True)
        assert isinstance(net, torch.nn.Module)
        return net

    plan = plan_with_heads("googlenet_bn", 96)
    theirs = foreign(make)
    heads_last = sorted(theirs.state_dict().items(), key=lambda item: item[0].startswith("aux"))
    net, x = built(plan, random=False), images(plan)
    copy_by_position(dict(heads_last), net)
    theirs.training = True  # of the model alone: it computes its heads, with dropout and BN as in evaluation
    wanted, wanted_4d, wanted_4a = outputs(theirs, x)
    got, got_4a, got_4d = outputs(net, x)
    assert_same(got, wanted)
    assert_same(got_4a, wanted_4a)
    assert_same(got_4d, wanted_4d)


def test_googlenet_with_bn_computes_the_same_without_its_heads() -> None:
    with_heads = built(plan_with_heads("googlenet_bn", 64))
    alone = built(plan_of_model("googlenet_bn", size=64), random=False)
    alone.load_state_dict({key: value for key, value in with_heads.state_dict().items() if not key.startswith("aux.")})
    x = images(plan_of_model("googlenet_bn", size=64))
    assert_same(logits(alone, x), outputs(with_heads, x)[0])


def inception(w: Weights, x: Tensor, path: str) -> Tensor:
    """Szegedy et al. 2014, arXiv:1409.4842, Figure 2(b)."""
    one = w.conv(x, f"{path}.branch0.0.conv").relu()
    three = w.conv(w.conv(x, f"{path}.branch1.0.conv").relu(), f"{path}.branch1.1.conv", 1, 1).relu()
    five = w.conv(w.conv(x, f"{path}.branch2.0.conv").relu(), f"{path}.branch2.1.conv", 1, 2).relu()
    pooled = w.conv(F.max_pool2d(x, 3, 1, 1), f"{path}.branch3.1.conv").relu()
    return torch.cat([one, three, five, pooled], 1)


def halved(x: Tensor) -> Tensor:
    """The maximum of 3x3 windows at stride 2, the last of which may hang over the edge."""
    over = [(-(size - 3)) % 2 for size in x.shape[2:]]
    return F.max_pool2d(F.pad(x, (0, over[1], 0, over[0]), value=-torch.inf), 3, 2)


def test_googlenet_is_the_paper_s_with_its_auxiliary_heads() -> None:
    """Szegedy et al. 2014, arXiv:1409.4842, Table 1, Figure 3 and Section 5."""

    def normalised(x: Tensor) -> Tensor:
        around = [x[:, max(0, c - 2) : c + 3].square().sum(1) for c in range(x.shape[1])]
        return x / (1 + 0.0001 / 5 * torch.stack(around, 1)) ** 0.75

    def head(w: Weights, x: Tensor, path: str) -> Tensor:
        x = w.conv(F.avg_pool2d(x, 5, 3), f"{path}.1.conv").relu()
        return w.fc(w.fc(x, f"{path}.2.fc").relu(), f"{path}.5.fc")

    def net(w: Weights, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = normalised(halved(w.conv(x, "conv1.0.conv", 2, 3).relu()))
        x = w.conv(x, "conv2.0.conv").relu()
        x = halved(normalised(w.conv(x, "conv2.1.conv", 1, 1).relu()))
        maps: dict[str, Tensor] = {}
        for row in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
            if row in ("4a", "5a"):
                x = halved(x)
            x = maps[row] = inception(w, x, f"{row}.0.0")
        return w.fc(x.mean((2, 3)), "head.2.fc"), head(w, maps["4a"], "aux.4a"), head(w, maps["4d"], "aux.4d")

    plan = plan_with_heads("googlenet", 128)
    built_net, x = built(plan), 100 * images(plan)  # of a photograph's range, for which the normalisation is made
    with torch.inference_mode():
        wanted = net(Weights(built_net.state_dict()), x)
    for got, want in zip(outputs(built_net, x), wanted, strict=True):
        assert_same(got, want)


def test_the_module_by_itself_is_googlenet_s() -> None:
    check(plan_of_model("inception_3a"), lambda w, x: inception(w, x, "3a.0"))


def test_the_naive_module_is_one_whose_reductions_reduce_nothing() -> None:
    """Szegedy et al. 2014, arXiv:1409.4842, Figure 2: (a) is (b) with each 1x1 reduction the identity."""
    plan = plan_of_model("inception_3a_naive")
    unreduced = plan_of("""
        extends: inception_3a
        table:
          3a: [concat: [1x1 64, [1x1 192, 3x3 128], [1x1 192, 5x5 32], [3x3 max, 1x1 192]]]
    """)
    naive, net = built(plan), built(unreduced, random=False)
    state = {key.replace("1.0.conv", "1.1.conv").replace("2.0.conv", "2.1.conv"): value
             for key, value in naive.state_dict().items()}  # fmt: skip
    for reduction in ("branch1.0", "branch2.0", "branch3.1"):
        state[f"3a.0.{reduction}.conv.weight"] = torch.eye(192)[:, :, None, None]
        state[f"3a.0.{reduction}.conv.bias"] = torch.zeros(192)
    net.load_state_dict(state)
    x = images(plan).relu()  # as from the layer before, so that the reductions' own activation changes nothing
    assert_same(logits(naive, x), logits(net, x))


def test_bn_inception_is_the_paper_s() -> None:
    """Ioffe and Szegedy 2015, arXiv:1502.03167, Figure 5; averages count their padding."""

    def averaged(x: Tensor) -> Tensor:
        return F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)

    def module(w: Weights, x: Tensor, path: str, *, average: bool) -> Tensor:
        one = w.conv_bn(x, f"{path}.branch0.0").relu()
        three = w.conv_bn(w.conv_bn(x, f"{path}.branch1.0").relu(), f"{path}.branch1.1", 1, 1).relu()
        double = w.conv_bn(w.conv_bn(x, f"{path}.branch2.0").relu(), f"{path}.branch2.1", 1, 1).relu()
        double = w.conv_bn(double, f"{path}.branch2.2", 1, 1).relu()
        pooled = averaged(x) if average else F.max_pool2d(x, 3, 1, 1)
        return torch.cat([one, three, double, w.conv_bn(pooled, f"{path}.branch3.1").relu()], 1)

    def halving(w: Weights, x: Tensor, path: str) -> Tensor:
        three = w.conv_bn(w.conv_bn(x, f"{path}.branch0.0").relu(), f"{path}.branch0.1", 2, 1).relu()
        double = w.conv_bn(w.conv_bn(x, f"{path}.branch1.0").relu(), f"{path}.branch1.1", 1, 1).relu()
        double = w.conv_bn(double, f"{path}.branch1.2", 2, 1).relu()
        return torch.cat([three, double, halved(x)], 1)

    def net(w: Weights, x: Tensor) -> Tensor:
        x = halved(w.conv_bn(x, "conv1.0", 2, 3).relu())
        x = halved(w.conv_bn(w.conv_bn(x, "conv2.0").relu(), "conv2.1", 1, 1).relu())
        for row in ("3a", "3b", "3c", "4a", "4b", "4c", "4d", "4e", "5a"):
            path = f"{row}.0.0"
            x = halving(w, x, path) if row in ("3c", "4e") else module(w, x, path, average=True)
        x = module(w, x, "5b.0", average=False)
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model("bn_inception", size=96), net)
