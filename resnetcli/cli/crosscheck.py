"""Cross-check our counts against installed tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Format,
    Formats,
    Input,
    complain,
    end_failed,
    guarded,
    print_record,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models, complete_model

if TYPE_CHECKING:
    from resnetcli.reports.crosscheck import Crosschecked


app = typer.Typer(add_completion=False)


@app.command("crosscheck")
@guarded
def crosscheck(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [NAME=VALUE]...",
            help="Names, wildcards or paths; a name=value applies to the model it follows.",
            autocompletion=complete_model,
        ),
    ],
    input: Input = None,
    aux: Annotated[bool, typer.Option("--aux", help="With auxiliary training heads.")] = False,
    format: Formats = Format.table,
) -> None:
    """Build nets, run the counters that are installed, and hold ours to theirs: exit 1 if a figure differs."""
    import sys

    from resnetcli.failures import for_each
    from resnetcli.reports.crosscheck import crosscheck as check
    from resnetcli.reports.crosscheck import crosscheck_record
    from resnetcli.reports.profile import profile_model
    from resnetcli.reports.reconcile_table import crosscheck_lines, crosscheck_notes, crosscheck_sheet
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()

    def checked(name: str, given: Mapping[str, int]) -> Crosschecked:
        profile = profile_model(name, given, input=input, aux=aux, zoo=zoo)
        if sys.stderr.isatty():
            complain(f"building and counting {profile.model}")
        return check(profile)

    found, failures = for_each(asked_models(models, zoo), checked)
    nets = tuple(found)
    if format is Format.json:
        print_record(crosscheck_record(nets), failures)
    else:
        after, notes = crosscheck_lines(nets), crosscheck_notes(nets)
        print_sheet(crosscheck_sheet(nets), format, (), after, notes, failures=failures)
    if all(tool.reading.counted is None for net in nets for tool in net.tools):
        complain("no counter could be run: pip install fvcore thop")
        raise typer.Exit(3)
    end_failed(failures)
    if not all(net.agrees for net in nets):
        raise typer.Exit(1)
