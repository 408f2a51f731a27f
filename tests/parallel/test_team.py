"""One process of several: its trainer, its share of an evaluation, and when rank 0 sends commands."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from resnetcli.data.dataset import make_dataset
from resnetcli.parallel.launch import REPEAT_S
from resnetcli.parallel.team import MAX_STRIDE, AgreedStop, Command, Leader, Team
from resnetcli.plan.lower import lower
from resnetcli.recipes.text import read_recipe
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from resnetcli.train.evaluate import share
from resnetcli.train.job import TrainJob
from resnetcli.train.loop import Trainer
from tests.support import tiny

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize("n", [1, 499, 500, 501, 1700, 10_000])
@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_the_shares_of_an_evaluation_are_the_whole_once_in_whole_batches(n: int, parts: int) -> None:
    whole = torch.arange(n)
    shares = [share(whole, index, parts) for index in range(parts)]
    assert torch.equal(torch.cat(shares), whole)
    assert all(int(share[0]) % 500 == 0 for share in shares if len(share))


def test_the_shares_of_an_evaluation_add_up_even_where_one_is_empty(tmp_path: Path) -> None:
    folder = tiny.files(tmp_path)
    data = make_dataset("custom", tiny.split(30, 1), tiny.split(20, 2), ("a", "b", "c", "d"))
    trainer = Trainer(lower(read(str(folder / "tiny.yaml"), zoo=Zoo())), read_recipe(str(folder / "recipe.yaml")), data)
    whole = trainer.evaluate()
    first, second = (trainer.evaluate("test", part=(index, 2)) for index in range(2))
    assert (first.n, second.n) == (0, 20)
    assert first.wrong + second.wrong == whole.wrong
    assert second.loss == whole.loss


def test_a_signal_counts_once_however_often_it_comes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [5.0]
    ended: list[int] = []
    stop = AgreedStop(lambda: now[0])
    with stop:
        signal.raise_signal(signal.SIGTERM)
        now[0] += REPEAT_S / 2
        signal.raise_signal(signal.SIGINT)
        assert (stop.local_signal, stop.signal) == (signal.SIGTERM, 0)  # not agreed on yet
        now[0] += REPEAT_S
        with monkeypatch.context() as patched:
            patched.setattr("signal.raise_signal", ended.append)
            os.kill(os.getpid(), signal.SIGINT)
            while not ended:
                time.sleep(0.01)
        assert ended == [signal.SIGINT]
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_each_process_has_the_gpu_of_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[tuple[str, int, int]] = []

    def built(job: TrainJob, rank: int, world: int) -> None:
        devices.append((job.config.device, rank, world))

    monkeypatch.setattr("resnetcli.parallel.team.find", lambda text: f"found {text}")
    monkeypatch.setattr("resnetcli.parallel.team.build_trainer", built)
    team = Team.__new__(Team)  # as if connected
    team.rank, team.world, team.local_rank = 11, 16, 3
    plan, recipe = lower(read("cifar_resnet20", zoo=Zoo())), read_recipe("resnet")
    data = make_dataset("custom", tiny.split(30, 1), tiny.split(20, 2), ("a", "b", "c", "d"))
    for device in ("cuda:0", "cpu"):
        team._build_own(TrainJob(tiny.config(device=device), plan, recipe, data))
    assert devices == [("found cuda:3", 11, 16), ("cpu", 11, 16)]


@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("at_signal", [None, 137])
def test_no_command_goes_beyond_the_next_action_of_the_session_nor_beyond_a_signal(
    device: str, at_signal: int | None
) -> None:
    """Over 250 steps, with actions at each 35th, 100th and 120th; a signal comes with the next command."""
    sent, arrived = list[int](), list[int]()

    class Crew:
        def __init__(self) -> None:
            self.stop = AgreedStop()

        def command(self, command: Command, number: int = 0) -> None:
            if command is Command.READ:
                assert sum(sent) == fake.iteration
                arrived.append(fake.iteration)
                return
            assert command is Command.STEP
            if at_signal is not None and fake.iteration >= at_signal:
                self.stop.signal = signal.SIGTERM
            sent.append(1 if self.stop.signal else number)

        @contextlib.contextmanager
        def collective(self) -> Iterator[None]:
            yield

    fake, crew = tiny.Fake(), Crew()
    fake.device = torch.device(device)
    config = tiny.config(iterations=250, eval_every=35, checkpoint_every=120)
    leader = Leader(crew, fake, config)  # type: ignore[arg-type]
    while fake.iteration < 250 and not crew.stop.signal:
        leader.step()
        at = fake.iteration
        if any(at % every == 0 for every in (35, 100, 120)) or sent[-1] == 1 or at == 250:
            assert sum(sent) == fake.iteration  # no other process runs a step that this one will not
    assert max(sent) == MAX_STRIDE[device]
    leader.read()
    assert arrived == [fake.iteration]  # all processes, before waiting for the GPU
    if at_signal is not None:
        assert at_signal < fake.iteration <= at_signal + MAX_STRIDE[device]
