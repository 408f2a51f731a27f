"""Cells as papers print them and PDFs give them: read rightly, or refused with a hint that can be typed."""

# ruff: noqa: RUF001 - look-alikes are what is tested

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest

from resnetcli.errors import Source, SpecError
from resnetcli.plan.count import Counts, count
from resnetcli.plan.lower import lower
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.format import format_text
from resnetcli.spec.numbers import names_in
from resnetcli.spec.pasted import clean_cell
from resnetcli.spec.phrase import Phrase, PhraseError, text_of
from resnetcli.spec.read import read
from resnetcli.spec.source import Map, Node, Text
from resnetcli.spec.zoo import Zoo

ZOO = Zoo()


def canonical(text: str) -> str:
    return ", ".join(map(text_of, parse_cell(text)))


def refusal(text: str) -> PhraseError:
    with pytest.raises(PhraseError) as raised:
        parse_cell(text)
    return raised.value


READ = [
    # --- products
    ("3×3, 16×k", "3x3 16*k"),
    ("3×3, 16×k, stride 2", "3x3 16*k /2"),
    ("3×3, 16×width", "3x3 16*width"),
    ("3×3, k×16", "3x3 k*16"),
    ("3×3 16×k", "3x3 16*k"),
    ("3×3 conv, 16×k", "3x3 16*k"),
    ("3×3, 16·k", "3x3 16*k"),
    ("3×3, 16∗k", "3x3 16*k"),
    ("3×3, 16 * k", "3x3 16*k"),
    ("3x3 16 x k", "3x3 16 x k"),
    # --- patches
    ("16×16, 768, stride 16", "16x16 768 /16"),
    ("31×31, 128, dw", "31x31 128 dw"),
    ("3×3, 128, s 2", "3x3 128 /2"),
    # --- pools
    ("avg pool, 3×3, stride 2", "3x3 avg /2"),
    ("average pool, 3×3, stride 2", "3x3 avg /2"),
    ("max pool, 3×3, stride 2", "3x3 max /2"),
    ("Max Pooling, 3 × 3, Stride 2", "3x3 max /2"),
    ("MaxPool 2×2/2", "2x2 max /2"),
    ("3×3 max-pool stride 2", "3x3 max /2"),
    ("3×3 max-pooling, /2, pad 1", "3x3 max /2 pad=1"),
    ("3×3 max pool, s2", "3x3 max /2"),
    ("avg pool 7×7/1", "7x7 avg /1"),
    ("Average Pool", "global avg"),
    ("global-average-pool", "global avg"),
    ("Global Average Pooling", "global avg"),
    ("3×3 max pool × 2", "3x3 max x 2"),
    ("avg to 7 × 7", "avg to 7x7"),
    ("roi 7×7 of 300", "roi 7x7 of 300"),
    # --- spaces, signs, capitals
    ("7 × 7, 64, stride 2", "7x7 64 /2"),
    ("7 x 7, 64", "7x7 64"),
    ("7× 7,64", "7x7 64"),
    ("7X7, 64", "7x7 64"),
    ("7∗7, 64", "7x7 64"),
    ("3·3, 64", "3x3 64"),
    ("7х7, 64", "7x7 64"),
    ("7✕7, 64", "7x7 64"),
    ("7⨯7, 64", "7x7 64"),
    ("３×３，６４", "3x3 64"),
    ("7×7,\u00a064,\u2009stride\u202f2", "7x7 64 /2"),
    ("7×\u200b7, 64", "7x7 64"),
    ("1000–d fc", "fc 1000"),
    ("3×3, 128, С=32", "3x3 128 C=32"),
    ("Conv 3×3, 64, BN", "3x3 64, bn"),
    ("1000-D FC, SoftMax", "fc 1000, softmax"),
    # --- LaTeX
    (r"$7\times7$, 64, stride 2", "7x7 64 /2"),
    (r"7 \times 7, 64", "7x7 64"),
    (r"$7 {\times} 7$,~64, stride~2", "7x7 64 /2"),
    (r"\text{3$\times$3, 128, $C$=32}", "3x3 128 C=32"),
    # --- words
    ("conv, 7×7, 64", "7x7 64"),
    ("conv 7x7, 64", "7x7 64"),
    ("3×3 conv. 64", "3x3 64"),
    ("3×3 conv, 64, /2", "3x3 64 /2"),
    ("depthwise conv 3×3, stride 2", "3x3 dw /2"),
    ("3×3 DW, stride 2", "3x3 dw /2"),
    ("3×3, 64 filters", "3x3 64"),
    ("conv3-64", "3x3 64"),
    ("conv1-256", "1x1 256"),
    ("FC-4096", "fc 4096"),
    ("fc, 1000", "fc 1000"),
    ("1000-way fully connected, soft-max", "fc 1000, softmax"),
    ("average pool, 1000-d fc, softmax", "global avg, fc 1000, softmax"),
    # --- marks
    ("7×7, 64, stride=2", "7x7 64 /2"),
    ("7×7, 64, stride = 2", "7x7 64 /2"),
    ("7×7, 64, s2", "7x7 64 /2"),
    ("7×7, 64, s=2", "7x7 64 /2"),
    ("7×7, 64, stride-2", "7x7 64 /2"),
    ("7×7/2, 64", "7x7 64 /2"),
    ("7×7, 64, / 2", "7x7 64 /2"),
    ("7×7, 64, stride 2, pad 3", "7x7 64 /2 pad=3"),
    ("7×7, 64, padding=3, groups 2, dilation=2", "7x7 64 C=2 dil=2 pad=3"),
    ("3×3, 128, C = 32", "3x3 128 C=32"),
    ("3×3, 128, C=32 × 3", "3x3 128 C=32 x 3"),
]  # fmt: skip


