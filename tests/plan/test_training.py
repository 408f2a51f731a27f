"""What a training step multiplies, held to torch's own count of a forward and a backward pass."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from resnetcli.net.module import build
from resnetcli.ops import Add, Concat, Conv, Linear, PoolTo, ReLU, Softmax
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import TrainingCost, gradients, training
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.sketch import Sketch
from tests.support.written import plan_of, plan_of_model

ZOO = Zoo()
QUICK = ("alexnet", "googlenet", "resnet18_a", "resnext50_32x4d", "drn_d_22", "prelu_net_a", "faster_rcnn_vgg16")
every_net = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in ZOO.files]
)


def flops_of_torch(plan: Plan) -> int:
    """For one image: of a forward and a backward from all outputs."""
    net = build(plan, device="meta")
    x = torch.empty(2, plan.input.c, plan.input.h, plan.input.w, device="meta")
    with FlopCounterMode(display=False) as counter:
        y = net(x)
        outputs = y if isinstance(y, tuple) else (y,)
        torch.stack([output.sum() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    total, remainder = divmod(counter.get_total_flops(), 2)
    assert not remainder
    return int(total)


def with_torchs_defect(plan: Plan) -> int:
    """Our figure as FlopCounterMode would have it, which does not divide a weight's gradient by the groups."""
    total = 0
    for step, cost in zip(plan.steps, training(plan).steps, strict=True):
        groups = step.op.groups if isinstance(step.op, Conv) else 1
        total += cost.forward_macs + cost.input_gradient_macs + groups * cost.weight_gradient_macs
    return total


@every_net
def test_torch_counts_the_same(name: str) -> None:
    plan = plan_of_model(name)
    assert 2 * with_torchs_defect(plan) == flops_of_torch(plan)


@pytest.mark.parametrize("name", ["googlenet", pytest.param("inception_v3", marks=pytest.mark.slow)])
def test_torch_counts_the_same_with_auxiliary_heads(name: str) -> None:
    plan = lower(read(name, zoo=ZOO), aux=True)
    assert 2 * training(plan).total.total_macs == flops_of_torch(plan)


@pytest.mark.slow
def test_a_grouped_convolution_trains_as_its_branches_do() -> None:
    """The same model without grouped convolutions, where torch's count has no defect: ResNeXt's form a."""
    assert 2 * training(plan_of_model("resnext50_32x4d")).total.total_macs == flops_of_torch(
        plan_of_model("resnext50_32x4d_a")
    )


def test_the_step_of_a_resnet_is_three_times_its_forward_without_the_stems_input_gradient() -> None:
    total = training(plan_of_model("resnet50")).total
    stem = 7 * 7 * 3 * 64 * 112 * 112
    assert total == TrainingCost(4_089_184_256, 4_089_184_256 - stem, 4_089_184_256)
    assert (total.backward_macs, total.total_macs) == (2 * 4_089_184_256 - stem, 3 * 4_089_184_256 - stem)


def test_nothing_is_passed_on_to_the_image_by_whichever_branch_reads_it() -> None:
    s = Sketch(3, 4, 4)
    a = s.step("a", Conv(2, (1, 1)), 0)
    b = s.step("b", Conv(4, (1, 1)), 0)
    s.step("cat", Concat(), a, b)
    s.step("c", Conv(5, (1, 1)))
    costs = training(s.plan()).steps
    assert [costs[1], costs[2]] == [TrainingCost(96, 0, 96), TrainingCost(192, 0, 192)]
    assert costs[4] == TrainingCost(480, 480, 480)


def test_what_only_passes_the_image_on_has_no_gradient() -> None:
    s = Sketch(3, 4, 4)
    s.step("relu", ReLU())
    s.step("pool", PoolTo("avg", (2, 2)))
    s.step("conv", Conv(2, (1, 1)))
    assert gradients(s.plan()) == (False, False, False, True)
    assert training(s.plan()).total == TrainingCost(24, 0, 24)


def test_a_softmax_and_a_sum_pass_gradients_and_multiply_nothing() -> None:
    s = Sketch(3, 1, 1)
    a = s.step("a", Linear(4))
    b = s.step("b", Linear(4), a)
    s.step("add", Add(), a, b)
    s.step("softmax", Softmax())
    assert training(s.plan()).total == TrainingCost(12 + 16, 16, 12 + 16)


def test_what_is_thrown_away_is_computed_and_learns_nothing() -> None:
    plan = plan_of("input: 3x8x8\ntable:\n  a: [3x3 4, aside: [3x3 5, 3x3 6]]\n  b: [global avg, fc 2]\n")
    total = training(plan).total
    main, aside = 9 * 3 * 4 * 64, 9 * 64 * (4 * 5 + 5 * 6)
    assert total == TrainingCost(main + aside + 8, 8, main + 8)
    assert 2 * total.total_macs == flops_of_torch(plan)


def test_rows_and_steps_sum_to_the_total() -> None:
    found = training(plan_of_model("googlenet"))
    for part in (found.stages.values(), found.steps):
        assert sum(cost.total_macs for cost in part) == found.total.total_macs
        assert sum(cost.backward_macs for cost in part) == found.total.backward_macs
