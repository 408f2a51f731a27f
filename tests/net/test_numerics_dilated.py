"""Dilated models compute what the released DRN code and torchvision compute."""

from __future__ import annotations

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from tests.support.numerics import Weights, assert_same, built, check, copy_by_position, foreign, images, logits
from tests.support.written import plan_of, plan_of_model

SIZE = 64
"""Dilation 4 meets maps of 8 x 8: some taps lie inside, others in the padding."""


def conv_bn(w: Weights, x: Tensor, path: str, stride: int = 1, dilation: int = 1) -> Tensor:
    """Padded as the released code does: by the dilation for a 3x3, not at all for a 1x1."""
    pad = w.state[f"{path}.conv.weight"].shape[2] // 2 * dilation
    return w.bn(w.conv(x, f"{path}.conv", stride, pad, dilation=dilation), f"{path}.bn")


def block(w: Weights, x: Tensor, path: str, stride: int = 1, dilation: int = 1) -> Tensor:
    """A basic block, or a bottleneck with its stride in the 3x3; the shortcut is projected where there is a weight."""
    if f"{path}.F.2.conv.weight" in w.state:
        f = conv_bn(w, x, f"{path}.F.0").relu()
        f = conv_bn(w, f, f"{path}.F.1", stride, dilation).relu()
        f = conv_bn(w, f, f"{path}.F.2")
    else:
        f = conv_bn(w, x, f"{path}.F.0", stride, dilation).relu()
        f = conv_bn(w, f, f"{path}.F.1", 1, dilation)
    if f"{path}.shortcut.0.conv.weight" in w.state:
        x = conv_bn(w, x, f"{path}.shortcut.0", stride)
    return (f + x).relu()


def slow(*names: str) -> list[object]:
    """The same code, more of it."""
    return [pytest.param(name, marks=pytest.mark.slow) for name in names]


# --- DRN ---------------------------------------------------------------------------------------------------------

BLOCKS = {
    18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 26: (2, 2, 2, 2), 42: (3, 4, 6, 3), 58: (3, 4, 6, 3),
    22: (2, 2, 2, 2), 24: (2, 2, 2, 2), 38: (3, 4, 6, 3), 40: (3, 4, 6, 3), 54: (3, 4, 6, 3), 56: (3, 4, 6, 3),
    105: (3, 4, 23, 3), 107: (3, 4, 23, 3),
}  # fmt: skip
"""Residual blocks in the four stages that a DRN has in common with a ResNet, by its depth."""


@pytest.mark.parametrize("name", ["drn_a_50", *slow("drn_a_18", "drn_a_34")])
def test_drn_a_is_a_resnet_whose_last_strides_became_dilations(name: str) -> None:
    """Yu et al. 2017, arXiv:1705.09914, and `DRN_A` in github.com/fyu/drn: the first block of a stage is undilated."""
    blocks = BLOCKS[int(name.rpartition("_")[2])]

    def net(w: Weights, x: Tensor) -> Tensor:
        x = F.max_pool2d(conv_bn(w, x, "conv1.0", 2).relu(), 3, 2, 1)
        for copy in range(blocks[0]):
            x = block(w, x, f"conv2_x.1.{copy}")
        for copy in range(blocks[1]):
            x = block(w, x, f"conv3_x.0.{copy}", 1 if copy else 2)
        for stage, copies, dilation in ((4, blocks[2], 2), (5, blocks[3], 4)):
            x = block(w, x, f"conv{stage}_x.0.0")
            for copy in range(copies - 1):
                x = block(w, x, f"conv{stage}_x.1.{copy}", 1, dilation)
        assert x.shape[2:] == (SIZE // 8, SIZE // 8)
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model(name, size=SIZE), net)


def middle(w: Weights, x: Tensor, blocks: tuple[int, ...]) -> Tensor:
    """Levels 3 to 6, which DRN-C and DRN-D have in common."""
    strides, dilations = (2, 2, 1, 1), (1, 1, 2, 4)
    for level, copies, stride, dilation in zip((3, 4, 5, 6), blocks, strides, dilations, strict=True):
        for copy in range(copies):
            x = block(w, x, f"level{level}.0.{copy}", 1 if copy else stride, dilation)
    return x


@pytest.mark.parametrize("name", ["drn_c_26", *slow("drn_c_42", "drn_c_58")])
def test_drn_c_ends_in_blocks_without_shortcuts(name: str) -> None:
    """Yu et al. 2017, arXiv:1705.09914, Section 4, and `DRN(arch='C')` in github.com/fyu/drn."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = conv_bn(w, x, "conv1.0").relu()
        x = block(w, x, "level1.0.0")
        x = block(w, x, "level2.0.0", 2)
        x = middle(w, x, BLOCKS[int(name.rpartition("_")[2])])
        first = int(name == "drn_c_58")  # behind the projection that is thrown away
        x = conv_bn(w, x, f"level7.{first}", 1, 2).relu()
        x = conv_bn(w, x, f"level7.{first + 1}", 1, 2).relu()
        x = conv_bn(w, conv_bn(w, x, "level8.0").relu(), "level8.1").relu()
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model(name, size=SIZE), net)


D = ["drn_d_22", "drn_d_54", *slow("drn_d_24", "drn_d_38", "drn_d_40", "drn_d_56", "drn_d_105", "drn_d_107")]


@pytest.mark.parametrize("name", D)
def test_drn_d_has_plain_convolutions_at_both_ends(name: str) -> None:
    """`DRN(arch='D')` in github.com/fyu/drn."""
    depth = int(name.rpartition("_")[2])

    def net(w: Weights, x: Tensor) -> Tensor:
        for row, stride in (("conv1", 1), ("level1", 1), ("level2", 2)):
            x = conv_bn(w, x, f"{row}.0", stride).relu()
        x = middle(w, x, BLOCKS[depth])
        for level, dilation in ((7, 2), (8, 1)):
            for copy in range(2 if depth in (24, 40, 56, 107) else 1):
                x = conv_bn(w, x, f"level{level}.{copy}", 1, dilation).relu()
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model(name, size=SIZE), net)


# --- ResNets of a smaller output stride --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resnet50_os8", *slow("resnet50_os16", "resnet101_os16", "resnet101_os8")])
def test_logits_are_torchvision_s_with_dilation_in_the_place_of_strides(name: str) -> None:
    resnet, _, stride = name.partition("_os")
    plan = plan_of_model(name, size=SIZE)
    dilated = [False, stride == "8", True]
    theirs = foreign(lambda: torchvision.models.get_model(resnet, replace_stride_with_dilation=dilated))
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


@pytest.mark.parametrize("stride", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_a_dilated_model_computes_what_the_strided_one_does_and_the_places_between(stride: int) -> None:
    """The maps of ResNet-50, at output stride 32, are every second or fourth pixel of its dilated form's."""
    strided, dilated = (
        plan_of(f"{{extends: {name}, input: 3x96x96, table: {{head: null}}}}")
        for name in ("resnet50", f"resnet50_os{stride}")
    )
    net, other = built(strided), built(dilated, random=False)
    copy_by_position(net.state_dict(), other)
    step = 32 // stride
    with torch.inference_mode():
        assert_same(logits(other, images(strided))[:, :, ::step, ::step], logits(net, images(strided)))
