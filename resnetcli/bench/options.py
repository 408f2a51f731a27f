"""How a model is run and benchmarked: one frozen object from the command line to the record of a measurement.

An option is one field here: its default, its help, its name in tables, and where it cannot be used. The command line,
the tables, JSON and saved baselines follow from it. Torch is not imported.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, field, fields, replace
from typing import Any, Literal, NamedTuple, cast, get_args

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.quantities import parse_batches, parse_duration

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
Runtime = Literal["eager", "inductor", "torchscript", "cudnn", "onnxruntime", "openvino"]
Mode = Literal["infer", "train"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
MODES: tuple[Mode, ...] = get_args(Mode)
TOLERANCES: dict[Dtype, float] = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
"""Maximum deviation of the outputs from eager fp32: the norm of the difference relative to the norm of the reference.

Rounding alone was measured at 2e-6 for ResNet-50's last feature maps in fp32, 1.2e-2 in bf16, and 6e-2 for Inception
v3's in bf16. tf32 and fp16, which round to 10 bits, lie between and were not measured.
"""
TIME_BUDGET_S = 3.0
"""Default time to benchmark one model at one batch size."""
EXECUTION = "Execution options (with --device)"
"""Panel of the help with the options of `RunOptions`."""


class Option(NamedTuple):
    """Metadata of a field: how it is given on the command line, and where it cannot be used."""

    help: str
    flag: str = ""
    """On the command line; by default the field's name: `--channels-last`."""
    metavar: str | None = None
    panel: str | None = EXECUTION
    """In the help."""
    choices: tuple[str, ...] = ()
    """The values allowed; without any, all are."""
    given: Any = True
    """The field's value when its flag is given, for a flag."""
    parse: Callable[[str, str], Any] | None = None
    """Reads the text given; the second argument is the flag, for messages."""
    default_text: str | None = None
    """The text that stands for the default, where `parse` reads it."""
    word: Callable[[Any], str] | None = None
    """The value as a word of `RunOptions.text`; by default `fold-bn` for a flag, else the value itself."""
    exact: bool = False
    """Whether outputs stay those of eager fp32, so that they need no check."""
    searched: bool = False
    """Whether `--best` tries it."""
    by_layer: bool = True
    """Whether single layers can be timed under it, as `explain` does."""
    refused: Mapping[str, tuple[str, str]] = {}
    """For a kind of device (`cpu`, `cuda`) or a mode (`train`) the message and hint that refuse the option."""
    needs_device: bool = True
    """Whether it has no effect without a device to measure on."""


def option(default: Any, help: str, **metadata: Any) -> Any:
    """A field of an options dataclass."""
    return field(default=default, metadata={"option": Option(help, **metadata)})


def option_of(field: Field[Any]) -> Option:
    """A field's metadata, its flag filled in."""
    found: Option = field.metadata["option"]
    return found if found.flag else found._replace(flag="--" + field.name.replace("_", "-"))


def by_layer(field: Field[Any]) -> bool:
    """Whether single layers can be timed under the option."""
    return option_of(field).by_layer


def _word(option: Option, value: Any) -> str:
    if option.word is not None:
        return option.word(value)
    return option.flag.removeprefix("--") if value is True else str(value or "")


