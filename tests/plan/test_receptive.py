"""What a step sees of the image: held to the gradients of the built model, to a walk over every path, and to print."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings

from resnetcli.errors import ResourceError, SpecError, UsageError
from resnetcli.net.module import build
from resnetcli.ops import Add, Concat, Conv, Linear, PadChannels, Pool, PoolTo, PyramidPool, RegionPool, Shape, Traced
from resnetcli.plan.plan import Plan, Step, Where
from resnetcli.plan.receptive import Receptive, Span, receptive
from tests.support.sketch import Sketch
from tests.support.strategies import specs
from tests.support.written import plan_of, plan_of_model, row


def last(plan: Plan) -> Receptive:
    return receptive(plan)[plan.outputs[0]]


def square(size: int, stride: int, padding: int, size_min: int | None = None, padding_min: int | None = None) -> Span:
    """A span as it mostly is: one stride, one path unless told."""
    least, early = size if size_min is None else size_min, padding if padding_min is None else padding_min
    return Span(least, size, stride, stride, early, padding)


# --- worked out by hand ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ("1x1 8", square(1, 1, 0)),
        ("3x3 8", square(3, 1, 1)),
        ("[3x3 8, 3x3 8]", square(5, 1, 2)),
        ("3x3 8 dil=2", square(5, 1, 2)),
        ("[3x3 8 /2, 3x3 8]", square(7, 2, 3)),
        ("[3x3 8 V /2, 3x3 8 V]", square(7, 2, 0)),
        ("[2x2 max /2, 2x2 max /2, 3x3 8]", square(12, 4, 4)),
        ("[3x3 max /2 V ceil, 3x3 8 dil=3]", square(15, 2, 6)),
        ("4x4 8", square(4, 1, 1)),
        ("residual: [3x3 8, 3x3 8]", square(5, 1, 2, 1, 0)),
        ("residual: [3x3 8 /2, 3x3 8]", square(7, 2, 3, 1, 0)),
        ("[3x3 8 /2, residual x 2: [3x3 8]]", square(11, 2, 5, 3, 1)),
        ("concat: [3x3 8, 5x5 8, [1x1 8, 7x7 8 dil=2]]", square(13, 1, 6, 3, 1)),
        ("sum: [2x2 avg /2, 3x3 8 /2 pad=1, 1x1 8 /2]", square(3, 2, 1, 1, 0)),  # 2x2 begins at 0, 3x3 at -1
        ("concat: [4x4 8 V /2, [3x3 8 /2, 2x2 8 V]]", square(5, 2, 1, 4, 0)),  # from 0 to 3, the other from -1 to 3
        ("[aside: [7x7 8], 3x3 8]", square(3, 1, 1)),
        ("[3x3 8, avg to 4x4]", square(4, 2, 1)),  # of 8 positions: two to each
        ("avg to 8x8", square(1, 1, 0)),
        ("[bn, relu, leaky(0.1), prelu, lrn 5 0.0001 0.75 1, dropout 0.5, softmax, 3x3 8]", square(3, 1, 1)),
    ],
)
def test_a_row_sees(items: str, expected: Span) -> None:
    assert last(row(items)) == Receptive(expected, expected)


def test_branches_of_unlike_padding_see_what_either_does() -> None:
    s = Sketch(2, 9, 9)
    a = s.step("a", Conv(2, (4, 4), 1, (0, 0)), 0)  # 0 to 3
    b = s.step("b", Conv(2, (4, 4), 1, (3, 0)), 0)  # rows -3 to 0, one map smaller: only its figures matter
    s.steps.append(Step(Where("add"), Add(), (a, b), Shape(2, 6, 6)))
    assert last(s.plan()).h == square(7, 1, 3, 4, 0)
    assert last(s.plan()).w == square(4, 1, 0)


def test_a_window_may_be_wider_than_high() -> None:
    seen = last(row("[1x7 8, 3x1 8]"))
    assert (seen.h, seen.w) == (square(3, 1, 1), square(7, 1, 3))


@pytest.mark.parametrize("op", [PoolTo("avg", (1, 1)), Linear(3), PyramidPool((2, 1)), RegionPool((3, 3), 4)])
def test_what_reads_a_whole_map_sees_the_whole_image(op: PoolTo | Linear | PyramidPool | RegionPool) -> None:
    s = Sketch(2, 8, 8)
    s.step("conv", Conv(2, (3, 3), pad=(1, 1)))
    s.step("op", op)
    seen = last(s.plan())
    assert seen.whole
    assert seen.h == Span(None, None, None, None, None, None)


def test_pooling_along_one_axis_sees_all_of_that_axis_alone() -> None:
    s = Sketch(2, 8, 8)
    s.step("pool", PoolTo("max", (1, 4)))
    seen = last(s.plan())
    assert (seen.h.whole, seen.w, seen.whole) == (True, square(2, 2, 0), False)


def test_a_path_round_global_pooling_keeps_its_own_field() -> None:
    s = Sketch(2, 8, 8)
    a = s.step("a", Conv(2, (8, 8)), 0)
    b = s.step("b", PoolTo("avg", (1, 1)), 0)
    s.step("add", Add(), a, b)
    assert last(s.plan()).h == Span(8, None, 1, 1, 0, None)


def test_paths_of_unlike_strides_are_an_interval() -> None:
    # 8 -> 4 by a window of 5, and by pooling to 4: at position 3 the first sees 3 to 7, the second 6 to 7; at 0 the
    # first sees 0 to 4, the second 0 and 1.
    seen = last(row("concat: [5x5 8 V, [1x1 8, avg to 4x4]]"))
    assert seen.h == Span(2, 5, 1, 2, 0, 0)
    assert seen.h.stride is None


@pytest.mark.parametrize(("size", "parts"), [(8, 3), (10, 4), (7, 5), (9, 6), (11, 2), (13, 7), (12, 4)])
def test_the_strides_of_pooling_to_a_size_are_those_of_pytorch_s_windows(size: int, parts: int) -> None:
    windows = [(o * size // parts, -(-(o + 1) * size // parts)) for o in range(parts)]
    strides = {b[end] - a[end] for a, b in pairwise(windows) for end in (0, 1)}
    seen = last(row(f"[3x3 8 /2, avg to {parts}x{parts}]", input=f"8x{2 * size}x{2 * size}")).h
    assert (seen.stride_min, seen.stride_max) == (2 * min(strides), 2 * max(strides))
    assert seen.stride == (2 * min(strides) if len(strides) == 1 else None)


def test_uneven_pooling_has_windows_of_several_sizes() -> None:
    # PyTorch's 10 -> 4: 0-2, 2-4, 5-7, 7-9; three of them: 0-7, 2-9
    assert last(row("avg to 4x4", input="8x10x10")).h == Span(3, 3, 2, 3, 0, 0)
    assert last(row("[avg to 4x4, 3x3 8 V]", input="8x10x10")).h == Span(8, 8, 2, 2, 0, 0)
    # 7 -> 3: 0-2, 2-4, 4-6; 7 -> 5: 0-1, 1-2, 2-4, 4-5, 5-6
    assert last(row("avg to 5x5", input="8x7x7")).h == Span(2, 3, 1, 2, 0, 0)


def test_pooling_that_repeats_too_rarely_is_refused_and_not_followed_for_ever() -> None:
    s = Sketch(1, 16_383, 1)
    s.step("a", PoolTo("avg", (16_381, 1)))
    s.step("b", Conv(1, (3, 1)))
    s.step("c", PoolTo("avg", (16_369, 1)))
    with pytest.raises(ResourceError, match="repeat after"):
        receptive(s.plan())


def test_a_pytorch_model_s_layers_are_not_known_to_read_windows() -> None:
    s = Sketch(3, 8, 8)
    s.step("layer", Traced("Conv2d 3x3 3", 81, 81 * 64, 192, 1))
    with pytest.raises(UsageError, match="require a spec"):
        receptive(s.plan())


# --- as printed ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "at", "size", "stride", "padding"),
    [
        # Araujo, Norris and Sim 2019, Computing Receptive Fields of Convolutional Neural Networks, Table 1
        ("alexnet", "conv5", 195, 32, None),
        ("vgg16", "conv5", 212, 32, 90),
        ("resnet50_v1", "conv5_x", 483, 32, None),
        ("resnet101_v1", "conv5_x", 1027, 32, None),
        ("resnet152_v1", "conv5_x", 1507, 32, None),
        ("bn_inception", "5b", 699, 32, None),
        ("inception_v3", "mixed_7c", 1311, 32, 618),
        ("inception_v4", "inception_c", 2071, 32, 998),
        ("inception_resnet_v2", "conv_7b", 3039, 32, 1482),
        # by hand: 11 behind the stem, then 2 * (stride before the 3x3) a block
        ("resnet50", "conv5_x", 11 + 3 * 8 + (8 + 3 * 16) + (16 + 5 * 32) + (32 + 2 * 64), 32, None),
        ("resnet50_os8", "conv5_x", 427, 8, 213),
    ],
)
def test_models_see_what_is_printed(model: str, at: str, size: int, stride: int, padding: int | None) -> None:
    plan = plan_of_model(model)
    seen = receptive(plan)[plan.stages[at]]
    assert (seen.h, seen.h.size_max, seen.h.stride) == (seen.w, size, stride)
    assert padding is None or seen.h.padding_max == padding


def test_the_shortest_path_of_a_resnet_is_its_stem_and_shortcuts() -> None:
    plan = plan_of_model("resnet50")
    seen = receptive(plan)
    assert {seen[plan.stages[name]].h.size_min for name in ("conv2_x", "conv3_x", "conv4_x", "conv5_x")} == {11}


# --- against gradients -----------------------------------------------------------------------------------------------


def seen_by_gradient(plan: Plan, index: int, place: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last row, first and last column of the image on which one position of a step's value depends.

    The model is made linear with positive weights, so that no gradient is cut off or cancels.
    """
    steps = tuple(
        replace(step, op=replace(step.op, kind="avg") if isinstance(step.op, Pool | PoolTo) else step.op)
        for step in plan.steps[: index + 1]
    )
    net = build(replace(plan, steps=steps, outputs=(index,), stages={}), dtype=torch.float64)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(parameter.shape[0] / parameter.numel() if parameter.dim() > 1 else 0)
        for name, parameter in net.named_parameters():
            if name.endswith("bn.weight"):
                parameter.fill_(1)
    x = torch.ones(1, plan.input.c, plan.input.h, plan.input.w, dtype=torch.float64, requires_grad=True)
    value = net.eval()(x)
    (gradient,) = torch.autograd.grad(value[0, :, place[0], place[1]].sum(), x)
    rows, columns = gradient[0].abs().sum(0).nonzero().T
    return (int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max()))


