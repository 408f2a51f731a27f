from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from resnetcli.bench import runtimes as variants
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import Dtype, RunOptions, Runtime
from resnetcli.bench.runtimes import (
    as_tuple,
    calibrate,
    cast,
    check,
    explained,
    fold_norms,
    last_maps,
    reference,
    relative,
    transform,
    weights,
)
from resnetcli.bench.search import installed
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import Net, fuse, layer_of, put_layer
from resnetcli.ops import Add, BatchNorm, Concat, Conv, Linear, LocalResponseNorm, PoolTo, ReLU, Shape
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.reports.foreign import of_module
from resnetcli.reports.profile import load
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.plan.record_kernels import kernels
from tests.support.sketch import Sketch, residual_net
from tests.support.thin import thinned

CPU = torch.device("cpu")


def calibrated(plan: Plan, images: int = 2) -> tuple[Net, Tensor]:
    torch.manual_seed(0)
    net, x = weights(plan, CPU), torch.randn(images, plan.input.c, plan.input.h, plan.input.w)
    with torch.no_grad():
        calibrate(net, x, plan)
    return net, x


def pre_activation_net() -> Plan:
    s = Sketch(3, 8, 8)
    x = s.step("conv1", Conv(4, (3, 3), pad=(1, 1)))
    for block in "ab":
        s.step(f"{block}.bn", BatchNorm(), x)
        s.step(f"{block}.relu", ReLU())
        s.step(f"{block}.F.conv", Conv(4, (3, 3), pad=(1, 1)))
        s.step(f"{block}.F.bn", BatchNorm())
        s.step(f"{block}.F.relu", ReLU())
        f = s.step(f"{block}.F.last", Conv(4, (3, 3), pad=(1, 1), groups=2, bias=True))
        x = s.step(f"{block}.add", Add(), f, x)
    s.step("head.pool", PoolTo("avg", (1, 1)))
    s.step("head.fc", Linear(5, bias=False))
    s.step("head.bn", BatchNorm())
    return s.plan()


def branching_net() -> Plan:
    s = Sketch(3, 8, 8)
    a = s.step("a.conv", Conv(4, (1, 1)))
    b = s.step("a.bn", BatchNorm())
    c = s.step("c.conv", Conv(4, (3, 3), pad=(1, 1)), b)
    d = s.step("c.bn", BatchNorm())
    e = s.step("cat", Concat(), a, d, c)
    s.step("e.conv", Conv(6, (3, 3), dilation=2, pad=(2, 2)), e)
    s.step("e.bn", BatchNorm(1e-3))
    s.step("e.relu", ReLU())
    return s.plan()


NETS = {"residual": residual_net(2), "pre-activation": pre_activation_net(), "branching": branching_net()}
every_net = pytest.mark.parametrize("plan", NETS.values(), ids=NETS)


@every_net
def test_a_folded_net_computes_what_it_did(plan: Plan) -> None:
    net, x = calibrated(plan)
    with torch.no_grad():
        expected = net(x).clone()
        _, folded = fold_norms(plan, net)
        found = folded(x)
    assert relative(found, expected) < 1e-6


def test_folded_weights_are_those_that_pytorch_s_own_fusion_makes() -> None:
    plan = pre_activation_net()
    net, _ = calibrated(plan)
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                module.weight.uniform_(0.5, 2)
                module.bias.normal_()
        conv, norm, fc, last = (
            copy.deepcopy(net.get_submodule(path)) for path in ("a.F.conv", "a.F.bn", "head.fc", "head.bn")
        )
        _, folded = fold_norms(plan, net)
    assert isinstance(conv, nn.Conv2d)
    assert isinstance(norm, nn.BatchNorm2d)
    assert isinstance(fc, nn.Linear)
    assert isinstance(last, nn.BatchNorm1d)
    theirs, ours = fuse_conv_bn_eval(conv, norm), folded.get_submodule("a.F.conv")
    torch.testing.assert_close(ours.state_dict(), dict(theirs.state_dict()), rtol=1e-5, atol=1e-6)
    lines, own = fuse_linear_bn_eval(fc, last), folded.get_submodule("head.fc")
    torch.testing.assert_close(own.state_dict(), dict(lines.state_dict()), rtol=1e-5, atol=1e-6)


