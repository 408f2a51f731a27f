"""Commands about what a net costs: counted, measured, and held to what is printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    MORE_MODELS,
    AnyModels,
    Batches,
    Best,
    ChannelsLast,
    Compile,
    Counting,
    CudaGraph,
    Device,
    Dtype,
    Energy,
    Flops,
    FoldNorms,
    Format,
    Formats,
    Input,
    KeepMemory,
    Mode,
    Remember,
    Threads,
    TimeBudget,
    announce_files,
    app,
    budget,
    complain,
    counting,
    end_failed,
    guarded,
    print_lines,
    print_record,
    print_sheet,
    progress,
    running,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import ResourceError, UsageError
from resnetcli.failures import exit_code, messages

if TYPE_CHECKING:
    from resnetcli.reports.baseline import Net, Saved
    from resnetcli.reports.profile import Profile


class Parts(StrEnum):
    """What a profile's rows are."""

    row = "row"
    block = "block"
    layer = "layer"


@app.command()
@guarded
def profile(
    models: AnyModels,
    by: Annotated[Parts, typer.Option("--by", help="What a row of the table is.")] = Parts.row,
    input: Input = None,
    batch: Batches = "1",
    flops: Flops = False,
    convention: Counting = None,
    aux: Annotated[bool, typer.Option("--aux", help="Count auxiliary training heads too.")] = False,
    receptive: Annotated[
        bool, typer.Option("--receptive", help="Add receptive field, stride and padding, over all paths.")
    ] = False,
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
    format: Formats = Format.table,
) -> None:
    """Profile one net: what each row costs, the printed figures beside the counted ones, latency on a device."""
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
    batches, seconds = parse_batches(batch), budget(time_budget, device)
    settings = running(
        device, dtype, channels_last, compile, fold_bn, cuda_graph, threads, keep_memory, best, mode, memory, energy
    )
    with progress(device, name) as tell:
        found = profile_model(
            name, given, input=input, aux=aux, batch=batches, device=device, time_budget_s=seconds, zoo=zoo,
            settings=settings, best=best, memory=memory, energy=energy, modules=True,
            convention=counting(convention, flops), tell=tell,
        )  # fmt: skip
    _print_profile(found, by, format, receptive=receptive, energy=energy)
    if device is not None and not found.measurements:
        for failure in found.failures:
            complain(f"error: {failure.problem}")
        raise typer.Exit(3)


def _print_profile(found: Profile, by: Parts, format: Format, *, receptive: bool, energy: bool) -> None:
    from resnetcli.reports.profile_table import (
        conditions,
        cost_sheet,
        doubts,
        failure_lines,
        heading,
        measured_sheet,
        published_sheet,
        totals,
        totals_notes,
        unjudged,
        with_times,
    )
    from resnetcli.table.output import bar_width, print_json

    if format is Format.json:
        from resnetcli.reports.records import profile_record

        print_json(profile_record(found))
        return
    sheet = cost_sheet(found, by.value, width=bar_width(), receptive=receptive)
    if format is Format.csv:
        print_sheet(with_times(sheet, found.measurements), format)
        for line in failure_lines(found.failures) if found.measurements else []:
            complain(line)
        return
    note = unjudged(found)
    print_sheet(sheet, format, heading(found), totals(found), totals_notes(found))
    if (published := published_sheet(found)) is not None:
        print_sheet(published, format, below=True)
    if found.ladders:
        from resnetcli.reports.search_table import LADDER_NOTE, ladder_lines, ladder_sheet

        print_sheet(ladder_sheet(found.ladders), format, (), ladder_lines(found.ladders), [LADDER_NOTE], below=True)
    if found.measurements:
        after = doubts(found.measurements, energy=energy) + failure_lines(found.failures)
        print_sheet(measured_sheet(found.measurements), format, (), after, conditions(found.measurements), below=True)
    if note:
        print_lines([note], format)