@frozen(kw_only=True)
class RunOptions:
    """How a model is run; the default is eager PyTorch with every switch as PyTorch has it.

    Raises UsageError for a value that does not exist. `execution.require_supported` checks what a device supports.
    """

    mode: Mode = option(
        "infer", "Benchmark inference (eval-mode forward) or a training step (forward + backward + optimizer).",
        metavar="infer|train", choices=MODES, exact=True, by_layer=False,
        word=lambda mode: "" if mode == "infer" else mode,
    )  # fmt: skip
    """infer: a forward pass in eval mode. train: forward, backward and an optimizer step; bf16 uses autocast."""
    dtype: Dtype | None = option(
        None, "Precision. [default: fp32; convolutions may use TF32 on GPU, as is PyTorch's default]",
        metavar="|".join(DTYPES), choices=DTYPES, word=lambda dtype: dtype or "fp32",
    )  # fmt: skip
    """Of weights and activations. tf32: float32 whose convolutions and matrix products round their inputs to 10 bits.

    None is fp32 with PyTorch's own switches, which on a GPU allow TF32 in convolutions; "fp32" forbids it.
    """
    channels_last: bool = option(
        False, "Use channels_last (NHWC) memory format.", searched=True,
        word=lambda is_set: "channels_last" if is_set else "",
    )  # fmt: skip
    fold_bn: bool = option(
        False, "Fuse BatchNorm into the preceding convolutions.", searched=True, by_layer=False,
        refused={"train": ("`--fold-bn` cannot be used with `--mode train`: fused BatchNorm cannot be trained",
                           "omit `--fold-bn`")},
    )  # fmt: skip
    keep_memory: bool = option(
        False, "Keep freed memory in the allocator between calls (CPU, glibc).", exact=True, searched=True,
        refused={"cuda": ("`--keep-memory` is for CPUs: on a GPU PyTorch keeps freed memory by default",
                          "omit `--keep-memory`")},
    )  # fmt: skip
    runtime: Runtime = option(
        "eager", "Use torch.compile (with frozen weights in inference).", flag="--compile", given="inductor",
        choices=get_args(Runtime), searched=True, by_layer=False,
        word=lambda runtime: {"eager": "", "inductor": "compile"}.get(runtime, runtime),
    )  # fmt: skip
    """inductor: `torch.compile` with frozen weights; torchscript: traced, frozen, fused by oneDNN.

    cudnn: eager PyTorch with one kernel for a convolution, its bias, and the addition and ReLU after it.
    """
    cuda_graph: bool = option(
        False, "Capture and replay a CUDA graph.", searched=True, by_layer=False,
        word=lambda is_set: "graph" if is_set else "",
        refused={"cpu": ("`--cuda-graph` requires a GPU", "omit `--cuda-graph`, or use `--device cuda`"),
                 "train": ("`--cuda-graph` cannot be used with `--mode train`", "omit `--cuda-graph`")},
    )  # fmt: skip
    threads: int | None = option(
        None, "Number of CPU threads. [default: all]", metavar="N", exact=True, by_layer=False, word=lambda threads: ""
    )

    def __post_init__(self) -> None:
        for f in fields(self):
            value, choices = getattr(self, f.name), option_of(f).choices
            if choices and value not in choices and value != f.default:
                hint = did_you_mean(str(value), choices, f"one of {', '.join(choices)}")
                raise UsageError(f"unknown {f.name} `{value}`", hint)

    @property
    def flags(self) -> tuple[str, ...]:
        """The command-line flags of options that differ from the default."""
        return tuple(option_of(f).flag for f in fields(self) if getattr(self, f.name) != f.default)

    @property
    def precision(self) -> Dtype:
        """The dtype, fp32 by default."""
        return self.dtype or "fp32"

    @property
    def tf32(self) -> bool | None:
        """Whether float32 may be rounded to TF32; None leaves PyTorch's switches as they are."""
        return None if self.dtype is None else self.dtype == "tf32"

    @property
    def compile(self) -> bool:
        """Whether `torch.compile` runs it."""
        return self.runtime == "inductor"

    @property
    def plain(self) -> bool:
        """Whether outputs are those of eager fp32, so that nothing needs to be checked."""
        changed = (f for f in fields(self) if getattr(self, f.name) != f.default and not option_of(f).exact)
        return all(f.name == "dtype" and self.precision == "fp32" for f in changed)

    @property
    def text(self) -> str:
        """For a table: `bf16 channels_last fold-bn compile`. The number of threads is a condition and not in it."""
        return " ".join(filter(None, (_word(option_of(f), getattr(self, f.name)) for f in fields(self))))

    @property
    def tolerance(self) -> float:
        """Maximum deviation of the outputs from eager fp32's."""
        return TOLERANCES[self.precision]

    def record(self) -> dict[str, Any]:
        """Keys of a measurement's JSON: every field, and `settings`, all of them as text."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"dtype": self.precision, "settings": self.text}


DEFAULT = RunOptions()


@frozen(kw_only=True)
class BenchmarkOptions:
    """Settings of a benchmark: device, batch sizes, time budget, and how models are run.

    Raises UsageError for a batch size below 1 and for options that exclude each other.
    """

    batch_sizes: tuple[int, ...] = option(
        (1,), "Batch size(s) to benchmark, e.g. 8 or 1,8,64. Counts are always per image.", flag="--batch-size",
        panel=None, metavar="N[,N]...", parse=parse_batches, default_text="1", needs_device=False,
    )  # fmt: skip
    device: str | None = option(
        None, "Benchmark on this device; without it, only static analysis.", metavar="cpu|cuda[:N]", panel=None,
        needs_device=False,
    )  # fmt: skip
    """`cpu`, `cuda` or `cuda:1`; None measures nothing."""
    time_budget_s: float = option(
        TIME_BUDGET_S, "Benchmark time per model and batch size, e.g. 30s, 2min. [default: 3s]", flag="--time-budget",
        panel=None, metavar="TIME", parse=parse_duration,
    )  # fmt: skip
    run: RunOptions = DEFAULT
    best: bool = option(False, "Autotune: try all settings, verify outputs, report the fastest.")
    memory: bool = option(False, "Also measure peak memory in a fresh process (a few seconds per run).", panel=None)
    energy: bool = option(
        False, "Also measure energy per image in joules, via NVML or RAPL (about 8 s per run).", panel=None
    )

    def resolve_device(self) -> BenchmarkOptions:
        """With the device as measurements name it: `cuda:0` for `cuda`. Raises UsageError for an unknown device."""
        if self.device is None:
            return self
        from resnetcli.bench.device import find

        return replace(self, device=find(self.device))

    def __post_init__(self) -> None:
        if not self.batch_sizes or min(self.batch_sizes) < 1:
            raise UsageError("`--batch-size` must be at least 1", "for example `--batch-size 8`")
        if not self.best:
            return
        if self.run.mode != "infer":
            raise UsageError("`--best` cannot be used with `--mode train`", "omit one of them")
        if self.energy:
            raise UsageError("`--best` cannot be used with `--energy`", "use `--energy` with the settings it finds")
        searched = {option_of(f).flag for f in fields(self.run) if option_of(f).searched}
        for flag in self.run.flags:
            if flag in searched:
                raise UsageError(f"`{flag}` cannot be used with `--best`, which already tries it", "omit one of them")


def as_dtype(text: str | None) -> Dtype | None:
    """The dtype of that name. Raises UsageError for another name."""
    return RunOptions(dtype=cast("Dtype | None", text)).dtype
