"""Residual units: the activation after the sum, shortcuts and pre-activation (rules 4, 6 and 7 of the grammar)."""

from __future__ import annotations

import pytest

from resnetcli.ops import (
    BatchNorm,
    Conv,
    Op,
    PadChannels,
    Pool,
    Scale,
    Shape,
)
from tests.support.written import ops, plan_of, row, wiring

BN = BatchNorm()


def conv1x1(channels: int, stride: int = 1, *, bias: bool = False) -> Conv:
    return Conv(channels, (1, 1), stride, bias=bias)


def conv3x3(channels: int, stride: int = 1, *, groups: int = 1, bias: bool = False) -> Conv:
    return Conv(channels, (3, 3), stride, (1, 1), 1, groups, bias)


def kinds(items: str, /, **header: str) -> str:
    """The operations of a row by their paths' last names: "conv bn relu"."""
    return " ".join(line.split(" <- ")[0].rpartition(".")[2] for line in wiring(row(items, **header)))


# --- 3: strides --------------------------------------------------------------------------------------------------


def strides(plan_row: str, **header: str) -> list[int]:
    return [op.stride for op in ops(row(plan_row, **header)) if isinstance(op, Conv | Pool | PadChannels)]


# --- 4: the activation behind the sum ----------------------------------------------------------------------------

CLOSING: list[tuple[str, str]] = [
    ("residual: [3x3, 3x3]", "conv bn relu conv bn add relu"),
    ("residual: 3x3", "conv bn add relu"),
    ("residual: [3x3, 3x3, bn]", "conv bn relu conv bn bn add relu"),
    ("residual: [3x3, 3x3, dropout 0.5]", "conv bn relu conv bn dropout add relu"),
    ("residual: [3x3, 3x3 avg]", "conv bn avg add relu"),
    ("residual: [3x3, max to 8x8]", "conv bn max add relu"),
    ("residual: [3x3, bn, dropout 0.5, 3x3 max]", "conv bn bn dropout max add relu"),
    ("residual: 3x3 x 2", "conv bn relu conv bn add relu"),
    ("residual x 2: [3x3]", "conv bn add relu conv bn add relu"),
    ("residual: [3x3, 3x3 linear]", "conv bn relu conv add relu"),
    ("residual: [3x3, 3x3 bare, bn]", "conv bn relu conv bn add relu"),
    ("residual: [seq: [3x3, 3x3]]", "conv bn relu conv bn add relu"),
    ("residual: [seq x 2: [3x3]]", "conv bn relu conv bn add relu"),
    ("residual: [seq: [3x3, 3x3], seq: [bn, dropout 0.5]]", "conv bn relu conv bn bn dropout add relu"),
    ("residual: [3x3, aside: [1x1 4]]", "conv bn conv bn relu add relu"),
    ("residual: [concat: [1x1 4, 1x1 4]]", "conv bn relu conv bn relu cat add relu"),
    ("residual: [concat: [1x1 4, 1x1 4], bn]", "conv bn relu conv bn relu cat bn add relu"),
    ("residual: [3x3, sum: [1x1, 3x3]]", "conv bn relu conv bn relu conv bn relu add add relu"),
    ("residual: [3x3, sum of 2: [1x1]]", "conv bn relu conv bn relu conv bn relu add add relu"),
    ("residual: [concat: [1x1 4, 1x1 4], 1x1]", "conv bn relu conv bn relu cat conv bn add relu"),
    ("residual: [3x3, residual: [3x3]]", "conv bn relu conv bn add relu add relu"),
    ("residual: plain", "conv bn relu conv bn add relu"),
    ("residual: [plain, dropout 0.5]", "conv bn relu conv bn dropout add relu"),
    ("residual: [plain x 2]", "conv bn relu conv bn relu conv bn relu conv bn add relu"),
    ("residual: [branched]", "conv bn relu conv bn relu cat add relu"),
    ("residual: [3x3, wide 5]", "conv bn relu conv bn conv bn add relu"),
]
BLOCKS = "{plain: [3x3, 3x3], branched: {concat: [1x1 4, 1x1 4]}, wide n: [1x1 n linear, bn, 1x1 8]}"


