"""Reports as plain dictionaries: the JSON of docs/reference/json.md. Keys may be added; none changes its meaning."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from resnetcli.errors import Problem, ResourceError
from resnetcli.plan.memory import Memory
from resnetcli.plan.receptive import Receptive, receptive
from resnetcli.plan.training import TrainingCost, is_traced, training
from resnetcli.reports.compare import label
from resnetcli.reports.profile import Profile, parts
from resnetcli.spec.words import item_text

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.search import Ladder, Rung
    from resnetcli.counting.conventions import Tally
    from resnetcli.ops import Shape
    from resnetcli.plan.plan import Plan
    from resnetcli.reports.baseline import Changes
    from resnetcli.reports.compare import Comparison
    from resnetcli.reports.crosscheck import Crosschecked
    from resnetcli.reports.diff import Diff
    from resnetcli.reports.info import Info
    from resnetcli.reports.listing import Listing
    from resnetcli.reports.max_batch import Fit
    from resnetcli.reports.papers import PaperTable
    from resnetcli.reports.reconcile import Candidate, Reconciliation
    from resnetcli.reports.verdict import Judged
    from resnetcli.reports.verify import Verification

Record = dict[str, Any]


def profile_record(profile: Profile) -> Record:
    """`resnet-cli/profile@1`."""
    plan, counts = profile.plan, profile.counts
    trained = None if is_traced(plan) else training(plan)
    measurements = [_measurement(measurement) for measurement in profile.measurements]
    try:
        fields = receptive(plan) if trained else ()
    except ResourceError:
        fields = ()
    return {
        "schema": "resnet-cli/profile@1",
        "model": profile.model,
        "parameters": dict(plan.parameters),
        "name": profile.spec.title,
        "cite": profile.spec.cite,
        "input": list(plan.input_sizes),
        "batch": profile.batch,
        "batches": list(profile.batches),
        "params": counts.params,
        "macs": counts.macs,
        "flops": counts.flops,
        "convention": _convention(profile.tally),
        "activations": counts.activations,
        "depth": counts.depth,
        "weight_bytes": counts.weight_bytes,
        "activation_bytes": counts.activation_bytes,
        "training": _training(trained.total) if trained else None,
        "memory": _memory(plan, profile.memory) if trained else None,
        "aux": _heads(profile),
        "published": [_published(entry) for entry in profile.judged],
        "rows": [
            {
                "row": part.name,
                "output": _sizes(part.output),
                "maps": part.output.n,
                "params": part.cost.params,
                "macs": part.cost.macs,
                "figure": part.figure,
                "activations": part.cost.activations,
                "training": _training(trained.rows[part.name]) if trained else None,
                "receptive": _receptive(fields[part.step]) if fields else None,
            }
            for part in parts(profile, "row")
        ],
        "latency": measurements[0] if measurements else None,
        "measurements": measurements,
        "ladder": [_rung(ladder, rung) for ladder in profile.ladders for rung in ladder.rungs],
        "failures": [asdict(failure) for failure in profile.failures],
        "notes": list(profile.notes),
        "warnings": [_warning(warning) for warning in plan.warnings],
    }


def _warning(warning: Problem) -> Record:
    at = warning.at
    return {
        "message": warning.message,
        "file": at.source.label if at else None,
        "line": at.line if at else None,
        "column": at.column if at else None,
        "hint": warning.hint,
    }


def _measurement(measured: Measurement) -> Record:
    shares = {name: getattr(measured.environment, name) for name in ("others", "stolen", "throttled")}
    found = asdict(measured)
    for name in ("deviation_maps", "deviation_outputs"):
        if found[name] is not None and not math.isfinite(found[name]):
            found[name] = None  # JSON has no infinity; the rung's `problem` tells
    return {**found, "environment": {**found["environment"], **shares}}


def _rung(ladder: Ladder, rung: Rung) -> Record:
    measured = rung.measurement
    return {
        "settings": rung.settings.text,
        "batch": ladder.batch,
        "passed": rung.passed,
        "best": rung.passed and rung is ladder.best,
        "problem": rung.problem or None,
        "speedup": ladder.speedup(rung),
        "measurement": None if measured is None else _measurement(measured),
    }


def _convention(tally: Tally) -> Record:
    return {"name": tally.name, "total": tally.total, "formula": tally.formula, "parts": dict(tally.parts)}


def _training(cost: TrainingCost) -> Record:
    return {
        "forward_macs": cost.forward_macs,
        "backward_macs": cost.backward_macs,
        "total_macs": cost.total_macs,
    }


def _memory(plan: Plan, held: Memory) -> Record:
    return {
        "peak_bytes": held.bytes(),
        "weight_bytes": held.weight_bytes,
        "activation_bytes": held.peak().bytes(),
        "step": plan.steps[held.peak().step].path,
    }


def fit_record(fit: Fit) -> Record:
    """`resnet-cli/fit@1`."""
    return {
        "schema": "resnet-cli/fit@1",
        "model": fit.model,
        "parameters": dict(fit.plan.parameters),
        "name": fit.spec.title,
        "input": _sizes(fit.plan.input),
        "mode": fit.memory.mode,
        "dtype": fit.memory.dtype,
        "optimizer": fit.memory.optimizer,
        "available_bytes": fit.available,
        "batch": fit.batch,
        "peak": {
            "batch": fit.shown_batch,
            "bytes": fit.peak_bytes,
            "phase": fit.peak.phase,
            "step": fit.where,
            "parts": fit.breakdown(),
        },
    }


def compare_record(comparison: Comparison, changes: Changes | None = None) -> Record:
    """`resnet-cli/compare@1`."""
    return {
        "schema": "resnet-cli/compare@1",
        "protocol": comparison.accuracy.protocol if comparison.accuracy else None,
        "limits": {name: comparison.limits.get(name) for name in ("params", "macs")},
        "left_out": list(comparison.left_out),
        "models": [profile_record(profile) for profile in comparison.profiles],
        "contests": [
            {
                "batch": contest.batch,
                "against": contest.against,
                "floor": contest.floor,
                "rounds": contest.rounds,
                "ratios": [
                    {
                        "model": label(profile),
                        "ratio": ratio.ratio,
                        "interval": list(ratio.interval),
                        "floor": ratio.floor,
                        "resolution": ratio.resolution,
                        "outcome": ratio.outcome,
                        "text": ratio.text(),
                    }
                    for profile, ratio in zip(comparison.profiles, contest.ratios, strict=True)
                    if ratio is not None
                ],
            }
            for contest in comparison.contests
        ],
        "against": _changes(changes) if changes else None,
    }


def _changes(found: Changes) -> Record:
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


def measurement_records(comparison: Comparison) -> dict[int, list[Mapping[str, Any]]]:
    """Each profile's measurements, by its place."""
    return {n: [_measurement(m) for m in profile.measurements] for n, profile in enumerate(comparison.profiles)}


