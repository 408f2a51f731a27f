"""Built models compute what torchvision's, timm's and the papers' equations compute."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from tests.support.numerics import Weights, assert_same, built, check, copy_by_position, foreign, images, logits
from tests.support.written import plan_of, plan_of_model, row

# --- torchvision and timm ----------------------------------------------------------------------------------------


TORCHVISION = [
    "resnet18", "resnet34", "resnet50", "resnext50_32x4d",
    *(pytest.param(name, marks=pytest.mark.slow)  # the same code, more of it
      for name in ("resnet101", "resnet152", "resnext101_32x8d", "resnext101_64x4d")),
]  # fmt: skip


@pytest.mark.parametrize("name", TORCHVISION)
def test_logits_are_torchvision_s_with_its_weights_in_order(name: str) -> None:
    plan = plan_of_model(name, size=64)
    theirs = foreign(lambda: torchvision.models.get_model(name))
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


# --- the three forms of ResNeXt's Figure 3 -----------------------------------------------------------------------

FORMS = {
    "a": "[residual x 2: [sum of C: [1x1 d, 3x3 d /2, 1x1 32 bare], bn]]",
    "b": "[residual x 2: [concat of C: [1x1 d, 3x3 d /2], 1x1 32]]",
    "c": "[residual x 2: [1x1 C*d, 3x3 C*d C=C /2, 1x1 32]]",
}


def split(state: dict[str, Tensor], form: str, cardinality: int) -> dict[str, Tensor]:
    """Form c's weights as form a's or b's: the paths' parts of each layer, by name."""
    parts: dict[str, Tensor] = {}
    for key, value in state.items():
        match = re.fullmatch(r"(.*\.F)\.([012])\.(conv|bn)\.(.*)", key)
        if match is None:
            parts[key] = value
            continue
        block, layer, kind, name = match.groups()
        if layer == "2" and not (form == "a" and kind == "conv"):
            parts[f"{block}.1.{kind}.{name}"] = value
            continue
        along = 1 if layer == "2" else 0  # a path's last 1x1 reads its part of the channels
        pieces = value.chunk(cardinality, along) if value.dim() else [value] * cardinality
        for path, piece in enumerate(pieces):
            parts[f"{block}.0.branch{path}.{layer}.{kind}.{name}"] = piece
    return parts


@pytest.mark.parametrize("form", ["a", "b"])
@pytest.mark.parametrize("training", [False, True])
def test_a_block_s_equivalent_forms_give_equal_outputs(form: str, training: bool) -> None:
    plans = {key: row(items, input="16x9x9", let="{C: 4, d: 3}") for key, items in FORMS.items()}
    whole, parted = built(plans["c"]), built(plans[form], random=False)
    parted.load_state_dict(split(whole.state_dict(), form, 4))
    x = images(plans["c"])
    assert_same(logits(parted.train(training), x), logits(whole.train(training), x))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["a", "b"])
def test_a_model_s_equivalent_forms_give_equal_outputs(form: str) -> None:
    plan = plan_of_model("resnext50_32x4d", size=64)
    whole, parted = built(plan), built(plan_of_model(f"resnext50_32x4d_{form}", size=64), random=False)
    parted.load_state_dict(split(whole.state_dict(), form, 32))
    assert_same(logits(parted, images(plan)), logits(whole, images(plan)))


# --- the papers' equations ---------------------------------------------------------------------------------------


def test_option_a_is_the_cifar_model_of_the_paper() -> None:
    """He et al. 2015, 4.2 and 3.3: y = F(x) + x, with x subsampled and padded with zeros where the shape changes."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv_bn(x, "conv1.0", 1, 1).relu()
        for stage, channels in enumerate((16, 32, 64), start=2):
            for copy in range(3):
                path, stride = f"conv{stage}_x.0.{copy}", 2 if stage > 2 and copy == 0 else 1
                f = w.conv_bn(w.conv_bn(x, f"{path}.F.0", stride, 1).relu(), f"{path}.F.1", 1, 1)
                x = x[:, :, ::stride, ::stride]
                x = torch.cat([x, x.new_zeros(len(x), channels - x.shape[1], *x.shape[2:])], 1)
                x = (f + x).relu()
        return w.fc(x.mean((2, 3)), "head.1.fc")

    check(plan_of_model("cifar_resnet20", size=32), net)


