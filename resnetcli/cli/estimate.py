"""Best-case latency on a device that was not measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from resnetcli.cli.app import (
    BatchSize,
    DeviceProfile,
    ExplainColumns,
    Formats,
    Input,
    Models,
    end_failed,
    examples,
    guarded,
    print_output,
)
from resnetcli.cli.arguments import asked_models
from resnetcli.table.formats import TABLE, Output, Section

if TYPE_CHECKING:
    from resnetcli.roofline.analysis import Explanation


app = typer.Typer(add_completion=False)


@app.command(
    "estimate",
    epilog=examples(
        "estimate resnet50 --device-profile a100-80gb --batch-size 256",
        'estimate "resnext50*" --device-profile rtx4090',
        "estimate resnet50 --device-profile my_machine.json",
    ),
)
@guarded
def estimate(
    models: Models,
    device_profile: Annotated[str, DeviceProfile],
    batch_size: BatchSize = 1,
    dtype: Annotated[
        str | None, typer.Option("--dtype", metavar="fp32|tf32|bf16|fp16", help="Precision. \\[default: fp32]")
    ] = None,
    input: Input = None,
    format: Formats = TABLE,
    explain_columns: ExplainColumns = False,
) -> None:
    """Estimate the best-case latency on a GPU you do not have (roofline lower bound)."""
    from resnetcli.failures import for_each
    from resnetcli.plan.lower import lower
    from resnetcli.roofline.analysis import lower_bounds
    from resnetcli.roofline.estimate import estimate_notes, estimate_record, estimate_sheet
    from resnetcli.roofline.peaks_table import noisy_warning, peaks_heading
    from resnetcli.roofline.profiles import read_profile, read_validation
    from resnetcli.spec.inputs import as_shape
    from resnetcli.spec.read import read
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    peaks = read_profile(device_profile)

    def analyze(name: str, parameters: Mapping[str, int]) -> Explanation:
        spec = read(name, zoo=zoo, input=as_shape(input), parameters=parameters)
        (explanation,) = lower_bounds(
            [(name, spec.title, lower(spec))], peaks, dtype=dtype or "fp32", batch_size=batch_size
        )
        return explanation

    explanations, failures = for_each(asked_models(models, zoo), analyze)
    warnings = noisy_warning(peaks)
    notes = estimate_notes(explanations, read_validation(device_profile))
    output = Output(
        lambda: estimate_record(peaks, explanations),
        lambda: [Section(estimate_sheet(explanations), peaks_heading(peaks)[:1], warnings, notes)],
        failures=failures, warnings=warnings, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(failures)
