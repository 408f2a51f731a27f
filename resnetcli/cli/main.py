"""The command line: arguments in, one library call, a result printed, an exit code. Nothing is decided here."""

from __future__ import annotations

import io
import os
import sys
from typing import Annotated

import typer

from resnetcli import __version__
from resnetcli.cli import budget, counts, curves, data, files, tools, train, why, zoo
from resnetcli.cli.app import app, complain

__all__ = ["app", "main"]
COMMANDS = (zoo, counts, files, budget, tools, why, train, data, curves)
"""The modules whose commands there are: a command is known once its module is imported."""

EXAMPLES = """[bold]Examples[/bold]

resnet-cli compare                             ResNet-50 against ResNeXt-50

resnet-cli profile resnext50_32x4d C=8 d=14    with parameters set

resnet-cli profile resnet50 --device cpu       measured as well

resnet-cli show resnet50 resnext50_32x4d       the papers' Table 1

resnet-cli compare "resnext101*" --sort macs   a family

resnet-cli check my_net.yaml                   a table of your own"""


def _version(wanted: bool) -> None:
    if wanted:
        print(f"resnet-cli {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Explore and profile convnets written as the papers' Table 1: exact counts, measured latency."""
    if context.invoked_subcommand is None:
        print(context.get_help())


def main() -> None:
    """The console script."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, PTH123 - for as long as the process lives
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without × still gets its table
    try:
        app(prog_name="resnet-cli")
    except OSError as error:  # help on a full disk: whatever is printed outside a command
        complain(f"error: {error.strerror or error}")
        sys.exit(3)
