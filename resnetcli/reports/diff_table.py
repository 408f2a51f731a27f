"""A diff of two models as tables and text."""

from __future__ import annotations

from functools import partial

from resnetcli.errors import plural
from resnetcli.reports.diff import FIGURES, Diff, StageDiff
from resnetcli.table.fields import Field
from resnetcli.table.numbers import change, exact, percent, short, size_of
from resnetcli.table.sheet import Sheet

MAX_TEXT = 160
"""Characters shown of a change; CSV and JSON have all of it."""
_COLUMNS = {
    "params": ("params", "learnable parameters"),
    "macs": ("MACs", "multiply-accumulates of convolutions and fc, for one image"),
    "activations": ("acts", "outputs of convolutions and fc"),
    "memory_bytes": ("memory", "the outputs of all steps in float32 (derived)"),
}
"""Figure -> its head and its meaning."""
_LEGENDS = ("activations", "memory_bytes")


def diff_heading(diff: Diff) -> list[str]:
    """The two models, and the differences of their headers."""
    return [f"{diff.before.label} -> {diff.after.label}", *(f"  {_clip(text)}" for text in diff.header)]


def diff_sheet(diff: Diff) -> Sheet:
    """One row per stage that differs: its changes, and for each figure the difference and its share of the total's."""
    total = StageDiff(None, "total", (), diff.total_before, diff.total_after)
    fields: list[Field[StageDiff]] = [
        Field("stage", "stage", lambda s: s.after, row_text=lambda s: s.name, align="left", style="bold",
              help="stage of the second model"),
        Field("stage_before", "stage of the first model", lambda s: s.before, shown=False,
              help="stage of the first model"),
        Field("status", "status", lambda s: None if s is total else s.status, shown=False,
              help="how the stage differs"),
        Field("changes", "what changed", lambda s: None if s is total else "; ".join(s.changes),
              row_text=lambda s: "" if s is total else "; ".join(map(_clip, s.changes)) or "only by the header",
              align="left", wrap=True, help="changes from the first model to the second"),
    ]  # fmt: skip
    for place, key in enumerate(_COLUMNS):
        fields += _cost_fields(diff, key, 2 * place + 4)
    return Sheet.of(fields, diff.stages, total)


def _cost_fields(diff: Diff, key: str, priority: int) -> list[Field[StageDiff]]:
    head, meaning = _COLUMNS[key]
    return [
        Field(key, head, lambda s: s.difference.figure(key), partial(_signed, key),
              legend=f"{head}: {meaning}" if key in _LEGENDS else "", help=f"difference in {meaning}"),
        Field(f"{key}_share", f"share of\n{head}", partial(_share, diff, key), _percent, style="cyan",
              priority=priority, help="part of the total difference"),
    ]  # fmt: skip


def _share(diff: Diff, key: str, stage: StageDiff) -> float | int | None:
    share = diff.share(stage, key)
    return share if share is None else 1 if share == 1 and stage.after == "total" else round(share, 6)


def _percent(share: float) -> str:
    text = percent(share) if share else ""
    return "0.0%" if text == "-0.0%" else text


def _signed(key: str, value: int) -> str:
    text = size_of(abs(value)) if key == "memory_bytes" else short(abs(value))
    return f"{'+' if value > 0 else '-'}{text}" if value else "="


_Total = tuple[str, int, int]
"""A figure's name, and its values in both models."""


def totals_sheet(diff: Diff) -> Sheet:
    """Exact figures of both models, and the differences."""
    names = {"params": "parameters", "macs": "MACs", "activations": "activations", "memory_bytes": "bytes of memory"}
    totals = [(names[key], diff.total_before.figure(key), diff.total_after.figure(key)) for key in FIGURES]
    totals += [("depth", diff.before.counts.depth, diff.after.counts.depth), ("peak memory (derived)", *diff.peaks)]
    before, after = diff.before.label, diff.after.label
    fields: list[Field[_Total]] = [
        Field("figure", "in total", lambda t: t[0], align="left", style="bold", help="figure of the whole model"),
        Field("before", before, lambda t: t[1], exact, help="figure of the first model"),
        Field("after", after if after != before else f"{after} (second)", lambda t: t[2], exact,
              help="figure of the second model"),
        Field("difference", "difference", lambda t: t[2] - t[1], lambda value: f"{value:+,}" if value else "=",
              help="second less first"),
        Field("change", "change", lambda t: t[2] / t[1] if t[1] else None,
              row_text=lambda t: change(t[2], t[1]) if t[2] != t[1] else "", style="cyan", help="second / first"),
    ]  # fmt: skip
    return Sheet.of(fields, totals)


def diff_notes(diff: Diff) -> list[str]:
    """The numbers of different and identical stages."""
    stages = plural(len(diff.stages), "stage differs", "stages differ")
    return [f"{stages}, {plural(diff.equal_stages, 'identical stage')} omitted; counted for one image"]


def no_difference(diff: Diff) -> str:
    """The result for two equal models."""
    before, after = diff.before.label, diff.after.label
    return f"no difference between {before} and {after}: {plural(diff.equal_stages, 'identical stage')}"


def _clip(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[: MAX_TEXT - 4]} ..."
