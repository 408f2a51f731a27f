"""A session: what is done when, and what is left on the disk whatever happens."""

from __future__ import annotations

import errno
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetcli.errors import ResourceError, UsageError
from resnetcli.runs import checkpoint
from resnetcli.runs.checkpoint import files, load_checkpoint
from resnetcli.runs.directory import open_run
from resnetcli.runs.lock import lock_directory
from resnetcli.runs.metrics import READ_EVERY, Metrics, read_metrics
from resnetcli.train.evaluate import Evaluation
from resnetcli.train.session import Session, SessionOutcome
from tests.support.sessions import Ticks, iterations, make, train
from tests.support.tiny import CONFIG, Ear, Fake, config


def test_readings_tests_and_checkpoints_are_made_when_they_are_due(tmp_path: Path) -> None:
    run, ear = make(tmp_path / "run", config(iterations=45)), Ear()
    outcome = train(run, Fake(), ear)
    points = read_metrics(run.path)
    assert points == ear.points
    assert [(p.iteration, p.test_error_percent) for p in points] == [
        (10, None), (20, 30.0), (30, None), (40, 30.0), (45, 30.0)
    ]  # fmt: skip
    assert [p.epoch for p in points] == [2.0, 4.0, 6.0, 8.0, 9.0]  # 4 of 20 images a step
    assert {p.images_per_s for p in points} == {round(4 / 1.5, 2)}
    assert [p.wall_s for p in points] == [15.0, 30.0, 45.0, 60.0, 67.5]
    untimed = (3 * 10 + 20) * 1.5 / 4 / 3  # before the first test: a forward pass is a third of a step
    assert ear.left == [35 * 1.5 + untimed, 25 * 1.5, 15 * 1.5, 5 * 1.5, 0.0]
    assert iterations(run.path) == [45, 40]
    assert outcome == SessionOutcome(open_run(run.path).result)


