from __future__ import annotations

from dataclasses import replace

import pytest

import resnetcli as rc
from resnetcli.bench.latency import Measurement
from resnetcli.bench.options import RunOptions
from resnetcli.bench.worker import Job
from resnetcli.ops import BatchNorm, Conv
from resnetcli.roofline.analysis import TimeDifference, explain, lower_bounds
from resnetcli.roofline.bounds import lower_bound
from resnetcli.roofline.explain_table import explain_heading
from resnetcli.roofline.layers import LayerTimes
from resnetcli.roofline.peaks import Peak
from resnetcli.roofline.profiles import read_profile
from resnetcli.roofline.suggestions import Suggestion, measure_suggestions, suggest
from resnetcli.roofline.summary import describe_explanation
from tests.support.measured import measured
from tests.support.roofline import ROUND, explained, one_convolution
from tests.support.sketch import Sketch, residual_net


@pytest.mark.parametrize("seconds", [None, 2.0, 0.6, 0.1])
def test_shares_sum_to_one_above_and_below_the_lower_bound(seconds: float | None) -> None:
    found = explained(residual_net(), seconds)
    assert sum(found.shares.values()) == pytest.approx(1)
    if seconds is None:
        assert found.shares["unexplained"] == 0
    else:
        assert found.unexplained_s == pytest.approx(seconds - found.eager.seconds)


def test_stages_and_kinds_sum_to_the_model() -> None:
    found = explained(rc.load("resnet50"), 3.0)
    assert sum(part.eager.flops for part in found.stages) == 2 * rc.count(rc.load("resnet50")).macs
    for parts in (found.stages, found.kinds):
        assert sum(part.eager.lower_bound_s for part in parts) == pytest.approx(found.eager.seconds)


def test_stages_have_the_sum_of_their_layers_times() -> None:
    plan = rc.load("cifar_resnet", depth=8)
    times = (0.0, *(0.01 * index for index in range(1, len(plan.steps))))
    found = explained(plan, sum(times), layer_times=LayerTimes(times, sum(times), 5))
    assert sum(part.measured_s or 0 for part in found.stages) == pytest.approx(sum(times))
    assert found.slowest_layers(1)[0].name == plan.steps[-1].path
    refused = explained(plan, 1.0, layer_times=LayerTimes(times, 2 * sum(times), 5))
    assert all(part.measured_s is None for part in refused.stages)


def test_a_difference_is_the_sum_of_its_parts() -> None:
    model, other = explained(rc.load("resnext50_32x4d"), 9000.0), explained(rc.load("resnet50"), 8000.0)
    found = TimeDifference(model, other)
    assert sum(found.seconds.values()) == pytest.approx(1000)
    assert found.ratio_of("macs") == pytest.approx(4.2302 / 4.0889, abs=1e-4)
    assert found.ratio_of("activations") == pytest.approx(1.296, abs=1e-3)
    assert found.ratio_of("kernels") == 1


def test_the_ratio_of_resnext_to_resnet_is_as_published() -> None:
    """3.5% more MACs and a fifth more time: 1.206 published on a 4090, 1.189 on a 3090."""
    for device, batch, published in (("rtx4090", 512, 1.206), ("rtx3090", 1024, 1.189)):
        model, other = lower_bounds(
            [(name, name, rc.load(name)) for name in ("resnext50_32x4d", "resnet50")],
            read_profile(device), dtype="fp16", batch_size=batch,
        )  # fmt: skip
        found = TimeDifference(model, other)
        assert found.ratio == pytest.approx(published, rel=0.05)
        assert found.seconds["memory"] / (model.time_s - other.time_s) > 0.85


@pytest.mark.parametrize("host_s", [None, 0.1, 8.5])
def test_a_gpu_that_waits_for_the_cpu_is_launch_bound(host_s: float | None) -> None:
    found = explain("net", one_convolution(), "Net", ROUND, measurement=measured(9.0, host_s=host_s))
    assert found.launch_bound is (host_s == 8.5)
    words = "it is launch-bound, the CPU takes 8.500 s to launch 1 kernel."
    assert (words in describe_explanation(found)) is (host_s == 8.5)
    assert ("neither compute nor memory traffic" in describe_explanation(found)) is (host_s != 8.5)
    fast = explain("net", one_convolution(), "Fast", ROUND, measurement=measured(0.6))
    assert ("Net is launch-bound" in describe_explanation(found, TimeDifference(found, fast))) is (host_s == 8.5)
    assert any("8.500 s to launch" in line for line in explain_heading(found)) is (host_s == 8.5)


