"""Find the convention or variant behind a published figure."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import (
    Aux,
    ExplainColumns,
    Formats,
    Input,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command(
    "reconcile",
    epilog=examples("reconcile resnet50 4.13G", "reconcile resnext50_32x4d 25.0M", "reconcile vgg16 15.3G FLOPs"),
)
@guarded
def reconcile(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [NAME=VALUE]... FIGURE",
            help="Zoo name (see `list`) or spec.yaml, and the figure as published, e.g. 4.13G, 4133742592, 25.6M.",
            autocompletion=complete_model,
        ),
    ],
    input: Input = None,
    aux: Aux = False,
    everything: Annotated[
        bool, typer.Option("--all", help="List every match, and every tool's figure for the model.")
    ] = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Find which tool's counting rule, or which model variant, produces a given FLOPs/params figure."""
    import resnetcli.reports.reconcile as report
    from resnetcli.reports.reconcile import reconcile_record
    from resnetcli.reports.reconcile_table import (
        candidates_sheet,
        own_heading,
        own_sheet,
        reconcile_heading,
        reconcile_notes,
    )
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    models, figure = _model_and_figure(words)
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        raise UsageError(f"`reconcile` takes one model and one figure, not {len(asked)} models", "the figure is last")
    ((name, given),) = asked
    result = report.reconcile(name, figure, given, input=input, aux=aux, zoo=zoo)

    def sections() -> list[Section]:
        matches = candidates_sheet(result, everything=everything), reconcile_heading(result)
        notes = reconcile_notes(result, everything=everything)
        if result.matches and not everything:
            return [Section(*matches, (), notes)]
        return [Section(*matches), Section(own_sheet(result), [own_heading(result)], (), notes)]

    output = Output(
        lambda: reconcile_record(result), sections, lambda: [candidates_sheet(result, everything=True)],
        explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    if not result.matches:
        raise typer.Exit(1)


def _model_and_figure(words: list[str]) -> tuple[list[str], str]:
    """The words before a figure, and the figure, of which `4.1 G FLOPs` has three. Raises UsageError without either."""
    from resnetcli.reports.reconcile import parse_figure

    example = "for example `resnet-cli reconcile resnet50 4.13G`"
    if len(words) < 2:
        raise UsageError("`reconcile` takes a model and a figure", example)
    for length in range(min(3, len(words) - 1), 1, -1):
        if _is_figure(" ".join(words[-length:])):
            return words[:-length], " ".join(words[-length:])
    if _is_figure(words[0]) and not _is_figure(words[-1]):
        raise UsageError("the figure is last", f"`resnet-cli reconcile {' '.join((*words[1:], words[0]))}`")
    parse_figure(words[-1])
    return words[:-1], words[-1]


def _is_figure(text: str) -> bool:
    from resnetcli.reports.reconcile import parse_figure

    try:
        parse_figure(text)
    except UsageError:
        return False
    return True
