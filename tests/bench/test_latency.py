from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnetcli.bench import latency
from resnetcli.bench.latency import Measurement, measure
from resnetcli.bench.options import RunOptions
from resnetcli.bench.prepare import out_of_memory_message
from resnetcli.bench.weights import calibrate_norms
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import build
from resnetcli.ops import Add, BatchNorm, Conv, Linear, PoolTo, ReLU
from resnetcli.plan.memory import memory
from resnetcli.plan.plan import Plan
from tests.support.calls import calls_of
from tests.support.sketch import Sketch, residual_net


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that moves on by 1/64 s, which a float holds exactly, whenever it is asked."""
    ticks = count()
    return lambda: next(ticks) / 64


def quick(plan: Plan, **settings: Any) -> Measurement:
    return measure(plan, time_budget_s=0.05, **settings)


def test_a_measurement_by_a_clock_that_ticks_is_known_exactly(ticking: Callable[[], float]) -> None:
    m = measure(residual_net(), batch_size=4, clock=ticking)
    assert (m.device, m.dtype, m.batch, m.tf32) == ("cpu", "fp32", 4, False)
    assert m.median_s == m.min_s == m.first_call_s == 1 / 64
    assert m.interval_s == (1 / 64, 1 / 64)
    assert m.iqr_s == 0
    assert (m.stopped, m.warmup_settled, m.calls_per_sample) == ("precise", True, 1)
    assert m.n == len(m.samples_s) >= 10
    assert m.throughput_img_s == 4 * 6 * 64  # 3 s / 6 / 5 windows: six calls between two ticks
    assert m.threads == torch.get_num_threads()
    assert m.torch == torch.__version__
    assert m.device_name


def test_a_real_measurement_is_of_its_batch_and_orderly() -> None:
    m = quick(residual_net(), batch_size=2)
    assert 0 < m.min_s <= m.interval_s[0] <= m.median_s <= m.interval_s[1] <= max(m.samples_s)
    assert m.first_call_s > 0
    assert m.warmup_calls >= 3
    assert m.throughput_img_s > 0


def test_a_measurement_goes_into_json_and_back() -> None:
    m = quick(residual_net())
    values = json.loads(json.dumps(asdict(m)))
    assert values["samples_s"] == list(m.samples_s)
    assert values["peak_memory_bytes"] == m.peak_memory_bytes


def test_more_images_take_more_memory() -> None:
    s = Sketch(3, 64, 64)
    s.step("conv", Conv(64, (3, 3), pad=(1, 1)))
    small, large = (quick(s.plan(), batch_size=batch).peak_memory_bytes for batch in (1, 32))
    if small is not None and large is not None:
        assert large - small > 31 * 64 * 64 * 64 * 4 * 0.9


def test_the_model_is_run_in_evaluation_without_gradients_on_random_images(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[bool, bool, Tensor]] = []
    s = Sketch(3, 4, 4)
    s.step("conv", Conv(4, (1, 1)))
    run = nn.Conv2d.forward

    def spy(self: nn.Conv2d, x: Tensor) -> Tensor:
        seen.append((self.training, torch.is_inference_mode_enabled(), x))
        return run(self, x)

    monkeypatch.setattr(nn.Conv2d, "forward", spy)
    quick(s.plan(), batch_size=5)
    assert {(training, inference) for training, inference, _ in seen} == {(False, True)}
    for _, _, x in seen:
        assert x.shape == (5, 3, 4, 4)
        assert 0.5 < float(x.std()) < 1.5


def test_measuring_leaves_torch_s_random_numbers_as_they_were() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    quick(residual_net())
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_without_images_is_refused(batch: int) -> None:
    with pytest.raises(UsageError) as caught:
        measure(residual_net(), batch_size=batch)
    assert str(caught.value) == "error: `--batch-size` must be at least 1\nhint: for example `--batch-size 8`"


def test_an_enormous_batch_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(
        ResourceError, match=r"`sketch` with a batch of \d+ would take .*\nhint: `--batch-size \d+` or less may fit"
    ):
        measure(residual_net(), batch_size=10**12)


def test_where_a_batch_does_not_fit_one_is_named_that_may(monkeypatch: pytest.MonkeyPatch) -> None:
    """The half, or as many as by the plan there is room for."""
    plan, place = residual_net(), torch.device("cpu")
    held = memory(plan)
    monkeypatch.setattr("resnetcli.bench.prepare.physical_memory", lambda: held.bytes(64))
    for batch, hint in (
        (1000, "`--batch-size 64` or less may fit"),
        (100, "`--batch-size 50` or less may fit"),
        (3, "`--batch-size 1` or less may fit"),
        (1, ""),
    ):
        assert out_of_memory_message(plan, batch, place, RunOptions()) == (f"`sketch` with a batch of {batch}", hint)
    monkeypatch.setattr("resnetcli.bench.prepare.physical_memory", lambda: held.standing_bytes)
    assert out_of_memory_message(plan, 64, place, RunOptions())[1] == ""


def test_a_device_that_cannot_be_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown device"):
        measure(residual_net(), device="toaster")


def very_deep_net(blocks: int) -> Plan:
    s = Sketch(4, 8, 8)
    x = 0
    for block in range(blocks):
        s.step(f"row.{block}.conv", Conv(4, (3, 3), pad=(1, 1)), x)
        f = s.step(f"row.{block}.bn", BatchNorm())
        s.step(f"row.{block}.add", Add(), f, x)
        x = s.step(f"row.{block}.relu", ReLU())
    return s.plan()


def test_a_very_deep_model_is_timed_on_finite_values() -> None:
    plan = very_deep_net(300)
    torch.manual_seed(0)
    net, x = build(plan).eval(), torch.randn(2, 4, 8, 8)
    with torch.inference_mode():
        assert not net(x).isfinite().all()  # else there would be nothing to calibrate_norms
        calibrate_norms(net, x, plan)
        y = net(x)
    assert y.isfinite().all()
    assert 0.1 < float(y.std()) < 1000


def test_calibration_leaves_nothing_but_statistics() -> None:
    plan = residual_net()
    net = build(plan).eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    with torch.inference_mode():
        calibrate_norms(net, torch.randn(3, 3, 8, 8), plan)
    changed = {
        name.rpartition(".")[2] for name, value in net.state_dict().items() if not torch.equal(value, before[name])
    }
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    assert not any(layer.training for layer in net.modules())
    assert {layer.momentum for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)} == {0.1}


def test_a_model_that_normalises_single_values_can_be_measured_with_one_image() -> None:
    s = Sketch(3, 4, 4)
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("bn1", BatchNorm())
    s.step("fc", Linear(5))
    s.step("bn2", BatchNorm())
    assert quick(s.plan(), batch_size=1).n >= 10


def test_environment_is_read_before_and_after_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    """Building and compiling are no part of the figures, nor are the programs that ran meanwhile."""
    log = calls_of(latency, monkeypatch)
    m = quick(residual_net())
    assert log == ["prepare", "read_environment", "read_environment"]
    assert m.environment.before is not m.environment.after


@pytest.mark.parametrize(
    ("name", "kind"), [("NVIDIA H200", "GPU"), ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "MIG"), ("MIGHTY 1", "GPU")]
)
def test_a_slice_of_a_gpu_has_a_name_of_its_own(name: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    properties = SimpleNamespace(name=name, uuid="1-2-3")
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda place: properties)
    assert latency.nvml_uuid(torch.device("cuda", 0)) == f"{kind}-1-2-3"
    assert latency.nvml_uuid(torch.device("cpu")) is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_is_measured() -> None:
    m = quick(residual_net(), device="cuda", batch_size=4)
    assert m.device == "cuda:0"
    assert 0 < m.min_s <= m.median_s
    assert m.peak_memory_bytes is not None
    assert m.peak_memory_bytes >= 4 * 3 * 8 * 8 * 4
