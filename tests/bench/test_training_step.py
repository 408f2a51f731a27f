from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from resnetcli.bench.execution import configure_torch
from resnetcli.bench.interleaved import measure_interleaved
from resnetcli.bench.latency import Measurement, measure
from resnetcli.bench.options import MODES, Dtype, RunOptions
from resnetcli.bench.training_step import (
    Phase,
    Phases,
    TrainableModel,
    check_training_outputs,
    loss_of,
    make_trainable,
    output_shapes,
    seconds_of,
    time_phases,
    training_reference,
)
from resnetcli.bench.weights import build_random
from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import BatchNorm, Conv, Dropout, Linear, Pool, PoolTo, ReLU
from resnetcli.plan.plan import Plan
from tests.support.sketch import Sketch, residual_net

CPU = torch.device("cpu")
TRAIN = RunOptions(mode="train")


def net_with_dropout() -> Plan:
    s = Sketch(3, 8, 8)
    s.step("conv", Conv(8, (3, 3), pad=(1, 1)))
    s.step("bn", BatchNorm())
    s.step("relu", ReLU())
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("drop", Dropout(0.5))
    s.step("fc", Linear(5))
    return s.plan()


def ready(plan: Plan, way: RunOptions = TRAIN, batch_size: int = 4) -> tuple[TrainableModel, Tensor]:
    torch.manual_seed(0)
    made = make_trainable(plan, build_random(plan, CPU), way, batch_size, CPU)
    return made, made.ready(torch.randn(batch_size, plan.input.c, plan.input.h, plan.input.w))


def test_a_step_computes_gradients_and_momentum_and_leaves_the_weights_as_they_were() -> None:
    made, x = ready(residual_net())
    before = {name: value.clone() for name, value in made.net.named_parameters()}
    statistics = {name: value.clone() for name, value in made.net.named_buffers() if "running" in name}
    made.step(x)
    for name, value in made.net.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
        assert float(made.optimizer.state[value]["momentum_buffer"].abs().sum()) > 0
    assert statistics
    assert not any(torch.equal(made.net.get_buffer(name), value) for name, value in statistics.items())


def test_the_loss_is_the_sum_of_each_output_s_cross_entropy() -> None:
    y, maps = torch.randn(4, 7), torch.randn(4, 3, 2, 2)
    labels = (torch.tensor([1, 2, 3, 0]), torch.randint(3, (4, 2, 2)))
    each = -y.log_softmax(1)[range(4), labels[0]].mean()
    assert torch.allclose(loss_of(y, labels[:1]), each)
    total = each + functional.cross_entropy(maps, labels[1])
    assert torch.allclose(loss_of((y, maps), labels), total)


def test_an_output_of_one_class_has_a_gradient_too() -> None:
    y = torch.randn(4, 1, requires_grad=True)
    loss_of(y, (torch.zeros(4, dtype=torch.long),)).backward()  # type: ignore[no-untyped-call]
    assert y.grad is not None
    assert torch.allclose(y.grad, y.detach() / 2)


def test_labels_are_classes_of_each_output() -> None:
    made, x = ready(net_with_dropout(), batch_size=64)
    assert output_shapes(net_with_dropout(), 64) == ((64, 5),)
    (labels,) = made.labels
    assert set(labels.tolist()) == {0, 1, 2, 3, 4}
    assert len(x) == len(labels)


def test_a_step_drops_out_and_the_check_does_not() -> None:
    made, x = ready(net_with_dropout())
    with torch.no_grad():
        assert not torch.equal(*(made.outputs(x) for _ in range(2)))  # type: ignore[arg-type]
    expected = training_reference(made.net, x)
    assert check_training_outputs(made, x, expected).outputs == 0
    assert all(layer.training for layer in made.net.modules())


