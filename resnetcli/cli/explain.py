"""Roofline analysis of a model's latency."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
from resnetcli.cli.arguments import (
    ModelArgs,
    asked_models,
    command_line,
    complete_model,
    model_words,
    refuse_device_name,
    split_words,
)
from resnetcli.cli.options import require_device, with_options
from resnetcli.errors import UsageError, clean, typed
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import Explanation, TimeDifference
    from resnetcli.roofline.suggestions import Suggestion


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
    from resnetcli.roofline.analysis import TimeDifference, lower_bounds
    from resnetcli.roofline.explain_record import explain_record
    from resnetcli.roofline.explain_table import stages_sheet, unreliable
    from resnetcli.roofline.plot import roofline_svg
    from resnetcli.roofline.profiles import read_profile, shipped
    from resnetcli.roofline.suggestions import measure_suggestions, suggest
    from resnetcli.roofline.summary import describe_explanation
    from resnetcli.spec.inputs import as_shape
    from resnetcli.spec.read import read
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    refuse_device_name([*models, *([] if vs is None else split_words(vs))], "explain")
    if profiles := [word for word in models if word in shipped()]:
        raise UsageError(f"`{profiles[0]}` is a device profile, not a model", f"use `--device-profile {profiles[0]}`")
    references = asked_models([*models, *([] if vs is None else split_words(vs))], zoo)
    if len(references) != (1 if vs is None else 2):
        raise UsageError(
            "`explain` takes one model, and another one with `--vs`",
            _one_model_hint(references, vs, device, device_profile),
        )
    if device is not None and device_profile is not None:
        raise UsageError("`--device` cannot be used with `--device-profile`", "omit one of them")
    needy = [flag for flag in options.flags if flag != "--dtype"]
    needy = ["--measure"] * try_settings + needy + ["--time-budget"] * (time_budget is not None)
    require_device(needy, device, given=f"--device-profile {typed(device_profile)}" if device_profile else "")
    if device is None and device_profile is None:
        raise UsageError("`explain` needs a device or a device profile",
                         "`--device cpu` benchmarks the model, `--device-profile a100-80gb` does not")  # fmt: skip
    seconds = budget(time_budget, device)
    if roofline is not None:
        check_writable(roofline, "--roofline")
        if roofline.suffix.lower() != ".svg":
            raise UsageError(f"--roofline: `{clean(str(roofline), 80)}` is not an SVG file", "use the extension .svg")

    def read_model(name: str, parameters: Mapping[str, int]) -> tuple[str, str, Plan]:
        spec = read(name, zoo=zoo, input=as_shape(input), parameters=parameters)
        return name, spec.title, lower(spec)

    plans, failures = for_each(references, read_model)
    if any((failure.model, failure.settings) == references[0] for failure in failures):
        end_failed(failures)  # the model of `--vs` is not explained in its place
    ratio = None
    if device is None:
        assert device_profile is not None
        explanations = lower_bounds(plans, read_profile(device_profile), dtype=options.precision, batch_size=batch_size)
    else:
        from resnetcli.bench.device import find
        from resnetcli.bench.execution import require_supported
        from resnetcli.roofline.measure import explain_measured, get_device_peaks

        require_supported(options, find(device))  # before calibration, which takes a while
        peaks = get_device_peaks(
            device, report=report_step,
            before=lambda name: complain(f"`{name}` has not been calibrated: measuring its peaks (about 20 s)"),
        )  # fmt: skip
        report_step(" ".join(name for name, _ in references))
        explanations, ratio = explain_measured(
            plans, peaks, device=device, batch_size=batch_size, options=options, time_budget_s=seconds
        )
    explanation, *others = explanations
    difference = TimeDifference(explanation, others[0], ratio) if others else None
    suggestions = suggest(explanation)
    if try_settings and device is not None:
        suggestions = measure_suggestions(explanation, suggestions, device=device, time_budget_s=seconds)
    if roofline is not None:
        write_output(roofline, roofline_svg(explanation))
        complain(f"wrote {roofline}")
    output = Output(
        lambda: explain_record(explanation, difference, suggestions, describe_explanation(explanation, difference)),
        lambda: _sections(explanation, difference, suggestions),
        lambda: [stages_sheet(explanations)],
        failures=failures, warnings=unreliable(explanation), explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(failures)


def _one_model_hint(
    references: Sequence[ModelArgs], vs: str | None, device: str | None, device_profile: str | None
) -> str:
    """The command with the first model, and the second one as `--vs` if it was not given."""
    first, *others = (model_words(reference) for reference in references)
    other = " ".join(others[0] if vs is None else others[-1])
    source = ["--device-profile", device_profile] if device_profile else ["--device", device or "cpu"]
    return f"`{command_line('explain', [*first, '--vs', other, *source])}`, with your other options"


def _sections(
    explanation: Explanation, difference: TimeDifference | None, suggestions: tuple[Suggestion, ...]
) -> Iterator[Section]:
    from resnetcli.roofline.explain_table import (
        difference_lines,
        difference_sheet,
        explain_heading,
        layer_times_line,
        parts_sheet,
        suggestions_sheet,
    )
    from resnetcli.roofline.summary import describe_explanation

    lines = [describe_explanation(explanation, difference), *explain_heading(explanation)]
    lines += difference_lines(difference) if difference else []
    yield Section(parts_sheet("stage", explanation.stages, legend=False), lines)
    notes = [layer_times_line(explanation)] if explanation.layer_times else []
    yield Section(parts_sheet("slowest layers", explanation.slowest_layers()), notes=notes)
    if difference and difference.kinds:
        yield Section(difference_sheet(difference))
    if suggestions:
        yield Section(suggestions_sheet(explanation, suggestions))
