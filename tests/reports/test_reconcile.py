"""Figures that are known of models, and where they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest

from resnetcli.errors import UsageError
from resnetcli.reports import reconcile as reconciling
from resnetcli.reports.readings import readings
from resnetcli.reports.reconcile import Reconciliation, parse_figure, reconcile
from resnetcli.reports.reconcile_table import listed_matches, own_sheet, reconcile_notes
from tests.support.thin import thinned
from tests.support.written import plan_of


@pytest.fixture(autouse=True, scope="module")
def _lower_once() -> Iterator[None]:
    """Lower and count each variant of a model once for all figures."""
    cache: dict[Any, Any] = {}

    def once(function: Callable[..., Any], key: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            place = (function, key(*args))
            if place not in cache:
                cache[place] = args, list(function(*args))
            return cache[place][1]

        return call

    with pytest.MonkeyPatch.context() as patched:
        for name in ("near_variants", "far_variants"):
            function = getattr(reconciling, name)
            patched.setattr(reconciling, name, once(function, lambda model, settings, *_: (model, str(settings))))
        patched.setattr(reconciling, "readings", once(readings, id))
        yield


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
    ("resnet50", "3.86G", "macs", "resnet50_v1"),  # He et al. 2015, Table 1, to one more digit
    ("resnet50", "5.34G", "macs", "at 3 x 256 x 256"),
    ("vgg16", "15.3G", "macs of convolutions alone", "as asked"),  # He et al. 2015, Table 1, without the fc layers
    ("vgg16", "30.9 GFLOPs", "flops, torch, darknet", "as asked"),
    ("inception_v3", "27.2M", "parameters", "with auxiliary heads"),
    ("googlenet", "1.591G", "macs", "with auxiliary heads"),
    ("darknet53", "18.57G", "flops, torch, darknet", "as asked"),
    ("resnet50", "4.12G", "mmcv", "as asked"),  # MMPretrain
    ("resnext50_32x4d", "4.27G", "mmcv", "as asked"),
    ("resnet101", "7.85G", "mmcv", "as asked"),
    ("resnet50", "24.37M", "parameters in units of 1024^2", "as asked"),
    ("resnet50", "23.5M", "parameters without the classifier", "as asked"),
    ("darknet53", "41.57M", "parameters without BatchNorm", "as asked"),
    ("resnet18", "11173962", "parameters", "with a 3x3 stem, no max pooling, 10 classes, at 3 x 32 x 32"),
    ("resnet18", "11.22M", "parameters", "with a 3x3 stem, no max pooling, 100 classes, at 3 x 32 x 32"),
    ("resnet50", "23,528,522", "parameters", "with 10 classes"),
    ("resnext50_32x4d", "22.8G", "2 x macs with groups not divided", "as asked"),
    ("resnet50", "25,636,712", "parameters with a bias in every convolution and running statistics, as in Keras",
     "as asked"),
    ("resnet50", "25.636M", "parameters with a bias in every convolution and running statistics, as in Keras",
     "as asked"),
    ("resnet50", "23,587,712",
     "parameters without the classifier, with Keras' biases and statistics", "as asked"),
    ("resnet50", "25,610,205", "elements of the state_dict", "as asked"),
    ("resnet50", "11.32M", "activations and outputs of pooling", "as asked"),
    ("resnet50", "12.15G", "macs of a training step", "as asked"),
    ("resnet50", "4142713856", "thop of spring 2019", "as asked"),  # pytorch-OpCounter#17
    ("resnet18", "1826702336", "thop of spring 2019", "as asked"),  # thop 0.0.22, run on torchvision's model
    ("resnext50_32x4d", "4297155584", "thop of spring 2019", "as asked"),
    ("resnet101", "7878818816", "thop of spring 2019", "as asked"),
    ("wide_resnet50_2", "11464696832", "thop of spring 2019", "as asked"),
    ("resnet18", "1.8×10^9", "macs", "as asked"),  # He et al. 2015, Table 1, as it is set
]  # fmt: skip


@pytest.mark.parametrize(("model", "figure", "reading", "variant"), thinned(KNOWN, 4))
def test_a_known_figure_has_its_known_cause(model: str, figure: str, reading: str, variant: str) -> None:
    assert first(model, figure) == (reading, variant)


def test_the_model_itself_comes_before_its_variants() -> None:
    found = reconcile("resnet50", "4.13G")
    assert [(m.reading, m.variant.text) for m in found.matches[:2]] == [("thop", "as asked"), ("ptflops", "as asked")]
    at = [match.variant == found.variant for match in found.matches]
    assert at == sorted(at, reverse=True)
    assert len(found.itself) == 2


def test_the_table_lists_what_answers_the_question_and_all_on_request() -> None:
    result = reconcile("resnet50", "4.13G")
    assert [match.reading for match in listed_matches(result)] == ["thop", "ptflops"]
    assert reconcile_notes(result)[0] == "use --all to list 3 less likely matches and every tool's figure"
    assert listed_matches(result, everything=True) == result.matches
    assert len(reconcile_notes(result, everything=True)) == 1


@pytest.mark.parametrize(("model", "answer"), [("resnet50", "explained"), ("resnet50_v1", "possible")])
def test_matches_cut_from_the_table_are_not_called_less_likely_if_they_are_as_likely(model: str, answer: str) -> None:
    result = reconcile(model, "4.1G")
    hidden = len(result.matches) - len(listed_matches(result))
    assert result.answer == answer
    assert reconcile_notes(result)[0] == f"use --all to list {hidden} more matches and every tool's figure"


def test_the_parts_of_whatever_is_found_sum_to_a_total_that_gives_the_figure() -> None:
    for model, figure, *_ in KNOWN[::5]:
        found = reconcile(model, figure)
        for match in (match for match in found.matches if not match.binary):
            quotient = Decimal(match.counted.printed) / found.figure.quantum
            value = found.figure.value / found.figure.quantum
            assert abs(quotient - value) < 1
            assert match.difference == match.total - found.figure.value


def test_an_unexplained_figure_is_reported_to_be_with_the_nearest_candidates() -> None:
    found = reconcile("resnet50", "5.0G")
    assert (found.explained, found.matches) == (False, ())
    distances = [abs(candidate.difference) for candidate in found.nearest]
    assert distances == sorted(distances)
    assert distances[0] > 50_000_000
    assert len(found.nearest) == 5


def test_a_figure_of_all_digits_is_exact_or_not_at_all() -> None:
    assert reconcile("resnet50", "4089184256").explained
    assert not reconcile("resnet50", "4089184255").explained


def test_parameters_are_set_and_then_no_other_model_is_checked() -> None:
    found = reconcile("resnext50_32x4d", "4.267G", {"C": 8, "d": 14})
    assert (found.matches[0].reading, found.matches[0].variant.settings) == ("macs", "C=8 d=14")
    assert {match.variant.model for match in found.matches} == {"resnext50_32x4d"}


def test_at_another_input_the_model_asked_for_is_that() -> None:
    found = reconcile("resnet50", "5.34G", input="3x256x256")
    assert found.matches[0].variant.text == "as asked"


def test_with_heads_asked_for_the_variant_is_without() -> None:
    found = reconcile("googlenet", "1.5827G", aux=True)
    assert found.matches[0].variant.text == "without auxiliary heads"


def test_parameters_that_no_size_changes_are_named_once() -> None:
    found = reconcile("resnet50", "25557032")
    assert [match.variant.text for match in found.matches if match.reading == "parameters"] == ["as asked"]


POSSIBLE = [  # few digits, or far from what was asked: named, but not as the cause
    ("resnet50", "3.8G", "macs", "resnet50_v1"),  # a truncation of a relative
    ("cifar_resnet56", "0.86M", "parameters", "with option B shortcuts"),
    ("resnet50", "9.74G", "flops, torch, darknet", "resnet50_noshortcut at 3 x 256 x 256"),
    ("resnet18", "0.56G", "macs", "with a 3x3 stem, no max pooling, 10 classes, at 3 x 32 x 32"),
]


@pytest.mark.parametrize(("model", "figure", "reading", "variant"), POSSIBLE)
def test_what_may_be_chance_is_not_called_the_cause(model: str, figure: str, reading: str, variant: str) -> None:
    found = reconcile(model, figure)
    assert (found.answer, found.explained) == ("possible", False)
    assert (found.matches[0].reading, found.matches[0].variant.text) == (reading, variant)
    assert not any(match.likely for match in found.matches)


def test_every_cause_of_a_figure_that_has_several_is_named() -> None:
    names = {(match.reading, match.variant.text) for match in reconcile("resnet50", "3.86G").matches}
    assert {("macs", "resnet50_v1"), ("thop of spring 2019 in units of 1024^3", "as asked")} <= names
    names = {(match.reading, match.variant.text) for match in reconcile("cifar_resnet56", "0.86M").matches}
    assert ("parameters and BatchNorm's running statistics", "as asked") in names


def test_a_far_variant_is_explained_once_the_input_is_given() -> None:
    found = reconcile("resnet50", "9.74G", input="3x256x256")
    assert found.explained
    assert (found.matches[0].reading, found.matches[0].variant.text) == ("flops, torch, darknet", "resnet50_noshortcut")


@pytest.mark.parametrize(("figure", "quantity"), [("25.6M", "params"), ("11.1M acts", "activations"), ("5.0G", "work")])
def test_a_figure_is_compared_with_its_own_quantity_alone(figure: str, quantity: str) -> None:
    found = reconcile("resnet50", figure)
    assert found.quantity == quantity
    sheet = own_sheet(found)
    where = [column.key for column in sheet.columns].index("total")
    totals = [row[where].value for row in sheet.rows]
    assert totals
    own = {each.total for each in found.own if each.counted.quantity == quantity} | {
        t.total for t in found.tools.values()
    }
    assert set(totals) <= own
    if quantity != "work":
        assert not set(totals) & {t.total for t in found.tools.values()}


def test_a_training_step_and_groups_are_counted_by_hand() -> None:
    text = "input: 3x8x8\nconv: conv bn relu\ntable: {a: [3x3 4], b: [3x3 8 C=2], c: [global avg, fc 5]}"
    found = {reading.name: reading.total for reading in readings(plan_of(text))}
    macs = 64 * (27 * 4 + 18 * 8) + 40
    assert found["macs with groups not divided"] == macs + 64 * 18 * 8
    assert found["macs of a training step"] == 3 * macs - 64 * 27 * 4  # the image gets no gradient
    params = 108 + 8 + 144 + 16 + 45
    assert found["parameters"] == params
    assert found["parameters with groups not divided"] == params + 144
    assert found["parameters without BatchNorm"] == params - 24
    assert found["parameters without the classifier"] == params - 45
    assert found["parameters of convolutions alone"] == 108 + 144
    assert found["parameters with a bias in every convolution, as in Keras"] == params + 12
    assert found["elements of the state_dict"] == params + 24 + 2
    assert found["activations and outputs of pooling"] == 64 * 12 + 5 + 8


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
        ("4.12 GMac", 4_120_000_000, 10_000_000),
        ("3.8×10^9", 3_800_000_000, 100_000_000),
        ("3.8 x 10^9 FLOPs", 3_800_000_000, 100_000_000),
        ("11.1M activations", 11_100_000, 100_000),
        ("4.09B Mult-Adds", 4_090_000_000, 10_000_000),
    ],
)
def test_a_figure_is_read_as_people_write_it(text: str, value: int, quantum: int) -> None:
    figure = parse_figure(text)
    assert (int(figure.value), int(figure.quantum)) == (value, quantum)


@pytest.mark.parametrize("text", ["", "G", "4.13X", "-4G", "4.1.3G", "four", "4_G", "4,08,9G", "4.G", "9" * 41])
def test_what_is_no_figure_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="is not a figure"):
        parse_figure(text)


def test_every_tool_is_reported_to_say_something() -> None:
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
