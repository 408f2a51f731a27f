"""Nodes to Spec: headers, names, blocks, and what a child takes from what it extends."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnetcli.errors import Source, SpecError, UsageError
from resnetcli.ops import BatchNorm, LeakyReLU, Linear, Op, PReLU, ReLU, Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.spec import (
    Aside,
    Branches,
    Call,
    ConvLayer,
    ConvStyle,
    Equation,
    Item,
    Residual,
    Sequence,
    Shortcut,
    Spec,
)
from resnetcli.spec.words import body_text, item_text
from resnetcli.spec.zoo import Zoo
from tests.spec.strategies import CONVOLUTIONS, ROWS, specs

ZOO = Zoo()
few = settings(max_examples=50)
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


def net(plan: Plan) -> list[tuple[Op, tuple[int, ...], Shape]]:
    """The plan without its names."""
    return [(step.op, step.inputs, step.shape) for step in plan.steps]


def lowered(spec: Spec) -> list[tuple[Op, tuple[int, ...], Shape]] | list[str]:
    """What the spec means, or what is wrong with it."""
    try:
        return net(lower(spec, aux=True))
    except SpecError as error:
        return sorted(problem.message for problem in error.problems)


class Family:
    """Specs in files beside each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, **texts: str) -> None:
        for name, text in texts.items():
            (self.folder / f"{name}.yaml").write_text(dedent(text), encoding="utf-8")

    def read(self, name: str, **parameters: int) -> Spec:
        return read(str(self.folder / f"{name}.yaml"), zoo=Zoo(), parameters=parameters)

    def messages(self, name: str) -> list[str]:
        with pytest.raises(SpecError) as raised:
            self.read(name)
        return [problem.message for problem in raised.value.problems]


