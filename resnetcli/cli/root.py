"""The application: commands by panel, each imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from resnetcli import __version__
from resnetcli.cli.app import complain, examples
from resnetcli.cli.group import CommandGroup, prepare_command
from resnetcli.errors import UsageError

PANELS = {
    "Explore": ("list", "info", "show", "papers"),
    "Analyze": ("profile", "compare", "diff", "max-batch"),
    "Benchmark": ("calibrate", "explain", "estimate"),
    "Train": ("train-cifar", "eval", "curves", "data"),
    "Specs": ("check", "fmt"),
    "Audit": ("verify", "crosscheck", "reconcile"),
}
"""Panel of the help -> its commands, in order. The command `max-batch` is in the module `cli.max_batch`."""


class Commands(CommandGroup):
    """The commands of `PANELS`, imported on first use."""

    def report(self, error: UsageError) -> None:
        """Print an error as every command does."""
        complain(str(error))

    @property
    def names(self) -> list[str]:
        """The names of all commands, without importing them."""
        return [name for names in PANELS.values() for name in names]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command, imported on first use; None if there is none of that name."""
        panel = next((panel for panel, names in PANELS.items() if cmd_name in names), None)
        if panel is not None and cmd_name not in self.commands:
            module = import_module(f"resnetcli.cli.{cmd_name.replace('-', '_')}")
            command = typer.main.get_command(module.app)
            command.rich_help_panel = panel  # type: ignore[attr-defined] # typer's own subclasses have it
            prepare_command(command)
            self.commands[cmd_name] = command
        return self.commands.get(cmd_name)


app = typer.Typer(
    name="resnet-cli",
    cls=Commands,
    no_args_is_help=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
EXAMPLES = examples(
    "compare                               ResNet-50 and ResNeXt-50",
    "profile resnext50_32x4d               counts per stage",
    "profile resnet50 --device cpu         with latency",
    "reconcile resnet50 4.13G              which tool counts that",
    "train-cifar --depth 56                train with the paper's recipe",
    "check my_model.yaml                   validate your own spec",
)


def _version(value: bool) -> None:
    if value:
        print(f"resnet-cli {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True, epilog=EXAMPLES)
def root(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Analyze, compare, benchmark and train CNNs: exact parameters and FLOPs, latency, memory."""
    if context.invoked_subcommand is None:
        print(context.get_help())
