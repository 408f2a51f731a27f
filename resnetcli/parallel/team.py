"""Data-parallel processes that train one model: each has its share of every batch, and its own BatchNorm.

Rank 0 leads. Only rank 0 reads the command line and the run directory, writes, prints and decides, in the same session
as a single process; the others follow its commands. Commands, and signals that any rank received, go over gloo from
host to host, without waiting for a GPU. Gradients are averaged by DistributedDataParallel, over nccl between GPUs and
gloo between CPUs; BatchNorm statistics after each step. All processes therefore have the same state at all times, and
any number of them can resume from it.
"""

from __future__ import annotations

import atexit
import inspect
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from resnetcli.bench.device import find
from resnetcli.data.dataset import Dataset
from resnetcli.data.read import read_dataset
from resnetcli.errors import ResourceError, UsageError
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.parallel.checks import has_unused_steps, require_parallel, split_batch
from resnetcli.parallel.failures import (
    OtherRankFailed,
    ProcessLost,
    RankError,
    exit_code_of,
    exit_now,
    is_connection_error,
    rank_name,
    short_reason,
)
from resnetcli.parallel.launch import REPEAT_S, Rank, end_with_parent
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.runs.config import Config
from resnetcli.runs.metrics import intervals
from resnetcli.train.build import build_trainer
from resnetcli.train.evaluate import SPLITS, Evaluation
from resnetcli.train.job import TrainJob
from resnetcli.train.loop import NotFinite, Progress, Trainer
from resnetcli.train.options import TrainOptions
from resnetcli.train.stop import Stop

TIMEOUT_S = 1800.0
"""Timeout for a process whose connection is still open. A closed connection is noticed at once."""
PREPARATION_TIMEOUT_S = 86_400.0
"""Timeout while rank 0 prepares the run, which may download the dataset."""
MAX_STRIDE = {"cpu": 1, "cuda": 20}
"""Steps per command at most: signals are handled between commands."""


class Command(IntEnum):
    """A command of rank 0 to the others, sent with a number."""

    BUILD = 1
    """Build a trainer for the job that follows."""
    STEP = 2
    """Run that number of steps."""
    EVALUATE = 3
    """Evaluate this process's share of the split with that index in SPLITS."""
    RESTORE = 4
    """Restore the state that follows, after that number of iterations."""
    END = 5
    """Exit with that code."""
    READ = 6
    """Only synchronise: otherwise a GPU would wait forever for a process that has ended."""


@frozen
class SharedJob:
    """The parts of a job that all ranks need."""

    config: Config
    plan: Plan
    recipe: Recipe
    download: bool


