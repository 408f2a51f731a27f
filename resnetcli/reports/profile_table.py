"""A profile as tables and text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from resnetcli.ops import Shape
from resnetcli.plan.memory import Memory, memory
from resnetcli.plan.plan import settings_text
from resnetcli.plan.training import TrainingCost, is_traced, training
from resnetcli.reports.counted import PART_COUNTS, under_convention
from resnetcli.reports.max_batch import step_at
from resnetcli.reports.measured import measured_sheet
from resnetcli.reports.profile import By, Part, Profile, parts
from resnetcli.reports.verdict import Judged
from resnetcli.table.fields import Field
from resnetcli.table.numbers import bar, change, exact, figure_name, percent, short, size_of
from resnetcli.table.sheet import Sheet, cell

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.plan.plan import Plan
    from resnetcli.plan.receptive import Receptive


def heading(profile: Profile) -> list[str]:
    """The model: title, name to type, parameters, citation."""
    plan = profile.plan
    ordered = dict(sorted(plan.parameters.items(), key=lambda entry: entry[0] == "classes"))  # the spec's own first
    lines = [f"{plan.title}   {profile.model}   {settings_text(ordered)}"]
    return [*lines, profile.cite] if profile.cite else lines


def cost_sheet(profile: Profile, by: By, *, width: int = 12, receptive: bool = False) -> Sheet:
    """A row for each part of the model, with its share of the work as a bar of at most `width` characters.

    `receptive` adds each part's receptive field.
    """
    rows = parts(profile, by)
    largest = max((part.figure for part in rows), default=0) or 1
    work = profile.tally.total
    total = Part("total", "", NO_OUTPUT, profile.counts.total, -1, work)

    def share(part: Part) -> float | int:
        return round(part.figure / work, 6) if work and part is not total else int(part is total and bool(work))

    def share_text(part: Part) -> str:
        if part is total:
            return f"{percent(1):>6}" if work else ""
        length = bar(part.figure / largest, width)
        return f"{percent(part.figure / work if work else 0.0):>6} {length}".rstrip()

    head = profile.convention.label
    fields: list[Field[Part]] = [
        Field(by, by, lambda part: part.name, align="left", style="bold", help=f"name of the {by}"),
        Field("layers", "steps", align="left", style="dim", shown=by == "layer", exported=by == "layer", priority=1,
              help="the layer as the spec writes it"),
        Field("output", "output", _output, row_text=_output_text, priority=2 if by != "stage" else 0,
              help="feature map, C x H x W"),
        *(_receptive_fields(profile.plan) if receptive else ()),
        *under_convention(PART_COUNTS, profile.convention, lambda part: part.figure),
        Field("share", f"share of {head}", share, row_text=share_text, align="left", style="cyan",
              priority=3 if by == "layer" else 0, help=f"fraction of the model's {head}"),
    ]  # fmt: skip
    return Sheet.of(fields, rows, total)


NO_OUTPUT = Shape(0, 0, 0)


def _output(part: Part) -> str:
    return "" if part.output is NO_OUTPUT else f"{part.output.c}x{part.output.h}x{part.output.w}"


def _output_text(part: Part) -> str:
    return "" if part.output is NO_OUTPUT else str(part.output) if part.output.elements else "-"


def _receptive_fields(plan: Plan) -> list[Field[Part]]:
    from resnetcli.plan.receptive import receptive  # slow, and only for `--receptive`

    by_step = receptive(plan)

    def text(place: int) -> Callable[[Part], str]:
        return lambda part: field_texts(by_step[part.step])[place] if part.step >= 0 else ""

    return [Field(name, name, text(place), legend=legend) for place, (name, legend) in enumerate(FIELDS.items())]


FIELDS = {
    "field": "field: receptive field in pixels, of the smallest path and of all paths",
    "stride": "stride: pixels between adjacent fields",
    "padding": "padding: pixels of the first field beyond the edge",
}
"""Receptive-field columns and their legends."""


def field_texts(field: Receptive) -> tuple[str, str, str]:
    """Receptive field, stride and padding: `7`, `11-427` from the smallest path to all paths, `7 x 1`, `all`."""
    h, w = field.h, field.w
    return (
        _both(_range(h.size_min, h.size_max, "all"), _range(w.size_min, w.size_max, "all")),
        _both(_range(h.stride_min, h.stride_max), _range(w.stride_min, w.stride_max)),
        _both(_range(h.padding_min, h.padding_max), _range(w.padding_min, w.padding_max)),
    )


def _both(h: str, w: str) -> str:
    return h if h == w else f"{h} x {w}"


def _range(low: int | None, high: int | None, unbounded: str = "") -> str:
    texts = dict.fromkeys(unbounded if value is None else str(value) for value in (low, high))
    return "-".join(text for text in texts if text)


def totals(profile: Profile) -> list[str]:
    """Requested details of the whole model: a convention's sum, auxiliary heads, batch sizes."""
    counts = profile.counts
    lines = list(profile.tally.lines)
    if heads := heads_line(profile):
        lines.append(heads)
    for batch in profile.batches:
        if batch > 1:
            macs, size = batch * counts.macs, batch * counts.activation_bytes
            lines.append(f"a batch of {batch} (derived): {short(macs)} MACs, activations {size_of(size)}")
    return [*lines, *profile.notes]