@pytest.mark.parametrize(("items", "wanted"), CLOSING, ids=[items for items, _ in CLOSING])
def test_f_s_last_convolution_drops_the_activation_that_follows_the_sum(items: str, wanted: str) -> None:
    assert kinds(items, blocks=BLOCKS) == wanted


@pytest.mark.parametrize(
    ("equation", "items", "wanted"),
    [
        ("x + F", "residual: [3x3, 3x3]", "conv bn relu conv bn relu add"),
        ("relu(F)", "residual: [3x3, 3x3 16 /2]", "conv bn relu conv bn relu"),
        ("F", "residual: [3x3, 3x3]", "conv bn relu conv bn relu"),
        ("prelu(x + F)", "residual: [3x3, 3x3]", "conv bn relu conv bn add prelu"),
        ("leaky(0.1)(x + F)", "residual: [3x3]", "conv bn add leaky"),
        ("relu(x + F)", "residual linear: [3x3, 3x3]", "conv bn relu conv bn relu add"),
        ("relu(x + F)", "residual 0.17: [3x3, 3x3]", "conv bn relu conv bn scale add relu"),
        ("relu(x + F)", "residual 0.17 linear: [3x3, 1x1 linear]", "conv bn relu conv scale add"),
        ("relu(F)", "residual 0.5: [3x3]", "conv bn scale relu"),
    ],
)
def test_the_equation_says_whether_there_is_a_sum_and_what_follows_it(equation: str, items: str, wanted: str) -> None:
    assert kinds(items, residual=equation) == wanted


def test_whatever_activation_the_last_convolution_has_is_dropped() -> None:
    assert kinds("residual: [3x3, 3x3]", conv="conv prelu") == "conv prelu conv add relu"
    assert kinds("residual: [3x3]", conv="conv relu bn") == "conv bn add relu"
    assert kinds("residual: [3x3]", conv="conv bn leaky(0.1)", residual="leaky(0.1)(x + F)") == "conv bn add leaky"


def test_a_plain_model_has_neither_sums_nor_projections() -> None:
    plan = row("residual x 2: [3x3 16 /2, 3x3 16]", residual="relu(F)")
    assert wiring(plan) == [
        "r.0.0.F.0.conv", "r.0.0.F.0.bn", "r.0.0.F.0.relu", "r.0.0.F.1.conv", "r.0.0.F.1.bn", "r.0.0.relu",
        "r.0.1.F.0.conv", "r.0.1.F.0.bn", "r.0.1.F.0.relu", "r.0.1.F.1.conv", "r.0.1.F.1.bn", "r.0.1.relu",
    ]  # fmt: skip


def test_the_scale_multiplies_f_and_not_the_shortcut() -> None:
    plan = row("residual 0.17: [3x3 16]")
    assert wiring(plan) == [
        "r.0.0.F.0.conv",
        "r.0.0.F.0.bn",
        "r.0.0.scale",
        "r.0.0.shortcut.0.conv <- input",
        "r.0.0.shortcut.0.bn",
        "r.0.0.add <- r.0.0.scale, r.0.0.shortcut.0.bn",
        "r.0.0.relu",
    ]
    assert plan.steps[3].op == Scale(0.17)


# --- 6: shortcuts ------------------------------------------------------------------------------------------------

