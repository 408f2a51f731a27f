"""Execution options with a lower bound at least 10% below the current one, and their benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from resnetcli.bench.worker import Job, run
from resnetcli.frozen import frozen
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan
from resnetcli.roofline.analysis import Explanation
from resnetcli.roofline.bounds import LowerBound, lower_bound
from resnetcli.roofline.peaks import DTYPE_BYTES, DevicePeaks

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement

WORTHWHILE = 0.9
"""Maximum ratio of a suggestion's lower bound to the current one."""


@frozen
class Suggestion:
    """Execution options to try, and the lower bound they allow."""

    setting: str
    """As options of `profile`: `--dtype bf16 --compile`."""
    lower_bound: LowerBound
    why: str
    measurement: Measurement | None = None
    problem: str = ""
    """Why the benchmark failed, or does not count."""
    fold_bn: bool = False
    cuda_graph: bool = False

    @property
    def seconds(self) -> float:
        return self.lower_bound.seconds


def suggest(explanation: Explanation) -> tuple[Suggestion, ...]:
    """The options worth trying, the lowest bound first."""
    current, peaks, plan = explanation.eager, explanation.device_peaks, explanation.plan
    options = zip(("--channels-last", "--keep-memory"), _measured_with(explanation), strict=True)
    unchanged = [option for option, given in options if given]

    def text(option: str = "", dtype: str = current.dtype) -> str:
        return " ".join(filter(None, [f"--dtype {dtype}" if dtype != "fp32" else "", *unchanged, option]))

    def eager(plan: Plan, peaks: DevicePeaks, dtype: str = current.dtype) -> LowerBound:
        return lower_bound(plan, peaks, dtype=dtype, batch_size=current.batch_size,
                           channels_last=current.channels_last)  # fmt: skip

    tried = [Suggestion(text("--compile"), explanation.fused, "element-wise steps are fused")]
    # On a GPU a kernel that adds the bias replaces BatchNorm's: folding saves kernels at most.
    saved = "fewer kernels than BatchNorm" if peaks.device == "cuda" else "BatchNorm needs no memory pass"
    tried.append(Suggestion(text("--fold-bn"), eager(fold(plan).plan, peaks), saved, fold_bn=True))
    if peaks.device == "cuda":
        replayed = eager(plan, replace(peaks, launch_s=peaks.gap_s))
        tried.append(Suggestion(text("--cuda-graph"), replayed, "no launch overhead on the CPU", cuda_graph=True))
    for dtype, peak in peaks.peaks.items():
        if DTYPE_BYTES[dtype] > DTYPE_BYTES[current.dtype] or peak.best <= 1.1 * peaks.peak(current.dtype).best:
            continue
        why = "half the bytes, more FLOP/s" if DTYPE_BYTES[dtype] < 4 else "more FLOP/s, less precise"
        fused = lower_bound(plan, peaks, dtype=dtype, batch_size=current.batch_size, fused=True)
        tried += [Suggestion(text("", dtype), eager(plan, peaks, dtype), why),
                  Suggestion(text("--compile", dtype), fused, why)]  # fmt: skip
    worthwhile = [suggestion for suggestion in tried if suggestion.seconds < WORTHWHILE * current.seconds]
    return tuple(sorted(worthwhile, key=lambda suggestion: suggestion.seconds))


def _measured_with(explanation: Explanation) -> tuple[bool, bool]:
    """Whether the model was measured with channels_last and with `--keep-memory`: suggestions keep both."""
    m = explanation.measurement
    return (False, False) if m is None else (m.options.channels_last, m.options.keep_memory)


def measure_suggestions(
    explanation: Explanation,
    suggestions: Sequence[Suggestion],
    *,
    device: str,
    time_budget_s: float = 3.0,
    measured: Callable[[Job], Measurement | str] = run,
) -> tuple[Suggestion, ...]:
    """Benchmark suggestions, each in a separate process.

    A `problem` says why one failed, or that its outputs differ from those of eager fp32.
    """
    from resnetcli.bench.options import RunOptions, as_dtype
    from resnetcli.bench.search import checked

    results = []
    channels_last, keep_memory = _measured_with(explanation)
    for suggestion in suggestions:
        bound = suggestion.lower_bound
        options = RunOptions(
            dtype=as_dtype(bound.dtype), runtime="inductor" if bound.fused else "eager", fold_bn=suggestion.fold_bn,
            cuda_graph=suggestion.cuda_graph, channels_last=channels_last, keep_memory=keep_memory,
        )  # fmt: skip
        job = Job(explanation.plan, options, device, explanation.eager.batch_size, time_budget_s)
        trial = checked(options, measured(job))
        results.append(replace(suggestion, measurement=trial.measurement, problem=trial.problem))
    return tuple(results)
