"""Phrases: what is written, what is canonical, and what the papers write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetcli.spec.cell import parse_cell
from resnetcli.spec.parse import parse_head
from resnetcli.spec.phrase import Phrase, PhraseError, text_of
from resnetcli.spec.vocabulary import COMPOSITES
from tests.support.strategies import HEADS, LAYERS, TIMES

CELLS = st.builds("{}{}".format, LAYERS, TIMES)
CALLS = st.lists(st.sampled_from(["4", "2*k", "k"]), max_size=4).map(lambda words: " ".join(["unit", *words]))
KEYS = st.builds("{}{}".format, HEADS.filter(lambda head: head != "aside"), TIMES)


def only(text: str) -> Phrase:
    (phrase,) = parse_cell(text)
    return phrase


def canonical(text: str) -> str:
    return ", ".join(map(text_of, parse_cell(text)))


# --- properties ------------------------------------------------------------------------------------------------------


@given(st.one_of(CELLS, CALLS))
def test_a_phrase_s_canonical_text_is_read_as_the_same_phrase(text: str) -> None:
    phrase = only(text)
    assert only(text_of(phrase)) == phrase


@given(KEYS)
def test_a_key_s_canonical_text_is_read_as_the_same_phrase(text: str) -> None:
    phrase = parse_head(text)
    assert parse_head(text_of(phrase)) == phrase


@given(CELLS)
def test_the_canonical_text_is_its_own(text: str) -> None:
    assert canonical(canonical(text)) == canonical(text)


@given(CELLS, st.lists(st.sampled_from([" ", "  ", "\t", "\n ", "\u3000"]), min_size=12, max_size=12))
def test_spaces_do_not_matter(text: str, spaces: list[str]) -> None:
    parts = text.split(" ")
    spaced = "".join(part + space for part, space in zip(parts, spaces, strict=False))
    assert parse_cell(f" {spaced} ") == parse_cell(text)


@given(CELLS)
def test_marks_are_read_in_any_order(text: str) -> None:
    phrase = only(text)
    if phrase.head in ("conv", "pool") and phrase.times is None:
        window, *marks = text_of(phrase).split()
        assert only(" ".join([window, *reversed(marks)])) == phrase


def keeps_channels(text: str) -> bool:
    """A convolution that says nothing of its channels, which no cell with commas may hold."""
    phrase = only(text)
    return phrase.head == "conv" and not phrase.mark("channels") and not phrase.mark("dw")


@given(st.lists(LAYERS.filter(lambda text: not keeps_channels(text)), min_size=1, max_size=4))
def test_a_comma_parts_layers(texts: list[str]) -> None:
    assert parse_cell(", ".join(texts)) == tuple(map(only, texts))


@given(st.one_of(CELLS, CALLS))
def test_a_word_is_found_at_its_place(text: str) -> None:
    phrase = only(text)
    times = () if phrase.times is None else (phrase.times,)
    for word in (*phrase.words, *(word for _, word in phrase.marks), *times):
        place = text[word.offset : word.offset + word.length].replace("×", "x")
        assert word.text in place or phrase.head == "pool to"
    assert text[phrase.offset : phrase.offset + phrase.length] == text


@given(st.text(max_size=30) | st.lists(CELLS, max_size=3).map(" ".join))
def test_any_text_is_phrases_or_an_error_that_points_into_it(text: str) -> None:
    for error in (failure(parse_cell, text), failure(parse_head, text)):
        if error is not None:
            assert 0 <= error.offset <= len(text)
            assert 1 <= error.length <= max(1, len(text) - error.offset)


def failure(parse: Callable[[str], object], text: str) -> PhraseError | None:
    try:
        parse(text)
    except PhraseError as error:
        return error
    return None


# --- the papers' own text --------------------------------------------------------------------------------------------

PASTED = [
    ("7×7, 64, stride 2", "7x7 64 /2"),
    ("7x7, 64, stride 2", "7x7 64 /2"),
    ("7×7 conv, 64, stride 2", "7x7 64 /2"),
    ("3x3 conv, 64", "3x3 64"),
    ("3×3 max pool, stride 2", "3x3 max /2"),
    ("2×2 average pool, stride 2", "2x2 avg /2"),
    ("3×3, 128, C=32", "3x3 128 C=32"),
    ("3×3, 128, C=32 × 3", "3x3 128 C=32 x 3"),
    ("3×3, 128, C=32 ×3", "3x3 128 C=32 x 3"),
    ("average pool, 1000-d fc, softmax", "global avg, fc 1000, softmax"),
    ("global average pool", "global avg"),
    ("global average pool, 1000-d fc, softmax", "global avg, fc 1000, softmax"),
    ("average pool, 10-d fc", "global avg, fc 10"),
    ("1000d fc", "fc 1000"),
    ("3x3, 64, relu, 3x3 max pool, stride 2", "3x3 64, relu, 3x3 max /2"),
    ("1x1, 64,", None),
    (", 64", None),
    ("1x1,, 64", None),
]


@pytest.mark.parametrize(("pasted", "text"), [(pasted, text) for pasted, text in PASTED if text])
def test_the_papers_cell_text_is_read(pasted: str, text: str) -> None:
    assert canonical(pasted) == text


@pytest.mark.parametrize("pasted", [pasted for pasted, text in PASTED if not text])
def test_commas_stand_between_something(pasted: str) -> None:
    with pytest.raises(PhraseError, match="comma"):
        parse_cell(pasted)


# --- by hand -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("3x3 C=32 128 V /2", "3x3 128 C=32 /2 V"),
        ("3x3 bare dw dil=2 /2 16*k", "3x3 16*k dw /2 dil=2 bare"),
        ("3x3 pad=0 linear", "3x3 pad=0 linear"),
        ("3x3 ceil /2 max", "3x3 max /2 ceil"),
        ("avg(pad) 3x3", None),
        ("3x3 avg(pad) V", "3x3 avg(pad) V"),
        ("kxs max /s", "kxs max /s"),
        ("avg to 1x1", "global avg"),
        ("max to 1x1", "max to 1x1"),
        ("global max", "max to 1x1"),
        ("avg to 7x6", "avg to 7x6"),
        ("fc 4096", "fc 4096"),
        ("bn", "bn"),
        ("bn(0.001)", "bn(0.001)"),
        ("leaky(0.1)", "leaky(0.1)"),
        ("lrn 5 0.0001 0.75 2", "lrn 5 0.0001 0.75 2"),
        ("dropout 0.5", "dropout 0.5"),
        ("spp 7 3 2 1", "spp 7 3 2 1"),
        ("roi 14x14 of 300", "roi 14x14 of 300"),
        ("inception 64 96 128", "inception 64 96 128"),
        ("inception 64 x 2", "inception 64 x 2"),
        ("inception × 2", "inception x 2"),
    ],
)
def test_a_cell_is_printed(text: str, wanted: str | None) -> None:
    if wanted is not None:
        assert canonical(text) == wanted
    else:
        assert only(text).head == "call"  # which will be an unknown word


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("residual", "residual"),
        ("residual x 3", "residual x 3"),
        ("residual × n", "residual x n"),
        ("residual ×3", "residual x 3"),
        ("residual linear 0.17 x 5", "residual 0.17 linear x 5"),
        ("concat", "concat"),
        ("concat of C x 2", "concat of C x 2"),
        ("sum of 32", "sum of 32"),
        ("seq x 2", "seq x 2"),
        ("aside", "aside"),
    ],
)
def test_a_key_is_printed(text: str, wanted: str) -> None:
    assert text_of(parse_head(text)) == wanted


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3x3 64 128", "128"),
        ("3x3 64 /2 stride 4", "stride 4"),
        ("3x3 64 linear bare", "bare"),
        ("3x3 64 V pad=1", "pad=1"),
        ("3x3 64 G=2", "G=2"),
        ("3x3 64 C=", "C="),
        ("3x3 64 /", "/"),
        ("3x3 64 ceil", "ceil"),
        ("3x3 max dil=2", "dil=2"),
        ("3x3 64%", "64%"),
        ("relu 6", "6"),
        ("fc", "fc"),
        ("dropout", "dropout"),
        ("lrn 5", "lrn"),
        ("leaky 0.1", "leaky"),
        ("roi 7 of 3", "7"),
        ("roi 7x7", "roi"),
        ("global", "global"),
        ("global sum", "sum"),
        ("avg 7x7", "avg"),
        ("avg to", "avg"),
        ("residual", "residual"),
        ("x 3", "x"),
        ("3x3 64 x 3 x", "x"),
    ],
)
def test_an_error_points_at_the_word(text: str, place: str) -> None:
    with pytest.raises(PhraseError) as raised:
        parse_cell(text)
    assert text[raised.value.offset :][: raised.value.length] == place


@pytest.mark.parametrize(
    ("text", "place"),
    [("3x3", "3x3"), ("concat 4", "4"), ("concat of", "of"), ("seq 2", "2"), ("aside x 2", "2"), ("residual 1 2", "2")],
)
def test_an_error_in_a_key_points_at_the_word(text: str, place: str) -> None:
    with pytest.raises(PhraseError) as raised:
        parse_head(text)
    assert text[raised.value.offset :][: raised.value.length] == place


@pytest.mark.parametrize("word", COMPOSITES)
def test_a_word_that_takes_a_body_is_no_layer(word: str) -> None:
    with pytest.raises(PhraseError, match="needs a body"):
        parse_cell(word)
