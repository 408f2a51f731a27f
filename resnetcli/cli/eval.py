"""Evaluate a run on the test set."""

from __future__ import annotations

from typing import Annotated

import typer

from resnetcli.cli.app import ExplainColumns, Formats, complain, examples, guarded, print_output
from resnetcli.cli.train_cifar import OF_RUN, data_dir_option, device_option, no_download_option, threads_option
from resnetcli.table.formats import TABLE, Output, Section

app = typer.Typer(add_completion=False)


@app.command(
    "eval",
    epilog=examples(
        "eval runs/cifar_resnet56-cifar10-seed0",
        "eval runs/cifar_resnet56-cifar10-seed0 --checkpoint 32000",
    ),
)
@guarded
def evaluate(
    run: Annotated[str, typer.Argument(metavar="RUN", help="Run directory.")],
    checkpoint: Annotated[
        int | None,
        typer.Option("--checkpoint", metavar="N", help="Evaluate the checkpoint of iteration N. \\[default: last]"),
    ] = None,
    data_dir: Annotated[str | None, data_dir_option(default=OF_RUN)] = None,
    no_download: Annotated[bool, no_download_option()] = False,
    device: Annotated[str | None, device_option(default=f"{OF_RUN}, or cpu without it")] = None,
    threads: Annotated[int | None, threads_option(default=OF_RUN)] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Evaluate a run on the test set: overall and per-class error."""
    from resnetcli.runs.directory import open_run
    from resnetcli.train.examine import eval_lines, eval_sheet, evaluate_run
    from resnetcli.train.options import TrainOptions

    options = TrainOptions(data_dir=data_dir, download=not no_download, device=device, threads=threads)
    record = evaluate_run(open_run(run), options, complain, iteration=checkpoint)
    output = Output(
        lambda: record, lambda: [Section(eval_sheet(record), after=eval_lines(record))], explain_columns=explain_columns
    )
    print_output(output, format)