def bottlenecks(w: Weights, x: Tensor, *, first: bool) -> Tensor:
    """ResNet-50 from conv2_x to its end; `first`: the stride in the first 1x1 (2015) or in the 3x3."""
    for stage, copies in enumerate((3, 4, 6, 3), start=2):
        for copy in range(copies):
            path, stride = f"conv{stage}_x.{int(stage == 2)}.{copy}", 2 if stage > 2 and copy == 0 else 1
            f = w.conv_bn(x, f"{path}.F.0", stride if first else 1).relu()
            f = w.conv_bn(f, f"{path}.F.1", 1 if first else stride, 1).relu()
            f = w.conv_bn(f, f"{path}.F.2")
            x = (f + (w.conv_bn(x, f"{path}.shortcut.0", stride) if copy == 0 else x)).relu()
    return w.fc(x.mean((2, 3)), "head.1.fc")


@pytest.mark.parametrize("name", ["resnet50_v1", "resnet50"])
def test_the_stride_of_a_bottleneck_stands_where_its_version_says(name: str) -> None:
    """He et al. 2015, Table 1, and Xie et al. 2017, Table 1."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = F.max_pool2d(w.conv_bn(x, "conv1.0", 2, 3).relu(), 3, 2, 1)
        return bottlenecks(w, x, first=name.endswith("_v1"))

    check(plan_of_model(name, size=64), net)


def test_a_pre_activation_model_is_identity_plus_f() -> None:
    """He et al. 2016, arXiv:1603.05027, eq. 5 and Figure 4(e); the first unit and those that change shape project."""

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv(x, "stem.0.conv", 1, 1)
        for stage in (1, 2):
            for copy in range(2):
                path, stride = f"stage{stage}.0.{copy}", stage if copy == 0 else 1
                active = w.bn(x, f"{path}.F.0.bn").relu()
                f = w.conv(active, f"{path}.F.0.conv", stride, 1)
                f = w.conv(w.bn(f, f"{path}.F.1.bn").relu(), f"{path}.F.1.conv", 1, 1)
                x = f + (w.conv(active, f"{path}.shortcut.0.conv", stride) if copy == 0 else x)
        x = w.bn(x, "head.0.bn").relu()
        return w.fc(x.mean((2, 3)), "head.3.fc")

    plan = plan_of("""
        input: 3x16x16
        classes: 10
        conv: bn relu conv
        residual: x + F
        table:
          stem:   3x3 16 bare
          stage1: [residual x 2: [3x3 32, 3x3 32]]
          stage2: [residual x 2: [3x3 64 /2, 3x3 64]]
          head:   [bn, relu, global avg, fc classes]
    """)
    check(plan, net)


@pytest.mark.parametrize("size", [8, 9])
def test_resnet_d_s_shortcut_averages_before_it_projects(size: int) -> None:
    """He et al. 2018, arXiv:1812.01187, Figure 2(c); an odd map's last row and column are averaged by themselves."""

    def net(w: Weights, x: Tensor) -> Tensor:
        f = w.conv_bn(x, "r.0.0.F.0").relu()
        f = w.conv_bn(f, "r.0.0.F.1", 2, 1).relu()
        f = w.conv_bn(f, "r.0.0.F.2")
        odd = size % 2
        ones = F.pad(torch.ones_like(x), (0, odd, 0, odd))
        mean = 4 * F.avg_pool2d(F.pad(x, (0, odd, 0, odd)), 2) / (4 * F.avg_pool2d(ones, 2))
        return (f + w.conv_bn(mean, "r.0.0.shortcut.1")).relu()

    items = "residual: [1x1 4, 3x3 4 /2, 1x1 16]"
    check(row(items, input=f"8x{size}x{size}", shortcut="[sxs avg /s ceil, 1x1]"), net)


def test_an_inception_module_concatenates_its_four_branches() -> None:
    """Szegedy et al. 2014, arXiv:1409.4842, Figure 2(b)."""

    def net(w: Weights, x: Tensor) -> Tensor:
        one = w.conv(x, "r.0.0.branch0.0.conv").relu()
        three = w.conv(w.conv(x, "r.0.0.branch1.0.conv").relu(), "r.0.0.branch1.1.conv", 1, 1).relu()
        five = w.conv(w.conv(x, "r.0.0.branch2.0.conv").relu(), "r.0.0.branch2.1.conv", 1, 2).relu()
        pooled = w.conv(F.max_pool2d(x, 3, 1, 1), "r.0.0.branch3.1.conv").relu()
        return torch.cat([one, three, five, pooled], 1)

    blocks = "{inception p1 r3 p3 r5 p5 pp: {concat: [1x1 p1, [1x1 r3, 3x3 p3], [1x1 r5, 5x5 p5], [3x3 max, 1x1 pp]]}}"
    check(row("inception 4 6 8 2 3 5", conv="conv relu", blocks=blocks), net)


