"""The largest batch of a model that fits in a memory, with a breakdown of the peak."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import TypeVar, get_args

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.plan.lower import lower
from resnetcli.plan.memory import Dtype, Memory, Mode, Moment, Optimizer, memory
from resnetcli.plan.plan import Plan, settings_text
from resnetcli.quantities import parse_bytes
from resnetcli.reports.records import Record, sizes
from resnetcli.spec.inputs import Size, as_shape
from resnetcli.spec.read import read
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact, percent, size_of
from resnetcli.table.sheet import Sheet

T = TypeVar("T", bound=str)
PARTS = {
    "weights": "weights, BN statistics",
    "optimizer": "optimizer",
    "parameter_gradients": "gradients of parameters",
    "input": "images",
    "activations": "activations",
    "activation_gradients": "gradients of activations",
    "scratch": "temporary buffers",
}
"""Key of a part of the memory -> its name in tables."""
OPTIMIZERS = {"sgd": "SGD with momentum", "adam": "Adam"}


@frozen
class MaxBatch:
    """The largest batch of a model that fits in a memory."""

    model: str
    """As given."""
    spec: Spec = field(repr=False)
    plan: Plan
    available: int
    """Available memory in bytes."""
    memory: Memory
    batch: int
    """The largest batch size; 0 if a single image does not fit."""

    @property
    def shown_batch(self) -> int:
        """The batch size of the breakdown: the largest, or 1 if none fits."""
        return max(1, self.batch)

    @property
    def peak(self) -> Moment:
        """The moment of peak memory."""
        return self.memory.peak(self.shown_batch)

    @property
    def peak_bytes(self) -> int:
        """Peak memory, weights included."""
        return self.memory.bytes(self.shown_batch)

    @property
    def peak_step(self) -> str:
        """The path of the step at the peak, or `optimizer`."""
        return step_at(self.plan, self.peak)

    def breakdown(self) -> dict[str, int]:
        """Bytes at the peak by the parts in PARTS; they sum to `peak_bytes`."""
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


def max_batch(
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
) -> MaxBatch:
    """The largest batch that fits in `available` memory: bytes, or text such as `8GB`; `batch` is 0 if none does.

    The default optimizer of `mode="train"` is SGD with momentum. Raises UsageError for an invalid amount, mode, dtype
    or optimizer, and as `load` does.
    """
    room = parse_bytes(available, "memory")
    if optimizer is not None and mode == "infer":
        raise UsageError("`--optimizer` requires `--mode train`", "add `--mode train`, or omit `--optimizer`")
    phase: Mode = _choose(mode, get_args(Mode), "mode")
    precision: Dtype = _choose(dtype, get_args(Dtype), "dtype")
    state: Optimizer = _choose(optimizer or "sgd", get_args(Optimizer), "optimizer")
    spec = read(model, zoo=zoo or Zoo(), input=as_shape(input), parameters=dict(parameters or {}))
    plan = lower(spec, aux=aux)
    held = memory(plan, phase, dtype=precision, optimizer=state)
    return MaxBatch(model, spec, plan, room, held, held.largest_batch(room))


def _choose(word: str, known: tuple[T, ...], what: str) -> T:
    for option in known:
        if word == option:
            return option
    raise UsageError(f"unknown {what} `{word}`", did_you_mean(word, known, f"one of {', '.join(known)}"))


def step_at(plan: Plan, moment: Moment) -> str:
    """The path of the step of a moment, or `optimizer`."""
    return "optimizer" if moment.phase == "update" else plan.steps[moment.step].path


# --- as a table ------------------------------------------------------------------------------------------------------


def max_batch_heading(result: MaxBatch) -> list[str]:
    """The model, and the largest batch."""
    parameters = {name: value for name, value in result.plan.parameters.items() if name in result.spec.changed}
    mode = "training" if result.memory.mode == "train" else "inference"
    optimizer = f", {OPTIMIZERS[result.memory.optimizer]}" if result.memory.optimizer else ""
    return [
        "   ".join(filter(None, (result.spec.title, result.model, settings_text(parameters)))),
        f"largest {mode} batch in {size_of(result.available)}, {result.memory.dtype}{optimizer}: {exact(result.batch)}"
        + ("" if result.batch else " (a single image does not fit)"),
    ]


def max_batch_sheet(result: MaxBatch) -> Sheet:
    """The parts of the peak memory."""
    whole = result.peak_bytes
    fields: list[Field[tuple[str, int]]] = [
        Field("part", "at the peak", lambda part: part[0], lambda key: PARTS.get(key, key), align="left", style="bold",
              help="what the memory holds at the moment of peak memory"),
        Field("bytes", "memory", lambda part: part[1], size_of, help="bytes of the part"),
        Field("share", "share", lambda part: round(part[1] / whole, 6) if part[1] != whole else 1, percent,
              help="part of the peak memory"),
        Field("batch", "batch", lambda part: result.batch, shown=False, help="largest batch size that fits"),
    ]  # fmt: skip
    return Sheet.of(fields, [part for part in result.breakdown().items() if part[1]], ("total", whole))


def max_batch_notes(result: MaxBatch) -> list[str]:
    """The step at the peak, and the memory of one more image."""
    images = "1 image" if result.shown_batch == 1 else f"{exact(result.shown_batch)} images"
    step = f"the {result.peak.phase} pass of {result.peak_step}"
    place = "the optimizer's update" if result.peak.phase == "update" else step
    lines = [f"{images} of {result.plan.input}: peak in {place}"]
    if result.batch:
        more = result.memory.bytes(result.batch + 1)
        lines[0] += f"; one more image needs {size_of(more)}, {size_of(more - result.available)} too much"
    else:
        lines[0] += f"; {size_of(result.peak_bytes - result.available)} too much"
    if result.spec.aux and result.memory.mode == "train" and len(result.plan.outputs) == 1:
        lines.append("without auxiliary classifiers (--aux)")
    return lines


def max_batch_conditions(result: MaxBatch) -> str:
    """Notes on what the memory figures include and exclude."""
    return (
        f"derived: all tensors that PyTorch holds, in {result.memory.dtype} without autocast; excludes convolution "
        "workspaces, the GPU context (about 0.5 GB), fragmentation and the loss"
    )


def max_batch_record(result: MaxBatch) -> Record:
    """`resnet-cli/max-batch@1`."""
    return {
        "schema": "resnet-cli/max-batch@1",
        "model": result.model,
        "parameters": dict(result.plan.parameters),
        "name": result.spec.title,
        "input": sizes(result.plan.input),
        "mode": result.memory.mode,
        "dtype": result.memory.dtype,
        "optimizer": result.memory.optimizer,
        "available_bytes": result.available,
        "batch": result.batch,
        "peak": {
            "batch": result.shown_batch,
            "bytes": result.peak_bytes,
            "phase": result.peak.phase,
            "step": result.peak_step,
            "parts": result.breakdown(),
        },
    }
