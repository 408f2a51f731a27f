"""Commands about why a net takes its time: a device's ceilings, what they explain, what they allow elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    Batch,
    ChannelsLast,
    Format,
    Formats,
    Input,
    KeepMemory,
    Models,
    TimeBudget,
    app,
    budget,
    complain,
    end_failed,
    failed_lines,
    guarded,
    print_lines,
    print_record,
    print_sheet,
)
from resnetcli.cli.arguments import asked_models, complete_model, words_of
from resnetcli.errors import UsageError, clean

if TYPE_CHECKING:
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import Difference, Explanation, Suggestion

Dtype = Annotated[
    str | None, typer.Option("--dtype", metavar="DTYPE", help="fp32, tf32, bf16 or fp16; fp32 without it.")
]
DeviceProfile = typer.Option(
    "--device-profile", metavar="FILE", help="Ceilings: a file of `calibrate --format json`, or a100-80gb, rtx4090, ..."
)


@app.command()
@guarded
def calibrate(
    device: Annotated[str, typer.Option("--device", metavar="cpu|cuda[:N]", help="What to measure.")] = "cpu",
    show: Annotated[bool, typer.Option("--show", help="Only show what was measured earlier.")] = False,
    format: Formats = Format.table,
) -> None:
    """Measure a device's ceilings: arithmetic, memory, launches; kept for `explain`, and a file for `predict`."""
    from resnetcli.bench.device import find
    from resnetcli.roofline.peaks import cache_file, cached, write_profile
    from resnetcli.roofline.record import ceilings_record
    from resnetcli.roofline.tables import (
        ceilings_heading,
        ceilings_noise,
        ceilings_sheet,
        launch_line,
        peaks_sheet,
        rates_sheet,
    )
    from resnetcli.table.output import print_json

    device = find(device)
    if show:
        kept = cached(device)
        if kept is None:
            raise UsageError(f"`{device}` was not calibrated here yet", f"`resnet-cli calibrate --device {device}`")
        found = kept
    else:
        from resnetcli.roofline.calibrate import calibrate as measure

        found, kept = measure(device, report=_tell), cached(device)
        try:
            if found.noisy and kept is not None and not kept.noisy:
                complain("warning: not cached: these are noisy, and those from earlier are not")
            else:
                write_profile(found, cache_file(device))
        except OSError as error:
            complain(f"warning: not cached: {error.strerror or error}")
        except UsageError as error:
            complain(f"warning: not cached: {error.message}; {error.hint}")
    if format is Format.json:
        print_json(ceilings_record(found))
    elif format is Format.csv:
        print_sheet(ceilings_sheet(found), format)
        _warn(ceilings_noise(found))
    else:
        print_sheet(peaks_sheet(found), format, ceilings_heading(found))
        print_sheet(rates_sheet(found), format, after=[launch_line(found), *ceilings_noise(found)], below=True)


def _warn(lines: list[str]) -> None:
    """Says beside a table for programs, which has no place for it, what stands below the one for people."""
    for line in lines:
        complain(f"warning: {line}")


def _tell(what: str) -> None:
    import sys

    if sys.stderr.isatty():
        complain(f"measuring {what}")


