from __future__ import annotations

from resnetcli.ops import Add, BatchNorm, Conv, Linear, PoolTo, ReLU
from resnetcli.plan.count import count
from resnetcli.plan.fold import fold
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.plan.schedule import overwrites
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.sketch import Sketch, residual_net

CONV = Conv(3, (3, 3), pad=(1, 1))


def kinds(plan: Plan) -> list[str]:
    return [type(step.op).__name__ for step in plan.steps]


def test_a_norm_becomes_the_bias_of_the_convolution_before_it() -> None:
    s = Sketch(3, 4, 4)
    conv = s.step("row.conv", CONV)
    norm = s.step("row.bn", BatchNorm())
    s.step("row.relu", ReLU())
    folded = fold(s.plan())
    assert kinds(folded.plan) == ["Input", "Conv", "ReLU"]
    assert folded.plan.steps[1].op == Conv(3, (3, 3), pad=(1, 1), bias=True)
    assert folded.plan.steps[1].path == "row.conv"
    assert (folded.origins, dict(folded.norms)) == ((0, 1, 3), {conv: norm})
    assert folded.plan.steps[2].inputs == (1,)
    assert (dict(folded.plan.stages), folded.plan.outputs) == ({"all": 2}, (2,))


def test_a_norm_that_is_an_output_or_ends_a_row_leaves_both_to_its_convolution() -> None:
    s = Sketch(3, 4, 4)
    s.step("conv", CONV)
    s.step("bn", BatchNorm())
    folded = fold(s.plan()).plan
    assert (kinds(folded), folded.outputs, dict(folded.stages)) == (["Input", "Conv"], (1,), {"all": 1})


def test_a_convolution_that_somebody_else_sees_stays_as_it_is() -> None:
    s = Sketch(3, 4, 4)
    conv = s.step("conv", CONV)
    norm = s.step("bn", BatchNorm())
    s.step("add", Add(), norm, conv)
    assert fold(s.plan()).plan.steps == s.plan().steps
    s = Sketch(3, 4, 4)
    conv = s.step("conv", CONV)
    norm = s.step("bn", BatchNorm())
    assert fold(s.plan(norm, conv)).plan.steps == s.plan().steps


def test_a_norm_before_its_convolution_stays_and_the_relu_after_it_writes_over_it_alone() -> None:
    s = Sketch(3, 4, 4)
    x = s.step("conv0", CONV)
    norm = s.step("bn", BatchNorm(), x)
    relu = s.step("relu", ReLU())
    f = s.step("conv1", CONV)
    s.step("add", Add(), f, x)
    folded = fold(s.plan())
    assert folded.plan.steps == s.plan().steps
    assert overwrites(folded.plan) == overwrites(s.plan())
    assert overwrites(folded.plan)[relu] == norm


def test_a_norm_after_a_fully_connected_layer_or_a_pool_is_told_apart() -> None:
    s = Sketch(3, 4, 4)
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("bn1", BatchNorm())
    s.step("fc", Linear(5, bias=False))
    s.step("bn2", BatchNorm())
    folded = fold(s.plan())
    assert kinds(folded.plan) == ["Input", "PoolTo", "BatchNorm", "Linear"]
    assert folded.plan.steps[3].op == Linear(5)


def test_nothing_but_norms_changes_the_counts() -> None:
    plan = residual_net(3)
    folded = fold(plan)
    before, after = count(plan), count(folded.plan)
    assert (after.macs, after.activations, after.depth) == (before.macs, before.activations, before.depth)
    norms = sum(step.shape.c for step in plan.steps if isinstance(step.op, BatchNorm))
    assert after.params == before.params - norms  # gamma and beta go, a bias comes
    assert len(folded.plan.steps) == len(plan.steps) - len(folded.norms)


def test_every_norm_of_a_post_activation_model_goes_and_of_a_pre_activation_model_those_after_a_convolution() -> None:
    def left(name: str) -> int:
        return kinds(fold(lower(read(name, zoo=Zoo()))).plan).count("BatchNorm")

    assert left("resnet50") == 0
    assert left("inception_v3") == 0
    plan = lower(read("preact_resnet200", zoo=Zoo()))
    after_others = [
        step for step in plan.steps
        if isinstance(step.op, BatchNorm) and not isinstance(plan.steps[step.inputs[0]].op, Conv)
    ]  # fmt: skip
    assert left("preact_resnet200") == len(after_others) > 60
