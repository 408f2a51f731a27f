"""`extends`: rows, names and blocks of another spec, replaced by name."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest

from resnetcli.errors import Source, SpecError
from resnetcli.ops import BatchNorm, Op, Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.spec import (
    Call,
    ConvStyle,
    Spec,
)
from resnetcli.spec.words import body_text, item_text
from resnetcli.spec.zoo import Zoo

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


def test_what_is_reported_of_one_model_is_never_inherited(family: Family) -> None:
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


def test_a_replaced_row_is_not_compared_with_the_spec_it_came_from(family: Family) -> None:
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