def said(span: Span, place: int) -> tuple[int, int]:
    assert span.stride is not None
    assert span.size_max is not None
    assert span.padding_max is not None
    first = place * span.stride - span.padding_max
    return first, first + span.size_max - 1


def agrees(plan: Plan, index: int, *, corner: bool = True) -> None:
    """The step sees what its gradients say, in the middle and, cut off by the edge, in the corner."""
    seen, shape = receptive(plan)[index], plan.steps[index].shape
    middle = shape.h // 2, shape.w // 2
    windows = said(seen.h, middle[0]), said(seen.w, middle[1])
    for (low, high), size in zip(windows, (plan.input.h, plan.input.w), strict=True):
        assert low >= 0, "the image is too small for this test"
        assert high < size, "the image is too small for this test"
    assert seen_by_gradient(plan, index, middle) == windows
    if corner:
        edges = said(seen.h, 0)[1], said(seen.w, 0)[1]
        assert seen_by_gradient(plan, index, (0, 0)) == ((0, edges[0]), (0, edges[1]))


NETS = {
    "plain": ("[3x3 4, 5x5 4 /2, 3x3 4, 1x1 4]", {}),
    "even": ("[2x2 4, 4x4 4 /2, 2x2 4 /2, 6x6 4]", {}),
    "valid": ("[3x3 4 V, 4x4 4 V /2, 3x3 4 V]", {}),
    "pools": ("[3x3 max /2, 2x2 avg /2, 3x3 avg(pad), 3x3 max /2 V ceil, 3x3 4]", {}),
    "dilated": ("[3x3 4, 3x3 4 dil=2, 3x3 4 dil=4, 2x2 4 dil=3]", {}),
    "grouped": ("[3x3 4 C=2, 3x3 dw /2]", {}),
    "residual": ("[3x3 4 /2, residual x 2: [3x3 4, 3x3 4], residual x 2: [1x1 4, 3x3 8 /2, 1x1 8]]", {}),
    "preactivated": ("[residual x 2: [3x3 8 /2, 3x3 8]]", {"conv": "bn relu conv", "residual": "x + F"}),
    "option A": ("[residual: [3x3 8 /2], residual: [1x1 16 /2, 3x3 16]]", {"shortcut": "pad"}),
    "shortcut sees more": ("[residual: [1x1 8 /2], 3x3 8]", {"shortcut": "[sxs avg /s ceil, 3x3]"}),
    "branching": ("[concat: [1x1 2, [1x1 2, 3x3 2], [3x3 2, 3x3 2], [3x3 max, 1x1 2]], 3x3 4 /2]", {}),
    "odd and even": ("concat: [4x4 2 V /2, [3x3 2 /2, 2x2 2 V]]", {}),
    "nested": ("residual: [sum: [[3x3 8 /2, residual: [5x5 8]], [1x3 8 /2, 3x1 8]], 3x3 8 dil=2]", {}),
    "pooled to a size": ("[3x3 4, avg to 20x20, 3x3 4]", {}),
}


