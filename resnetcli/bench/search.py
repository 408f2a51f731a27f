"""The quickest way to run a net on a device: a ladder of settings, each measured and checked in its own process."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from resnetcli.bench.sampling import Tell, tell_nobody
from resnetcli.bench.settings import Dtype, Settings, gpu_computes, has_fused_convolutions, require_possible
from resnetcli.bench.worker import Job, run
from resnetcli.errors import ResourceError
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan
from resnetcli.plan.schedule import fused_convs
from resnetcli.plan.training import is_traced

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement

FP32 = Settings("fp32", tf32=False)
EXTRA = "runtimes"
"""The extra that brings further rungs."""


@dataclass(frozen=True, slots=True)
class Rung:
    """Settings, and what they gave."""

    settings: Settings
    measurement: Measurement | None
    problem: str = ""
    """Why there is no measurement, or why it does not count."""

    @property
    def passed(self) -> bool:
        """Whether it was measured and its values are as they should be."""
        return self.measurement is not None and not self.problem


@dataclass(frozen=True, slots=True)
class Ladder:
    """All rungs at one batch, in the order they were climbed; the first is what others are compared with."""

    batch: int
    rungs: tuple[Rung, ...]

    @property
    def passed(self) -> tuple[Rung, ...]:
        """Those among which the best is."""
        return tuple(rung for rung in self.rungs if rung.passed)

    @property
    def best(self) -> Rung:
        """The quickest that passed. Raises ResourceError where none did."""
        if not self.passed:
            raise ResourceError(f"nothing could be measured at batch {self.batch}: {self.rungs[0].problem}")
        return min(self.passed, key=lambda rung: rung.measurement.median_s if rung.measurement else float("inf"))

    @property
    def ties(self) -> tuple[Rung, ...]:
        """Others that passed and whose interval meets the best one's: they may be as quick."""
        best = self.best.measurement if self.passed else None
        return tuple(
            rung for rung in self.passed
            if rung is not self.best and rung.measurement and best
            and rung.measurement.interval_s[0] <= best.interval_s[1]
        )  # fmt: skip

    def speedup(self, rung: Rung) -> float | None:
        """How many times as quick as the first rung; None where one of the two was not measured."""
        first = self.rungs[0].measurement
        return first.median_s / rung.measurement.median_s if first and rung.measurement else None


def rungs(device: str, *, dtype: Dtype | None = None, threads: int | None = None) -> tuple[Settings, ...]:
    """What is tried on a device, eager fp32 first; besides that only of `dtype`, if one is named.

    A CPU that has no instructions for bf16 is not asked to compile for it, nor an old GPU to compute in TF32 or bf16.
    """
    every = _cpu() if device == "cpu" else _gpu(device)
    wanted = [s for s in every if dtype is None or s == FP32 or s.dtype == dtype]
    return tuple(replace(s, threads=threads) for s in wanted)


def _cpu() -> Iterable[Settings]:
    quick: Dtype = "bf16" if computes_bf16() else "fp32"
    yield FP32
    yield replace(FP32, channels_last=True)
    yield replace(FP32, channels_last=True, fold_bn=True)
    yield replace(FP32, channels_last=True, fold_bn=True, keep_memory=True)
    yield replace(FP32, dtype="bf16", channels_last=True)
    yield replace(FP32, fold_bn=True, runtime="torchscript")
    yield replace(FP32, dtype="bf16", fold_bn=True, runtime="torchscript")
    yield replace(FP32, dtype="bf16", fold_bn=True, runtime="torchscript", keep_memory=True)
    yield replace(FP32, dtype=quick, fold_bn=True, runtime="inductor")
    if installed("onnxruntime", "onnxscript"):
        yield replace(FP32, runtime="onnxruntime")
    if installed("openvino"):
        yield replace(FP32, runtime="openvino")
        yield replace(FP32, dtype="bf16", runtime="openvino")


def _gpu(device: str) -> Iterable[Settings]:
    import torch

    yield FP32
    for dtype in ("tf32", "bf16", "fp16"):
        if torch.cuda.is_available() and not gpu_computes(dtype, device):
            continue
        base = Settings(dtype, tf32=dtype == "tf32", channels_last=True, fold_bn=True)
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
    """Whether this CPU has instructions that multiply bf16 numbers: AVX512-BF16 or AMX, as far as PyTorch can tell."""
    import torch

    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, name, lambda: False)() for name in asked)


def climb(
    plan: Plan,
    *,
    device: str = "cpu",
    batch: int = 1,
    dtype: Dtype | None = None,
    threads: int | None = None,
    time_budget_s: float = 3.0,
    tell: Tell = tell_nobody,
    measured: Callable[[Job], Measurement | str] = run,
) -> Ladder:
    """Every rung of a device, one after the other, for some `time_budget_s` each, and what building takes besides.

    `device` is as `device.find` gives it, `threads` are PyTorch's unless told. A rung that fails ends nothing; raises
    UsageError only for a dtype or threads that the device cannot have.
    """
    require_possible(Settings(dtype or "fp32", threads=threads), device)
    if threads is None:
        import torch

        threads = torch.get_num_threads()
    found: list[Rung] = []
    every = rungs(device, dtype=dtype, threads=threads)
    if is_traced(plan):  # whose BatchNorm nobody here can fold; compilers do so by themselves
        every = tuple(dict.fromkeys(replace(settings, fold_bn=False) for settings in every))
    if is_traced(plan) or not fused_convs(fold(plan).plan):
        every = tuple(settings for settings in every if settings.runtime != "cudnn")
    for number, settings in enumerate(every):
        outcome = measured(Job(plan, settings, device, batch, time_budget_s))
        found.append(judged(settings, outcome))
        tell((number + 1) / len(every))
    return Ladder(batch, tuple(found))


def judged(settings: Settings, outcome: Measurement | str) -> Rung:
    """A rung of what its process answered."""
    if isinstance(outcome, str):
        return Rung(settings, None, outcome)
    return Rung(settings, outcome, deviates(outcome))


def deviates(m: Measurement) -> str:
    """In words, how a measured net's values are not those of eager fp32; empty where they are."""
    if m.tolerance is None:
        return ""
    found = [value for value in (m.deviation_maps, m.deviation_outputs) if value is not None]
    off = [value for value in found if not value <= m.tolerance]  # each by itself: a maximum need not show a nan
    return f"its values are off by {max(off):.2g}, more than {m.tolerance:g}" if off else ""
