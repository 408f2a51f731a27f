"""Autotuning: find the fastest options for a model on a device, each measured and checked in a separate process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from resnetcli.bench.execution import gpu_computes, has_fused_convolutions, require_supported
from resnetcli.bench.options import DEFAULT, TIME_BUDGET_S, Dtype, RunOptions, option_of
from resnetcli.bench.sampling import Progress, no_progress
from resnetcli.bench.worker import Job, run
from resnetcli.errors import ResourceError
from resnetcli.frozen import frozen
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan
from resnetcli.plan.schedule import fused_convs
from resnetcli.plan.training import is_traced

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement

FP32 = RunOptions(dtype="fp32")


@frozen
class Trial:
    """One set of options, and the measurement under them."""

    options: RunOptions
    measurement: Measurement | None
    problem: str = ""
    """Why there is no measurement, or why it does not count."""

    @property
    def passed(self) -> bool:
        """Whether it was measured and its outputs are correct."""
        return self.measurement is not None and not self.problem


@frozen
class SettingsSearch:
    """All trials at one batch size, in the order measured; the others are compared with the first."""

    batch: int
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> tuple[Trial, ...]:
        """The candidates for the best."""
        return tuple(trial for trial in self.trials if trial.passed)

    @property
    def best(self) -> Trial:
        """The trial that passed with the lowest upper limit of the median's CI: an imprecise median does not win.

        Raises ResourceError if none passed.
        """
        if not self.passed:
            raise ResourceError(f"nothing could be measured at batch {self.batch}: {self.trials[0].problem}")
        return min(
            self.passed, key=lambda trial: trial.measurement.interval_s[1] if trial.measurement else float("inf")
        )

    @property
    def ties(self) -> tuple[Trial, ...]:
        """Other trials that passed, whose CI overlaps that of the best one: they may be as fast."""
        best = self.best.measurement if self.passed else None
        return tuple(
            trial for trial in self.passed
            if trial is not self.best and trial.measurement and best
            and trial.measurement.interval_s[0] <= best.interval_s[1]
        )  # fmt: skip

    def speedup(self, trial: Trial) -> float | None:
        """The first trial's median latency / this one's; None if either was not measured."""
        first = self.trials[0].measurement
        return first.median_s / trial.measurement.median_s if first and trial.measurement else None


def candidates(device: str, options: RunOptions = DEFAULT) -> tuple[RunOptions, ...]:
    """The options to try on a device, eager fp32 first; the others only in the dtype of `options`, if it has one.

    Options that are not searched, such as the number of threads, are as in `options`. Compiled bf16 is not tried on a
    CPU without bf16 instructions, nor TF32 and bf16 on a GPU that does not support them.
    """
    fixed = {f.name: getattr(options, f.name) for f in fields(options) if not option_of(f).searched}
    dtype = fixed.pop("dtype")
    trials = _cpu() if device == "cpu" else _gpu(device)
    return tuple(replace(trial, **fixed) for trial in trials if dtype in (None, trial.dtype) or trial == FP32)


def _cpu() -> Iterable[RunOptions]:
    compiled: Dtype = "bf16" if computes_bf16() else "fp32"
    yield FP32
    yield replace(FP32, channels_last=True)
    yield replace(FP32, channels_last=True, fold_bn=True)
    yield replace(FP32, channels_last=True, fold_bn=True, keep_memory=True)
    yield replace(FP32, dtype="bf16", channels_last=True)
    yield replace(FP32, fold_bn=True, runtime="torchscript")
    yield replace(FP32, dtype="bf16", fold_bn=True, runtime="torchscript")
    yield replace(FP32, dtype="bf16", fold_bn=True, runtime="torchscript", keep_memory=True)
    yield replace(FP32, dtype=compiled, fold_bn=True, runtime="inductor")
    if installed("onnxruntime", "onnxscript"):
        yield replace(FP32, runtime="onnxruntime")
    if installed("openvino"):
        yield replace(FP32, runtime="openvino")
        yield replace(FP32, dtype="bf16", runtime="openvino")


def _gpu(device: str) -> Iterable[RunOptions]:
    import torch

    yield FP32
    for dtype in ("tf32", "bf16", "fp16"):
        if torch.cuda.is_available() and not gpu_computes(dtype, device):
            continue
        base = RunOptions(dtype=dtype, channels_last=True, fold_bn=True)
        yield replace(base, fold_bn=False)
        yield replace(base, cuda_graph=True)
        if has_fused_convolutions():
            yield replace(base, runtime="cudnn")
            yield replace(base, runtime="cudnn", cuda_graph=True)
        if dtype != "tf32":
            yield replace(base, channels_last=False, cuda_graph=True)
            yield replace(base, runtime="inductor")
            yield replace(base, runtime="inductor", cuda_graph=True)


def installed(*packages: str) -> bool:
    """Whether all of them can be imported."""
    return all(importlib.util.find_spec(package) is not None for package in packages)


def computes_bf16() -> bool:
    """Whether this CPU has bf16 instructions, AVX512-BF16 or AMX, as far as PyTorch can tell."""
    import torch

    queries = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in queries)


def search(
    plan: Plan,
    *,
    device: str = "cpu",
    batch_size: int = 1,
    options: RunOptions = DEFAULT,
    time_budget_s: float = TIME_BUDGET_S,
    progress: Progress = no_progress,
    measured: Callable[[Job], Measurement | str] = run,
) -> SettingsSearch:
    """Measure every candidate of a device, one after the other, for some `time_budget_s` each besides building.

    `device` is as `device.find` returns it; `options` are what `candidates` keeps, the number of threads PyTorch's by
    default. A failed trial does not end the search; raises UsageError only for `options` that the device does not
    support.
    """
    require_supported(options, device)
    if options.threads is None:
        import torch

        options = replace(options, threads=torch.get_num_threads())
    tried = candidates(device, options)
    if is_traced(plan):  # whose BatchNorm only compilers can fold
        tried = tuple(dict.fromkeys(replace(options, fold_bn=False) for options in tried))
    if is_traced(plan) or not fused_convs(fold(plan).plan):
        tried = tuple(options for options in tried if options.runtime != "cudnn")
    trials: list[Trial] = []
    for number, options in enumerate(tried):
        trials.append(checked(options, measured(Job(plan, options, device, batch_size, time_budget_s))))
        progress((number + 1) / len(tried))
    return SettingsSearch(batch_size, tuple(trials))


def checked(options: RunOptions, outcome: Measurement | str) -> Trial:
    """A trial of the process's answer, its outputs checked."""
    if isinstance(outcome, str):
        return Trial(options, None, outcome)
    return Trial(options, outcome, deviates(outcome))


def deviates(m: Measurement) -> str:
    """How a model's outputs deviate from those of eager fp32 by more than the tolerance; empty if they do not."""
    if m.tolerance is None:
        return ""
    deviations = [value for value in (m.deviation_maps, m.deviation_outputs) if value is not None]
    excessive = [value for value in deviations if not value <= m.tolerance]  # one by one: a maximum may hide a NaN
    return f"its outputs deviate by {max(excessive):.2g}, more than {m.tolerance:g}" if excessive else ""
