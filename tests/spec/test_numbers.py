"""Arithmetic on whole numbers, and nothing else."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnetcli.spec.numbers import (
    MAX_LENGTH,
    MAX_VALUE,
    NumberError,
    decimal,
    evaluate_expression,
    names_in,
    printed_figure,
)

NAMES = {"k": 3, "depth": 20, "wide_2": 64, "minus": -4}


def grow(texts: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.one_of(
        st.builds("{}{}{}".format, texts, st.sampled_from("+-*/"), texts),
        st.builds("({})".format, texts),
        st.builds("-{}".format, texts),
    )


EXPRESSIONS = st.recursive(st.one_of(st.integers(0, 99).map(str), st.sampled_from(list(NAMES))), grow, max_leaves=8)


@dataclass(frozen=True)
class Whole:
    """A whole number of which every division must come out whole."""

    value: int

    def __add__(self, other: Whole) -> Whole:
        return Whole(self.value + other.value)

    def __sub__(self, other: Whole) -> Whole:
        return Whole(self.value - other.value)

    def __mul__(self, other: Whole) -> Whole:
        return Whole(self.value * other.value)

    def __neg__(self) -> Whole:
        return Whole(-self.value)

    def __truediv__(self, other: Whole) -> Whole:
        quotient, rest = divmod(self.value, other.value)
        if rest:
            raise ArithmeticError
        return Whole(quotient)


def by_python(text: str) -> int | None:
    """What Python makes of it; None where a division has a rest."""
    names = {name: Whole(value) for name, value in NAMES.items()}
    try:
        return int(eval(re.sub(r"\b([0-9]+)\b", r"Whole(\1)", text), {"Whole": Whole, **names}).value)
    except ArithmeticError:
        return None


@given(EXPRESSIONS)
def test_an_expression_means_what_it_means_in_python(text: str) -> None:
    wanted = by_python(text)
    if wanted is None or len(text) > MAX_LENGTH:
        with pytest.raises(NumberError):
            evaluate_expression(text, NAMES)
    else:
        assert evaluate_expression(text, NAMES) == wanted


@given(st.text(alphabet="0123456789kdepth_+-*/()., 'x²٣", max_size=100))
def test_a_text_is_a_bounded_whole_number_or_an_error(text: str) -> None:
    with suppress(NumberError):
        assert abs(evaluate_expression(text, NAMES)) <= MAX_VALUE


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64", 64),
        ("007", 7),
        ("16*k", 48),
        ("(depth-2)/6", 3),
        ("2+3*4", 14),
        ("(2+3)*4", 20),
        ("10-4-3", 3),
        ("24/4/2", 3),
        ("7*6/2", 21),
        ("-k", -3),
        ("--k", 3),
        ("2*-3", -6),
        ("-6/4*2", None),
        ("0/5", 0),
        ("1000000000000", MAX_VALUE),
        ("1000000000001", None),
        ("1000000*1000001", None),
        ("1000000*1000001-1000000", None),  # bounded on the way, too
        ("7/2", None),
        ("7/2*2", None),
        ("1/0", None),
        ("", None),
        ("2*", None),
        ("*2", None),
        ("(2", None),
        ("2)", None),
        ("2 2", None),
        ("2k", None),
        ("k2", None),
        ("9**9**9", None),
        ("9//2", None),
        ("0x10", None),
        ("1e3", None),
        ("2.5", None),
        ("k()", None),
        ("__import__('os')", None),
        ("k.bit_length", None),
        ("٣", None),
        ("²", None),
        ("1_000", None),
        ("(" * 60 + "1" + ")" * 60, None),
        ("-" * MAX_LENGTH, None),
        ("-" * (MAX_LENGTH - 1) + "1", -1),
    ],
)
def test_an_expression_is_worth(text: str, value: int | None) -> None:
    if value is None:
        with pytest.raises(NumberError):
            evaluate_expression(text, NAMES)
    else:
        assert evaluate_expression(text, NAMES) == value


@pytest.mark.parametrize(("text", "fraction"), [("(depth-1)/6", True), ("1/0", False), ("depht", False), ("2*", False)])
def test_only_a_division_with_a_rest_is_called_a_fraction(text: str, fraction: bool) -> None:
    with pytest.raises(NumberError) as raised:
        evaluate_expression(text, NAMES)
    assert raised.value.fraction is fraction


def test_an_unknown_name_is_answered_with_one_like_it_or_with_all() -> None:
    with pytest.raises(NumberError) as raised:
        evaluate_expression("2*depht", NAMES)
    assert (raised.value.message, raised.value.hint) == ("unknown name `depht`", "did you mean `depth`?")
    with pytest.raises(NumberError) as raised:
        evaluate_expression("cardinality", NAMES)
    assert raised.value.hint == "names known here: k, depth, wide_2, minus; `let:` declares others"


def test_the_names_of_an_expression_stand_in_its_order() -> None:
    assert names_in("(depth-2)/k+depth*2") == ["depth", "k", "depth"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.5", 0.5),
        ("1", 1.0),
        ("1e-3", 1e-3),
        ("1e-05", 1e-5),
        ("1e+16", 1e16),
        ("0.0001", 1e-4),
        *(
            (text, None)
            for text in ("", ".5", "5.", "-1", "+1", "nan", "inf", "1e", "1e999", "1_0", "0x1", "٣", " 1", "1 ")
        ),
    ],
)
def test_a_decimal_is_worth(text: str, value: float | None) -> None:
    assert decimal(text) == value


@pytest.mark.parametrize(
    ("digits", "unit", "value", "last"),
    [("25.5", "M", 25_500_000, 100_000), ("4.10", "G", 4_100_000_000, 10_000_000), ("1.2", "B", 1_200_000_000, 10**8),
     ("3", "T", 3 * 10**12, 10**12), ("64", "K", 64_000, 1000), ("22.20", "", "22.2", "0.01"), ("7", "", 7, 1)],
)  # fmt: skip
def test_a_published_figure_is_worth_its_digits_and_known_to_the_last_of_them(
    digits: str, unit: str, value: int | str, last: int | str
) -> None:
    assert printed_figure(digits, unit) == (Decimal(value), Decimal(last))
