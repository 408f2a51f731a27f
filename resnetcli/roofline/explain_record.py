"""The JSON of `explain`: docs/reference/json.md."""

from __future__ import annotations

from resnetcli.reports.records import Record, sizes
from resnetcli.roofline.analysis import Explanation, RooflinePart, TimeDifference
from resnetcli.roofline.profiles import device_profile_record
from resnetcli.roofline.suggestions import Suggestion


def explain_record(
    explanation: Explanation, difference: TimeDifference | None, suggestions: tuple[Suggestion, ...], summary: str
) -> Record:
    """`resnet-cli/explain@2`."""
    return {
        "schema": "resnet-cli/explain@2",
        "summary": summary,
        "device_profile": device_profile_record(explanation.device_peaks),
        **_explanation(explanation),
        "stages": [_part(part) for part in explanation.stages],
        "layers": [_part(part) for part in explanation.slowest_layers(None)],
        "suggestions": [
            {
                "setting": suggestion.setting,
                "lower_bound_s": suggestion.seconds,
                "measured_s": suggestion.measurement.median_s if suggestion.measurement else None,
                "noisy": [noise.text for noise in suggestion.measurement.noisy] if suggestion.measurement else [],
                "problem": suggestion.problem or None,
            }
            for suggestion in suggestions
        ],
        "vs": None if difference is None else {**_explanation(difference.other), "difference": _difference(difference)},
    }


def _explanation(explanation: Explanation) -> Record:
    m, times = explanation.measurement, explanation.layer_times
    return {
        "model": explanation.model,
        "parameters": dict(explanation.plan.parameters),
        "input": sizes(explanation.plan.input),
        "dtype": explanation.eager.dtype,
        "batch_size": explanation.eager.batch_size,
        "settings": m.settings if m else None,
        "measured_s": m.median_s if m else None,
        "interval_s": list(m.interval_s) if m else None,
        "noisy": [noise.text for noise in m.noisy] if m else [],
        "host_s": m.host_s if m else None,
        "eager": explanation.eager.total.record(),
        "fused": explanation.fused.total.record(),
        "shares": explanation.shares,
        "layers_s": times.total_s if times else None,
        "layers_whole_s": times.whole_s if times else None,
        "layers_agree": times.agrees if times else None,
    }


def _part(part: RooflinePart) -> Record:
    return {
        "name": part.name,
        "bound": part.eager.bound,
        **part.eager.record(),
        "fused_s": part.fused.lower_bound_s,
        "measured_s": part.measured_s,
    }


def _difference(difference: TimeDifference) -> Record:
    return {
        "time_ratio": difference.ratio,
        "interval": list(difference.paired.interval) if difference.paired else None,
        "seconds": difference.seconds,
        **{f"{name}_ratio": difference.ratio_of(name) for name in difference.figures},
    }
