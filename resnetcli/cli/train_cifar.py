"""Train a model on CIFAR or a custom dataset."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetcli.cli.app import (
    DATA_CACHE,
    ExplainColumns,
    Formats,
    complain,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models, complete_model, split_words
from resnetcli.errors import ResourceError, UsageError, typed
from resnetcli.table.formats import TABLE, Format, Output, Section

if TYPE_CHECKING:
    from resnetcli.parallel.team import Team
    from resnetcli.spec.zoo import Zoo
    from resnetcli.train.results import TrainOutcome


app = typer.Typer(add_completion=False)
MODEL, TRAINING, OUTPUT = "Model and data", "Training", "Output and checkpoints"


OF_RUN = "the run's"
"""Default of the options that continue a run, in help."""


def data_dir_option(panel: str | None = None, default: str = DATA_CACHE) -> Any:
    text = f"Dataset directory. \\[default: {default}]"
    return typer.Option("--data-dir", metavar="DIR", rich_help_panel=panel, help=text)


def no_download_option(panel: str | None = None) -> Any:
    return typer.Option("--no-download", rich_help_panel=panel, help="Do not download missing data.")


def device_option(panel: str | None = None, default: str = "cuda if available, else cpu") -> Any:
    return typer.Option(
        "--device",
        metavar="cpu|cuda[:N]",
        rich_help_panel=panel,
        help=f"Device. \\[default: {default}]",
    )


def threads_option(panel: str | None = None, default: str = "all") -> Any:
    text = f"Number of CPU threads. \\[default: {default}]"
    return typer.Option("--threads", metavar="N", rich_help_panel=panel, help=text)


@app.command(
    "train-cifar",
    epilog=examples(
        "train-cifar --depth 56",
        "train-cifar --model wrn_28_10 --data cifar100 --gpus 4",
        "train-cifar --resume runs/cifar_resnet56-cifar10-seed0",
    ),
)
@guarded
def train_cifar(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Model parameters for --model, e.g. depth=56.")
    ] = None,
    depth: Annotated[
        list[int] | None,
        typer.Option(
            "--depth",
            metavar="N",
            rich_help_panel=MODEL,
            help="CIFAR ResNet-N of He et al. 2015; N = 6n+2 (20, 32, 44, 56, 110).",
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            metavar="MODEL",
            rich_help_panel=MODEL,
            autocompletion=complete_model,
            help="Model name or spec. Repeatable, as is --depth: models are trained one after another.",
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            "--recipe",
            metavar="NAME|FILE",
            rich_help_panel=MODEL,
            help="Training recipe: resnet, preact, wrn, resnext, fast, or a YAML file. \\[default: the paper's]",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="NAME",
            rich_help_panel=MODEL,
            help="Dataset: cifar10, cifar100, custom or synthetic. \\[default: cifar10, or custom if "
            "--data-dir has a dataset.json]",
        ),
    ] = None,
    data_dir: Annotated[str | None, data_dir_option(MODEL)] = None,
    no_download: Annotated[bool, no_download_option(MODEL)] = False,
    train_split: Annotated[
        str | None,
        typer.Option(
            "--train-split",
            metavar="N",
            rich_help_panel=MODEL,
            help="Train on N images, e.g. 45k; validate on the rest.",
        ),
    ] = None,
    iterations: Annotated[
        str | None,
        typer.Option(
            "--iterations",
            metavar="N",
            rich_help_panel=TRAINING,
            help="Number of training iterations, e.g. 64k. \\[default: recipe]",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", metavar="N", rich_help_panel=TRAINING, help="Total batch size. \\[default: recipe]"
        ),
    ] = None,
    bn_batch: Annotated[
        int | None,
        typer.Option(
            "--bn-batch",
            metavar="N",
            rich_help_panel=TRAINING,
            help="BatchNorm group size (ghost batch norm). \\[default: per-process batch]",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", rich_help_panel=TRAINING, help="Random seed. \\[default: 0]")
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            "--seeds", metavar="K", rich_help_panel=TRAINING, help="Repeat with K seeds and report mean and std."
        ),
    ] = None,
    device: Annotated[str | None, device_option(TRAINING)] = None,
    gpus: Annotated[
        int | None,
        typer.Option(
            "--gpus", metavar="N", rich_help_panel=TRAINING, help="Number of GPUs (data parallel, one process each)."
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            metavar="fp32|tf32|bf16|fp16",
            rich_help_panel=TRAINING,
            help="Compute precision; bf16 and fp16 are mixed precision. \\[default: tf32 on GPU, else fp32]",
        ),
    ] = None,
    channels_last: Annotated[
        bool | None,
        typer.Option(
            "--channels-last/--no-channels-last",
            rich_help_panel=TRAINING,
            help="Use channels_last (NHWC) memory format. \\[default: on a GPU, unless fp32]",
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", rich_help_panel=TRAINING, help="Use torch.compile.")] = False,
    cuda_graph: Annotated[
        bool | None,
        typer.Option(
            "--cuda-graph/--no-cuda-graph",
            rich_help_panel=TRAINING,
            help="Replay the training step as a CUDA graph. \\[default: on a GPU, for one process]",
        ),
    ] = None,
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic", rich_help_panel=TRAINING, help="Use deterministic cuDNN algorithms, without autotuning."
        ),
    ] = False,
    threads: Annotated[int | None, threads_option(TRAINING)] = None,
    out: Annotated[
        str | None,
        typer.Option(
            "--out", metavar="DIR", rich_help_panel=OUTPUT, help="Run directory. \\[default: runs/MODEL-DATA-seedN]"
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option("--resume", metavar="RUN", rich_help_panel=OUTPUT, help="Resume a run from its last checkpoint."),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            "--checkpoint-every",
            metavar="N",
            rich_help_panel=OUTPUT,
            help="Save a checkpoint every N iterations. \\[default: 1000]",
        ),
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option(
            "--eval-every",
            metavar="N",
            rich_help_panel=OUTPUT,
            help="Evaluate every N iterations. \\[default: 1000, fewer in a shorter run]",
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", rich_help_panel=OUTPUT, help="Also log to TensorBoard.")
    ] = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Train a model on CIFAR or your own images using the paper's recipe (resumable)."""
    from resnetcli.bench.allocator import keep_freed_memory
    from resnetcli.quantities import parse_count
    from resnetcli.spec.zoo import Zoo
    from resnetcli.train.group import train
    from resnetcli.train.options import TrainOptions
    from resnetcli.train.paper import depth_model
    from resnetcli.train.progress import ProgressScreen

    keep_freed_memory()  # on a CPU, a training step allocates what the previous one freed
    with _team(gpus, device, not no_download) as team:
        counts = {name: None if text is None else parse_count(text, f"--{name}", "64k or 64000")
                  for name, text in (("train-split", train_split), ("iterations", iterations))}  # fmt: skip
        zoo = Zoo()
        if settings and depth:
            hint = "to set parameters: `--model cifar_resnet depth=56`"
            raise UsageError(f"`{settings[0]}` cannot be used with `--depth`", hint)
        if settings and not model:
            raise UsageError(f"`{settings[0]}` is a parameter without a model", "select one with `--model`")
        if settings and len(model or []) > 1:
            example = f'`--model "{(model or [])[0]} {settings[0]}"`'
            raise UsageError(f"`{settings[0]}` is ambiguous with several models", f"say which one: {example}")
        models = [_one_model([*split_words(name), *(settings or [])], zoo) for name in model or []]
        models += [depth_model(each, zoo) for each in depth or []]
        options = TrainOptions(
            recipe=recipe, data=data, data_dir=data_dir, download=not no_download, iterations=counts["iterations"],
            batch_size=batch_size, seed=seed, device=device, dtype=dtype, channels_last=channels_last,
            compile=compile or None, cuda_graph=cuda_graph, deterministic=deterministic or None, threads=threads,
            train_split=counts["train-split"], bn_batch=bn_batch, checkpoint_every=checkpoint_every,
            eval_every=eval_every, team=team, tensorboard=tensorboard or None,
        )  # fmt: skip
        each = [replace(options, model=name, parameters=given) for name, given in models] or [options]
        screen = ProgressScreen()
        try:
            with _interruptible(resume):
                outcome = train(each, screen, out=_path(out), resume=_path(resume), seeds=seeds)
        finally:
            screen.end()
        _show(outcome, format, explain_columns=explain_columns)


