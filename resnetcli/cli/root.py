"""The command line: arguments in, one library call, a result printed, an exit code. Nothing is decided here."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli import __version__
from resnetcli.cli import budget, counts, curves, data, files, tools, train, why, zoo
from resnetcli.cli.app import PANELS, app

__all__ = ["app"]
COMMANDS = (zoo, counts, files, budget, tools, why, train, data, curves)
"""The modules whose commands there are: a command is known once its module is imported."""
for each in app.registered_commands:
    name = each.name or getattr(each.callback, "__name__", "")
    each.rich_help_panel = next((panel for panel, names in PANELS.items() if name in names), None)

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