@app.command()
@guarded
def compare(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL [NAME=VALUE]...]...",
            help="Names, wildcards or paths; without any, ResNet-50 and ResNeXt-50 of ResNeXt's Table 1. "
            + MORE_MODELS,
            autocompletion=complete_model,
        ),
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Every net of the zoo.")] = False,
    sort: Annotated[
        str | None, typer.Option("--sort", metavar="FIGURE", help="params, macs, depth, ...; -macs: largest first.")
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="MODEL", help="Add columns relative to this one.")
    ] = None,
    accuracy: Annotated[
        bool, typer.Option("--accuracy", help="Add the accuracies papers print under one evaluation protocol.")
    ] = False,
    protocol: Annotated[
        str | None, typer.Option("--protocol", metavar="NAME", help="That protocol, for example single-crop-224.")
    ] = None,
    max_params: Annotated[
        str | None, typer.Option("--max-params", metavar="COUNT", help="Leave out nets with more: 30M.")
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="COUNT", help="Leave out nets with more: 4.2G.")
    ] = None,
    input: Input = None,
    batch: Batches = "1",
    flops: Flops = False,
    convention: Counting = None,
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
    save: Annotated[
        str | None, typer.Option("--save", metavar="FILE", help="Keep the times measured, to hold later runs against.")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", metavar="FILE", help="Such a file: exit 1 if a net has become slower.")
    ] = None,
    format: Formats = Format.table,
) -> None:
    """Compare nets: parameters, MACs, activations and depth, printed figures beside them; measured on a device."""
    import resnetcli.reports.baseline as saved
    import resnetcli.reports.compare as report
    from resnetcli.quantities import parse_batches, parse_count
    from resnetcli.reports.compare_table import (
        caption,
        changes_lines,
        changes_sheet,
        comparison_sheet,
        contest_lines,
        results_lines,
    )
    from resnetcli.reports.profile_table import conditions, doubts, failure_lines
    from resnetcli.reports.records import compare_record, measurement_records, saved_record
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    if all_models and models:
        raise UsageError("`--all` and models exclude each other")
    asked = asked_models(list(zoo.files) if all_models else models or list(report.HEADLINE), zoo)
    announce_files(asked)
    batches, seconds = parse_batches(batch), budget(time_budget, device)
    settings = running(
        device, dtype, channels_last, compile, fold_bn, cuda_graph, threads, keep_memory, best, mode, memory, energy
    )
    most = {name: parse_count(text, f"--max-{name}") for name, text in (("params", max_params), ("macs", max_macs))
            if text is not None}  # fmt: skip
    nets = partial(saved.nets_of, asked, input=input, zoo=zoo, most=most)
    kept = _kept(save, against, device, nets, batches)
    with progress(device, " ".join(name for name, _ in asked)) as tell:
        found = report.compare(
            *asked, input=input, batch=batches, device=device, time_budget_s=seconds, sort=sort, baseline=baseline,
            accuracy=accuracy, protocol=protocol, zoo=zoo, convention=counting(convention, flops),
            settings=settings, best=best, memory=memory, energy=energy, max_params=most.get("params"),
            max_macs=most.get("macs"), keep_going=True, tell=tell,
        )  # fmt: skip
    changes = saved.changes(found, measurement_records(found), kept) if kept else None
    if format is Format.json:
        print_record(compare_record(found, changes), found.failed)
    else:
        after, notes = results_lines(found), caption(found)
        if measured := [m for p in found.profiles for m in p.measurements]:
            first, *others = conditions(measured)
            notes = [f"{notes[0]}; {first}", *contest_lines(found), *notes[1:], *others]
            models = [report.label(p) for p in found.profiles for _ in p.measurements]
            after += doubts(measured, models=models, energy=energy)
        failed = failure_lines([failure for p in found.profiles for failure in p.failures])
        print_sheet(comparison_sheet(found), format, (), after + failed, notes, failures=found.failed)
        if format is Format.csv:
            for line in failed:
                complain(line)
        if changes and format is not Format.csv:
            print_sheet(changes_sheet(changes), format, after=changes_lines(changes), below=True)
    for message in messages(found.failed):
        complain(message)
    if changes and changes.regressed:
        complain("slower than before: " + ", ".join(f"{c.model} at batch {c.batch}" for c in changes.regressed))
        raise typer.Exit(1)
    if save is not None:
        saved.save(saved_record(found), found, save)
    if changes and changes.undecided:
        raise ResourceError("the run was noisy, so nothing is said of some nets", "measure again on a quiet machine")
    if found.failed:
        raise typer.Exit(exit_code(found.failed))


def _kept(
    save: str | None, against: str | None, device: str | None, nets: Callable[[], Sequence[Net]], batches: Sequence[int]
) -> Saved | None:  # fmt: skip
    """The file to hold times against; what does not suit it or cannot be saved is told before anything is measured."""
    import resnetcli.reports.baseline as saved

    for option, file in (("--save", save), ("--against", against)):
        if file is not None and device is None:
            raise UsageError(f"`{option}` is about measured times", "add `--device cpu`, or another device")
    if save is not None:
        saved.check_place(save)
        saved.check_once(nets())
    if against is None or device is None:
        return None
    kept = saved.read_saved(against)
    saved.check_machine(kept, device)
    saved.check_nets(kept, nets(), batches)
    return kept


@app.command()
@guarded
def diff(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL [NAME=VALUE]... MODEL [NAME=VALUE]...",
            help="Two names in the zoo or paths to YAML files; a name=value applies to the model it follows.",
            autocompletion=complete_model,
        ),
    ],
    input: Input = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 1 if they differ.")] = False,
    format: Formats = Format.table,
) -> None:
    """Say how two nets differ, row by row, and what each difference costs."""
    import resnetcli.reports.diff as report
    from resnetcli.reports.diff_table import diff_heading, diff_notes, diff_sheet, no_difference, totals_sheet
    from resnetcli.reports.records import diff_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.table.output import print_json

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 2:
        raise UsageError(f"`diff` takes two models, not {len(asked)}", "for example `resnet-cli diff vgg16 vgg19`")
    found = report.diff(*asked, input=input, zoo=zoo)
    if format is Format.json:
        print_json(diff_record(found))
    elif found.differs or format is Format.csv:
        print_sheet(diff_sheet(found), format, diff_heading(found), (), diff_notes(found))
        if format is not Format.csv:
            print_sheet(totals_sheet(found), format, below=True)
    else:
        print_lines([no_difference(found)], format)
    if exit_code and found.differs:
        raise typer.Exit(1)


@app.command()
@guarded
def verify(
    models: Annotated[
        list[str] | None,
        typer.Argument(metavar="[MODEL]...", help="Names, wildcards or paths; without any, the whole zoo.",
                       autocompletion=complete_model),
    ] = None,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """Hold every printed figure to the count: exit 1 if one differs without a note saying why."""
    import resnetcli.reports.verify as report
    from resnetcli.reports.papers_table import verification_lines, verification_sheet
    from resnetcli.reports.records import verify_record
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    asked = asked_models(models or [], zoo)
    for name, settings in asked:
        if settings:
            raise UsageError(f"printed figures are of `{name}` as the paper has it", "leave the settings out")
    found = report.verify(*(name for name, _ in asked), zoo=zoo)
    if format is Format.json:
        print_record(verify_record(found), found.failed)
    else:
        print_sheet(verification_sheet(found), format, after=verification_lines(found), failures=found.failed)
    for fault in found.faults:
        complain(fault)
    end_failed(found.failed)
    if found.faults:
        raise typer.Exit(1)
