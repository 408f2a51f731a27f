"""The grammar's rules, worked out by hand."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - what everybody calls it

from resnetcli.errors import SpecError
from resnetcli.ops import (
    Activation,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Op,
    PadChannels,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Shape,
    ShapeError,
    Softmax,
)
from tests.support.written import ops, plan_of, row, wiring

BN = BatchNorm()
RELU = ReLU()


def conv1x1(channels: int, stride: int = 1, *, bias: bool = False) -> Conv:
    return Conv(channels, (1, 1), stride, bias=bias)


def conv3x3(channels: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> Conv:
    return Conv(channels, (3, 3), stride, (1, 1), 1, groups, bias)


# --- 1: padding and windows --------------------------------------------------------------------------------------

WINDOWS: list[tuple[str, Op, tuple[int, int]]] = [
    ("3x3 6 bare", Conv(6, (3, 3), 1, (1, 1)), (7, 8)),
    ("3x3 6 /2 bare", Conv(6, (3, 3), 2, (1, 1)), (4, 4)),
    ("3x3 6 V bare", Conv(6, (3, 3), 1, (0, 0)), (5, 6)),
    ("3x3 6 /2 V bare", Conv(6, (3, 3), 2, (0, 0)), (3, 3)),
    ("3x3 6 pad=0 bare", Conv(6, (3, 3), 1, (0, 0)), (5, 6)),
    ("3x3 6 pad=3 bare", Conv(6, (3, 3), 1, (3, 3)), (11, 12)),
    ("5x5 6 bare", Conv(6, (5, 5), 1, (2, 2)), (7, 8)),
    ("1x7 6 bare", Conv(6, (1, 7), 1, (0, 3)), (7, 8)),
    ("7x1 6 bare", Conv(6, (7, 1), 1, (3, 0)), (7, 8)),
    ("1x7 6 pad=3 bare", Conv(6, (1, 7), 1, (3, 3)), (13, 8)),
    ("2x2 6 bare", Conv(6, (2, 2), 1, (0, 0)), (6, 7)),
    ("4x4 6 bare", Conv(6, (4, 4), 1, (1, 1)), (6, 7)),
    ("3x3 6 dil=2 bare", Conv(6, (3, 3), 1, (2, 2), 2), (7, 8)),
    ("3x3 6 dil=2 V bare", Conv(6, (3, 3), 1, (0, 0), 2), (3, 4)),
    ("2x2 6 dil=3 bare", Conv(6, (2, 2), 1, (1, 1), 3), (6, 7)),
    ("7x7 6 /2 bare", Conv(6, (7, 7), 2, (3, 3)), (4, 4)),
    ("3x3 max /2", Pool("max", (3, 3), 2, (1, 1)), (4, 4)),
    ("3x3 max /2 V", Pool("max", (3, 3), 2, (0, 0)), (3, 3)),
    ("3x3 max /2 V ceil", Pool("max", (3, 3), 2, (0, 0), True), (3, 4)),
    ("3x3 max /2 ceil", Pool("max", (3, 3), 2, (1, 1), True), (4, 5)),
    ("2x2 max /2", Pool("max", (2, 2), 2, (0, 0)), (3, 4)),
    ("2x2 max /2 ceil", Pool("max", (2, 2), 2, (0, 0), True), (4, 4)),
    ("8x8 max /8 V ceil", Pool("max", (8, 8), 8, (0, 0), True), (1, 1)),
    ("3x3 avg", Pool("avg", (3, 3), 1, (1, 1)), (7, 8)),
    ("3x3 avg(pad) /2", Pool("avg", (3, 3), 2, (1, 1), count_pad=True), (4, 4)),
    ("2x3 max pad=1", Pool("max", (2, 3), 1, (1, 1)), (8, 8)),
    ("global avg", PoolTo("avg", (1, 1)), (1, 1)),
    ("global max", PoolTo("max", (1, 1)), (1, 1)),
    ("avg to 1x1", PoolTo("avg", (1, 1)), (1, 1)),
    ("max to 3x2", PoolTo("max", (3, 2)), (3, 2)),
]


@pytest.mark.parametrize(("layer", "op", "size"), WINDOWS, ids=[layer for layer, *_ in WINDOWS])
def test_padding_is_half_the_window_unless_it_is_written(layer: str, op: Op, size: tuple[int, int]) -> None:
    step = row(layer, input="4x7x8").steps[-1]
    assert step.op == op
    assert (step.shape.h, step.shape.w) == size


@pytest.mark.parametrize("ceil", [False, True])
def test_a_pool_gives_the_size_that_torch_gives_or_fits_nowhere_where_torch_refuses(ceil: bool) -> None:
    for size, kernel, stride in product(range(1, 10), range(1, 6), range(1, 6)):
        for pad in range(kernel // 2 + 1):
            x = torch.empty(1, 1, size, size, device="meta")
            try:
                wanted = F.max_pool2d(x, kernel, stride, pad, ceil_mode=ceil).shape[2]
            except RuntimeError:
                wanted = 0
            assert size_of(Pool("max", (kernel, kernel), stride, (pad, pad), ceil), size) == wanted


def test_a_convolution_gives_the_size_that_torch_gives_or_fits_nowhere_where_torch_refuses() -> None:
    for size, kernel, stride, dilation, pad in product(range(1, 9), range(1, 5), range(1, 4), range(1, 4), range(3)):
        x, weight = torch.empty(1, 1, size, size, device="meta"), torch.empty(1, 1, kernel, kernel, device="meta")
        try:
            wanted = F.conv2d(x, weight, None, stride, pad, dilation).shape[2]
        except RuntimeError:
            wanted = 0
        assert size_of(Conv(1, (kernel, kernel), stride, (pad, pad), dilation), size) == wanted


def size_of(op: Conv | Pool, size: int) -> int:
    try:
        return op.out(Shape(1, size, size)).h
    except ShapeError:
        return 0


# --- every other layer -------------------------------------------------------------------------------------------

LAYERS: list[tuple[str, Op, str, Shape]] = [
    ("fc 10", Linear(10), "fc", Shape(10, 1, 1)),
    ("bn", BN, "bn", Shape(8, 8, 8)),
    ("bn(0.001)", BatchNorm(0.001), "bn", Shape(8, 8, 8)),
    ("relu", RELU, "relu", Shape(8, 8, 8)),
    ("prelu", PReLU(), "prelu", Shape(8, 8, 8)),
    ("leaky(0.1)", LeakyReLU(0.1), "leaky", Shape(8, 8, 8)),
    ("lrn 5 0.0001 0.75 2", LocalResponseNorm(5, 0.0001, 0.75, 2), "lrn", Shape(8, 8, 8)),
    ("dropout 0.3", Dropout(0.3), "dropout", Shape(8, 8, 8)),
    ("softmax", Softmax(), "softmax", Shape(8, 8, 8)),
    ("spp 3 2 1", PyramidPool((3, 2, 1)), "spp", Shape(8 * 14, 1, 1)),
    ("roi 3x2 of 5", RegionPool((3, 2), 5), "roi", Shape(8, 3, 2, 5)),
    ("3x3 max", Pool("max", (3, 3), 1, (1, 1)), "max", Shape(8, 8, 8)),
    ("global avg", PoolTo("avg", (1, 1)), "avg", Shape(8, 1, 1)),
    ("3x3 16 C=4 bare", conv3x3(16, groups=4), "conv", Shape(16, 8, 8)),
    ("3x3 dw bare", conv3x3(8, groups=8), "conv", Shape(8, 8, 8)),
    ("3x3 16 dw /2 bare", conv3x3(16, 2, groups=8), "conv", Shape(16, 4, 4)),
]


@pytest.mark.parametrize(("layer", "op", "name", "shape"), LAYERS, ids=[layer for layer, *_ in LAYERS])
def test_a_layer_is_one_step_called_by_its_word(layer: str, op: Op, name: str, shape: Shape) -> None:
    plan = row(layer)
    assert [(step.path, step.op, step.shape) for step in plan.steps[1:]] == [(f"r.0.{name}", op, shape)]


# --- 2: channels -------------------------------------------------------------------------------------------------


def test_channels_left_out_are_as_many_as_came_in() -> None:
    plan = row("[1x1 12 bare, 3x3 max, 3x3 bare, 3x3 C=3 /2 bare]")
    assert [step.shape for step in plan.steps[3:]] == [Shape(12, 8, 8), Shape(12, 4, 4)]


def test_channels_left_out_in_a_shortcut_are_as_many_as_f_gives() -> None:
    plan = row("residual: [3x3 5 /2, 3x3 20]", shortcut="[3x3 /s]")
    assert [step.op for step in plan.steps if ".shortcut." in step.path] == [conv3x3(20, 2), BN]


# --- 3: strides --------------------------------------------------------------------------------------------------


def strides(plan_row: str, **header: str) -> list[int]:
    return [op.stride for op in ops(row(plan_row, **header)) if isinstance(op, Conv | Pool | PadChannels)]


STRIDES: list[tuple[str, list[int]]] = [
    ("residual x 3: [3x3 /2]", [2, 2, 1, 1]),  # the second is the shortcut's
    ("residual x 2: [1x1 4, 3x3 4 /2, 1x1 8]", [1, 2, 1, 2, 1, 1, 1]),
    ("residual x 2: [3x3 max /2]", [2, 2, 1]),
    ("residual x 2: [3x3 /2, 3x3 /2]", [2, 2, 4, 1, 1]),
    ("residual x 2: [concat: [3x3 4 /2, 3x3 4 /2]]", [2, 2, 2, 1, 1]),
    ("residual x 2: [sum of 3: [3x3 8 /2]]", [2, 2, 2, 2, 1, 1, 1]),
    ("residual x 2: [seq: [3x3 /2]]", [2, 2, 1]),
    ("residual x 2: [aside: [3x3 /2], 3x3]", [2, 1, 1, 1]),
    ("residual x 2: [residual x 2: [3x3 /2]]", [2, 2, 1, 2, 1, 1]),
]


@pytest.mark.parametrize(("items", "wanted"), STRIDES, ids=[items for items, _ in STRIDES])
def test_a_stride_acts_in_the_first_copy_of_a_residual_alone(items: str, wanted: list[int]) -> None:
    assert strides(items) == wanted


@pytest.mark.parametrize(
    "items",
    [
        "3x3 /2 x 2",
        "3x3 max /2 x 2",
        "seq x 2: [3x3, 3x3 /2]",
        "concat x 2: [3x3 4 /2, 3x3 4 /2]",
        "sum of 2 x 2: [3x3 /2]",
        "seq x 2: [residual: [3x3 /2]]",
        "residual x 2: [3x3 /2 x 2]",
        "b x 2",
    ],
)
def test_a_stride_in_any_other_repeated_item_is_an_error(items: str) -> None:
    with pytest.raises(SpecError, match="a stride inside a repeated entry"):
        row(items, blocks="{b: [3x3, 3x3 /2]}")


# --- 5: biases ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("style", "styled", "projection"),
    [
        ("conv bn relu", [conv3x3(16), BN, RELU], [conv1x1(16, 2), BN]),
        ("conv bn(0.001) leaky(0.1)", [conv3x3(16), BatchNorm(0.001), LeakyReLU(0.1)],
         [conv1x1(16, 2), BatchNorm(0.001)]),
        ("conv relu", [conv3x3(16, bias=True), RELU], [conv1x1(16, 2, bias=True)]),
        ("conv prelu", [conv3x3(16, bias=True), PReLU()], [conv1x1(16, 2, bias=True)]),
        ("conv(bias) bn relu", [conv3x3(16, bias=True), BN, RELU], [conv1x1(16, 2, bias=True), BN]),
        ("conv", [conv3x3(16, bias=True)], [conv1x1(16, 2, bias=True)]),
        ("conv bn", [conv3x3(16), BN], [conv1x1(16, 2), BN]),
        ("bn relu conv", [BN, RELU, conv3x3(16)], [conv1x1(16, 2)]),
        ("relu conv", [RELU, conv3x3(16, bias=True)], [conv1x1(16, 2, bias=True)]),
    ],
)  # fmt: skip
def test_a_bias_stands_where_no_normalisation_does_or_where_it_is_written(
    style: str, styled: list[Op], projection: list[Op]
) -> None:
    assert ops(row("3x3 16", conv=style)) == styled
    plan = row("residual: [1x1 16 /2]", conv=style)
    assert [step.op for step in plan.steps if ".shortcut." in step.path] == projection


@pytest.mark.parametrize("style", ["conv bn relu", "conv relu", "conv(bias) bn relu", "bn relu conv"])
def test_linear_is_convolution_and_bias_and_bare_the_weights_alone(style: str) -> None:
    assert ops(row("[3x3 16 linear, 3x3 16 bare, fc 5]", conv=style)) == [
        conv3x3(16, bias=True), conv3x3(16), Linear(5, bias=True)
    ]  # fmt: skip


def test_words_that_stand_twice_around_a_convolution_have_names_of_their_own() -> None:
    assert wiring(row("3x3", conv="bn relu conv bn relu")) == ["r.0.bn", "r.0.relu", "r.0.conv", "r.0.bn2", "r.0.relu2"]
    assert wiring(row("3x3", conv="conv relu bn relu")) == ["r.0.conv", "r.0.relu", "r.0.bn", "r.0.relu2"]


# --- 8: numbers --------------------------------------------------------------------------------------------------

FAMILY = """
    input: 3x8x8
    classes: 10
    let: {depth: 8, k: 2, n: (depth-2)/6}
    blocks:
      unit w t: {residual: [3x3 w*k /t, 3x3 w*k]}
    table:
      conv1: 3x3 16
      conv2_x: [unit 8 1, unit 4 2]
      conv3_x: [residual x n: [3x3 16*k]]
      head: [global avg, fc classes]