@pytest.mark.parametrize(("pasted", "text"), READ)
def test_a_pasted_cell_is_read(pasted: str, text: str) -> None:
    assert canonical(pasted) == text
    assert canonical(text) == text


BLOCKS = "[residual x 2: [3x3 64, 3x3 64]]", "[seq x 2: [3x3 64, 3x3 64]]"
REFUSED: list[tuple[str, str, tuple[str, ...]]] = [
    # --- a product or copies?
    ("3×3, 16 × k", "16 × k", ("3x3 16*k", "3x3 16 x k")),
    ("3×3, 16×4", "16×4", ("3x3 16*4", "3x3 16 x 4")),
    ("1×1, 256 ×3", "256 ×3", ("1x1 256*3", "1x1 256 x 3")),
    ("3×3 64 * 2", "64 * 2", ("3x3 64*2", "3x3 64 x 2")),
    ("conv3-64 × 2", "conv3-64 × 2", ("3x3 64*2", "3x3 64 x 2")),
    ("inception 64×2", "64×2", ("inception 64*2", "inception 64 x 2")),
    ("fc 10×2", "10×2", ("fc 10*2", "fc 10 x 2")),
    ("3×3, 64-d", "64-d", ("64", "(64-d)")),
    ("3*3, 64", "3*3", ("3x3",)),
    # --- an output size, another column
    ("112×112, 64", "112×112", ("3x3 64", "112x112 64 /112")),
    ("14×14, 256, stride 2", "14×14", ("3x3 256",)),
    ("16×16, 768", "16×16", ("16x16 768 /16",)),
    ("56×56×64", "56×56×64", ("3x3 64",)),
    ("112×112, 7×7, 64, stride 2", "112×112", ("7x7 64 /2",)),
    ("112×112 | 7×7, 64, stride 2", "|", ("7x7 64 /2",)),
    ("conv1 | 112×112 | 7×7, 64, stride 2", "|", ("7x7 64 /2",)),
    ("56×56, 3×3 max pool, stride 2", "56×56", ("3x3 max /2",)),
    ("1×1, average pool, 1000-d fc, softmax", "1×1", ("global avg, fc 1000, softmax",)),
    ("112×112 7×7, 64, stride 2", "7×7", ("7x7 64 /2",)),
    ("112x112 7x7, 64, stride 2", "7x7", ("7x7 64 /2",)),
    # --- no channels: a pool whose kind is in another column, or a slip
    ("3×3, stride 2", "3×3", ("3x3 64 /2", "3x3 max /2")),
    ("3×3 conv", "3×3", ("3x3 64",)),
    ("3x3, 16xk", "3x3", ("3x3 16*k",)),
    ("16xk", "16xk", ("16*k",)),
    ("3×3, avg pool", "3×3", ("3x3 avg", "global avg")),
    ("global average pool, 7×7", "7×7", ("global avg",)),
    ("7×7 global average pool", "global", ("global avg",)),
    ("average pool, stride 2", "average", ("3x3 avg /2",)),
    ("maxpool", "maxpool", ("2x2 max /2",)),
    ("pool", "pool", ("3x3 max /2",)),
    # --- other forms
    ("3×3×64", "3×3×64", ("3x3 64",)),
    ("3x3x64", "3x3x64", ("3x3 64",)),
    ("3*3, 64", "3*3", ("3x3",)),
    ("2 × 3×3, 64", "2 × 3×3", ()),
    ("3×3-64", "3×3-64", ("3x3 64",)),
    ("BN-ReLU-Conv 3×3, 64", "3×3", ("3x3 64",)),
    ("3×3 × 64", "3×3 × 64", ("3x3 64",)),
    ("3×3, 64; 3×3, 64", ";", ("[3x3 64, 3x3 64]",)),
    ("3×3, 64²", "64²", ()),
    # --- brackets: blocks with shortcuts or without?
    ("[3×3, 64; 3×3, 64] × 2", "[", BLOCKS),
    (r"[3×3, 64\\3×3, 64]×2", "[", BLOCKS),
    ("[3×3, 64\n3×3, 64] × 2", "[", BLOCKS),
    ("[[3×3, 64], [3×3, 64]] × 2", "[", BLOCKS),
    ("(3×3, 64; 3×3, 64) × 2", "(", BLOCKS),
    ("56×56 | [3×3, 64; 3×3, 64] × 2", "56", BLOCKS),
    (r"\begin{bmatrix}3\times3, 64\\3\times3, 64\end{bmatrix}\times2", "\\begin", BLOCKS),
    (r"$\left[\begin{array}{c}\text{3$\times$3, 64}\\[-.1em] \text{3$\times$3, 64}\end{array}\right]$$\times$2",
     "$\\left", BLOCKS),
    ("3×3 max pool, stride 2; [1×1, 64; 3×3, 64] × 3", "3×3",
     ("[3x3 max /2, residual x 3: [1x1 64, 3x3 64]]", "[3x3 max /2, seq x 3: [1x1 64, 3x3 64]]")),
]  # fmt: skip