def totals_notes(profile: Profile) -> list[str]:
    """Exact counts for one image, with its memory and a training step."""
    counts, plan = profile.counts, profile.plan
    one = f"one {'input' if plan.inputs else 'image'}, {plan.input_text}"
    lines = [
        f"{exact(counts.params)} parameters   {profile.tally.text}   {exact(counts.activations)} activations   "
        f"depth {counts.depth}",
        f"{one}, in float32 (derived): weights {size_of(counts.weight_bytes)}, "
        f"activations {size_of(counts.activation_bytes)}",
    ]
    if not is_traced(plan):
        lines[1] += f", {memory_text(plan, memory(plan))}"
        lines.append(training_line(training(plan).total))
    return lines


def memory_text(plan: Plan, memory: Memory) -> str:
    """Peak memory of one image, and the step at the peak."""
    peak = memory.peak()
    standing = f"{size_of(memory.standing_bytes)} of parameters and buffers"
    return f"peak {size_of(memory.bytes())}: {standing}, {size_of(peak.bytes())} in {step_at(plan, peak)}"


def training_line(cost: TrainingCost) -> str:
    """The MACs of a training step on one image."""
    return (
        f"one training step (derived): {exact(cost.forward_macs)} MACs forward + "
        f"{exact(cost.backward_macs)} backward = {short(cost.total_macs)}"
    )


def heads_line(profile: Profile) -> str:
    """The counts with auxiliary training heads, or without if they are counted; empty for a model without any."""
    if profile.heads is None:
        return ""
    counted, other = profile.heads.without, profile.heads.with_them
    which = "with auxiliary training heads (--aux)"
    if profile.counts == other:
        counted, other, which = other, counted, "without auxiliary training heads, as at inference"
    return f"{which}: {exact(other.params)} parameters, {exact(other.macs)} MACs ({change(other.macs, counted.macs)})"


PUBLISHED: list[Field[Judged]] = [
    Field("figure", "figure", lambda e: e.published.figure, figure_name, align="left", style="bold",
          help="published quantity"),
    Field("published", "published", lambda e: e.published.printed, help="value as printed in the paper"),
    Field("counted", "counted", text=short, help="computed from the spec"),
    Field("verdict", "verdict", align="left", help="whether the count rounds or truncates to it, or differs"),
    Field("dataset", "dataset", lambda e: e.published.dataset, align="left", wrap=True, sparse=True, priority=2,
          help="evaluation dataset of an accuracy"),
    Field("protocol", "protocol", lambda e: e.published.protocol, align="left", wrap=True, sparse=True, priority=1,
          help="evaluation protocol of an accuracy"),
    Field("source", "source", lambda e: f"{e.published.source} {e.published.table}",
          lambda source: source.removeprefix("arXiv:"), align="left", style="dim", help="paper and table"),
    Field("note", "note", lambda e: e.published.note, align="left", wrap=True, sparse=True,
          help="known reason for a difference"),
    Field("detail", "detail", lambda e: e.published.detail, align="left", style="dim", wrap=True, sparse=True,
          priority=3, help="what else the paper says of the figure"),
]  # fmt: skip


def published_sheet(profile: Profile) -> Sheet | None:
    """Published figures next to counted ones; None if there are none to compare."""
    return Sheet.of(PUBLISHED, profile.judged) if profile.judged else None


def unjudged(profile: Profile) -> str:
    """Why published figures are not compared; empty if they are."""
    spec = profile.parsed
    if spec is None or not spec.published:
        return ""
    if spec.changed:
        changed = ", ".join(sorted(spec.changed))
        return f"published figures not compared: {changed} changed from the paper's model"
    if not profile.judged:
        return "published figures not compared: they exclude auxiliary heads (--aux)"
    return ""


def with_times(costs: Sheet, measurements: Sequence[Measurement]) -> Sheet:
    """Costs and times in one table, for programs: the total is repeated for each measurement of the whole model."""
    if not measurements or costs.total is None:
        return costs
    times, total = measured_sheet(measurements), costs.total
    rows = [(*row, *(cell(None) for _ in times.columns)) for row in costs.rows]
    rows += [(*total, *row) for row in times.rows]
    return Sheet((*costs.columns, *times.columns), tuple(rows))
