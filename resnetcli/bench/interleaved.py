"""Several models timed in interleaved rounds on one device: each as `measure` does, and the ratios of their times.

The models may be in this process (`measure_interleaved`) or each in its own (`interleaved_subprocesses`).
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

import torch

from resnetcli.bench import device as devices
from resnetcli.bench.energy import Sleep
from resnetcli.bench.environment import HostState, Ledger
from resnetcli.bench.execution import configure_torch, require_supported
from resnetcli.bench.latency import IdleMeter, Measurement, ModelRunner, measure_idle, read_environment
from resnetcli.bench.options import DEFAULT, TIME_BUDGET_S, RunOptions
from resnetcli.bench.prepare import on_device, out_of_memory_message, prepare
from resnetcli.bench.sampling import Clock, Progress, Rounds, Samples, Timer, no_progress, precise, sample_interleaved
from resnetcli.bench.versus import Ratio, noise_floor, paired
from resnetcli.errors import ResourceError, release_frames
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.plan.plan import Plan

T = TypeVar("T")


@frozen
class Interleaved:
    """Each model's figures, or why it could not be measured, in the order of the plans."""

    measured: tuple[Measurement | ResourceError, ...]
    ratios: tuple[Ratio | None, ...]
    """Each time relative to the base's; None for the base itself, and if either could not be measured."""
    floor: float | None
    """Noise floor, relative: an A/A test of two builds of the base; None if no model is compared with it."""
    rounds: int
    precise: bool
    """Whether every interval came within 1%; otherwise the time budget ended."""

    @classmethod
    def failed(cls, errors: Sequence[ResourceError]) -> Interleaved:
        """Nothing was measured."""
        return cls(tuple(errors), (None,) * len(errors), None, 0, False)


class Runner(Protocol):
    """One model that is ready to be timed. Every method raises ResourceError if it fails."""

    def warm_up(self) -> None:
        """Call until times have converged."""

    def seconds(self, calls: int) -> float:
        """Time some calls."""

    def measure_extras(self, samples: Samples) -> None:
        """Measure the figures other than latency, after all samples."""

    def measurement(self, environment: Ledger) -> Measurement:
        """All figures."""


class Host(Protocol):
    """Where the models run: all in this process, or each in its own."""

    def start(self, number: int) -> Runner:
        """Prepare a model. Raises ResourceError if that fails."""

    def release(self) -> None:
        """Free the memory of a model that failed and is no longer referenced."""

    def read(self) -> HostState:
        """The state of the machine; the models' processes count as this one."""

    def rounds(self) -> AbstractContextManager[object]:
        """Context manager around the timed rounds: reports the errors of all models together."""


def interleave(
    host: Host, count: int, *, base: int, time_budget_s: float, clock: Clock, progress: Progress
) -> Interleaved:
    """Time `count` models in interleaved rounds, each in the same random order whatever the host.

    The base is started twice and both are timed in each round (an A/A test), which gives the noise floor: the memory
    addresses of weights affect latency, too. A model that fails is left out of the rounds.
    """
    runners: dict[int, Runner] = {}  # nothing else may refer to one: a model that fails has to be freed at once
    failed: dict[int, ResourceError] = {}
    done = 0

    def start(number: int) -> None:
        runners[number] = host.start(number)

    def warm_up(number: int) -> None:
        runners[number].warm_up()

    def attempt(work: Callable[[int], None], numbers: Sequence[int]) -> None:
        nonlocal done
        for number in numbers:
            try:
                work(number)
            except ResourceError as error:
                failed[number] = release_frames(error)
                runners.pop(number, None)
            if number in failed:
                host.release()
            done += 1
            progress(min(1.0, done / count / 2) / 3)

    attempt(start, range(count))
    twin: Runner | None = None
    if base in runners and len(runners) > 1:
        with suppress(ResourceError):
            twin = host.start(base)
        if twin is None:  # memory does not suffice for two builds: the same one is timed twice
            host.release()
            twin = runners[base]
    before = host.read()  # after building and compiling, which are not measured
    attempt(warm_up, list(runners))
    while runners:
        compared = twin if base in runners and len(runners) > 1 else None
        try:
            with host.rounds():
                timed = _time_rounds(runners, base, compared, before, host, time_budget_s, clock, progress)
        except _ModelError as failure:  # the others are timed again, without it
            failed[failure.number] = release_frames(failure.error)
            runners.pop(failure.number, None)
            twin = None if failure.number == base else twin
            host.release()
            continue
        progress(1.0)
        measured, ratios, floor, rounds = timed
        outcomes = tuple(measured[number] if number in measured else failed[number] for number in range(count))
        return Interleaved(outcomes, tuple(ratios.get(n) for n in range(count)), floor, rounds.n, rounds.precise)
    return Interleaved.failed([failed[number] for number in range(count)])


class _ModelError(Exception):
    """One model failed while all were timed."""

    def __init__(self, number: int, error: ResourceError) -> None:
        super().__init__(number)
        self.number, self.error = number, error


