"""`train-cifar` stopped by a signal, killed, or out of memory."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetcli.data.dataset import Dataset
from resnetcli.plan.memory import memory
from resnetcli.reports.profile import load
from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.runs.metrics import read_metrics
from resnetcli.train import job
from resnetcli.train.loop import Trainer
from tests.support import tiny
from tests.support.cli import run
from tests.support.thin import thinned
from tests.support.training import skip_plots, weights

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    skip_plots(monkeypatch)
    return tiny.files(tmp_path)


DIVERGING = tiny.RECIPE.replace("lr: 0.05", "lr: 1000").replace("at_most: 15", "at_most: 12") + "weight_decay: 1\n"


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(DIVERGING)
    result = run([*tiny.words(folder), "--checkpoint-every", "10"])
    assert result.exit_code == 3
    assert "is not finite" in result.stderr
    assert "Traceback" not in result.output
    assert [n for n, _ in checkpoints(folder / "run")] == [10]
    assert not (folder / "run" / "result.json").exists()
    again = run("train-cifar --resume run")
    assert again.exit_code == 3
    assert "resuming at iteration 10/40" in again.stderr


def test_a_batch_that_does_not_fit_is_answered_with_one_that_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trainer) -> None:
        from resnetcli.net.memory import fitting

        with fitting("`tiny` in training", torch.device("cpu"), "use a smaller batch"):
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", full)
        patched.setattr("resnetcli.train.group.device_memory", lambda device: 100_000)
        result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert "does not fit into the memory of `cpu` (failed to allocate 20.00 GiB)" in result.stderr
    room = 90_000 - (30 + 20) * 3 * 8 * 8  # a tenth is not the tensors'; the images are there already
    need = memory(load(str(folder / "tiny.yaml"), classes=4), "train", place="cpu")
    most = max(batch for batch in range(1, 9) if need.bytes(batch) <= room)
    assert 1 < most < 8
    assert f"hint: `--batch-size {most}` would fit (derived)" in result.stderr
    assert not (folder / "run").exists()  # so that the next try has its name


def test_a_machine_that_is_too_small_is_reported_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetcli.train.build.physical_memory", lambda: 50_000)
    result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert "error: a step with a batch of 8 needs" in result.stderr
    assert not (folder / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_data_is_read_ends_the_command_with_nothing_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def stopped(*args: Any, **how: Any) -> Dataset:
        os.kill(os.getpid(), number)
        time.sleep(60)
        raise AssertionError("it went on")

    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(job, "read_dataset", stopped)
        result = run(tiny.words(folder))
        assert (result.exit_code, result.stderr) == (
            128 + number,
            f"stopped by {signal.Signals(number).name} before the first step: run the same command again "
            "(a download resumes)\n",
        )
        assert not (folder / "run").exists()
    assert signal.getsignal(number) is before
    assert run([*tiny.words(folder), "--iterations", "2"]).exit_code == 0
    (folder / "run" / "result.json").unlink()
    monkeypatch.setattr(job, "read_dataset", stopped)
    again = run("train-cifar --resume run")
    assert again.exit_code == 128 + number
    assert "to continue: `resnet-cli train-cifar --resume run`" in again.stderr


@pytest.mark.parametrize("number", thinned([signal.SIGTERM, signal.SIGINT, signal.SIGHUP], 3))
@pytest.mark.parametrize("split", ["test", "train"])
def test_a_signal_during_an_evaluation_ends_it_at_once_and_the_run_continues_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, split: str
) -> None:
    evaluate = Trainer.evaluate

    def stopped(self: Trainer, which: str = "test", part: tuple[int, int] = (0, 1)) -> Any:
        if which == split and self.iteration >= 20:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return evaluate(self, which, part)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "evaluate", stopped)
        result = run(tiny.words(folder))
    assert result.exit_code == 128 + number, result.output
    assert (
        f"stopped by {signal.Signals(number).name}; to continue: `resnet-cli train-cifar --resume {folder / 'run'}`"
        in (result.stderr)
    )
    assert run("train-cifar --resume run").exit_code == 0
    assert run(tiny.words(folder, "whole")).exit_code == 0
    assert weights(folder / "run") == weights(folder / "whole")
    assert [(p.iteration, p.test_loss) for p in read_metrics(folder / "run")] == [
        (p.iteration, p.test_loss) for p in read_metrics(folder / "whole")
    ]


# --- killed --------------------------------------------------------------------------------------------------------


def killed_and_resumed(folder: Path, kills: int, iterations: int) -> None:
    """A run that is killed at random moments and resumed each time; its end is held to an uninterrupted one's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resnetcli.train.group", "resnetcli.cli.main", "tests.support.tiny"])
    options = ["--iterations", str(iterations), "--checkpoint-every", "7"]

    def start(words: list[str]) -> BaseProcess:
        process = context.Process(target=tiny.command, args=(words, folder))
        process.start()
        return process

    whole = start([*tiny.words(folder, "whole"), *options])
    whole.join(300)
    said = (folder / "said.txt").read_text()
    assert whole.exitcode == 0, said
    took: float = json.loads((folder / "whole" / "result.json").read_text())["wall_s"]

    dice, done, tries = random.Random(2015), 0, 0
    words = [*tiny.words(folder), *options]
    while done < kills:
        tries += 1
        assert tries < 5 * kills, "it ends before it can be killed"
        process = start(words)
        began = time.monotonic()
        while not (folder / "run" / "config.json").exists() and process.is_alive() and time.monotonic() < began + 60:
            time.sleep(0.001)
        process.join(dice.uniform(0, took / kills))  # on average, half of the run
        if process.is_alive():
            process.kill()
            process.join()
            done += process.exitcode == -signal.SIGKILL
        assert not (folder / "run" / "result.json").exists(), "it ended before it was killed often enough"
        words = ["train-cifar", "--resume", "run"]
    last = start(words)
    last.join(300)
    assert last.exitcode == 0, (folder / "said.txt").read_text()
    assert weights(folder / "run") == weights(folder / "whole")
    assert [_lasting(p) for p in read_metrics(folder / "run")] == [_lasting(p) for p in read_metrics(folder / "whole")]


def _lasting(point: Any) -> tuple[Any, ...]:
    """What of a reading does not depend on how quick the machine was."""
    return point.iteration, point.lr, point.train_loss, point.train_error_percent, point.test_loss


@pytest.mark.slow
def test_a_run_killed_at_ten_random_moments_ends_with_the_same_weights_to_the_bit(folder: Path) -> None:
    killed_and_resumed(folder, kills=10, iterations=1500)
