"""Nets timed in turns, each under its own settings and so in a process of its own, which waits while others run."""

from __future__ import annotations

import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.environment import Ledger, Reading, own_seconds
from resnetcli.bench.interleaved import Together
from resnetcli.bench.latency import Measurement, afterwards, look_around, measurement
from resnetcli.bench.prepare import on_device, prepare, wanted
from resnetcli.bench.sampling import Clock, Samples, Tell, precise, tell_nobody, warm_up
from resnetcli.bench.settings import applied, require_possible
from resnetcli.bench.statistics import median
from resnetcli.bench.versus import noise_floor, paired, take_turns
from resnetcli.bench.worker import PATIENCE_S, Job, how_it_ended, in_a_line, spawned
from resnetcli.errors import ResourceError, release_frames
from resnetcli.net.memory import fitting


@dataclass(slots=True)
class Runner:
    """A process with one net, that answers one question at a time."""

    process: subprocess.Popen[bytes]
    line: Connection
    errors: IO[bytes]
    own_s: float = 0.0
    """Processor seconds that it had used when it last answered."""

    def ask(self, question: object, patience_s: float = PATIENCE_S) -> Any:
        """Its answer. Raises ResourceError for what it reports as wrong, if it has died, and if it does not answer."""
        try:
            self.line.send(question)
            if not self.line.poll(patience_s):
                raise ResourceError(f"not done after {patience_s:.0f} s")
            answer, self.own_s = self.line.recv()
        except (EOFError, ConnectionError):
            self.process.wait(10)
            self.errors.seek(0)
            raise ResourceError(how_it_ended(self.process.returncode, self.errors.read())) from None
        if isinstance(answer, str):
            raise ResourceError(answer)
        return answer

    def seconds(self, calls: int) -> float:
        """What so many calls take, as a `Timer`."""
        return float(self.ask(calls))


Start = Callable[[], AbstractContextManager[Runner]]


@contextmanager
def started() -> Iterator[Runner]:
    """A process that waits for its job; it is ended on leaving."""
    ours, theirs = Pipe()
    handle, nothing = theirs.fileno(), subprocess.DEVNULL
    code = f"from resnetcli.bench.interleaved_subprocesses import main; main({handle})"
    with (
        ours, theirs, tempfile.TemporaryFile() as errors,
        spawned(code, handles=[handle], stdin=nothing, stdout=errors, stderr=errors) as process,
    ):  # fmt: skip
        theirs.close()  # so that we are told when the process has closed its own
        yield Runner(process, ours, errors)


def measure_apart(
    jobs: Sequence[Job],
    *,
    base: int = 0,
    clock: Clock = time.perf_counter,
    tell: Tell = tell_nobody,
    start: Start = started,
) -> Together:
    """The jobs' nets, one process each, timed in turns as `measure_together` does; all on one device at one batch.

    Before each sample a call that does not count brings a net's values back into the caches. Raises ResourceError
    where a process dies while they take turns; one that fails before that is left out.
    """
    failed: dict[int, ResourceError] = {}
    runners: dict[int, Runner] = {}
    budget_s = jobs[0].time_budget_s
    with ExitStack() as stack:
        for number, job in enumerate(jobs):
            runner = stack.enter_context(start())
            try:
                runner.ask(job)
                runners[number] = runner
            except ResourceError as error:
                failed[number] = release_frames(error)
            tell((number + 1) / len(jobs) / 3)
        if not runners:
            return Together(tuple(failed[number] for number in range(len(jobs))), (None,) * len(jobs), None, 0, False)
        numbers, compared = list(runners), base in runners and len(runners) > 1
        timers = [runner.seconds for runner in runners.values()]
        everyone = list(runners.values())
        if compared:  # once more, as `measure_together` does
            again = stack.enter_context(start())
            with suppress(ResourceError):
                again.ask(jobs[base])
                everyone.append(again)
            timers.append(everyone[-1].seconds if everyone[-1] is again else runners[base].seconds)
        place = torch.device(devices.find(jobs[0].device))
        before = _reading(place, everyone)
        rounds = take_turns(
            timers, clock, random.Random(0), base=numbers.index(base) if compared else 0,
            budget_s=budget_s / 2 * len(timers), least_s=min(0.5, budget_s / 6),
            tell=lambda share: tell((2 + 3 * share) / 6),
        )  # fmt: skip
        ledger = Ledger(before, _reading(place, everyone))
        seconds = dict(zip(numbers, rounds.seconds, strict=False))  # the base's second ones come last
        measured: dict[int, Measurement] = {}
        for number, runner in runners.items():
            samples = Samples(seconds[number], rounds.calls[numbers.index(number)], precise(seconds[number]))
            measured[number] = runner.ask((samples, ledger))
    tell(1.0)
    floor = noise_floor(seconds[base], rounds.seconds[-1]) if compared else None
    ratios = tuple(
        paired(seconds[base], seconds[number], floor) if floor is not None and number in runners and number != base
        else None
        for number in range(len(jobs))
    )  # fmt: skip
    outcomes = tuple(measured[number] if number in measured else failed[number] for number in range(len(jobs)))
    return Together(outcomes, ratios, floor, rounds.n, rounds.precise)


def _reading(place: torch.device, runners: Sequence[Runner]) -> Reading:
    """The machine now, all these processes being our own; who else is on a GPU is then not known."""
    found = look_around(place)
    gpu = found.gpu and replace(found.gpu, other_processes=None)
    return replace(found, own_s=found.own_s + sum(runner.own_s for runner in runners), gpu=gpu)


def attend(
    job: Job, receive: Callable[[], Any], send: Callable[[object], object], clock: Clock = time.perf_counter
) -> None:
    """The process's side: says when the net is ready, then how long so many calls take, and last the measurement."""
    place = torch.device(devices.find(job.device))
    require_possible(job.settings, str(place))
    what, hint = wanted(job.plan, job.batch, place, job.settings)
    budget_s = job.time_budget_s
    with on_device(place), fitting(what, place, hint), applied(job.settings, place):
        ready = prepare(job.plan, place, job.batch, clock, job.settings)
        warm = warm_up(ready.waited, clock, least_s=min(0.5, budget_s / 6), most_s=budget_s / 3)
        send(True)
        while isinstance(question := receive(), int):
            ready.waited(1)
            send(ready.waited(question))
        samples, ledger = question
        more = afterwards(ready, clock, budget_s=budget_s / 6, call_s=median(samples.seconds))
        send(measurement(ready, warm, samples, more, ledger))


def main(handle: int) -> None:
    """Answers on the connection that it was started with, until nobody asks any more."""
    with Connection(handle) as line:
        try:
            attend(line.recv(), line.recv, lambda answer: line.send((answer, own_seconds())))
        except (EOFError, ConnectionError):
            return  # nobody is there to be told
        except Exception as error:
            line.send((in_a_line(error), own_seconds()))
