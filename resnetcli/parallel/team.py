"""Several processes that train one net together: each has its share of every batch, and its own BatchNorm.

Rank 0 leads. It alone reads the command line and the run's directory, writes, prints and decides, in the same session
as a single process; the others know nothing of that and do what it orders. Orders, and the signals that any of them has
received, go by gloo from host to host, so that no GPU is waited for. Gradients are averaged by DistributedDataParallel,
over nccl between GPUs and gloo between CPUs; BatchNorm's statistics after each step, so that all processes have the
same state at all times, and any number of them can go on from it.
"""

from __future__ import annotations

import atexit
import inspect
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import IntEnum
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from resnetcli.bench.device import find
from resnetcli.data.dataset import Dataset
from resnetcli.data.read import load
from resnetcli.errors import ResourceError, SpecError, UsageError
from resnetcli.net.memory import fitting
from resnetcli.parallel.launch import AGAIN_S, Place, follow_parent
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.runs.config import Config
from resnetcli.runs.metrics import intervals
from resnetcli.train.build import build_trainer
from resnetcli.train.evaluate import Evaluation
from resnetcli.train.job import TrainJob
from resnetcli.train.loop import NotFinite, Progress, Trainer
from resnetcli.train.options import TrainOptions
from resnetcli.train.stop import Stop

PATIENCE_S = 1800.0
"""How long one process waits for another that still has its connection. One that has died is noticed at once."""
PREPARATION_S = 86_400.0
"""How long the others wait for the first to be ready, which may have to fetch the data."""
STEPS = {"cpu": 1, "cuda": 20}
"""Steps that are made on one order, at most: a signal is heeded only between orders."""
SPLITS = ("test", "train", "validation")


class Lost(ResourceError):  # noqa: N818 - what happened, not that something did
    """Another process that has ended, or that does not answer."""


class Order(IntEnum):
    """What the first process says to the others, with a number."""

    BUILD = 1
    """A trainer for the job that follows."""
    STEP = 2
    """So many steps."""
    EVALUATE = 3
    """Your share of this one of SPLITS."""
    RESTORE = 4
    """The state that follows, after so many iterations."""
    END = 5
    """With this exit code."""
    READ = 6
    """Nothing but to have arrived: what a GPU waits for of a process that has ended would never come."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the others have to know of a run."""

    config: Config
    plan: Plan
    recipe: Recipe
    download: bool


