from __future__ import annotations

import io
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from resnetcli.bench import interleaved_subprocesses as module
from resnetcli.bench.interleaved_subprocesses import ProcessRunner, attend, measure_interleaved_subprocesses, started
from resnetcli.bench.latency import Measurement, ModelRunner
from resnetcli.bench.options import RunOptions
from resnetcli.bench.prepare import prepare
from resnetcli.bench.sampling import Samples
from resnetcli.bench.search import FP32
from resnetcli.bench.worker import Job
from resnetcli.errors import ResourceError
from resnetcli.ops import Conv
from tests.support.measured import ENVIRONMENT, MEASURED
from tests.support.sketch import Sketch, residual_net


def job(settings: RunOptions = FP32, **others: Any) -> Job:
    return replace(Job(residual_net(), settings, "cpu", 2, 0.1), **others)


# --- the process's side ------------------------------------------------------------------------------------------


def test_a_process_answers_with_seconds_and_last_with_its_measurement() -> None:
    ticks = count()
    questions = iter([3, 1, (Samples((0.5, 0.6, 0.7), 1, True), ENVIRONMENT)])
    answers: list[Any] = []
    attend(job(), lambda: next(questions), answers.append, clock=lambda: next(ticks) / 64)
    ready, three, one, m = answers
    assert ready is True
    assert three == one == 1 / 64  # between two ticks
    assert isinstance(m, Measurement)
    assert (m.median_s, m.samples_s, m.batch, m.environment) == (0.6, (0.5, 0.6, 0.7), 2, ENVIRONMENT)
    assert m.throughput_img_s > 0


def test_a_call_that_does_not_count_comes_before_each_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = prepare

    def watched(*arguments: Any) -> Any:
        ready = real(*arguments)

        def waited(calls: int) -> float:
            made.append(calls)
            return ready.waited(calls)

        return replace(ready, waited=waited)

    monkeypatch.setattr(module, "prepare", watched)
    monkeypatch.setattr(ModelRunner, "warm_up", lambda runner: None)
    questions = iter([7, 5])
    with pytest.raises(StopIteration):  # there is nobody who asks for more
        attend(job(), lambda: next(questions), lambda answer: None)
    assert made == [1, 7, 1, 5]


# --- the other side ----------------------------------------------------------------------------------------------


class World:
    """A clock that only calls move on, and processes that take a time of their own for one."""

    def __init__(self, *calls: float | str, dies: float = 0.0) -> None:
        self.now, self.calls, self.log, self.dies = 0.0, iter(calls), [], dies

    log: list[tuple[float, object]]

    def clock(self) -> float:
        return self.now

    @contextmanager
    def start(self) -> Iterator[ProcessRunner]:
        call_s = next(self.calls)
        world = self

        class Fake(ProcessRunner):
            def ask(self, question: object, timeout_s: float = 0.0) -> Any:
                if isinstance(call_s, str):
                    raise ResourceError(call_s)
                if isinstance(question, Job):
                    return True
                world.log.append((call_s, question))
                if call_s == world.dies and len(world.log) > 20:
                    raise ResourceError("its process ended with SIGSEGV")
                if isinstance(question, int):
                    world.now += question * call_s
                    return question * call_s
                assert isinstance(question, tuple)
                samples, ledger = question
                return replace(MEASURED, median_s=samples.seconds[0], samples_s=samples.seconds, environment=ledger)

        yield Fake(None, None, io.BytesIO(), own_s=100.0)  # type: ignore[arg-type]


