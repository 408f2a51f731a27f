"""A session stopped by signals: the step is finished, a checkpoint is written, a resume continues."""

from __future__ import annotations

import itertools
import os
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from resnetcli.runs.metrics import read_metrics
from resnetcli.train.evaluate import Evaluation
from resnetcli.train.session import Session, SessionOutcome
from resnetcli.train.stop import Stop
from tests.support.sessions import Ticks, iterations, make, train
from tests.support.tiny import Ear, Fake, config


class Late(Stop):
    """Whose signal comes just before it is asked for the so manieth time."""

    def __init__(self, ask: int) -> None:
        self.left = ask
        super().__init__()

    @property
    def signal(self) -> int:
        self.left -= 1
        return signal.SIGTERM if self.left <= 0 else 0

    @signal.setter
    def signal(self, number: int) -> None:
        pass


def test_whenever_a_signal_comes_the_last_step_is_kept_and_read_once(tmp_path: Path) -> None:
    stopped_at = set()
    for ask in itertools.count(1):
        run, engine = make(tmp_path / str(ask), config(iterations=25)), Fake()
        outcome = Session(run, engine, Ear(), Ticks(engine), Late(ask)).train()
        read = [p.iteration for p in read_metrics(run.path)]
        last = [engine.iteration] if engine.iteration else []
        assert read == sorted(set(read))
        assert (read[-1:], iterations(run.path)[:1]) == (last, last)
        if not outcome.signal:
            break
        stopped_at.add(engine.iteration)
    assert stopped_at == set(range(26))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_leaves_a_checkpoint(tmp_path: Path, number: signal.Signals) -> None:
    run, engine = make(tmp_path / "run"), Fake()
    before = signal.getsignal(number)
    engine.before_step = lambda iteration: os.kill(os.getpid(), number) if iteration == 16 else None
    outcome = train(run, engine)
    assert outcome == SessionOutcome(None, signal=number)
    assert engine.iteration == 17
    assert iterations(run.path) == [17, 10]
    assert read_metrics(run.path)[-1].iteration == 17
    assert run.result is None
    assert signal.getsignal(number) is before


def test_a_signal_in_the_last_step_is_not_kept_waiting_for_a_test(tmp_path: Path) -> None:
    run, engine = make(tmp_path / "run"), Fake()
    engine.before_step = lambda iteration: os.kill(os.getpid(), signal.SIGTERM) if iteration == 39 else None
    assert train(run, engine) == SessionOutcome(None, signal=signal.SIGTERM)
    assert iterations(run.path)[0] == 40
    result = train(run, Fake()).result
    assert result is not None
    assert run.result == result


def test_after_a_first_signal_a_second_one_has_its_way() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is before


def test_in_another_thread_signals_are_left_alone(tmp_path: Path) -> None:
    found: list[SessionOutcome] = []
    thread = threading.Thread(target=lambda: found.append(train(make(tmp_path / "run"), Fake())))
    thread.start()
    thread.join()
    assert found[0].result is not None


def test_a_signal_ends_an_evaluation_at_once_and_a_resume_makes_up_for_it(tmp_path: Path) -> None:
    whole = make(tmp_path / "whole", config(validation_images=5))
    train(whole, Fake())
    for at, split in ((20, "test"), (20, "validation"), (40, "test"), (40, "train")):
        run, engine = make(tmp_path / f"{at}{split}", config(validation_images=5)), Fake()
        evaluate, left = engine.evaluate, list[str]()

        def stopped(
            which: str = "test",
            at: int = at,
            split: str = split,
            engine: Fake = engine,
            evaluate: Callable[[str], Evaluation] = evaluate,
            left: list[str] = left,
        ) -> Evaluation:
            if engine.iteration == at and which == split:
                os.kill(os.getpid(), signal.SIGHUP)
                left.append("it went on")
            return evaluate(which)

        engine.evaluate = stopped  # type: ignore[method-assign, assignment]
        assert train(run, engine) == SessionOutcome(None, signal=signal.SIGHUP)
        assert left == []
        assert iterations(run.path)[0] == at
        assert train(run, Fake()).result is not None
        assert [replace(p, wall_s=0, images_per_s=0) for p in read_metrics(run.path)] == [
            replace(p, wall_s=0, images_per_s=0) for p in read_metrics(whole.path)
        ]
        assert (run.path / "metrics.csv").read_text().count("\n") == 5


def test_a_signal_that_nohup_has_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop.signal == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_terminal_that_is_closed_sends_its_signal_twice_and_ends_nothing_early() -> None:
    with Stop() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
        assert stop.signal == signal.SIGHUP
