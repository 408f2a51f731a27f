"""The output of `estimate`: lower bounds of models on a device that was not measured."""

from __future__ import annotations

from collections.abc import Sequence

from resnetcli.reports.records import AS_GIVEN, Record, sizes
from resnetcli.roofline.analysis import Explanation
from resnetcli.roofline.bounds import BOUNDS, Bound
from resnetcli.roofline.peaks import DevicePeaks
from resnetcli.roofline.profiles import Validation, device_profile_record
from resnetcli.table.fields import Field
from resnetcli.table.numbers import duration, percent, rate
from resnetcli.table.sheet import Sheet


def _share(cause: Bound) -> Field[Explanation]:
    return Field(cause, cause, lambda each: round(each.eager.shares[cause], 6), percent,
                 priority=3 if cause == "overhead" else 2,
                 help=f"fraction of the eager lower bound that is {cause}-bound")  # fmt: skip


ESTIMATE: list[Field[Explanation]] = [
    Field("model", "model", lambda each: each.label, align="left", style="bold",
          help=AS_GIVEN),
    Field("lower_bound_s", "eager lower bound", lambda each: each.eager.seconds, duration, wrap=True,
          help="minimum latency of a batch in eager mode"),
    Field("max_images_s", "max images/s", lambda each: each.eager.batch_size / each.eager.seconds, rate, wrap=True,
          help="images/s at the eager lower bound"),
    Field("fused_s", "fused lower bound", lambda each: each.fused.seconds, duration, wrap=True,
          help="lower bound with element-wise steps fused"),
    *map(_share, BOUNDS),
    Field("intensity", "FLOPs/B", lambda each: each.eager.total.intensity, "{:.1f}".format, priority=1,
          help="arithmetic intensity: FLOPs per byte moved"),
]  # fmt: skip


def estimate_sheet(models: Sequence[Explanation]) -> Sheet:
    """Lower bounds, one model per row."""
    return Sheet.of(ESTIMATE, models)


def estimate_notes(models: Sequence[Explanation], validation: Validation | None) -> list[str]:
    """The meaning of the lower bound, and how close measured latencies were."""
    bound, peaks = models[0].eager, models[0].device_peaks
    note = f"lower bounds at {bound.dtype}, batch {bound.batch_size}, not expected latencies"
    if not peaks.launch_s:
        note += "; without launch overhead, which dominates small batches"
    if bound.dtype == "fp32" and "tf32" in peaks.peaks:
        note += "; without TF32, PyTorch's default for convolutions (`--dtype tf32`)"
    if validation is None:
        return [note, "not validated: no published latencies of this device were compared"]
    ratios = f"at {validation.dtype}, batch {validation.batch_size}, lower bounds are {validation.text}"
    if validation.covers(bound.dtype, bound.batch_size):
        return [note, f"validated: {ratios}"]
    return [note, f"not validated at {bound.dtype}, batch {bound.batch_size}; {ratios}"]


def estimate_record(peaks: DevicePeaks, models: Sequence[Explanation]) -> Record:
    """`resnet-cli/estimate@1`."""
    return {
        "schema": "resnet-cli/estimate@1",
        "device_profile": device_profile_record(peaks),
        "models": [
            {
                "model": each.model,
                "parameters": dict(each.plan.parameters),
                "input": sizes(each.plan.input),
                "dtype": each.eager.dtype,
                "batch_size": each.eager.batch_size,
                "eager": each.eager.total.record(),
                "fused": each.fused.total.record(),
            }
            for each in models
        ],
    }
