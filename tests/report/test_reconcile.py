"""Figures that are known of nets, and where they come from."""

from __future__ import annotations

from decimal import Decimal

import pytest

from resnetcli.errors import UsageError
from resnetcli.report.reconcile import Reconciliation, parse_figure, reconcile


def first(model: str, figure: str, **parameters: int) -> tuple[str, str]:
    found = reconcile(model, figure, parameters)
    assert found.explained
    return found.matches[0].reading, found.matches[0].variant.text


KNOWN = [
    ("resnet50", "4.1G", "macs", "as asked"),  # Xie et al. 2017, Table 1
    ("resnet50", "4.13G", "thop", "as asked"),  # what half of GitHub prints
    ("resnet50", "4.11G", "fvcore", "as asked"),  # timm
    ("resnet50", "4133742592", "thop", "as asked"),
    ("resnet50", "4_144_854_528", "fvcore-train", "as asked"),
    ("resnet50", "8.21G", "calflops", "as asked"),
    ("resnet50", "8,178,368,512", "flops, torch, darknet", "as asked"),
    ("resnet50", "25.6M", "parameters", "as asked"),
    ("resnet50", "25557032 params", "parameters", "as asked"),
    ("resnet50", "25.61M", "parameters and BatchNorm's running statistics", "as asked"),
    ("resnet50", "11.1M", "activations", "as asked"),
    ("resnet50", "3.8G", "macs", "resnet50_v1"),  # He et al. 2015, Table 1
    ("resnet50", "5.34G", "macs", "at 3 x 256 x 256"),
    ("vgg16", "15.3G", "macs of convolutions alone", "as asked"),  # He et al. 2015, Table 1, without the fc layers
    ("vgg16", "30.9 GFLOPs", "flops, torch, darknet", "as asked"),
    ("inception_v3", "27.2M", "parameters", "with auxiliary heads"),
    ("googlenet", "1.591G", "macs", "with auxiliary heads"),
    ("darknet53", "18.57G", "flops, torch, darknet", "as asked"),
]


@pytest.mark.parametrize(("model", "figure", "reading", "variant"), KNOWN)
def test_a_known_figure_has_its_known_cause(model: str, figure: str, reading: str, variant: str) -> None:
    assert first(model, figure) == (reading, variant)


def test_the_net_itself_comes_before_its_variants() -> None:
    found = reconcile("resnet50", "4.13G")
    assert [(m.reading, m.variant.text) for m in found.matches[:2]] == [("thop", "as asked"), ("ptflops", "as asked")]
    at = [match.variant == found.variant for match in found.matches]
    assert at == sorted(at, reverse=True)
    assert len(found.itself) == 2


def test_the_parts_of_whatever_is_found_sum_to_a_total_that_gives_the_figure() -> None:
    for model, figure, *_ in KNOWN[::5]:
        found = reconcile(model, figure)
        for match in found.matches:
            quotient = Decimal(match.total) / found.figure.quantum
            value = found.figure.value / found.figure.quantum
            assert abs(quotient - value) < 1
            assert match.difference == match.total - found.figure.value


def test_an_unexplained_figure_is_said_to_be_with_the_nearest_candidates() -> None:
    found = reconcile("resnet50", "5.0G")
    assert (found.explained, found.matches) == (False, ())
    distances = [abs(candidate.difference) for candidate in found.nearest]
    assert distances == sorted(distances)
    assert distances[0] > 50_000_000
    assert len(found.nearest) == 5


def test_a_figure_of_all_digits_is_exact_or_not_at_all() -> None:
    assert reconcile("resnet50", "4089184256").explained
    assert not reconcile("resnet50", "4089184255").explained


def test_parameters_are_set_and_then_no_other_net_is_looked_at() -> None:
    found = reconcile("resnext50_32x4d", "4.267G", {"C": 8, "d": 14})
    assert (found.matches[0].reading, found.matches[0].variant.settings) == ("macs", "C=8 d=14")
    assert {match.variant.model for match in found.matches} == {"resnext50_32x4d"}


def test_at_another_input_the_net_asked_for_is_that() -> None:
    found = reconcile("resnet50", "5.34G", input="3x256x256")
    assert found.matches[0].variant.text == "as asked"


def test_with_heads_asked_for_the_variant_is_without() -> None:
    found = reconcile("googlenet", "1.5827G", aux=True)
    assert found.matches[0].variant.text == "without auxiliary heads"


def test_parameters_that_no_size_changes_are_named_once() -> None:
    found = reconcile("resnet50", "25557032")
    assert [match.variant.text for match in found.matches if match.reading == "parameters"] == ["as asked"]


@pytest.mark.parametrize(
    ("text", "value", "quantum"),
    [
        ("4.13G", 4_130_000_000, 10_000_000),
        ("4.13g", 4_130_000_000, 10_000_000),
        ("4B", 4_000_000_000, 1_000_000_000),
        ("25.6M", 25_600_000, 100_000),
        ("0.27M", 270_000, 10_000),
        ("1.2T", 1_200_000_000_000, 100_000_000_000),
        ("730K", 730_000, 1000),
        ("4133742592", 4_133_742_592, 1),
        ("4,133,742,592", 4_133_742_592, 1),
        ("4.1 GMACs", 4_100_000_000, 100_000_000),
        ("8.2 GFLOPs", 8_200_000_000, 100_000_000),
    ],
)
def test_a_figure_is_read_as_people_write_it(text: str, value: int, quantum: int) -> None:
    figure = parse_figure(text)
    assert (int(figure.value), int(figure.quantum)) == (value, quantum)


@pytest.mark.parametrize("text", ["", "G", "4.13X", "-4G", "4.1.3G", "four", "4_G", "4,08,9G", "4.G", "9" * 41])
def test_what_is_no_figure_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a figure"):
        parse_figure(text)


def test_every_tool_is_said_to_say_something() -> None:
    found: Reconciliation = reconcile("vgg16", "15.5G")
    assert found.tools["ptflops"].total == 15_470_264_320 + 13_547_520 + 9_192 + 2 * (13_555_712 + 6_121_472)


@pytest.mark.parametrize(
    ("figure", "explained"),
    [("25.6M FLOPs", False), ("25.6M params", True), ("11.1M MACs", False), ("8.2 GFLOPs", True), ("4.1e9", True),
     ("4,089,184,256", True)],
)  # fmt: skip
def test_a_figure_is_only_what_it_says_it_is(figure: str, explained: bool) -> None:
    assert reconcile("resnet50", figure).explained == explained


def test_a_figure_may_be_a_number() -> None:
    assert reconcile("resnet50", 4_089_184_256).matches[0].reading.startswith("macs")