def test_the_result_is_of_the_last_iteration(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    engine = Fake()
    errors = {20: 1, 40: 7}
    evaluate = engine.evaluate
    engine.evaluate = lambda split="test": (  # type: ignore[method-assign]
        replace(evaluate(split), wrong=errors[engine.iteration]) if split == "test" else evaluate(split)
    )
    result = train(run, engine).result
    assert result is not None
    assert result["final_test_error_percent"] == 70.0  # not the 10% it had been at
    assert result["final_train_error_percent"] == 10.0
    assert result["schema"] == "resnet-cli/train@2"
    assert result["images_per_s"] == round(40 * 4 / 60, 2)
    assert result["wall_s"] == 60.0
    assert result["deviations"] == list(CONFIG.deviations)


def test_validation_images_are_used_where_there_are_any(tmp_path: Path) -> None:
    run = make(tmp_path / "run", config(validation_images=5))
    train(run, Fake())
    assert [p.validation_error_percent for p in read_metrics(run.path)] == [None, 20.0, None, 20.0]


def test_it_is_read_at_least_every_so_often(tmp_path: Path) -> None:
    run = make(tmp_path / "run", config(iterations=250, checkpoint_every=1000, eval_every=1000))
    train(run, Fake())
    assert [p.iteration for p in read_metrics(run.path)] == [READ_EVERY, 2 * READ_EVERY, 250]


def test_an_estimate_is_reported_once_a_few_steps_were_timed(tmp_path: Path) -> None:
    ear = Ear()
    train(make(tmp_path / "run"), Fake(), ear)
    assert ear.estimates == [
        (1.5, 35, 35 * 1.5 + (2 * 10 + 20) * 1.5 / 4 / 3)
    ]  # three steps to warm up, two that take three seconds


def test_testing_is_not_taken_for_a_step_but_is_in_what_is_left(tmp_path: Path) -> None:
    run, ear, engine = make(tmp_path / "run", config(iterations=8, eval_every=4)), Ear(), Fake()
    ticks, tested = Ticks(engine), 0.0
    evaluate = engine.evaluate

    def slow(split: str = "test") -> Evaluation:
        nonlocal tested
        tested += 20.0  # 2 s for each of 10 images
        return evaluate(split)

    engine.evaluate = slow  # type: ignore[method-assign]
    Session(run, engine, ear, lambda: ticks() + tested).train()
    # Ten test images and, at the end, 20 training images are to come, two seconds each.
    assert ear.estimates == [(1.5, 3, 3 * 1.5 + 30 * 2)]  # the test after the fourth step fell among those timed
    assert ear.left == [4 * 1.5 + 30 * 2, 20 * 2]


def test_what_was_read_is_on_the_disk_before_the_checkpoint_that_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(Path(f"/proc/self/fd/{handle}").readlink().name)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    train(make(tmp_path / "run", config(iterations=10)), Fake())
    at = next(number for number, name in enumerate(synced) if name.startswith(".checkpoint-00000010.safetensors."))
    assert synced[at - 2 : at] == ["metrics.jsonl", "metrics.csv"]


def test_a_stopped_run_continues_where_it_was(tmp_path: Path) -> None:
    whole, cut = make(tmp_path / "whole"), make(tmp_path / "cut")
    train(whole, Fake())
    engine = Fake()
    engine.before_step = lambda iteration: os.kill(os.getpid(), signal.SIGTERM) if iteration == 16 else None
    train(cut, engine)
    ear, again = Ear(), Fake()
    outcome = train(cut, again, ear)
    assert ear.lines == ["resuming at iteration 17/40"]
    assert outcome.result is not None
    assert outcome.result["wall_s"] == 60.0  # both sessions'
    assert outcome.result["images_per_s"] == round(40 * 4 / 60, 2)
    assert [p.iteration for p in read_metrics(cut.path)] == [10, 17, 20, 30, 40]
    assert torch.equal(again.weight, load_checkpoint(files(whole.path)[0][1], again.state()).tensors["weight"])


def test_readings_after_the_last_checkpoint_are_not_doubled(tmp_path: Path) -> None:
    run = make(tmp_path / "run", config(checkpoint_every=20, eval_every=10))
    engine = Fake()

    def killed(iteration: int) -> None:
        if iteration == 33:
            raise KeyboardInterrupt

    engine.before_step = killed
    with pytest.raises(KeyboardInterrupt):
        train(run, engine)
    assert [p.iteration for p in read_metrics(run.path)] == [10, 20, 30]
    train(run, Fake())
    assert [p.iteration for p in read_metrics(run.path)] == [10, 20, 30, 40]


def test_a_run_that_ended_before_its_result_was_written_is_finished(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    first = train(run, Fake()).result
    assert first is not None
    (run.path / "result.json").unlink()
    engine = Fake()
    engine.before_step = lambda iteration: pytest.fail("there was nothing left to train")
    second = train(run, engine).result
    assert second is not None
    assert second["final_test_error_percent"] == first["final_test_error_percent"]
    assert run.result == second


def test_a_loss_that_is_not_finite_leaves_the_checkpoint_before_it(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    with pytest.raises(ResourceError, match="the loss of iteration 24 is not finite"):
        train(run, Fake(bad=23))
    assert iterations(run.path) == [20, 10]
    assert load_checkpoint(files(run.path)[0][1], Fake().state()).tensors["weight"][0, 0] == sum(range(20))
    assert [p.iteration for p in read_metrics(run.path)] == [10, 20]


def test_a_full_disk_does_not_end_training_but_is_reported_at_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, engine, ear = make(tmp_path / "run"), Fake(), Ear()
    fsync, full = os.fsync, False

    def refuse(handle: int) -> None:
        if full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(handle)

    def fills(iteration: int) -> None:
        nonlocal full
        full = iteration >= 15

    engine.before_step = fills
    monkeypatch.setattr(os, "fsync", refuse)
    outcome = train(run, engine, ear)
    assert engine.iteration == 40
    assert outcome.unsaved == ("a checkpoint", "the result")
    assert outcome.result is not None  # there is one to print
    assert iterations(run.path) == [10]
    assert [line for line in ear.lines if "warning: a checkpoint" in line] == [
        "warning: a checkpoint could not be written: No space left on device; training continues"
    ]
    assert "warning: the result could not be written: the run is not complete without a checkpoint" in ear.lines
    assert load_checkpoint(files(run.path)[0][1], engine.state()).iteration == 10


def test_a_disk_with_room_again_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, engine, ear = make(tmp_path / "run"), Fake(), Ear()
    write = Metrics.write
    refused = set()

    def sometimes(self: Metrics) -> None:
        if engine.iteration in (10, 20):
            refused.add(engine.iteration)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self)

    monkeypatch.setattr(Metrics, "write", sometimes)
    outcome = train(run, engine, ear)
    assert refused == {10, 20}
    assert outcome.unsaved == ()
    assert len(ear.lines) == 1
    assert [p.iteration for p in read_metrics(run.path)] == [10, 20, 30, 40]


def test_checkpoints_of_another_configuration_are_refused_with_the_differences(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    train(run, Fake())
    changed = replace(run, config=config(seed=3, batch_size=8))
    with pytest.raises(UsageError, match="batch_size 4 -> 8; seed 0 -> 3"):
        train(changed, Fake())


def test_what_a_checkpoint_says_in_endless_brackets_is_no_configuration(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    facts = {"config": {"seed": json.loads("[" * 700 + "]" * 700)}}
    checkpoint.save(run.path, 10, Fake().state(), facts)
    with pytest.raises(UsageError, match="have another configuration: spec unset -> ab"):
        train(run, Fake())


def test_a_damaged_checkpoint_costs_no_more_than_the_way_from_the_one_before(tmp_path: Path) -> None:
    run, ear = make(tmp_path / "run"), Ear()
    train(run, Fake())
    want = load_checkpoint(files(run.path)[0][1], Fake().state()).tensors["weight"]
    files(run.path)[0][1].write_bytes(b"damaged")
    (run.path / "result.json").unlink()
    again = Fake()
    assert train(run, again, ear).result is not None
    assert "warning" in ear.lines[0]
    assert ear.lines[1] == "resuming at iteration 30/40"
    assert torch.equal(again.weight, want)
    assert [p.iteration for p in read_metrics(run.path)] == [10, 20, 30, 40]


def test_a_checkpoint_holds_what_a_resume_is_checked_against(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    train(run, Fake())
    facts = checkpoint.load_checkpoint(files(run.path)[0][1], Fake().state()).facts
    assert facts["config"] == CONFIG.bound
    assert (facts["wall_s"], facts["train_s"]) == (60.0, 60.0)


def test_a_last_checkpoint_that_could_not_be_written_at_once_is_written_before_the_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for at in (30, 40):  # the one before the last is made up for by the last
        run, engine, refused = make(tmp_path / str(at)), Fake(), list[int]()
        save = checkpoint.save

        def once(folder: Path, iteration: int, *rest: Any, at: int = at, refused: list[int] = refused) -> Path:
            if iteration == at and not refused:
                refused.append(at)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return save(folder, iteration, *rest)  # noqa: B023 - called before the next one is made

        with monkeypatch.context() as patched:
            patched.setattr(checkpoint, "save", once)
            outcome = train(run, engine)
        assert refused == [at]
        assert outcome.unsaved == ()
        assert iterations(run.path)[0] == 40
        assert run.result is not None


def test_a_run_is_not_called_complete_while_a_reading_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, engine, write = make(tmp_path / "run"), Fake(), Metrics.write

    def refuse(self: Metrics) -> None:
        if engine.iteration == 40:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(self)

    with monkeypatch.context() as patched:
        patched.setattr(Metrics, "write", refuse)
        assert train(run, engine).unsaved == ("readings", "the result")
    assert run.result is None
    assert train(run, Fake()).result is not None
    assert run.result is not None


def test_what_is_left_of_killed_processes_is_removed_at_a_resume_and_nothing_else(tmp_path: Path) -> None:
    run = make(tmp_path / "run")
    train(run, Fake())
    (run.path / "result.json").unlink()
    names = {each.name for each in run.path.iterdir()} | {".lock"}
    (run.path / "checkpoint-00000020.safetensors").write_bytes(b"old")  # an older one than the last two
    for name in (".checkpoint-00000040.safetensors.part", ".result.json.123.part", ".metrics.jsonl.part"):
        (run.path / name).touch()
    for name in ("mine.part", ".mine.part", "notes"):
        (run.path / name).touch()
    with lock_directory(run.path):
        train(run, Fake())
    assert {each.name for each in run.path.iterdir()} >= {"mine.part", ".mine.part", "notes", "result.json"}
    assert {each.name for each in run.path.iterdir()} <= names | {"mine.part", ".mine.part", "notes", "result.json"}
