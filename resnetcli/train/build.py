"""Build the trainer of a job, and say which batch size fits if memory does not suffice."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from resnetcli.net.memory import NoRoom, gigabytes, physical_memory
from resnetcli.plan.memory import memory
from resnetcli.train.loop import Trainer
from resnetcli.train.precision import supported_settings

if TYPE_CHECKING:
    from resnetcli.data.dataset import Dataset
    from resnetcli.train.job import TrainJob

USABLE = 0.9
"""Share of a memory that tensors can take; libraries and fragmentation take the rest."""


def build_trainer(
    job: TrainJob, rank: int = 0, world: int = 1, *, tell: Callable[[str], None] = lambda line: None
) -> Trainer:  # fmt: skip
    """The trainer of one process among `world`, on its device. Raises ResourceError if memory does not suffice.

    `tell` receives a line about each setting that is dropped during training.
    """
    config = job.config
    torch.set_num_threads(config.threads)
    require_memory(job, physical_memory())
    dtype, graph = supported_settings(config, config.device, world)
    return Trainer(
        job.plan, job.recipe, job.data, seed=config.seed, device=torch.device(config.device), dtype=dtype,
        channels_last=config.channels_last, compile=config.compile, cuda_graph=graph,
        deterministic=config.deterministic, rank=rank, world=world, tell=tell,
    )  # fmt: skip


def require_memory(job: TrainJob, total: int) -> None:
    """Raise NoRoom if a step on a CPU needs more than `total` bytes: the system would kill the process."""
    config = job.config
    if config.device != "cpu":
        return  # a GPU's allocator reports it
    needed = memory(job.plan, "train", place="cpu").bytes(config.batch_size) + _data_bytes(job.data)
    if needed > total:
        raise NoRoom(
            f"a step with a batch of {config.batch_size:,} needs {gigabytes(needed)}, "
            f"this machine has {gigabytes(total)}", batch_hint(job, total)
        )  # fmt: skip


def batch_hint(job: TrainJob, total: int) -> str:
    """The largest batch that fits into `total` bytes, derived from the tensors of a step in float32."""
    place = job.config.device.partition(":")[0]
    needed = memory(job.plan, "train", place="cuda" if place == "cuda" else "cpu")
    largest = needed.largest_batch(int(total * USABLE) - _data_bytes(job.data))
    largest = largest // 8 * 8 if largest > 16 else largest
    if largest < 1:
        return "not even one image would fit (derived)"
    if largest >= job.config.batch_size:
        return "its tensors should fit (derived): other programs may use the memory"
    return f"`--batch-size {largest}` would fit (derived); the learning rate then needs to be adapted"


def device_memory(device: str) -> int:
    """Bytes of a device's memory."""
    if device == "cpu":
        return physical_memory()
    return int(torch.cuda.get_device_properties(device).total_memory)


def _data_bytes(data: Dataset) -> int:
    return int(data.train.images.nbytes + data.test.images.nbytes)
