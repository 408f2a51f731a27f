"""What every command shares: its options, how errors end it, how a result is printed."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer
from typer._types import TyperChoice

from resnetcli.cli.arguments import complete_model
from resnetcli.counting.conventions import DEFAULT, complete_convention, find_convention, option_help
from resnetcli.errors import ResourceError, SpecError, UsageError, clean, listening
from resnetcli.failures import ModelsError, exit_code, messages
from resnetcli.table.formats import FORMATS, Format, Output

if TYPE_CHECKING:
    from resnetcli.bench.settings import Settings
    from resnetcli.failures import ModelFailure


class FormatChoice(TyperChoice[Format]):
    """The formats that are registered when the option is read."""

    def __init__(self) -> None:
        self.case_sensitive = False

    @property
    def choices(self) -> tuple[Format, ...]:  # type: ignore[override] # typer only reads it
        return tuple(FORMATS.values())


def examples(*commands: str) -> str:
    """The end of a command's help: command lines to copy."""
    return "[bold]Examples[/bold]\n\n" + "\n".join(f"resnet-cli {command}" for command in commands)


P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The command with every error a user can cause as a message and an exit code: 2 bad input, 3 not finished."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            with listening(lambda warning: complain(str(warning))):
                command(*args, **kwargs)
            _flush()
        except (SpecError, UsageError) as error:
            complain(str(error))
            raise typer.Exit(2) from None
        except ResourceError as error:
            complain(str(error))
            raise typer.Exit(3) from None
        except ModelsError as error:
            complain(str(error))
            raise typer.Exit(error.exit_code) from None
        except MemoryError:
            complain("error: out of memory")
            raise typer.Exit(3) from None
        except BrokenPipeError:  # the reader has seen enough, as in `| head`
            from resnetcli.table.output import stream

            os.dup2(os.open(os.devnull, os.O_WRONLY), stream().fileno())
            raise typer.Exit(141) from None  # as whatever else a closed pipe ends: nobody has seen a verdict
        except OSError as error:
            complain(f"error: {error.strerror or error}")
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def _flush() -> None:
    from resnetcli.table.output import stream

    stream().flush()


def complain(message: str) -> None:
    """Print to stderr."""
    from resnetcli.table.safe import no_commands, printable

    _flush()
    with contextlib.suppress(OSError):  # where nobody can be told, the exit code still tells
        print(no_commands(printable(message, "\n\t")), file=sys.stderr)


def warn(lines: Sequence[str]) -> None:
    """Print warnings to stderr, for formats that programs read."""
    for line in lines:
        complain(f"warning: {line}")


def report_step(what: str) -> None:
    """Print to a terminal what is being measured."""
    if sys.stderr.isatty():
        complain(f"measuring {what}")


def worse(a: int, b: int) -> int:
    """The more severe of two exit codes: bad input, then lack of resources, then a failed check."""
    return max(a, b, key=(0, 1, 3, 2).index)


Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help="Zoo name or glob (see `list`), or spec.yaml. NAME=VALUE sets a parameter of the preceding model.",
        autocompletion=complete_model,
    ),
]
MODEL_KINDS = "Zoo name (see `list`), spec.yaml, file.py:Class, torchvision:NAME or timm:NAME."
SETTINGS = "NAME=VALUE sets a parameter of the preceding model."
AnyModels = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help=f"{MODEL_KINDS} {SETTINGS}",
        autocompletion=complete_model,
    ),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="CxHxW", help="Input shape, e.g. 3x320x320. \\[default: the model's own]"),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", help="Images per batch.")]