@pytest.mark.parametrize("name", NETS)
def test_every_step_sees_what_its_gradients_say(name: str) -> None:
    items, header = NETS[name]
    plan = row(items, input="4x40x40", **header)
    for index, step in enumerate(plan.steps):
        if isinstance(step.op, Conv | Pool | PoolTo | PadChannels | Add | Concat):  # others read what they write
            agrees(plan, index)


@pytest.mark.parametrize("items", ["[3x3 4 V, avg to 7x7, 3x3 4 V, 2x2 4 V]", "[5x5 4 V, avg to 7x7, 4x4 4 V]"])
def test_uneven_pooling_sees_what_gradients_say_at_every_position(items: str) -> None:
    plan = row(items, input="4x22x22")
    for index, seen in enumerate(receptive(plan)[1:], start=1):
        size = plan.steps[index].shape.h
        extents = [seen_by_gradient(plan, index, (place, 0))[0] for place in range(size)]
        sizes = [high - low + 1 for low, high in extents]
        assert (seen.h.size_min, seen.h.size_max) == (min(sizes), max(sizes))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "at", "size"),
    [
        ("cifar_resnet20", "conv4_x", 224),
        ("vgg16", "conv5", 320),
        ("alexnet", "conv5", 320),
        ("resnet18", "conv4_x", 320),
        ("googlenet", "4b", 416),
        ("resnet50_os8", "conv3_x", 160),
        ("preact_resnet50", "conv3_x", 160),
        ("inception_v3", "mixed_5c", 160),
        ("resnet50d", "conv3_x", 160),
    ],
)
def test_models_of_the_zoo_see_what_their_gradients_say(model: str, at: str, size: int) -> None:
    plan = plan_of_model(model, size)
    agrees(plan, plan.stages[at], corner=False)


