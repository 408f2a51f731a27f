"""Text of others, made safe for where it goes; what is harmless stays as it is."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from resnetcli.table.safe import (
    ENCODING_ERRORS,
    csv_value,
    json_text,
    markdown,
    markdown_line,
    no_commands,
    printable,
    xml,
)

ODD = st.text(st.sampled_from("ab 1`*_|\\[]()<>&!#:=+-@~$/.\n\t\x1b\u202e\u200bé×"), max_size=30)


@given(ODD)
def test_text_within_markdown_renders_as_itself(text: str) -> None:
    shown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).renderInline(markdown(text))
    for entity, char in (("&lt;", "<"), ("&gt;", ">"), ("&quot;", '"'), ("<br>", "\n"), ("&amp;", "&")):
        shown = shown.replace(entity, char)
    assert shown.split() == printable(text, "\n").split()


@given(ODD)
def test_a_line_of_markdown_is_a_paragraph(text: str) -> None:
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(f"before  \n{markdown_line(text)}  \n")
    assert page.startswith("<p>before")
    assert page.count("<p>") == 1
    assert not set(page) & set("\x1b\u202e\u200b")


@given(ODD)
def test_a_row_of_markdown_keeps_its_cells(text: str) -> None:
    page = MarkdownIt("commonmark").enable("table").render(f"| a | b |\n|:--|:--|\n| {markdown(text)} | end |\n")
    assert page.count("<td") == 2


@given(ODD)
def test_no_line_is_a_command_to_a_runner(text: str) -> None:
    for line in no_commands(text).split("\n"):
        assert not line.strip().startswith("::")


@given(st.one_of(ODD, st.integers(), st.floats(allow_nan=False)))
def test_a_cell_is_no_formula_and_a_number_stays_one(value: float | str) -> None:
    cell = csv_value(value)
    if isinstance(value, str):
        assert isinstance(cell, str)
        assert len(cell) < 2 or cell[0] not in "=@" or cell[0] == "'"
        assert "\n" not in cell
    else:
        assert cell == value


@given(ODD)
def test_json_means_the_same(text: str) -> None:
    made = json_text(json.dumps({"a": text}, ensure_ascii=False, indent=2))
    assert json.loads(made) == {"a": text}
    assert all(line.isprintable() for line in made.split("\n"))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (no_commands("::error::x"), ": :error::x"),
        (no_commands("  ::warning::x\na::b"), "  : :warning::x\na::b"),
        (no_commands("##[error]x ##vso[task]y ## title"), "# #[error]x # #vso[task]y ## title"),
        (printable("a\x1b[31m\u202e\u200b\nb"), "a\ufffd[31m\ufffd\ufffd\ufffdb"),
        (printable("a\nb", "\n"), "a\nb"),
        (printable("3×3, ±1% naïve 网络"), "3×3, ±1% naïve 网络"),
        (markdown("resnext50_32x4d C=8, 20.0%*, -> x"), "resnext50_32x4d C=8, 20.0%*, -> x"),
        (markdown("2*width, 2*d"), "2\\*width, 2\\*d"),
        (markdown("<b>|`x`"), "&lt;b>\\|\\`x\\`"),
        (markdown_line("see `resnet-cli verify vgg16`"), "see `resnet-cli verify vgg16`"),
        (markdown_line("`resnet-cli <b>`"), "\\`resnet-cli &lt;b>\\`"),
        (markdown_line("- a"), "\\- a"),
        (markdown_line("1. a"), "1\\. a"),
        (csv_value("=1+1"), "'=1+1"),
        (csv_value("-1+1"), "'-1+1"),
        (csv_value("@x"), "'@x"),
        (csv_value("-2.5"), "-2.5"),
        (csv_value("-2.1%"), "-2.1%"),
        (csv_value("-"), "-"),
        (csv_value(-5), -5),
        (csv_value(None), ""),
        (csv_value("a\nb"), "a b"),
        (xml("<a&\x00"), "&lt;a&amp;\ufffd"),
        ("█▏ ± × é".encode("ascii", ENCODING_ERRORS), b"#. +- x ?"),
    ],
)
def test_what_is_made_of_a_text(made: object, expected: object) -> None:
    assert made == expected
