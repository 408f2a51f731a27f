"""Estimate the best-case latency on a GPU that is not here."""

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
    from resnetcli.roofline.analysis import TESTED, Prediction, floors
    from resnetcli.roofline.peaks import read_profile, shipped
    from resnetcli.roofline.record import predict_record
    from resnetcli.roofline.tables import ceilings_heading, ceilings_warning, prediction_notes, prediction_sheet
    from resnetcli.spec.inputs import as_shape
    from resnetcli.spec.read import read
    from resnetcli.spec.zoo import Zoo

    zoo = Zoo()
    ceilings = read_profile(device_profile)

    def floor_of(name: str, given: Mapping[str, int]) -> Explanation:
        spec = read(name, zoo=zoo, input=as_shape(input), parameters=given)
        return floors([(name, spec.title, lower(spec))], ceilings, dtype=dtype or "fp32", batch_size=batch_size)[0]

    nets, failures = for_each(asked_models(models, zoo), floor_of)
    found = Prediction(ceilings, tuple(nets))
    tested = TESTED.get(ceilings.name) if device_profile in shipped() else None  # those are what was tested
    warnings = ceilings_warning(ceilings)
    output = Output(
        lambda: predict_record(found),
        lambda: [Section(prediction_sheet(found), ceilings_heading(ceilings)[:1], warnings,
                         prediction_notes(found, tested))],
        failures=failures, warnings=warnings, explain_columns=explain_columns,
    )  # fmt: skip
    print_output(output, format)
    end_failed(failures)