@pytest.fixture
def family(tmp_path: Path) -> Family:
    return Family(tmp_path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("family")


# --- equivalences ------------------------------------------------------------------------------------------------


@few
@given(specs())
def test_what_is_printed_is_read_as_the_same_items(text: str) -> None:
    try:
        spec = spec_of(text)
    except SpecError:
        return
    rows = "".join(f"  {name}: {body_text(items)}\n" for name, items in spec.stages.items())
    start = text[: text.index("table:")]
    assert spec_of(f"{start}table:\n{rows}").stages == spec.stages


@given(st.lists(CONVOLUTIONS, min_size=1, max_size=3), st.integers(1, 4))
def test_n_copies_are_the_items_written_n_times(layers: list[str], copies: int) -> None:
    body = f"[{', '.join(layer.replace('/2', '').replace('/k', '') for layer in layers)}]"
    for item in (f"residual: {body}", f"seq: {body}", f"concat: [{body}]"):
        head, _, rest = item.partition(":")
        short, long = table(f"[{head} x {copies}:{rest}]"), table(f"[{', '.join([item] * copies)}]")
        assert lowered(short) == lowered(long)


def test_three_copies_cost_three_times_as_much() -> None:
    one, three = (count(lower(table(f"[3x3 16, residual{times}: [3x3 16, 3x3 16]]"))) for times in ("", " x 3"))
    stem = count(lower(table("3x3 16")))
    assert three.params - stem.params == 3 * (one.params - stem.params)
    assert three.macs - stem.macs == 3 * (one.macs - stem.macs)
    assert three.depth == 1 + 3 * (one.depth - 1) == 7


def test_a_residual_s_stride_acts_in_the_first_copy_alone() -> None:
    short = table("[residual x 3: [3x3 16 /2, 3x3 16]]")
    long = table("[residual: [3x3 16 /2, 3x3 16], residual x 2: [3x3 16, 3x3 16]]")
    assert net(lower(short)) == net(lower(long))


@few
@given(ROWS)
def test_a_block_call_is_its_body_in_its_place(row: str) -> None:
    blocks = "blocks:\n  unit a b: [1x1 a, 3x3 b]\n  pair: [unit 4 8, residual: [unit 4 8]]\n"
    try:
        written = table(row, blocks)
    except SpecError:
        return
    in_place = body_text(without_calls(written.stages["t"]))
    assert "unit" not in in_place
    assert lowered(table(in_place, blocks)) == lowered(written)


def without_calls(items: tuple[Item, ...]) -> tuple[Item, ...]:
    """Each call's body where the call stands, as often as it is called."""
    found: list[Item] = []
    for item in items:
        match item.what:
            case Call(body=body):
                found += list(without_calls(body)) * (item.times or 1)
            case Branches(branches=branches) as what:
                found.append(replace(item, what=replace(what, branches=tuple(map(without_calls, branches)))))
            case Residual(body=body) | Sequence(body=body) | Aside(body=body) as what:
                found.append(replace(item, what=replace(what, body=without_calls(body))))
            case _:
                found.append(item)
    return tuple(found)


def test_the_papers_cells_are_read_as_the_canonical_ones() -> None:
    pasted = """
        name: ResNet-18
        input: 3x224x224
        table:
          conv1: 7×7, 64, stride 2
          conv2_x:
            - 3×3 max pool, stride 2
            - residual × 2: [3×3 64, 3×3 64]
          conv3_x: [residual ×2: [3×3 128 /2, 3×3 128]]
          conv4_x: [residual x 2: [3x3 256 /2, 3x3 256]]
          conv5_x: [residual x 2: [3x3 512 /2, 3x3 512]]
          head: average pool, 1000-d fc, softmax
        """
    assert net(lower(spec_of(pasted)))[:-1] == net(lower(read("resnet18", zoo=ZOO)))


def test_a_cell_of_several_layers_is_a_list_of_them() -> None:
    assert table("average pool, 1000-d fc, softmax").stages == table("[global avg, fc 1000, softmax]").stages


@few
@given(specs(), ROWS)
def test_extends_is_written_out(folder: Path, text: str, row: str) -> None:
    (folder / "base.yaml").write_text(text, encoding="utf-8")
    (folder / "net.yaml").write_text(f"extends: base.yaml\ntable: {{r0: {row}}}\n", encoding="utf-8")
    lines = [f"  r0: {row}" if line.startswith("  r0:") else line for line in text.splitlines()]
    try:
        wanted = lowered(spec_of("\n".join(lines)))
    except SpecError as error:
        wanted = sorted(problem.message for problem in error.problems)
    try:
        found = lowered(read(str(folder / "net.yaml"), zoo=Zoo()))
    except SpecError as error:
        found = sorted(problem.message for problem in error.problems)
    assert found == wanted


@pytest.mark.parametrize("name", ZOO.files)
def test_a_child_that_changes_nothing_is_the_same_net(name: str) -> None:
    child, parent = spec_of(f"extends: {name}\n"), read(name, zoo=ZOO)
    assert net(lower(child)) == net(lower(parent))
    assert child.extends == (name, *parent.extends)
    assert (child.name, child.title, child.cite, child.published, child.expect) == ("net", "net", "", (), None)


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


# --- rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "conv2_x", "3a", "0", "A_", "x", "null", "type", "a" * 60])
def test_a_row_can_be_called(name: str) -> None:
    spec = spec_of(f"input: 3x32x32\ntable: {{{name}: 3x3 64}}\n")
    assert list(spec.stages) == [name]
    assert spec.places[name].column == 9


@pytest.mark.parametrize("name", ["a.b", "a b", "_a", "__init__", "é", "''", "a-b", "a/b", "total", "aux", "a" * 61])
def test_a_row_cannot_be_called(name: str) -> None:
    assert "cannot be a stage name" in messages(f"input: 3x32x32\ntable: {{{name}: 3x3 64}}\n")[0]


def test_items_know_their_place() -> None:
    (first, second) = table("[3x3 64, residual x 2: [1x1 16]]").stages["t"]
    assert first.at is not None
    assert (first.at.line, first.at.column, first.at.length) == (5, 7, 6)
    assert second.at is not None
    assert (second.at.line, second.at.column, second.at.length) == (5, 15, 12)
    assert isinstance(second.what, Residual)
    inner = second.what.body[0].at
    assert inner is not None
    assert (inner.line, inner.column, inner.length) == (5, 30, 6)


@pytest.mark.parametrize(
    ("item", "fine"),
    [
        ("seq x 2: [3x3 8 /2]", False),
        ("concat x 2: [3x3 8 /2]", False),
        ("3x3 8 /2 x 2", False),
        ("3x3 max /2 x 2", False),
        ("unit x 2", False),
        ("seq x 2: [residual x 3: [3x3 8 /2]]", False),
        ("seq x 2: [aside: [3x3 8 /2]]", False),
        ("seq x 1: [3x3 8 /2]", False),
        ("residual x 2: [seq x 2: [3x3 8 /2]]", False),
        ("residual x 2: [3x3 8 /2]", True),
        ("residual x 2: [seq: [3x3 8 /2]]", True),
        ("concat of 2: [3x3 8 /2]", True),
        ("seq x 2: [3x3 8 /1]", True),
        ("3x3 8 x 2", True),
    ],
)
def test_a_stride_in_a_repeated_entry_is_an_error_unless_it_is_a_residual(item: str, fine: bool) -> None:
    blocks = "blocks: {unit: [3x3 8 /2]}\n"
    if fine:
        table(f"[{item}]", blocks)
    else:
        with pytest.raises(SpecError, match="a stride inside a repeated entry"):
            table(f"[{item}]", blocks)


# --- let and parameters ------------------------------------------------------------------------------------------


def test_numbers_are_parameters_and_expressions_are_not() -> None:
    spec = spec_of("input: 3x32x32\nlet: {k: 2, minus: -3, w: 16*k, same: k}\ntable: {t: 3x3 w}\n")
    assert spec.parameters == {"classes": 1000, "k": 2, "minus": -3}


def test_an_expression_follows_a_parameter() -> None:
    text = "input: 3x32x32\nlet: {depth: 20, n: (depth - 2) / 6, w: 2*n}\ntable: {t: [residual x n: [3x3 w]]}\n"
    (item,) = spec_of(text).stages["t"]
    assert item_text(item) == "residual x 3: [3x3 6]"
    (item,) = spec_of(text, depth=56).stages["t"]
    assert item_text(item) == "residual x 9: [3x3 18]"


def test_what_was_set_to_something_else_is_known() -> None:
    spec = read("resnext50_32x4d", zoo=ZOO, parameters={"C": 8, "d": 4})
    assert spec.parameters == {"classes": 1000, "C": 8, "d": 4}
    assert spec.changed == {"C"}


def test_classes_are_a_parameter() -> None:
    spec = read("resnet50", zoo=ZOO, parameters={"classes": 10})
    assert spec.stages["head"][-1].what == Linear(10)


@pytest.mark.parametrize(
    ("parameters", "message", "hint"),
    [
        ({"dept": 20}, "`cifar_resnet` has no parameter `dept`", "did you mean `depth`?"),
        ({"n": 3}, "`cifar_resnet` has no parameter `n`", "its parameters: classes=10, depth=20"),
        ({"input": 3}, "`cifar_resnet` has no parameter `input`", "its parameters: classes=10, depth=20"),
        ({"classes": 0}, "`classes=0` is out of range", ""),
        ({"classes": 2**21}, "`classes=2097152` is out of range", ""),
        ({"depth": 10**13}, "`depth=10000000000000` is out of range", ""),
        ({"depth": "20"}, "`depth=20` is not a whole number", ""),
        ({"depth": 20.5}, "`depth=20.5` is not a whole number", ""),
    ],
)
def test_a_parameter_cannot_be_set(parameters: dict[str, int], message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        read("cifar_resnet", zoo=ZOO, parameters=parameters)
    assert (raised.value.message, raised.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("depth", "hint"), [(21, "depth=20 and depth=26"), (3, "depth=8"), (1, "depth=8"), (57, "depth=56 and")]
)
def test_a_depth_that_does_not_fit_is_answered_with_those_that_do(depth: int, hint: str) -> None:
    with pytest.raises(SpecError) as raised:
        read("cifar_resnet", zoo=ZOO, parameters={"depth": depth})
    assert raised.value.problems[0].hint.startswith(hint)


@pytest.mark.parametrize(
    "word", ["x", "s", "of", "to", "residual", "fc", "max", "conv", "linear", "V", "dw", "classes", "null"]
)
def test_words_of_the_grammar_are_no_names(word: str) -> None:
    assert f"`{word}` is a reserved word" in messages(f"input: 3x32x32\nlet: {{{word}: 3}}\ntable: {{t: bn}}\n")


def test_c_is_a_name_and_a_mark() -> None:
    (item,) = spec_of("input: 3x32x32\nlet: {C: 32, d: 4, D: C*d}\ntable: {t: 3x3 D C=C}\n").stages["t"]
    assert item.what == ConvLayer((3, 3), 128, 32)


@pytest.mark.parametrize("text", ["'6 / 2'", "6/2", "( 4 + 2 ) / 2"])
def test_an_expression_of_let_may_hold_spaces_around_its_signs(text: str) -> None:
    (item,) = spec_of(f"input: 3x32x32\nlet: {{k: {text}}}\ntable: {{t: fc k}}\n").stages["t"]
    assert item.what == Linear(3)


# --- blocks ------------------------------------------------------------------------------------------------------


def test_a_block_s_parameters_are_names_in_its_body_alone() -> None:
    (item,) = table("unit 3 4*k", "blocks: {unit k b: [1x1 k, 1x1 b]}\n").stages["t"]
    assert isinstance(item.what, Call)
    assert (item.what.args, item_text(item)) == ((3, 8), "unit 3 8")
    assert [item_text(inner) for inner in item.what.body] == ["1x1 3", "1x1 8"]
    assert "unknown name `b`" in messages("input: 3x32x32\nblocks: {u b: 1x1 b}\ntable: {t: [u 3, 1x1 b]}\n")


def test_a_block_sees_the_names_of_its_caller_s_spec() -> None:
    (item,) = table("unit", "blocks: {unit: [1x1 4*k]}\n").stages["t"]
    assert isinstance(item.what, Call)
    assert item_text(item.what.body[0]) == "1x1 8"


def test_a_block_may_stand_above_one_that_it_calls() -> None:
    assert net(lower(table("a", "blocks: {a: [b, b], b: 3x3 8}\n"))) == net(lower(table("[3x3 8, 3x3 8]")))


def test_what_is_wrong_with_a_block_is_said_once() -> None:
    assert messages(f"{SMALL}blocks: {{a: [3x3 8 G=2], b: [1x1 kk]}}\ntable: {{t: [a, a, b, b]}}\n") == [
        "unknown mark `G=2`",
        "unknown name `kk`",
    ]


# --- extends -----------------------------------------------------------------------------------------------------

BASE = """\
    name: Base
    cite: nobody
    about: narrow
    deviations: [one]
    input: 8x16x16
    classes: 10
    conv: conv relu
    let: {k: 2, w: 4*k}
    blocks: {unit c: [1x1 c]}
    table:
      a: 3x3 w
      b: [unit 6, unit w]
      c: [global avg, fc classes]
    aux: {a: [global avg, fc classes], b: [fc 5]}
    published: [{params: 25.5M, source: "arXiv:1", table: Table 1}]
    expect: {params: 5}
    """


def test_rows_let_and_blocks_are_replaced_by_name_and_every_other_key_as_a_whole(family: Family) -> None:
    family.write(
        base=BASE,
        net="""\
            extends: base.yaml
            conv: conv bn
            let: {k: 3, extra: 7}
            blocks: {unit c: [3x3 c]}
            table: {c: fc extra}
            aux: {b: [fc 6]}
            """,
    )
    spec = family.read("net")
    assert {name: body_text(items) for name, items in spec.stages.items()} == {
        "a": "[3x3 12]",
        "b": "[unit 6, unit 12]",
        "c": "[fc 7]",
    }
    call = spec.stages["b"][0].what
    assert isinstance(call, Call)
    assert item_text(call.body[0]) == "3x3 6"
    assert spec.style == ConvStyle(after=(BatchNorm(),))
    assert list(spec.aux) == ["b"]
    assert spec.parameters == {"classes": 10, "k": 3, "extra": 7}
    assert spec.extends == ("base",)
    assert spec.places["c"].source.label.endswith("net.yaml")
    assert spec.places["a"].source.label.endswith("base.yaml")


def test_what_is_said_of_one_net_is_never_inherited(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\n")
    base, spec = family.read("base"), family.read("net")
    assert (base.about, base.deviations) == ("narrow", ("one",))
    assert base.published
    assert base.expect is not None
    assert (spec.name, spec.title, spec.cite, spec.published, spec.expect) == ("net", "net", "", (), None)
    assert (spec.about, spec.deviations) == ("", ())


def test_an_empty_aux_drops_the_heads_that_were_inherited(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\naux: {}\n")
    assert family.read("net").aux == {}


def test_null_drops_a_row_and_its_aux_head_goes_with_it(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\ntable: {a: null}\n", grandchild="extends: net.yaml\n")
    for name in ("net", "grandchild"):
        spec = family.read(name)
        assert list(spec.stages) == ["b", "c"]
        assert list(spec.aux) == ["b"]


@pytest.mark.parametrize("value", ["", "'null'", "~", "Null", "[]"])
def test_only_a_literal_null_drops_a_row(value: str, family: Family) -> None:
    family.write(base=BASE, net=f"extends: base.yaml\ntable: {{a: {value}}}\n")
    assert family.messages("net")


def test_a_dropped_row_cannot_be_brought_back(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\ntable: {a: null}\n", last="extends: net.yaml\ntable: {a: 3x3 8}\n")
    assert family.messages("last") == ["stage `a` is not in the extended spec"]


def test_a_child_adds_no_rows(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\ntable: {a: 3x3 8, d: 3x3 8}\n")
    assert family.messages("net") == ["stage `d` is not in the extended spec"]


def test_rows_keep_their_order_whatever_the_child_s(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\ntable: {c: fc 3, a: 3x3 8}\n")
    assert list(family.read("net").stages) == ["a", "b", "c"]


def test_a_child_s_name_is_used_below_where_its_parent_s_stands(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\nlet: {k: 5}\n", wide="extends: net.yaml\n")
    for name in ("net", "wide"):
        assert body_text(family.read(name).stages["a"]) == "[3x3 20]"
        assert body_text(family.read(name, k=1).stages["a"]) == "[3x3 4]"


def test_a_parameter_may_become_an_expression_and_the_other_way_round(family: Family) -> None:
    family.write(base=BASE, net="extends: base.yaml\nlet: {w: 5}\n", other="extends: base.yaml\nlet: {k: 1+2}\n")
    assert family.read("net").parameters == {"classes": 10, "k": 2, "w": 5}
    assert family.read("other").parameters == {"classes": 10}


def test_a_path_is_relative_to_the_file_that_names_it(family: Family) -> None:
    (family.folder / "sub").mkdir()
    family.write(base=BASE)
    (family.folder / "sub" / "net.yaml").write_text("extends: ../base.yaml\n")
    assert list(family.read("sub/net").stages) == ["a", "b", "c"]


def test_a_name_is_one_of_the_zoo_wherever_the_file_lies(family: Family) -> None:
    family.write(net="extends: resnet18\n", resnet18="input: 1x1x1\n")
    assert family.read("net").input == Shape(3, 224, 224)


def test_an_error_in_what_is_extended_points_into_that_file(family: Family) -> None:
    family.write(base=BASE.replace("3x3 w", "3x3 w G=2"), net="extends: base.yaml\ntable: {b: rellu}\n")
    with pytest.raises(SpecError) as raised:
        family.read("net")
    assert [Path(p.at.source.label).name for p in raised.value.problems if p.at] == ["base.yaml", "net.yaml"]


def test_a_replaced_row_is_not_held_against_the_spec_it_came_from(family: Family) -> None:
    family.write(base=BASE.replace("3x3 w", "3x3 w G=2"), net="extends: base.yaml\ntable: {a: 3x3 w}\n")
    assert body_text(family.read("net").stages["a"]) == "[3x3 8]"


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_circle_is_an_error_however_long(length: int, family: Family) -> None:
    family.write(**{f"n{i}": f"extends: n{(i + 1) % length}.yaml\n" for i in range(length)})
    (message,) = family.messages("n0")
    assert message == f"`extends` is circular: {' -> '.join([*(f'n{i}' for i in range(length)), 'n0'])}"


def test_a_circle_is_seen_through_a_link(family: Family) -> None:
    family.write(net="extends: link.yaml\n")
    (family.folder / "link.yaml").symlink_to("net.yaml")
    assert family.messages("net") == ["`extends` is circular: net -> link"]


def test_a_file_that_has_changed_is_read_anew_by_another_zoo(family: Family) -> None:
    family.write(net="input: 3x32x32\ntable: {t: 3x3 8}\n")
    assert body_text(family.read("net").stages["t"]) == "[3x3 8]"
    family.write(net="input: 3x32x32\ntable: {t: 3x3 9}\n")
    assert body_text(family.read("net").stages["t"]) == "[3x3 9]"


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


# --- models ------------------------------------------------------------------------------------------------------


def test_a_model_is_a_name_a_path_or_a_text(family: Family) -> None:
    text = ZOO.files["resnet18"].read_text(encoding="utf-8")
    family.write(resnet18=text)
    by_name, by_path = read("resnet18", zoo=ZOO), family.read("resnet18")
    by_text = read(Source("resnet18.yaml", text), zoo=ZOO)
    assert by_name == replace(by_path, places=by_name.places) == replace(by_text, places=by_name.places)


@pytest.mark.parametrize(
    ("reference", "message", "hint"),
    [
        (
            "resnet5",
            "unknown model `resnet5`",
            "did you mean `resnet50`, `resnet50c` or `resnet50d`? `resnet-cli list` shows all",
        ),
        ("", "unknown model ``", "see `resnet-cli list`"),
        ("zzz", "unknown model `zzz`", "see `resnet-cli list`"),
        ("a" * 5000, f"unknown model `{'a' * 5000}`", "see `resnet-cli list`"),
        ("a\0b", "unknown model `a\0b`", "see `resnet-cli list`"),
        ("\ud800", "unknown model `\ud800`", "see `resnet-cli list`"),
        ("./no.yaml", "no such file: `./no.yaml`", ""),
        ("no.yaml", "no such file: `no.yaml`", ""),
        ("/", "`/` is a directory, not a spec", "name a YAML file in it"),
        ("a\0b.yaml", "cannot read `a\0b.yaml`: embedded null byte", ""),
    ],
)
def test_an_unknown_model_is_an_error(reference: str, message: str, hint: str) -> None:
    with pytest.raises(UsageError) as raised:
        read(reference, zoo=ZOO)
    assert (raised.value.message, raised.value.hint) == (message, hint)
    assert str(raised.value).isprintable() or "\n" in str(raised.value)


def test_a_file_named_like_a_model_is_pointed_out(family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
    family.write(net="input: 3x32x32\n")
    (family.folder / "mynet").write_text("input: 3x32x32\n")
    monkeypatch.chdir(family.folder)
    with pytest.raises(UsageError) as raised:
        read("mynet", zoo=ZOO)
    assert raised.value.hint == "for the file, write `./mynet`"
