"""What every command shares: the application, its options, how errors end it, how a result is printed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ParamSpec

import typer

from resnetcli.cli.arguments import complete_model
from resnetcli.errors import ResourceError, SpecError, UsageError, clean

if TYPE_CHECKING:
    from resnetcli.view.sheet import Sheet

app = typer.Typer(
    name="resnet-cli",
    no_args_is_help=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


class Format(StrEnum):
    """How a result is written."""

    table = "table"
    md = "md"
    csv = "csv"
    json = "json"


P = ParamSpec("P")


def guarded(command: Callable[P, None]) -> Callable[P, None]:
    """The command with every error a user can cause as a message and an exit code: 2 bad input, 3 not finished."""

    @functools.wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
            sys.stdout.flush()
        except (SpecError, UsageError) as error:
            complain(str(error))
            raise typer.Exit(2) from None
        except ResourceError as error:
            complain(str(error))
            raise typer.Exit(3) from None
        except MemoryError:
            complain("error: out of memory")
            raise typer.Exit(3) from None
        except BrokenPipeError:  # the reader has seen enough, as in `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None  # as whatever else a closed pipe ends: nobody has seen a verdict
        except OSError as error:
            complain(f"error: {error.strerror or error}")
            raise typer.Exit(3) from None
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    return run


def complain(message: str) -> None:
    sys.stdout.flush()
    print(message, file=sys.stderr)


Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help="Names in the zoo or paths to YAML files; a name=value applies to the model it follows.",
        autocompletion=complete_model,
    ),
]
MORE_MODELS = "net.py:Net, which runs that file, torchvision:NAME and timm:NAME are models too."
AnyModels = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL [NAME=VALUE]...",
        help="A name in the zoo or a path to a YAML file; a name=value applies to the model it follows. " + MORE_MODELS,
        autocompletion=complete_model,
    ),
]
Input = Annotated[str | None, typer.Option("--input", metavar="CxHxW", help="Input size, for example 3x320x320.")]
Batch = Annotated[int, typer.Option("--batch", help="Images at once; counts stay per image.")]
Flops = Annotated[bool, typer.Option("--flops", help="Print FLOPs (2 x MACs) instead of MACs.")]
Counting = Annotated[
    str | None,
    typer.Option(
        "--convention",
        metavar="NAME",
        help="Count as a tool does: macs, flops, fvcore, fvcore-train, thop, ptflops, ptflops-aten, torchinfo, "
        "calflops, torch, darknet.",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", metavar="cpu|cuda[:N]", help="Build there and measure; without it nothing is.")
]
Formats = Annotated[Format, typer.Option("--format", help="How the result is written.")]


def counting(convention: str | None, flops: bool) -> str:
    """The convention asked for; `--flops` is one of them. Raises UsageError where they contradict each other."""
    from resnetcli.report.convention import DEFAULT, find_convention

    if flops and convention not in (None, "flops"):
        raise UsageError("`--flops` is `--convention flops`", "one of the two")
    return find_convention(("flops" if flops else DEFAULT) if convention is None else convention).name


def announce(device: str | None, names: str) -> None:
    """Says on a terminal that it will take a moment."""
    if device is not None and sys.stderr.isatty():
        print(f"measuring {names} on {device}: some seconds each", file=sys.stderr)


def announce_files(asked: Sequence[tuple[str, object]]) -> None:
    """Says which of a user's own files will be run, before they are."""
    from resnetcli.spec.zoo import module_reference

    references = [module_reference(name) for name, _ in asked]
    for file in dict.fromkeys(found[0] for found in references if found and found[0].endswith(".py") and found[1]):
        complain(f"running {clean(file)}")


def print_sheet(sheet: Sheet, format: Format, before: list[str] | None = None, after: list[str] | None = None) -> None:
    from resnetcli.view.output import print_sheet, write
    from resnetcli.view.sheet import to_csv, to_markdown

    if format is Format.csv:
        write(to_csv(sheet))
        return
    print_lines(before or [], format)
    if format is Format.md:
        write(to_markdown(sheet) + "\n")
    else:
        print_sheet(sheet)
    print_lines(after or [], format)


def print_lines(lines: list[str], format: Format) -> None:
    from resnetcli.view.output import console, write

    if format is Format.md:
        write("".join(f"{line}  \n" for line in lines) + ("\n" if lines else ""))
        return
    for line in lines:
        console().print(line)