def _time_rounds(
    runners: Mapping[int, Runner], base: int, twin: Runner | None, before: HostState, host: Host, time_budget_s: float,
    clock: Clock, progress: Progress,
) -> tuple[dict[int, Measurement], dict[int, Ratio], float | None, Rounds]:  # fmt: skip
    """Measurements, ratios to the base, the noise floor and the rounds; without a twin there are only measurements.

    Raises _ModelError if one of the models fails.
    """

    def attempt(number: int, work: Callable[[], T]) -> T:
        try:
            return work()
        except ResourceError as error:
            raise _ModelError(number, error) from None

    def timer(number: int, runner: Runner) -> Timer:
        return lambda calls: attempt(number, lambda: runner.seconds(calls))

    numbers = list(runners)
    timers = [timer(number, runner) for number, runner in runners.items()]
    if twin is not None:
        attempt(base, twin.warm_up)
        timers.append(timer(base, twin))
    rounds = sample_interleaved(
        timers, clock, random.Random(0), base=0 if twin is None else numbers.index(base),
        least_s=min(0.5, time_budget_s / 6), budget_s=time_budget_s / 2 * len(timers),
        progress=lambda share: progress((2 + 3 * share) / 6),
    )  # fmt: skip
    seconds = dict(zip(numbers, rounds.seconds, strict=False))  # the twin's come last
    for place, (number, runner) in enumerate(runners.items()):
        samples = Samples(seconds[number], rounds.calls[place], precise(seconds[number]))
        attempt(number, partial(runner.measure_extras, samples))
    environment = Ledger(before, host.read())
    measured = {number: attempt(number, partial(runner.measurement, environment)) for number, runner in runners.items()}
    if twin is None:
        return measured, {}, None, rounds
    floor = noise_floor(seconds[base], rounds.seconds[-1])
    ratios = {number: paired(seconds[base], seconds[number], floor) for number in numbers if number != base}
    return measured, ratios, floor, rounds


class _Runner(ModelRunner):
    """A model among others in this process, whose warm-up alone may run out of memory."""

    def __init__(self, host: _ThisProcess, number: int) -> None:
        self.host, self.number = host, number
        with self.fitting():
            ready = prepare(host.plans[number], host.place, host.batch_size, host.clock, host.options, host.pool)
        super().__init__(ready, host.clock, host.time_budget_s, host.meter)

    def fitting(self) -> AbstractContextManager[None]:
        host = self.host
        subject, hint = out_of_memory_message(host.plans[self.number], host.batch_size, host.place, host.options)
        return fitting(subject, host.place, hint)

    def warm_up(self) -> None:
        with self.fitting():
            super().warm_up()


@dataclass(slots=True)
class _ThisProcess:
    """All models on the device at once."""

    plans: Sequence[Plan]
    place: torch.device
    batch_size: int
    options: RunOptions
    clock: Clock
    time_budget_s: float
    meter: IdleMeter | None
    pool: object = None
    """Memory of all CUDA graphs, which never run at the same time and so can share it."""

    def __post_init__(self) -> None:
        self._new_pool()

    def _new_pool(self) -> None:
        self.pool = torch.cuda.graph_pool_handle() if self.options.cuda_graph else None

    def start(self, number: int) -> Runner:
        return _Runner(self, number)

    def release(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.empty_cache()
            self._new_pool()  # a failed capture may leave a pool unusable

    def read(self) -> HostState:
        return read_environment(self.place)

    def rounds(self) -> AbstractContextManager[object]:
        hint = "" if self.batch_size == 1 else "use a smaller `--batch-size`"
        return fitting(f"{len(self.plans)} models at once with a batch of {self.batch_size}", self.place, hint)


def measure_interleaved(
    plans: Sequence[Plan],
    *,
    base: int = 0,
    device: str = "cpu",
    batch_size: int = 1,
    options: RunOptions = DEFAULT,
    time_budget_s: float = TIME_BUDGET_S,
    energy: bool = False,
    clock: Clock = time.perf_counter,
    sleep: Sleep = time.sleep,
    progress: Progress = no_progress,
) -> Interleaved:
    """The plans' models, all on the device at once, timed in interleaved rounds for about `time_budget_s` each.

    Shares of the budget and clocks are as `measure` has them. A model that does not fit into memory is left out of the
    rounds. Raises UsageError for an impossible device or batch size, ResourceError if models fit one by one but not
    all at once.
    """
    place = torch.device(devices.find(device))
    require_supported(options, str(place))
    with on_device(place), configure_torch(options, place):
        with fitting("measuring the idle power", place):
            meter = measure_idle(place, clock, sleep) if energy else None
        host = _ThisProcess(plans, place, batch_size, options, clock, time_budget_s, meter)
        return interleave(host, len(plans), base=base, time_budget_s=time_budget_s, clock=clock, progress=progress)
