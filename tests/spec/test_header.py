"""The keys of a spec above its table: defaults, styles, shortcuts, input, auxiliary heads and published figures."""

from __future__ import annotations

from decimal import Decimal
from textwrap import dedent

import pytest

from resnetcli.errors import Source, SpecError
from resnetcli.ops import BatchNorm, LeakyReLU, PReLU, ReLU, Shape
from resnetcli.spec.read import read
from resnetcli.spec.spec import (
    ConvStyle,
    Equation,
    Shortcut,
    Spec,
)
from resnetcli.spec.words import body_text, item_text
from resnetcli.spec.zoo import Zoo

ZOO = Zoo()
SMALL = "input: 8x16x16\nclasses: 10\nlet: {k: 2}\n"


def spec_of(text: str, /, **parameters: int) -> Spec:
    return read(Source("net.yaml", dedent(text)), zoo=ZOO, parameters=parameters)


def header(lines: str) -> Spec:
    return spec_of(f"input: 3x32x32\n{lines}\ntable: {{t: 3x3 64}}\n")


def table(row: str, lines: str = "") -> Spec:
    return spec_of(f"{SMALL}{lines}table:\n  t: {row}\n")


def messages(text: str) -> list[str]:
    with pytest.raises(SpecError) as raised:
        spec_of(text)
    return [problem.message for problem in raised.value.problems]


# --- header ------------------------------------------------------------------------------------------------------


def test_what_is_left_out_has_a_default() -> None:
    spec = header("")
    assert (spec.name, spec.title, spec.cite, spec.about, spec.deviations) == ("net", "net", "", "", ())
    assert spec.parameters == {"classes": 1000}
    assert spec.style == ConvStyle(after=(BatchNorm(), ReLU()))
    assert spec.equation == Equation(activation=ReLU())
    assert spec.shortcut == Shortcut("project")
    assert (spec.aux, spec.published, spec.expect, spec.extends, spec.changed) == ({}, (), None, (), frozenset())


def test_names_and_citations_are_one_line() -> None:
    spec = header("name: My\n  Net\ncite: 'He et al.: 2015'")
    assert (spec.name, spec.title, spec.cite) == ("net", "My Net", "He et al.: 2015")


def test_texts_of_several_lines_are_joined_to_one() -> None:
    spec = header("""\
about: >-
  Wider: twice the channels,
  half the blocks.
deviations:
  - >-
    The paper draws
    five blocks.
  - Cause
    unknown.
""")
    assert spec.about == "Wider: twice the channels, half the blocks."
    assert spec.deviations == ("The paper draws five blocks.", "Cause unknown.")


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("conv", ConvStyle()),
        ("conv relu", ConvStyle(after=(ReLU(),))),
        ("bn relu conv", ConvStyle((BatchNorm(), ReLU()))),
        ("conv(bias) bn relu", ConvStyle((), True, (BatchNorm(), ReLU()))),
        ("conv bn(0.001) leaky(0.1)", ConvStyle((), False, (BatchNorm(0.001), LeakyReLU(0.1)))),
        ("conv  prelu", ConvStyle((), False, (PReLU(),))),
        *((text, None) for text in ("", "bn", "conv conv", "conv bn()", "conv leaky", "conv bn(-1)", "conv bn(inf)")),
        *((text, None) for text in ("conv relu(2)", "3x3", "[conv]", "conv" + " relu" * 40, "conv bn (0.1)")),
    ],
)
def test_conv_is(text: str, style: ConvStyle | None) -> None:
    if style is None:
        with pytest.raises(SpecError):
            header(f"conv: {text}")
    else:
        assert header(f"conv: {text}").style == style


@pytest.mark.parametrize(
    ("text", "equation"),
    [
        ("relu(x + F)", Equation(True, ReLU())),
        ("relu(x+F)", Equation(True, ReLU())),
        ("x + F", Equation(True)),
        ("relu(F)", Equation(False, ReLU())),
        ("F", Equation(False)),
        ("leaky(0.1)(x + F)", Equation(True, LeakyReLU(0.1))),
        ("prelu(x + F)", Equation(True, PReLU())),
        *(
            (text, None)
            for text in ("", "x", "F + x", "relu(x + F", "x + F)", "bn(x + F)", "leaky(x + F)", "relu x + F")
        ),
    ],
)
def test_residual_is(text: str, equation: Equation | None) -> None:
    if equation is None:
        with pytest.raises(SpecError):
            header(f"residual: {text}")
    else:
        assert header(f"residual: {text}").equation == equation


@pytest.mark.parametrize("kind", ["pad", "project", "project all"])
def test_a_shortcut_is_one_of_three_options(kind: str) -> None:
    assert header(f"shortcut: {kind}").shortcut.kind == kind


def test_a_shortcut_is_a_list_of_layers_of_the_stride() -> None:
    shortcut = header("shortcut: [sxs avg /s ceil, 1x1]").shortcut
    assert (shortcut.kind, shortcut.text) == ("layers", "[sxs avg /s ceil, 1x1]")
    assert shortcut.layers is not None
    assert [item_text(item) for item in shortcut.layers(3)] == ["3x3 avg /3 ceil", "1x1"]