# --- against a walk over every path ----------------------------------------------------------------------------------


def paths_to(plan: Plan, index: int) -> Iterator[list[int]]:
    """Every way from the image to a step, as the steps on it, last first."""
    if not plan.steps[index].inputs:
        yield []
    for source in dict.fromkeys(plan.steps[index].inputs):
        for path in paths_to(plan, source):
            yield [index, *path]


def pixels(plan: Plan, path: list[int], place: int) -> set[int]:
    """Rows of the image, beyond its edges too, that a position's row depends on by a path; empty for all."""
    places = {place}
    for index in path:
        match plan.steps[index].op:
            case Conv(kernel=(k, _), stride=s, pad=(p, _), dilation=d):
                places = {s * o - p + d * i for o in places for i in range(k)}
            case Pool(kernel=(k, _), stride=s, pad=(p, _)):
                places = {s * o - p + i for o in places for i in range(k)}
            case PadChannels(stride=s):
                places = {s * o for o in places}
            case PoolTo(size=(size, _)) if size > 1 and plan.steps[plan.steps[index].inputs[0]].shape.h % size == 0:
                ratio = plan.steps[plan.steps[index].inputs[0]].shape.h // size
                places = {ratio * o + i for o in places for i in range(ratio)}
            case PoolTo() | Linear() | PyramidPool() | RegionPool():
                return set()
    return places


def holds_over_every_path(plan: Plan) -> None:
    for index, seen in enumerate(receptive(plan)):
        ways = [[pixels(plan, path, place) for place in (0, 1)] for path in paths_to(plan, index)]
        bounded = [way for way in ways if way[0]]
        assert seen.h.whole == (len(bounded) < len(ways))
        if not bounded:
            continue
        strides = {min(second) - min(first) for first, second in bounded}
        assert seen.h.size_min == min(max(first) - min(first) + 1 for first, _ in bounded)
        assert (seen.h.stride_min, seen.h.stride_max) == (min(strides), max(strides))
        assert seen.h.padding_min == min(-min(first) for first, _ in bounded)
        if not seen.h.whole:
            union = set().union(*(first for first, _ in bounded))
            assert seen.h.padding_max == -min(union)
            if len(strides) == 1:
                assert seen.h.size_max == max(union) - min(union) + 1


@pytest.mark.parametrize("name", NETS)
def test_least_and_most_are_over_every_path(name: str) -> None:
    items, header = NETS[name]
    holds_over_every_path(row(items, input="4x40x40", **header))


@settings(max_examples=40)
@given(specs())
def test_least_and_most_are_over_every_path_of_drawn_models(text: str) -> None:
    try:
        plan = plan_of(text)
    except SpecError:
        return
    adds = sum(len(step.inputs) > 1 for step in plan.steps)
    uneven = any(
        isinstance(step.op, PoolTo) and step.op.size[0] > 1 and plan.steps[step.inputs[0]].shape.h % step.op.size[0]
        for step in plan.steps
    )
    if adds <= 8 and not uneven and len(plan.steps) < 80:
        holds_over_every_path(plan)
