"""The answer of `explain` in one sentence."""

from __future__ import annotations

from resnetcli.errors import plural
from resnetcli.roofline.analysis import Cause, Explanation, RooflinePart, TimeDifference
from resnetcli.table.numbers import duration, factor, percent

CAUSE_NOUNS: dict[Cause, str] = {
    "compute": "compute",
    "memory": "memory traffic",
    "overhead": "launch overhead",
    "unexplained": "explained by neither compute nor memory traffic nor launch overhead",
}


def describe_explanation(explanation: Explanation, difference: TimeDifference | None = None) -> str:
    """Why a model takes its time, or how its time differs from another's; says so if a run was noisy."""
    sentence = _compare(difference) if difference else _describe(explanation)
    analyzed = (difference.model, difference.other) if difference else (explanation,)
    noisy = any(each.measurement is not None and each.measurement.noisy for each in analyzed)
    return f"On a noisy run, {sentence}" if noisy else sentence


def _describe(explanation: Explanation) -> str:
    title, shares = explanation.full_title, explanation.shares
    largest = max(shares, key=lambda cause: shares[cause])
    part = f"{percent(shares[largest])} of it is {CAUSE_NOUNS[largest]}"
    if explanation.measurement is None:
        return f"{title} takes at least {duration(explanation.time_s)} here in eager mode; {part}."
    lead = f"{title} takes {duration(explanation.time_s)}"
    bound = duration(explanation.eager.seconds)
    if explanation.unexplained_s < 0:
        problem = "the device peaks are too low, calibrate again on a quiet machine"
        return f"{lead}, less than its lower bound of {bound}: {problem}."
    lead = f"{lead}, its lower bound is {bound}"
    if explanation.launch_bound and largest in {"unexplained", "overhead"}:
        return f"{lead}: it is launch-bound, {launch_time(explanation)}."
    return f"{lead}; {percent(shares[largest])} of the time is {CAUSE_NOUNS[largest]}."


def launch_time(explanation: Explanation) -> str:
    """`the CPU takes 3.1 ms to launch 174 kernels`."""
    host_s = explanation.measurement.host_s if explanation.measurement else None
    return f"the CPU takes {duration(host_s or 0.0)} to launch {plural(explanation.eager.total.kernels, 'kernel')}"


def _compare(difference: TimeDifference) -> str:
    model, other, ratio = difference.model, difference.other, difference.ratio
    work = f"with {_more(difference.ratio_of('macs'), 'MACs')} and {_more(difference.ratio_of('bytes'), 'bytes moved')}"
    if model.measurement and other.measurement:
        if difference.paired is not None and difference.paired.outcome == "same":
            resolution = f"(resolution {percent(difference.paired.resolution)})"
            return f"{model.full_title} and {other.full_title} take the same time here {resolution}, {work}."
        longer = _relative(ratio, "as long as", "{} x as long as", "{} {} than", ("longer", "less time"))
        lead = f"{model.full_title} takes {longer} {other.full_title}, {work}"
    else:
        bound = "the lower bound of", "a lower bound {} x that of", "a lower bound {} {} that of"
        lead = f"{model.full_title} has {_relative(ratio, *bound, ('above', 'below'))} {other.full_title}, {work}"
    if abs(ratio - 1) < 0.02:
        return f"{lead}."
    seconds, gap = difference.seconds, model.time_s - other.time_s
    largest = max(seconds, key=lambda cause: seconds[cause] * (1 if gap > 0 else -1))
    part = seconds[largest] / gap
    share = "all of it" if part > 0.95 else f"{percent(part)} of it"
    slower = model if gap > 0 else other
    if slower.launch_bound and largest in {"unexplained", "overhead"}:
        return f"{lead}: {slower.full_title} is launch-bound, {launch_time(slower)}."
    if largest == "unexplained":
        return f"{lead}: compute and memory traffic leave {share} unexplained{_culprit(difference)}."
    return f"{lead}: {CAUSE_NOUNS[largest]} explains {share}."


def _culprit(difference: TimeDifference) -> str:
    """The kind of step with the largest difference in unexplained time, if the layers were timed."""
    if not difference.timed:
        return ""
    unexplained = difference.seconds["unexplained"]
    sign = 1 if unexplained > 0 else -1
    excess = [(sign * (_excess(kind.model) - _excess(kind.other)), kind) for kind in difference.kinds]
    largest, kind = max(excess, key=lambda entry: entry[0], default=(0.0, None))
    if kind is None or largest <= 0:
        return ""
    text = f", {'most' if largest > abs(unexplained) / 2 else 'the largest part'} of it in {kind.kind}"
    part, slower = (kind.model, difference.model) if sign > 0 else (kind.other, difference.other)
    if part is not None and part.attained is not None:
        text += f", whose lower bound is {percent(part.attained)} of its time in {slower.full_title}"
    return text


def _excess(part: RooflinePart | None) -> float:
    """Measured time above the lower bound."""
    return 0.0 if part is None or part.measured_s is None else part.measured_s - part.eager.lower_bound_s


def _relative(ratio: float, same: str, times: str, percentage: str, words: tuple[str, str]) -> str:
    """A ratio in words: `same`, `times` with a factor from 2 on, or `percentage` with the first of `words` above 1."""
    if abs(ratio - 1) < 0.005:
        return same
    if ratio >= 2:
        return times.format(factor(ratio))
    return percentage.format(percent(abs(ratio - 1)), words[ratio < 1])


def _more(ratio: float | None, noun: str) -> str:
    if ratio is None:
        return f"{noun} (the other model has none)"
    return _relative(ratio, f"the same {noun}", f"{{}} x the {noun}", f"{{}} {{}} {noun}", ("more", "fewer"))
