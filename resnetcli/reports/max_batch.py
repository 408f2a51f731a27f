"""How many images of a net fit into a memory, and what sets the limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar, get_args

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.plan.lower import lower
from resnetcli.plan.memory import Dtype, Memory, Mode, Moment, Optimizer, memory
from resnetcli.plan.plan import Plan
from resnetcli.quantities import parse_bytes
from resnetcli.reports.records import Record, sizes
from resnetcli.spec.inputs import Size, as_shape
from resnetcli.spec.read import read
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo

T = TypeVar("T", bound=str)


@dataclass(frozen=True, slots=True)
class Fit:
    """The largest batch of a net in a memory."""

    model: str
    """As the user named it."""
    spec: Spec = field(repr=False)
    plan: Plan
    available: int
    """Bytes there are."""
    memory: Memory
    batch: int
    """The most images at once; 0 if one alone is too many."""

    @property
    def shown_batch(self) -> int:
        """The batch that the breakdown is of: the largest, or one image where none fits."""
        return max(1, self.batch)

    @property
    def peak(self) -> Moment:
        """When that batch takes most."""
        return self.memory.peak(self.shown_batch)

    @property
    def peak_bytes(self) -> int:
        """What it takes then, weights included."""
        return self.memory.bytes(self.shown_batch)

    @property
    def where(self) -> str:
        """The step that sets the peak: its path, or `optimizer`."""
        return place(self.plan, self.peak)

    def breakdown(self) -> dict[str, int]:
        """What the bytes at the peak are; they sum to `peak_bytes`."""
        peak, batch = self.peak, self.shown_batch
        return {
            "weights": self.memory.weight_bytes,
            "optimizer": self.memory.state_bytes + peak.update,
            "parameter_gradients": peak.parameter_gradients,
            "input": batch * peak.input,
            "activations": batch * peak.activations + peak.statistics,
            "activation_gradients": batch * peak.gradients,
            "scratch": batch * peak.scratch,
        }


def place(plan: Plan, moment: Moment) -> str:
    """The step a moment belongs to, by its path."""
    return "optimizer" if moment.phase == "update" else plan.steps[moment.step].path


def fit(
    model: str,
    available: str | int,
    /,
    parameters: Mapping[str, int] | None = None,
    *,
    mode: str = "infer",
    dtype: str = "fp32",
    optimizer: str | None = None,
    input: Size | None = None,
    aux: bool = False,
    zoo: Zoo | None = None,
) -> Fit:
    """The largest batch that fits into `available`: bytes, or text such as `8GB`; its `batch` is 0 if none does.

    The optimizer of training is SGD with momentum unless another is named. Raises UsageError for an amount, mode, dtype
    or optimizer there is not, and what `load` raises.
    """
    room = parse_bytes(available, "memory")
    if optimizer is not None and mode == "infer":
        raise UsageError("an optimizer is of training", "`--mode train`")
    chosen = (_one(mode, get_args(Mode), "mode"), _one(dtype, get_args(Dtype), "dtype"))
    kept: Optimizer = _one(optimizer or "sgd", get_args(Optimizer), "optimizer")
    spec = read(model, zoo=zoo or Zoo(), input=as_shape(input), parameters=dict(parameters or {}))
    plan = lower(spec, aux=aux)
    found = memory(plan, chosen[0], dtype=chosen[1], optimizer=kept)
    return Fit(model, spec, plan, room, found, found.largest_batch(room))


def _one(word: str, known: tuple[T, ...], what: str) -> T:
    for each in known:
        if word == each:
            return each
    raise UsageError(f"there is no {what} `{word}`", did_you_mean(word, known, f"one of {', '.join(known)}"))


def fit_record(fit: Fit) -> Record:
    """`resnet-cli/fit@1`."""
    return {
        "schema": "resnet-cli/fit@1",
        "model": fit.model,
        "parameters": dict(fit.plan.parameters),
        "name": fit.spec.title,
        "input": sizes(fit.plan.input),
        "mode": fit.memory.mode,
        "dtype": fit.memory.dtype,
        "optimizer": fit.memory.optimizer,
        "available_bytes": fit.available,
        "batch": fit.batch,
        "peak": {
            "batch": fit.shown_batch,
            "bytes": fit.peak_bytes,
            "phase": fit.peak.phase,
            "step": fit.where,
            "parts": fit.breakdown(),
        },
    }
