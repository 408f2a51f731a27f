"""Models timed in interleaved rounds, each under its own options and so in its own process, idle while others run."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, Pipe
from typing import IO, Any

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.environment import HostState, Ledger, own_seconds
from resnetcli.bench.execution import configure_torch, require_supported
from resnetcli.bench.interleaved import Interleaved, Runner, interleave
from resnetcli.bench.latency import Measurement, ModelRunner, read_environment
from resnetcli.bench.prepare import on_device, out_of_memory_message, prepare
from resnetcli.bench.sampling import Clock, Progress, Samples, no_progress
from resnetcli.bench.worker import TIMEOUT_S, Job, exit_reason, one_line, spawned
from resnetcli.errors import ResourceError
from resnetcli.net.memory import fitting


@dataclass(slots=True)
class ProcessRunner:
    """A process with one model, which answers one question at a time."""

    process: subprocess.Popen[bytes]
    connection: Connection
    errors: IO[bytes]
    own_s: float = 0.0
    """CPU seconds that it had used at its last answer."""
    samples: Samples | None = None

    def ask(self, question: object, timeout_s: float = TIMEOUT_S) -> Any:
        """Its answer. Raises ResourceError for an error that it reports, and if it has died or does not answer."""
        try:
            self.connection.send(question)
            if not self.connection.poll(timeout_s):
                raise ResourceError(f"not done after {timeout_s:.0f} s")
            answer, self.own_s = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.wait(10)
            self.errors.seek(0)
            raise ResourceError(exit_reason(self.process.returncode, self.errors.read())) from None
        if isinstance(answer, str):
            raise ResourceError(answer)
        return answer

    def warm_up(self) -> None:
        """Do nothing: the process warms up before it reports that it is ready."""

    def seconds(self, calls: int) -> float:
        """Time some calls, after an untimed one that brings the model's data back into the caches."""
        return float(self.ask(calls))

    def measure_extras(self, samples: Samples) -> None:
        """Only keep the samples: `measurement` measures the extras, after the environment of the rounds is read."""
        self.samples = samples

    def measurement(self, environment: Ledger) -> Measurement:
        """All figures."""
        measurement: Measurement = self.ask((self.samples, environment))
        return measurement


Start = Callable[[], AbstractContextManager[ProcessRunner]]


@contextmanager
def started() -> Iterator[ProcessRunner]:
    """A process that waits for its job; it is ended on leaving."""
    ours, theirs = Pipe()
    handle, nothing = theirs.fileno(), subprocess.DEVNULL
    code = f"from resnetcli.bench.interleaved_subprocesses import answer_requests; answer_requests({handle})"
    with (
        ours, theirs, tempfile.TemporaryFile() as errors,
        spawned(code, handles=[handle], stdin=nothing, stdout=errors, stderr=errors) as process,
    ):  # fmt: skip
        theirs.close()  # so that reading ends when the process has closed its own
        yield ProcessRunner(process, ours, errors)


@dataclass(slots=True)
class _Processes:
    """Each model in its own process."""

    jobs: Sequence[Job]
    start_process: Start
    stack: ExitStack
    place: torch.device
    running: list[ProcessRunner] = field(default_factory=list)

    def start(self, number: int) -> Runner:
        runner = self.stack.enter_context(self.start_process())
        runner.ask(self.jobs[number])
        self.running.append(runner)
        return runner

    def release(self) -> None:
        pass

    def read(self) -> HostState:
        reading = read_environment(self.place)
        # Other programs on the GPU cannot be distinguished: the driver lists the models' processes among them.
        gpu = reading.gpu and replace(reading.gpu, other_processes=None)
        return replace(reading, own_s=reading.own_s + sum(runner.own_s for runner in self.running), gpu=gpu)

    def rounds(self) -> AbstractContextManager[object]:
        return nullcontext()


def measure_interleaved_subprocesses(
    jobs: Sequence[Job],
    *,
    base: int = 0,
    clock: Clock = time.perf_counter,
    progress: Progress = no_progress,
    start: Start = started,
) -> Interleaved:
    """The jobs' models, one process each, all on one device at one batch size, timed as `measure_interleaved` does.

    A process that fails or dies is left out.
    """
    with ExitStack() as stack:
        host = _Processes(jobs, start, stack, torch.device(devices.find(jobs[0].device)))
        return interleave(
            host, len(jobs), base=base, time_budget_s=jobs[0].time_budget_s, clock=clock, progress=progress
        )


def attend(
    job: Job, receive: Callable[[], Any], send: Callable[[object], object], clock: Clock = time.perf_counter
) -> None:
    """The process's side: reports when the model is ready, then how long calls take, and last the measurement."""
    place = torch.device(devices.find(job.device))
    require_supported(job.options, str(place))
    subject, hint = out_of_memory_message(job.plan, job.batch_size, place, job.options)
    with on_device(place), fitting(subject, place, hint), configure_torch(job.options, place):
        runner = ModelRunner(prepare(job.plan, place, job.batch_size, clock, job.options), clock, job.time_budget_s)
        runner.warm_up()
        send(True)
        while isinstance(question := receive(), int):
            runner.seconds(1)
            send(runner.seconds(question))
        samples, environment = question
        runner.measure_extras(samples)
        send(runner.measurement(environment))


def answer_requests(handle: int) -> None:
    """Answer on the connection that the process was started with, until it is closed."""
    with Connection(handle) as line:
        try:
            attend(line.recv(), line.recv, lambda answer: line.send((answer, own_seconds())))
        except (EOFError, ConnectionError):
            return  # the parent has ended
        except Exception as error:
            line.send((one_line(error), own_seconds()))
