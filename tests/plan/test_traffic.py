from __future__ import annotations

import json
from functools import cache
from math import prod
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

import resnetcli as rc
from resnetcli.net.module import build
from resnetcli.ops import (
    NO_TRAFFIC,
    Add,
    BatchNorm,
    Concat,
    Conv,
    Execution,
    Linear,
    LocalResponseNorm,
    PadChannels,
    Pool,
    ReLU,
    Traffic,
)
from resnetcli.plan.fold import fold
from resnetcli.plan.traffic import traffic
from tests.support.kernels import cases, kernels, operation, ways
from tests.support.sketch import Sketch, residual_net


def total(plan: rc.Plan, *, fused: bool = False) -> Traffic:
    return sum(traffic(plan, fused=fused), NO_TRAFFIC)


def test_a_convolution_reads_its_input_and_weights_and_writes_its_output() -> None:
    s = Sketch(3, 8, 8)
    s.step("conv", Conv(4, (3, 3), pad=(1, 1), bias=True))
    (_, moved) = traffic(s.plan())
    assert moved == Traffic(read=3 * 64, written=4 * 64, weights=3 * 3 * 3 * 4 + 4, kernels=1)
    assert moved.bytes(batch=2, size=2) == (2 * 3 * 64 + 112) * 2 + 2 * 4 * 64 * 2
    assert traffic(s.plan(), fused=True)[1] == moved