BatchSizes = Annotated[
    str,
    typer.Option(
        "--batch-size",
        metavar="N[,N]...",
        help="Batch size(s) to benchmark, e.g. 8 or 1,8,64. Counts are always per image.",
    ),
]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        metavar="TIME",
        help="Benchmark time per model and batch size, e.g. 30s, 2min. \\[default: 3s]",
    ),
]
RUNNING = "Execution options (with --device)"
Dtype = Annotated[
    str | None,
    typer.Option(
        "--dtype", metavar="fp32|tf32|bf16|fp16", rich_help_panel=RUNNING,
        help="Precision. \\[default: fp32; convolutions may use TF32 on GPU, as is PyTorch's default]",
    ),
]  # fmt: skip
ChannelsLast = Annotated[
    bool, typer.Option("--channels-last", rich_help_panel=RUNNING, help="Use channels_last (NHWC) memory format.")
]
Compile = Annotated[
    bool,
    typer.Option("--compile", rich_help_panel=RUNNING, help="Use torch.compile (with frozen weights in inference)."),
]
FoldNorms = Annotated[
    bool, typer.Option("--fold-bn", rich_help_panel=RUNNING, help="Fuse BatchNorm into the preceding convolutions.")
]
CudaGraph = Annotated[
    bool, typer.Option("--cuda-graph", rich_help_panel=RUNNING, help="Capture and replay a CUDA graph.")
]
Threads = Annotated[
    int | None,
    typer.Option("--threads", metavar="N", rich_help_panel=RUNNING, help="Number of CPU threads. \\[default: all]"),
]
KeepMemory = Annotated[
    bool,
    typer.Option(
        "--keep-memory", rich_help_panel=RUNNING, help="Keep freed memory in the allocator between calls (CPU, glibc)."
    ),
]
Best = Annotated[
    bool,
    typer.Option(
        "--best", rich_help_panel=RUNNING, help="Autotune: try all settings, verify outputs, report the fastest."
    ),
]
Mode = Annotated[
    str,
    typer.Option(
        "--mode", metavar="infer|train", rich_help_panel=RUNNING,
        help="Benchmark inference (eval-mode forward) or a training step (forward + backward + optimizer).",
    ),
]  # fmt: skip
Remember = Annotated[
    bool,
    typer.Option("--memory", help="Also measure peak memory in a fresh process (a few seconds per run)."),
]
Energy = Annotated[
    bool,
    typer.Option("--energy", help="Also measure energy per image in joules, via NVML or RAPL (about 8 s per run)."),
]
Flops = Annotated[bool, typer.Option("--flops", help="Print FLOPs (2 x MACs) instead of MACs.")]
Counting = Annotated[
    str | None,
    typer.Option(
        "--convention",
        metavar="NAME",
        help=option_help(),
        autocompletion=complete_convention,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        "--device", metavar="cpu|cuda[:N]", help="Benchmark on this device; without it, only static analysis."
    ),
]
DeviceProfile = typer.Option(
    "--device-profile",
    metavar="NAME|FILE",
    help="Device profile: a built-in (v100, a100-40gb, a100-80gb, h100, h200, rtx3090, rtx4090) or JSON from "
    "`calibrate`.",
)
FloorDtype = Annotated[
    str | None, typer.Option("--dtype", metavar="fp32|tf32|bf16|fp16", help="Precision. \\[default: fp32]")
]
Aux = Annotated[bool, typer.Option("--aux", help="Include auxiliary classifiers.")]
Formats = Annotated[Format, typer.Option("--format", click_type=FormatChoice(), help="Output format.")]
ExplainColumns = Annotated[
    bool, typer.Option("--explain-columns", help="Print the meaning of each column below the table.")
]


def running(
    device: str | None, dtype: str | None, channels_last: bool, compile: bool, fold_bn: bool, cuda_graph: bool,
    threads: int | None, keep_memory: bool, best: bool, mode: str = "infer", memory: bool = False,
    energy: bool = False,
) -> Settings:  # fmt: skip
    """How nets are to be run. Raises UsageError for what contradicts itself or measures nothing."""
    from resnetcli.bench.settings import settings

    flags = {
        "--channels-last": channels_last, "--compile": compile, "--fold-bn": fold_bn, "--cuda-graph": cuda_graph,
        "--keep-memory": keep_memory,
    }  # fmt: skip
    given = [name for name, is_given in flags.items() if is_given]
    others = {
        "--dtype": dtype is not None, "--threads": threads is not None, "--best": best, "--mode": mode != "infer",
        "--memory": memory, "--energy": energy,
    }  # fmt: skip
    asked = [*given, *(name for name, is_given in others.items() if is_given)]
    if device is None and asked:
        raise UsageError(f"`{asked[0]}` is about measuring", "add `--device cpu`, or another device")
    if best and given:
        raise UsageError(f"`--best` tries `{given[0]}` and the others by itself", "one of the two")
    return settings(
        dtype, channels_last=channels_last, compile=compile, fold_bn=fold_bn, cuda_graph=cuda_graph, threads=threads,
        keep_memory=keep_memory, mode=mode,
    )  # fmt: skip


def budget(time: str | None, device: str | None) -> float:
    """Seconds that measuring may take. Raises UsageError for what is no time, or where nothing is measured."""
    from resnetcli.quantities import parse_duration
    from resnetcli.reports.profile import TIME_BUDGET_S

    if time is None:
        return TIME_BUDGET_S
    seconds = parse_duration(time, "--time-budget")
    if device is None:
        raise UsageError("`--time-budget` is about measuring", "add `--device cpu`, or another device")
    return seconds


def counting(convention: str | None, flops: bool) -> str:
    """The convention asked for; `--flops` is one of them. Raises UsageError where they contradict each other."""
    if flops and convention not in (None, "flops"):
        raise UsageError("`--flops` is `--convention flops`", "one of the two")
    return find_convention(("flops" if flops else DEFAULT) if convention is None else convention).name


@contextlib.contextmanager
def progress(device: str | None, names: str) -> Iterator[Callable[[float], None]]:
    """Draws on a terminal how much of the measuring is done, as it is told, from 0 to 1; nothing where none is."""
    if device is None or not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("measuring {task.description} on " + clean(device), markup=False)
    columns = (text, BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(clean(names, 40), total=1.0)
        yield lambda share: shown.update(task, completed=share)
        shown.update(task, completed=1.0)  # what is precise early is done, too


def announce_files(asked: Sequence[tuple[str, object]]) -> None:
    """Says which of a user's own files will be run, before they are."""
    from resnetcli.spec.reference import origin_of

    origins = [origin_of(name) for name, _ in asked]
    for file in dict.fromkeys(origin.source for origin in origins if origin.kind in ("file", "module") and origin.name):
        complain(f"running {file}")


def end_failed(failures: Sequence[ModelFailure]) -> None:
    """Report failed models below the others' results, and exit with their exit code."""
    for message in messages(failures):
        complain(message)
    if failures:
        raise typer.Exit(exit_code(failures))


def print_output(output: Output, format: Format) -> None:
    """Print what a command found."""
    format.write(output)
    if not format.has_sections:
        warn(output.warnings)
