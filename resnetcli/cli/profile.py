"""Profile a model."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetcli.bench.options import BenchmarkOptions
from resnetcli.cli.app import (
    AnyModels,
    Aux,
    Counting,
    ExplainColumns,
    Flops,
    Formats,
    Input,
    announce_files,
    complain,
    counting,
    examples,
    guarded,
    print_output,
    progress,
    warn_without_heads,
)
from resnetcli.cli.arguments import asked_models, command_line, refuse_device_name
from resnetcli.cli.options import with_options
from resnetcli.errors import UsageError
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.reports.profile import By, Profile
    from resnetcli.table.sheet import Sheet


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
@with_options
def profile(
    models: AnyModels,
    *,
    by: Annotated[Level, typer.Option("--by", help="Level of detail.")] = Level.stage,
    input: Input = None,
    flops: Flops = False,
    convention: Counting = None,
    aux: Aux = False,
    receptive: Annotated[bool, typer.Option("--receptive", help="Add receptive-field columns.")] = False,
    benchmark: BenchmarkOptions,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Profile a model: parameters, MACs, activations and memory per stage; latency with --device."""
    from resnetcli.reports.profile import profile_model
    from resnetcli.spec.reference import origin_of
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    refuse_device_name(models, "profile")
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        hint = f"for several: `{command_line('compare', models)}`, with your options"
        raise UsageError(f"`profile` takes one model, not {len(asked)}", hint)
    ((name, given),) = asked
    if receptive:
        from resnetcli.plan.receptive import require_connections

        require_connections(traced=origin_of(name).is_pytorch)
    announce_files(asked)
    with progress(benchmark.device, name) as report_share:
        found = profile_model(
            name, given, input=input, aux=aux, benchmark=benchmark, zoo=zoo, modules=True,
            convention=counting(convention, flops), progress=report_share,
        )  # fmt: skip
    warn_without_heads(found.label, aux=aux, has_heads=bool(found.heads), has_spec=found.parsed is not None)
    output = _output(found, by, receptive=receptive, energy=benchmark.energy)
    print_output(replace(output, explain_columns=explain_columns), format)
    if benchmark.device is not None and not found.measurements:
        for failure in found.failures:
            complain(f"error: {failure.problem}")
        raise typer.Exit(3)


def _output(found: Profile, by: Level, *, receptive: bool, energy: bool) -> Output:
    from resnetcli.reports.measured import conditions, failure_lines, measured_sheet, measurement_warnings
    from resnetcli.reports.profile_table import (
        cost_sheet,
        heading,
        published_sheet,
        totals,
        totals_notes,
        unjudged,
        with_times,
    )
    from resnetcli.table.output import bar_width

    level: By = by.value
    failures = failure_lines(found.failures) if found.measurements else []

    def sheet() -> Sheet:
        return cost_sheet(found, level, width=bar_width(), receptive=receptive)

    def sections() -> Iterator[Section]:
        yield Section(sheet(), heading(found), totals(found), totals_notes(found))
        if (published := published_sheet(found)) is not None:
            yield Section(published)
        if found.searches:
            from resnetcli.reports.search_table import SEARCH_NOTE, search_lines, search_sheet

            yield Section(search_sheet(found.searches), (), search_lines(found.searches), [SEARCH_NOTE])
        if found.measurements:
            after = measurement_warnings(found.measurements, energy=energy) + failures
            yield Section(measured_sheet(found.measurements, found.item), (), after, conditions(found.measurements))
        if note := unjudged(found):
            yield Section(before=[note])

    def record() -> dict[str, Any]:
        from resnetcli.reports.profile_record import profile_record  # slow, and only for JSON

        return profile_record(found, level)

    return Output(record, sections, lambda: [with_times(sheet(), found.measurements)], warnings=failures)
