"""VGG, AlexNet, PReLU-net and the detectors compute what torchvision's models and the papers' equations compute."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from tests.support.numerics import Weights, assert_same, built, check, copy_by_position, foreign, images, logits
from tests.support.written import plan_of_model

# --- torchvision -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("alexnet", 64),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in [("vgg16_bn", 64), ("vgg19_bn", 64), ("vgg16", 224), ("vgg19", 224)]
        ),
    ],
)
def test_logits_are_torchvision_s_with_its_weights_in_order(name: str, size: int) -> None:
    plan = plan_of_model(name, size=size)
    theirs, x = foreign(lambda: torchvision.models.get_model(name)), images(plan, batch=1)
    wanted = logits(theirs, x)
    net = built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    del theirs
    assert_same(logits(net, x), wanted)


@pytest.mark.parametrize("name", ["vgg16", pytest.param("vgg19", marks=pytest.mark.slow)])
def test_vgg_flattens_whatever_size_its_maps_have(name: str) -> None:
    plan = plan_of_model(name, size=64)

    def make() -> nn.Module:
        vgg = torchvision.models.get_model(name)
        vgg.avgpool = nn.Identity()
        vgg.classifier[0] = nn.Linear(512 * 2 * 2, 4096)
        assert isinstance(vgg, nn.Module)
        return vgg

    theirs, net = foreign(make), built(plan, random=False)
    copy_by_position(theirs.state_dict(), net)
    assert_same(logits(net, images(plan)), logits(theirs, images(plan)))


# --- the papers' equations ---------------------------------------------------------------------------------------


def test_the_alexnet_of_2012_has_two_towers_and_the_paper_s_response_normalisation() -> None:
    """Krizhevsky et al. 2012, Figure 2 and 3.3: b = a / (2 + 0.0001 * sum over 5 channels of a^2)^0.75."""

    def halves(w: Weights, inputs: list[Tensor], path: str, stride: int = 1, pad: int = 0) -> list[Tensor]:
        """Both GPUs' kernels of a layer, each on its own input."""
        weights, biases = (w.state[f"{path}.conv.{name}"].chunk(2) for name in ("weight", "bias"))
        return [F.conv2d(*parts, stride, pad).relu() for parts in zip(inputs, weights, biases, strict=True)]

    def normalised(towers: list[Tensor]) -> list[Tensor]:
        a = torch.cat(towers, 1)
        around = [a[:, max(0, c - 2) : c + 3].square().sum(1) for c in range(a.shape[1])]
        return list((a / (2 + 0.0001 * torch.stack(around, 1)) ** 0.75).chunk(2, 1))

    def pooled(towers: list[Tensor]) -> list[Tensor]:
        return [F.max_pool2d(tower, 3, 2) for tower in towers]

    def net(w: Weights, x: Tensor) -> Tensor:
        towers = pooled(normalised(halves(w, [x, x], "conv1.0", 4)))
        towers = pooled(normalised(halves(w, towers, "conv2.0", 1, 2)))
        both = torch.cat(towers, 1)  # conv3 alone reads the other tower's maps
        towers = halves(w, [both, both], "conv3.0", 1, 1)
        towers = halves(w, towers, "conv4.0", 1, 1)
        towers = pooled(halves(w, towers, "conv5.0", 1, 1))
        y = w.fc(torch.cat(towers, 1), "fc6.0.fc").relu()
        return w.fc(w.fc(y, "fc7.0.fc").relu(), "fc8.0.fc")

    plan = plan_of_model("alexnet_2012", size=99)  # at which the last maps are 2x2
    ours, x = built(plan), 50 * images(plan)  # large enough for alpha to matter
    with torch.inference_mode():
        assert_same(logits(ours, x), net(Weights(ours.state_dict()), x))


