"""A ladder of settings as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from resnetcli.reports.profile_table import HALF_WIDTH, half_width, noisy_cell
from resnetcli.table.numbers import duration, rate, size_of
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.search import Ladder, Rung


def ladder_sheet(ladders: Sequence[Ladder]) -> Sheet:
    """A row a rung, in the order they were climbed; why one failed stands below (`ladder_lines`)."""
    several = len(ladders) > 1
    rungs = [rung for ladder in ladders for rung in ladder.rungs]
    columns = (
        Column("settings", "settings", "left", "bold", wrap=True),
        Column("batch", "batch", shown=several),
        Column("median", "median_s"),
        HALF_WIDTH,
        Column("speed", "speedup", style="cyan"),
        Column("images/s", "throughput_img_s", spare=2),
        Column("peak memory", "peak_memory_bytes", spare=4),
        Column("prepared in", "prepare_s", spare=1, legend="prepared in: cast, folded, compiled and called once"),
        Column("off by", "deviation", spare=3, legend=_tolerance_text(rungs)),
        Column("problem", "problem", "left", "yellow", wrap=True, shown=any(rung.problem for rung in rungs)),
        Column("best", "best", "left", "bold"),
        Column(
            "noisy", "noisy", "left", "yellow", shown=any(rung.measurement and rung.measurement.noisy for rung in rungs)
        ),
    )
    return Sheet(columns, tuple(_line(ladder, rung) for ladder in ladders for rung in ladder.rungs))


def _line(ladder: Ladder, rung: Rung) -> tuple[Cell, ...]:
    m, speedup = rung.measurement, ladder.speedup(rung)
    best = rung.passed and rung is ladder.best
    if m is None:
        return (
            cell(rung.settings.text), cell(ladder.batch), *(cell(None) for _ in range(7)),
            cell(rung.problem, "not run"), cell(""), cell(""),
        )  # fmt: skip
    memory, off = m.peak_memory_bytes, deviation(m)
    return (
        cell(rung.settings.text),
        cell(ladder.batch),
        cell(m.median_s, duration(m.median_s)),
        half_width(m),
        cell(speedup, "" if speedup is None else f"{speedup:.2f}x"),
        cell(m.throughput_img_s, rate(m.throughput_img_s)),
        cell(memory, "-" if memory is None else size_of(memory)),
        cell(m.prepare_s, duration(m.prepare_s)),
        cell(off, "" if off is None else f"{off:.1e}"),
        cell(rung.problem, "not right" if rung.problem else ""),
        cell("best" if best else ""),
        noisy_cell(m),
    )


def deviation(m: Measurement) -> float | None:
    """The worst of how far values are from eager fp32's; None where nothing else is computed."""
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
        f"not told apart from the best at batch {ladder.batch}: {', '.join(rung.settings.text for rung in ladder.ties)}"
        for ladder in ladders
        if ladder.ties
    ]
    problems = dict.fromkeys(
        f"{rung.settings.text}: {rung.problem}" for ladder in ladders for rung in ladder.rungs if rung.problem
    )
    return [*problems, *ties]


LADDER_NOTE = "each in a separate process, one after the other"