class AgreedStop(Stop):
    """As `Stop`, but `signal` is what all processes have been told of at the same iteration.

    What comes within moments of the first signal is taken for the same one: a launcher passes on what its processes may
    have had already.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self.noted = 0
        """What this process was sent."""
        self._clock, self._at = clock, 0.0

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.noted:
            self.noted, self._at = number, self._clock()
        elif self._clock() - self._at > AGAIN_S:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


class Team:
    """The processes, as one of them sees them."""

    def __init__(self, place: Place, *, download: bool, patience_s: float) -> None:
        """Of processes that have met. `download`: whether data that a machine does not have may be fetched."""
        self.rank, self.world, self.local_rank = place.rank, place.world, place.local_rank
        self.stop = AgreedStop()
        self._download, self._patience = download, timedelta(seconds=patience_s)
        self._begun = self._broken = False
        self._beginning = dist.new_group(timeout=timedelta(seconds=PREPARATION_S), backend="gloo")
        self._gpus: dist.ProcessGroup | None = None
        self._data: Dataset | None = None

    def require_possible(self, options: TrainOptions) -> None:
        """As `require_possible`."""
        require_possible(options, self.world)

    def split_batch(self, recipe: Recipe, *, new: bool) -> Recipe:
        """As `split_batch`."""
        return split_batch(recipe, self.world, new=new)

    # --- the first one's side --------------------------------------------------------------------------------------

    def lead(self, job: TrainJob) -> Leader:
        """The trainer of all of them together. Raises UsageError or ResourceError for what one of them could not."""
        self._meet()
        self.stop = AgreedStop()
        self.order(Order.BUILD)
        work = Work(job.config, job.plan, job.recipe, self._download)
        with self.together():
            dist.broadcast_object_list([work], src=0)
        trainer = self._built(lambda: self._trainer(job))
        return Leader(self, trainer, job.config)

    def order(self, order: Order, number: int = 0) -> None:
        """Tells the others what is next, and hears of signals."""
        *_, self.stop.signal = self._exchange(order, number)

    def close(self, code: int) -> None:
        """Ends it for all: the first process says so, with its exit code."""
        if self.rank == 0 and not self._broken:
            with suppress(Lost):
                self._meet()
                self.order(Order.END, code)
        if not self._broken:
            dist.destroy_process_group()
        elif self._gpus is not None:
            atexit.register(_leave)

    # --- the others' side ------------------------------------------------------------------------------------------

    def follow(self) -> int:
        """Does what the first process orders, to the end: its exit code."""
        trainer: Trainer | None = None
        self._meet()
        with self.stop:
            while True:
                order, number, agreed = self._exchange(0, 0)
                if order == Order.END:
                    return number
                if order == Order.BUILD:
                    trainer = None  # before there are two
                    trainer = self._build()
                elif trainer is not None:
                    self._obey(trainer, Order(order), 1 if agreed else number)

    def _obey(self, trainer: Trainer, order: Order, number: int) -> None:
        match order:
            case Order.STEP:
                with suppress(NotFinite):  # the first one has met it too, and says so
                    for _ in range(number):
                        with self.together():
                            trainer.step()
            case Order.EVALUATE:
                self.evaluate(trainer, SPLITS[number])
            case Order.RESTORE:
                with self.together():
                    state = dict(self.spread(trainer.state()))
                trainer.restore(state, number)
            case Order.READ:  # to have come this far is all
                pass

    def _build(self) -> Trainer | None:
        """The trainer that the first process has ordered; None if one of them could not build it, which it hears."""
        parcel: list[Work] = [None]  # type: ignore[list-item]
        with self.together():
            dist.broadcast_object_list(parcel, src=0)
        (work,) = parcel
        try:
            return self._built(lambda: self._trainer(TrainJob(work.config, work.plan, work.recipe, self._loaded(work))))
        except _Elsewhere:
            return None

    def _loaded(self, work: Work) -> Dataset:
        """The first process's data set, as it is here. Raises UsageError if it is another one."""
        config, data = work.config, self._data
        if data is None or data.digest != config.data_digest:
            folder = None if config.data_folder is None else Path(config.data_folder)
            data = self._data = load(config.data, folder, download=work.download)
        if data.digest != config.data_digest:
            raise UsageError("the data set here is another one", "the same has to be on every machine")
        return data

    # --- both ------------------------------------------------------------------------------------------------------

    def evaluate(self, trainer: Trainer, split: str) -> Evaluation:
        """The net's error on a split, of which each process has its share."""
        with self.together(), fitting("evaluation", trainer.device):
            own = trainer.evaluate(split, part=(self.rank, self.world))
            sums = torch.tensor([own.wrong, own.loss * own.n, own.n], dtype=torch.float64)
            dist.all_reduce(sums)
        wrong, loss, n = sums.tolist()
        return Evaluation(round(wrong), loss / n, round(n))

    def spread(self, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        """The first process's tensors on the CPU, by name; of the others' own only shapes and types matter."""
        for name in sorted(state):
            tensor = state[name].clone(memory_format=torch.contiguous_format)
            dist.broadcast(tensor, src=0)
            yield name, tensor

    @contextmanager
    def together(self) -> Iterator[None]:
        """Within: what all do at once, after which none can go on if one could not.

        Raises Lost if another process was lost. A loss that is not finite is met by all in the same step.
        """
        if self._broken:
            raise self._lost("it was lost before")
        try:
            yield
        except NotFinite:
            raise
        except BaseException as error:
            self._broken = True
            if isinstance(error, RuntimeError) and (isinstance(error, dist.DistError) or _OF_OTHERS.search(str(error))):
                raise self._lost(_reason(error)) from None
            raise

    def _lost(self, why: str) -> Lost:
        return Lost(
            f"another of the {self.world} processes has ended, or does not answer: {why}",
            "what it said itself says more; `--resume` goes on from the last checkpoint",
        )

    def _meet(self) -> None:
        """Waits, once, until the first process has something to order."""
        if not self._begun:
            with self.together():
                dist.barrier(group=self._beginning)
            self._begun = True

    def _exchange(self, order: int, number: int) -> tuple[int, int, int]:
        """The first process's order and its number, and a signal that one of them has received, or 0."""
        said = torch.tensor([order, number, self.stop.noted])
        with self.together():
            dist.all_reduce(said, dist.ReduceOp.MAX)
        order, number, agreed = said.tolist()
        return order, number, agreed

    def _trainer(self, job: TrainJob) -> Trainer:
        """This process's own, on the CPU or on the GPU with its number. Raises UsageError if there is no such GPU."""
        device = "cpu" if job.config.device == "cpu" else find(f"cuda:{self.local_rank}")
        own = replace(job, config=replace(job.config, device=device))
        return build_trainer(own, self.rank, self.world)

    def _built(self, make: Callable[[], Trainer]) -> Trainer:
        """The trainer, connected with the others', once all have built theirs.

        Raises what kept this process from it; in the first one UsageError or ResourceError for what kept another.
        """
        trouble: UsageError | ResourceError | None = None
        try:
            trainer = make()
        except (UsageError, ResourceError) as error:
            trouble = error
        own = None if trouble is None else _told(trouble)
        answers: list[tuple[bool, str, str, str] | None] = [None] * self.world
        with self.together():
            dist.all_gather_object(answers, own, group=self._beginning)  # some may have to fetch data
        if any(answers):
            if self.rank:
                raise _Elsewhere
            if trouble is not None:
                raise trouble
            rank, answer = next((rank, answer) for rank, answer in enumerate(answers) if answer)
            usage, host, message, hint = answer
            raise (UsageError if usage else ResourceError)(f"rank {rank}, on {host}: {message}", hint)
        with self.together():
            self._connect(trainer)
        return trainer

    def _connect(self, trainer: Trainer) -> None:
        """Has the trainer's gradients, its measures and BatchNorm's statistics averaged over all processes."""
        group: dist.ProcessGroup | None = None
        devices = None
        if trainer.device.type == "cuda":
            torch.cuda.set_device(trainer.device)
            if self._gpus is None:
                self._gpus = dist.new_group(timeout=self._patience, backend="nccl")
            group, devices = self._gpus, [trainer.device.index]
        module = trainer.forward
        assert isinstance(module, torch.nn.Module)
        loose = _has_loose(trainer.plan)
        how: dict[str, Any] = {"find_unused_parameters": loose, _BUFFERS: False}
        how["gradient_as_bucket_view"] = True  # gradients are not copied out of the buckets that are sent
        trainer.forward = DistributedDataParallel(module, devices, process_group=group, **how)
        statistics = [buffer for buffer in trainer.model.buffers() if buffer.is_floating_point()]

        def average(measured: Tensor) -> None:
            tensors = [measured, *statistics]
            flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
            dist.all_reduce(flat, group=group)
            parts = torch.split(flat / self.world, [tensor.numel() for tensor in tensors])
            torch._foreach_copy_(tensors, [part.view_as(to) for part, to in zip(parts, tensors, strict=True)])

        trainer.average = average


class Leader:
    """What the first process's session takes for a trainer: it is all of them."""

    def __init__(self, team: Team, trainer: Trainer, config: Config) -> None:
        """`config`: when the session looks at what it has come to, before which no order may go beyond."""
        self.trainer, self.device = trainer, trainer.device
        self._team, self._left = team, 0
        self._total = config.iterations
        self._looks = intervals(config)

    @property
    def iteration(self) -> int:
        """Finished iterations."""
        return self.trainer.iteration

    def step(self) -> None:
        """One iteration of all."""
        if not self._left:
            most = self._stride()
            self._team.order(Order.STEP, most)
            self._left = 1 if self._team.stop.signal else most
        self._left -= 1
        try:
            with self._team.together():
                self.trainer.step()
        except NotFinite:
            self._left = 0
            raise

    def _stride(self) -> int:
        """Steps until the session has to be looked into: by itself, or for a signal."""
        at = self.trainer.iteration
        return min(STEPS[self.device.type], self._total - at, *(every - at % every for every in self._looks))

    def read(self) -> Progress:
        """What happened since the last `read`, over all processes. Raises Lost if one of them has ended."""
        self._order(Order.READ, 0)
        return self.trainer.read()

    def evaluate(self, split: str = "test") -> Evaluation:
        """The error on a split."""
        self._order(Order.EVALUATE, SPLITS.index(split))
        return self._team.evaluate(self.trainer, split)

    def state(self) -> dict[str, Tensor]:
        """Everything the next step depends on, which is the same in all processes."""
        return self.trainer.state()

    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None:
        """Goes on from a state, in all of them."""
        self._order(Order.RESTORE, iteration)
        with self._team.together():
            for _ in self._team.spread(state):
                pass
        self.trainer.restore(state, iteration)

    def _order(self, order: Order, number: int) -> None:
        assert not self._left, "the others are still on their way"
        self._team.order(order, number)


@contextmanager
def joined(place: Place, *, download: bool = True, patience_s: float = PATIENCE_S) -> Iterator[Team]:
    """Within: one of the processes of a team, which ends with it.

    Raises ResourceError if they do not find each other; of all errors of processes but the first says whose they are.
    """
    follow_parent()
    try:
        dist.init_process_group("gloo", rank=place.rank, world_size=place.world, timeout=timedelta(seconds=patience_s))
        team = Team(place, download=download, patience_s=patience_s)
    except (RuntimeError, ValueError) as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise ResourceError(f"the {place.world} processes did not meet at {where}: {_reason(error)}") from None
    code = 0
    try:
        yield team
    except BaseException as error:
        code = _code(error)
        if place.rank and isinstance(error, UsageError | ResourceError):
            error.message = f"rank {place.rank}, on {socket.gethostname()}: {error.message}"
        raise
    finally:
        team.close(code)


# --- what several processes can do -----------------------------------------------------------------------------------


def require_possible(options: TrainOptions, world: int) -> None:
    """Raises UsageError for what several processes cannot do."""
    if options.cuda_graph:
        raise UsageError(f"`--cuda-graph` records the step of one process, and there are {world}", "leave it out")
    if options.device is not None and options.device.startswith("cuda:") and options.device != "cuda:0":
        raise UsageError(
            f"`{options.device}` for {world} processes: each has a GPU of its own",
            "`--device cuda`; `CUDA_VISIBLE_DEVICES` says which there are",
        )


def split_batch(recipe: Recipe, world: int, *, new: bool) -> Recipe:
    """The recipe with the BatchNorm that it has here: over a process's share of the batch, if a new run says nothing.

    It stays so for the whole run, which fewer processes can go on with in the same groups. Raises UsageError if the
    batch does not split, or BatchNorm would be over more images than a process has.
    """
    share, rest = divmod(recipe.batch_size, world)
    if rest:
        raise UsageError(
            f"a batch of {recipe.batch_size} does not split over {world} processes",
            f"`--batch-size {max(1, share) * world}`, or another number of processes",
        )
    if recipe.bn_batch is None and new:
        return recipe.changed(bn_batch=share)
    over = recipe.bn_batch or recipe.batch_size
    if over > share:
        most = recipe.batch_size // over
        raise UsageError(
            f"BatchNorm is over {over} images, and each of {world} processes has {share} of a batch",
            f"`--bn-batch {share}`, or fewer processes" if new else f"at most {most} can go on with it",
        )
    return recipe


# --- errors ----------------------------------------------------------------------------------------------------------


class _Elsewhere(Exception):  # noqa: N818 - nothing that this process has to tell
    pass


_BUFFERS = next(
    name
    for name in ("forward_sync_buffers", "broadcast_buffers")  # as it is called, and was before PyTorch 2.13
    if name in inspect.signature(DistributedDataParallel).parameters
)
"""Whether BatchNorm's statistics are those of the first process in each forward."""
_OF_OTHERS = re.compile(r"gloo|nccl|connection|timed out|timeout|socket", re.IGNORECASE)
"""What is in the messages of a connection's end."""


def _reason(error: Exception) -> str:
    """The first sentence of an error of gloo or nccl, without where in their source it was."""
    line = (str(error).strip().splitlines() or [type(error).__name__])[0].partition(". ")[0]
    return re.sub(r"^(\[[^\]]*\.(cc|cpp|h):\d+\]\s*|\[rank\d+\]:?\s*)+", "", line).rstrip(".")[:200]


def _told(error: UsageError | ResourceError) -> tuple[bool, str, str, str]:
    """An error as the first process is told of it: bad input or not, where, what, and what to do."""
    return isinstance(error, UsageError), socket.gethostname(), error.message, error.hint


def _code(error: BaseException) -> int:
    """The exit code that an error ends with, for those that cannot know."""
    found = getattr(error, "exit_code", getattr(error, "code", None))
    if isinstance(found, int):
        return found
    if isinstance(error, UsageError | SpecError):
        return 2
    if isinstance(error, KeyboardInterrupt):
        return 130
    return 3 if isinstance(error, ResourceError | MemoryError | OSError) else 1


def _has_loose(plan: Plan) -> bool:
    """Whether there are steps that the output does not depend on, whose weights get no gradients."""
    used = set(plan.outputs)
    for index in range(len(plan.steps) - 1, -1, -1):
        if index in used:
            used |= set(plan.steps[index].inputs)
    return not used.issuperset(range(len(plan.steps)))


def _leave() -> NoReturn:
    """Ends the process as it is: what waits on a GPU for a process that is lost would keep it for ever."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(3)
