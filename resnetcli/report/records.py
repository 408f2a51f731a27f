"""Reports as plain dictionaries: the JSON of docs/json.md, whose keys may grow and never change their meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from resnetcli.report.profile import Profile, parts
from resnetcli.spec.words import item_text

if TYPE_CHECKING:
    from resnetcli.ops import Shape
    from resnetcli.report.compare import Comparison
    from resnetcli.report.listing import Listing
    from resnetcli.report.verdict import Judged

Record = dict[str, Any]


def profile_record(profile: Profile) -> Record:
    """`resnet-cli/profile@1`."""
    plan, counts = profile.plan, profile.counts
    measurements = [asdict(measurement) for measurement in profile.measurements]
    return {
        "schema": "resnet-cli/profile@1",
        "model": profile.model,
        "parameters": dict(plan.parameters),
        "name": profile.spec.title,
        "cite": profile.spec.cite,
        "input": _sizes(plan.input),
        "batch": profile.batch,
        "params": counts.params,
        "macs": counts.macs,
        "flops": counts.flops,
        "activations": counts.activations,
        "depth": counts.depth,
        "weight_bytes": counts.weight_bytes,
        "activation_bytes": counts.activation_bytes,
        "published": [_published(entry) for entry in profile.judged],
        "rows": [
            {
                "row": part.name,
                "output": _sizes(part.output),
                "maps": part.output.n,
                "params": part.cost.params,
                "macs": part.cost.macs,
                "activations": part.cost.activations,
            }
            for part in parts(profile, "row")
        ],
        "latency": measurements[0] if measurements else None,
        "measurements": measurements,
    }


def compare_record(comparison: Comparison) -> Record:
    """`resnet-cli/compare@1`."""
    return {
        "schema": "resnet-cli/compare@1",
        "models": [profile_record(profile) for profile in comparison.profiles],
    }


def list_record(listing: Listing) -> Record:
    """`resnet-cli/list@1`."""
    return {
        "schema": "resnet-cli/list@1",
        "models": [
            {
                "model": profile.model,
                "family": profile.family,
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "input": _sizes(profile.plan.input),
            }
            for profile in listing.profiles
        ],
    }


def show_record(profiles: tuple[Profile, ...]) -> Record:
    """`resnet-cli/show@1`: each row's layers as phrases of the grammar, all numbers put in."""
    return {
        "schema": "resnet-cli/show@1",
        "models": [
            {
                "model": profile.model,
                "parameters": dict(profile.plan.parameters),
                "name": profile.spec.title,
                "input": _sizes(profile.plan.input),
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "rows": [
                    {
                        "row": row,
                        "output": _sizes(profile.plan.steps[profile.plan.rows[row]].shape),
                        "layers": [item_text(item) for item in items],
                    }
                    for row, items in profile.spec.rows.items()
                ],
            }
            for profile in profiles
        ],
    }


def _sizes(shape: Shape) -> list[int]:
    return [shape.c, shape.h, shape.w]


def _published(entry: Judged) -> Record:
    published = entry.published
    return {
        "figure": published.figure,
        "printed": published.printed,
        "counted": entry.counted,
        "verdict": entry.verdict,
        "note": published.note or None,
        "source": published.source,
        "table": published.table,
        "protocol": published.protocol or None,
        "dataset": published.dataset or None,
        "label": published.label or None,
        "detail": published.detail or None,
    }
