"""Words that every part says things with."""

from __future__ import annotations

import pytest

from resnetcli.errors import did_you_mean, nearest, plural, signal_name
from resnetcli.spec.zoo import Zoo


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 nets"), (1, "1 net"), (2, "2 nets"), (1.0, "1 net"), (0.5, "0.5 nets"), (25_557_032, "25,557,032 nets"),
     (10**15 + 1, "1,000,000,000,000,001 nets")],
)  # fmt: skip
def test_one_of_a_thing_is_no_plural(number: float, said: str) -> None:
    assert plural(number, "net") == said


def test_a_plural_that_is_not_made_with_an_s_is_given() -> None:
    assert [plural(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]


@pytest.mark.parametrize(
    ("word", "best"),
    [
        ("resnext50", "resnext50_32x4d"),
        ("ResNet50", "resnet50"),
        ("resnet-50", "resnet50"),
        ("RESNET_50", "resnet50"),
        ("wrn-28-10", "wrn_28_10"),
        ("WRN2810", "wrn_28_10"),
        ("vgg", "vgg16"),
        ("vgg-19-bn", "vgg19_bn"),
        ("resnet5", "resnet50"),
        ("resent50", "resnet50"),
        ("resnet1001", "cifar_resnet1001"),
        ("inceptionv3", "inception_v3"),
        ("incepton_v3", "inception_v3"),
        ("darknet", "darknet19"),
        ("preact", "preact_resnet50"),
        ("wide_resnet50", "wide_resnet50_2"),
        ("googlenett", "googlenet"),
        ("resnext101-64x4d", "resnext101_64x4d"),
    ],
)
def test_a_name_is_known_by_its_spelling_its_beginning_its_parts_and_its_letters(word: str, best: str) -> None:
    assert nearest(word, Zoo().files)[0] == best


def test_another_spelling_is_the_only_one_that_can_be_meant() -> None:
    assert did_you_mean("ResNet-50", Zoo().files) == "did you mean `resnet50`?"
    assert nearest("zzz", Zoo().files) == nearest("", Zoo().files) == nearest("\ud800" * 5000, Zoo().files) == []
    assert nearest("r", Zoo().files) == []  # a letter tells nothing
    assert nearest("fp_32", ("fp32", "fp16", "bf16")) == ["fp32"]


def test_nothing_is_offered_twice() -> None:
    assert did_you_mean("macs", ("mac", "mac", "macro")) == "did you mean `mac` or `macro`?"


def test_a_signal_without_a_name_has_its_number() -> None:
    assert (signal_name(9), signal_name(40)) == ("SIGKILL", "signal 40")
