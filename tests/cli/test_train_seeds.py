"""`train-cifar --seeds`."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from resnetcli.errors import ResourceError
from resnetcli.runs.lock import lock_directory
from resnetcli.train.loop import Trainer
from tests.support import tiny
from tests.support.cli import run
from tests.support.training import skip_plots, weights

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    skip_plots(monkeypatch)
    return tiny.files(tmp_path)


def test_a_seed_that_diverges_does_not_keep_the_others_from_their_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def diverges(self: Trainer) -> None:
        if self.seed == 0 and self.iteration == 20:
            raise ResourceError("the loss of iteration 21 is not finite")
        step(self)

    monkeypatch.setattr(Trainer, "step", diverges)
    result = run([*tiny.words(folder, "all"), "--seeds", "2", "--format", "json"])
    assert result.exit_code == 3
    assert result.stderr.endswith("error: not finished: seed 0: the loss of iteration 21 is not finite\n")
    record = json.loads(result.stdout)
    assert (record["seeds"], record["finished"]) == ([0, 1], [1])
    assert record["final_test_error_percent"]["std"] is None


def test_several_seeds_come_to_a_mean_and_a_deviation(folder: Path) -> None:
    result = run([*tiny.words(folder, "all"), "--seeds", "3", "--seed", "5", "--format", "json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((folder / "all" / "summary.json").read_text())
    errors = [json.loads((folder / "all" / f"seed{seed}" / "result.json").read_text())["final_test_error_percent"]
              for seed in (5, 6, 7)]  # fmt: skip
    mean = sum(errors) / 3
    found = record["final_test_error_percent"]
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx((sum((error - mean) ** 2 for error in errors) / 2) ** 0.5)
    assert (found["best"], found["worst"]) == (min(errors), max(errors))
    assert record["finished"] == [5, 6, 7]
    assert len({tuple(weights(folder / "all" / f"seed{seed}").values()) for seed in (5, 6, 7)}) == 3
    table = run("train-cifar --resume all")
    assert table.exit_code == 0
    assert table.stderr.count("has finished") == 3
    assert " seed   test error %" in table.stdout


def test_several_seeds_go_on_where_they_were_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, begun = Trainer.step, []

    def interrupted(self: Trainer) -> None:
        if self.seed == 1 and self.iteration == 20:
            begun.append(self.seed)
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        assert run([*tiny.words(folder, "all"), "--seeds", "3"]).exit_code == 143
    assert begun == [1]
    assert not list((folder / "all" / "seed2").glob("checkpoint-*"))
    other = run("train-cifar --resume all --seeds 4")
    assert (other.exit_code, other.stderr.splitlines()[0]) == (2, "error: `all` has the seeds 0 to 2")
    with lock_directory(folder / "all"):
        third = run("train-cifar --resume all")
    assert (third.exit_code, third.stderr.splitlines()[0]) == (2, "error: another process is training in `all`")
    assert run("train-cifar --resume all").exit_code == 0
    assert json.loads((folder / "all" / "summary.json").read_text())["finished"] == [0, 1, 2]
    assert run([*tiny.words(folder, "alone"), "--seed", "1"]).exit_code == 0
    assert weights(folder / "all" / "seed1") == weights(folder / "alone")
    assert run([*tiny.words(folder, "last"), "--seed", "2"]).exit_code == 0
    assert weights(folder / "all" / "seed2") == weights(folder / "last")


def test_a_seed_that_was_killed_before_its_first_step_is_trained_at_a_resume(folder: Path) -> None:
    assert run([*tiny.words(folder, "all"), "--seeds", "2"]).exit_code == 0
    seed = folder / "all" / "seed1"
    before = weights(seed)
    for file in seed.iterdir():
        if not file.name.endswith((".yaml", ".lock", "config.json")):
            file.unlink()
    (seed / ".metrics.jsonl.part").touch()
    result = run("train-cifar --resume all")
    assert result.exit_code == 0, result.output
    assert weights(seed) == before
    (seed / "config.json").unlink()  # of a run that has checkpoints nothing is removed
    again = run("train-cifar --resume all")
    assert (again.exit_code, again.stderr.splitlines()[-2]) == (
        2, f"error: `{Path('all') / 'seed1'}` is not a run: it has no config.json"
    )  # fmt: skip
    assert weights(seed) == before
