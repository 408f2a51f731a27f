"""Profile a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    AnyModels,
    Aux,
    BatchSizes,
    Best,
    ChannelsLast,
    Compile,
    Counting,
    CudaGraph,
    Device,
    Dtype,
    Energy,
    ExplainColumns,
    Flops,
    FoldNorms,
    Formats,
    Input,
    KeepMemory,
    Mode,
    Remember,
    Threads,
    TimeBudget,
    announce_files,
    budget,
    complain,
    counting,
    examples,
    guarded,
    print_output,
    progress,
    running,
)
from resnetcli.cli.arguments import asked_models
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.reports.profile import By, Profile


app = typer.Typer(add_completion=False)


class Level(StrEnum):
    """Level of detail of the table."""

    stage = "stage"
    block = "block"
    layer = "layer"


@app.command(
    "profile",
    epilog=examples(
        "profile resnext50_32x4d",
        "profile resnet50 --by layer --convention fvcore",
        "profile resnet50 --device cuda --batch-size 1,64",
    ),
)
@guarded
def profile(
    models: AnyModels,
    by: Annotated[Level, typer.Option("--by", help="Level of detail.")] = Level.stage,
    input: Input = None,
    batch_size: BatchSizes = "1",
    flops: Flops = False,
    convention: Counting = None,
    aux: Aux = False,
    receptive: Annotated[bool, typer.Option("--receptive", help="Add receptive-field columns.")] = False,
    device: Device = None,
    time_budget: TimeBudget = None,
    mode: Mode = "infer",
    dtype: Dtype = None,
    channels_last: ChannelsLast = False,
    compile: Compile = False,
    fold_bn: FoldNorms = False,
    cuda_graph: CudaGraph = False,
    threads: Threads = None,
    keep_memory: KeepMemory = False,
    best: Best = False,
    memory: Remember = False,
    energy: Energy = False,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Profile a model: parameters, MACs, activations and memory per stage; latency with --device."""
    from resnetcli.quantities import parse_batches
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        names = " ".join(name for name, _ in asked)
        raise UsageError(f"`profile` takes one model, not {len(asked)}", f"for several: `resnet-cli compare {names}`")
    ((name, given),) = asked
    announce_files(asked)
    batches, seconds = parse_batches(batch_size, "--batch-size"), budget(time_budget, device)
    settings = running(
        device, dtype, channels_last, compile, fold_bn, cuda_graph, threads, keep_memory, best, mode, memory, energy
    )
    with progress(device, name) as tell:
        found = profile_model(
            name, given, input=input, aux=aux, batch=batches, device=device, time_budget_s=seconds, zoo=zoo,
            settings=settings, best=best, memory=memory, energy=energy, modules=True,
            convention=counting(convention, flops), tell=tell,
        )  # fmt: skip
    output = _output(found, by, receptive=receptive, energy=energy)
    print_output(replace(output, explain_columns=explain_columns), format)
    if device is not None and not found.measurements:
        for failure in found.failures:
            complain(f"error: {failure.problem}")
        raise typer.Exit(3)


def _output(found: Profile, by: Level, *, receptive: bool, energy: bool) -> Output:
    from resnetcli.reports.measured import conditions, failure_lines, measured_sheet, measurement_warnings
    from resnetcli.reports.profile_record import profile_record
    from resnetcli.reports.profile_table import (
        cost_sheet,
        heading,
        published_sheet,
        totals,
        totals_notes,
        unjudged,
        with_times,
    )
    from resnetcli.reports.search_table import LADDER_NOTE, ladder_lines, ladder_sheet
    from resnetcli.table.output import bar_width

    level: By = "row" if by is Level.stage else "block" if by is Level.block else "layer"
    sheet = cost_sheet(found, level, width=bar_width(), receptive=receptive)
    failures = failure_lines(found.failures) if found.measurements else []

    def sections() -> Iterator[Section]:
        yield Section(sheet, heading(found), totals(found), totals_notes(found))
        if (published := published_sheet(found)) is not None:
            yield Section(published)
        if found.ladders:
            yield Section(ladder_sheet(found.ladders), (), ladder_lines(found.ladders), [LADDER_NOTE])
        if found.measurements:
            after = measurement_warnings(found.measurements, energy=energy) + failures
            yield Section(measured_sheet(found.measurements), (), after, conditions(found.measurements))
        if note := unjudged(found):
            yield Section(before=[note])

    return Output(
        lambda: profile_record(found), sections, lambda: [with_times(sheet, found.measurements)], warnings=failures
    )
