"""Results of `explain`, `estimate` and `calibrate` as plain dictionaries: the JSON of docs/reference/json.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from resnetcli.ops import Shape
    from resnetcli.roofline.analysis import Difference, Explanation, Part, Prediction, Suggestion, Work
    from resnetcli.roofline.peaks import Ceilings

Record = dict[str, Any]


def ceilings_record(ceilings: Ceilings) -> Record:
    """`resnet-cli/ceilings@1`, which is also the file that `--device-profile` takes."""
    from resnetcli.roofline.peaks import to_json

    return to_json(ceilings)


def explain_record(
    found: Explanation, difference: Difference | None, tried: tuple[Suggestion, ...], summary: str
) -> Record:
    """`resnet-cli/explain@1`; `summary` is the sentence on top."""
    return {
        "schema": "resnet-cli/explain@1",
        "summary": summary,
        "ceilings": ceilings_record(found.ceilings),
        "net": _explanation(found),
        "rows": [_roofline_part(part) for part in found.rows],
        "layers": [_roofline_part(part) for part in found.layers(len(found.plan.steps))],
        "suggestions": [
            {
                "setting": each.setting,
                "floor_s": each.seconds,
                "measured_s": each.measurement.median_s if each.measurement else None,
                "noisy": [noise.text for noise in each.measurement.noisy] if each.measurement else [],
                "problem": each.problem or None,
            }
            for each in tried
        ],
        "vs": None
        if difference is None
        else {
            "net": _explanation(difference.other),
            "time_ratio": difference.time_ratio,
            "interval": list(difference.paired.interval) if difference.paired else None,
            "seconds": dict(difference.seconds),
            "macs_ratio": difference.ratio("macs"),
            "activations_ratio": difference.ratio("activations"),
            "bytes_ratio": difference.ratio("bytes"),
            "kernels_ratio": difference.ratio("kernels"),
        },
    }


def _explanation(found: Explanation) -> Record:
    m, split = found.measurement, found.split
    return {
        "model": found.model,
        "parameters": dict(found.plan.parameters),
        "input": _sizes(found.plan.input),
        "dtype": found.executed.dtype,
        "batch": found.executed.batch,
        "settings": m.settings if m else None,
        "measured_s": m.median_s if m else None,
        "interval_s": list(m.interval_s) if m else None,
        "noisy": [noise.text for noise in m.noisy] if m else [],
        "host_s": m.host_s if m else None,
        "floor": _floor(found.executed.total),
        "fused": _floor(found.fused.total),
        "shares": dict(found.shares),
        "layers_s": sum(split.every_s) if split else None,
        "layers_total_s": split.total_s if split else None,
        "layers_agree": split.agrees if split else None,
    }


def _floor(work: Work) -> Record:
    return {
        "floor_s": work.floor_s,
        "compute_s": work.compute_s,
        "memory_s": work.memory_s,
        "overhead_s": work.overhead_s,
        "flops": work.flops,
        "bytes": work.bytes,
        "kernels": work.kernels,
    }


def _roofline_part(part: Part) -> Record:
    return {
        "name": part.name,
        "bound": part.work.bound if part.work.kernels else None,
        **_floor(part.work),
        "fused_s": part.fused.floor_s,
        "measured_s": part.measured_s,
    }


def predict_record(found: Prediction) -> Record:
    """`resnet-cli/predict@1`."""
    return {
        "schema": "resnet-cli/predict@1",
        "ceilings": ceilings_record(found.ceilings),
        "models": [
            {
                "model": net.model,
                "parameters": dict(net.plan.parameters),
                "input": _sizes(net.plan.input),
                "dtype": net.executed.dtype,
                "batch": net.executed.batch,
                "floor": _floor(net.executed.total),
                "fused": _floor(net.fused.total),
            }
            for net in found.nets
        ],
    }


def _sizes(shape: Shape) -> list[int]:
    return [shape.c, shape.h, shape.w]