RUNS = {
    "channels_last": RunOptions(channels_last=True),
    "fold-bn": RunOptions(fold_bn=True),
    "fold-bn channels_last": RunOptions(fold_bn=True, channels_last=True),
    "bf16": RunOptions(dtype="bf16"),
    "bf16 fold-bn channels_last": RunOptions(dtype="bf16", fold_bn=True, channels_last=True),
    "torchscript": RunOptions(fold_bn=True, runtime="torchscript"),
}


@every_net
@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_every_setting_computes_what_eager_fp32_does(plan: Plan, options: RunOptions) -> None:
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        found = check(variant, variant.ready(x), expected)
    assert found.passed
    assert found.outputs <= found.tolerance / 2
    assert found.maps is not None
    if options.dtype == "bf16":
        assert found.outputs > 1e-4  # it did compute in bf16


def test_a_wrong_weight_is_found_even_in_bf16() -> None:
    plan, options = residual_net(3), RunOptions(dtype="bf16", fold_bn=True)
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        layer = variant.net.get_submodule("conv2_x.1.F.1.conv")
        assert isinstance(layer, nn.Conv2d)
        layer.weight.data.neg_()
        found = check(variant, variant.ready(x), expected)
    assert not found.passed


def test_what_is_not_finite_never_passes() -> None:
    one = torch.ones(3)
    assert relative(torch.tensor([1.0, float("nan"), 1.0]), one) == float("inf")
    assert relative(torch.tensor([1.0, float("inf"), 1.0]), one) == float("inf")
    assert relative(one, torch.tensor([1.0, float("nan"), 1.0])) == float("inf")
    assert relative(one, torch.tensor([1.0, float("inf"), 1.0])) == float("inf")
    assert relative(torch.full((3,), -3e38), torch.full((3,), 3e38)) == float("inf")  # whose norms are no numbers


def test_the_relative_norm_is_that_worked_out_by_hand() -> None:
    assert relative(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 9.0])) == pytest.approx(5 / 90**0.5)
    assert relative(torch.zeros(2), torch.zeros(2)) == 0
    assert relative(torch.ones(2), torch.zeros(2)) == float("inf")
    assert relative(torch.ones(2), torch.ones(3)) == float("inf")


def test_the_last_maps_are_those_on_the_way_to_the_output() -> None:
    s = Sketch(3, 4, 4)
    maps = s.step("conv", Conv(4, (3, 3), pad=(1, 1)))
    pooled = s.step("pool", PoolTo("avg", (1, 1)))
    fc = s.step("fc", Linear(10))
    aux = s.step("aux", Conv(2, (1, 1)), maps)
    assert last_maps(s.plan(fc, aux)) == maps
    assert last_maps(s.plan(pooled)) == maps
    assert last_maps(replace(s.plan(fc), outputs=(aux,))) == aux
    flat = Sketch(3, 1, 1)
    flat.step("fc", Linear(2))
    assert last_maps(flat.plan()) is None


def test_the_reference_has_every_output_and_last_the_maps() -> None:
    s = Sketch(3, 8, 8)
    maps = s.step("conv", Conv(4, (3, 3), pad=(1, 1)))
    s.step("pool", PoolTo("avg", (1, 1)))
    fc = s.step("fc", Linear(10))
    aux = s.step("aux", Conv(2, (1, 1)), maps)
    plan = s.plan(fc, aux)
    net, x = calibrated(plan)
    outputs = reference(plan, net, x)
    with torch.no_grad():
        assert [tuple(y.shape) for y in outputs] == [(2, 10), (2, 2, 8, 8), (2, 4, 8, 8)]
        assert all(torch.equal(y, e) for y, e in zip(outputs, as_tuple(net(x)), strict=False))


