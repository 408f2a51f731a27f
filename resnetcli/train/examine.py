"""A run's checkpoint on the test set: its error and loss, and each class's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from resnetcli.bench.device import find
from resnetcli.errors import UsageError
from resnetcli.net.memory import fitting
from resnetcli.runs import checkpoint
from resnetcli.runs.directory import Config, Record, Run
from resnetcli.train.evaluate import Evaluation
from resnetcli.train.session import require_same
from resnetcli.train.start import Asked, Say, engine, reopen

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset
    from resnetcli.train.loop import Trainer

EVAL = "resnet-cli/eval@1"


def examine(run: Run, asked: Asked, say: Say, *, iteration: int | None = None) -> Record:
    """`resnet-cli/eval@1` of the run's last checkpoint, or that of an iteration, on the whole test set.

    The weights' own device is used if it is here, else the CPU. Raises UsageError if there is no such checkpoint, it is
    damaged, or the data set is not the run's.
    """
    found = dict(checkpoint.files(run.path))
    if not found:
        raise UsageError(f"`{run.path}` has no checkpoint yet")
    if iteration is not None and iteration not in found:
        known = ", ".join(map(str, sorted(found)))
        raise UsageError(f"`{run.path}` has no checkpoint of iteration {iteration:,}", f"it has those of {known}")
    # How it was trained makes no difference to what it has learnt, and what a GPU can do not every machine can.
    plain = replace(run.config, dtype="fp32", compile=False, cuda_graph=False, device=asked.device or _device(run))
    prepared = reopen(replace(run, config=plain), replace(asked, device=plain.device), say, trains=False)
    trainer = engine(prepared)
    if iteration is None:
        kept = checkpoint.newest(run.path, trainer.state(), say)
    else:
        try:
            kept = checkpoint.load(found[iteration], trainer.state())
        except checkpoint.Damaged as reason:
            raise UsageError(f"`{found[iteration]}` is damaged: {reason}") from None
    require_same(kept.facts.get("config"), run.config, run.path)
    trainer.restore(kept.tensors, kept.iteration)
    with fitting("evaluation", trainer.device):
        classes = by_class(trainer, prepared.data)
    return eval_record(run, kept.iteration, prepared.data.class_names, classes, prepared.config)


def eval_record(run: Run, iteration: int, names: Sequence[str], classes: Sequence[Evaluation], here: Config) -> Record:
    """`resnet-cli/eval@1`; `here` is the run's configuration on this machine."""
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


def by_class(trainer: Trainer, data: Dataset) -> list[Evaluation]:
    """How the net does on the test images of each class; together they are the whole test set, once."""
    found = []
    for number in range(data.classes):
        (where,) = np.nonzero(data.test.labels == number)
        if not len(where):
            found.append(Evaluation(0, 0.0, 0))
            continue
        images, labels = torch.from_numpy(data.test.images[where]), torch.from_numpy(data.test.labels[where])
        found.append(trainer.measure(images, labels))
    return found


def _device(run: Run) -> str:
    try:
        return find(run.config.device)
    except UsageError:
        return "cpu"
