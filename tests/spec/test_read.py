"""Nodes to Spec: headers, names, blocks, and what a child takes from what it extends."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from textwrap import dedent

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetcli.errors import Source, SpecError, UsageError
from resnetcli.ops import Linear, Op, Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.spec import (
    Aside,
    Branches,
    Call,
    ConvLayer,
    Item,
    Residual,
    Sequence,
    Spec,
)
from resnetcli.spec.words import body_text, item_text
from resnetcli.spec.zoo import Zoo
from tests.support.strategies import CONVOLUTIONS, ROWS, specs
from tests.support.thin import thinned

ZOO = Zoo()
SMALL = "input: 8x16x16\nclasses: 10\nlet: {k: 2}\n"


def spec_of(text: str, /, **parameters: int) -> Spec:
    return read(Source("net.yaml", dedent(text)), zoo=ZOO, parameters=parameters)


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


@pytest.mark.parametrize("name", thinned(ZOO.files, 4))
def test_a_child_that_changes_nothing_is_the_same_model(name: str) -> None:
    child, parent = spec_of(f"extends: {name}\n"), read(name, zoo=ZOO)
    assert net(lower(child)) == net(lower(parent))
    assert child.extends == (name, *parent.extends)
    assert (child.name, child.title, child.cite, child.published, child.expect) == ("net", "net", "", (), None)


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
        ({"classes": 0}, "`classes=0` is out of range", "from 1 to 1,048,576, e.g. `classes=10`"),
        ({"classes": 2**21}, "`classes=2097152` is out of range", "from 1 to 1,048,576, e.g. `classes=10`"),
        (
            {"depth": 10**13},
            "`depth=10000000000000` is out of range",
            "from -1,000,000,000,000 to 1,000,000,000,000, e.g. `depth=20`",
        ),
        ({"depth": "20"}, "`depth=20` is not a whole number", "for example `depth=20`"),
        ({"depth": 20.5}, "`depth=20.5` is not a whole number", "for example `depth=20`"),
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


def test_what_is_wrong_with_a_block_is_reported_once() -> None:
    assert messages(f"{SMALL}blocks: {{a: [3x3 8 G=2], b: [1x1 kk]}}\ntable: {{t: [a, a, b, b]}}\n") == [
        "unknown mark `G=2`",
        "unknown name `kk`",
    ]


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
        ("./no.yaml", "no such file: `./no.yaml`", "check the path"),
        ("no.yaml", "no such file: `no.yaml`", "check the path"),
        ("/", "`/` is a directory, not a spec", "name a YAML file in it"),
        ("a\0b.yaml", "cannot read `a\0b.yaml`: embedded null byte", "check its name and its permissions"),
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
