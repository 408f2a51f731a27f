"""How figures are written: four digits at any magnitude, the prefix chosen after rounding."""

from __future__ import annotations

import math
import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resnetcli.table.numbers import change, duration, factor, percent, rate, short, signed_percent, size_of

POWERS = {"": 0, "k": 3, "K": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18, "s": 0, "ms": -3, "us": -6, "ns": -9}
INTS = st.one_of(st.integers(-(10**25), 10**25), st.integers(0, 24).flatmap(lambda n: st.integers(10**n - 2, 10**n)))
FLOATS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.tuples(st.floats(0.9995, 1.0005), st.integers(-12, 15)).map(lambda pair: pair[0] * 10.0 ** pair[1]),
)


def read(text: str) -> tuple[Decimal, str]:
    """The number that a text says, and its mantissa as written."""
    match = re.fullmatch(r"(-?[0-9,]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?) ?([a-zA-Z]*)", text)
    assert match, text
    unit = match[2] if match[2] in POWERS else match[2].removesuffix("B")
    return Decimal(match[1].replace(",", "")).scaleb(POWERS[unit]), match[1]


def near(text: str, value: float, digits: int = 4) -> None:
    """The text says the value, to half of the last of so many digits."""
    said, _ = read(text)
    assert abs(said - Decimal(value)) <= abs(Decimal(value)) * Decimal(10) ** (1 - digits) / 2 * Decimal("1.0001"), text


@given(INTS)
@example(999_949)
@example(999_950)
@example(999_960)
@example(9_999_900)
@example(-999_960)
@example(10**18 - 1)
@example(10**21 - 1)
@example(10**400)
def test_counts_and_sizes_have_four_digits_and_a_mantissa_below_a_thousand(value: int) -> None:
    for text in (short(value), size_of(value)):
        near(text, value)
        mantissa = read(text)[1].lstrip("-")
        assert abs(Decimal(mantissa.partition("e")[0])) < 1000
        if abs(value) >= 1000:
            assert len(mantissa.partition("e")[0].replace(".", "")) == 4


@given(FLOATS)
@example(0.00099996)
@example(9.9996e-10)
@example(0.99996)
@example(-0.0123)
@example(5e-324)
@example(1.7e308)
def test_a_duration_is_rounded_before_its_unit_is_chosen(seconds: float) -> None:
    text = duration(seconds)
    near(text, seconds, 4 if abs(seconds) >= 1e-9 and abs(seconds) < 1e12 else 3)
    if not text.endswith(" s"):
        assert abs(Decimal(read(text)[1])) < 1000
        assert len(read(text)[1].strip("-").replace(".", "")) == 4


@given(FLOATS)
@example(999.96)
@example(0.00001234)
def test_a_rate_has_four_digits_however_small(per_second: float) -> None:
    near(rate(per_second), per_second)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (short(999_960), "1.000M"),
        (short(9_999_900), "10.00M"),
        (short(999), "999"),
        (short(-25_557_032), "-25.56M"),
        (size_of(999_999), "1.000 MB"),
        (size_of(0), "0 B"),
        (duration(0.00099996), "1.000 ms"),
        (duration(0.0), "0 s"),
        (duration(-0.0), "0 s"),
        (duration(12345.678), "12346 s"),
        (duration(math.inf), "inf s"),
        (duration(math.nan), "nan s"),
        (rate(999.96), "1,000"),
        (rate(0.0123456), "0.01235"),
        (rate(math.inf), "inf"),
        (percent(-0.0001), "0.0%"),
        (percent(0.1234), "12.3%"),
        (change(1234, 1), "x1,230"),
        (change(1.9999, 1), "x2"),
        (change(1.999, 1), "+99.9%"),
        (change(1, 1), "="),
        (change(4_089_184_255, 4_089_184_256), "-0.00000002%"),
        (change(1.0006, 1), "+0.1%"),
        (change(1.0004, 1), "+0.04%"),
        (signed_percent(-0.00001, 2), "-0.001%"),
        (signed_percent(0.0, 2), "+0.00%"),
        (change(1, 0), ""),
        (factor(1234.0), "1,230"),
        (factor(2.0), "2"),
    ],
)
def test_figures_as_they_are_written(text: str, expected: str) -> None:
    assert text == expected