def test_darknet_s_residual_adds_after_the_activation() -> None:
    """Redmon and Farhadi 2018, arXiv:1804.02767: x + F, where F ends in its own leaky activation."""

    def net(w: Weights, x: Tensor) -> Tensor:
        f = F.leaky_relu(w.conv_bn(x, "r.0.0.F.0"), 0.1)
        return x + F.leaky_relu(w.conv_bn(f, "r.0.0.F.1", 1, 1), 0.1)

    check(row("residual: [1x1 4, 3x3 8]", conv="conv bn leaky(0.1)", residual="x + F"), net)


def test_inception_resnet_scales_f_down_before_the_sum() -> None:
    """Szegedy et al. 2016, arXiv:1602.07261, 3.3 and Figure 16."""

    def net(w: Weights, x: Tensor) -> Tensor:
        one = w.conv_bn(x, "r.0.0.F.0.branch0.0").relu()
        three = w.conv_bn(w.conv_bn(x, "r.0.0.F.0.branch1.0").relu(), "r.0.0.F.0.branch1.1", 1, 1).relu()
        return (x + 0.17 * w.conv(torch.cat([one, three], 1), "r.0.0.F.1.conv")).relu()

    check(row("residual 0.17: [concat: [1x1 4, [1x1 4, 3x3 6]], 1x1 8 linear]"), net)


def test_a_plain_model_is_the_residual_model_without_its_sums() -> None:
    """He et al. 2015, Figure 3 (middle)."""

    def net(w: Weights, x: Tensor) -> Tensor:
        for copy in range(2):
            x = w.conv_bn(x, f"r.0.{copy}.F.0", 2 if copy == 0 else 1, 1).relu()
            x = w.conv_bn(x, f"r.0.{copy}.F.1", 1, 1).relu()
        return x

    check(row("residual x 2: [3x3 16 /2, 3x3 16]", residual="relu(F)"), net)


def test_a_depthwise_separable_convolution_sees_each_channel_by_itself() -> None:
    def net(w: Weights, x: Tensor) -> Tensor:
        weight = w.state["r.0.conv.weight"]
        maps = [F.conv2d(x[:, c : c + 1], weight[c : c + 1], None, 2, 1) for c in range(x.shape[1])]
        return w.conv_bn(w.bn(torch.cat(maps, 1), "r.0.bn").relu(), "r.1").relu()

    check(row("[3x3 dw /2, 1x1 16]"), net)


def test_a_dilated_convolution_reads_every_other_pixel() -> None:
    def net(w: Weights, x: Tensor) -> Tensor:
        weight = w.state["r.0.conv.weight"]
        spread = weight.new_zeros(*weight.shape[:2], 5, 5)
        spread[:, :, ::2, ::2] = weight
        return F.conv2d(x, spread, None, 1, 2)

    check(row("3x3 16 dil=2 bare"), net)


def test_local_response_normalisation_divides_by_neighbouring_channels() -> None:
    def net(w: Weights, x: Tensor) -> Tensor:
        around = [x[:, max(0, c - 2) : c + 3].square().sum(1) for c in range(x.shape[1])]
        return x / (2 + 0.1 / 5 * torch.stack(around, 1)) ** 0.75

    check(row("lrn 5 0.1 0.75 2"), net)


def test_an_average_leaves_padding_out_of_the_mean_unless_it_is_asked_in() -> None:
    def total(x: Tensor) -> Tensor:
        return 9 * F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 3, 1)

    check(row("3x3 avg"), lambda w, x: total(x) / total(torch.ones_like(x)))
    check(row("3x3 avg(pad)"), lambda w, x: total(x) / 9)


def test_auxiliary_heads_read_their_row_s_value() -> None:
    text = """
        input: 3x8x8
        classes: 5
        aux: {a: [global avg, fc classes]}
        table: {a: 3x3 8, b: 3x3 16 /2, head: [global avg, fc classes]}
    """
    plan = plan_of(text, aux=True)
    net, x = built(plan), images(plan)
    w = Weights(net.state_dict())
    with torch.inference_mode():
        a = w.conv_bn(x, "a.0", 1, 1).relu()
        y = w.fc(w.conv_bn(a, "b.0", 2, 1).relu().mean((2, 3)), "head.1.fc")
        got, got_aux = net(x)
        assert_same(got, y)
        assert_same(got_aux, w.fc(a.mean((2, 3)), "aux.a.1.fc"))


def test_an_aside_changes_nothing_of_what_is_passed_on() -> None:
    with_, without = row("[3x3 4, aside: [global avg, fc 5], 1x1 6]"), row("[3x3 4, 1x1 6]")
    net, alone = built(with_), built(without, random=False)
    state = {key.replace("r.2.", "r.1."): value for key, value in net.state_dict().items() if ".aside." not in key}
    alone.load_state_dict(state)
    assert_same(logits(net, images(with_)), logits(alone, images(with_)))
