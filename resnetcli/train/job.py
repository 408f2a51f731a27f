"""From options to a training job: model, recipe, dataset and device, of a new run or of one to resume."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from resnetcli.bench.device import describe_device
from resnetcli.data.read import default_name as default_data
from resnetcli.data.read import read_dataset
from resnetcli.errors import Source, UsageError
from resnetcli.frozen import frozen
from resnetcli.ops import Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.recipes.deviations import deviations
from resnetcli.recipes.recipe import SETTINGS, Recipe
from resnetcli.recipes.text import default_recipe, format_recipe, read_recipe
from resnetcli.runs import tensorboard
from resnetcli.runs.config import Config, differences, flat
from resnetcli.runs.directory import Run, write_run
from resnetcli.runs.layout import MODEL_FILE, RECIPE_FILE
from resnetcli.runs.metrics import intervals
from resnetcli.spec.lineage import open_document
from resnetcli.spec.read import read
from resnetcli.spec.resolve import resolved
from resnetcli.spec.source import read_source
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo
from resnetcli.train.options import (
    MAY_CHANGE,
    DataParallel,
    TrainOptions,
    changed_recipe,
    require_intervals,
    resolve_device,
    with_defaults,
)
from resnetcli.train.paper import published_errors, recipe_deviation
from resnetcli.train.precision import supported_settings

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset

CHECKPOINT_EVERY = EVAL_EVERY = 1000
Say = Callable[[str], None]
MACHINE = {
    "device_name": "device", "threads": "number of threads", "processes": "number of processes", "versions": "version"
}  # fmt: skip
"""Fields outside `Config.bound` that the last digits of the weights depend on, with their names in messages."""


@frozen
class TrainJob:
    """Everything a training session needs, and everything a run directory starts with."""

    config: Config
    plan: Plan
    recipe: Recipe
    data: Dataset
    spec_text: str = ""
    """The spec as its author wrote it; for a new run."""
    model_text: str = ""
    """The same spec, self-contained; for a new run."""
    team: DataParallel | None = None
    tensorboard: bool = False
    """Whether readings are also written as TensorBoard events."""

    def with_seed(self, seed: int) -> TrainJob:
        """The same job with another seed."""
        return replace(self, config=replace(self.config, seed=seed))

    def write(self, path: Path) -> Run:
        """Write a new run's files into its directory. Raises what `write_run` raises."""
        return write_run(path, self.config, spec=self.spec_text, model=self.model_text,
                         recipe=format_recipe(self.recipe))  # fmt: skip


def model_name(config: Config) -> str:
    """Name of a model's folder: `cifar_resnet56`, `my_net-depth20`."""
    parameters = "".join(f"-{name}{value}" for name, value in sorted(config.parameters.items()))
    return f"{Path(os.path.abspath(config.model)).stem}{parameters}"  # noqa: PTH100 - resolves `..`, not links


# --- a new run -----------------------------------------------------------------------------------------------------


def new_job(options: TrainOptions, zoo: Zoo, say: Say, data: Dataset | None = None) -> TrainJob:
    """Prepare a new run, except its directory. Raises UsageError, SpecError and ResourceError for invalid options."""
    device = resolve_device(options)
    options = with_defaults(options, device)
    if options.tensorboard:
        tensorboard.import_package()  # raises if it is not installed
    if options.model is None:
        hint = "`--depth 56`, or `--model` with a name in the zoo or a path"
        raise UsageError("no model given: use --depth or --model", hint)
    if "classes" in options.parameters:
        raise UsageError("the number of classes comes from the dataset", "omit `classes`")
    require_intervals(options)
    seed = options.seed or 0
    if not 0 <= seed < 2**63:
        raise UsageError(f"`--seed {seed}` is out of range", "from 0 to 2^63 - 1")
    own = read(options.model, zoo=zoo, parameters=options.parameters)  # reports errors before data is downloaded
    recipe = changed_recipe(read_recipe(options.recipe) if options.recipe else default_recipe(own), options)
    if options.team is not None:
        recipe = options.team.split_batch(recipe, new=True)
    folder = None if options.data_dir is None else Path(options.data_dir)
    data = data or read_dataset(options.data or default_data(folder), folder, download=options.download, log=say)
    spec = fit_to_data(options.model, own, options.parameters, data.image, data.classes, zoo)
    plan = lower(spec)
    model_text = resolved(options.model, spec, zoo=zoo)
    images = min(recipe.train_split or len(data.train.labels), len(data.train.labels))
    iterations = recipe.length(images)
    assert options.dtype is not None
    published = published_errors(spec, data.name)
    config = Config(
        model=options.model,
        parameters=dict(options.parameters),
        title=spec.title,
        input=(spec.input.c, spec.input.h, spec.input.w),
        classes=data.classes,
        params=count(plan).params,
        data=data.name,
        data_folder=None if options.data_dir is None else str(Path(options.data_dir).absolute()),
        train_images=images,
        validation_images=len(data.train.labels) - images,
        test_images=len(data.test.labels),
        seed=seed,
        dtype=options.dtype,
        channels_last=bool(options.channels_last),
        compile=bool(options.compile),
        cuda_graph=bool(options.cuda_graph),
        deterministic=bool(options.deterministic),
        threads=options.threads or torch.get_num_threads(),
        checkpoint_every=options.checkpoint_every or CHECKPOINT_EVERY,
        eval_every=options.eval_every or default_eval_every(iterations, recipe.batch_size, len(data.test.labels)),
        deviations=(recipe_deviation(recipe, spec) if published else ())
        + deviations(recipe, dtype=options.dtype, images=images, data=data.name, size=data.image[1:]),
        published=published,
        **_content(model_text, recipe, data, iterations),
        **_machine(device, options),
    )
    intervals(config)  # raises if there were too many readings, before there is a directory
    spec_text = open_document(options.model, zoo).source.text
    return TrainJob(config, plan, recipe, data, spec_text, model_text, options.team, bool(options.tensorboard))