def test_a_layer_is_found_and_replaced_by_its_step() -> None:
    plan = residual_net()
    net = weights(plan, CPU)
    paths = {step.path: index for index, step in enumerate(plan.steps)}
    assert layer_of(net, paths["conv1.conv"]) is net.get_submodule("conv1.conv")
    assert layer_of(net, 0) is None
    assert layer_of(net, paths["conv2_x.0.add"]) is None
    put_layer(net, paths["head.1"], nn.Linear(6, 3))
    assert net(torch.zeros(2, 3, 8, 8)).shape == (2, 3)
    with pytest.raises(ValueError, match="has no module"):
        put_layer(net, paths["conv2_x.0.add"], nn.Identity())


def test_an_operation_that_a_dtype_lacks_is_a_line_and_no_traceback() -> None:
    s = Sketch(6, 8, 8)
    s.step("lrn", LocalResponseNorm(5, 1e-4, 0.75, 2.0))
    plan, options = s.plan(), RunOptions(dtype="bf16")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        variant = transform(plan, net, options, x)
        words = r"`sketch` as bf16: .*not implemented for 'BFloat16'"
        with pytest.raises(ResourceError, match=words), explained(plan, options):
            variant.call(variant.ready(x))


def test_errors_of_a_compiler_are_a_line_and_those_of_eager_nets_stay() -> None:
    words, compiled = "`sketch` as fp32 compile cannot be run: ValueError: what", RunOptions(runtime="inductor")
    with pytest.raises(ResourceError, match=words), explained(residual_net(), compiled):
        raise ValueError("what\nmore")
    with pytest.raises(ValueError, match="what"), explained(residual_net(), RunOptions()):
        raise ValueError("what")


def test_random_nets_are_well_conditioned_so_that_bf16_can_be_told_from_an_error() -> None:
    plan, options = lower(read("cifar_resnet", zoo=Zoo(), parameters={"depth": 56})), RunOptions(dtype="bf16")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check(variant, variant.ready(x), expected).passed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_net_computes_what_eager_fp32_does(dtype: str) -> None:
    plan = residual_net(2)
    options = RunOptions(dtype="bf16" if dtype == "bf16" else "fp32", fold_bn=True, runtime="inductor")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check(variant, variant.ready(x), expected).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "preact_resnet200", "googlenet_bn"])
def test_nets_of_the_zoo_stay_within_tolerance_in_bf16_and_folded(name: str) -> None:
    plan = lower(read(name, zoo=Zoo()))
    for options in (RunOptions(dtype="bf16"), RunOptions(fold_bn=True, channels_last=True)):
        with configure_torch(options, CPU):
            net, x = calibrated(plan, images=1)
            expected = reference(plan, net, x)
            variant = transform(plan, net, options, x)
            assert check(variant, variant.ready(x), expected).passed


@pytest.mark.slow
@pytest.mark.parametrize(
    ("runtime", "package"), [("onnxruntime", "onnxscript"), ("onnxruntime", "onnxruntime"), ("openvino", "openvino")]
)
@pytest.mark.filterwarnings("ignore")
def test_other_runtimes_compute_what_eager_fp32_does(runtime: Runtime, package: str) -> None:
    if not installed(runtime, package):
        pytest.skip(f"{package} is not installed")
    plan, options = residual_net(2), RunOptions(runtime=runtime)
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check(variant, variant.ready(x), expected).passed


def test_values_are_compared_of_eight_images_however_large_the_batch() -> None:
    plan, made = residual_net(), RunOptions(channels_last=True, fold_bn=True)
    with configure_torch(made, CPU):
        net, x = calibrated(plan, images=20)
        sizes: list[int] = []
        hook = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        try:
            expected = reference(plan, net, x)
        finally:
            hook.remove()
        assert set(sizes) == {len(value) for value in expected} == {8}
        variant = transform(plan, net, made, x)
        assert check(variant, variant.images, expected).passed
        wrong = (expected[0] * 1.01, *expected[1:])
        assert not check(variant, variant.images, wrong).passed


