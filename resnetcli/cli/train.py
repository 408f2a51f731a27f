"""Commands that train nets on CIFAR, and look at what came of it."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import Format, Formats, app, complain, guarded, print_sheet
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    from resnetcli.spec.zoo import Zoo
    from resnetcli.train.distributed import Team
    from resnetcli.train.several import Ended

WHAT, HOW, WHERE = "What is trained", "How", "The run"
DataDir = Annotated[
    str | None,
    typer.Option("--data-dir", metavar="DIR", rich_help_panel=WHAT, help="Where the data set lies; the cache without."),
]
NoDownload = Annotated[bool, typer.Option("--no-download", rich_help_panel=WHAT, help="Fetch nothing that is missing.")]
Device = Annotated[
    str | None, typer.Option("--device", metavar="cpu|cuda[:N]", rich_help_panel=HOW, help="A GPU if there is one.")
]
Threads = Annotated[int | None, typer.Option("--threads", metavar="N", rich_help_panel=HOW, help="CPU threads.")]


@app.command("train-cifar")
@guarded
def train_cifar(
    settings: Annotated[
        list[str] | None, typer.Argument(metavar="[NAME=VALUE]...", help="Parameters of `--model`: depth=56.")
    ] = None,
    depth: Annotated[
        int | None, typer.Option("--depth", metavar="N", rich_help_panel=WHAT, help="The paper's ResNet-N, N = 6n+2.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", metavar="MODEL", rich_help_panel=WHAT, help="Any other net: a name or a YAML file.",
                     autocompletion=complete_model),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option("--recipe", metavar="NAME|FILE", rich_help_panel=WHAT,
                     help="resnet, preact, wrn, resnext, fast, or a YAML file; without it, that of the net's paper."),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", metavar="NAME", rich_help_panel=WHAT, help="cifar10, cifar100, custom, synthetic."),
    ] = None,
    data_dir: DataDir = None,
    no_download: NoDownload = False,
    train_split: Annotated[
        str | None,
        typer.Option("--train-split", metavar="N", rich_help_panel=WHAT,
                     help="Train on so many images, 45k, and keep the others for validation."),
    ] = None,
    iterations: Annotated[
        str | None, typer.Option("--iterations", metavar="N", rich_help_panel=HOW, help="Instead of the recipe's: 64k.")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option("--batch-size", metavar="N", rich_help_panel=HOW, help="Instead of the recipe's.")
    ] = None,
    bn_batch: Annotated[
        int | None, typer.Option("--bn-batch", metavar="N", rich_help_panel=HOW, help="Images BatchNorm is over.")
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", rich_help_panel=HOW, help="Everything random follows from it.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option("--seeds", metavar="K", rich_help_panel=HOW, help="K runs, seeds N to N+K-1.")
    ] = None,
    device: Device = None,
    gpus: Annotated[
        int | None, typer.Option("--gpus", metavar="N", rich_help_panel=HOW, help="N processes here, a GPU each.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="fp32|tf32|bf16", rich_help_panel=HOW, help="Of the arithmetic.")
    ] = None,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", rich_help_panel=HOW, help="A map's channels next to each other.")
    ] = False,
    compile: Annotated[bool, typer.Option("--compile", rich_help_panel=HOW, help="By torch.compile.")] = False,
    cuda_graph: Annotated[
        bool, typer.Option("--cuda-graph", rich_help_panel=HOW, help="A GPU's launches recorded and replayed.")
    ] = False,
    threads: Threads = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="DIR", rich_help_panel=WHERE, help="The run's directory, a new one.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="RUN", rich_help_panel=WHERE, help="Go on with a stopped run.")
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option("--checkpoint-every", metavar="N", rich_help_panel=WHERE, help="Iterations: 1000.")
    ] = None,
    eval_every: Annotated[
        int | None,
        typer.Option("--eval-every", metavar="N", rich_help_panel=WHERE,
                     help="Iterations between tests: 1000, or a tenth of a shorter run."),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", rich_help_panel=WHERE, help="Write TensorBoard's event files too.")
    ] = False,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """Train a net on CIFAR as its paper does; stopped at any time, it can be resumed exactly."""
    from resnetcli.report.limits import parse_count
    from resnetcli.spec.zoo import Zoo
    from resnetcli.train.several import train
    from resnetcli.train.start import Asked, depth_model
    from resnetcli.view.train import Screen

    with _team(gpus, device, not no_download) as team:
        counts = {name: None if text is None else parse_count(text, f"--{name}", "64k or 64000")
                  for name, text in (("train-split", train_split), ("iterations", iterations))}  # fmt: skip
        zoo = Zoo()
        if depth is not None and model is not None:
            raise UsageError("`--depth` is of the paper's ResNet, `--model` of any net", "one of the two")
        if depth is None and model is None and settings:
            raise UsageError(f"`{settings[0]}` is of no model", "name it with `--model`")
        name, given = (None, dict[str, int]()) if model is None else _one_model([model, *(settings or [])], zoo)
        if depth is not None:
            if settings:
                raise UsageError(f"`{settings[0]}` beside `--depth`", "for parameters: `--model cifar_resnet depth=56`")
            name, given = depth_model(depth, zoo)
        asked = Asked(
            name, given, recipe, data, data_dir, not no_download, counts["iterations"], batch_size, seed, device, dtype,
            channels_last or None, compile or None, cuda_graph or None, threads, counts["train-split"], bn_batch,
            checkpoint_every, eval_every, team, tensorboard or None,
        )  # fmt: skip
        screen = Screen()
        try:
            ended = train(asked, screen, out=_path(out), resume=_path(resume), seeds=seeds)
        finally:
            screen.end()
        _show(ended, format)


@contextlib.contextmanager
def _team(gpus: int | None, device: str | None, download: bool) -> Iterator[Team | None]:
    """Within: the processes that train together, led by this one; None if it is alone.

    A process that is led, or that starts others, has done all that it is there for.
    """
    from resnetcli.train.launch import again, launch, place_in, require_gpus, without_gpus

    place = place_in(os.environ)
    if gpus is not None:
        if place is not None:
            raise UsageError("`--gpus` starts processes, and `torchrun` has done so", "leave it out")
        require_gpus(gpus, device)
        if gpus > 1:
            raise typer.Exit(launch(again(without_gpus(sys.argv[1:])), gpus, complain))
    if place is None:
        yield None
        return
    from resnetcli.train.distributed import joined

    with joined(place, download=download) as team:
        if place.rank:
            raise typer.Exit(team.follow())
        yield team


def _one_model(words: list[str], zoo: Zoo) -> tuple[str, dict[str, int]]:
    found = asked_models(words, zoo)
    if len(found) != 1:
        raise UsageError(f"one net is trained at a time, not {len(found)}", "`name=value` words are its parameters")
    return found[0]


def _path(text: str | None) -> Path | None:
    if text is not None and (not text or "\0" in text):
        raise UsageError("that is no name for a directory")
    return None if text is None else Path(text)


def _show(ended: Ended, format: Format) -> None:
    """The results, and how it ended as the exit code."""
    from resnetcli.view.output import print_json
    from resnetcli.view.train import results_lines, results_sheet, seeds_sheet

    several = ended.summary
    if format is Format.json and (several is not None or ended.results):
        print_json(several if several is not None else ended.results[0])
    elif ended.results:
        if several is not None:
            print_sheet(seeds_sheet(ended.results), format)
        if several is None or format is not Format.csv:
            print_sheet(results_sheet(ended.results, several), format, after=results_lines(ended.results, ended.path))
    _draw(ended)
    if ended.stopped:
        number = signal.Signals(ended.stopped)
        complain(f"stopped by {number.name}; `resnet-cli train-cifar --resume {ended.path}` goes on")
    for what in ended.outcome.unsaved:
        complain(f"error: {what} could not be written to `{ended.path}`")
    if ended.outcome.unsaved:
        complain(f"hint: make room, then `resnet-cli train-cifar --resume {ended.path}` goes on from what is there")
    for what in ended.failed:
        complain(f"error: not finished: {what}")
    if ended.outcome.unsaved or ended.failed:
        raise typer.Exit(3)
    if ended.stopped:
        raise typer.Exit(128 + ended.stopped)


def _draw(ended: Ended) -> None:
    """The picture of every run that has finished, in its directory; without it a run is none the worse."""
    from resnetcli.train.run import seed_folder
    from resnetcli.view.curves import draw_run

    several = ended.summary is not None
    seeds = [seed_folder(ended.path, result["seed"]) for result in ended.results] if several else []
    try:
        for place in [*seeds, *([ended.path] if ended.results else [])]:
            draw_run(place)
    except (ResourceError, UsageError) as error:
        complain(f"warning: no picture of the curves: {error.message}")


@app.command("eval")
@guarded
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run's directory.")],
    checkpoint: Annotated[
        int | None, typer.Option("--checkpoint", metavar="N", help="Of iteration N, not the last one.")
    ] = None,
    data_dir: DataDir = None,
    no_download: NoDownload = False,
    device: Device = None,
    threads: Threads = None,
    format: Formats = Format.table,
) -> None:
    """Test a run's last checkpoint on the whole test set: its error, and each class's."""
    from resnetcli.train.examine import examine
    from resnetcli.train.run import open_run
    from resnetcli.train.start import Asked
    from resnetcli.view.output import print_json
    from resnetcli.view.train import eval_lines, eval_sheet

    asked = Asked(data_dir=data_dir, download=not no_download, device=device, threads=threads)
    record = examine(open_run(run), asked, complain, iteration=checkpoint)
    if format is Format.json:
        print_json(record)
    else:
        print_sheet(eval_sheet(record), format, after=eval_lines(record))