@contextlib.contextmanager
def _team(gpus: int | None, device: str | None, download: bool) -> Iterator[Team | None]:
    """Context manager: the data-parallel processes this rank leads, or None for a single process.

    Exits in a process that starts others, and in ranks other than 0, when they are done.
    """
    from resnetcli.parallel.launch import drop_gpus_option, launch, own_command, read_rank, require_gpus

    rank = read_rank(os.environ)
    if gpus is not None:
        if rank is not None:
            raise UsageError("`--gpus` cannot be used under `torchrun`, which has started the processes", "omit it")
        require_gpus(gpus, device)
        if gpus > 1:
            raise typer.Exit(launch(own_command(drop_gpus_option(sys.argv[1:])), gpus, complain))
    if rank is None:
        yield None
        return
    from resnetcli.parallel.team import join_team

    with join_team(rank, download=download) as team:
        if rank.rank:
            raise typer.Exit(team.follow())
        yield team


@contextlib.contextmanager
def _interruptible(resume: str | None) -> Iterator[None]:
    """Context manager: a signal before the first step ends the command at once and reports how to continue."""
    from resnetcli.train.stop import Interrupted, interruptible

    try:
        with interruptible():
            yield
    except Interrupted as error:
        after = "before the first step: run the same command again (a download resumes)"
        if resume is not None:
            after = f"before the next step; to continue: `resnet-cli train-cifar --resume {typed(resume)}`"
        complain(f"stopped by {error.args[0]} {after}")
        raise typer.Exit(error.exit_code) from None