B: list[Op] = [conv1x1(16, 2), BN]
PAD: list[Op] = [PadChannels(16, 2)]
NONE: list[Op] = []
SHORTCUTS: list[tuple[str, str, list[list[Op]]]] = [
    ("project", "residual x 2: [3x3 16 /2, 3x3 16]", [B, NONE]),
    ("project", "residual x 2: [3x3 16, 3x3 16]", [[conv1x1(16), BN], NONE]),
    ("project", "residual x 2: [3x3 /2, 3x3]", [[conv1x1(8, 2), BN], NONE]),
    ("project", "residual x 2: [3x3, 3x3]", [NONE, NONE]),
    ("project all", "residual x 2: [3x3 16 /2, 3x3 16]", [B, [conv1x1(16), BN]]),
    ("project all", "residual: [3x3, 3x3]", [[conv1x1(8), BN]]),
    ("pad", "residual x 2: [3x3 16 /2, 3x3 16]", [PAD, NONE]),
    ("pad", "residual x 2: [3x3 16, 3x3 16]", [[PadChannels(16, 1)], NONE]),
    ("pad", "residual: [3x3 /2, 3x3]", [[PadChannels(8, 2)]]),
    ("[1x1 /s]", "residual x 2: [3x3 16 /2, 3x3 16]", [B, NONE]),
    ("[sxs avg /s ceil, 1x1]", "residual x 2: [3x3 16 /2, 3x3 16]",
     [[Pool("avg", (2, 2), 2, (0, 0), True), conv1x1(16), BN], NONE]),
    ("[sxs avg /s ceil, 1x1]", "residual x 2: [3x3 16, 3x3 16]", [[conv1x1(16), BN], NONE]),
    ("[sxs avg /s V ceil, 1x1]", "residual: [3x3 /2, 3x3 /2]",
     [[Pool("avg", (4, 4), 4, (0, 0), True), conv1x1(8), BN]]),
    ("[3x3 max /s, 1x1 linear]", "residual: [3x3 16 /2]", [[Pool("max", (3, 3), 2, (1, 1)), conv1x1(16, bias=True)]]),
    ("[1x1 4 bare, bn(0.01), 3x3 /s]", "residual: [3x3 16 /2]",
     [[conv1x1(4), BatchNorm(0.01), conv3x3(16, 2), BN]]),
]  # fmt: skip


@pytest.mark.parametrize(("option", "items", "wanted"), SHORTCUTS)
def test_a_shortcut_acts_where_f_has_a_stride_or_changes_the_channels(
    option: str, items: str, wanted: list[list[Op]]
) -> None:
    plan = row(items, shortcut=option)
    copies = [[s.op for s in plan.steps if s.path.startswith(f"r.0.{i}.shortcut.")] for i in range(len(wanted))]
    assert copies == wanted


def test_the_shortcut_is_decided_without_looking_at_sizes() -> None:
    """On a 1x1 map a stride of two changes no size, and yet projects: parameters do not depend on the image."""
    plan = row("residual: [3x3 /2, 3x3]", input="8x1x1")
    assert conv1x1(8, 2) in ops(plan)
    assert conv1x1(8, 2) in ops(row("residual: [3x3 /2, 3x3]", input="8x64x64"))


