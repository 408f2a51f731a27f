"""A PyTorch model is counted as it runs, and left exactly as it was."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from typing import Any, get_args

import pytest
import torch
from torch import Tensor, nn

import resnetcli as rc
from resnetcli.reports.profile import By, parts
from tests.support.pytorch import counted, figures, of_torch, state
from tests.support.thin import thinned

QUICK = (
    "resnet18", "googlenet", "alexnet_2012", "cifar_resnext29_8x64d", "drn_d_22",
    "faster_rcnn_vgg16", "prelu_net_a",
)  # fmt: skip


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in rc.models()]
)
def test_a_model_of_the_zoo_counts_the_same_when_its_built_module_is_seen_to_run(name: str) -> None:
    plan = rc.load(name)
    net = rc.build(plan, device="meta")
    net.train(name < "n")
    before = state(net)
    found = rc.profile_module(net, input=plan.input)
    assert state(net) == before
    assert figures(found.counts) == figures(rc.count(plan))
    rows = [part.name for part in parts(found, "stage") if part.name != "(Net)"]  # that joins what rows put out
    assert rows == [row if hasattr(net, row) else f"{row}_" for row in plan.stages]
    assert found.counts == rc.count(found.plan)


@pytest.mark.parametrize("name", thinned(["cifar_resnet", "cifar_plain"], 2))
def test_a_model_with_weights_keeps_them_to_the_bit(name: str) -> None:
    plan = rc.load(name, depth=8)
    net: Any = rc.build(plan)
    net.conv1.eval()
    net.head.requires_grad_(False)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    net.conv2_x.register_forward_hook(_nothing)
    assert figures(counted(net, (3, 32, 32)).counts) == figures(rc.count(plan))


def _nothing(*_: object) -> None:
    pass


TWINS = [
    ("resnet18", "torchvision:resnet18", {}), ("resnet50", "torchvision:resnet50", {}),
    ("resnext50_32x4d", "torchvision:resnext50_32x4d", {}), ("wide_resnet50_2", "torchvision:wide_resnet50_2", {}),
    ("vgg16_bn", "torchvision:vgg16_bn", {}), ("alexnet", "torchvision:alexnet", {}),
    ("googlenet_bn", "torchvision:googlenet", {"aux_logits": 0}),
    ("inception_v3", "torchvision:inception_v3", {"aux_logits": 0}),
    ("resnet50d", "timm:resnet50d", {}), ("resnet50c", "timm:resnet50c", {}),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "parameters"), thinned(TWINS, 3), ids=lambda value: str(value))
def test_a_model_of_torchvision_or_timm_counts_as_its_spec(ours: str, theirs: str, parameters: dict[str, Any]) -> None:
    pytest.importorskip(theirs.partition(":")[0])
    plan = rc.load(ours)
    found = rc.profile(theirs, input=plan.input, **parameters)
    assert figures(found.counts) == figures(rc.count(plan))
    assert found.plan.settings == parameters
    assert found.cite.split()[0] == theirs.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "depth"),
    thinned(
        [("densenet121", 121), ("mobilenet_v2", 53), ("squeezenet1_1", None), ("vit_b_32", None), ("swin_t", None),
         ("convnext_tiny", None), ("shufflenet_v2_x0_5", None)],
        2,
    ),
)  # fmt: skip
def test_macs_and_parameters_are_torch_s_own(name: str, depth: int | None) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        module = models.get_model(name)
    found = rc.profile_module(module)
    assert found.counts.macs == of_torch(module, 3, 224, 224)
    assert found.counts.params == sum(p.numel() for p in module.parameters())
    assert depth in {None, found.counts.depth}
    for by in get_args(By):
        costs = [part.cost for part in parts(found, by)]
        assert sum(cost.macs for cost in costs) == found.counts.macs
        assert sum(cost.params for cost in costs) == found.counts.params


def torchvision_s_models() -> list[str]:
    models = pytest.importorskip("torchvision.models")
    return [name for name in models.list_models(module=models) if not re.search(r"_h_14|y_128|_l_|googlenet", name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_s_models())
def test_every_classifier_of_torchvision_counts_what_torchvision_prints_of_it(name: str) -> None:
    weights = pytest.importorskip("torchvision.models").get_model_weights(name).DEFAULT
    (size,) = weights.transforms().crop_size
    found = rc.profile(f"torchvision:{name}", input=(3, size, size)).counts
    assert found.params == weights.meta["num_params"]
    assert found.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.001)


def test_a_model_whose_constructor_needs_values_is_made_with_them() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"), pytest.raises(NotImplementedError):
        models.regnet_y_400mf()
    printed = models.RegNet_Y_400MF_Weights.IMAGENET1K_V1.meta
    found = rc.profile("torchvision:regnet_y_400mf").counts
    assert (found.params, round(found.macs / 1e9, 3)) == (printed["num_params"], printed["_ops"])


class Odd(nn.Module):
    """What hooks on layers get wrong: a layer called twice, tied weights, functions, own parameters, idle ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.body[0].weight = self.again.weight
        self.kernel = nn.Parameter(torch.zeros(6, 4, 1, 1))
        self.idle = nn.Sequential(nn.Linear(10, 10), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.register_buffer("scale", torch.ones(7))
        self.unregistered = torch.ones(1)

    def forward(self, x: Tensor) -> Any:
        x = self.again(self.stem(x) * self.unregistered)
        x = x + self.body(x)
        x = self.again(x)
        x = nn.functional.conv2d(x, self.kernel)
        return self.head(x.mean((2, 3)))


def test_what_is_tied_called_again_functional_or_idle_is_counted_once_each() -> None:
    found = counted(Odd())
    # stem 3*9*4 + 4, again 16 (its tie nothing), bn 8, kernel 24, idle 110, head 35
    assert found.counts.params == 112 + 16 + 8 + 24 + 110 + 35
    # 64 positions: stem 108, three times again 16, kernel 24; head 30
    assert found.counts.macs == 64 * (108 + 3 * 16 + 24) + 30
    assert found.counts.activations == 64 * (4 + 3 * 4 + 6) + 5
    assert found.counts.depth == 6
    assert [*found.plan.stages] == ["stem", "again", "body", "again#2", "(Odd)", "head", "(Odd)#2", "idle"]
    assert [str(part.output) for part in parts(found, "stage")][:5] == ["4 x 8 x 8"] * 4 + ["6 x 8 x 8"]
    assert found.notes[1:] == ("unused in this forward pass, their 110 parameters counted: idle",)
    assert len({step.path for step in found.plan.steps}) == len(found.plan.steps)
    assert all(i < index for index, step in enumerate(found.plan.steps) for i in step.inputs)


@dataclasses.dataclass
class Answer:
    loss: None
    logits: Tensor


@pytest.mark.parametrize(
    "wrap", [lambda x: (x, x + 1), lambda x: {"out": x, "aux": x}, lambda x: Answer(None, x), lambda x: [[x]]]
)
def test_a_model_may_give_more_than_a_tensor(wrap: Callable[[Tensor], object]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> object:
            return wrap(self.conv(x))

    found = counted(Wrapped())
    assert (found.counts.macs, found.counts.depth) == (6 * 64, 1)
    assert [str(part.output) for part in parts(found, "stage")] == ["2 x 8 x 8"]


@pytest.mark.parametrize("training", [True, False])
def test_what_counts_is_evaluation_whatever_the_mode(training: bool) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux, self.norm = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 9, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Any:
            y = self.norm(self.main(x))
            return (y, self.aux(x)) if self.training else y

    found = counted(Moody().train(training))
    assert found.counts.macs == 6 * 64
    assert found.notes[1:] == ("unused in this forward pass, their 36 parameters counted: aux",)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_runs_in_its_own_type(dtype: torch.dtype) -> None:
    assert counted(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).to(dtype)).counts.macs == 54 * 36


class Looks(nn.Module):
    """Reads values, which a model without any cannot."""

    calls: Tensor
    seen: int
    attend: nn.MultiheadAttention

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.seen += 1
        y: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return self.attend(y, y, y)[0] if torch.isfinite(y.sum()).item() else y


def test_a_model_that_looks_at_values_is_run_with_its_own_and_keeps_what_it_writes() -> None:
    model = Looks().eval()
    found = counted(model)
    # conv; q, k and v of 64 tokens; every token with every one, twice; the projection out
    assert found.counts.macs == 64 * 6 + 64 * 2 * 6 + 2 * 64 * 64 * 2 + 64 * 2 * 2
    assert found.counts.params == sum(p.numel() for p in model.parameters())
    assert any("attention" in note for note in found.notes)
    assert (model.seen, model.calls.item()) == (0, 0)


def test_a_lazy_model_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(5))
    found = counted(model)
    assert isinstance(model[0], nn.LazyConv2d)
    assert (found.counts.params, found.counts.macs) == (112 + 8 + 725, 108 * 36 + 720)