def test_a_prelu_model_has_slopes_for_channels_and_a_pyramid_of_maxima() -> None:
    """He et al. 2015, arXiv:1502.01852, eq. 1 and Table 3; the pyramid: He et al. 2014, arXiv:1406.4729, 2.2."""

    def layer(w: Weights, x: Tensor, path: str, stride: int, pad: int) -> Tensor:
        y = w.conv(x, f"{path}.conv", stride, pad)
        slope = w.state[f"{path}.prelu.weight"][:, None, None]
        return y.clamp(min=0) + slope * y.clamp(max=0)

    def pyramid(x: Tensor) -> Tensor:
        size = x.shape[-1]
        vectors = []
        for level in (7, 3, 2, 1):
            spans = [slice(i * size // level, -(-(i + 1) * size // level)) for i in range(level)]
            maxima = [x[:, :, rows, columns].amax((2, 3)) for rows in spans for columns in spans]
            vectors.append(torch.stack(maxima, 2).flatten(1))
        return torch.cat(vectors, 1)

    def net(w: Weights, x: Tensor) -> Tensor:
        x = layer(w, x, "conv1.0", 2, 3)
        for row in ("conv2", "conv3", "conv4"):
            x = F.max_pool2d(x, 2)
            for copy in range(2):
                x = layer(w, x, f"{row}.1.{copy}", 1, 1)
        assert x.shape[-1] == 10  # no level but 2 and 1 divides it
        y = w.fc(pyramid(x), "fc1.0.fc").relu()
        return w.fc(w.fc(y, "fc2.0.fc").relu(), "fc3.0.fc")

    check(plan_of_model("prelu_net_a", size=160, n=2, c2=8, c3=12, c4=16), net)


# --- detectors ---------------------------------------------------------------------------------------------------

Head = Callable[[Tensor], Tensor]
REGIONS = 3


def regions_one_by_one(x: Tensor, size: int, head: Head) -> Tensor:
    """The head's outputs for the fixed boxes of each image in turn, every region cut out and run by itself.

    A sample at (u, v) weighs pixel (i, j) by max(0, 1 - |u - i|) * max(0, 1 - |v - j|): He et al. 2017,
    arXiv:1703.06870, 3, and Dai et al. 2016, arXiv:1605.06409, eq. 4.
    """
    draw = random.Random(0).uniform
    boxes = [[sorted(draw(-1, 1) for _ in range(2)) for _ in ("across", "down")] for _ in range(REGIONS)]

    def weights(low: float, high: float, pixels: int) -> Tensor:
        """(size, pixels): each bin's centre against each pixel's."""
        centres = low + (high - low) * (torch.arange(size) + 0.5) / size
        places = (centres + 1) / 2 * pixels - 0.5
        return (1 - (places[:, None] - torch.arange(pixels)).abs()).clamp(min=0)

    found = []
    for image in x.chunk(len(x)):
        for (left, right), (top, bottom) in boxes:
            down, across = weights(top, bottom, x.shape[2]), weights(left, right, x.shape[3])
            found.append(head(torch.einsum("ih,jw,bchw->bcij", down, across, image)))
    return torch.cat(found)


def scores_and_boxes(w: Weights, y: Tensor, path: str) -> Tensor:
    return torch.cat([w.fc(y, f"{path}.branch0.0.fc"), w.fc(y, f"{path}.branch1.0.fc")], 1)


def test_faster_rcnn_with_vgg16_runs_its_wide_layers_on_each_region() -> None:
    """Ren et al. 2015, arXiv:1506.01497, 3, on VGG-16; Caffe's pools, which round up."""

    def net(w: Weights, x: Tensor) -> Tensor:
        for stage, convolutions in enumerate((2, 2, 3, 3, 3), start=1):
            for copy in range(convolutions):
                x = w.conv(x, f"conv{stage}.0.{copy}.conv", 1, 1).relu()
            if stage < 5:
                odd = x.shape[-1] % 2
                x = F.max_pool2d(F.pad(x, (0, odd, 0, odd)), 2)  # after ReLU a zero changes no maximum
        assert x.shape[-1] == 5  # 72 -> 36 -> 18 -> 9 -> 5

        def head(region: Tensor) -> Tensor:
            y = w.fc(w.fc(region, "fc6.0.fc").relu(), "fc7.0.fc").relu()
            return scores_and_boxes(w, y, "head.0")

        return regions_one_by_one(x, 7, head)

    check(plan_of_model("faster_rcnn_vgg16", size=72, regions=REGIONS, classes=4), net)


def test_faster_rcnn_with_resnet101_runs_conv5_on_each_region() -> None:
    """He et al. 2015, arXiv:1512.03385, Appendix A, on the ResNet-101 of Table 1."""

    def stage(w: Weights, x: Tensor, path: str, copies: int, stride: int) -> Tensor:
        for copy in range(copies):
            block = f"{path}.{copy}"
            f = w.conv_bn(x, f"{block}.F.0", stride if copy == 0 else 1).relu()
            f = w.conv_bn(w.conv_bn(f, f"{block}.F.1", 1, 1).relu(), f"{block}.F.2")
            x = (f + (w.conv_bn(x, f"{block}.shortcut.0", stride) if copy == 0 else x)).relu()
        return x

    def net(w: Weights, x: Tensor) -> Tensor:
        x = w.conv_bn(x, "conv1.0", 2, 3).relu()
        assert x.shape[-1] == 36
        x = F.max_pool2d(F.pad(x, (0, 1, 0, 1)), 3, 2)  # the last window starts at 34: 18 in all
        x = stage(w, x, "conv2_x.1", 3, 1)
        x = stage(w, x, "conv3_x.0", 4, 2)
        x = stage(w, x, "conv4_x.0", 23, 2)

        def head(region: Tensor) -> Tensor:
            return scores_and_boxes(w, stage(w, region, "conv5_x.0", 3, 2).mean((2, 3)), "head.1")

        return regions_one_by_one(x, 14, head)

    check(plan_of_model("faster_rcnn_resnet101", size=72, regions=REGIONS), net)


@pytest.mark.parametrize("name", ["faster_rcnn_vgg16", "faster_rcnn_resnet101"])
def test_what_a_detector_proposes_has_scores_and_offsets_for_each_anchor_and_goes_nowhere(name: str) -> None:
    plan = plan_of_model(name, size=64, regions=REGIONS)
    anchors = 12 if name.endswith("vgg16") else 9
    proposed = [index for index, step in enumerate(plan.steps) if step.path.startswith("rpn.")]
    assert str(plan.steps[proposed[-1]].shape) == f"{6 * anchors} x 4 x 4"
    read = {source for step in plan.steps[proposed[-1] + 1 :] for source in step.inputs}
    assert not read & set(proposed)
