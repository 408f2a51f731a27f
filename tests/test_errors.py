"""Words that every part says things with."""

from __future__ import annotations

import pytest

from resnetcli.errors import plural


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0 nets"), (1, "1 net"), (2, "2 nets"), (1.0, "1 net"), (0.5, "0.5 nets"), (25_557_032, "25,557,032 nets"),
     (10**15 + 1, "1,000,000,000,000,001 nets")],
)  # fmt: skip
def test_one_of_a_thing_is_no_plural(number: float, said: str) -> None:
    assert plural(number, "net") == said


def test_a_plural_that_is_not_made_with_an_s_is_given() -> None:
    assert [plural(number, "class", "classes") for number in (1, 2)] == ["1 class", "2 classes"]
