from __future__ import annotations

from dataclasses import replace
from statistics import median
from typing import Any

import pytest

import resnetcli as rc
from resnetcli.errors import UsageError
from resnetcli.ops import Conv, Dropout, Linear, ReLU
from resnetcli.roofline.bounds import MAX_BATCH, lower_bound
from resnetcli.roofline.peaks import Bandwidth, Peak
from resnetcli.roofline.profiles import read_profile, read_validation
from tests.support.roofline import ROUND, one_convolution
from tests.support.sketch import Sketch


def test_one_convolution_by_hand() -> None:
    found = lower_bound(one_convolution(), ROUND)
    assert found.total.flops == 1_000_000
    assert found.total.bytes == 80_000
    assert found.total.compute_s == 0.5  # at the larger of the two peaks; 0.08 s for the bytes
    assert found.total.memory_s == 0
    assert found.total.overhead_s == 1e-3
    assert found.seconds == pytest.approx(0.501)
    assert found.total.bound == "compute"
    fast = replace(ROUND, peaks={"fp32": Peak(1e9, 1e9)})
    moved = lower_bound(one_convolution(), fast)
    assert (moved.total.compute_s, moved.total.memory_s, moved.total.bound) == (0, 0.08, "memory")
    assert lower_bound(one_convolution(), replace(fast, launch_s=1.0, gap_s=1.0)).total.bound == "overhead"


def test_weights_are_read_once_per_batch_and_bf16_halves_the_bytes() -> None:
    assert lower_bound(one_convolution(), ROUND, batch_size=3).total.bytes == 4 * (3 * 15_000 + 5_000)
    half = lower_bound(one_convolution(), ROUND, batch_size=3, dtype="bf16").total
    assert (half.bytes, half.flops) == (2 * (3 * 15_000 + 5_000), 3_000_000)


def test_a_fully_connected_layer_is_a_matrix_product() -> None:
    s = Sketch(1000, 1, 1)
    s.step("fc", Linear(500, bias=False))
    assert lower_bound(s.plan(), replace(ROUND, bandwidth=(Bandwidth(1, 1e9, 1e9),))).total.compute_s == 1.0


def test_a_device_waits_for_kernels_that_are_launched_too_slowly() -> None:
    s = Sketch(1, 10, 10)
    for index in range(10):
        s.step(f"relu{index}", ReLU())
    queueing = replace(ROUND, gap_s=1e-4, launch_s=1e-3)  # each runs for 0.8 ms and 0.1 ms, and is launched in 1 ms
    total = lower_bound(s.plan(), queueing).total
    assert total.memory_s == pytest.approx(8e-3)
    assert total.lower_bound_s == pytest.approx(10e-3)
    assert lower_bound(s.plan(), replace(queueing, launch_s=1e-5)).total.lower_bound_s == pytest.approx(9e-3)


@pytest.mark.parametrize("model", ["resnet18", "resnext50_32x4d", "inception_v3", "alexnet"])
def test_lower_bounds_fall_as_peaks_rise(model: str) -> None:
    plan = rc.load(model)
    before = lower_bound(plan, ROUND).seconds
    for change in (
        {"peaks": {"fp32": Peak(1.5e6, 3e6)}},
        {"bandwidth": (Bandwidth(2**20, 2e6, 2e6),)},
        {"bandwidth": (Bandwidth(2**20, 1e6, 3e6),)},
        {"launch_s": 1e-4, "gap_s": 1e-4},
    ):
        after = lower_bound(plan, replace(ROUND, **change)).seconds
        assert after < before
    assert lower_bound(plan, ROUND, fused=True).seconds < before


def test_an_unknown_dtype_and_an_invalid_batch_size_are_refused() -> None:
    with pytest.raises(UsageError, match="no peak FLOP/s of round in `fp16`"):
        lower_bound(one_convolution(), ROUND, dtype="fp16")
    for batch in (0, -1, MAX_BATCH + 1, 10**310):
        with pytest.raises(UsageError, match=f"invalid batch size {batch}"):
            lower_bound(one_convolution(), ROUND, batch_size=batch)


def test_a_model_without_kernels_has_no_lower_bound() -> None:
    s = Sketch(3, 8, 8)
    s.step("dropout", Dropout(0.5))
    with pytest.raises(UsageError, match="launches no kernels"):
        lower_bound(s.plan(), ROUND)


@pytest.mark.parametrize(
    "change",
    [
        {"peaks": {"fp32": Peak(5e-324, 5e-324)}},
        {"bandwidth": (Bandwidth(2**20, 5e-324, 5e-324),)},
        {"launch_s": 1e308, "gap_s": 1e308},
    ],
)
def test_peaks_that_give_an_infinite_time_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="the peaks of round give `resnet18` a lower bound of inf s"):
        lower_bound(rc.load("resnet18"), replace(ROUND, **change))


@pytest.mark.parametrize(("device", "low", "high"), [("rtx4090", 0.79, 0.99), ("rtx3090", 0.71, 0.93)])
def test_lower_bounds_are_just_below_published_latencies(device: str, low: float, high: float) -> None:
    peaks, validation = read_profile(device), read_validation(device)
    assert validation is not None
    bounds = {
        model: lower_bound(rc.load(model), peaks, dtype=validation.dtype, batch_size=validation.batch_size).seconds
        for model in validation.latency_s
    }
    attained = sorted(bounds[model] / seconds for model, seconds in validation.latency_s.items())
    assert low < attained[0] < attained[-1] < high
    assert validation.attained == pytest.approx((attained[0], median(attained), attained[-1]), abs=5e-4)


def test_fully_connected_layers_may_have_another_dtype_than_convolutions() -> None:
    s = Sketch(1000, 1, 1)
    s.step("conv", Conv(500, (1, 1)))
    s.step("fc", Linear(500, bias=False))
    fast = replace(ROUND, bandwidth=(Bandwidth(1, 1e12, 1e12),), peaks={"fp32": Peak(1e6, 1e6), "tf32": Peak(1e7, 1e7)})
    conv, fc = lower_bound(s.plan(), fast, dtype="tf32", linear_dtype="fp32").steps[1:]
    assert (conv.compute_s, fc.compute_s) == (0.1, 0.5)
    assert lower_bound(s.plan(), fast, dtype="tf32").steps[2].compute_s == pytest.approx(0.05)
