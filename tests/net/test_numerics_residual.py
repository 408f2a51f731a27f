"""Wide, pre-activation and bottleneck models of the zoo compute what torchvision, timm and their papers compute."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from tests.support.numerics import Weights, assert_same, built, check, copy_by_position, foreign, images, logits
from tests.support.written import ops, plan_of_model

# --- torchvision and timm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["wide_resnet50_2", pytest.param("wide_resnet101_2", marks=pytest.mark.slow)])
def test_a_wide_resnet_s_logits_are_torchvision_s(name: str) -> None:
    plan = plan_of_model(name, size=64)
    theirs = foreign(lambda: torchvision.models.get_model(name))
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


TIMM = [
    ("resnet50d", "resnet50d"),
    ("preact_resnet50", "resnetv2_50"),
    *(pytest.param(*names, marks=pytest.mark.slow)  # the same code, more of it
      for names in (("resnet50c", "resnet50c"), ("resnet101d", "resnet101d"),
                    ("preact_resnet101", "resnetv2_101"), ("preact_resnet152", "resnetv2_152"),
                    ("resnext101_32x4d", "resnext101_32x4d"))),
]  # fmt: skip


@pytest.mark.parametrize(("name", "twin"), TIMM)
def test_logits_are_timm_s_with_its_weights_in_order(name: str, twin: str) -> None:
    """timm's pre-activation stem has its BN behind the pooling: the same, as long as no weight of it is negative."""
    timm = pytest.importorskip("timm")
    plan = plan_of_model(name, size=75)  # odd maps, of which ResNet-D's pooling has to round the size
    theirs = foreign(lambda: timm.create_model(twin))
    net = built(plan, random=False)
    copy_by_position(projections_last(theirs.state_dict()), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


def projections_last(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """In each block, as here and in torchvision; timm's pre-activation blocks begin with theirs."""
    blocks = [re.sub(r"(blocks\.\d+|layer\d\.\d+)\..*", r"\1", key) for key in state]
    places = {block: place for place, block in reversed(list(enumerate(blocks)))}
    order = sorted(zip(blocks, state, strict=True), key=lambda pair: (places[pair[0]], ".downsample." in pair[1]))
    return {key: state[key] for _, key in order}


# --- the papers' equations ---------------------------------------------------------------------------------------


def first_and_later(copies: int, stage: int) -> list[tuple[int, int]]:
    """The copies of a stage's unit, each with its stride: 2 in the first, but not where the size is kept."""
    return [(copy, 2 if copy == 0 and stage > 2 else 1) for copy in range(copies)]


def test_the_pre_activation_model_of_imagenet_is_the_paper_s() -> None:
    """He et al. 2016, arXiv:1603.05027, eq. 5 and the appendix: activations also right after conv1 and at the end."""
    plan = plan_of_model("preact_resnet50", size=64)
    net, x = built(plan), images(plan)
    state = net.state_dict()
    with torch.inference_mode():
        state["conv1.1.bn.weight"][::2].neg_()  # or it would not matter whether the BN stands before the pooling
        w = Weights(state)
        y = F.max_pool2d(w.bn(w.conv(x, "conv1.0.conv", 2, 3), "conv1.1.bn").relu(), 3, 2, 1)
        for stage, copies in enumerate((3, 4, 6, 3), start=2):
            for copy, stride in first_and_later(copies, stage):
                path = f"conv{stage}_x.{int(stage == 2)}.{copy}"
                active = y if (stage, copy) == (2, 0) else w.bn(y, f"{path}.F.0.bn").relu()
                f = w.conv(active, f"{path}.F.0.conv")
                f = w.conv(w.bn(f, f"{path}.F.1.bn").relu(), f"{path}.F.1.conv", stride, 1)
                f = w.conv(w.bn(f, f"{path}.F.2.bn").relu(), f"{path}.F.2.conv")
                y = f + (w.conv(active, f"{path}.shortcut.0.conv", stride) if copy == 0 else y)
        y = w.bn(y, "head.0.bn").relu()
        assert_same(logits(net, x), w.fc(y.mean((2, 3)), "head.3.fc"))


def test_the_cifar_bottleneck_strides_in_its_first_1x1() -> None:
    """He et al. 2016, arXiv:1603.05027, ResNet-164 with original units: 9n+2 layers, here n = 2."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv_bn(x, "conv1.0", 1, 1).relu()
        for stage in (2, 3, 4):
            for copy, stride in first_and_later(2, stage):
                path = f"conv{stage}_x.0.{copy}"
                f = w.conv_bn(x, f"{path}.F.0", stride).relu()
                f = w.conv_bn(f, f"{path}.F.1", 1, 1).relu()
                f = w.conv_bn(f, f"{path}.F.2")
                x = (f + (w.conv_bn(x, f"{path}.shortcut.0", stride) if copy == 0 else x)).relu()
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model("cifar_resnet164", depth=20), net)


def test_the_pre_activation_bottleneck_of_cifar_shares_its_input_with_the_projection() -> None:
    """He et al. 2016, arXiv:1603.05027, ResNet-164: one BN and ReLU before both paths, none on the projection."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv(x, "conv1.0.conv", 1, 1)
        for stage in (2, 3, 4):
            for copy, stride in first_and_later(2, stage):
                path = f"conv{stage}_x.0.{copy}"
                active = w.bn(x, f"{path}.F.0.bn").relu()
                f = w.conv(active, f"{path}.F.0.conv", stride)
                f = w.conv(w.bn(f, f"{path}.F.1.bn").relu(), f"{path}.F.1.conv", 1, 1)
                f = w.conv(w.bn(f, f"{path}.F.2.bn").relu(), f"{path}.F.2.conv")
                x = f + (w.conv(active, f"{path}.shortcut.0.conv", stride) if copy == 0 else x)
        x = w.bn(x, "head.0.bn").relu()
        return w.fc(x.mean((2, 3)), "head.3.fc")

    check(plan_of_model("cifar_preact_resnet164", depth=20), net)


def test_the_pre_activation_model_with_option_a_pads_the_activated_input() -> None:
    """He et al. 2016, arXiv:1603.05027, ResNet-110, as in fb.resnet.torch: 6n+2 layers, here n = 2."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv(x, "conv1.0.conv", 1, 1)
        for stage, channels in enumerate((16, 32, 64), start=2):
            x = w.bn(x, f"conv{stage}_x.0.bn").relu()
            for copy, stride in first_and_later(2, stage):
                path = f"conv{stage}_x.2.{copy}"
                active = x if copy == 0 else w.bn(x, f"{path}.F.0.bn").relu()
                f = w.conv(active, f"{path}.F.0.conv", stride, 1)
                f = w.conv(w.bn(f, f"{path}.F.1.bn").relu(), f"{path}.F.1.conv", 1, 1)
                x = x[:, :, ::stride, ::stride]
                x = f + torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], 1)
        x = w.bn(x, "head.0.bn").relu()
        return w.fc(x.mean((2, 3)), "head.3.fc")

    check(plan_of_model("cifar_preact_resnet110", depth=14), net)


@pytest.mark.parametrize(
    ("name", "second"), [("wrn_28_10", ("1.bn", "1.conv")), ("wrn_28_10_dropout", ("1.bn", "4.conv"))]
)
def test_a_wide_residual_model_is_the_paper_s(name: str, second: tuple[str, str]) -> None:
    """Zagoruyko and Komodakis 2016, arXiv:1605.07146, Table 1; in evaluation dropout does nothing. Here n = 2."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv(x, "conv1.0.conv", 1, 1)
        for stage in (2, 3, 4):
            for copy, stride in first_and_later(2, stage):
                path = f"conv{stage}.0.{copy}"
                bn, conv = (f"{path}.F.{layer}" for layer in second)
                active = w.bn(x, f"{path}.F.0.bn").relu()
                f = w.conv(active, f"{path}.F.0.conv", stride, 1)
                f = w.conv(w.bn(f, bn).relu(), conv, 1, 1)
                x = f + (w.conv(active, f"{path}.shortcut.0.conv", stride) if copy == 0 else x)
        x = w.bn(x, "head.0.bn").relu()
        return w.fc(x.mean((2, 3)), "head.3.fc")

    check(plan_of_model(name, depth=16, k=2), net)


def test_a_wide_residual_model_as_wide_as_the_thin_one_projects_only_where_the_size_changes() -> None:
    """As the authors' code, which compares the numbers of channels."""
    paths = [step.path for step in plan_of_model("wrn_28_10", depth=10, k=1).steps]
    assert [path for path in paths if ".shortcut." in path] == [
        "conv3.0.0.shortcut.0.conv",
        "conv4.0.0.shortcut.0.conv",
    ]


def test_a_wide_residual_model_s_dropout_stands_behind_the_relu_before_each_second_convolution() -> None:
    kinds = [type(op).__name__ for op in ops(plan_of_model("wrn_28_10_dropout"))]
    assert kinds.count("Dropout") == 12
    around = {tuple(kinds[i - 4 : i + 2]) for i, kind in enumerate(kinds) if kind == "Dropout"}
    assert around == {("ReLU", "Conv", "BatchNorm", "ReLU", "Dropout", "Conv")}


def test_the_cifar_resnext_aggregates_its_paths() -> None:
    """Xie et al. 2017, arXiv:1611.05431, eq. 2 and 5.3: a sum over C paths of 1x1, 3x3, 1x1; here 3 of width 4."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv_bn(x, "conv1.0", 1, 1).relu()
        for stage in (2, 3, 4):
            path, stride = f"conv{stage}.0.0", 2 if stage > 2 else 1
            before, inside, after = (w.state[f"{path}.F.{layer}.conv.weight"] for layer in range(3))
            wide = w.bn(F.conv2d(x, before), f"{path}.F.0.bn").relu()
            parts = zip(wide.chunk(3, 1), inside.chunk(3), strict=True)
            paths = torch.cat([F.conv2d(part, weight, None, stride, 1) for part, weight in parts], 1)
            paths = w.bn(paths, f"{path}.F.1.bn").relu()
            ends = zip(paths.chunk(3, 1), after.chunk(3, 1), strict=True)
            f = torch.stack([F.conv2d(end, weight) for end, weight in ends]).sum(0)
            x = (w.bn(f, f"{path}.F.2.bn") + w.conv_bn(x, f"{path}.shortcut.0", stride)).relu()
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model("cifar_resnext29_8x64d", depth=11, C=3, d=4), net)
