"""Roofline analysis of a model's latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.bench.options import RunOptions, by_layer
from resnetcli.cli.app import (
    BatchSize,
    DeviceProfile,
    ExplainColumns,
    Formats,
    Input,
    Models,
    TimeBudget,
    budget,
    complain,
    end_failed,
    examples,
    guarded,
    print_output,
    report_step,
)
from resnetcli.cli.arguments import asked_models, complete_model, words_of
from resnetcli.cli.options import require_device, with_options
from resnetcli.errors import UsageError, clean
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import Difference, Explanation, Suggestion


app = typer.Typer(add_completion=False)


@app.command(
    "explain",
    epilog=examples(
        "explain resnet50 --device cpu",
        "explain resnext50_32x4d --vs resnet50 --device-profile rtx4090",
        "explain resnet50 --device cuda --roofline roofline.svg",
    ),
)
@guarded
@with_options
def explain(
    models: Models,
    *,
    vs: Annotated[
        str | None,
        typer.Option("--vs", metavar="OTHER", help="Compare with another model and attribute the time difference.",
                     autocompletion=complete_model),
    ] = None,
    device: Annotated[
        str | None, typer.Option("--device", metavar="cpu|cuda[:N]", help="Benchmark on this device, per layer.")
    ] = None,
    device_profile: Annotated[str | None, DeviceProfile] = None,
    batch_size: BatchSize = 1,
    options: Annotated[RunOptions, by_layer],
    input: Input = None,
    try_settings: Annotated[
        bool, typer.Option("--measure", help="Also benchmark the suggested settings.")
    ] = False,
    time_budget: TimeBudget = None,
    roofline: Annotated[
        Path | None, typer.Option("--roofline", metavar="FILE.svg", help="Write a roofline plot (SVG).")
    ] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:  # fmt: skip
    """Roofline analysis: how much of the latency is compute-, memory- or launch-bound."""
    from resnetcli.failures import for_each
    from resnetcli.files import check_writable, write_output
    from resnetcli.plan.lower import lower
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
    from resnetcli.roofline.tables import doubts, parts_sheet, summary
    from resnetcli.spec.inputs import as_shape
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
        raise UsageError("`--measure` requires --device", "`--device cpu` or `--device cuda`")
    require_device([flag for flag in options.flags if flag != "--dtype"], device)
    seconds = budget(time_budget, device)
    if roofline is not None:
        check_writable(roofline, "--roofline")
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
        found = floors(nets, ceilings, dtype=options.precision, batch_size=batch_size)
    else:
        from resnetcli.bench.device import find
        from resnetcli.bench.execution import require_supported

        require_supported(options, find(device))  # before the device is calibrated, which takes a while
        ceilings = ceilings_of(device, report_step)
        report_step(" ".join(name for name, _ in asked))
        found, ratio = explain_measured(
            nets, ceilings, device=device, batch_size=batch_size, options=options, time_budget_s=seconds
        )
    difference = Difference(found[0], found[1], ratio) if len(found) > 1 else None
    tried = suggestions(found[0])
    if try_settings and device is not None:
        tried = measure_suggestions(found[0], tried, device=device, time_budget_s=seconds)
    if roofline is not None:
        write_output(roofline, roofline_svg(found[0]))
        complain(f"drawn: {roofline}")
    output = Output(
        lambda: explain_record(found[0], difference, tried, summary(found[0], difference)),
        lambda: _sections(found[0], difference, tried),
        lambda: [parts_sheet("row", found[0].rows)],
        failures=failures, warnings=doubts(found[0]), explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(failures)


def _sections(
    found: Explanation, difference: Difference | None, tried: tuple[Suggestion, ...]
) -> Iterator[Section]:  # fmt: skip
    from resnetcli.roofline.tables import (
        difference_lines,
        difference_sheet,
        heading,
        parts_sheet,
        split_line,
        suggestions_sheet,
        summary,
    )

    lines = [summary(found, difference), *heading(found)]
    lines += difference_lines(difference) if difference else []
    yield Section(parts_sheet("row", found.rows, legend=False), lines)
    notes = [split_line(found)] if found.split else []
    yield Section(parts_sheet("costliest", found.layers()), notes=notes)
    if difference and difference.kinds:
        yield Section(difference_sheet(difference))
    if tried:
        yield Section(suggestions_sheet(found, tried))
