"""`eval`: a checkpoint's error and loss on the test set, in total and per class."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from resnetcli.bench.device import describe_device, find
from resnetcli.errors import UsageError, typed
from resnetcli.plan.lower import lower
from resnetcli.runs import checkpoint
from resnetcli.runs.config import Config
from resnetcli.runs.directory import Record, Run
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field, item_field
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Sheet
from resnetcli.train.augment import normalisation
from resnetcli.train.evaluate import Evaluation, Evaluator
from resnetcli.train.job import load_dataset, read_files, require_unchanged
from resnetcli.train.model import empty_model, state_template, trainable, training_subset
from resnetcli.train.options import TrainOptions, resolve_device
from resnetcli.train.results import run_name
from resnetcli.train.session import require_same

_OMIT = "omit `--checkpoint` to evaluate the last checkpoint that is intact"
EVAL = "resnet-cli/eval@1"


def evaluate_run(
    run: Run, options: TrainOptions, say: Callable[[str], None], *, iteration: int | None = None
) -> Record:  # fmt: skip
    """`resnet-cli/eval@1` of the run's last checkpoint, or the one of an iteration, on the whole test set.

    On the run's own device if this machine has it, else on the CPU. Raises UsageError if there is no such checkpoint,
    it is damaged, or the dataset is not the run's.
    """
    found = dict(checkpoint.files(run.path))
    if not found:
        raise UsageError(
            f"`{run.path}` has no checkpoint yet", f"resume it: `resnet-cli train-cifar --resume {typed(run.path)}`"
        )
    if iteration is not None and iteration not in found:
        known = ", ".join(map(str, sorted(found)))
        raise UsageError(f"`{run.path}` has no checkpoint of iteration {iteration:,}", f"available: {known}")
    config = run.config
    device = resolve_device(replace(options, device=options.device or _device(config)))
    torch.set_num_threads(options.threads or config.threads)
    model_file, recipe = read_files(run)
    plan = lower(read(model_file, zoo=Zoo()))
    data = load_dataset(config, options, say)
    require_unchanged("evaluate", run, model_file.text, recipe, data)
    model = empty_model(trainable(plan, data), torch.device(device))
    if config.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    expected = state_template(model, recipe, config.dtype)
    if iteration is None:
        loaded = checkpoint.newest(run.path, expected, say)
    else:
        try:
            loaded = checkpoint.load_checkpoint(found[iteration], expected)
        except checkpoint.Damaged as reason:
            raise UsageError(f"`{found[iteration]}` is damaged: {reason}", _OMIT) from None
    require_same(loaded.facts.get("config"), config, run.path)
    with torch.no_grad():
        for name, tensor in model.state_dict(keep_vars=True).items():
            tensor.copy_(loaded.tensors[f"net.{name}"])
    subset = training_subset(recipe, data)
    images = data.train.images if subset is None else data.train.images[subset]
    normalise = normalisation(images, recipe.normalise).to(torch.device(device))
    evaluator = Evaluator(model, data, normalise, torch.device(device), channels_last=config.channels_last)
    here = replace(config, data_text=data.text, device=device, device_name=describe_device(device))
    return eval_record(run, loaded.iteration, data.class_names, evaluator.by_class(), here)


def _device(config: Config) -> str:
    try:
        return find(config.device)
    except UsageError:
        return "cpu"


def eval_record(run: Run, iteration: int, names: Sequence[str], classes: Sequence[Evaluation], here: Config) -> Record:
    """`resnet-cli/eval@1`; `here`: the run's configuration on this machine."""
    n = sum(each.n for each in classes)
    wrong = sum(each.wrong for each in classes)
    loss = sum(each.loss * each.n for each in classes) / n
    return {
        "schema": EVAL,
        "run": str(run.path),
        "model": run.config.model,
        "parameters": dict(run.config.parameters),
        "seed": run.config.seed,
        "data": here.data_text,
        "iteration": iteration,
        "iterations": run.config.iterations,
        "images": n,
        "wrong": wrong,
        "error_percent": 100 * wrong / n,
        "loss": loss if math.isfinite(loss) else None,
        "classes": [
            {
                "class": number,
                "name": names[number],
                "images": each.n,
                "wrong": each.wrong,
                "error_percent": each.error_percent if each.n else None,
            }
            for number, each in enumerate(classes)
        ],
        "device": here.device,
        "device_name": here.device_name,
    }


EVALUATED: tuple[Field[Mapping[str, Any]], ...] = (
    item_field("class", "class", align="left", style="bold", help="name of the class"),
    item_field("images", "images", exact, help="test images"),
    item_field("wrong", "wrong", exact, help="images that are misclassified"),
    item_field("error_percent", "error %", "{:.2f}".format, help="wrong / images"),
    item_field("data", "data", align="left", shown=False, help="dataset"),
)


def eval_sheet(record: Mapping[str, Any]) -> Sheet:
    """Error of each class, and of the whole test set."""
    rows = [{**entry, "class": entry["name"], "data": record["data"]} for entry in record["classes"]]
    return Sheet.of(EVALUATED, rows, {**record, "class": "all"})


def eval_lines(record: Mapping[str, Any]) -> list[str]:
    """The checkpoint and the dataset, below the table."""
    loss = "not finite" if record["loss"] is None else format(record["loss"], ".4f")
    return [
        f"{run_name(record)}, seed {record['seed']}, after {exact(record['iteration'])} of "
        f"{exact(record['iterations'])} iterations; loss {loss}",
        f"test set of {record['data']}",
    ]
