"""A search over settings (`--best`) as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetcli.reports.measured import MEASURED
from resnetcli.table.fields import Field
from resnetcli.table.numbers import duration
from resnetcli.table.sheet import Sheet

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.search import Ladder, Rung

    Row = tuple[Ladder, Rung]

MAX_PRIORITY = 4
"""Measured columns of a lower priority are left to the table of the fastest settings."""


def ladder_sheet(ladders: Sequence[Ladder]) -> Sheet:
    """A row for each setting, in the order tried; `ladder_lines` says why one failed."""
    rungs = [rung for ladder in ladders for rung in ladder.rungs]
    fields: list[Field[Row]] = [
        Field("settings", "settings", lambda row: row[1].settings.text, align="left", style="bold", wrap=True),
        Field("batch", "batch", lambda row: row[0].batch, shown=len(ladders) > 1),
        *(each.through(_measurement) for each in MEASURED if each.priority <= MAX_PRIORITY and each.key != "noisy"),
        Field("speedup", "speedup", lambda row: row[0].speedup(row[1]), "{:.2f}x".format, style="cyan",
              help="over eager fp32"),
        PREPARE.through(_measurement),
        Field("deviation", "off by", lambda row: deviation(row[1].measurement), "{:.1e}".format, priority=3,
              legend=_tolerance_text(rungs)),
        Field("problem", "problem", lambda row: row[1].problem, row_text=_problem, align="left", style="yellow",
              wrap=True, sparse=True),
        Field("best", "best", lambda row: "best" * (row[1].passed and row[1] is row[0].best), align="left",
              style="bold"),
        *(each.through(_measurement) for each in MEASURED if each.key == "noisy"),
    ]  # fmt: skip
    return Sheet.of(fields, [(ladder, rung) for ladder in ladders for rung in ladder.rungs])


PREPARE: Field[Measurement] = Field(
    "prepare_s", "prepared in", text=duration, priority=1,
    legend="prepared in: cast, folded, compiled and called once",
)  # fmt: skip


def _measurement(row: Row) -> Measurement | None:
    return row[1].measurement


def _problem(row: Row) -> str:
    rung = row[1]
    return "" if not rung.problem else "not run" if rung.measurement is None else "wrong outputs"


def deviation(m: Measurement | None) -> float | None:
    """The largest deviation of the outputs from eager fp32; None for eager fp32 itself."""
    if m is None:
        return None
    return max((value for value in (m.deviation_maps, m.deviation_outputs) if value is not None), default=None)


def _tolerance_text(rungs: Sequence[Rung]) -> str:
    tolerances = {m.dtype: m.tolerance for rung in rungs if (m := rung.measurement) and m.tolerance is not None}
    if not tolerances:
        return ""
    most = ", ".join(f"{tolerance:g} in {dtype}" for dtype, tolerance in tolerances.items())
    return f"off by: relative norm of the error of the last feature maps or outputs vs eager fp32; at most {most}"


def ladder_lines(ladders: Sequence[Ladder]) -> list[str]:
    """Reasons of failed settings, and settings that do not differ significantly from the best."""
    ties = [
        f"as fast as the best at batch {ladder.batch}, within noise: "
        + ", ".join(rung.settings.text for rung in ladder.ties)
        for ladder in ladders
        if ladder.ties
    ]
    problems = dict.fromkeys(
        f"{rung.settings.text}: {rung.problem}" for ladder in ladders for rung in ladder.rungs if rung.problem
    )
    return [*problems, *ties]


LADDER_NOTE = "each in a separate process, one after the other"