"""


def test_numbers_may_be_expressions_of_names_that_can_be_set() -> None:
    plan = plan_of(FAMILY)
    assert plan.parameters == {"classes": 10, "depth": 8, "k": 2}
    assert [plan.steps[index].shape.c for index in plan.stages.values()] == [16, 8, 32, 10]
    plan = plan_of(FAMILY, k=4, depth=20, classes=7)
    assert [plan.steps[index].shape.c for index in plan.stages.values()] == [16, 16, 64, 7]
    assert len([op for op in ops(plan) if isinstance(op, Add)]) == 2 + 3
    assert plan.parameters == {"classes": 7, "depth": 20, "k": 4}


# --- 9: regions --------------------------------------------------------------------------------------------------


def test_after_roi_there_are_so_many_maps_an_image() -> None:
    plan = row("[3x3 4 bare, roi 7x7 of 30, residual: [3x3 6 /2], global avg, fc 5]", input="3x64x64")
    shapes = {step.path: step.shape for step in plan.steps}
    assert shapes["r.1.roi"] == Shape(4, 7, 7, 30)
    assert shapes["r.2.0.add"] == Shape(6, 4, 4, 30)
    assert shapes["r.4.fc"] == Shape(5, 1, 1, 30)


def test_a_region_head_inside_a_region_head_is_an_error() -> None:
    with pytest.raises(SpecError, match="`roi` inside a region head"):
        row("[roi 7x7 of 30, roi 7x7 of 2]")


# --- branches ----------------------------------------------------------------------------------------------------


def test_branches_read_the_same_value_and_are_joined_in_order() -> None:
    plan = row("[3x3, concat: [1x1 4, [1x1 2, 3x3 6 /1], [3x3 max, 1x1 3]], 1x1]", conv="conv relu")
    assert wiring(plan) == [
        "r.0.conv", "r.0.relu",
        "r.1.branch0.0.conv", "r.1.branch0.0.relu",
        "r.1.branch1.0.conv <- r.0.relu", "r.1.branch1.0.relu", "r.1.branch1.1.conv", "r.1.branch1.1.relu",
        "r.1.branch2.0.max <- r.0.relu", "r.1.branch2.1.conv", "r.1.branch2.1.relu",
        "r.1.cat <- r.1.branch0.0.relu, r.1.branch1.1.relu, r.1.branch2.1.relu",
        "r.2.conv", "r.2.relu",
    ]  # fmt: skip
    assert plan.steps[12].op == Concat()
    assert plan.steps[12].shape == Shape(4 + 6 + 3, 8, 8)


@pytest.mark.parametrize(("kind", "op", "channels"), [("concat", Concat(), 12), ("sum", Add(), 4)])
def test_n_equal_branches_are_that_branch_written_n_times(kind: str, op: Op, channels: int) -> None:
    short, long = row(f"{kind} of 3: [1x1 2, 3x3 4]"), row(f"{kind}: [[1x1 2, 3x3 4], [1x1 2, 3x3 4], [1x1 2, 3x3 4]]")
    assert short.steps == long.steps
    assert short.steps[-1].op == op
    assert short.steps[-1].shape.c == channels
    assert len(short.steps[-1].inputs) == 3


@pytest.mark.parametrize("kind", ["concat", "sum"])
def test_one_branch_needs_no_joining(kind: str) -> None:
    assert wiring(row(f"{kind} of 1: [3x3]")) == ["r.0.branch0.0.conv", "r.0.branch0.0.bn", "r.0.branch0.0.relu"]


def test_a_branch_that_does_nothing_passes_its_input_on() -> None:
    assert wiring(row("concat: [1x1 4 bare, seq: [aside: [fc 3]]]")) == [
        "r.0.branch0.0.conv",
        "r.0.branch1.0.0.aside.0.fc <- input",
        "r.0.cat <- r.0.branch0.0.conv, input",
    ]


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ("concat: [1x1 4 /2, 1x1 4]", "branches of `concat` differ in size"),
        ("sum: [1x1 4, 1x1 5]", "the terms of a sum differ in shape"),
        ("residual: [3x3 V]", "F and the shortcut cannot be added: they differ in shape"),
        ("3x3 12 C=3", "8 channels do not split into 3 groups"),
        ("9x9 V", "a 9x9 window does not fit into a 8 x 8 feature map"),
        ("3x3 max pad=2", "a pooling window of 3x3 cannot be padded by 2"),
    ],
)
def test_shapes_that_do_not_meet_are_an_error(items: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        row(items)


# --- aside, repetition, paths ------------------------------------------------------------------------------------


def test_an_aside_is_computed_and_not_passed_on() -> None:
    plan = row("[3x3 4, aside: [global avg, fc 5], 1x1 6]", conv="conv relu")
    assert wiring(plan) == [
        "r.0.conv", "r.0.relu", "r.1.aside.0.avg", "r.1.aside.1.fc", "r.2.conv <- r.0.relu", "r.2.relu",
    ]  # fmt: skip
    assert plan.outputs == (6,)


def test_a_row_that_is_an_aside_passes_on_what_came_in() -> None:
    plan = plan_of("{input: 3x8x8, table: {a: 3x3 4 bare, b: {aside: fc 5}, c: fc 6}}")
    assert plan.stages == {"a": 1, "b": 1, "c": 3}
    assert wiring(plan) == ["a.0.conv", "b.0.aside.0.fc", "c.0.fc <- a.0.conv"]


@pytest.mark.parametrize(
    ("short", "long"),
    [
        ("3x3 16 x 3", "[3x3 16, 3x3 16, 3x3 16]"),
        ("residual x 3: [3x3]", "[residual: [3x3], residual: [3x3], residual: [3x3]]"),
        ("residual x 2: [3x3 16 /2]", "[residual: [3x3 16 /2], residual: [3x3 16]]"),
        ("seq x 2: [3x3 4, 1x1 8]", "[3x3 4, 1x1 8, 3x3 4, 1x1 8]"),
        ("concat x 2: [3x3 4, 1x1 4]", "[concat: [3x3 4, 1x1 4], concat: [3x3 4, 1x1 4]]"),
        ("b 6 x 2", "[1x1 6, 3x3 8, 1x1 6, 3x3 8]"),
    ],
)
def test_n_times_is_written_n_times(short: str, long: str) -> None:
    a, b = (row(items, blocks="{b n: [1x1 n, 3x3 8]}") for items in (short, long))
    assert [(step.op, step.inputs, step.shape) for step in a.steps] == [
        (step.op, step.inputs, step.shape) for step in b.steps
    ]


def test_a_path_is_row_item_copy_and_so_on() -> None:
    plan = plan_of("""
        input: 3x16x16
        blocks:
          b n: [1x1 n, concat: [1x1 n, 3x3 n]]
        table:
          conv1: 3x3 8
          conv2_x: [3x3 max /2, residual x 2: [1x1 4, 3x3 4, 1x1 16], 3x3 8 x 2]
          conv3_x: [b 4, b 2 x 2, seq: [3x3 8], seq x 2: [3x3 8]]
    """)
    paths = {step.path for step in plan.steps}
    assert paths >= {
        "input", "conv1.0.conv", "conv1.0.bn", "conv1.0.relu",
        "conv2_x.0.max",
        "conv2_x.1.0.F.1.conv", "conv2_x.1.0.shortcut.0.conv", "conv2_x.1.0.add", "conv2_x.1.0.relu",
        "conv2_x.1.1.F.2.bn",
        "conv2_x.2.0.conv", "conv2_x.2.1.conv",
        "conv3_x.0.0.conv", "conv3_x.0.1.branch0.0.conv", "conv3_x.0.1.cat",
        "conv3_x.1.1.1.branch1.0.relu",
        "conv3_x.2.0.conv", "conv3_x.3.1.0.conv",
    }  # fmt: skip
    assert len(paths) == len(plan.steps)


# --- auxiliary heads ---------------------------------------------------------------------------------------------

WITH_HEADS = """
    input: 3x16x16
    classes: 7
    aux:
      b: [5x5 avg /3 V, 1x1 4, fc 6, relu, dropout 0.7, fc classes]
      a: fc classes
    table:
      a: 3x3 8 /2
      b: 3x3 8
      head: [global avg, fc classes]