def places_seen(side: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    """Places of a row that a convolution's output depends on, by PyTorch's own gradient."""
    x = torch.ones(1, 1, side, requires_grad=True)
    functional.conv1d(x, torch.ones(1, 1, kernel), stride=stride, padding=pad, dilation=dilation).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    return int((x.grad != 0).sum())


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_what_no_window_has_in_it_is_not_read(kernel: int, stride: int) -> None:
    for side in range(kernel, 14):
        for pad in range((kernel + 1) // 2):
            s = Sketch(2, side, side)
            s.step("conv", Conv(1, (kernel, kernel), stride, (pad, pad)))
            assert traffic(s.plan())[1].read == 2 * places_seen(side, kernel, stride, pad) ** 2
            if not pad:
                s = Sketch(2, side, side)
                s.step("max", Pool("max", (kernel, kernel), stride))
                assert traffic(s.plan())[1].read == 2 * places_seen(side, kernel, stride, 0) ** 2


def test_a_projection_with_stride_two_reads_a_quarter_and_a_dilated_window_reads_all_it_spans() -> None:
    s = Sketch(4, 8, 8)
    s.step("projection", Conv(8, (1, 1), 2))
    assert traffic(s.plan())[1] == Traffic(read=4 * 16, written=8 * 16, weights=32, kernels=1)
    s = Sketch(1, 9, 9)
    s.step("dilated", Conv(1, (3, 3), 1, (2, 2), dilation=2))
    assert traffic(s.plan())[1].read == 81 == places_seen(9, 3, 1, 2, 2) ** 2


def test_max_pooling_writes_its_indices_too() -> None:
    s = Sketch(4, 8, 8)
    s.step("max", Pool("max", (2, 2), 2))
    (_, moved) = traffic(s.plan())
    assert moved == Traffic(read=256, written=64, indices=64, kernels=1)
    assert moved.bytes(size=4) == (256 + 64) * 4 + 64 * 8


def test_fused_norm_and_relu_cost_nothing_but_their_parameters() -> None:
    s = Sketch(3, 8, 8)
    s.step("conv", Conv(4, (1, 1)))
    s.step("bn", BatchNorm())
    s.step("relu", ReLU())
    conv = Traffic(read=192, written=256, weights=12, kernels=1)
    assert traffic(s.plan())[1:] == (conv, Traffic(256, 256, 16, kernels=1), Traffic(256, 256, kernels=1))
    assert total(s.plan(), fused=True) == Traffic(192, 256, 12 + 16, kernels=1)


def test_a_fused_residual_block_by_hand() -> None:
    """conv1 -> x; x -> conv2 -> + x -> fc: the sum is formed as conv2 writes, which reads x once more."""
    s = Sketch(2, 4, 4)
    x = s.step("conv1", Conv(2, (1, 1)))
    f = s.step("conv2", Conv(2, (1, 1)), x)
    s.step("add", Add(), f, x)
    s.step("fc", Linear(10, bias=False))
    first, second, add, fc = traffic(s.plan(), fused=True)[1:]
    assert first == Traffic(32, 32, 4, kernels=1)
    assert second == Traffic(32 + 32, 32, 4, kernels=1)
    assert add == NO_TRAFFIC
    assert fc == Traffic(32, 10, 320, kernels=1)


def test_fused_branches_write_into_their_place_in_a_concatenation() -> None:
    s = Sketch(2, 4, 4)
    a = s.step("a", Conv(3, (1, 1)), 0)
    b = s.step("b", Conv(5, (1, 1)), 0)
    s.step("cat", Concat(), a, b)
    s.step("c", Conv(1, (1, 1)))
    assert total(s.plan(), fused=True) == Traffic(32 + 32 + 8 * 16, (3 + 5 + 1) * 16, 6 + 10 + 8, kernels=3)
    assert traffic(s.plan())[3] == Traffic(128, 128, kernels=1)


def test_a_fused_shortcut_that_pads_is_read_where_it_lies() -> None:
    s = Sketch(2, 4, 4)
    x = s.step("conv1", Conv(2, (1, 1)))
    f = s.step("conv2", Conv(4, (1, 1), 2), x)
    p = s.step("pad", PadChannels(4, 2), x)
    s.step("add", Add(), f, p)
    assert traffic(s.plan(), fused=True)[2] == Traffic(2 * 4 + 2 * 4, 16, 8, kernels=1)


@pytest.mark.parametrize(
    "model", ["resnet18", "resnext50_32x4d", "inception_v3", "cifar_resnet20", "alexnet_2012", "vgg16"]
)
def test_fused_is_never_more_than_as_executed(model: str) -> None:
    plan = rc.load(model)
    executed, fused = total(plan), total(plan, fused=True)
    assert fused.bytes() < executed.bytes()
    assert fused.kernels <= executed.kernels
    weights = sum(parameter.numel() for parameter in build(plan, device="meta").parameters())
    assert executed.weights == fused.weights >= weights


class Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what operations of PyTorch's itself read and write: tensors, and of a convolution's map what it sees."""

    FREE = ("view", "t", "detach", "slice", "unsqueeze", "squeeze", "empty", "transpose", "_unsafe_view", "alias")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.read = self.written = self.kernels = 0
        self.maps: list[tuple[int, tuple[tuple[int, int, int, int, int], ...]]] = []
        """What convolutions read: images times channels, and by side what `places_seen` takes."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function.overloadpacket.__name__ not in self.FREE:
            ins = {id(a): a.numel() for a in _tensors((args, kwargs or {}))}
            if function.overloadpacket.__name__ == "convolution":
                x, weight, _, stride, pad, dilation, *_ = args
                del ins[id(x)]
                sides = zip(x.shape[2:], weight.shape[2:], stride, pad, dilation, strict=True)
                self.maps.append((x.shape[0] * x.shape[1], tuple(sides)))
            self.read += sum(ins.values())
            self.written += sum(2 * t.numel() if t.dtype == torch.int64 else t.numel() for t in _tensors(result)
                                if t.numel())  # fmt: skip
            self.kernels += 1
        return result


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [t for each in value.values() for t in _tensors(each)]
    return [t for each in value for t in _tensors(each)] if isinstance(value, list | tuple) else []


WATCHED = [residual_net(2), *(rc.load(name) for name in ("cifar_resnext29_8x64d", "resnet18", "vgg16", "inception_v3"))]


@pytest.mark.parametrize("plan", WATCHED, ids=lambda plan: plan.name)
def test_what_pytorch_s_own_operations_read_and_write_is_what_is_counted(plan: rc.Plan) -> None:
    net = build(plan, device="meta").eval()
    moved = total(plan)
    x = torch.empty(2, plan.input.c, plan.input.h, plan.input.w, device="meta")
    with torch.no_grad(), Watched() as seen:
        net(x)
    assert seen.kernels == moved.kernels
    maps = sum(channels * prod(places_seen(*side) for side in sides) for channels, sides in seen.maps)
    assert 4 * (seen.read + maps) == moved.read_bytes(2, 4)
    statistics = sum(m.num_features for m in net.modules() if isinstance(m, nn.BatchNorm2d))
    assert 0 <= 4 * seen.written - moved.written_bytes(2, 4) <= 8 * statistics  # some keep the deviations as well


def test_a_response_normalisation_is_eight_kernels() -> None:
    s = Sketch(6, 4, 4)
    s.step("lrn", LocalResponseNorm(5, 1e-4, 0.75, 2.0))
    (_, moved) = traffic(s.plan())
    with torch.no_grad(), Watched() as seen:
        build(s.plan())(torch.randn(1, 6, 4, 4))
    assert seen.kernels in {moved.kernels, moved.kernels - 1}  # filled and copied, or padded at once
    assert moved.kernels == 8


# --- on a GPU ----------------------------------------------------------------------------------------------------

RECORDED = json.loads((Path(__file__).parents[1] / "support" / "kernels_cuda.json").read_text())
ON_GPU = Execution("cuda")


def test_what_was_recorded_on_a_gpu_is_what_the_script_records() -> None:
    assert RECORDED["settings"] == [way.text for way in ways()]
    assert list(RECORDED["kernels"]) == list(recorded_plans())


@cache
def recorded_plans() -> dict[str, rc.Plan]:
    return dict(cases())


@pytest.mark.parametrize("name", RECORDED["kernels"])
def test_kernels_on_a_gpu_are_those_that_were_recorded(name: str) -> None:
    counted, plan = [], recorded_plans()[name]
    for way in ways():
        execution = Execution("cuda", way.precision, way.channels_last)
        counted.append(sum(traffic(fold(plan).plan if way.fold_bn else plan, execution=execution), NO_TRAFFIC).kernels)
    assert counted == RECORDED["kernels"][name]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", ["conv 3x3 bias", "depthwise conv 3x3 bias", "BatchNorm", "fc"])
def test_a_gpu_starts_no_fewer_kernels_than_were_recorded(name: str) -> None:
    place = torch.device("cuda", 0)
    found = [kernels(operation(name), way, place) for way in ways()]
    assert all(now >= then for now, then in zip(found, RECORDED["kernels"][name], strict=True))


def test_on_a_gpu_a_bias_is_one_more_pass() -> None:
    s = Sketch(3, 8, 8)
    s.step("conv", Conv(4, (3, 3), pad=(1, 1), bias=True))
    (_, moved) = traffic(s.plan(), execution=ON_GPU)
    assert moved == Traffic(read=3 * 64 + 4 * 64, written=2 * 4 * 64, weights=3 * 3 * 3 * 4 + 4, kernels=2)
    assert traffic(s.plan(), execution=ON_GPU, fused=True) == traffic(s.plan(), fused=True)


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_on_a_gpu_folding_replaces_each_norm_by_a_bias(dtype: str) -> None:
    plan = rc.load("resnet50")
    before, after = (
        sum(traffic(each, execution=Execution("cuda", dtype)), NO_TRAFFIC) for each in (plan, fold(plan).plan)
    )
    assert (after.read, after.written) == (before.read, before.written)
    assert before.kernels - after.kernels == (106 if dtype == "bf16" else 0)
    on_cpu = sum(traffic(plan), NO_TRAFFIC), sum(traffic(fold(plan).plan), NO_TRAFFIC)
    assert on_cpu[0].kernels - on_cpu[1].kernels == 53
    assert on_cpu[1].read < on_cpu[0].read


def test_in_channels_last_a_gpu_copies_what_becomes_a_vector() -> None:
    s = Sketch(4, 6, 6)
    s.step("fc", Linear(10))
    usual, other = (traffic(s.plan(), execution=Execution("cuda", "fp32", last))[1] for last in (False, True))
    assert other == usual + Traffic(144, 144, kernels=1)