def _content(model_text: str, recipe: Recipe, data: Dataset, iterations: int) -> dict[str, Any]:
    """Fields of a configuration that follow from the run's files and the dataset."""
    return {
        "spec": hashlib.sha256(model_text.encode()).hexdigest(),
        "recipe": recipe_record(recipe),
        "data_text": data.text,
        "data_digest": data.digest,
        "iterations": iterations,
        "batch_size": recipe.batch_size,
    }


def _machine(device: str, options: TrainOptions) -> dict[str, Any]:
    """Fields of a configuration that follow from the machine."""
    return {
        "device": device,
        "device_name": describe_device(device),
        "versions": versions(),
        "processes": options.processes,
    }


def default_eval_every(iterations: int, batch_size: int, test_images: int) -> int:
    """Iterations between evaluations by default: 1000, or a tenth of a shorter run.

    At least as many as train on the number of test images, so that evaluation takes at most a quarter of the time.
    """
    return min(iterations, max(1, min(EVAL_EVERY, iterations // 10), -(-test_images // batch_size)))


def fit_to_data(
    model: str, own: Spec, parameters: Mapping[str, int], image: tuple[int, ...], classes: int, zoo: Zoo
) -> Spec:  # fmt: skip
    """The model for the dataset's images and classes; `own`: as its file has it. Raises UsageError and SpecError."""
    given = dict(parameters)
    if classes != own.parameters["classes"]:  # a model that does not use the name may still fit
        given["classes"] = classes
    return read(model, zoo=zoo, input=Shape(*image), parameters=given)


def recipe_record(recipe: Recipe) -> dict[str, Any]:
    """A recipe's name and all settings, as JSON returns them."""
    values = asdict(replace(recipe, paper={}))
    return {"name": recipe.name, **{name: _as_json(values[name]) for name in SETTINGS}}


def _as_json(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _as_json(item) for name, item in value.items()}
    return list(value) if isinstance(value, tuple) else value


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that compute or write the weights."""
    numbers = {"python": platform.python_version(), "torch": str(torch.__version__)}
    for name in ("resnet-cli", "numpy", "safetensors"):
        try:
            numbers[name] = version(name)
        except PackageNotFoundError:
            numbers[name] = "unknown"
    return numbers


# --- a run to resume -----------------------------------------------------------------------------------------------


def resumed_job(run: Run, options: TrainOptions, say: Say, data: Dataset | None = None) -> TrainJob:
    """Prepare to resume a run on this machine; `data`: its dataset, if it is loaded already.

    Raises UsageError with every option that differs from the run's, and if its files or its dataset have changed.
    """
    config = run.config
    require_same_options(run, options)
    events = writes_events([run.path], options, say)
    where = options.device or config.device
    dtype, graph = supported_settings(config, where, options.processes)
    how = replace(
        options, dtype=dtype, channels_last=config.channels_last, compile=config.compile, cuda_graph=graph,
        threads=config.threads if options.threads is None else options.threads, device=where,
    )  # fmt: skip
    device = resolve_device(how)
    if dtype != config.dtype:
        say(f"`{device}` does not support {config.dtype}: the run resumes in {dtype}")
    model, recipe = read_files(run)
    if options.team is not None:
        options.team.split_batch(recipe, new=False)
    spec = read(model, zoo=Zoo())
    if data is None or data.digest != config.data_digest:
        data = load_dataset(config, options, say)
    require_unchanged("resume", run, model.text, recipe, data)
    now = replace(
        config,
        threads=options.threads or config.threads,
        checkpoint_every=options.checkpoint_every or config.checkpoint_every,
        eval_every=options.eval_every or config.eval_every,
        **_machine(device, options),
    )
    for name, text in MACHINE.items():
        if getattr(now, name) != getattr(config, name):
            say(f"different {text} than before: the last digits of the weights may differ")
    return TrainJob(now, lower(spec), recipe, data, team=options.team, tensorboard=events)


def load_dataset(config: Config, options: TrainOptions, say: Say) -> Dataset:
    """The run's dataset, from where the options or the run itself say. Raises UsageError and ResourceError."""
    recorded = None if config.data == "synthetic" else config.data_folder  # earlier versions ignored one
    folder = options.data_dir or recorded
    return read_dataset(config.data, None if folder is None else Path(folder), download=options.download, log=say)


def read_files(run: Run) -> tuple[Source, Recipe]:
    """A run's self-contained spec and its recipe. Raises UsageError and SpecError."""
    return read_source(run.path / MODEL_FILE), read_recipe(str(run.path / RECIPE_FILE))


def require_unchanged(purpose: str, run: Run, model_text: str, recipe: Recipe, data: Dataset) -> None:
    """Raise UsageError if the run's files or dataset have changed since it was started."""
    now = replace(run.config, **_content(model_text, recipe, data, recipe.length(run.config.train_images)))
    if changes := differences(run.config.bound, now.bound):
        raise UsageError(f"cannot {purpose} `{run.path}`: {'; '.join(changes)}",
                         "the dataset and the run's files must be the same as before")  # fmt: skip


def writes_events(runs: Iterable[Path], options: TrainOptions, say: Say) -> bool:
    """Whether sessions of the runs write TensorBoard events: with the option, or if one of them has event files."""
    if options.tensorboard is False or (options.tensorboard is None and not any(map(tensorboard.event_files, runs))):
        return False
    try:
        tensorboard.import_package()
    except UsageError as error:
        if options.tensorboard:
            raise
        say(f"warning: no further TensorBoard events: {error.message}")
        return False
    return True


def require_same_options(run: Run, options: TrainOptions) -> None:
    """Raise UsageError with every option that differs from the run's settings, and for a model edited since."""
    require_intervals(options)
    config = run.config
    values: dict[str, Any] = {
        "parameters": dict(config.parameters), "train_split": config.recipe.get("train_split"),
        "bn_batch": config.recipe.get("bn_batch"),
    }  # fmt: skip
    changes = []
    for each in fields(TrainOptions):
        name, value = each.name, getattr(options, each.name)
        if name in MAY_CHANGE or value is None or (name == "parameters" and options.model is None):
            continue
        if name == "recipe":
            record = recipe_record(changed_recipe(read_recipe(value), options))
            if record["bn_batch"] is None:  # not set by the recipe: an option or the number of processes has set it
                record["bn_batch"] = config.recipe.get("bn_batch")
            changes += [f"recipe's {change}" for change in differences(dict(flat(config.recipe)), dict(flat(record)))]
            continue
        before = values[name] if name in values else getattr(config, name)
        if value != before:
            changes.append(f"{name.replace('_', '-')} {_text(before)} -> {_text(value)}")
    if options.model == config.model and options.parameters == config.parameters and _is_edited(run, options.model):
        changes.append(f"model `{options.model}` was edited")
    if changes:
        raise UsageError(f"cannot resume `{run.path}` with different settings: {'; '.join(changes)}",
                         "omit these options, or start another run with `--out`")  # fmt: skip


def _is_edited(run: Run, model: str) -> bool:
    """Whether the spec that the run was started with describes another model now; its formatting is irrelevant."""
    config, zoo = run.config, Zoo()
    own = read(model, zoo=zoo, parameters=config.parameters)
    now = fit_to_data(model, own, config.parameters, config.input, config.classes, zoo)
    return lower(now).steps != lower(read(read_source(run.path / MODEL_FILE), zoo=zoo)).steps


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name}={number}" for name, number in value.items()) or "none"
    return f"{value:,}" if type(value) is int else str(value)
