"""Results of training runs: their records, and the table of test errors beside the published ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnetcli.errors import plural
from resnetcli.runs.directory import Record
from resnetcli.table.numbers import exact, rate, short
from resnetcli.table.sheet import Cell, Column, Sheet, cell
from resnetcli.train.progress import time_text

SEEDS, MODELS = "resnet-cli/seeds@2", "resnet-cli/models@1"


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """Results of one run, or of one run per seed."""

    path: Path
    results: tuple[Record, ...]
    """`resnet-cli/train@2` of each run that is complete."""
    summary: Record | None = None
    """`resnet-cli/seeds@2`, with several seeds."""
    unsaved: tuple[str, ...] = ()
    """What could not be written."""


@dataclass(frozen=True, slots=True)
class TrainOutcome:
    """Results of a training command: of one model, or of several."""

    path: Path
    models: tuple[RunOutcome, ...]
    """Of each model that was started, in order."""
    signal: int = 0
    """The signal that left something unfinished; 0 if none did."""
    failed: tuple[str, ...] = ()
    """Runs that failed, with the reason."""
    several: bool = False
    """Whether the directory is a group of models."""


def seeds_record(results: Sequence[Record], seeds: Sequence[int]) -> Record:
    """`resnet-cli/seeds@2`: final test errors of all seeds, none of them selected."""
    errors = [float(result["final_test_error_percent"]) for result in results]
    first = results[0] if results else {}
    return {
        "schema": SEEDS,
        **{name: first.get(name) for name in ("model", "parameters", "params", "recipe", "data", "iterations")},
        "seeds": list(seeds),
        "finished": [result["seed"] for result in results],
        "final_test_error_percent": {
            "mean": statistics.fmean(errors) if errors else None,
            "std": statistics.stdev(errors) if len(errors) > 1 else None,
            "median": statistics.median(errors) if errors else None,
            "best": min(errors, default=None),
            "worst": max(errors, default=None),
        },
        "runs": [
            {name: result[name] for name in ("seed", "final_test_error_percent", "final_train_error_percent",
                                             "images_per_s", "wall_s")}
            for result in results
        ],
        "published": first.get("published", []),
        "deviations": first.get("deviations", []),
    }  # fmt: skip


def models_record(outcome: TrainOutcome) -> Record:
    """`resnet-cli/models@1`: the record of each model."""
    models = [each.results[0] if each.summary is None else each.summary for each in outcome.models if each.results]
    return {"schema": MODELS, "models": models}


# --- tables --------------------------------------------------------------------------------------------------------

COLUMNS = (
    Column("model", "model", "left", "bold"),
    Column("params", "params"),
    Column("iterations", "iterations"),
    Column("seeds", "seeds"),
    Column("test error %", "final_test_error_percent", style="bold"),
    Column("std", "std"),
    Column("best", "best", spare=1),
    Column("published %", "published", "left"),
    Column("data", "data", "left", shown=False),
)
OF_SEEDS = ("seeds", "std", "best")
"""Columns that are only shown with several seeds."""


def results_sheet(models: Sequence[RunOutcome]) -> Sheet:
    """As Table 6 of He et al. 2015: each model's final test error, over its seeds, and the published ones."""
    rows = tuple(_result(model.results, model.summary) for model in models)
    hidden = (
        *(OF_SEEDS if all(len(model.results) == 1 for model in models) else ()),
        *(() if any(model.results[0]["published"] for model in models) else ("published",)),
    )
    columns = (replace(column, shown=column.shown and column.key not in hidden) for column in COLUMNS)
    return Sheet(tuple(columns), rows)


def _result(results: Sequence[Mapping[str, Any]], summary: Mapping[str, Any] | None) -> tuple[Cell, ...]:
    first, seeds = results[0], len(results)
    error = first["final_test_error_percent"]
    spread: Mapping[str, Any] = {"mean": error, "std": None, "best": error}
    if summary is not None:
        spread = summary["final_test_error_percent"]
    return (
        cell(run_name(first)),
        cell(first["params"], short(first["params"])),
        cell(first["iterations"], exact(first["iterations"])),
        cell(seeds),
        error_cell(spread["mean"]),
        error_cell(spread["std"]),
        error_cell(spread["best"] if seeds > 1 else None),
        cell("; ".join(map(_published, first["published"])) or None),
        cell(first["data"]),
    )


def run_name(record: Mapping[str, Any]) -> str:
    """The model as given, with its parameters."""
    return " ".join([record["model"], *(f"{key}={value}" for key, value in record["parameters"].items())])


def seeds_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """Errors, throughput and time of each seed's run."""
    columns = (
        Column("seed", "seed"),
        Column("test error %", "final_test_error_percent", style="bold"),
        Column("train error %", "final_train_error_percent"),
        Column("images/s", "images_per_s"),
        Column("time", "wall_s"),
        Column("data", "data", "left", shown=False),
    )
    rows = tuple(
        (
            cell(result["seed"]),
            error_cell(result["final_test_error_percent"]),
            error_cell(result["final_train_error_percent"]),
            cell(result["images_per_s"], rate(result["images_per_s"]) if result["images_per_s"] else ""),
            cell(result["wall_s"], time_text(result["wall_s"])),
            cell(result["data"]),
        )
        for result in results
    )
    return Sheet(columns, rows)


def result_lines(models: Sequence[RunOutcome]) -> list[str]:
    """The conditions of the errors, below the table."""
    first = models[0].results[0]
    lines = [f"after the last iteration, on all {plural(first['test_images'], 'test image')} of {first['data']}"]
    deviating: dict[str, list[str]] = {}
    for model in models:
        result = model.results[0]
        of = f"{run_name(result)}: " if len(models) > 1 else ""
        speed = ""
        if len(model.results) == 1:
            lines.append(f"{of}training images without augmentation: {result['final_train_error_percent']:.2f}%")
            if result["images_per_s"]:
                speed = f"{rate(result['images_per_s'])} images/s, {time_text(result['wall_s'])}; "
        lines.append(f"{of}recipe {result['recipe']}; {speed}{model.path!s}")
        for text in result["deviations"]:
            deviating.setdefault(text, []).append(run_name(result))
    for text, names in deviating.items():
        only = "" if len(names) == len(models) else f" ({', '.join(names)})"
        lines.append(f"differs from the paper: {text}{only}")
    return lines


def _published(entry: Mapping[str, Any]) -> str:
    conditions = ", ".join(filter(None, (entry["protocol"], entry["source"])))
    return f"{entry['value']} ({conditions})"


def error_cell(value: float | None) -> Cell:
    """An error in percent with two decimals; empty for None."""
    return cell(value, "" if value is None else f"{value:.2f}")