def test_in_bf16_weights_stay_and_values_are_cast() -> None:
    way = RunOptions(dtype="bf16", channels_last=True, mode="train")
    made, x = ready(residual_net(), way)
    expected = training_reference(made.net, x)
    assert {value.dtype for value in made.net.parameters()} == {torch.float32}
    output = made.outputs(x)
    assert isinstance(output, Tensor)
    assert output.dtype == torch.bfloat16
    assert x.is_contiguous(memory_format=torch.channels_last)
    deviation = check_training_outputs(made, x, expected)
    assert 1e-4 < deviation.outputs < deviation.tolerance
    assert deviation.feature_map is None


def test_what_cannot_be_trained_is_refused() -> None:
    s = Sketch(3, 4, 4)
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("bn", BatchNorm())
    with pytest.raises(
        ResourceError, match=r"over one value, which has no variance\nhint: use `--batch-size 2` or more"
    ):
        ready(s.plan(), batch_size=1)
    ready(s.plan(), batch_size=2)[0].step(torch.randn(2, 3, 4, 4))
    s = Sketch(3, 4, 4)
    s.step("pool", Pool("max", (2, 2), 2))
    with pytest.raises(UsageError, match="has no weights to train"):
        ready(s.plan())


@pytest.mark.parametrize(
    ("way", "says"),
    [
        (RunOptions(fold_bn=True, mode="train"), "fused BatchNorm cannot be trained"),
        (RunOptions(dtype="fp16", mode="train"), "requires loss scaling"),
        (RunOptions(cuda_graph=True, mode="train"), "`--cuda-graph` cannot be used with `--mode train`"),
        (RunOptions(runtime="torchscript", mode="train"), "torchscript is measured in inference only"),
    ],
)
def test_settings_of_inference_alone_are_refused(way: RunOptions, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        measure(residual_net(), options=way)


def test_an_unknown_mode_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown mode `trian`\nhint: did you mean `train`"):
        RunOptions(mode="trian")  # type: ignore[arg-type]
    assert TRAIN.text == "train fp32"
    assert TRAIN.plain
    assert not RunOptions(dtype="bf16", mode="train").plain


def test_gradients_are_on_within_and_as_before_after() -> None:
    with configure_torch(TRAIN, CPU):
        assert torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled()
    with torch.no_grad():
        with configure_torch(TRAIN, CPU):
            assert torch.is_grad_enabled()
        assert not torch.is_grad_enabled()


# --- phases ------------------------------------------------------------------------------------------------------


def test_phases_are_what_the_clock_says_between_marks() -> None:
    now = 0.0

    def step(mark: Callable[[], object]) -> None:
        nonlocal now
        for seconds in (1.0, 2.0, 0.5):
            now += seconds
            mark()

    assert seconds_of(step, CPU, lambda: now) == (1.0, 2.0, 0.5)


def test_on_a_gpu_phases_are_between_events_in_its_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            self.place = len(log)
            log.append("mark")

        def synchronize(self) -> None:
            log.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 1000.0 * (end.place - self.place)

    def step(mark: Callable[[], object]) -> None:
        for work in (1, 3, 2):
            log.extend(["work"] * work)
            mark()

    monkeypatch.setattr(torch.cuda, "Event", Event)
    assert seconds_of(step, torch.device("cuda", 0), lambda: 0.0) == (2.0, 4.0, 3.0)
    assert log.count("wait") == 1
    assert log[-1] == "wait"


def taken(times: tuple[float, float, float], budget_s: float) -> Phases:
    now = 0.0

    def timed() -> tuple[float, float, float]:
        nonlocal now
        now += sum(times)
        return times

    return time_phases(timed, lambda: now, budget_s=budget_s)


def test_phases_are_medians_over_ten_steps_or_three_of_a_slow_model_or_a_hundred_of_a_fast_one() -> None:
    found = taken((1.0, 2.0, 0.5), 10)
    assert (found.forward, found.backward, found.optimizer) == (
        Phase(1.0, (1.0, 1.0)), Phase(2.0, (2.0, 2.0)), Phase(0.5, (0.5, 0.5)),
    )  # fmt: skip
    assert found.n == 10
    assert taken((10.0, 20.0, 5.0), 1).n == 3
    assert taken((1e-4, 1e-4, 1e-4), 10).n == 100


def test_phases_that_do_not_add_up_are_noise() -> None:
    found = taken((1.0, 2.0, 0.5), 10)
    assert found.inconsistencies(3.5) == found.inconsistencies(3.2) == ()
    assert found.inconsistencies(2.5)[0].text == "the phases add up to 140% of the step time"


# --- measured ----------------------------------------------------------------------------------------------------


@pytest.fixture
def ticking() -> Callable[[], float]:
    """A clock that moves on by 1/64 s, which a float holds exactly, whenever it is asked."""
    ticks = count()
    return lambda: next(ticks) / 64


def test_a_training_step_by_a_clock_that_ticks_is_known_exactly(ticking: Callable[[], float]) -> None:
    m = measure(residual_net(), batch_size=4, clock=ticking, options=TRAIN)
    assert (m.mode, m.settings, m.dtype, m.median_s) == ("train", "train fp32", "fp32", 1 / 64)
    assert m.phases is not None
    assert m.phases.forward == m.phases.backward == m.phases.optimizer == Phase(1 / 64, (1 / 64, 1 / 64))
    assert m.throughput_img_s == 4 * 3 * 64  # 3 s / 12 / 5 windows: three calls between two ticks
    assert m.noisy[-1].text == "the phases add up to 300% of the step time"  # each is a tick, and the whole is one too
    assert m.deviation_outputs is None


def quick(plan: Plan, **others: Any) -> Measurement:
    return measure(plan, time_budget_s=0.05, **others)


def test_a_training_step_takes_longer_and_more_memory_than_a_forward() -> None:
    s = Sketch(3, 64, 64)
    for number in range(4):
        s.step(f"conv{number}", Conv(32, (3, 3), pad=(1, 1)))
    infer, train = (quick(s.plan(), batch_size=4, options=RunOptions(threads=1, mode=mode)) for mode in MODES)
    assert train.min_s > 1.5 * infer.min_s  # medians of a busy machine may be those of its other work
    assert infer.phases is None
    assert infer.live_peak_bytes is not None
    assert train.live_peak_bytes is not None
    assert train.live_peak_bytes > infer.live_peak_bytes
    if train.peak_memory_bytes is not None and infer.peak_memory_bytes is not None:
        assert train.peak_memory_bytes > infer.peak_memory_bytes


def test_training_in_bf16_is_checked_and_leaves_torch_as_it_was() -> None:
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    m = quick(net_with_dropout(), batch_size=8, options=RunOptions(dtype="bf16", mode="train"))
    assert m.deviation_outputs is not None
    assert m.tolerance is not None
    assert 0 < m.deviation_outputs < m.tolerance
    assert m.live_peak_bytes is None  # what autocast casts, the plan does not say
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_a_batch_that_would_not_fit_a_training_step_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(ResourceError, match="would take"):
        measure(residual_net(), batch_size=10**9, options=TRAIN)


def test_training_steps_are_compared_interleaved() -> None:
    found = measure_interleaved([residual_net(), net_with_dropout()], batch_size=4, options=TRAIN, time_budget_s=0.1)
    assert all(isinstance(m, Measurement) and m.phases is not None for m in found.measured)
    assert found.ratios[1] is not None


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever compilers think of each other
def test_a_compiled_step_trains_alike() -> None:
    net = residual_net(width=16)  # not 4: one thread then writes outside its buffers (pytorch#181689)
    m = quick(net, batch_size=4, options=RunOptions(runtime="inductor", mode="train"))
    assert m.settings == "train fp32 compile"
    assert m.deviation_outputs is not None
    assert m.deviation_outputs < 1e-4
    assert m.phases is not None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_gpu_is_trained_on(dtype: Dtype) -> None:
    m = quick(
        net_with_dropout(),
        device="cuda",
        batch_size=4,
        options=RunOptions(dtype=dtype, channels_last=True, mode="train"),
    )
    assert m.phases is not None
    assert m.peak_memory_bytes is not None
