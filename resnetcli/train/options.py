"""Options of a training run, as a user gives them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from typing import TYPE_CHECKING, Any, Protocol

import torch

from resnetcli.bench.device import find
from resnetcli.bench.execution import require_supported
from resnetcli.bench.options import DTYPES, RunOptions, as_dtype
from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.recipes.recipe import BOUNDS, Recipe

if TYPE_CHECKING:
    from resnetcli.train.session import Engine
    from resnetcli.train.stop import Stop


class DataParallel(Protocol):
    """Data-parallel processes that train one model, as rank 0 sees them; implemented in `resnetcli.parallel`."""

    world: int
    """Number of processes."""

    @property
    def stop(self) -> Stop:
        """Signals of all processes, for the run `lead` was last called for."""

    def require_supported(self, options: TrainOptions) -> None:
        """Raise UsageError for options that several processes do not support."""

    def split_batch(self, recipe: Recipe, *, new: bool) -> Recipe:
        """The recipe with BatchNorm over a process's share of the batch. Raises UsageError if that is impossible."""

    def lead(self, job: Any) -> Engine:
        """Build the trainer of a `TrainJob` in every process, and control all of them."""


@frozen(kw_only=True)
class TrainOptions:
    """Options of a training run; None: not given."""

    model: str | None = None
    parameters: Mapping[str, int] = field(default_factory=dict)
    recipe: str | None = None
    data: str | None = None
    data_dir: str | None = None
    download: bool = True
    iterations: int | None = None
    batch_size: int | None = None
    seed: int | None = None
    device: str | None = None
    dtype: str | None = None
    channels_last: bool | None = None
    compile: bool | None = None
    cuda_graph: bool | None = None
    deterministic: bool | None = None
    threads: int | None = None
    train_split: int | None = None
    bn_batch: int | None = None
    checkpoint_every: int | None = None
    eval_every: int | None = None
    team: DataParallel | None = None
    tensorboard: bool | None = None

    @property
    def processes(self) -> int:
        """Number of data-parallel processes."""
        return 1 if self.team is None else self.team.world

    def for_resume(self) -> TrainOptions:
        """The options that apply to runs whose directories have just been created with all others."""
        return TrainOptions(
            data_dir=self.data_dir, download=self.download, team=self.team, tensorboard=self.tensorboard
        )


MAY_CHANGE = ("data_dir", "download", "device", "threads", "checkpoint_every", "eval_every", "team", "tensorboard")
"""Options a resume may change: the weights do not depend on them, except for the last digits on another device."""


def with_defaults(options: TrainOptions, device: str) -> TrainOptions:
    """Fill in the fastest settings of the device for options that the user did not give.

    On a GPU: TF32, channels_last and a CUDA graph; the error is below that between two seeds. fp32 without TF32 stays
    NCHW, which is faster in cuDNN; several processes use no graph.
    """
    if device == "cpu":
        return replace(options, dtype=options.dtype or "fp32")
    dtype = options.dtype or ("tf32" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp32")
    layout = dtype != "fp32" if options.channels_last is None else options.channels_last
    graph = options.team is None if options.cuda_graph is None else options.cuda_graph
    return replace(options, dtype=dtype, channels_last=layout, cuda_graph=graph)


def resolve_device(options: TrainOptions) -> str:
    """The device of the options, or a GPU if there is one. Raises UsageError for options it does not support."""
    if options.dtype is not None and options.dtype not in DTYPES:
        hint = did_you_mean(options.dtype, DTYPES, f"one of {', '.join(DTYPES)}")
        raise UsageError(f"dtype `{options.dtype}` is not supported in training", hint)
    if options.team is not None:
        options.team.require_supported(options)
    device = find(options.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    how = RunOptions(
        dtype=as_dtype(options.dtype), channels_last=bool(options.channels_last),
        runtime="inductor" if options.compile else "eager",
        cuda_graph=bool(options.cuda_graph), threads=options.threads,
    )  # fmt: skip
    require_supported(how, device)
    return device


def require_intervals(options: TrainOptions) -> None:
    """Raise UsageError if `--checkpoint-every` or `--eval-every` is out of range."""
    for name in ("checkpoint_every", "eval_every"):
        _require_bounds(f"--{name.replace('_', '-')}", getattr(options, name), BOUNDS["iterations"])


def _require_bounds(option: str, value: int | None, bounds: tuple[int, int]) -> None:
    low, high = bounds
    if value is not None and not low <= value <= high:
        raise UsageError(f"`{option} {value}` is out of range", f"from {low:,} to {high:,}")


def changed_recipe(recipe: Recipe, options: TrainOptions) -> Recipe:
    """The recipe with the options' changes. Raises UsageError, which names the options."""
    given: dict[str, int] = {key: value for key in BOUNDS if (value := getattr(options, key)) is not None}
    flags = {key: f"--{key.replace('_', '-')}" for key in given}
    for key, value in given.items():
        _require_bounds(flags[key], value, BOUNDS[key])
    try:
        return recipe.changed(**given)
    except UsageError as error:
        for key, flag in flags.items():
            error.hint = error.hint.replace(f"`{key}`", f"`{flag}`")
        raise
