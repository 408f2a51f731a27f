from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from typing import Any

import pytest
import torch

from resnetcli.bench import interleaved as module
from resnetcli.bench.interleaved import Interleaved, measure_interleaved
from resnetcli.bench.latency import Measurement
from resnetcli.bench.options import RunOptions
from resnetcli.bench.prepare import prepare
from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import Conv, PoolTo
from resnetcli.plan.plan import Plan
from tests.support.calls import calls_of
from tests.support.short import OUT_OF_MEMORY, Shortage
from tests.support.sketch import Sketch, residual_net
from tests.support.thin import thinned


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that moves on by 1/64 s, which a float holds exactly, whenever it is asked."""
    ticks = count()
    return lambda: next(ticks) / 64


def wide_net(channels: int) -> Plan:
    s = Sketch(3, 32, 32)
    s.step("conv1", Conv(channels, (3, 3), pad=(1, 1)))
    s.step("conv2", Conv(channels, (3, 3), pad=(1, 1)))
    return s.plan()


def quick(*plans: Plan, **settings: Any) -> Interleaved:
    return measure_interleaved(plans, time_budget_s=0.1, **settings)


def test_models_timed_by_a_clock_that_ticks_are_known_exactly(ticking: Callable[[], float]) -> None:
    told: list[float] = []
    found = measure_interleaved([residual_net(), wide_net(4)], batch_size=2, clock=ticking, progress=told.append)
    assert found.floor == 0
    assert (found.ratios[0], found.precise) == (None, True)
    ratio = found.ratios[1]
    assert ratio is not None
    assert (ratio.ratio, ratio.interval, ratio.outcome) == (1, (1, 1), "same")
    for m in found.measured:
        assert isinstance(m, Measurement)
        assert (m.median_s, m.batch, m.n, m.stopped) == (1 / 64, 2, found.rounds, "precise")
        assert m.throughput_img_s == 2 * 6 * 64  # six calls between two ticks, as `measure` has it
    assert told == sorted(told)
    assert told[-1] == 1.0


def test_a_model_that_does_a_hundred_times_as_much_is_slower() -> None:
    alone = RunOptions(threads=1)  # threads that wait for each other are slow where other programs run
    found = quick(wide_net(4), wide_net(64), options=alone)
    ratio = found.ratios[1]
    assert ratio is not None
    assert ratio.ratio > 2
    back = quick(wide_net(4), wide_net(64), base=1, options=alone)
    assert back.ratios[1] is None
    assert back.ratios[0] is not None
    assert back.ratios[0].ratio < 0.5


def test_one_model_alone_has_no_ratio() -> None:
    found = quick(residual_net())
    assert (found.ratios, found.floor) == ((None,), None)
    assert isinstance(found.measured[0], Measurement)


def test_a_model_that_does_not_fit_is_left_out_and_the_others_measured(monkeypatch: pytest.MonkeyPatch) -> None:

    def short_of_memory(plan: Plan, *others: Any) -> Any:
        if plan is large:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return prepare(plan, *others)

    large = wide_net(5)
    monkeypatch.setattr(module, "prepare", short_of_memory)
    found = quick(residual_net(), large, wide_net(4), batch_size=2)
    first, lost, last = found.measured
    assert isinstance(lost, ResourceError)
    assert lost.message == (
        "`sketch` with a batch of 2 does not fit into the memory of `cpu` (failed to allocate 2.00 GiB)"
    )
    assert isinstance(first, Measurement)
    assert isinstance(last, Measurement)
    assert [ratio is None for ratio in found.ratios] == [True, True, False]
    without_base = quick(large, residual_net(), wide_net(4), batch_size=2)
    assert [isinstance(m, Measurement) for m in without_base.measured] == [False, True, True]
    assert without_base.ratios == (None, None, None)
    none = quick(large)
    assert isinstance(none.measured[0], ResourceError)
    assert none.rounds == 0


@pytest.mark.parametrize("error", thinned(OUT_OF_MEMORY, 4), ids=str)
@pytest.mark.parametrize("stage", ["prepare", "warm_up"])
def test_what_did_not_fit_is_freed_while_its_error_is_kept(
    error: Exception, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, large = Shortage(error), wide_net(5)
    built: list[weakref.ref[Any]] = []

    def prepared(plan: Plan, *others: Any) -> Any:
        if plan is not large:
            return prepare(plan, *others)
        if stage == "prepare":
            short()
        values = torch.zeros(1000)
        built.append(weakref.ref(values))

        def timer(calls: int, values: torch.Tensor = values) -> float:
            short()
            return 0.0

        return replace(prepare(plan, *others), waited=timer)

    monkeypatch.setattr(module, "prepare", prepared)
    found = quick(residual_net(), large, wide_net(4), batch_size=2)
    assert [isinstance(m, ResourceError) for m in found.measured] == [False, True, False]
    assert len(short.held) == 1
    assert short.alive == 0
    assert all(each() is None for each in built)
    assert found.ratios[2] is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_graphs_that_take_turns_share_their_memory() -> None:
    def held(nets: int) -> int:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        s = Sketch(3, 32, 32)
        s.step("conv1", Conv(64, (3, 3), pad=(1, 1)))
        s.step("conv2", Conv(64, (3, 3), pad=(1, 1)))
        s.step("pool", PoolTo("avg", (1, 1)))
        plans = [s.plan()] * nets
        quick(*plans, device="cuda", batch_size=512, options=RunOptions(dtype="bf16", cuda_graph=True))
        return torch.cuda.max_memory_reserved()

    assert held(4) < 1.5 * held(1)


def test_a_model_that_does_not_fit_twice_is_itself_what_its_time_is_checked_against(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    built: list[Plan] = []

    def once_each(plan: Plan, *others: Any) -> Any:
        if plan in built:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        built.append(plan)
        return prepare(plan, *others)

    monkeypatch.setattr(module, "prepare", once_each)
    found = quick(residual_net(), wide_net(4))
    assert found.floor is not None
    assert found.ratios[1] is not None


def test_a_device_that_vanishes_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def vanish(*arguments: Any, **settings: Any) -> None:
        raise RuntimeError("CUDA error: device-side assert triggered\nCUDA kernel errors might be ...")

    monkeypatch.setattr(module, "sample_interleaved", vanish)
    with pytest.raises(ResourceError) as caught:
        quick(residual_net(), wide_net(4))
    assert caught.value.message == (
        "2 models at once with a batch of 1 could not be run on `cpu`: CUDA error: device-side assert triggered"
    )
    assert caught.value.hint == ""  # there is no smaller batch


def test_environment_is_read_once_all_models_are_ready_and_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    log = calls_of(module, monkeypatch, ("prepare", "read_environment", "sample_interleaved"))
    quick(residual_net(), wide_net(4))
    assert log == [*["prepare"] * 3, "read_environment", "sample_interleaved", "read_environment"]


def test_what_is_asked_for_wrongly_is_refused() -> None:
    with pytest.raises(UsageError, match="`--batch-size` must be at least 1"):
        quick(residual_net(), batch_size=0)
    with pytest.raises(UsageError, match="unknown device"):
        quick(residual_net(), device="toaster")


def test_measuring_leaves_torch_s_random_numbers_as_they_were() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    quick(residual_net(), wide_net(4))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_models_are_measured_together_on_a_gpu() -> None:
    found = quick(residual_net(), wide_net(64), device="cuda", batch_size=4)
    assert all(isinstance(m, Measurement) and m.device == "cuda:0" for m in found.measured)
    assert found.ratios[1] is not None
