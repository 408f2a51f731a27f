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
    warn_without_heads,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.reports.crosscheck import Crosscheck


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
    from resnetcli.reports.crosscheck import crosscheck as crosscheck_model
    from resnetcli.reports.crosscheck import crosscheck_lines, crosscheck_notes, crosscheck_record, crosscheck_sheet
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()

    def run(name: str, parameters: Mapping[str, int]) -> Crosscheck:
        profile = profile_model(name, parameters, input=input, aux=aux, zoo=zoo)
        warn_without_heads(profile.label, aux=aux, has_heads=profile.heads is not None)
        if sys.stderr.isatty():
            complain(f"building and counting {profile.label}")
        return crosscheck_model(profile)

    checks, failures = for_each(asked_models(models, zoo), run)
    results = tuple(checks)
    output = Output(
        lambda: crosscheck_record(results),
        lambda: [Section(crosscheck_sheet(results), (), crosscheck_lines(results), crosscheck_notes(results))],
        failures=failures, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    if all(tool.report.counted is None for result in results for tool in result.tools):
        complain("no counter could be run: pip install fvcore thop")
        raise typer.Exit(3)
    end_failed(failures)
    if not all(result.agrees for result in results):
        raise typer.Exit(1)
