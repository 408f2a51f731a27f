"""A comparison as tables and text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.reports.comparison import Comparison, comparison_fields, comparison_rows
from resnetcli.table.fields import Field
from resnetcli.table.numbers import duration, percent, short
from resnetcli.table.sheet import Sheet

if TYPE_CHECKING:
    from resnetcli.reports.baseline import BaselineDiff, EntryDiff


def comparison_sheet(comparison: Comparison) -> Sheet:
    """A row for each model (and batch size): counted figures with the published ones, and measured ones if any."""
    return Sheet.of(comparison_fields(comparison), comparison_rows(comparison))


CHANGES: list[Field[EntryDiff]] = [
    Field("batch", "batch", help="batch size"),
    Field("then_s", "then", text=duration, priority=1, help="median latency in the baseline"),
    Field("now_s", "now", text=duration, priority=1, help="median latency now"),
    Field("text", "ratio", lambda change: "; ".join((change.ratio.text(), *change.notes)), align="left", wrap=True,
          help="now relative to then, with its 95% CI"),
    Field("verdict", "verdict", row_text=lambda change: change.verdict + ": noisy" * (change.verdict == "undecided"),
          align="left", style="cyan", help="regressed, improved, same, or undecided if the run was noisy"),
]  # fmt: skip


def changes_sheet(changes: BaselineDiff) -> Sheet:
    """Latency now against that of a baseline file."""
    model: Field[EntryDiff] = Field("model", f"against {changes.file}", align="left", style="bold",
                                 help="model and parameters set")  # fmt: skip
    return Sheet.of([model, *CHANGES], changes.changes)


def changes_lines(changes: BaselineDiff) -> list[str]:
    """Models that were not compared, and why."""
    lines = [f"not in {changes.file}: {', '.join(changes.unsaved)}"] if changes.unsaved else []
    return lines + ([f"not measured now: {', '.join(changes.unmeasured)}"] if changes.unmeasured else [])


def timing_lines(comparison: Comparison) -> list[str]:
    """How the models were timed against each other, with the noise floor."""
    lines = []
    for timing in comparison.timings:
        if timing.floor is None:
            continue
        at = f" at batch {timing.batch}" if len(comparison.timings) > 1 else ""
        if any(profile.searches for profile in comparison.profiles):
            at += ", each at its best settings in a separate process"
        lines.append(f"interleaved{at}, {timing.rounds} rounds; noise floor (A/A test) {percent(timing.floor)}")
    return lines


def caption(comparison: Comparison) -> list[str]:
    """Conditions of the figures, the most important first."""
    sizes = {profile.plan.input_text for profile in comparison.profiles}
    size = f", {sizes.pop()}" if len(sizes) == 1 else ""
    convention = comparison.profiles[0].convention
    remark = {"macs": "; papers call MACs FLOPs", "flops": "; FLOPs are 2 x MACs"}.get(convention.name, "")
    lines = [f"counted for one image{size}{remark}"]
    if accuracy := comparison.accuracy:
        datasets = dict.fromkeys(dataset for _, dataset in accuracy.columns)
        others = f"; not shown: {', '.join(accuracy.others)} (--protocol)" if accuracy.others else ""
        lines.append(f"accuracy as published: {', '.join(datasets)}, {accuracy.protocol}{others}")
    return lines


def results_lines(comparison: Comparison) -> list[str]:
    """A tool's figures as sums, omitted models, and notes on single models."""
    tallies = {profile.label: profile.tally for profile in comparison.profiles}
    lines = comparison.profiles[0].convention.lines(tallies)
    if comparison.left_out:
        limits = " or ".join(
            f"more than {short(limit)} {'parameters' if name == 'params' else 'MACs'}"
            for name, limit in comparison.limits.items()
        )
        lines.append(f"left out: {plural(len(comparison.left_out), 'model')} with {limits}")
    models: dict[str, list[str]] = {}
    for profile in comparison.profiles:
        for note in profile.notes:
            models.setdefault(note, []).append(profile.label)
    return [*lines, *(f"{', '.join(dict.fromkeys(labels))}: {note}" for note, labels in models.items())]