@app.command()
@guarded
def explain(
    models: Models,
    vs: Annotated[
        str | None,
        typer.Option("--vs", metavar="OTHER", help="Another net, and what of the difference in time is explained.",
                     autocompletion=complete_model),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="cpu|cuda[:N]", help="Measure there, layer by layer as well.")
    ] = None,
    device_profile: Annotated[str | None, DeviceProfile] = None,
    batch: Batch = 1,
    dtype: Dtype = None,
    channels_last: ChannelsLast = False,
    keep_memory: KeepMemory = False,
    input: Input = None,
    try_settings: Annotated[
        bool, typer.Option("--measure", help="Measure the settings that are worth trying, too.")
    ] = False,
    time_budget: TimeBudget = None,
    roofline: Annotated[
        Path | None, typer.Option("--roofline", metavar="FILE.svg", help="Draw the steps under the roof.")
    ] = None,
    format: Formats = Format.table,
) -> None:  # fmt: skip
    """Say why a net takes its time: what arithmetic, memory and launches explain, and what stays unexplained."""
    from resnetcli.failures import for_each
    from resnetcli.plan.lower import lower
    from resnetcli.reports.baseline import check_place, write_text
    from resnetcli.reports.profile import as_shape
    from resnetcli.roofline.analysis import (
        Difference,
        ceilings_of,
        explain_measured,
        floors,
        measure_suggestions,
        suggestions,
    )
    from resnetcli.roofline.peaks import read_profile
    from resnetcli.roofline.plot import roofline_svg
    from resnetcli.roofline.record import explain_record
    from resnetcli.roofline.tables import summary
    from resnetcli.spec.read import read
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    words = [] if vs is None else words_of(vs)
    asked = asked_models([*models, *words], zoo)
    if len(asked) != (1 if vs is None else 2):
        raise UsageError("`explain` takes one model, and one more with `--vs`")
    if (device is None) == (device_profile is None):
        raise UsageError("`explain` takes a device or a device's profile",
                         "`--device cpu` measures, `--device-profile a100-80gb` does not")  # fmt: skip
    if try_settings and device is None:
        raise UsageError("`--measure` needs a device to measure on", "`--device cpu` or `--device cuda`")
    for option, said in (("--channels-last", channels_last), ("--keep-memory", keep_memory)):
        if said and device is None:
            raise UsageError(f"`{option}` has no part in a floor", "add `--device cpu`, or another device")
    seconds = budget(time_budget, device)
    if roofline is not None:
        check_place(roofline, "--roofline")
        if roofline.suffix.lower() != ".svg":
            raise UsageError(f"--roofline: `{clean(str(roofline), 80)}` is no name of an SVG", "end it in .svg")

    def read_net(name: str, given: Mapping[str, int]) -> tuple[str, str, Plan]:
        spec = read(name, zoo=zoo, input=as_shape(input), parameters=given)
        return name, spec.title, lower(spec)

    nets, failures = for_each(asked, read_net)
    ratio = None
    if device is None:
        assert device_profile is not None
        ceilings = read_profile(device_profile)
        found = floors(nets, ceilings, dtype=dtype or "fp32", batch=batch)
    else:
        from resnetcli.bench.device import find
        from resnetcli.bench.settings import require_possible, settings

        chosen = settings(dtype, channels_last=channels_last, keep_memory=keep_memory)
        require_possible(chosen, find(device))  # before ceilings are measured, which takes a while
        ceilings = ceilings_of(device, _tell)
        _tell(" ".join(name for name, _ in asked))
        found, ratio = explain_measured(
            nets, ceilings, device=device, batch=batch, settings=chosen, time_budget_s=seconds
        )
    difference = Difference(found[0], found[1], ratio) if len(found) > 1 else None
    tried = suggestions(found[0])
    if try_settings and device is not None:
        tried = measure_suggestions(found[0], tried, device=device, time_budget_s=seconds)
    if roofline is not None:
        write_text(roofline, roofline_svg(found[0]))
        complain(f"drawn: {roofline}")
    if format is Format.json:
        print_record(explain_record(found[0], difference, tried, summary(found[0], difference)), failures)
    else:
        _print_explanation(found[0], difference, tried, format)
        if format is not Format.csv:  # whose rows are not models
            print_lines(failed_lines(failures, format), format)
    end_failed(failures)


def _print_explanation(
    found: Explanation, difference: Difference | None, tried: tuple[Suggestion, ...], format: Format
) -> None:
    from resnetcli.roofline.tables import (
        difference_lines,
        difference_sheet,
        doubts,
        heading,
        parts_sheet,
        split_line,
        suggestions_sheet,
        summary,
    )

    if format is Format.csv:
        print_sheet(parts_sheet("row", found.rows), format)
        _warn(doubts(found))
        return
    lines = [summary(found, difference), *heading(found)]
    lines += difference_lines(difference) if difference else []
    print_sheet(parts_sheet("row", found.rows, legend=False), format, lines)
    notes = [split_line(found)] if found.split else []
    print_sheet(parts_sheet("costliest", found.layers()), format, notes=notes, below=True)
    if difference and difference.kinds:
        print_sheet(difference_sheet(difference), format, below=True)
    if tried:
        print_sheet(suggestions_sheet(found, tried), format, below=True)


@app.command()
@guarded
def predict(
    models: Models,
    device_profile: Annotated[str, DeviceProfile],
    batch: Batch = 1,
    dtype: Dtype = None,
    input: Input = None,
    format: Formats = Format.table,
) -> None:
    """Say how quick nets can be at most on a device that is not here, from its ceilings; nothing is measured."""
    from resnetcli.failures import for_each
    from resnetcli.plan.lower import lower
    from resnetcli.reports.profile import as_shape
    from resnetcli.roofline.analysis import TESTED, Prediction, floors
    from resnetcli.roofline.peaks import read_profile, shipped
    from resnetcli.roofline.record import predict_record
    from resnetcli.roofline.tables import ceilings_heading, ceilings_warning, prediction_notes, prediction_sheet
    from resnetcli.spec.read import read
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    ceilings = read_profile(device_profile)

    def floor_of(name: str, given: Mapping[str, int]) -> Explanation:
        spec = read(name, zoo=zoo, input=as_shape(input), parameters=given)
        return floors([(name, spec.title, lower(spec))], ceilings, dtype=dtype or "fp32", batch=batch)[0]

    nets, failures = for_each(asked_models(models, zoo), floor_of)
    found = Prediction(ceilings, tuple(nets))
    if format is Format.json:
        print_record(predict_record(found), failures)
    else:
        tested = TESTED.get(ceilings.name) if device_profile in shipped() else None  # those are what was tested
        print_sheet(prediction_sheet(found), format, ceilings_heading(ceilings)[:1], ceilings_warning(ceilings),
                    prediction_notes(found, tested), failures=failures)  # fmt: skip
        if format is Format.csv:
            _warn(ceilings_warning(ceilings))
    end_failed(failures)
