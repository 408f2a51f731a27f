"""How two models differ: in words written by hand, at costs worked out by hand, and sums that hold for any two."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetcli.errors import Source, SpecError, UsageError
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.reports.diff import FIGURES, Amounts, Diff, diff, diff_profiles, match_stages
from resnetcli.reports.profile import Profile
from resnetcli.spec.read import read
from tests.support.strategies import specs
from tests.support.thin import thinned
from tests.support.written import ZOO


def of(text: str) -> Profile:
    """The profile of a spec's text."""
    spec = read(Source("net.yaml", text), zoo=ZOO)
    plan = lower(spec)
    return Profile("net.yaml", "", spec, plan, count(plan), ())


def net(*rows: str, **header: str) -> Profile:
    """A table of rows over 3 x 32 x 32 images; `header` by keyword."""
    lines = [f"{key}: {value}" for key, value in {"input": "3x32x32", **header}.items()]
    return of("\n".join([*lines, "table:", *(f"  {row}" for row in rows)]))


def changes(found: Diff) -> dict[str, tuple[str, ...]]:
    return {stage.name: stage.changes for stage in found.stages}


def sums(found: Diff) -> None:
    """What must hold for any two nets."""
    for figure in FIGURES:
        assert sum(stage.difference.figure(figure) for stage in found.stages) == found.difference.figure(figure)
    for profile, total in ((found.before, found.total_before), (found.after, found.total_after)):
        cost = profile.counts.total
        assert (total.params, total.macs, total.activations) == (cost.params, cost.macs, cost.activations)
        assert total.memory_bytes == 4 * sum(step.shape.elements for step in profile.plan.steps[1:])
    olds, news = list(found.before.spec.stages), list(found.after.spec.stages)
    assert [stage.after for stage in found.stages if stage.after] == [
        n for n in news if n in {r.after for r in found.stages}
    ]
    both = sum(stage.status == "changed" for stage in found.stages) + found.equal_stages
    assert both + sum(stage.status == "dropped" for stage in found.stages) == len(olds)
    assert both + sum(stage.status == "added" for stage in found.stages) == len(news)


# --- pairs of the zoo ------------------------------------------------------------------------------------------------


def test_resnext_is_wider_in_groups() -> None:
    found = diff("resnet50", "resnext50_32x4d")
    assert found.header == ()
    assert found.equal_stages == 2  # conv1 and head
    assert changes(found) == {
        f"conv{stage}_x": (f"width {width} -> {2 * width} (first 1x1, 3x3)", "groups 1 -> 32 (3x3)")
        for stage, width in ((2, 64), (3, 128), (4, 256), (5, 512))
    }
    assert found.difference.params == 25_028_904 - 25_557_032
    assert found.difference.macs == 4_230_479_872 - 4_089_184_256
    # conv2_x: three blocks of 64 -> 128 wide; the 3x3 in 32 groups has 9 * 128 * 4 weights, and had 9 * 64 * 64
    entry = (64 + 256 + 256) * 64  # 1x1 in
    leave = 3 * 64 * 256  # 1x1 out
    bn = 3 * 2 * 2 * 64
    assert found.stages[0].difference.params == entry + leave + bn + 3 * (9 * 128 * 4 - 9 * 64 * 64)
    # two maps an block more by 64 channels of 56 x 56, each put out by conv, bn and relu, in float32
    assert found.stages[0].difference.activations == 3 * 2 * 64 * 56 * 56
    assert found.stages[0].difference.memory_bytes == 3 * 4 * found.stages[0].difference.activations


def test_the_stride_moved_between_the_versions_of_resnet50() -> None:
    found = diff("resnet50_v1", "resnet50")
    words = ("stride 2 moved from the first 1x1 to the 3x3 of the first block",)
    assert changes(found) == {"conv3_x": words, "conv4_x": words, "conv5_x": words}
    assert found.equal_stages == 3
    # conv3_x: the first 1x1 has four times the positions, 256 -> 128 channels
    assert [stage.difference.macs for stage in found.stages] == [3 * 28 * 28 * 256 * 128] * 3
    assert [found.share(stage, "macs") for stage in found.stages] == [pytest.approx(1 / 3)] * 3
    assert found.share(found.stages[0], "params") is None  # there is none to have a share of


