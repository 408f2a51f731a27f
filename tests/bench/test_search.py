from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch

from resnetcli.bench import search as best
from resnetcli.bench.latency import Measurement, measure
from resnetcli.bench.search import FP32, Ladder, Rung, climb, deviates, judged, rungs
from resnetcli.bench.settings import DTYPES
from resnetcli.bench.worker import Job
from resnetcli.errors import ResourceError
from resnetcli.ops import Shape
from resnetcli.reports.foreign import of_module
from resnetcli.reports.profile import load
from resnetcli.reports.search_table import ladder_lines
from tests.support.sketch import residual_net


@cache
def some() -> Measurement:
    return measure(residual_net(), time_budget_s=0.01)


def made(median_s: float, tolerance: float | None = None, off: float | None = None) -> Measurement:
    return replace(some(), median_s=median_s, tolerance=tolerance, deviation_outputs=off, deviation_maps=None)


def test_the_quickest_that_passes_is_the_best() -> None:
    slow, quick, wrong = (
        judged(FP32, made(0.3)), judged(FP32, made(0.2, 1e-3, 1e-5)), judged(FP32, made(0.1, 1e-3, 2e-3)),
    )  # fmt: skip
    ladder = Ladder(1, (slow, wrong, quick, judged(FP32, "no compiler")))
    assert ladder.best is quick
    assert [rung.passed for rung in ladder.rungs] == [True, False, True, False]
    assert wrong.problem == "its values are off by 0.002, more than 0.001"
    speedups = [ladder.speedup(rung) for rung in ladder.rungs]
    assert speedups == [1.0, pytest.approx(3.0), pytest.approx(1.5), None]


def test_rungs_whose_intervals_meet_the_best_one_s_are_ties() -> None:
    best_one, near, far, wrong = (
        judged(FP32, replace(made(middle, 1e-3, off), interval_s=limits))
        for middle, limits, off in (
            (1.0, (0.9, 1.1), 0.0), (1.2, (1.05, 1.3), 0.0), (1.3, (1.2, 1.4), 0.0), (1.0, (0.9, 1.1), 1.0)
        )
    )  # fmt: skip
    ladder = Ladder(1, (far, near, best_one, wrong))
    assert ladder.best is best_one
    assert ladder.ties == (near,)


def test_where_nothing_passes_there_is_an_error_with_the_first_reason() -> None:
    ladder = Ladder(8, (Rung(FP32, None, "out of memory"), Rung(FP32, None, "no compiler")))
    with pytest.raises(ResourceError, match="nothing could be measured at batch 8: out of memory"):
        _ = ladder.best
    assert ladder.ties == ()
    assert not any("at most" in line for line in ladder_lines([ladder]))


@pytest.mark.parametrize(
    ("maps", "outputs", "passes"),
    [
        (1e-4, 1e-4, True),
        (1e-2, 1e-4, False),
        (None, 1.0, False),
        (1e-4, float("nan"), False),  # the maximum of the two is 1e-4
        (float("nan"), 1e-4, False),
        (None, float("inf"), False),
    ],
)
def test_both_maps_and_outputs_must_be_within_tolerance(maps: float | None, outputs: float, passes: bool) -> None:
    m = replace(some(), tolerance=1e-3, deviation_maps=maps, deviation_outputs=outputs)
    assert (deviates(m) == "") is passes


def test_a_ladder_climbs_on_when_a_rung_fails_and_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    told: list[float] = []

    def measured(job: Job) -> Measurement | str:
        jobs.append(job)
        return "no bf16 here" if job.settings.dtype == "bf16" else made(1 / len(jobs), 1e-3, 0.0)

    ladder = climb(residual_net(), batch=4, threads=1, tell=told.append, measured=measured)
    assert [rung.settings for rung in ladder.rungs] == list(rungs("cpu", threads=1))
    assert {job.batch for job in jobs} == {4}
    assert {rung.problem for rung in ladder.rungs if rung.settings.dtype == "bf16"} == {"no bf16 here"}
    assert ladder.best.settings.dtype == "fp32"
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_of_a_pytorch_model_nothing_is_folded_and_no_rung_is_there_twice() -> None:
    plan = of_module(torch.nn.Conv2d(3, 8, 3), Shape(3, 16, 16), None).plan
    tried = [rung.settings for rung in climb(plan, measured=lambda job: "not now").rungs]
    assert not any(settings.fold_bn for settings in tried)
    assert len(tried) == len(set(tried))
    assert {settings.runtime for settings in tried} >= {"eager", "torchscript", "inductor"}


def test_threads_are_this_process_s_unless_told() -> None:
    seen = set()

    def measured(job: Job) -> str:
        seen.add(job.settings.threads)
        return "not now"

    climb(residual_net(), measured=measured)
    assert seen == {torch.get_num_threads()}


def test_a_ladder_begins_with_eager_fp32_and_can_be_of_one_dtype() -> None:
    for device in ("cpu", "cuda:0"):
        assert rungs(device)[0] == FP32
        assert len(set(rungs(device))) == len(rungs(device))
        only = rungs(device, dtype="bf16")
        assert only[0] == FP32
        assert {settings.dtype for settings in only[1:]} == {"bf16"}
    assert {settings.dtype for settings in rungs("cpu", dtype="fp32")} == {"fp32"}
    assert not any(settings.cuda_graph or settings.dtype in ("fp16", "tf32") for settings in rungs("cpu"))


@pytest.mark.parametrize(("capability", "dtypes"), [((7, 5), {"fp32", "fp16"}), ((9, 0), set(DTYPES))])
def test_an_old_gpu_is_not_tried_in_what_it_cannot_compute_in(
    capability: tuple[int, int], dtypes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert {settings.dtype for settings in rungs("cuda:0")} == dtypes


def test_fused_convolutions_are_rungs_on_a_gpu_whose_pytorch_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_them in (False, True):
        monkeypatch.setattr(best, "has_fused_convolutions", lambda has_them=has_them: has_them)
        fused = [settings for settings in rungs("cuda:0") if settings.runtime == "cudnn"]
        assert {(each.dtype, each.cuda_graph) for each in fused} == (
            set(product(("tf32", "bf16", "fp16"), (False, True))) if has_them else set()
        )
        assert all(each.fold_bn and each.channels_last for each in fused)
        assert not any(settings.runtime == "cudnn" for settings in rungs("cpu"))


def test_fused_convolutions_are_no_rungs_of_a_model_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "has_fused_convolutions", lambda: True)
    monkeypatch.setattr(best, "require_possible", lambda settings, device: None)
    foreign = of_module(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), Shape(3, 16, 16), None).plan
    for plan, fused in ((residual_net(), 6), (load("darknet19"), 0), (foreign, 0)):
        tried = [rung.settings for rung in climb(plan, device="cuda:0", measured=lambda job: "not now").rungs]
        assert sum(settings.runtime == "cudnn" for settings in tried) == fused
        assert len(tried) == len(set(tried)) > 5


def test_other_runtimes_are_rungs_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "installed", lambda *packages: False)
    assert {settings.runtime for settings in rungs("cpu")} == {"eager", "torchscript", "inductor"}
    monkeypatch.setattr(best, "installed", lambda *packages: True)
    assert {settings.runtime for settings in rungs("cpu")} >= {"onnxruntime", "openvino"}


def test_a_cpu_without_bf16_compiles_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes, dtype in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(best, "computes_bf16", lambda computes=computes: computes)
        assert [settings.dtype for settings in rungs("cpu") if settings.compile] == [dtype]
