"""Memory as worked out, held to the tensors that PyTorch holds: on the meta device, on the CPU, on a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from resnetcli.net.module import build
from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Op,
    PadChannels,
    Place,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Scale,
    Softmax,
)
from resnetcli.plan.lower import lower
from resnetcli.plan.memory import Mode, memory
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support import held
from tests.support.sketch import Sketch
from tests.support.written import plan_of, plan_of_model

ZOO = Zoo()
QUICK = (
    "alexnet", "googlenet", "resnet18_a", "preact_resnet50", "wrn_16_8", "drn_d_22", "darknet19", "prelu_net_a",
    "faster_rcnn_vgg16", "inception_3a_naive",
)  # fmt: skip
every_net = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO.files]
)


@every_net
def test_the_peaks_are_those_of_the_tensors_that_torch_holds(name: str) -> None:
    spec = read(name, zoo=ZOO)
    plan = lower(spec, aux=bool(spec.aux))
    assert held.derived(plan) == held.measured(plan)


OPS: list[Op] = [
    BatchNorm(), ReLU(), LeakyReLU(0.1), PReLU(), Softmax(), Scale(0.1), Dropout(0.5), Dropout(0.0),
    Pool("max", (3, 3), 2, (1, 1)), Pool("avg", (3, 3), 2, (1, 1)), PoolTo("avg", (1, 1)), PoolTo("avg", (3, 3)),
    PoolTo("max", (3, 3)), PyramidPool((4,)), LocalResponseNorm(5, 1e-4, 0.75, 2.0), PadChannels(20, 2),
    PadChannels(20), RegionPool((7, 7), 5), Linear(10), Conv(6, (3, 3), groups=2, bias=True),
]  # fmt: skip


@pytest.mark.parametrize("op", OPS, ids=str)
@pytest.mark.parametrize("last", [True, False])
def test_an_operation_takes_what_torch_takes_for_it(op: Op, last: bool) -> None:
    s = Sketch(3, 16, 16)
    s.step("a", Conv(16, (3, 3), pad=(1, 1)))
    s.step("b", op)
    if not last:
        s.step("c", PoolTo("max", (2, 2)))
    plan = s.plan()
    assert held.derived(plan) == held.measured(plan)


def test_a_pyramid_takes_its_levels_one_by_one() -> None:
    s = Sketch(3, 16, 16)
    s.step("a", Conv(16, (3, 3), pad=(1, 1)))
    s.step("spp", PyramidPool((4, 2, 1)))
    plan = s.plan()
    inference, between, peak = held.derived(plan)
    assert (inference, between) == held.measured(plan)[:2]
    assert peak == pytest.approx(held.measured(plan)[2], rel=0.01)  # the first levels' indices go early


def test_what_is_computed_aside_is_gone_before_the_backward_pass() -> None:
    plan = plan_of("input: 3x8x8\ntable:\n  a: [3x3 4, aside: [3x3 50, 3x3 60]]\n  b: [global avg, fc 2]\n")
    assert held.derived(plan) == held.measured(plan)


def branching() -> Plan:
    """Sums whose terms are sums, a value three read, parts of a concatenation: vectors, so that no library helps."""
    s = Sketch(64, 1, 1)
    x = s.step("stem", Linear(256))
    for number in range(3):
        a = s.step(f"{number}.a", Linear(256), x)
        b = s.step(f"{number}.b", ReLU(), a)
        c = s.step(f"{number}.c", Linear(256), b)
        d = s.step(f"{number}.d", Linear(128), x)
        e = s.step(f"{number}.e", Linear(128), x)
        cat = s.step(f"{number}.cat", Concat(), d, e)
        x = s.step(f"{number}.add", Add(), c, x, cat)
    s.step("fc", Linear(10))
    return s.plan()


@pytest.mark.parametrize("mode", ["infer", "train"])
def test_the_allocator_gives_out_as_much_where_no_library_needs_room_of_its_own(mode: Mode) -> None:
    """The only one to see autograd sum gradients in place, which it does not while a ledger watches."""
    from benchmarks.memory import allocated_peak, inference, training_step

    plan, batch = branching(), 512
    net = build(plan)
    x = torch.randn(batch, 64, 1, 1)
    call = training_step(net, x) if mode == "train" else inference(net, x)
    call()
    assert allocated_peak(call) + x.nbytes == pytest.approx(
        held.most(memory(plan, mode, place="cpu"), batch), rel=0.002
    )


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["resnet18", "vgg16_bn", "cifar_resnet20"])
def test_autograd_says_itself_that_it_keeps_as_much(name: str, dtype: str) -> None:
    plan = plan_of_model(name, 48)
    torch_s = torch.float32 if dtype == "fp32" else torch.bfloat16
    net = build(plan, dtype=torch_s, init=lambda net: None)
    x = torch.zeros(held.shape_of(plan), dtype=torch_s)
    found = memory(plan, "train", dtype="fp32" if dtype == "fp32" else "bf16", place="cpu")
    first = next(moment for moment in found.moments if moment.phase == "backward")
    outputs = sum(plan.steps[index].shape.elements for index in plan.outputs) * torch_s.itemsize
    kept = held.BATCH * (first.activations - outputs + first.input) + first.statistics
    assert kept == held.saved(net, x)


def test_what_stands_there_all_the_time_is_the_state_of_the_model_and_of_its_optimizer() -> None:
    plan = plan_of_model("cifar_resnet", depth=8)
    net = build(plan)
    state = sum(tensor.nbytes for tensor in net.state_dict().values())
    assert memory(plan).standing_bytes == state
    optimizers = {
        "sgd": torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4),
        "adam": torch.optim.Adam(net.parameters()),
    }
    for name, optimizer in optimizers.items():
        net(torch.randn(held.shape_of(plan))).sum().backward()
        optimizer.step()
        kept = sum(
            value.nbytes for entry in optimizer.state.values() for value in entry.values()
            if isinstance(value, Tensor) and value.dim()
        )  # fmt: skip
        assert memory(plan, "train", optimizer="sgd" if name == "sgd" else "adam").state_bytes == kept


def test_half_the_bytes_an_element_are_half_the_memory() -> None:
    plan = plan_of_model("vgg16")
    assert memory(plan, "infer", dtype="bf16").weight_bytes * 2 == memory(plan).weight_bytes
    whole, half = memory(plan, "train"), memory(plan, "train", dtype="fp16")
    assert 0.5 <= half.bytes(8) / whole.bytes(8) < 0.55  # a maximum's place stays 8 bytes


def test_the_largest_batch_fits_and_one_image_more_does_not() -> None:
    found = memory(plan_of_model("googlenet"), "train", optimizer="adam")
    for available in (2 * 10**8, 10**9, 24 * 2**30):
        batch = found.largest_batch(available)
        assert found.bytes(batch) <= available < found.bytes(batch + 1)
    assert found.largest_batch(found.bytes(1)) == 1
    assert found.largest_batch(found.bytes(1) - 1) == 0
    assert found.largest_batch(1) == 0


def test_a_plain_model_worked_out_by_hand() -> None:
    """Image 3 x 4 x 4; conv to 2 x 4 x 4, ReLU in its place; fc to 5. In float32."""
    s = Sketch(3, 4, 4)
    s.step("conv", Conv(2, (3, 3), pad=(1, 1)))
    s.step("relu", ReLU())
    s.step("fc", Linear(5))
    plan = s.plan()
    image, conv, fc = 4 * 48, 4 * 32, 4 * 5
    weights = 4 * (54 + 165)
    assert memory(plan).weight_bytes == weights
    assert memory(plan).bytes(1) == weights + image + conv + fc
    found = memory(plan, "train")
    assert [moment.bytes(1) for moment in found.moments] == [
        image,
        image + conv,
        image + conv,
        image + conv + fc,
        image + conv + fc + (fc + conv) + 4 * 165,  # the fc's: both gradients, its weights'
        image + conv + fc + 2 * conv + 4 * 165,  # the ReLU's
        image + fc + conv + weights,  # the convolution's: nothing for the image
        image + 2 * weights,
    ]
    assert found.standing_bytes == 2 * weights


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["infer", "train"])
@pytest.mark.parametrize("name", ["resnet18", "resnext50_32x4d", "googlenet", "wrn_28_10_dropout", "preact_resnet50"])
def test_a_gpu_holds_as_much(name: str, mode: Mode) -> None:
    from benchmarks.memory import inference, training_step

    plan, batch, place = plan_of_model(name), 16, torch.device("cuda")
    net = build(plan, device=place)
    x = torch.randn(held.shape_of(plan, batch), device=place)
    call = training_step(net, x) if mode == "train" else inference(net, x)
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated() - x.nbytes
    call()
    on: Place = "cuda"
    measured = torch.cuda.max_memory_allocated() - before
    derived = held.most(memory(plan, mode, place=on), batch)
    assert 0.98 * derived <= measured <= 1.15 * derived + 2**25  # convolutions' workspaces