@pytest.mark.parametrize(("pasted", "place", "texts"), REFUSED)
def test_a_cell_that_may_be_two_things_is_refused_with_both_texts(
    pasted: str, place: str, texts: tuple[str, ...]
) -> None:
    error = refusal(pasted)
    assert pasted[error.offset :].startswith(place)
    for text in texts:
        assert f"`{text}`" in error.hint
    assert error.hint


def test_copies_before_a_layer_are_no_product_with_its_window() -> None:
    assert refusal("2× 3x3 64").message == "`x N` must follow what it repeats"


def spec_text(rows: str, header: str = "") -> str:
    return f"input: 3x224x224\n{header}table:\n{rows}"


def counts(text: str) -> Counts:
    return count(lower(read(Source("pasted.yaml", text), zoo=ZOO)))


@pytest.mark.parametrize(("pasted", "place", "texts"), REFUSED)
def test_what_a_hint_offers_can_be_typed(pasted: str, place: str, texts: tuple[str, ...]) -> None:
    header = "let: {k: 2, d: 4}\nblocks: {inception a: [1x1 a]}\n"
    for text in re.findall("`([^`]*)`", refusal(pasted).hint):
        if text == "pool":
            continue
        row = {"16*k": "3x3 16*k", "64": "3x3 64", "(64-d)": "3x3 (64-d)"}.get(text, text)
        if re.match(r"\[?[a-z0-9]", row) and row != "x N":
            assert counts(spec_text(f"  a: 3x3 64\n  t: {row}\n", header)).params


@pytest.mark.parametrize("sign", ["×", "x", "X", "*", "∗", "$\\times$", " × ", "✕"])
@pytest.mark.parametrize("rows", ["3×3, 64; 3×3, 64", "3×3, 64\n    3×3, 64", r"3×3, 64\\3×3, 64"])
def test_a_bracket_with_copies_behind_it_is_refused_in_a_file_too(rows: str, sign: str) -> None:
    text = spec_text(f"  conv1: 7×7, 64, stride 2\n  conv2_x: [{rows}]{sign}2\n  head: [global avg, fc classes]\n")
    with pytest.raises(SpecError) as raised:
        counts(text)
    [problem] = raised.value.problems
    assert problem.at is not None
    assert (problem.at.line, problem.at.column) == (4, 12)
    residual, plain = re.findall("`([^`]*)`", problem.hint)
    typed = text.replace(f"[{rows}]{sign}2", residual)
    assert (counts(typed).params, counts(typed).macs) == (222_504, 1_967_766_016)
    assert counts(text.replace(f"[{rows}]{sign}2", plain)).depth == counts(typed).depth


