"""Reports as plain dictionaries: the JSON of docs/json.md, whose keys may grow and never change their meaning."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from resnetcli.report.profile import Profile, parts
from resnetcli.spec.words import item_text

if TYPE_CHECKING:
    from resnetcli.ops import Shape
    from resnetcli.report.compare import Comparison
    from resnetcli.report.info import Info
    from resnetcli.report.listing import Listing
    from resnetcli.report.papers import PaperTable
    from resnetcli.report.verdict import Judged
    from resnetcli.report.verify import Verification

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
        "aux": _heads(profile),
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
        "protocol": comparison.accuracy.protocol if comparison.accuracy else None,
        "models": [profile_record(profile) for profile in comparison.profiles],
    }


def list_record(listing: Listing) -> Record:
    """`resnet-cli/list@1`."""
    return {
        "schema": "resnet-cli/list@1",
        "models": [
            {
                "model": profile.model,
                "family": group.family,
                "paper": group.paper.key if group.paper else None,
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "depth": profile.counts.depth,
                "input": _sizes(profile.plan.input),
            }
            for group in listing.groups
            for profile in group.profiles
        ],
    }


def info_record(info: Info) -> Record:
    """`resnet-cli/info@1`."""
    profile, paper = info.profile, info.paper
    return {
        "schema": "resnet-cli/info@1",
        "model": profile.model,
        "family": profile.family,
        "name": profile.spec.title,
        "cite": profile.spec.cite,
        "paper": {"key": paper.key, "name": paper.name, "authors": paper.authors, "title": paper.title}
        if paper
        else None,
        "about": profile.spec.about or None,
        "deviations": list(profile.spec.deviations),
        "extends": list(profile.spec.extends),
        "extended_by": list(info.extended_by),
        "parameters": dict(profile.plan.parameters),
        "params": profile.counts.params,
        "macs": profile.counts.macs,
        "depth": profile.counts.depth,
        "aux": _heads(profile),
        "published": [_published(entry) for entry in profile.judged],
        "file": info.source.label,
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


def verify_record(found: Verification) -> Record:
    """`resnet-cli/verify@1`."""
    return {
        "schema": "resnet-cli/verify@1",
        "models": [
            {
                "model": net.profile.model,
                "published": [_published(entry) for entry in net.judged],
                "faults": list(net.faults),
            }
            for net in found.nets
        ],
    }


def papers_record(tables: tuple[PaperTable, ...]) -> Record:
    """`resnet-cli/papers@1`."""
    return {
        "schema": "resnet-cli/papers@1",
        "tables": [
            {
                "paper": table.paper.key,
                "name": table.paper.name,
                "cite": table.paper.citation,
                "table": table.table,
                "rows": [
                    {
                        "label": row.label,
                        "model": row.profile.model,
                        "published": [_published(entry) for entry in row.entries],
                    }
                    for row in table.rows
                ],
            }
            for table in tables
        ],
    }


def _heads(profile: Profile) -> Record | None:
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
        "row": published.row,
        "protocol": published.protocol or None,
        "dataset": published.dataset or None,
        "label": published.label or None,
        "detail": published.detail or None,
    }
