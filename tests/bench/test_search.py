from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch

from resnetcli.bench import search as best
from resnetcli.bench.latency import Measurement, measure
from resnetcli.bench.options import DTYPES, RunOptions
from resnetcli.bench.search import FP32, SettingsSearch, Trial, candidates, checked, deviates, search
from resnetcli.bench.worker import Job
from resnetcli.errors import ResourceError
from resnetcli.ops import Shape
from resnetcli.reports.foreign import of_module
from resnetcli.reports.profile import load
from resnetcli.reports.search_table import search_lines, search_sheet
from tests.support.sketch import residual_net


@cache
def some() -> Measurement:
    return measure(residual_net(), time_budget_s=0.01)


def made(median_s: float, tolerance: float | None = None, off: float | None = None) -> Measurement:
    within = (median_s, median_s)
    return replace(
        some(), median_s=median_s, interval_s=within, tolerance=tolerance, deviation_outputs=off, deviation_maps=None
    )


def test_the_fastest_that_passes_is_the_best() -> None:
    slow, quick, wrong = (
        checked(FP32, made(0.3)), checked(FP32, made(0.2, 1e-3, 1e-5)), checked(FP32, made(0.1, 1e-3, 2e-3)),
    )  # fmt: skip
    found = SettingsSearch(1, (slow, wrong, quick, checked(FP32, "no compiler")))
    assert found.best is quick
    assert [trial.passed for trial in found.trials] == [True, False, True, False]
    assert wrong.problem == "its outputs deviate by 0.002, more than 0.001"
    speedups = [found.speedup(trial) for trial in found.trials]
    assert speedups == [1.0, pytest.approx(3.0), pytest.approx(1.5), None]


def test_rungs_whose_intervals_meet_the_best_one_s_are_ties() -> None:
    best_one, near, far, wrong = (
        checked(FP32, replace(made(middle, 1e-3, off), interval_s=limits))
        for middle, limits, off in (
            (1.0, (0.9, 1.1), 0.0), (1.2, (1.05, 1.3), 0.0), (1.3, (1.2, 1.4), 0.0), (1.0, (0.9, 1.1), 1.0)
        )
    )  # fmt: skip
    found = SettingsSearch(1, (far, near, best_one, wrong))
    assert found.best is best_one
    assert found.ties == (near,)


def test_an_unreliable_median_is_not_the_best() -> None:
    sure, unsure = (
        checked(FP32, replace(made(middle, 1e-3, 0.0), interval_s=limits))
        for middle, limits in ((1.0, (0.9, 1.1)), (0.8, (0.2, 3.9)))
    )
    found = SettingsSearch(1, (unsure, sure))
    assert found.best is sure
    assert found.ties == (unsure,)
    assert [{cell.text for cell in row} & {"best", "tied"} for row in search_sheet([found]).rows] == [
        {"tied"},
        {"best"},
    ]


def test_where_nothing_passes_there_is_an_error_with_the_first_reason() -> None:
    found = SettingsSearch(8, (Trial(FP32, None, "out of memory"), Trial(FP32, None, "no compiler")))
    with pytest.raises(ResourceError, match="nothing could be measured at batch 8: out of memory"):
        _ = found.best
    assert found.ties == ()
    assert not any("at most" in line for line in search_lines([found]))


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


def test_a_failed_trial_does_not_end_the_search_which_reports_its_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []
    told: list[float] = []

    def measured(job: Job) -> Measurement | str:
        jobs.append(job)
        return "no bf16 here" if job.options.dtype == "bf16" else made(1 / len(jobs), 1e-3, 0.0)

    found = search(residual_net(), batch_size=4, options=RunOptions(threads=1), progress=told.append, measured=measured)
    assert [trial.options for trial in found.trials] == list(candidates("cpu", RunOptions(threads=1)))
    assert {job.batch_size for job in jobs} == {4}
    assert {trial.problem for trial in found.trials if trial.options.dtype == "bf16"} == {"no bf16 here"}
    assert found.best.options.dtype == "fp32"
    assert told[-1] == 1.0
    assert told == sorted(told)


def test_of_a_pytorch_model_nothing_is_folded_and_no_rung_is_there_twice() -> None:
    plan = of_module(torch.nn.Conv2d(3, 8, 3), Shape(3, 16, 16), None).plan
    tried = [trial.options for trial in search(plan, measured=lambda job: "not now").trials]
    assert not any(settings.fold_bn for settings in tried)
    assert len(tried) == len(set(tried))
    assert {settings.runtime for settings in tried} >= {"eager", "torchscript", "inductor"}


def test_threads_are_this_process_s_unless_told() -> None:
    seen = set()

    def measured(job: Job) -> str:
        seen.add(job.options.threads)
        return "not now"

    search(residual_net(), measured=measured)
    assert seen == {torch.get_num_threads()}


def test_a_search_begins_with_eager_fp32_and_can_be_of_one_dtype() -> None:
    for device in ("cpu", "cuda:0"):
        assert candidates(device)[0] == FP32
        assert len(set(candidates(device))) == len(candidates(device))
        only = candidates(device, RunOptions(dtype="bf16"))
        assert only[0] == FP32
        assert {settings.dtype for settings in only[1:]} == {"bf16"}
    assert {settings.dtype for settings in candidates("cpu", FP32)} == {"fp32"}
    assert not any(settings.cuda_graph or settings.dtype in ("fp16", "tf32") for settings in candidates("cpu"))


@pytest.mark.parametrize(("capability", "dtypes"), [((7, 5), {"fp32", "fp16"}), ((9, 0), set(DTYPES))])
def test_an_old_gpu_is_not_tried_in_what_it_cannot_compute_in(
    capability: tuple[int, int], dtypes: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert {settings.dtype for settings in candidates("cuda:0")} == dtypes


def test_fused_convolutions_are_rungs_on_a_gpu_whose_pytorch_has_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for has_them in (False, True):
        monkeypatch.setattr(best, "has_fused_convolutions", lambda has_them=has_them: has_them)
        fused = [settings for settings in candidates("cuda:0") if settings.runtime == "cudnn"]
        assert {(each.dtype, each.cuda_graph) for each in fused} == (
            set(product(("tf32", "bf16", "fp16"), (False, True))) if has_them else set()
        )
        assert all(each.fold_bn and each.channels_last for each in fused)
        assert not any(settings.runtime == "cudnn" for settings in candidates("cpu"))


def test_fused_convolutions_are_no_rungs_of_a_model_without_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "has_fused_convolutions", lambda: True)
    monkeypatch.setattr(best, "require_supported", lambda settings, device: None)
    foreign = of_module(torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()), Shape(3, 16, 16), None).plan
    for plan, fused in ((residual_net(), 6), (load("darknet19"), 0), (foreign, 0)):
        tried = [trial.options for trial in search(plan, device="cuda:0", measured=lambda job: "not now").trials]
        assert sum(settings.runtime == "cudnn" for settings in tried) == fused
        assert len(tried) == len(set(tried)) > 5


def test_other_runtimes_are_rungs_where_they_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(best, "installed", lambda *packages: False)
    assert {settings.runtime for settings in candidates("cpu")} == {"eager", "torchscript", "inductor"}
    monkeypatch.setattr(best, "installed", lambda *packages: True)
    assert {settings.runtime for settings in candidates("cpu")} >= {"onnxruntime", "openvino"}


def test_a_cpu_without_bf16_compiles_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    for computes, dtype in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(best, "computes_bf16", lambda computes=computes: computes)
        assert [settings.dtype for settings in candidates("cpu") if settings.compile] == [dtype]
