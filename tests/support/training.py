"""Run `train-cifar` on a tiny model; read and compare its weights."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.train.loop import Trainer
from tests.support import tiny
from tests.support.cli import run


def weights(run: Path) -> dict[str, bytes]:
    """The weights in a run's last checkpoint, as bytes for bit-exact comparison."""
    return {name: bytes(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
            for name, tensor in load_file(checkpoints(run)[0][1]).items()}  # fmt: skip


def skip_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not draw `curves.png`, which takes as long as the training."""
    monkeypatch.setattr("resnetcli.runs.curves_plot.draw_run", lambda path: path)


def stop_message(number: int, run: Path) -> str:
    return f"stopped by {signal.Signals(number).name}; to continue: `resnet-cli train-cifar --resume {run}`"


def stop_run(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int = 17, number: int = signal.SIGINT) -> None:
    """Start a run and stop it by a signal before a step."""
    step = Trainer.step

    def step_or_stop(self: Trainer) -> None:
        if self.iteration == at:
            os.kill(os.getpid(), number)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step_or_stop)
        result = run(tiny.words(folder))
    assert result.exit_code == 128 + number
    assert stop_message(number, folder / "run") in result.stderr
