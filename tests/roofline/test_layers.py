from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch

from resnetcli.bench.options import RunOptions
from resnetcli.errors import UsageError
from resnetcli.roofline.layers import LayerTimes, _Queue, alternate, time_layers
from tests.support.sketch import residual_net


def test_layers_by_a_ticking_clock_are_exact() -> None:
    plan = residual_net()
    ticks = count()
    found = time_layers(plan, clock=lambda: next(ticks) / 64, budget_s=0.01)
    assert found.steps_s == (0.0, *[1 / 64] * (len(plan.steps) - 1))
    assert found.whole_s == 1 / 64
    assert found.n >= 3
    assert found.ratio == len(plan.steps) - 1
    assert not found.agrees
    assert found.reliable_s is None


@pytest.mark.parametrize(("total", "agrees"), [(1.0, True), (0.92, True), (1.1, True), (0.89, False), (1.2, False)])
def test_times_that_do_not_add_up_are_unreliable(total: float, agrees: bool) -> None:
    found = LayerTimes((0.0, 0.25, 0.75), total, 5)
    assert found.agrees is agrees
    assert found.reliable_s == ((0.0, 0.25, 0.75) if agrees else None)


def test_passes_alternate_and_the_middle_half_counts() -> None:
    log: list[str] = []
    wholes, steps = iter([9.0, 1.0, 1.0, 1.5]), iter([[9.0], [0.5], [0.625], [0.75]])

    def whole() -> float:
        log.append("whole")
        return next(wholes)

    def each() -> list[float]:
        log.append("steps")
        return next(steps)

    found = alternate(whole, each, lambda: 0.0 if len(log) < 8 else 1.0, budget_s=0.5, least=3)
    assert log == ["whole", "steps"] * 4  # the first pair is the warm-up
    assert found == LayerTimes((0.625,), 3.5 / 3, 3)


def test_layers_are_timed_with_options() -> None:
    plan = residual_net()
    found = time_layers(plan, batch_size=2, options=RunOptions(dtype="bf16", channels_last=True), budget_s=0.01)
    assert len(found.steps_s) == len(plan.steps)
    with pytest.raises(UsageError, match="no separate layers"):
        time_layers(plan, options=RunOptions(fold_bn=True))


def test_a_slow_phase_slows_both_passes_of_a_pair() -> None:
    wholes, steps = iter([0.0, 1.0, 2.0, 2.0, 1.0, 3.0]), iter([[0.0], [1.0], [2.0], [2.0], [1.0], [3.0]])
    found = alternate(lambda: next(wholes), lambda: next(steps), lambda: 0.0, budget_s=0, least=5)
    assert found.steps_s == ((2.0 + 2.0 + 1.0) / 3,)
    assert found.ratio == 1


def test_stalls_are_averaged_and_extreme_passes_dropped() -> None:
    passes = iter([[0.0, 0.0], [2.0, 1.0], [1.0, 2.0], [99.0, 1.0], [1.0, 1.0]])
    found = alternate(lambda: 3.0, lambda: next(passes), lambda: 0.0, budget_s=0, least=4)
    assert found.n == 4
    assert found.steps_s == (1.5, 1.5)
    assert found.ratio == 1


def test_a_gpu_pass_begins_when_all_of_it_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            self.place = 0

        def record(self) -> None:
            self.place = len(log)
            log.append("event")

        def synchronize(self) -> None:
            log.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 1000.0 * (end.place - self.place)

    class Net:
        def run(self, x: object, observe: Callable[[object], object]) -> None:
            for _ in range(3):
                observe(x)

        def __call__(self, x: object) -> None:
            log.append("net")

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: None)
    monkeypatch.setattr(torch.cuda, "_sleep", lambda cycles: log.append(f"{cycles} cycles"))
    ticks = iter([0.0, 1e-3])
    net: Any = Net()
    queue = _Queue(net, torch.zeros(1), 3, torch.device("cuda", 0), lambda: next(ticks))
    log.clear()
    assert queue.steps() == [0.0, 1.0, 1.0]
    assert log == ["4000000 cycles", "event", "event", "event", "wait"]  # 2 ms at 2 GHz
    log.clear()
    assert queue.whole() == 2.0
    assert log == ["4000000 cycles", "event", "net", "event", "wait"]
