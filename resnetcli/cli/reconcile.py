"""Find the convention or variant behind a published figure."""

from __future__ import annotations

from itertools import takewhile
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
    warn_without_heads,
)
from resnetcli.cli.arguments import asked_models, command_line, complete_model, model_words
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
        one = command_line("reconcile", [*model_words(asked[0]), *figure.split()])
        raise UsageError(f"`reconcile` takes one model, not {len(asked)}", f"one at a time: `{one}`")
    ((name, given),) = asked
    result = report.reconcile(name, figure, given, input=input, aux=aux, zoo=zoo)
    warn_without_heads(name, aux=aux, has_heads=result.variant.aux)

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

    if len(words) < 2:
        figure = words[0] if _is_figure(words[0]) else "4.13G"
        raise UsageError("`reconcile` takes a model and a figure", f"for example {_example(words, figure)}")
    for length in range(min(3, len(words) - 1), 0, -1):
        if _is_figure(" ".join(words[-length:])):
            models = words[:-length]
            if second := next((word for word in models if _is_figure(word)), ""):
                raise UsageError("`reconcile` takes one figure", f"one at a time: {_example(models, second)}")
            return models, " ".join(words[-length:])
    for length in range(min(3, len(words) - 1), 0, -1):
        for start in range(len(words) - length):
            parts = words[start : start + length]
            if _is_figure(" ".join(parts)):
                others = [*words[:start], *words[start + length :]]
                raise UsageError("the figure is last", _example(others, *parts))
    try:
        parse_figure(words[-1])
    except UsageError as error:
        if "=" not in words[-1]:
            raise
        hint = f"the figure is last: {_example(words, '4.13G')}"
        raise UsageError("`reconcile` takes a model and a figure", hint) from error
    return words[:-1], words[-1]


def _example(words: list[str], *figure: str) -> str:
    """The command with the first model among the words, its parameters, and the figure."""
    from resnetcli.files import is_file
    from resnetcli.spec.zoo import Zoo

    places = [place for place, word in enumerate(words) if word in Zoo().files or is_file(word)]
    model = words[places[0]] if places else "resnet50"
    settings: dict[str, str] = {}
    for word in takewhile(lambda word: "=" in word, words[places[0] + 1 :] if places else []):
        settings.setdefault(word.partition("=")[0], word)
    return f"`{command_line('reconcile', [model, *settings.values(), *figure])}`"


def _is_figure(text: str) -> bool:
    from resnetcli.reports.reconcile import parse_figure

    try:
        parse_figure(text)
    except UsageError:
        return False
    return True
