from __future__ import annotations

import pytest

from resnetcli.errors import UsageError
from resnetcli.quantities import parse_batches, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("30s", 30), ("30", 30), ("0.5 s", 0.5), ("500ms", 0.5), ("2min", 120), ("1.5h", 5400), ("24h", 86400)],
)
def test_times_are_read_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_duration(text, "--time-budget") == seconds


@pytest.mark.parametrize("text", ["", "s", "-3s", "3 weeks", "1e3", "nan", "inf", "9" * 50, "3s3s", "٣s"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a time"):
        parse_duration(text, "--time-budget")


@pytest.mark.parametrize("text", ["0", "9ms", "25h", "999999999999h"])
def test_a_time_nobody_measures_for_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is out of range"):
        parse_duration(text, "--time-budget")


def test_batches_are_each_measured_once_in_the_order_given() -> None:
    assert parse_batches("8") == (8,)
    assert parse_batches("64, 1,8,64") == (64, 1, 8)


@pytest.mark.parametrize("text", ["", ",", "1,", "1.5", "8x", "1;8", "9" * 13, "٣"])
def test_what_is_no_number_of_images_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is not a batch size"):
        parse_batches(text)