def _one_model(words: list[str], zoo: Zoo) -> tuple[str, dict[str, int]]:
    models = asked_models(words, zoo)
    if len(models) > 1 and models[0][0] not in words:
        raise UsageError(
            f"`{words[0]}` matches {len(models)} models", "name one, and repeat `--model` for each further"
        )
    if len(models) != 1:
        raise UsageError(
            f"`{models[1][0]}` is not a parameter of `{models[0][0]}`", "for another model, repeat `--model`"
        )
    return models[0]


def _path(text: str | None) -> Path | None:
    if text is not None and (not text or "\0" in text):
        raise UsageError("a directory needs a name, without null characters", "for example `runs/test`")
    return None if text is None else Path(text)


def _show(outcome: TrainOutcome, format: Format, *, explain_columns: bool) -> None:
    """Print the results; the exit code says whether the runs are complete."""
    from resnetcli.train.results import models_record, result_lines, results_sheet, seeds_sheet

    models = [model for model in outcome.models if model.results]
    summary = models[0].summary if models and not outcome.several else None

    def record() -> dict[str, Any]:
        if outcome.several:
            return models_record(outcome)
        return models[0].results[0] if summary is None else summary

    def sections() -> Iterator[Section]:
        if summary is not None:
            yield Section(seeds_sheet(models[0].results))
        if models:
            yield Section(results_sheet(models), after=result_lines(models))

    if models or (outcome.several and not format.has_tables):
        print_output(Output(record, sections, explain_columns=explain_columns), format)
    _draw(outcome)
    resume = f"`resnet-cli train-cifar --resume {typed(outcome.path)}`"
    if outcome.signal:
        complain(f"stopped by {signal.Signals(outcome.signal).name}; to continue: {resume}")
    unsaved = [(what, model.path) for model in outcome.models for what in model.unsaved]
    for what, path in unsaved:
        complain(f"error: {what} could not be written to `{path}`")
    if unsaved:
        complain(f"hint: free some space, then continue with {resume}")
    for what in outcome.failed:
        complain(f"error: not finished: {what}")
    if unsaved or outcome.failed:
        raise typer.Exit(3)
    if outcome.signal:
        raise typer.Exit(128 + outcome.signal)


def _draw(outcome: TrainOutcome) -> None:
    """Plot every run that is complete, and all of them together, in their directories."""
    from resnetcli.runs.curves_plot import PICTURE_FILE, draw_run

    paths: list[Path] = []
    for model in outcome.models:
        if model.summary is not None:
            paths += [model.path / f"seed{result['seed']}" for result in model.results]
        paths += [model.path] if model.results else []
    paths += [outcome.path] if outcome.several and paths else []
    try:
        for path in paths:
            draw_run(path)
    except (ResourceError, UsageError) as error:  # the runs are complete without it
        complain(f"warning: the curves were not plotted: {error.message}")
    else:
        if outcome.several and paths:
            complain(f"plotted: {outcome.path / PICTURE_FILE}")
