"""Shared by the commands: options, error handling, progress and output."""

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
    from resnetcli.failures import ModelFailure


class FormatChoice(TyperChoice[Format]):
    """The formats that are registered when the option is read."""

    def __init__(self) -> None:
        self.case_sensitive = False

    @property
    def choices(self) -> tuple[Format, ...]:  # type: ignore[override] # typer only reads it
        return tuple(FORMATS.values())


def examples(*commands: str) -> str:
    """The examples at the end of a command's help."""
    return "[bold]Examples[/bold]\n\n" + "\n".join(f"resnet-cli {command}" for command in commands)


P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """Decorate a command: report errors as a message and an exit code, 2 for bad input, 3 for lack of resources."""

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
        except BrokenPipeError:  # as in `| head`
            from resnetcli.table.output import stream

            os.dup2(os.open(os.devnull, os.O_WRONLY), stream().fileno())
            raise typer.Exit(141) from None  # as a shell reports SIGPIPE: the output was not read to its end
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
    with contextlib.suppress(OSError):  # stderr may be closed; the exit code remains
        print(no_commands(printable(message, "\n\t")), file=sys.stderr)


def warn(lines: Sequence[str]) -> None:
    """Print warnings to stderr, for formats that programs read."""
    for line in lines:
        complain(f"warning: {line}")


def warn_without_heads(model: str, *, aux: bool, has_heads: bool, has_spec: bool = True) -> None:
    """Warn that `--aux` has no effect on a model."""
    if aux and not has_heads:
        reason = "it has no auxiliary classifiers" if has_spec else "a PyTorch model is counted in evaluation mode"
        warn([f"`--aux` has no effect on `{clean(model)}`: {reason}"])


def report_step(what: str) -> None:
    """Print to a terminal what is being measured."""
    if sys.stderr.isatty():
        complain(f"measuring {what}")


def worse(a: int, b: int) -> int:
    """The more severe of two exit codes: bad input, then lack of resources, then a failed check."""
    return max(a, b, key=(0, 1, 3, 2).index)


DATA_CACHE = "resnet-cli/data in $XDG_CACHE_HOME or ~/.cache"
"""`data.read.default_folder`, in help."""
MODEL_KINDS = "Zoo name (see `list`), spec.yaml, file.py:Class, torchvision:NAME or timm:NAME."
SETTINGS = "NAME=VALUE sets a parameter of the preceding model."
Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help=f"Zoo name or glob (see `list`), or spec.yaml. {SETTINGS}",
        autocompletion=complete_model,
    ),
]
AnyModels = Annotated[
    list[str],
    typer.Argument(metavar="MODEL [NAME=VALUE]...", help=f"{MODEL_KINDS} {SETTINGS}", autocompletion=complete_model),
]
Input = Annotated[
    list[str] | None,
    typer.Option("--input", metavar="CxHxW", help="Input shape, e.g. 3x320x320. \\[default: the model's own]"),
]
BatchSize = Annotated[int, typer.Option("--batch-size", metavar="N", help="Images per batch.")]
TimeBudget = Annotated[
    str | None,
    typer.Option(
        "--time-budget",
        metavar="TIME",
        help="Benchmark time per model and batch size, e.g. 30s, 2min. \\[default: 3s]",
    ),
]
Flops = Annotated[bool, typer.Option("--flops", help="Print FLOPs (2 x MACs) instead of MACs.")]
Counting = Annotated[
    str | None,
    typer.Option("--convention", metavar="NAME", help=option_help(), autocompletion=complete_convention),
]
DeviceProfile = typer.Option(
    "--device-profile",
    metavar="NAME|FILE",
    help="Device profile: a built-in (v100, a100-40gb, a100-80gb, h100, h200, rtx3090, rtx4090) or JSON from "
    "`calibrate`.",
)
Aux = Annotated[bool, typer.Option("--aux", help="Include auxiliary classifiers.")]
Formats = Annotated[Format, typer.Option("--format", click_type=FormatChoice(), help="Output format.")]
ExplainColumns = Annotated[
    bool, typer.Option("--explain-columns", help="Print the meaning of each column below the table.")
]


def budget(time: str | None, device: str | None) -> float:
    """Seconds per benchmark. Raises UsageError for an invalid time, or where nothing is measured."""
    from resnetcli.bench.options import TIME_BUDGET_S
    from resnetcli.cli.options import require_device
    from resnetcli.quantities import parse_duration

    if time is None:
        return TIME_BUDGET_S
    seconds = parse_duration(time, "--time-budget")
    require_device(["--time-budget"], device)
    return seconds


def counting(convention: str | None, flops: bool) -> str:
    """The name of the convention. Raises UsageError for `--flops`, a convention itself, with another one."""
    if flops and convention not in (None, "flops"):
        raise UsageError(f"`--flops` cannot be used with `--convention {convention}`", "omit one of them")
    return find_convention(("flops" if flops else DEFAULT) if convention is None else convention).name


@contextlib.contextmanager
def progress(device: str | None, names: str) -> Iterator[Callable[[float], None]]:
    """Context manager: a progress bar on a terminal, if a device is measured. Yields a function of the share done."""
    if device is None or not sys.stderr.isatty():
        yield lambda share: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    text = TextColumn("measuring {task.description} on " + clean(device), markup=False)
    columns = (text, BarColumn(), TextColumn("{task.percentage:>3.0f}%"), TimeElapsedColumn())
    console = Console(
        file=sys.stderr
    )  # not `stderr=True`, which follows `sys.stderr` where a model's prints are caught
    with Progress(*columns, console=console, transient=True, redirect_stdout=False, redirect_stderr=False) as bar:
        task = bar.add_task(clean(names, 40), total=1.0)
        yield lambda share: bar.update(task, completed=share)
        bar.update(task, completed=1.0)  # also if the precision was reached early


def announce_files(models: Sequence[tuple[str, object]]) -> None:
    """Report the user's files that will be executed."""
    from resnetcli.spec.reference import origin_of

    origins = [origin_of(name) for name, _ in models]
    for file in dict.fromkeys(origin.source for origin in origins if origin.kind in ("file", "module") and origin.name):
        complain(f"running {file}")


def end_failed(failures: Sequence[ModelFailure]) -> None:
    """Report failed models below the others' results, and exit with their exit code."""
    for message in messages(failures):
        complain(message)
    if failures:
        raise typer.Exit(exit_code(failures))


def print_output(output: Output, format: Format) -> None:
    """Print a command's output, and its warnings to stderr if the format has no place for them."""
    format.write(output)
    if not format.has_sections:
        warn(output.warnings)
