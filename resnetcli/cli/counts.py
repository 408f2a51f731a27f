"""Commands about what a net costs: counted, measured, and held to what is printed."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from resnetcli.cli.app import (
    MORE_MODELS,
    AnyModels,
    Batch,
    Counting,
    Device,
    Flops,
    Format,
    Formats,
    Input,
    announce,
    announce_files,
    app,
    complain,
    counting,
    guarded,
    print_lines,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models, complete_model
from resnetcli.errors import UsageError


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
    batch: Batch = 1,
    flops: Flops = False,
    convention: Counting = None,
    aux: Annotated[bool, typer.Option("--aux", help="Count auxiliary training heads too.")] = False,
    receptive: Annotated[
        bool, typer.Option("--receptive", help="Add receptive field, stride and padding, over all paths.")
    ] = False,
    device: Device = None,
    format: Formats = Format.table,
) -> None:
    """Profile one net: what each row costs, the printed figures beside the counted ones, latency on a device."""
    from resnetcli.report.profile import profile_model
    from resnetcli.report.records import profile_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.output import bar_width, print_json
    from resnetcli.view.profile import (
        conditions,
        cost_sheet,
        field_notes,
        heading,
        measured_sheet,
        published_sheet,
        totals,
        unjudged,
    )

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 1:
        names = " ".join(name for name, _ in asked)
        raise UsageError(f"`profile` takes one model, not {len(asked)}", f"for several: `resnet-cli compare {names}`")
    ((name, given),) = asked
    announce(device, name)
    announce_files(asked)
    found = profile_model(
        name, given, input=input, aux=aux, batch=batch, device=device, zoo=zoo, modules=True,
        convention=counting(convention, flops),
    )  # fmt: skip
    if format is Format.json:
        print_json(profile_record(found))
        return
    sheet = cost_sheet(found, by.value, width=bar_width(), receptive=receptive)
    if format is Format.csv:
        print_sheet(sheet, format)
        return
    note = unjudged(found)
    print_sheet(sheet, format, heading(found), totals(found) + (field_notes() if receptive else []))
    if (published := published_sheet(found)) is not None:
        print_sheet(published, format)
    if found.measurements:
        print_sheet(measured_sheet(found.measurements), format, after=conditions(found.measurements))
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
    input: Input = None,
    batch: Batch = 1,
    flops: Flops = False,
    convention: Counting = None,
    device: Device = None,
    format: Formats = Format.table,
) -> None:
    """Compare nets: parameters, MACs, activations and depth, printed figures beside them; measured on a device."""
    import resnetcli.report.compare as report
    from resnetcli.report.records import compare_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.compare import caption, comparison_sheet
    from resnetcli.view.output import print_json
    from resnetcli.view.profile import conditions

    zoo = Zoo()
    if all_models and models:
        raise UsageError("`--all` and models exclude each other")
    asked = asked_models(list(zoo.files) if all_models else models or list(report.HEADLINE), zoo)
    announce(device, " ".join(name for name, _ in asked))
    announce_files(asked)
    found = report.compare(
        *asked, input=input, batch=batch, device=device, sort=sort, baseline=baseline,
        accuracy=accuracy, protocol=protocol, zoo=zoo, convention=counting(convention, flops),
    )  # fmt: skip
    if format is Format.json:
        print_json(compare_record(found))
        return
    after = caption(found)
    if found.profiles[0].measurements:
        after += conditions([p.measurements[0] for p in found.profiles])
    print_sheet(comparison_sheet(found), format, after=after)


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
    import resnetcli.report.diff as report
    from resnetcli.report.records import diff_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.diff import diff_heading, diff_sheet, diff_totals, no_difference
    from resnetcli.view.output import print_json

    zoo = Zoo()
    asked = asked_models(models, zoo)
    if len(asked) != 2:
        raise UsageError(f"`diff` takes two models, not {len(asked)}", "for example `resnet-cli diff vgg16 vgg19`")
    found = report.diff(*asked, input=input, zoo=zoo)
    if format is Format.json:
        print_json(diff_record(found))
    elif found.differs or format is Format.csv:
        print_sheet(diff_sheet(found), format, diff_heading(found), diff_totals(found))
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
    import resnetcli.report.verify as report
    from resnetcli.report.records import verify_record
    from resnetcli.spec.zoo import Zoo
    from resnetcli.view.output import print_json
    from resnetcli.view.papers import verification_lines, verification_sheet

    zoo = Zoo()
    asked = asked_models(models or [], zoo)
    for name, settings in asked:
        if settings:
            raise UsageError(f"printed figures are of `{name}` as the paper has it", "leave the settings out")
    found = report.verify(*(name for name, _ in asked), zoo=zoo)
    if format is Format.json:
        print_json(verify_record(found))
    else:
        print_sheet(verification_sheet(found), format, after=verification_lines(found))
    for fault in found.faults:
        complain(fault)
    if found.faults:
        raise typer.Exit(1)
