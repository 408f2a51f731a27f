from __future__ import annotations

import pytest
import torch

from resnetcli.errors import UsageError
from resnetcli.measure import ready
from resnetcli.measure.ready import on_device, prepare, set_up
from resnetcli.measure.settings import Settings, applied
from tests.sketch import residual_net

CPU = torch.device("cpu")


def test_a_net_that_is_ready_has_run_and_is_held_to_eager_fp32_where_it_is_run_otherwise() -> None:
    made = Settings(channels_last=True, fold_bn=True)
    with on_device(CPU), applied(made, CPU):
        ticks = iter(range(100))
        found = prepare(residual_net(), CPU, 2, lambda: next(ticks) / 64, made)
        assert found.first_call_s == 1 / 64
        assert found.prepare_s == 2 / 64  # folding, and the first call
        assert found.deviation is not None
        assert found.deviation.passed
        assert found.waited(3) == 1 / 64
    with on_device(CPU), applied(Settings(), CPU):
        assert prepare(residual_net(), CPU, 2, lambda: 0.0).deviation is None


def test_a_net_that_is_set_up_has_yet_to_run() -> None:
    with on_device(CPU), applied(Settings(), CPU):
        found = set_up(residual_net(), CPU, 3, lambda: 0.0, Settings())
        assert found.images.shape == (3, 3, 8, 8)
        assert (found.check, found.seconds, found.step) == (None, 0.0, None)
        assert isinstance(found.call(), torch.Tensor)
        with pytest.raises(UsageError, match="a batch of 0 images"):
            set_up(residual_net(), CPU, 0, lambda: 0.0, Settings())


def test_on_a_gpu_latency_waits_for_each_call_and_throughput_only_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("mark")

        def synchronize(self) -> None:
            log.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # ms

    monkeypatch.setattr("torch.cuda.Event", Event)
    waited, queued = ready._timers(lambda: log.append("call"), torch.device("cuda", 0), lambda: 0.0)
    assert waited(2) == 0.5
    assert log == ["mark", "call", "mark", "wait"] * 2
    log.clear()
    assert queued(2) == 0.25
    assert log == ["mark", "call", "call", "mark", "wait"]
