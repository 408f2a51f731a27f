"""Parts of JSON records that several reports share; docs/reference/json.md describes the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetcli.counting.tally import Tally
    from resnetcli.ops import Shape
    from resnetcli.reports.profile import Profile
    from resnetcli.reports.verdict import Judged

AS_GIVEN = "as given, with the parameters that were set"
"""Meaning of a column with models."""
Record = dict[str, Any]


def pick(source: object, *names: str) -> Record:
    """The named attributes as a dictionary."""
    return {name: getattr(source, name) for name in names}


def model_head(profile: Profile) -> Record:
    """Which model a record is about: `model`, `parameters`, `input` (C, H, W of one image)."""
    return {
        "model": profile.model, "parameters": dict(profile.plan.parameters), "input": list(profile.plan.input_sizes),
    }  # fmt: skip


def tally_record(tally: Tally) -> Record:
    """A model's total under one convention, with its terms."""
    return {**pick(tally, "name", "total", "formula"), "parts": dict(tally.parts)}


def heads_record(profile: Profile) -> Record | None:
    """Counts without and with auxiliary training heads; None for a model without any."""
    if profile.heads is None:
        return None
    without, with_them = profile.heads.without, profile.heads.with_them
    return {
        "counted": profile.counts == with_them,
        "params_without": without.params,
        "macs_without": without.macs,
        "params_with": with_them.params,
        "macs_with": with_them.macs,
    }


def published_record(entry: Judged) -> Record:
    """A published figure with the computed one."""
    published = entry.published
    optional = pick(published, "protocol", "dataset", "label", "detail")
    return {
        "figure": published.figure,
        "value": published.printed,
        **pick(entry, "counted", "verdict"),
        "note": published.note or None,
        **pick(published, "source", "table", "row"),
        **{name: text or None for name, text in optional.items()},
    }


def sizes(shape: Shape) -> list[int]:
    """Channels, height, width."""
    return [shape.c, shape.h, shape.w]
