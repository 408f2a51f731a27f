"""Results of training runs: their records, and the table of test errors beside the published ones."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnetcli.errors import plural
from resnetcli.frozen import frozen
from resnetcli.runs.directory import Record
from resnetcli.table.fields import Field, item_field
from resnetcli.table.numbers import exact, rate, short
from resnetcli.table.sheet import Sheet
from resnetcli.train.progress import time_text

SEEDS, MODELS = "resnet-cli/seeds@2", "resnet-cli/models@1"


@frozen
class RunOutcome:
    """Results of one run, or of one run per seed."""

    path: Path
    results: tuple[Record, ...]
    """`resnet-cli/train@2` of each run that is complete."""
    summary: Record | None = None
    """`resnet-cli/seeds@2`, with several seeds."""
    unsaved: tuple[str, ...] = ()
    """Outputs that could not be written."""


@frozen
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


def _several(models: Sequence[RunOutcome]) -> bool:
    return any(len(model.results) > 1 for model in models)


def _error(model: RunOutcome, figure: str) -> float | None:
    """The final test error: its mean, standard deviation or minimum over the seeds."""
    if model.summary is None:
        return model.results[0]["final_test_error_percent"] if figure == "mean" else None
    spread: Mapping[str, float | None] = model.summary["final_test_error_percent"]
    return spread[figure] if figure != "best" or len(model.results) > 1 else None


RESULTS: tuple[Field[RunOutcome], ...] = (
    Field("model", "model", lambda model: run_name(model.results[0]), align="left", style="bold",
          help="model, with the parameters that were set"),
    Field("params", "params", lambda model: model.results[0]["params"], short, help="learnable parameters"),
    Field("iterations", "iterations", lambda model: model.results[0]["iterations"], exact, help="training iterations"),
    Field("seeds", "seeds", lambda model: len(model.results), shown=_several, help="complete runs, one per seed"),
    Field("final_test_error_percent", "test error %", lambda model: _error(model, "mean"), "{:.2f}".format,
          style="bold", help="test error after the last iteration, the mean over the seeds"),
    Field("std", "std", lambda model: _error(model, "std"), "{:.2f}".format, shown=_several,
          help="standard deviation over the seeds"),
    Field("best", "best", lambda model: _error(model, "best"), "{:.2f}".format, priority=1, shown=_several,
          help="lowest test error of a seed"),
    Field("published", "published %",
          lambda model: "; ".join(map(_published, model.results[0]["published"])) or None, align="left",
          shown=lambda models: any(model.results[0]["published"] for model in models),
          help="test error as published, with its protocol and paper"),
    Field("data", "data", lambda model: model.results[0]["data"], align="left", shown=False, help="dataset"),
)  # fmt: skip


def results_sheet(models: Sequence[RunOutcome]) -> Sheet:
    """As Table 6 of He et al. 2015: each model's final test error, over its seeds, and the published ones."""
    return Sheet.of(RESULTS, models)


def run_name(record: Mapping[str, Any]) -> str:
    """The model as given, with its parameters."""
    return " ".join([record["model"], *(f"{key}={value}" for key, value in record["parameters"].items())])


SEED_RESULTS: tuple[Field[Mapping[str, Any]], ...] = (
    item_field("seed", "seed", help="random seed"),
    item_field("final_test_error_percent", "test error %", "{:.2f}".format, style="bold",
               help="test error after the last iteration"),
    item_field("final_train_error_percent", "train error %", "{:.2f}".format,
               help="error on training images without augmentation"),
    item_field("images_per_s", "images/s", lambda value: rate(value) if value else "", help="training throughput"),
    item_field("wall_s", "time", time_text, help="duration of the run"),
    item_field("data", "data", align="left", shown=False, help="dataset"),
)  # fmt: skip


def seeds_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """Errors, throughput and time of each seed's run."""
    return Sheet.of(SEED_RESULTS, results)


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
            lines.append(
                f"{of}error on training images without augmentation: {result['final_train_error_percent']:.2f}%"
            )
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