def test_every_bracket_of_a_file_is_noted_and_an_entry_s_needs_no_list() -> None:
    with pytest.raises(SpecError) as raised:
        counts(spec_text("  a:\n    - 3×3, 64\n    - [3×3, 64] × n\n  b: [[3×3, 64], [3×3, 64]] × 2\n"))
    first, second = raised.value.problems
    assert "`residual x n: [3x3 64]`" in first.hint
    assert "`[residual x 2: [3x3 64, 3x3 64]]`" in second.hint


@pytest.mark.parametrize(
    "row",
    ["[3×3, 16×k]", "[3x3, 16x2]", "[3×3, 64]", "[7×7, stride 2]", "[112×112, 7×7, 64]", "[3×3, 64; 3×3, 64]",
     "[1×1, average pool, 1000-d fc]", "[[3×3, 64], [3×3, 64]]", "[3x3, 112x112]"],
)  # fmt: skip
def test_a_cell_that_yaml_cut_at_its_commas_is_refused(row: str) -> None:
    with pytest.raises(SpecError):
        counts(spec_text(f"  t: {row}\n", "let: {k: 2}\n"))


@pytest.mark.parametrize(
    ("cell", "params", "macs"),
    [("3×3, 16×k", 1258, 885_056), ("3×3, 16*k", 1258, 885_056)],
)
def test_a_product_of_channels_is_counted(cell: str, params: int, macs: int) -> None:
    found = counts(
        f"input: 3 × 32 × 32\nclasses: 10\nlet: {{k: 2}}\ntable:\n  conv1: {cell}\n  head: [global avg, fc classes]\n"
    )
    assert (found.params, found.macs, found.depth) == (params, macs, 2)


def test_a_pool_before_its_window_is_counted() -> None:
    found = counts(
        "input: 3x32x32\nclasses: 10\ntable:\n  c: 3×3, 16\n  p: avg pool, 3×3, stride 2\n  head: [fc classes]\n"
    )
    assert (found.params, found.macs) == (41_434, 483_328)


def test_a_word_of_the_grammar_in_capitals_is_no_name() -> None:
    for name in ("FC", "Conv", "MaxPool", "ReLU"):
        with pytest.raises(SpecError, match="is a reserved word"):
            counts(spec_text("  t: 3x3 64\n", f"let: {{{name}: 2}}\n"))
    assert counts(spec_text("  t: 3x3 groups C=N\n", "let: {groups: 4, N: 2, S: 3}\n").replace("C=N", "/N")).params


@pytest.mark.parametrize("text", ["3×3, 64", r"$3 \times 3$, 64", "３×３, 64\u200b", "\u200b 3\u00a0✕ 3"])
def test_a_cleaned_character_knows_its_place(text: str) -> None:
    cleaned = clean_cell(text)
    places = cleaned.places or [(i, i + 1) for i in range(len(text))]
    assert len(places) == len(cleaned.text)
    assert all(0 <= a < b <= len(text) for a, b in places)
    for char, (start, end) in zip(cleaned.text, places, strict=True):
        if char.isascii() and char.isalnum() and end - start == 1 and text[start].isascii():
            assert text[start] == char


# --- the zoo in the papers' spelling ---------------------------------------------------------------------------------


def cells(node: Node) -> Iterator[str]:
    if isinstance(node, Text):
        if node.value != "null":
            yield node.value
    elif isinstance(node, Map):
        for _, value in node.pairs:
            yield from cells(value)
    else:
        for item in node.items:
            yield from cells(item)


ZOO_CELLS = sorted(
    {
        cell
        for file in ZOO.files.values()
        for key, node in ZOO.parsed(file)[1].pairs
        if key.value in ("table", "aux", "blocks")
        for cell in cells(node)
    }
)


def _commas(text: str) -> str:
    window, *marks = text.split(" ")
    copies = marks.index("x") if "x" in marks else len(marks)
    kinds = 1 if marks[:1] in (["max"], ["avg"], ["avg(pad)"], ["to"]) else 0
    head = " ".join([window, *marks[:kinds]])
    return ", ".join([head, *marks[kinds:copies]]) + "".join(f" {mark}" for mark in marks[copies:])