def test_resnet_d_has_another_stem_and_pools_in_its_shortcuts() -> None:
    found = diff("resnet50", "resnet50d")
    assert found.header == ("shortcut: project -> [sxs avg /s ceil, 1x1]",)
    pooled = ("shortcut conv bn -> avg conv bn",)
    assert changes(found) == {
        "conv1": ("replaced: [7x7 64 /2] -> [3x3 32 /2, 3x3 32, 3x3 64]",),
        "conv3_x": pooled,
        "conv4_x": pooled,
        "conv5_x": pooled,
    }
    # the pools read 256, 512 and 1024 channels and put out 28, 14 and 7 squared
    assert [stage.difference for stage in found.stages[1:]] == [
        Amounts(memory_bytes=4 * channels * size * size) for channels, size in ((256, 28), (512, 14), (1024, 7))
    ]


def test_vgg19_repeats_a_convolution_more() -> None:
    found = diff("vgg16", "vgg19")
    words = ("repeats 3 -> 4 (3x3)",)
    assert changes(found) == {"conv3": words, "conv4": words, "conv5": words}
    assert [stage.difference.params for stage in found.stages] == [9 * c * c + c for c in (256, 512, 512)]


def test_normalisation_comes_with_every_convolution() -> None:
    found = diff("vgg16", "vgg16_bn")
    assert len(found.header) == 1
    assert "bn added" in found.header[0]
    assert changes(found)["conv3"][0] == "bn 0 -> 3"
    assert found.stages[2].difference.params == 3 * 2 * 256


def test_googlenet_with_batch_normalisation() -> None:
    found = diff("googlenet", "googlenet_bn")
    assert found.header[0] == "conv: conv relu -> conv bn(0.001) relu (bias dropped, bn added)"
    assert found.header[1] == "auxiliary head at 4a (not counted): dropped 5x5 avg /3 V; added avg to 4x4"
    assert changes(found)["3a"] == ("kernel 5x5 -> 3x3 (branch 3: 5x5)", "bias 6 -> 0", "bn 0 -> 6")
    outputs = 64 + 96 + 128 + 16 + 32 + 32  # of 3a's six convolutions: bn has two parameters where a bias had one
    assert found.stages[3].difference == Amounts(
        params=(9 - 25) * 16 * 32 + outputs, macs=(9 - 25) * 16 * 32 * 28 * 28, memory_bytes=4 * outputs * 28 * 28
    )
    assert changes(found)["pool4"] == ("kernel 3x3 -> 2x2", "padding none -> same")
    assert changes(found)["head"] == ("p 0.4 -> 0.2 (dropout)",)
    assert found.equal_stages == 2


def test_deeper_and_shortcuts_without_parameters() -> None:
    assert changes(diff("cifar_resnet20", "cifar_resnet56")) == {
        f"conv{stage}_x": ("blocks 3 -> 9",) for stage in (2, 3, 4)
    }
    found = diff("resnet34", "resnet34_a")
    assert found.header == ("shortcut: project -> pad",)
    assert changes(found) == {f"conv{stage}_x": ("shortcut conv bn -> pad",) for stage in (3, 4, 5)}
    assert [stage.difference.params for stage in found.stages] == [-(c * 2 * c + 2 * 2 * c) for c in (64, 128, 256)]
    assert changes(diff("resnet34_a", "resnet34_c"))["conv2_x"] == ("shortcut identity -> 3 x conv bn",)
    assert changes(diff("resnet34", "plain34"))["conv3_x"] == ("sum 4 -> 0", "shortcut conv bn -> none")


def test_a_setting_makes_another_model_of_one() -> None:
    found = diff("resnext50_32x4d", ("resnext50_32x4d", {"C": 8, "d": 14}))
    assert changes(found)["conv2_x"] == ("width 128 -> 112 (first 1x1, 3x3)", "groups 32 -> 8 (3x3)")
    assert diff("cifar_resnet20", ("cifar_resnet", {"depth": 20})).differs is False