class AgreedStop(Stop):
    """As `Stop`, but `signal` is what all processes received at the same iteration.

    Signals within REPEAT_S of the first count as the same one: a launcher passes on signals that its processes may have
    received already.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.local_signal = 0
        """The signal that this process received."""
        self._clock, self._at = clock, 0.0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.local_signal:
            self.local_signal, self._at = number, self._clock()
        elif self._clock() - self._at > REPEAT_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class Team:
    """The group of data-parallel processes, from the side of one of them."""

    def __init__(self, rank: Rank, *, download: bool, timeout_s: float) -> None:
        """For connected processes. `download`: whether a machine may download a missing dataset."""
        self.rank, self.world, self.local_rank = rank.rank, rank.world, rank.local_rank
        self.stop = AgreedStop()
        self._download, self._timeout = download, timedelta(seconds=timeout_s)
        self._begun = self._broken = False
        self._preparation = dist.new_group(timeout=timedelta(seconds=PREPARATION_TIMEOUT_S), backend="gloo")
        self._gpus: dist.ProcessGroup | None = None
        self._data: Dataset | None = None

    def require_supported(self, options: TrainOptions) -> None:
        """As `require_parallel`."""
        require_parallel(options, self.world)

    def split_batch(self, recipe: Recipe, *, new: bool) -> Recipe:
        """As `split_batch`."""
        return split_batch(recipe, self.world, new=new)

    # --- rank 0 ----------------------------------------------------------------------------------------------------

    def lead(self, job: TrainJob) -> Leader:
        """Build a trainer in every process. Raises the UsageError or ResourceError of any of them."""
        self._wait_for_leader()
        self.stop = AgreedStop()
        self.command(Command.BUILD)
        shared = SharedJob(job.config, job.plan, job.recipe, self._download)
        with self.collective():
            dist.broadcast_object_list([shared], src=0)
        trainer = self._build_all(lambda: self._build_own(job))
        return Leader(self, trainer, job.config)

    def command(self, command: Command, number: int = 0) -> None:
        """Send a command to the others, and receive signals."""
        *_, self.stop.signal = self._synchronise(command, number)

    def close(self, code: int) -> None:
        """Leave the group; rank 0 ends the other processes with its exit code."""
        if self.rank == 0 and not self._broken:
            with suppress(ProcessLost):
                self._wait_for_leader()
                self.command(Command.END, code)
        if not self._broken:
            dist.destroy_process_group()
        elif self._gpus is not None:
            atexit.register(exit_now)

    # --- the other ranks -------------------------------------------------------------------------------------------

    def follow(self) -> int:
        """Run the commands of rank 0 until it ends; returns its exit code."""
        trainer: Trainer | None = None
        self._wait_for_leader()
        with self.stop:
            while True:
                command, number, agreed = self._synchronise(0, 0)
                if command == Command.END:
                    return number
                if command == Command.BUILD:
                    trainer = None  # free it first
                    trainer = self._build_received()
                elif trainer is not None:
                    self._run(trainer, Command(command), 1 if agreed else number)

    def _run(self, trainer: Trainer, command: Command, number: int) -> None:
        match command:
            case Command.STEP:
                with suppress(NotFinite):  # rank 0 raises it too, and reports it
                    for _ in range(number):
                        with self.collective():
                            trainer.step()
            case Command.EVALUATE:
                self.evaluate(trainer, SPLITS[number])
            case Command.RESTORE:
                with self.collective():
                    state = dict(self.broadcast(trainer.state()))
                trainer.restore(state, number)
            case Command.READ:
                pass

    def _build_received(self) -> Trainer | None:
        """The trainer of the job that rank 0 sends; None if any process cannot build its own."""
        parcel: list[SharedJob] = [None]  # type: ignore[list-item]
        with self.collective():
            dist.broadcast_object_list(parcel, src=0)
        (job,) = parcel
        try:
            return self._build_all(
                lambda: self._build_own(TrainJob(job.config, job.plan, job.recipe, self._load(job), "", ""))
            )
        except OtherRankFailed:
            return None

    def _load(self, job: SharedJob) -> Dataset:
        """The dataset of rank 0, read on this machine. Raises UsageError if it differs."""
        config, data = job.config, self._data
        if data is None or data.digest != config.data_digest:
            folder = None if config.data_folder is None else Path(config.data_folder)
            data = self._data = read_dataset(config.data, folder, download=job.download)
        if data.digest != config.data_digest:
            raise UsageError("the dataset differs from that of rank 0", "every machine needs the same dataset")
        return data

    # --- all ranks -------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, split: str) -> Evaluation:
        """The model's error on a split, of which each process evaluates its share."""
        with self.collective(), fitting("evaluation", trainer.device):
            own = trainer.evaluate(split, part=(self.rank, self.world))
            sums = torch.tensor([own.wrong, own.loss * own.n, own.n], dtype=torch.float64)
            dist.all_reduce(sums)
        wrong, loss, n = sums.tolist()
        return Evaluation(round(wrong), loss / n, round(n))

    def broadcast(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The CPU tensors of rank 0, by name; the other ranks pass tensors of the same shapes and types."""
        for name in sorted(state):
            tensor = state[name].clone(memory_format=torch.contiguous_format)
            dist.broadcast(tensor, src=0)
            yield name, tensor

    @contextmanager
    def collective(self) -> Iterator[None]:
        """Context manager: an operation of all processes. After an error in it, no other is possible.

        Raises ProcessLost if the connection to another process is lost. A non-finite loss is not such an error: all
        processes raise it in the same step.
        """
        if self._broken:
            raise ProcessLost(self.world, "the connection was lost before")
        try:
            yield
        except NotFinite:
            raise
        except BaseException as error:
            self._broken = True
            if is_connection_error(error):
                raise ProcessLost(self.world, short_reason(error)) from None
            raise

    def _wait_for_leader(self) -> None:
        """Wait, once, until rank 0 has prepared the run."""
        if not self._begun:
            with self.collective():
                dist.barrier(group=self._preparation)
            self._begun = True

    def _synchronise(self, command: int, number: int) -> tuple[int, int, int]:
        """The command of rank 0 and its number, and a signal that any rank has received, or 0."""
        numbers = torch.tensor([command, number, self.stop.local_signal])
        with self.collective():
            dist.all_reduce(numbers, dist.ReduceOp.MAX)
        command, number, agreed = numbers.tolist()
        return command, number, agreed

    def _build_own(self, job: TrainJob) -> Trainer:
        """This process's trainer, on the CPU or the GPU of its local rank. Raises UsageError without that GPU."""
        device = "cpu" if job.config.device == "cpu" else find(f"cuda:{self.local_rank}")
        own = replace(job, config=replace(job.config, device=device))
        return build_trainer(own, self.rank, self.world)

    def _build_all(self, build: Callable[[], Trainer]) -> Trainer:
        """This process's trainer, connected to the others' once all have built theirs.

        Raises this process's error; at rank 0 also the UsageError or ResourceError of another one.
        """
        own_error: UsageError | ResourceError | None = None
        try:
            trainer = build()
        except (UsageError, ResourceError) as error:
            own_error = error
        errors: list[RankError | None] = [None] * self.world
        with self.collective():  # without the usual timeout: a process may have to download the dataset
            own = None if own_error is None else RankError.of(own_error)
            dist.all_gather_object(errors, own, group=self._preparation)
        if any(errors):
            if self.rank:
                raise OtherRankFailed
            raise own_error or next(error.as_error(rank) for rank, error in enumerate(errors) if error is not None)
        with self.collective():
            self._connect(trainer)
        return trainer

    def _connect(self, trainer: Trainer) -> None:
        """Average the trainer's gradients, loss, error and BatchNorm statistics over all processes."""
        group: dist.ProcessGroup | None = None
        devices = None
        if trainer.device.type == "cuda":
            torch.cuda.set_device(trainer.device)
            if self._gpus is None:
                self._gpus = dist.new_group(timeout=self._timeout, backend="nccl")
            group, devices = self._gpus, [trainer.device.index]
        module = trainer.forward
        assert isinstance(module, torch.nn.Module)
        settings: dict[str, Any] = {"find_unused_parameters": has_unused_steps(trainer.plan), _SYNC_BUFFERS: False}
        settings["gradient_as_bucket_view"] = True  # gradients are not copied out of the communication buckets
        trainer.forward = DistributedDataParallel(module, devices, process_group=group, **settings)
        statistics = [buffer for buffer in trainer.model.buffers() if buffer.is_floating_point()]

        def average(measured: Tensor) -> None:
            tensors = [measured, *statistics]
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat, group=group)
            parts = torch.split(flat / self.world, [tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, [part.view_as(to) for part, to in zip(parts, tensors, strict=True)])

        trainer.average = average


_SYNC_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # the name since PyTorch 2.13, and before
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""DDP's option that copies rank 0's BatchNorm statistics in each forward pass."""


class Leader:
    """The trainer of rank 0's session, which controls the trainers of all processes."""

    def __init__(self, team: Team, trainer: Trainer, config: Config) -> None:
        """`config`: its intervals limit the steps of one command."""
        self.trainer, self.device = trainer, trainer.device
        self._team, self._left = team, 0
        self._total, self._intervals = config.iterations, intervals(config)

    @property
    def iteration(self) -> int:
        """Completed iterations."""
        return self.trainer.iteration

    def step(self) -> None:
        """Run one iteration in all processes."""
        if not self._left:
            stride = self._stride()
            self._team.command(Command.STEP, stride)
            self._left = 1 if self._team.stop.signal else stride
        self._left -= 1
        try:
            with self._team.collective():
                self.trainer.step()
        except NotFinite:
            self._left = 0
            raise

    def _stride(self) -> int:
        """Steps until the session acts next, or until signals have to be handled."""
        at = self.trainer.iteration
        return min(MAX_STRIDE[self.device.type], self._total - at, *(every - at % every for every in self._intervals))

    def read(self) -> Progress:
        """As `Trainer.read`, over all processes. Raises ProcessLost if one has ended."""
        self._command(Command.READ, 0)
        return self.trainer.read()

    def evaluate(self, split: str = "test") -> Evaluation:
        """The error on a split."""
        self._command(Command.EVALUATE, SPLITS.index(split))
        return self._team.evaluate(self.trainer, split)

    def state(self) -> dict[str, Tensor]:
        """As `Trainer.state`; it is the same in all processes."""
        return self.trainer.state()

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """As `Trainer.restore`, in all processes."""
        self._command(Command.RESTORE, iteration)
        with self._team.collective():
            for _ in self._team.broadcast(state):
                pass
        self.trainer.restore(state, iteration)

    def _command(self, command: Command, number: int) -> None:
        assert not self._left, "the others are still running steps"
        self._team.command(command, number)


@contextmanager
def join_team(rank: Rank, *, download: bool = True, timeout_s: float = TIMEOUT_S) -> Iterator[Team]:
    """Context manager: connect this process to the others, and end with them.

    Raises ResourceError if they cannot connect. Errors of ranks other than 0 name the rank and the host.
    """
    end_with_parent()
    try:
        dist.init_process_group("gloo", rank=rank.rank, world_size=rank.world, timeout=timedelta(seconds=timeout_s))
        team = Team(rank, download=download, timeout_s=timeout_s)
    except (RuntimeError, ValueError) as error:
        address = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ResourceError(f"the {rank.world} processes did not connect at {address}: {short_reason(error)}") from None
    code = 0
    try:
        yield team
    except BaseException as error:
        code = exit_code_of(error)
        if rank.rank and isinstance(error, UsageError | ResourceError):
            error.message = f"{rank_name(rank.rank, socket.gethostname())}: {error.message}"
        raise
    finally:
        team.close(code)