def test_a_graph_replays_on_the_images_it_was_made_for(monkeypatch: pytest.MonkeyPatch) -> None:
    captured: list[Tensor] = []

    def graph(call: object, x: Tensor, pool: object) -> tuple[object, int]:
        captured.append(x)
        assert pool == (0, 7)
        return call, 1234

    monkeypatch.setattr(variants, "_graph", graph)
    plan, made = residual_net(), RunOptions(dtype="bf16", channels_last=True, cuda_graph=True)
    with configure_torch(made, CPU):
        net, x = calibrated(plan)
        variant = transform(plan, net, made, x, (0, 7))
    assert variant.images is captured[0]
    assert variant.images.dtype == torch.bfloat16
    assert variant.captured_bytes == 1234


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_only_in_fp16_norms_stay_in_fp32(dtype: Dtype) -> None:
    net, _ = calibrated(residual_net())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    norms = {name for name, module in net.named_modules() if isinstance(module, nn.BatchNorm2d)}
    for name, value in cast(net, dtype).state_dict().items():
        kept = dtype == "fp16" and name.rpartition(".")[0] in norms
        if value.is_floating_point():
            assert value.dtype == (torch.float32 if kept else variants.DTYPES[dtype])
        if kept:
            assert torch.equal(value, before[name])