def test_suggestions_are_lower_by_a_tenth_and_sorted() -> None:
    found = explained(rc.load("resnet50"), None)
    tried = suggest(found)
    assert [each.setting for each in tried] == ["--dtype bf16 --compile", "--dtype bf16"]
    assert all(each.seconds < 0.9 * found.eager.seconds for each in tried)


def test_folding_and_graphs_are_suggested_where_they_lower_the_bound() -> None:
    s = Sketch(4, 8, 8)
    s.step("conv", Conv(4, (1, 1)))
    s.step("bn", BatchNorm())
    queueing = replace(ROUND, device="cuda", peaks={"fp32": Peak(1e9, 1e9)}, launch_s=1.0, gap_s=1e-3)
    tried = {each.setting: each for each in suggest(explained(s.plan(), None, queueing))}
    moved = 4 * (256 + 16 + 256 + 256 + 16 + 256)
    assert tried["--cuda-graph"].seconds == pytest.approx(moved / 1e6 + 2e-3, rel=0.01)
    assert tried["--cuda-graph"].cuda_graph
    assert "--fold-bn" not in tried  # on a GPU the bias takes a kernel, as BatchNorm did
    half = replace(queueing, peaks={"bf16": Peak(1e9, 1e9)})
    (folded,) = [each for each in suggest(explained(s.plan(), None, half, dtype="bf16")) if each.fold_bn]
    assert folded.seconds == pytest.approx(2.0)  # launches: a convolution and its bias, and not the three of BatchNorm
    on_a_cpu = {each.setting: each for each in suggest(explained(s.plan(), None, replace(queueing, device="cpu")))}
    assert on_a_cpu["--fold-bn"].seconds == pytest.approx(1.0)  # one launch instead of two
    assert on_a_cpu["--fold-bn"].fold_bn
    assert "--cuda-graph" not in on_a_cpu


def test_suggestions_keep_the_memory_format_and_allocator_that_were_measured() -> None:
    taken = measured(1e4, options=RunOptions(channels_last=True, keep_memory=True))
    plan = one_convolution()
    found = explain("net", plan, "Net", ROUND, measurement=taken)
    assert explain_heading(found)[0].startswith("Net   net   fp32 channels_last keep-memory, batch 1, eager   on ")
    tried = suggest(found)
    as_now = "--dtype bf16 --channels-last --keep-memory"
    assert [each.setting for each in tried] == [as_now, f"{as_now} --compile"]
    jobs: list[Job] = []

    def process(job: Job) -> str:
        jobs.append(job)
        return "not now"

    measure_suggestions(found, tried, device="cpu", measured=process)
    assert [job.options.text for job in jobs] == [
        "bf16 channels_last keep-memory", "bf16 channels_last keep-memory compile"
    ]  # fmt: skip


def test_each_suggestion_is_measured_in_a_separate_process() -> None:
    jobs: list[Job] = []

    def process(job: Job) -> Measurement | str:
        jobs.append(job)
        off = {"tolerance": 1e-3, "deviation_outputs": 0.5 if job.options.fold_bn else 1e-6}
        return "no compiler" if job.options.compile else measured(1.0, **off)

    found = explained(one_convolution(), None, batch_size=4)
    tried = [
        Suggestion("--fold-bn", found.eager, "", fold_bn=True),
        Suggestion("--cuda-graph", found.eager, "", cuda_graph=True),
        Suggestion("--compile", lower_bound(one_convolution(), ROUND, fused=True), ""),
    ]
    done = measure_suggestions(found, tried, device="cpu", time_budget_s=0.5, measured=process)
    assert [job.options.text for job in jobs] == ["fp32 fold-bn", "fp32 graph", "fp32 compile"]
    assert all(job.plan is found.plan for job in jobs)
    assert {(job.device, job.batch_size, job.time_budget_s, job.figure) for job in jobs} == {("cpu", 4, 0.5, "time")}
    wrong = "its outputs deviate by 0.5, more than 0.001"
    assert [each.problem for each in done] == [wrong, "", "no compiler"]
    assert [each.measurement is None for each in done] == [False, False, True]
