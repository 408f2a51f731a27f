"""A profile as JSON: the schema `resnet-cli/profile` of docs/reference/json.md."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from resnetcli.errors import Problem, ResourceError
from resnetcli.plan.receptive import Receptive, receptive
from resnetcli.plan.training import TrainingCost, is_traced, training
from resnetcli.reports.counted import COUNTS, PART_COUNTS
from resnetcli.reports.measured import measurement_record
from resnetcli.reports.profile import By, Profile, parts
from resnetcli.reports.records import Record, heads_record, published_record, sizes, tally_record
from resnetcli.table.fields import record

if TYPE_CHECKING:
    from resnetcli.bench.search import SettingsSearch, Trial
    from resnetcli.plan.memory import Memory
    from resnetcli.plan.plan import Plan


def profile_record(profile: Profile, by: By = "stage") -> Record:
    """`resnet-cli/profile@2`; with `parts` by block or by layer."""
    plan, counts = profile.plan, profile.counts
    trained = None if is_traced(plan) else training(plan)
    measurements = [measurement_record(measurement) for measurement in profile.measurements]
    try:
        fields = receptive(plan) if trained else ()
    except ResourceError:
        fields = ()
    return {
        "schema": "resnet-cli/profile@2",
        "model": profile.model,
        "parameters": dict(plan.parameters),
        "name": plan.title,
        "cite": profile.cite,
        "input": list(plan.input_sizes),
        "batch": profile.batch,
        "batches": list(profile.batches),
        **record(COUNTS, profile),
        "flops": counts.flops,
        "convention": tally_record(profile.tally),
        "weight_bytes": counts.weight_bytes,
        "activation_bytes": counts.activation_bytes,
        "training": _training(trained.total) if trained else None,
        "memory": _memory(plan, profile.memory) if trained else None,
        "aux": heads_record(profile),
        "published": [published_record(entry) for entry in profile.judged],
        "stages": [
            {
                "stage": part.name,
                "output": sizes(part.output),
                "maps": part.output.n,
                **record(PART_COUNTS, part),
                "figure": part.figure,
                "training": _training(trained.stages[part.name]) if trained else None,
                "receptive": _receptive(fields[part.step]) if fields else None,
            }
            for part in parts(profile, "stage")
        ],
        "parts": None
        if by == "stage"
        else [
            {
                "part": part.name,
                "layers": part.layers or None,
                "output": sizes(part.output),
                "maps": part.output.n,
                **record(PART_COUNTS, part),
                "figure": part.figure,
                "receptive": _receptive(fields[part.step]) if fields else None,
            }
            for part in parts(profile, by)
        ],
        "latency": measurements[0] if measurements else None,
        "measurements": measurements,
        "trials": [trial_record(search, trial) for search in profile.searches for trial in search.trials],
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


def trial_record(search: SettingsSearch, trial: Trial) -> Record:
    measured = trial.measurement
    return {
        "settings": trial.options.text,
        "batch": search.batch,
        "passed": trial.passed,
        "best": trial.passed and trial is search.best,
        "problem": trial.problem or None,
        "speedup": search.speedup(trial),
        "measurement": None if measured is None else measurement_record(measured),
    }