def test_weight_norm_is_a_layer_and_its_parameters_count() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten())
    found = counted(model)
    assert (found.counts.params, found.counts.macs, found.counts.depth) == (4 + 108 + 4, 108 * 36, 1)


def test_a_layer_alone_is_a_model() -> None:
    found = counted(nn.Conv2d(3, 4, 3))
    assert [*found.plan.stages] == ["(Conv2d)"]
    assert found.counts.macs == 108 * 36


# --- what fails --------------------------------------------------------------------------------------------------


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(5, 2, 1))

    def forward(self, x: Tensor) -> Any:
        torch.rand(1), random.random()
        return self.inner(x)


class Two(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = (each for each in range(0))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fails(), "`Fails` fails on an image of 3 x 8 x 8 in `inner.1`: RuntimeError: Given groups=1"),
        (Two(), "does not take one image: missing a required argument: 'right'"),
        (Held(), "cannot be copied: TypeError"),
        (nn.Module(), "NotImplementedError"),
        (nn.Embedding(3, 4), "fails on an image of 3 x 8 x 8"),
    ],
)
def test_a_model_that_cannot_be_counted_is_left_as_it_was_too(module: nn.Module, message: str) -> None:
    before = state(module)
    with pytest.raises(rc.UsageError) as raised:
        rc.profile_module(module, input=(3, 8, 8))
    assert message in str(raised.value)
    assert state(module) == before
