from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from resnetcli.bench import runtimes as variants
from resnetcli.bench.deviation import as_tuple, check_outputs, last_feature_map, reference_outputs, relative_error
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import Dtype, RunOptions, Runtime
from resnetcli.bench.runtimes import cast, explain_errors, fold_norms, transform
from resnetcli.bench.search import installed
from resnetcli.bench.weights import build_random, calibrate_norms
from resnetcli.errors import ResourceError
from resnetcli.net.module import layer_of, put_layer
from resnetcli.ops import Conv, Linear, LocalResponseNorm, PoolTo
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.nets import CPU, calibrated, every_net, pre_activation_net
from tests.support.sketch import Sketch, residual_net


@every_net
def test_a_folded_model_computes_what_it_did(plan: Plan) -> None:
    net, x = calibrated(plan)
    with torch.no_grad():
        expected = net(x).clone()
        _, folded = fold_norms(plan, net)
        found = folded(x)
    assert relative_error(found, expected) < 1e-6


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
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        found = check_outputs(variant, variant.ready(x), expected)
    assert found.passed
    assert found.outputs <= found.tolerance / 2
    assert found.feature_map is not None
    if options.dtype == "bf16":
        assert found.outputs > 1e-4  # it did compute in bf16


def test_a_wrong_weight_is_found_even_in_bf16() -> None:
    plan, options = residual_net(3), RunOptions(dtype="bf16", fold_bn=True)
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        layer = variant.net.get_submodule("conv2_x.1.F.1.conv")
        assert isinstance(layer, nn.Conv2d)
        layer.weight.data.neg_()
        found = check_outputs(variant, variant.ready(x), expected)
    assert not found.passed


def test_what_is_not_finite_never_passes() -> None:
    one = torch.ones(3)
    assert relative_error(torch.tensor([1.0, float("nan"), 1.0]), one) == float("inf")
    assert relative_error(torch.tensor([1.0, float("inf"), 1.0]), one) == float("inf")
    assert relative_error(one, torch.tensor([1.0, float("nan"), 1.0])) == float("inf")
    assert relative_error(one, torch.tensor([1.0, float("inf"), 1.0])) == float("inf")
    assert relative_error(torch.full((3,), -3e38), torch.full((3,), 3e38)) == float("inf")  # whose norms are no numbers


def test_the_relative_norm_is_that_worked_out_by_hand() -> None:
    assert relative_error(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 9.0])) == pytest.approx(5 / 90**0.5)
    assert relative_error(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_error(torch.ones(2), torch.zeros(2)) == float("inf")
    assert relative_error(torch.ones(2), torch.ones(3)) == float("inf")


def test_the_last_maps_are_those_on_the_way_to_the_output() -> None:
    s = Sketch(3, 4, 4)
    maps = s.step("conv", Conv(4, (3, 3), pad=(1, 1)))
    pooled = s.step("pool", PoolTo("avg", (1, 1)))
    fc = s.step("fc", Linear(10))
    aux = s.step("aux", Conv(2, (1, 1)), maps)
    assert last_feature_map(s.plan(fc, aux)) == maps
    assert last_feature_map(s.plan(pooled)) == maps
    assert last_feature_map(replace(s.plan(fc), outputs=(aux,))) == aux
    flat = Sketch(3, 1, 1)
    flat.step("fc", Linear(2))
    assert last_feature_map(flat.plan()) is None


def test_the_reference_has_every_output_and_last_the_maps() -> None:
    s = Sketch(3, 8, 8)
    maps = s.step("conv", Conv(4, (3, 3), pad=(1, 1)))
    s.step("pool", PoolTo("avg", (1, 1)))
    fc = s.step("fc", Linear(10))
    aux = s.step("aux", Conv(2, (1, 1)), maps)
    plan = s.plan(fc, aux)
    net, x = calibrated(plan)
    outputs = reference_outputs(plan, net, x)
    with torch.no_grad():
        assert [tuple(y.shape) for y in outputs] == [(2, 10), (2, 2, 8, 8), (2, 4, 8, 8)]
        assert all(torch.equal(y, e) for y, e in zip(outputs, as_tuple(net(x)), strict=False))


def test_a_layer_is_found_and_replaced_by_its_step() -> None:
    plan = residual_net()
    net = build_random(plan, CPU)
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
        with pytest.raises(ResourceError, match=words), explain_errors(plan, options):
            variant.call(variant.ready(x))


def test_errors_of_a_compiler_are_a_line_and_those_of_eager_models_stay() -> None:
    words, compiled = "`sketch` as fp32 compile cannot be run: ValueError: what", RunOptions(runtime="inductor")
    with pytest.raises(ResourceError, match=words), explain_errors(residual_net(), compiled):
        raise ValueError("what\nmore")
    with pytest.raises(ValueError, match="what"), explain_errors(residual_net(), RunOptions()):
        raise ValueError("what")


def test_random_models_are_well_conditioned_so_that_bf16_can_be_told_from_an_error() -> None:
    plan, options = lower(read("cifar_resnet", zoo=Zoo(), parameters={"depth": 56})), RunOptions(dtype="bf16")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check_outputs(variant, variant.ready(x), expected).passed


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="nothing to compile with")
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore")
def test_a_compiled_model_computes_what_eager_fp32_does(dtype: str) -> None:
    plan = residual_net(2)
    options = RunOptions(dtype="bf16" if dtype == "bf16" else "fp32", fold_bn=True, runtime="inductor")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check_outputs(variant, variant.ready(x), expected).passed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "inception_v3", "preact_resnet200", "googlenet_bn"])
def test_models_of_the_zoo_stay_within_tolerance_in_bf16_and_folded(name: str) -> None:
    plan = lower(read(name, zoo=Zoo()))
    for options in (RunOptions(dtype="bf16"), RunOptions(fold_bn=True, channels_last=True)):
        with configure_torch(options, CPU):
            net, x = calibrated(plan, images=1)
            expected = reference_outputs(plan, net, x)
            variant = transform(plan, net, options, x)
            assert check_outputs(variant, variant.ready(x), expected).passed


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
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check_outputs(variant, variant.ready(x), expected).passed


def test_values_are_compared_of_eight_images_however_large_the_batch() -> None:
    plan, made = residual_net(), RunOptions(channels_last=True, fold_bn=True)
    with configure_torch(made, CPU):
        net, x = calibrated(plan, images=20)
        sizes: list[int] = []
        hook = nn.modules.module.register_module_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
        try:
            expected = reference_outputs(plan, net, x)
        finally:
            hook.remove()
        assert set(sizes) == {len(value) for value in expected} == {8}
        variant = transform(plan, net, made, x)
        assert check_outputs(variant, variant.images, expected).passed
        wrong = (expected[0] * 1.01, *expected[1:])
        assert not check_outputs(variant, variant.images, wrong).passed


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
        net, x = build_random(plan, place), torch.randn(4, 3, 8, 8, device=place)
        calibrate_norms(net, x, plan)
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        assert check_outputs(variant, variant.ready(x), expected).passed
