from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from resnetcli.errors import ResourceError
from resnetcli.roofline import calibrate as calibration
from resnetcli.roofline.calibrate import last_cache, measure_device_peaks, working_sets
from resnetcli.roofline.profiles import device_profile_record, from_json
from tests.support.measured import QUIET


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that advances by 1/64 s per reading."""
    ticks = count()
    return lambda: next(ticks) / 64


@pytest.fixture
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "SIZES", (4, 8))
    monkeypatch.setattr(calibration, "CONVOLUTIONS", ((1, 2, 3),))
    monkeypatch.setattr(calibration, "CHAIN", 16)
    monkeypatch.setattr(calibration, "last_cache", lambda place: 2**18)


@pytest.mark.usefixtures("_small")
def test_peaks_by_a_ticking_clock_are_exact(ticking: Callable[[], float]) -> None:
    steps: list[str] = []
    found = measure_device_peaks(clock=ticking, budget_s=0.01, report=steps.append)
    tick = 1 / 64  # of every sample, which is one call then
    assert found.launch_s == found.gap_s == tick / 16
    assert set(found.peaks) == {"fp32", "bf16"}
    # each size takes a tick, so the largest that was tried is the fastest
    assert found.peaks["fp32"].matmul_flop_s in {2 * 4**3 / tick, 2 * 8**3 / tick}
    assert found.peaks["fp32"].conv_flop_s == 2 * 9 * 2 * 2 * 9 / tick
    sizes = [2**18, 2**20]
    assert [rate.working_set_bytes for rate in found.bandwidth] == sizes
    assert {rate.copy_bytes_s for rate in found.bandwidth} == {
        2**20 / (tick - tick / 16)
    }  # no smaller working set is slower
    assert found.conditions["threads"] == str(torch.get_num_threads())
    assert any("fp32" in what for what in steps)


@pytest.mark.usefixtures("_small")
def test_peaks_measured_on_a_busy_machine_are_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other programs take sixteen of two processors' twenty seconds, or none."""
    for busy_s, noisy in ((16.0, ("other programs used 80% of the CPU time",)), (0.0, ())):
        after = replace(QUIET, at_s=10.0, own_s=4.0, busy_s=(QUIET.busy_s or 0.0) + 4.0 + busy_s)
        readings = iter([QUIET, after])
        monkeypatch.setattr(calibration, "read_environment", lambda place, readings=readings: next(readings))
        assert measure_device_peaks(budget_s=0.01).noisy == noisy
        assert next(readings, None) is None


def test_working_sets_end_at_four_times_the_last_cache_or_a_gibibyte() -> None:
    assert working_sets(2**25) == [2**18, 2**20, 2**22, 2**24, 2**26, 2**27]
    assert working_sets(2**40)[-1] == 2**30
    assert working_sets(1) == [2**18, 2**20]
    assert last_cache(torch.device("cpu")) >= 2**15


@pytest.mark.usefixtures("_small")
def test_an_unsupported_dtype_is_omitted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = torch.mm

    def mm(a: torch.Tensor, b: torch.Tensor, **more: Any) -> torch.Tensor:
        if a.dtype == torch.bfloat16:
            raise RuntimeError("not implemented for 'BFloat16'")
        return real(a, b, **more)

    monkeypatch.setattr(torch, "mm", mm)
    assert set(measure_device_peaks(budget_s=0.01).peaks) == {"fp32"}


@pytest.mark.usefixtures("_small")
def test_measured_peaks_are_a_valid_profile() -> None:
    found = measure_device_peaks(budget_s=0.01)
    assert from_json(json.loads(json.dumps(device_profile_record(found)))) == found


@pytest.mark.parametrize(
    ("kind", "seconds", "reached"),
    [("matmuls", 1e-5, 5), ("convolutions", 1e-5, 12), ("matmuls", 100.0, 1)],
)
def test_all_sizes_are_measured_if_calls_are_fast_and_none_after_a_slow_one(
    kind: str, seconds: float, reached: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, called = 0.0, set()
    bench = calibration._Bench(torch.device("cpu"), lambda: now, 20.0, lambda _: None)

    def timed(call: Callable[[], object], calls: int) -> float:
        nonlocal now
        now += calls * seconds
        return calls * seconds

    def some() -> Iterator[tuple[int, Callable[[], object]]]:
        number = len(calibration.SIZES) if kind == "matmuls" else 2 * len(calibration.CONVOLUTIONS)
        for at in range(number):
            yield 8**at, lambda at=at: called.add(at)  # type: ignore[misc]

    monkeypatch.setattr(bench, "time", timed)
    bench.peak_flop_s("bf16", "products", some())
    assert called == set(range(reached))
    assert now < 20 or reached == 1


def test_a_gpu_s_working_sets_go_beyond_its_caches() -> None:
    assert working_sets(2**22, least=2**28)[-1] == 2**28
    assert working_sets(2**27, least=2**28)[-1] == 2**29


def test_a_lost_gpu_ends_the_calibration_with_a_message(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*arguments: Any, **more: Any) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure\nCUDA kernel errors might be reported later")

    monkeypatch.setattr(torch, "mm", lost)
    with pytest.raises(ResourceError, match=r"^error: calibration could not be run on `cpu`: CUDA error: unspecified"):
        measure_device_peaks(budget_s=0.01)


def test_repeated_random_numbers_are_not_zeros() -> None:
    bench = calibration._Bench(torch.device("cpu"), lambda: 0.0, 1.0, lambda _: None)
    x = bench.random_tensor(3, 2**18 - 5, dtype=torch.float32)
    assert x.shape == (3, 2**18 - 5)
    assert x.count_nonzero() == x.numel()
    assert 0.9 < float(x.std()) < 1.1