@pytest.mark.parametrize("text", ["", "option A", "[relu]", "[residual: 1x1]", "[1x1 x 2]", "[]", "{a: b}", "[1x1 t]"])
def test_nothing_else_is_a_shortcut(text: str) -> None:
    with pytest.raises(SpecError):
        header(f"shortcut: {text}")


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("3x224x224", Shape(3, 224, 224)),
        ("1×28×30", Shape(1, 28, 30)),
        ("999999x16384x16384", Shape(999999, 16384, 16384)),
        *(
            (text, None)
            for text in ("", "224", "224x224", "3x224x224x1", "0x1x1", "1x0x1", "1x1x16385", "-1x1x1", "ax1x1")
        ),
        *((text, None) for text in ("[3, 224, 224]", "3 x 224 x", "3x224x224 ,", "3.0x224x224", "9999999x1x1")),
    ],
)
def test_input_is(text: str, shape: Shape | None) -> None:
    spec = f"input: {text}\ntable: {{t: bn}}\n"
    if shape is None:
        with pytest.raises(SpecError, match=r"`input` must be channels x height x width|not YAML"):
            spec_of(spec)
    else:
        assert spec_of(spec).input == shape


def test_another_input_can_be_given() -> None:
    spec = read("resnet50", zoo=ZOO, input=Shape(3, 320, 320))
    assert (spec.input, spec.changed) == (Shape(3, 320, 320), frozenset({"input"}))
    assert read("resnet50", zoo=ZOO, input=Shape(3, 224, 224)).changed == set()


def test_an_unknown_key_is_an_error_and_so_is_what_is_missing() -> None:
    assert messages("nam: a\n") == ["unknown key `nam`", "`input:` is missing", "`table:` is missing"]


# --- aux, published, expect --------------------------------------------------------------------------------------


def test_an_auxiliary_head_hangs_from_a_row() -> None:
    spec = table("3x3 8", "aux: {t: [global avg, fc classes]}\n")
    assert {name: body_text(items) for name, items in spec.aux.items()} == {"t": "[global avg, fc 10]"}
    assert messages(f"{SMALL}aux: {{tt: [bn]}}\ntable: {{t: bn}}\n") == ["`aux` names an unknown stage `tt`"]


@pytest.mark.parametrize(
    ("printed", "value"),
    [
        ("25.5M", "25500000"),
        ("4.1G", "4100000000"),
        ("1.7B", "1700000000"),
        ("22.2", "22.2"),
        ("22.2%", "22.2"),
        ("49ms", "49"),
        ("~8", "8"),
        ("0.85 M", "850000"),
        ("3.80", "3.80"),
        *((text, None) for text in ("", "M", "-1", "1,000", "25.5m", "1e6", ".5", "25.5MM", "[1]", "nan")),
    ],
)
def test_a_published_figure_is_kept_as_printed(printed: str, value: str | None) -> None:
    name = {"%": "top1_error", "s": "time_per_minibatch16"}.get(printed[-1:], "params")
    entry = f'published: [{{{name}: "{printed}", dataset: D, protocol: test, source: "arXiv:1", table: Table 1}}]'
    if printed.startswith("["):
        entry = entry.replace('"[1]"', "[1]")
    if value is None:
        with pytest.raises(SpecError):
            header(entry)
    else:
        (figure,) = header(entry).published
        assert (figure.figure, figure.printed, figure.value) == (name, printed, Decimal(value))


@pytest.mark.parametrize(
    "entry",
    ["params: 22.2%", "macs: 49ms", "depth: 10.5", "depth: 5K", "top1_error: 25.5M", "top5_accuracy: 101", "mAP: 3ms",
     "time_per_minibatch16: 3G", "bottleneck_width_d: 4.5", f"params: {'9' * 16}", f"top1_error: 0.{'0' * 30}1"],
)  # fmt: skip
def test_a_published_figure_has_a_unit_of_its_kind(entry: str) -> None:
    with pytest.raises(SpecError, match=r"` must be a (count|whole number|time|percentage)"):
        header(f'published: [{{{entry}, dataset: D, protocol: test, source: "arXiv:1", table: Table 1}}]')


def test_facts_belong_to_every_figure_of_their_entry() -> None:
    spec = header(
        "published:\n"
        '  - {top1_error: 22.2, params: 25M, source: "arXiv:1", table: T3, dataset: D, protocol: 10-crop, note: why}\n'
        '  - {mAP: 27.5, source: "arXiv:2", table: T7, row: 3, dataset: C, protocol: test, label: B, detail: five}\n'
    )
    assert [(f.figure, f.printed, f.source, f.table, f.protocol, f.note) for f in spec.published] == [
        ("top1_error", "22.2", "arXiv:1", "T3", "10-crop", "why"),
        ("params", "25M", "arXiv:1", "T3", "10-crop", "why"),
        ("mAP", "27.5", "arXiv:2", "T7", "test", ""),
    ]
    assert (spec.published[2].dataset, spec.published[2].label, spec.published[2].detail) == ("C", "B", "five")
    assert [figure.row for figure in spec.published] == [None, None, 3]


def test_what_is_expected_is_whole_numbers() -> None:
    expect = header("expect: {params: 25557032, macs: 1, activations: 0, depth: 50, sizes: [112, 56]}").expect
    assert expect is not None
    assert expect.figures == {"params": 25557032, "macs": 1, "activations": 0, "depth": 50}
    assert expect.sizes == (112, 56)