def test_processes_take_turns_and_are_paired_by_round() -> None:
    world = World(0.01, 0.02, 0.04, 0.02)  # the base once more, at last
    told: list[float] = []
    jobs = [job(time_budget_s=3.0) for _ in range(3)]
    found = measure_interleaved_subprocesses(jobs, base=1, clock=world.clock, progress=told.append, start=world.start)
    assert [m.median_s for m in found.measured if isinstance(m, Measurement)] == [0.01, 0.02, 0.04]
    assert found.ratios[1] is None
    assert found.ratios[0] is not None
    assert found.ratios[2] is not None
    assert (found.ratios[0].ratio, found.ratios[2].ratio) == pytest.approx((0.5, 2.0))
    assert found.floor == pytest.approx(0)
    assert found.precise
    asked = [call_s for call_s, question in world.log if isinstance(question, int)][4:]  # after one each to learn from
    rounds = [sorted(asked[start : start + 4]) for start in range(0, len(asked), 4)]
    assert rounds == [[0.01, 0.02, 0.02, 0.04]] * found.rounds
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_the_processes_time_is_our_own_and_not_another_program_s() -> None:
    world = World(0.01)
    (m,) = measure_interleaved_subprocesses([job()], clock=world.clock, start=world.start).measured
    assert isinstance(m, Measurement)
    assert m.environment.before.own_s > 100


def test_a_model_that_cannot_be_prepared_is_left_out() -> None:
    world = World(0.01, "out of memory", 0.03, "out of memory")
    found = measure_interleaved_subprocesses([job()] * 3, clock=world.clock, start=world.start)
    first, lost, last = found.measured
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    assert isinstance(lost, ResourceError)
    assert lost.message == "out of memory"
    assert [ratio is None for ratio in found.ratios] == [True, True, False]
    none = measure_interleaved_subprocesses([job()] * 2, clock=world.clock, start=World("no", "no").start)
    assert none.rounds == 0
    assert all(isinstance(outcome, ResourceError) for outcome in none.measured)


@pytest.mark.parametrize(("dies", "compared"), [(0.03, True), (0.01, False)])
def test_a_model_that_dies_while_it_is_timed_does_not_end_the_others(dies: float, compared: bool) -> None:
    world = World(0.01, 0.02, 0.03, 0.01, dies=dies)  # the base, which comes first, once more at last
    found = measure_interleaved_subprocesses([job()] * 3, clock=world.clock, start=world.start)
    problems = [m.message if isinstance(m, ResourceError) else "" for m in found.measured]
    dead = "its process ended with SIGSEGV"
    assert problems == (["", "", dead] if compared else [dead, "", ""])
    assert [ratio is not None for ratio in found.ratios] == [False, compared, False]
    assert (found.floor is not None) == compared
    assert found.rounds > 0


# --- both --------------------------------------------------------------------------------------------------------


def test_a_process_that_is_started_answers_and_is_ended() -> None:
    with started() as runner, pytest.raises(ResourceError, match="fp16 on a CPU is slower"):
        runner.ask(job(RunOptions(dtype="fp16")))
    assert runner.process.returncode is not None


@pytest.mark.parametrize(("how", "says"), [(signal.SIGKILL, "killed by the system"), (signal.SIGSEGV, "SIGSEGV")])
def test_a_process_that_dies_is_reported_in_a_line(how: signal.Signals, says: str) -> None:
    with started() as runner:
        os.kill(runner.process.pid, how)
        runner.process.wait(10)
        with pytest.raises(ResourceError, match=says):
            runner.ask(job())


def test_one_that_does_not_answer_is_not_waited_for() -> None:
    with started() as runner, pytest.raises(ResourceError, match="not done after 0 s"):
        runner.ask(job(), timeout_s=0.0)


@pytest.mark.slow
def test_models_are_timed_interleaved_by_processes_of_their_own() -> None:
    s = Sketch(3, 32, 32)
    s.step("conv1", Conv(64, (3, 3), pad=(1, 1)))
    s.step("conv2", Conv(64, (3, 3), pad=(1, 1)))
    alone = RunOptions(threads=1)
    found = measure_interleaved_subprocesses([job(alone), job(RunOptions(fold_bn=True, threads=1), plan=s.plan())])
    quick, slow = found.measured
    assert isinstance(quick, Measurement)
    assert isinstance(slow, Measurement)
    assert (quick.settings, slow.settings) == ("fp32", "fp32 fold-bn")
    assert found.ratios[1] is not None
    assert found.ratios[1].ratio > 1.5
    assert found.floor is not None
    assert torch.is_grad_enabled()
