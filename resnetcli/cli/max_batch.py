"""Find the largest batch size that fits in a memory budget."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import (
    Aux,
    ExplainColumns,
    Formats,
    Input,
    Models,
    complain,
    examples,
    guarded,
    print_output,
    warn_without_heads,
)
from resnetcli.cli.arguments import asked_models
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command(
    "max-batch",
    epilog=examples("max-batch resnet50 --memory 24GiB", "max-batch vgg16 --memory 16GB --mode train --dtype bf16"),
)
@guarded
def max_batch(
    models: Models,
    memory: Annotated[str, typer.Option("--memory", metavar="SIZE", help="Available memory, e.g. 24GiB.")],
    mode: Annotated[
        str, typer.Option("--mode", metavar="infer|train", help="Inference, or a training step.")
    ] = "infer",
    dtype: Annotated[
        str,
        typer.Option("--dtype", metavar="fp32|bf16|fp16", help="Precision."),
    ] = "fp32",
    optimizer: Annotated[
        str | None,
        typer.Option(
            "--optimizer",
            metavar="sgd|adam",
            help="Optimizer, for --mode train. \\[default: sgd, with momentum]",
        ),
    ] = None,
    input: Input = None,
    aux: Aux = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Find the largest batch size that fits in a memory budget, with a breakdown."""
    import resnetcli.reports.max_batch as report
    from resnetcli.reports.max_batch import (
        max_batch_conditions,
        max_batch_heading,
        max_batch_notes,
        max_batch_record,
        max_batch_sheet,
    )
    from resnetcli.spec.zoo import Zoo
    from resnetcli.table.numbers import size_of

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        others = " ".join(f"`{name}`" for name, _ in asked[1:4])
        raise UsageError(f"`max-batch` takes one model, not {len(asked)}", f"one at a time: omit {others}")
    ((name, given),) = asked
    result = report.max_batch(
        name, memory, given, mode=mode, dtype=dtype, optimizer=optimizer,
        input=input, aux=aux, zoo=zoo,
    )  # fmt: skip
    warn_without_heads(name, aux=aux, has_heads=bool(result.spec.aux))
    section = Section(
        max_batch_sheet(result), max_batch_heading(result), max_batch_notes(result), [max_batch_conditions(result)]
    )
    output = Output(lambda: max_batch_record(result), lambda: [section], explain_columns=explain_columns)
    print_output(output, format)
    if not result.batch:
        needed, available = size_of(result.peak_bytes), size_of(result.available)
        complain(f"`{name}` does not fit: one image needs {needed}, available are {available}")
        raise typer.Exit(1)