def test_another_input_is_reported_once_and_where_it_costs() -> None:
    found = diff("resnet18", "resnet18", input="3x256x256")
    assert not found.differs
    small, large = net("a: 3x3 8", "b: [global avg, fc 4]"), net("a: 3x3 8", "b: [global avg, fc 4]", input="3x64x64")
    found = diff_profiles(small, large)
    assert found.header == ("input: 3 x 32 x 32 -> 3 x 64 x 64",)
    assert changes(found) == {"a": ("input size 32x32 -> 64x64",), "b": ("input size 32x32 -> 64x64",)}
    assert found.difference == Amounts(0, 27 * 8 * 3072, 8 * 3072, 4 * 3 * 8 * 3072)


PAIRS = [
    *("resnet50 alexnet", "inception_v4 resnet18", "vgg19 darknet53", "cifar_resnet20 wrn_28_10", "drn_c_26 drn_d_22"),
    *("preact_resnet50 resnet50", "faster_rcnn_resnet101 resnet101_v1", "resnext50_32x4d resnext50_32x4d_a"),
    *("prelu_net_a prelu_net_c", "inception_resnet_v1 inception_resnet_v2", "googlenet inception_v3"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_the_differences_sum_to_the_totals_for_unlike_models(pair: str) -> None:
    sums(diff(*pair.split()))


@pytest.mark.slow
def test_the_differences_sum_to_the_totals_all_over_the_zoo() -> None:
    names = list(ZOO.files)
    Random(0).shuffle(names)
    for a, b in pairwise(names):
        sums(diff(a, b, zoo=ZOO))


@pytest.mark.parametrize("model", thinned(ZOO.files, 4))
def test_a_model_does_not_differ_from_itself(model: str) -> None:
    found = diff(model, model, zoo=ZOO)
    assert (found.differs, found.header, found.stages, found.difference) == (False, (), (), Amounts())
    assert found.equal_stages == len(found.before.spec.stages)


# --- words -----------------------------------------------------------------------------------------------------------


def test_what_a_header_says_is_reported_once() -> None:
    rows = "a: 3x3 8", "b: [residual x 2: [3x3 8, 3x3 8]]"
    found = diff_profiles(net(*rows, conv="conv bn leaky(0.1)", residual="leaky(0.1)(x + F)"), net(*rows))
    assert found.header == (
        "conv: conv bn leaky(0.1) -> conv bn relu (activation leaky(0.1) -> relu)",
        "residual: leaky(0.1)(x + F) -> relu(x + F)",
    )
    assert changes(found) == {
        "a": ("leaky 1 -> 0", "relu 0 -> 1"),
        "b": ("leaky 2 -> 0", "leaky of a block 2 -> 0", "relu 0 -> 2", "relu of a block 0 -> 2"),
    }
    assert found.difference == Amounts()
    found = diff_profiles(net(*rows, conv="conv bn relu"), net(*rows, conv="conv(bias) bn relu"))
    assert found.header == ("conv: conv bn relu -> conv(bias) bn relu (bias added)",)
    assert changes(found) == {"a": ("bias 0 -> 1",), "b": ("bias 0 -> 4",)}
    assert found.difference == Amounts(params=5 * 8)


def test_what_comes_in_costs_too() -> None:
    found = diff_profiles(net("a: 3x3 8", "b: 3x3 8", "c: fc 2"), net("a: 3x3 16 /2", "b: 3x3 8", "c: fc 2"))
    assert changes(found) == {
        "a": ("width 8 -> 16", "stride 1 -> 2"),
        "b": ("input channels 8 -> 16", "input size 32x32 -> 16x16"),
        "c": ("input size 32x32 -> 16x16",),
    }


# --- which row is which ----------------------------------------------------------------------------------------------


def test_rows_are_matched_by_name_then_by_order_where_they_are_alike() -> None:
    a = net("stem: 7x7 8 /2", "conv2_x: [residual x 2: [3x3 8, 3x3 8]]", "conv3_x: [residual x 2: [3x3 16 /2, 3x3 16]]",
            "head: [global avg, fc 2]")  # fmt: skip
    b = net("stem: 7x7 8 /2", "pool: 3x3 max /2", "stage1: [residual x 2: [3x3 8, 3x3 8]]",
            "stage2: [residual x 3: [3x3 32 /2, 3x3 32]]", "head: [global avg, fc 2]")  # fmt: skip
    assert match_stages(a.spec.stages, b.spec.stages) == [
        ("stem", "stem"), (None, "pool"), ("conv2_x", "stage1"), ("conv3_x", "stage2"), ("head", "head"),
    ]  # fmt: skip
    found = diff_profiles(a, b)
    sums(found)
    assert [(stage.name, stage.status) for stage in found.stages] == [
        ("pool", "added"), ("conv2_x -> stage1", "changed"), ("conv3_x -> stage2", "changed"), ("head", "changed"),
    ]  # fmt: skip
    assert found.stages[0].changes == ("stage added: [3x3 max /2]",)
    back = diff_profiles(b, a)
    assert [stage.status for stage in back.stages] == ["dropped", "changed", "changed", "changed"]
    assert back.difference == Amounts() - found.difference


def test_a_name_is_the_same_row_however_much_else_differs_unless_rows_changed_places() -> None:
    a, b = (
        net("x: 3x3 8", "y: 1x1 8", "z: fc 2").spec.stages,
        net("y: [3x3 max, 5x5 8]", "x: 3x3 8", "z: fc 2").spec.stages,
    )
    assert match_stages(a, b) == [(None, "y"), ("x", "x"), ("y", None), ("z", "z")] or match_stages(a, b) == [
        ("x", None), ("y", "y"), (None, "x"), ("z", "z"),
    ]  # fmt: skip


def test_rows_under_other_names_alone_are_a_difference() -> None:
    found = diff_profiles(net("a: 3x3 8", "b: 5x5 4"), net("a: 3x3 8", "c: 5x5 4"))
    assert [(stage.name, stage.changes, stage.difference) for stage in found.stages] == [("b -> c", (), Amounts())]
    assert found.differs


# --- drawn -----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.lists(specs(), min_size=2, max_size=4))
def test_the_differences_of_drawn_models_sum_there_and_back(texts: list[str]) -> None:
    profiles = []
    for text in texts:
        try:
            profiles.append(of(text))
        except SpecError:
            continue
    for a in profiles:
        for b in profiles:
            found = diff_profiles(a, b)
            sums(found)
            assert diff_profiles(b, a).difference == Amounts() - found.difference
            if a is b:
                assert not found.differs


@settings(max_examples=30)
@given(specs(), st.integers(0, 10**6))
def test_a_line_changed_in_a_drawn_model_is_a_difference_of_its_row(text: str, which: int) -> None:
    try:
        before, other = of(text), of(text.replace("[", "[1x1 8, ", 1) if which % 2 else text)
    except SpecError:
        return
    found = diff_profiles(before, other)
    sums(found)
    assert (before.spec.stages == other.spec.stages) or found.differs


def test_long_rows_are_compared_place_by_place_and_quickly() -> None:
    long = ", ".join(["1x1 8"] * 700)
    found = diff_profiles(net(f"a: [3x3 8, {long}]", input="8x4x4"), net(f"a: [{long}, 3x3 8]", input="8x4x4"))
    sums(found)
    assert found.differs


def test_a_file_and_its_later_version(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("input: 3x8x8\ntable: {conv1: 3x3 8, head: [global avg, fc 4]}\n")
    (tmp_path / "b.yaml").write_text("input: 3x8x8\ntable: {conv1: 3x3 8 /2, head: [global avg, fc 4]}\n")
    found = diff(str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml"))
    assert changes(found) == {"conv1": ("stride 1 -> 2",), "head": ("input size 8x8 -> 4x4",)}
    with pytest.raises(UsageError, match="no such file"):
        diff(str(tmp_path / "a.yaml"), str(tmp_path / "c.yaml"))