def test_resnet_d_s_shortcut_meets_f_on_any_size() -> None:
    for size in range(1, 20):
        items = "residual: [1x1 4, 3x3 4 /2, 1x1 16]"
        plan = row(items, input=f"8x{size}x{size}", shortcut="[sxs avg /s ceil, 1x1]")
        assert plan.steps[-1].shape == Shape(16, -(-size // 2), -(-size // 2))


def test_f_stands_before_the_shortcut_and_the_identity_is_the_value_itself() -> None:
    plan = row("[3x3 16, residual x 2: [3x3 16 /2, 3x3 16]]")
    assert wiring(plan) == [
        "r.0.conv", "r.0.bn", "r.0.relu",
        "r.1.0.F.0.conv", "r.1.0.F.0.bn", "r.1.0.F.0.relu", "r.1.0.F.1.conv", "r.1.0.F.1.bn",
        "r.1.0.shortcut.0.conv <- r.0.relu", "r.1.0.shortcut.0.bn",
        "r.1.0.add <- r.1.0.F.1.bn, r.1.0.shortcut.0.bn", "r.1.0.relu",
        "r.1.1.F.0.conv", "r.1.1.F.0.bn", "r.1.1.F.0.relu", "r.1.1.F.1.conv", "r.1.1.F.1.bn",
        "r.1.1.add <- r.1.1.F.1.bn, r.1.0.relu", "r.1.1.relu",
    ]  # fmt: skip


# --- 7: pre-activation -------------------------------------------------------------------------------------------

PRE = {"conv": "bn relu conv", "residual": "x + F"}


def test_a_pre_activated_projection_is_a_convolution_that_reads_f_s_activated_input() -> None:
    plan = row("residual x 2: [3x3 16 /2, 3x3 16]", **PRE)
    assert wiring(plan) == [
        "r.0.0.F.0.bn", "r.0.0.F.0.relu", "r.0.0.F.0.conv",
        "r.0.0.F.1.bn", "r.0.0.F.1.relu", "r.0.0.F.1.conv",
        "r.0.0.shortcut.0.conv <- r.0.0.F.0.relu",
        "r.0.0.add <- r.0.0.F.1.conv, r.0.0.shortcut.0.conv",
        "r.0.1.F.0.bn", "r.0.1.F.0.relu", "r.0.1.F.0.conv",
        "r.0.1.F.1.bn", "r.0.1.F.1.relu", "r.0.1.F.1.conv",
        "r.0.1.add <- r.0.1.F.1.conv, r.0.0.add",
    ]  # fmt: skip


def test_a_convolution_after_an_activation_adds_none_of_its_own() -> None:
    plan = row("[3x3 16 bare, bn, relu, residual: [3x3 16, 3x3 16], bn, relu, 3x3 max, dropout 0.5, 1x1 4]", **PRE)
    assert wiring(plan) == [
        "r.0.conv", "r.1.bn", "r.2.relu",
        "r.3.0.F.0.conv", "r.3.0.F.1.bn", "r.3.0.F.1.relu", "r.3.0.F.1.conv",
        "r.3.0.add <- r.3.0.F.1.conv, r.2.relu",
        "r.4.bn", "r.5.relu", "r.6.max", "r.7.dropout", "r.8.conv",
    ]  # fmt: skip


def test_the_first_projection_reads_the_stem_s_activation_where_f_does() -> None:
    plan = row("[3x3 16 bare, bn, relu, 3x3 max /2, residual: [1x1 4, 1x1 32]]", **PRE)
    assert "r.4.0.shortcut.0.conv <- r.3.max" in wiring(plan)
    assert wiring(plan)[4] == "r.4.0.F.0.conv"


@pytest.mark.parametrize(
    ("option", "wanted"),
    [
        ("pad", "r.0.0.shortcut.pad <- input"),
        ("[3x3 max /s]", "r.0.0.shortcut.0.max <- input"),
        ("project", "r.0.0.shortcut.0.conv <- r.0.0.F.0.relu"),
        ("project all", "r.0.0.shortcut.0.conv <- r.0.0.F.0.relu"),
        ("[sxs avg /s, 1x1]", "r.0.0.shortcut.0.avg <- r.0.0.F.0.relu"),
    ],
)
def test_only_a_pre_activated_shortcut_that_projects_reads_what_is_activated(option: str, wanted: str) -> None:
    channels = 8 if "max" in option else 16
    assert wanted in wiring(row(f"residual: [3x3 {channels} /2, 3x3 {channels}]", shortcut=option, **PRE))


def test_a_projection_without_pre_activation_reads_x_whatever_f_begins_with() -> None:
    assert "r.0.0.shortcut.0.conv <- input" in wiring(row("residual: [bn, 3x3 16]"))
    assert "r.0.0.shortcut.0.conv <- input" in wiring(row("residual: [3x3 max, 3x3 16]"))


def test_a_pre_activated_projection_is_alone_even_where_convolutions_end_in_a_normalisation() -> None:
    plan = row("residual: [3x3 16]", conv="bn relu conv bn", residual="x + F")
    assert kinds("residual: [3x3 16]", conv="bn relu conv bn", residual="x + F") == "bn relu conv bn2 conv add"
    assert wiring(plan)[4:] == [
        "r.0.0.shortcut.0.conv <- r.0.0.F.0.relu", "r.0.0.add <- r.0.0.F.0.bn2, r.0.0.shortcut.0.conv",
    ]  # fmt: skip


def test_option_c_projects_every_unit_from_what_is_activated_there() -> None:
    plan = row("residual x 2: [3x3, 3x3]", shortcut="project all", **PRE)
    assert "r.0.1.shortcut.0.conv <- r.0.1.F.0.relu" in wiring(plan)


def test_branches_activate_their_input_each_and_the_projection_reads_the_first_s() -> None:
    plan = row("residual: [concat: [1x1 8, 3x3 8]]", **PRE)
    assert wiring(plan) == [
        "r.0.0.F.0.branch0.0.bn", "r.0.0.F.0.branch0.0.relu", "r.0.0.F.0.branch0.0.conv",
        "r.0.0.F.0.branch1.0.bn <- input", "r.0.0.F.0.branch1.0.relu", "r.0.0.F.0.branch1.0.conv",
        "r.0.0.F.0.cat <- r.0.0.F.0.branch0.0.conv, r.0.0.F.0.branch1.0.conv",
        "r.0.0.shortcut.0.conv <- r.0.0.F.0.branch0.0.relu",
        "r.0.0.add <- r.0.0.F.0.cat, r.0.0.shortcut.0.conv",
    ]  # fmt: skip


def test_a_wide_resnet_s_dropout_stands_behind_the_activation() -> None:
    items = "residual: [3x3 16, bn, relu, dropout 0.3, 3x3 16]"
    assert kinds(items, **PRE) == "bn relu conv bn relu dropout conv conv add"


def test_a_unit_inside_a_unit_leaves_the_outer_one_its_activated_input() -> None:
    plan = row("residual: [residual: [3x3 16], 3x3 32]", **PRE)
    assert "r.0.0.shortcut.0.conv <- r.0.0.F.0.0.F.0.relu" in wiring(plan)
    assert "r.0.0.F.0.0.shortcut.0.conv <- r.0.0.F.0.0.F.0.relu" in wiring(plan)


def convs_read(text: str) -> list[str]:
    """What each step adds up or convolves: `path <- inputs`, of a model written as text."""
    plan = plan_of(text)
    return [f"{step.path} <- {' '.join(plan.steps[i].path for i in step.inputs)}" for step in plan.steps[1:]]


PREACT = "input: 8x16x16\nconv: bn relu conv\nresidual: x + F\n"


def test_a_normalisation_before_every_convolution_is_before_every_convolution() -> None:
    found = convs_read("input: 8x16x16\nconv: bn conv relu\ntable: {a: [3x3 16, 3x3 16]}")
    assert [line.split()[0] for line in found] == [
        "a.0.bn", "a.0.conv", "a.0.relu", "a.1.bn", "a.1.conv", "a.1.relu",
    ]  # fmt: skip


def test_what_is_computed_aside_is_not_passed_on_to_a_shortcut() -> None:
    found = convs_read(PREACT + "table: {a: [residual: [aside: [1x1 4], 3x3 16]]}")
    assert "a.0.0.shortcut.0.conv <- a.0.0.F.1.relu" in found


@pytest.mark.parametrize("order", ["[[3x3 max, 1x1 8], [1x1 8]]", "[[1x1 8], [3x3 max, 1x1 8]]"])
def test_the_order_of_branches_does_not_decide_what_a_projection_reads(order: str) -> None:
    found = convs_read(PREACT + f"table: {{a: [residual: [concat: {order}]]}}")
    (projection,) = (line for line in found if line.startswith("a.0.0.shortcut"))
    assert projection.endswith("relu")


def test_a_projection_reads_the_activated_input_before_any_dropout() -> None:
    found = convs_read(PREACT + "table: {a: [residual: [bn, relu, dropout 0.2, 3x3 16]]}")
    assert "a.0.0.shortcut.0.conv <- input" in found
