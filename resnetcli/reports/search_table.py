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
    from resnetcli.bench.search import SettingsSearch, Trial

    Row = tuple[SettingsSearch, Trial]

MAX_PRIORITY = 4
"""Measured columns of a lower priority are left to the table of the fastest settings."""


def search_sheet(searches: Sequence[SettingsSearch]) -> Sheet:
    """A row for each setting, in the order tried; `search_lines` says why one failed."""
    trials = [trial for search in searches for trial in search.trials]
    fields: list[Field[Row]] = [
        Field("settings", "settings", lambda row: row[1].options.text, align="left", style="bold", wrap=True,
              help="execution options"),
        Field("batch", "batch", lambda row: row[0].batch, shown=len(searches) > 1, help="batch size"),
        *(each.through(_measurement) for each in MEASURED if each.priority <= MAX_PRIORITY and each.key != "noisy"),
        Field("speedup", "speedup", lambda row: row[0].speedup(row[1]), "{:.2f}x".format, style="cyan",
              help="relative to eager fp32"),
        PREPARE.through(_measurement),
        Field("deviation", "off by", lambda row: deviation(row[1].measurement), "{:.1e}".format, priority=3,
              legend=_tolerance_text(trials)),
        Field("problem", "problem", lambda row: row[1].problem, row_text=_problem, align="left", style="yellow",
              wrap=True, sparse=True, help="why the settings were rejected"),
        Field("best", "best", _rank, align="left", style="bold",
              help="best: the lowest upper limit of the interval; tied: its interval overlaps that of the best"),
        *(each.through(_measurement) for each in MEASURED if each.key == "noisy"),
    ]  # fmt: skip
    return Sheet.of(fields, [(search, trial) for search in searches for trial in search.trials])


PREPARE: Field[Measurement] = Field(
    "prepare_s", "prepared in", text=duration, priority=1,
    legend="prepared in: cast, folded, compiled and called once",
)  # fmt: skip


def _rank(row: Row) -> str:
    search, trial = row
    return "tied" if trial in search.ties else "best" * (trial.passed and trial is search.best)


def _measurement(row: Row) -> Measurement | None:
    return row[1].measurement


def _problem(row: Row) -> str:
    trial = row[1]
    return "" if not trial.problem else "not run" if trial.measurement is None else "wrong outputs"


def deviation(m: Measurement | None) -> float | None:
    """The largest deviation of the outputs from eager fp32; None for eager fp32 itself."""
    if m is None:
        return None
    return max((value for value in (m.deviation_maps, m.deviation_outputs) if value is not None), default=None)


def _tolerance_text(trials: Sequence[Trial]) -> str:
    tolerances = {m.dtype: m.tolerance for trial in trials if (m := trial.measurement) and m.tolerance is not None}
    if not tolerances:
        return ""
    most = ", ".join(f"{tolerance:g} in {dtype}" for dtype, tolerance in tolerances.items())
    return f"off by: relative norm of the error of the last feature maps or outputs vs eager fp32; at most {most}"


def search_lines(searches: Sequence[SettingsSearch]) -> list[str]:
    """Reasons of failed settings, and settings that do not differ significantly from the best."""
    ties = [
        f"as fast as the best at batch {search.batch}, within noise: "
        + ", ".join(trial.options.text for trial in search.ties)
        for search in searches
        if search.ties
    ]
    problems = dict.fromkeys(
        f"{trial.options.text}: {trial.problem}" for search in searches for trial in search.trials if trial.problem
    )
    return [*problems, *ties]


SEARCH_NOTE = "each in a separate process, one after the other"
