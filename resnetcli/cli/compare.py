"""Compare models side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from resnetcli.bench.options import BenchmarkOptions
from resnetcli.cli.app import (
    MODEL_KINDS,
    SETTINGS,
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
)
from resnetcli.cli.arguments import asked_models, complete_model, refuse_device_name
from resnetcli.cli.options import require_device, with_options
from resnetcli.errors import ResourceError, UsageError
from resnetcli.failures import exit_code, messages
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.reports.baseline import Baseline, NamedPlan


app = typer.Typer(add_completion=False)


@app.command(
    "compare",
    epilog=examples(
        "compare resnet50 resnext50_32x4d",
        'compare "resnext101*" --sort macs --accuracy',
        "compare resnet50 torchvision:resnet50 --device cpu",
    ),
)
@guarded
@with_options
def compare(
    *,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[MODEL [NAME=VALUE]...]...",
            help=f"{MODEL_KINDS} Globs work, too. {SETTINGS} \\[default: resnet50 resnext50_32x4d]",
            autocompletion=complete_model,
        ),
    ] = None,
    all_models: Annotated[bool, typer.Option("--all", help="Compare every model in the zoo.")] = False,
    sort: Annotated[
        str | None,
        typer.Option("--sort", metavar="COLUMN", help="Sort by a column; prefix with - for descending (e.g. -macs)."),
    ] = None,
    baseline: Annotated[
        str | None, typer.Option("--baseline", metavar="MODEL", help="Show differences relative to this model.")
    ] = None,
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Add published accuracies.")] = False,
    protocol: Annotated[
        str | None,
        typer.Option("--protocol", metavar="NAME", help="Evaluation protocol for --accuracy, e.g. single-crop-224."),
    ] = None,
    max_params: Annotated[
        str | None,
        typer.Option("--max-params", metavar="N", help="Only models with at most this many parameters, e.g. 30M."),
    ] = None,
    max_macs: Annotated[
        str | None, typer.Option("--max-macs", metavar="N", help="Only models with at most this many MACs, e.g. 4.2G.")
    ] = None,
    input: Input = None,
    flops: Flops = False,
    convention: Counting = None,
    benchmark: BenchmarkOptions,
    save: Annotated[
        str | None, typer.Option("--save", metavar="FILE", help="Save benchmark results as a baseline file.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", metavar="FILE", help="Compare against a saved baseline; exit 1 on a regression."),
    ] = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Compare models side by side (params, MACs, activations, depth; latency with --device)."""
    import resnetcli.reports.compare as report
    from resnetcli.quantities import parse_count
    from resnetcli.reports.baseline import diff_baseline, named_plans, save_baseline
    from resnetcli.reports.compare_table import (
        caption,
        changes_lines,
        changes_sheet,
        comparison_sheet,
        results_lines,
        timing_lines,
    )
    from resnetcli.reports.measured import conditions, failure_lines, measurement_warnings
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    refuse_device_name(models or [], "compare")
    if all_models and models:
        raise UsageError("`--all` cannot be used with models", "omit one of them")
    asked = asked_models(list(zoo.files) if all_models else models or list(report.HEADLINE), zoo)
    announce_files(asked)
    most = {name: parse_count(text, f"--max-{name}") for name, text in (("params", max_params), ("macs", max_macs))
            if text is not None}  # fmt: skip
    plans = partial(named_plans, asked, input=input, zoo=zoo, most=most)
    saved = _read_baseline(save, against, benchmark, plans)
    with progress(benchmark.device, " ".join(name for name, _ in asked)) as report_share:
        found = report.compare_models(
            asked, benchmark=benchmark, input=input, sort=sort, baseline=baseline, accuracy=accuracy,
            protocol=protocol, zoo=zoo, convention=counting(convention, flops), max_params=most.get("params"),
            max_macs=most.get("macs"), keep_going=True, progress=report_share,
        )  # fmt: skip
    changes = diff_baseline(found, saved) if saved else None
    failed = failure_lines([failure for p in found.profiles for failure in p.failures])

    def sections() -> Iterator[Section]:
        after, notes = results_lines(found), caption(found)
        if measured := [m for p in found.profiles for m in p.measurements]:
            first, *others = conditions(measured)
            notes = [f"{notes[0]}; {first}", *timing_lines(found), *notes[1:], *others]
            models = [p.label for p in found.profiles for _ in p.measurements]
            after += measurement_warnings(measured, models=models, energy=benchmark.energy)
        yield Section(comparison_sheet(found), (), after + failed, notes)
        if changes:
            yield Section(changes_sheet(changes), after=changes_lines(changes))

    def record() -> dict[str, Any]:
        from resnetcli.reports.compare_record import compare_record  # slow, and only for JSON

        return compare_record(found, changes)

    output = Output(
        record, sections,
        failures=found.failed, warnings=failed, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    for message in messages(found.failed):
        complain(message)
    if changes and changes.regressed:
        complain("slower than before: " + ", ".join(f"{c.model} at batch {c.batch}" for c in changes.regressed))
        if save is not None:
            complain(f"not saved: {save}")
        raise typer.Exit(1)
    if save is not None:
        save_baseline(found, save)
    if changes and changes.undecided:
        raise ResourceError("the run was noisy: some models are undecided", "measure again on an idle machine")
    if found.failed:
        raise typer.Exit(exit_code(found.failed))


def _read_baseline(
    save: str | None, against: str | None, benchmark: BenchmarkOptions, plans: Callable[[], Sequence[NamedPlan]]
) -> Baseline | None:
    """The saved baseline. Raises UsageError for files that do not suit, before anything is measured."""
    from resnetcli.files import check_writable
    from resnetcli.reports.baseline import check_machine, check_models, check_unique, read_baseline

    files = (("--save", save), ("--against", against))
    require_device([option for option, file in files if file is not None], benchmark.device)
    if save is not None:
        check_writable(save, "--save")
        check_unique(plans())
    if against is None or benchmark.device is None:
        return None
    baseline = read_baseline(against)
    check_machine(baseline, benchmark.device)
    check_models(baseline, plans(), benchmark.batch_sizes)
    return baseline
