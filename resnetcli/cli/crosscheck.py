"""Cross-check our counts against installed tools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Aux,
    ExplainColumns,
    Formats,
    Input,
    complain,
    end_failed,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.reports.crosscheck import Crosschecked


app = typer.Typer(add_completion=False)


@app.command("crosscheck", epilog=examples("crosscheck resnet50", 'crosscheck "resnext50*" --format json'))
@guarded
def crosscheck(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [NAME=VALUE]...",
            help="Zoo names, globs or spec.yaml. NAME=VALUE sets a parameter of the preceding model.",
            autocompletion=complete_model,
        ),
    ],
    input: Input = None,
    aux: Aux = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Cross-check our counts against installed tools (fvcore, thop, ptflops, torchinfo, ...)."""
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
    output = Output(
        lambda: crosscheck_record(nets),
        lambda: [Section(crosscheck_sheet(nets), (), crosscheck_lines(nets), crosscheck_notes(nets))],
        failures=failures, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    if all(tool.reading.counted is None for net in nets for tool in net.tools):
        complain("no counter could be run: pip install fvcore thop")
        raise typer.Exit(3)
    end_failed(failures)
    if not all(net.agrees for net in nets):
        raise typer.Exit(1)