class Cudnn:
    """cuDNN's two operators, computed on a CPU; `missing` says for which weights there is no kernel."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.fused = self.added = 0
        self.missing: Callable[[Tensor], str] = lambda weight: ""
        monkeypatch.setattr(torch, "cudnn_convolution_relu", self._relu)
        monkeypatch.setattr(torch, "cudnn_convolution_add_relu", self._add_relu)

    def _relu(self, x: Tensor, weight: Tensor, bias: Tensor | None, *shape: Any) -> Tensor:
        if error := self.missing(weight):
            raise RuntimeError(error)
        self.fused += 1
        return torch.relu(torch.conv2d(x, weight, bias, *shape))

    def _add_relu(
        self, x: Tensor, weight: Tensor, z: Tensor, alpha: float | None, bias: Tensor | None, *shape: Any
    ) -> Tensor:
        if error := self.missing(weight):
            raise RuntimeError(error)
        y = torch.conv2d(x, weight, bias, *shape)
        assert z.shape == y.shape
        self.added += 1
        return torch.relu(y + (1 if alpha is None else alpha) * z)


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> Cudnn:
    return Cudnn(monkeypatch)


def zoo(name: str, side: int) -> Plan:
    return lower(read(name, zoo=Zoo(), input=Shape(3, side, side)))


def folded(plan: Plan) -> tuple[Plan, Net, Tensor]:
    net, x = calibrated(plan, images=1)
    with torch.no_grad():
        return *fold_norms(plan, net), x


@pytest.mark.parametrize(
    ("name", "side", "alone", "with_sum"),
    [
        ("cifar_resnet20", 32, 10, 9),
        ("resnet18", 64, 9, 8),
        ("resnet50", 64, 33, 16),
        ("resnext50_32x4d", 64, 33, 16),
        ("preact_resnet50", 64, 33, 0),  # the first convolution, and two of three in a block
        ("cifar_resnext29_8x64d", 32, 19, 9),
        ("googlenet", 64, 57, 0),
        ("inception_v3", 80, 94, 0),
        ("inception_resnet_v2", 80, 204, 0),  # whose sums are of scaled terms
        ("vgg16", 32, 13, 0),
        ("drn_c_26", 64, 15, 10),
    ],
)
def test_a_folded_model_fused_by_cudnn_computes_what_it_did(
    name: str, side: int, alone: int, with_sum: int, cudnn: Cudnn
) -> None:
    plan, net, x = folded(zoo(name, side))
    with torch.no_grad():
        expected = as_tuple(net(x))
        fused, convs = fuse(net, plan)
        found = as_tuple(fused(x))
    assert all(torch.equal(y, e) for y, e in zip(found, expected, strict=True))
    assert (cudnn.fused, cudnn.added) == (alone, with_sum)
    assert len(convs) == alone + with_sum
    dropped = [index for call in fused._calls for index in call.last_used]
    assert sorted(dropped) == [index for index in range(len(plan.steps)) if index not in plan.outputs]


@every_net
def test_the_rung_of_fused_convolutions_is_checked_like_any_other(plan: Plan, cudnn: Cudnn) -> None:
    options = RunOptions(fold_bn=True, channels_last=True, runtime="cudnn")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        calls = cudnn.fused + cudnn.added
        assert check(variant, variant.images, expected).passed
        assert cudnn.fused + cudnn.added > calls > 0
        for layer in variant.net.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                layer.bias.data.add_(1)
        assert not check(variant, variant.images, expected).passed


def test_an_operator_that_leaves_the_sum_out_is_found(cudnn: Cudnn, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, options = residual_net(2), RunOptions(fold_bn=True, runtime="cudnn")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference(plan, net, x)
        monkeypatch.setattr(
            torch, "cudnn_convolution_add_relu", lambda x, w, z, alpha, b, *shape: torch.conv2d(x, w, b, *shape).relu()
        )
        variant = transform(plan, net, options, x)
        assert not check(variant, variant.images, expected).passed


NO_KERNEL = "FIND was unable to find an engine to execute this computation"


@pytest.mark.parametrize("words", thinned([NO_KERNEL, "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED_ARCH_MISMATCH"], 2))
def test_what_cudnn_cannot_fuse_is_run_one_kernel_after_the_other(words: str, cudnn: Cudnn) -> None:
    plan, net, x = folded(zoo("resnext50_32x4d", 64))
    cudnn.missing = lambda weight: words if weight.shape[2] == 3 else ""  # the grouped ones
    with torch.no_grad():
        expected = net(x)
        fused, convs = fuse(net, plan)
        assert torch.equal(fused(x), expected)
        cudnn.missing = lambda weight: "asked again" if weight.shape[2] == 3 else ""
        assert torch.equal(fused(x), expected)
    assert sum(not conv.is_fused for conv in convs) == 16


def test_a_model_of_which_nothing_can_be_fused_is_not_a_rung(cudnn: Cudnn) -> None:
    options = RunOptions(fold_bn=True, runtime="cudnn")
    cudnn.missing = lambda weight: NO_KERNEL
    with configure_torch(options, CPU):
        net, x = calibrated(residual_net())
        with pytest.raises(ResourceError, match="cuDNN fuses no convolution of `sketch` with a ReLU"):
            transform(residual_net(), net, options, x)


def test_other_errors_of_a_fused_convolution_are_raised(cudnn: Cudnn) -> None:
    plan, net, x = folded(residual_net())
    cudnn.missing = lambda weight: "CUDA error: an illegal memory access was encountered"
    with torch.no_grad(), pytest.raises(RuntimeError, match="illegal memory access"):
        fuse(net, plan)[0](x)


def test_a_pytorch_model_is_not_fused() -> None:
    plan = of_module(nn.Conv2d(3, 8, 3), Shape(3, 16, 16), None).plan
    with pytest.raises(UsageError, match="is a PyTorch model, whose convolutions are not fused"):
        transform(plan, nn.Conv2d(3, 8, 3), RunOptions(runtime="cudnn"), torch.zeros(1, 3, 16, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "fewer"), [("resnet18", 42), ("resnet50", 114), ("inception_v3", 188)])
def test_a_fused_convolution_is_one_kernel(name: str, fewer: int) -> None:
    plan, place = load(name), torch.device("cuda", 0)
    folded = RunOptions(dtype="fp16", channels_last=True, fold_bn=True)
    found = kernels(plan, folded, place), kernels(plan, replace(folded, runtime="cudnn"), place)
    assert found[0] - found[1] == fewer  # a kernel less for a bias, a sum and a ReLU


@pytest.mark.gpu
@pytest.mark.values
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("graph", [False, True])
@pytest.mark.parametrize("dtype", ["fp32", "tf32", "bf16", "fp16"])
@pytest.mark.parametrize("runtime", ["eager", "cudnn"])
def test_a_gpu_computes_what_eager_fp32_does(dtype: Dtype, graph: bool, runtime: Runtime) -> None:
    plan, place = residual_net(2), torch.device("cuda", 0)
    options = RunOptions(dtype=dtype, channels_last=True, fold_bn=True, cuda_graph=graph, runtime=runtime)
    with configure_torch(options, place):
        net, x = weights(plan, place), torch.randn(4, 3, 8, 8, device=place)
        calibrate(net, x, plan)
        expected = reference(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check(variant, variant.ready(x), expected).passed