"""


def test_auxiliary_heads_are_not_built_unless_asked_for() -> None:
    plan = plan_of(WITH_HEADS)
    assert list(plan.stages) == ["a", "b", "head"]
    assert [plan.steps[index].path for index in plan.outputs] == ["head.1.fc"]


def test_auxiliary_heads_hang_from_their_rows_and_follow_the_model() -> None:
    plan = plan_of(WITH_HEADS, aux=True)
    assert plan.steps[: len(plan_of(WITH_HEADS).steps)] == plan_of(WITH_HEADS).steps
    assert wiring(plan)[8:] == [
        "aux.b.0.avg <- b.0.relu", "aux.b.1.conv", "aux.b.1.bn", "aux.b.1.relu", "aux.b.2.fc", "aux.b.3.relu",
        "aux.b.4.dropout", "aux.b.5.fc",
        "aux.a.0.fc <- a.0.relu",
    ]  # fmt: skip
    assert list(plan.stages) == ["a", "b", "head", "aux.b", "aux.a"]
    assert [plan.steps[index].path for index in plan.outputs] == ["head.1.fc", "aux.b.5.fc", "aux.a.0.fc"]
    assert [plan.steps[index].shape for index in plan.outputs] == [Shape(7, 1, 1)] * 3


@pytest.mark.parametrize("word", [layer for layer, op, *_ in LAYERS if isinstance(op, Activation)])
def test_what_has_been_activated_is_not_activated_again_whatever_by(word: str) -> None:
    plan = plan_of(f"input: 8x16x16\nconv: bn {word} conv\ntable: {{a: [bn, {word}, 3x3 16]}}")
    assert len(plan.steps) == 4  # with the input


def test_branches_of_different_strides_are_an_error_even_if_their_sizes_agree() -> None:
    text = "input: 8x16x16\ntable: {a: [residual: [sum: [[3x3 8 /2], [avg to 8x8, 1x1 8]]]]}"
    with pytest.raises(SpecError, match="differ in stride: 2, 1"):
        plan_of(text)
