"""A comparison as JSON: the schema `resnet-cli/compare` of docs/reference/json.md."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetcli.reports.profile_record import profile_record

if TYPE_CHECKING:
    from resnetcli.reports.baseline import BaselineDiff
    from resnetcli.reports.comparison import Comparison
    from resnetcli.reports.records import Record


def compare_record(comparison: Comparison, changes: BaselineDiff | None = None) -> Record:
    """`resnet-cli/compare@2`."""
    return {
        "schema": "resnet-cli/compare@2",
        "protocol": comparison.accuracy.protocol if comparison.accuracy else None,
        "limits": {name: comparison.limits.get(name) for name in ("params", "macs")},
        "left_out": list(comparison.left_out),
        "models": [profile_record(profile) for profile in comparison.profiles],
        "timings": [
            {
                "batch": timing.batch,
                "against": timing.against,
                "noise_floor": timing.floor,
                "rounds": timing.rounds,
                "ratios": [
                    {
                        "model": profile.label,
                        "ratio": ratio.ratio,
                        "interval": list(ratio.interval),
                        "noise_floor": ratio.floor,
                        "resolution": ratio.resolution,
                        "outcome": ratio.outcome,
                        "text": ratio.text(),
                    }
                    for profile, ratio in zip(comparison.profiles, timing.ratios, strict=True)
                    if ratio is not None
                ],
            }
            for timing in comparison.timings
        ],
        "against": changes_record(changes) if changes else None,
    }


def changes_record(found: BaselineDiff) -> Record:
    return {
        "file": found.file,
        "changes": [
            {
                "model": change.model,
                "batch": change.batch,
                "then_s": change.then_s,
                "now_s": change.now_s,
                "ratio": change.ratio.ratio,
                "interval": list(change.ratio.interval),
                "floor": change.ratio.floor,
                "verdict": change.verdict,
                "text": change.ratio.text(),
                "notes": list(change.notes),
            }
            for change in found.changes
        ],
        "unsaved": list(found.unsaved),
        "unmeasured": list(found.unmeasured),
    }
