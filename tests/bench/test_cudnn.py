"""Convolutions fused by cuDNN, whose operators are computed on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resnetcli.bench.deviation import as_tuple, check_outputs, reference_outputs
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import RunOptions
from resnetcli.bench.runtimes import fold_norms, transform
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.module import Net, fuse
from resnetcli.ops import Shape
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.reports.foreign import of_module
from resnetcli.reports.profile import load
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.kernels import kernels
from tests.support.nets import CPU, calibrated, every_net
from tests.support.sketch import residual_net
from tests.support.thin import thinned


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
    thinned(
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
        3,
    ),
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
        expected = reference_outputs(plan, net, x)
        variant = transform(plan, net, options, x)
        calls = cudnn.fused + cudnn.added
        assert check_outputs(variant, variant.images, expected).passed
        assert cudnn.fused + cudnn.added > calls > 0
        for layer in variant.net.modules():
            if isinstance(layer, nn.Conv2d) and layer.bias is not None:
                layer.bias.data.add_(1)
        assert not check_outputs(variant, variant.images, expected).passed


def test_an_operator_that_leaves_the_sum_out_is_found(cudnn: Cudnn, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, options = residual_net(2), RunOptions(fold_bn=True, runtime="cudnn")
    with configure_torch(options, CPU):
        net, x = calibrated(plan)
        expected = reference_outputs(plan, net, x)
        monkeypatch.setattr(
            torch, "cudnn_convolution_add_relu", lambda x, w, z, alpha, b, *shape: torch.conv2d(x, w, b, *shape).relu()
        )
        variant = transform(plan, net, options, x)
        assert not check_outputs(variant, variant.images, expected).passed


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
    with pytest.raises(UsageError, match="is a PyTorch model: its convolutions cannot be fused"):
        transform(plan, nn.Conv2d(3, 8, 3), RunOptions(runtime="cudnn"), torch.zeros(1, 3, 16, 16))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize(("name", "fewer"), [("resnet18", 42), ("resnet50", 114), ("inception_v3", 188)])
def test_a_fused_convolution_is_one_kernel(name: str, fewer: int) -> None:
    plan, place = load(name), torch.device("cuda", 0)
    folded = RunOptions(dtype="fp16", channels_last=True, fold_bn=True)
    found = kernels(plan, folded, place), kernels(plan, replace(folded, runtime="cudnn"), place)
    assert found[0] - found[1] == fewer  # a kernel less for a bias, a sum and a ReLU