def saved_record(comparison: Comparison) -> Record:
    """`resnet-cli/saved@1`: what a later run is held against, without the samples."""
    from resnetcli.reports.baseline import conditions_of, floor_of  # which counting has no use for

    measured = measurement_records(comparison)
    figures = (
        "median_s", "interval_s", "iqr_s", "min_s", "p90_s", "p99_s", "n", "stopped", "throughput_img_s",
        "peak_memory_bytes", "torch",
    )  # fmt: skip
    return {
        "schema": "resnet-cli/saved@1",
        "date": datetime.now(UTC).date().isoformat(),
        "results": [
            {
                "model": profile.model,
                "parameters": dict(profile.plan.parameters),
                "input": list(profile.plan.input_sizes),
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "batch": record["batch"],
                "conditions": conditions_of(record),
                **{name: record[name] for name in figures},
                "floor": floor_of(comparison, record["batch"]) or None,
                "best": bool(profile.ladders),
            }
            for place, profile in enumerate(comparison.profiles)
            for record in measured[place]
        ],
    }


def diff_record(found: Diff) -> Record:
    """`resnet-cli/diff@1`."""
    return {
        "schema": "resnet-cli/diff@1",
        "models": [
            {
                "model": profile.model,
                "parameters": dict(profile.plan.parameters),
                "input": list(profile.plan.input_sizes),
                **asdict(total),
                "peak_bytes": peak,
                "depth": profile.counts.depth,
            }
            for profile, total, peak in zip(
                (found.before, found.after), (found.total_before, found.total_after), found.peaks, strict=True
            )
        ],
        "differs": found.differs,
        "header": list(found.header),
        "rows": [
            {
                "row_before": row.before,
                "row_after": row.after,
                "status": row.status,
                "changes": list(row.changes),
                **asdict(row.difference),
                "shares": {name: found.share(row, name) for name in asdict(row.difference)},
            }
            for row in found.rows
        ],
        "rows_equal": found.equal,
        "difference": asdict(found.difference),
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
                "input": list(profile.plan.input_sizes),
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
                "input": list(profile.plan.input_sizes),
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


def reconcile_record(found: Reconciliation) -> Record:
    """`resnet-cli/reconcile@1`."""
    return {
        "schema": "resnet-cli/reconcile@1",
        "model": found.variant.model,
        "parameters": dict(found.parameters),
        "name": found.title,
        "input": _sizes(found.variant.input),
        "figure": found.figure.printed,
        "value": int(found.figure.value),
        "quantity": found.quantity,
        "answer": found.answer,
        "explained": found.explained,
        "matches": [_candidate(candidate) for candidate in found.matches],
        "nearest": [_candidate(candidate) for candidate in found.nearest],
        "conventions": [_convention(tally) for tally in found.tools.values()],
    }


def _candidate(candidate: Candidate) -> Record:
    variant = candidate.variant
    return {
        "model": variant.model,
        "input": _sizes(variant.input),
        "aux": variant.aux,
        "variant": variant.text,
        "reading": candidate.reading,
        "quantity": candidate.of.quantity,
        "conventions": list(candidate.conventions),
        "total": candidate.total,
        "parts": dict(candidate.parts),
        "verdict": candidate.verdict,
        "difference": candidate.difference,
        "likely": candidate.likely and candidate.matches,
    }


def crosscheck_record(found: tuple[Crosschecked, ...]) -> Record:
    """`resnet-cli/crosscheck@1`."""
    return {
        "schema": "resnet-cli/crosscheck@1",
        "models": [
            {
                "model": net.profile.model,
                "parameters": dict(net.profile.plan.parameters),
                "input": list(net.profile.plan.input_sizes),
                "params": net.profile.counts.params,
                "agrees": net.agrees,
                "tools": [
                    {
                        "convention": _convention(tool.ours),
                        "package": tool.reading.package,
                        "version": tool.reading.version or None,
                        "counted": tool.reading.counted,
                        "params": tool.reading.params,
                        "verdict": tool.verdict,
                        "problem": tool.reading.problem or None,
                        "defects": list(tool.defects),
                    }
                    for tool in net.tools
                ],
            }
            for net in found
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


def _receptive(seen: Receptive) -> Record:
    return {
        "size_min": _both(seen.h.size_min, seen.w.size_min),
        "size_max": _both(seen.h.size_max, seen.w.size_max),
        "stride": _both(seen.h.stride, seen.w.stride),
        "padding": _both(seen.h.padding_max, seen.w.padding_max),
        "whole": seen.whole,
    }


def _both(h: int | None, w: int | None) -> list[int] | None:
    return None if h is None or w is None else [h, w]


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