_WORD = r"\b(max|avg|global|fc|bn|relu|dropout|softmax|lrn|dw)\b|(?<=\d)x(?=\d)"
SPELLINGS: dict[str, Callable[[str], str]] = {
    "cross": lambda text: re.sub(r"(?<=\w)x(?=\w)", "×", text),
    "cross everywhere": lambda text: text.replace("x", "×"),
    "spaced": lambda text: re.sub(r"(?<=\d)x(?=\d)", " × ", text),
    "letters apart": lambda text: re.sub(r"(?<=\d)x(?=\d)", " x ", text),
    "star": lambda text: re.sub(r"(?<=\d)x(?=\d)", "*", text),
    "product": lambda text: text.replace("*", "×"),
    "product apart": lambda text: text.replace("*", " × "),
    "dot": lambda text: text.replace("*", "·"),
    "commas": _commas,
    "stride": lambda text: re.sub(r"/(\w+)", r"stride \1", text),
    "stride=": lambda text: re.sub(r"/(\w+)", r"stride=\1", text),
    "tight stride": lambda text: re.sub(r" (/\w+)", r"\1", re.sub(r"(?<=\w)x(?=\w)", "×", text)),
    "pool": lambda text: re.sub(r"\b(max|avg)\b", r"\1 pool", text),
    "average": lambda text: text.replace("avg", "Average-Pool"),
    "conv": lambda text: re.sub(r"^(\w+x\w+)", r"conv \1", text),
    "conv, ": lambda text: re.sub(r"^(\w+x\w+)", r"conv, \1", text),
    "kind first": lambda text: re.sub(r"^(\w+x\w+) (max|avg)", r"\2 pool, \1", text),
    "capitals": lambda text: re.sub(_WORD, lambda match: match.group().upper(), text),
    "title": lambda text: re.sub(_WORD, lambda match: match.group().title(), text),
    "LaTeX": lambda text: "$" + re.sub(r"(?<=\w)x(?=\w)", r" \\times ", text) + "$",
    "full width": lambda text: "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text),
    "no-break": lambda text: text.replace(" ", "\u00a0"),
    "size": lambda text: f"56×56, {text}",
    "size | ": lambda text: f"56×56 | {text}",
    "size and tab": lambda text: f"56x56\t{text}",
    "fc": lambda text: re.sub(r"fc (\d+)", r"\1-d FC", text),
}


def test_the_zoo_has_many_cells() -> None:
    assert len(ZOO_CELLS) > 150


HEADERS: list[tuple[Text, Map]] = [
    (key, node)
    for file in ZOO.files.values()
    for key, node in ZOO.parsed(file)[1].pairs
    if isinstance(node, Map) and key.value in ("let", "blocks")
]
BLOCKS_OF_THE_ZOO = {key.value.split()[0] for at, node in HEADERS if at.value == "blocks" for key, _ in node.pairs}
NAMES = {"classes", "s"} | {
    name for at, node in HEADERS for key, _ in node.pairs
    for name in key.value.split()[at.value == "blocks" :]
}  # fmt: skip


def is_known(phrase: Phrase) -> bool:
    """Whether its numbers are of names that some spec of the zoo has, and a call is of such a block."""
    words = [*phrase.words, *(word for key, word in phrase.marks if key in ("channels", "C", "/"))]
    if phrase.head == "call" and words.pop(0).text not in BLOCKS_OF_THE_ZOO:
        return False
    return all(name in NAMES for word in [*words, *filter(None, [phrase.times])] for name in names_in(word.text))


READ_AT_LEAST = {"cross": 0.5, "stride": 0.9, "no-break": 1.0, "commas": 0.5, "spaced": 0.5, "full width": 1.0}
"""So much of the cells is read, lest everything be refused."""


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("then", ["cross", "commas", ""])
def test_a_cell_of_the_zoo_in_a_paper_s_spelling_is_the_same_or_refused(spelling: str, then: str) -> None:
    alike = 0
    for text in ZOO_CELLS:
        wanted = parse_cell(text)
        written = SPELLINGS[spelling](SPELLINGS[then](text) if then and then != spelling else text)
        try:
            found: tuple[Phrase, ...] | None = parse_cell(written)
        except PhraseError:
            found = None
        alike += found == wanted
        assert found in (wanted, None) or not all(map(is_known, found or ())), f"{text} -> {written}"
    if not then:
        assert alike >= READ_AT_LEAST.get(spelling, 0) * len(ZOO_CELLS)


@pytest.mark.parametrize("pasted", [pasted for pasted, _ in READ])
def test_fmt_does_not_change_a_pasted_model(pasted: str) -> None:
    header = "let: {k: 2, width: 2, d: 4}\n"
    text = spec_text(f"  a: 1x1 64\n  t:\n    - {pasted}\n  u: {pasted}\n", header)
    formatted = format_text(Source("pasted.yaml", text))
    assert format_text(Source("pasted.yaml", formatted)) == formatted
    assert "×" not in formatted
    if "roi" not in pasted:
        assert counts(formatted) == counts(text)
