"""One definition of a column, seen in every form of a table."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from resnetcli.table.fields import Field, find_field, record, to_frame
from resnetcli.table.numbers import duration, percent
from resnetcli.table.sheet import Sheet, to_csv, to_markdown


@dataclass(frozen=True)
class Run:
    model: str
    time_s: float
    p99_s: float | None = None
    steady: bool = True


FIELDS: tuple[Field[Run], ...] = (
    Field("model", "model", align="left"),
    Field("time_s", "time", text=duration, legend=lambda runs: f"time: of {len(runs)} runs", aliases=("latency",)),
    Field("p99_s", "p99", text=duration, missing="-", sparse=True),
    Field("twice", "2x", lambda run: 2 * run.time_s, shown=False),
    Field("share", "±", lambda run: 0.01, row_text=lambda run: percent(0.01) + "*" * (not run.steady)),
)
Pair = tuple[str, Run | None]
RUNS = (Run("a", 0.5), Run("b", 0.25, steady=False))


def test_a_field_is_a_column_of_every_form() -> None:
    sheet = Sheet.of(FIELDS, RUNS, total=Run("total", 0.75))
    assert to_csv(sheet) == "model,time_s,p99_s,twice,share\na,0.5,,1.0,0.01\nb,0.25,,0.5,0.01\ntotal,0.75,,1.5,0.01\n"
    assert to_markdown(sheet).splitlines() == [
        "| model | time | ± |",
        "|:--|--:|--:|",
        "| a | 500.0 ms | 1.0% |",
        "| b | 250.0 ms | 1.0%* |",
        "| **total** | **750.0 ms** | **1.0%** |",
    ]
    assert sheet.columns[1].legend == "time: of 2 runs"
    assert record(FIELDS, RUNS[1]) == {"model": "b", "time_s": 0.25, "p99_s": None, "twice": 0.5, "share": 0.01}
    assert to_frame(FIELDS, RUNS, "model").loc["a", "twice"] == 1.0


def test_a_sparse_column_is_shown_if_any_row_has_a_value() -> None:
    shown = [column.shown for column in Sheet.of(FIELDS, (*RUNS, Run("c", 1.0, 2.0))).columns]
    assert shown == [True, True, True, False, True]


def test_a_field_of_a_part_is_empty_where_the_part_is_missing() -> None:
    rows: list[Pair] = [("a", RUNS[0]), ("b", None)]
    time: Field[Pair] = FIELDS[1].through(lambda pair: pair[1])
    sheet = Sheet.of((Field("name", "name", lambda pair: pair[0]), time), rows)
    assert to_csv(sheet) == "name,time_s\na,0.5\nb,\n"
    assert sheet.rows[1][1].text == ""
    assert sheet.columns[1].legend == "time: of 1 runs"


@pytest.mark.parametrize("name", ["time_s", "time-s", "Time", "latency"])
def test_a_field_is_found_by_each_of_its_names(name: str) -> None:
    assert find_field(FIELDS, name) is FIELDS[1]
    assert find_field(FIELDS, "size") is None
