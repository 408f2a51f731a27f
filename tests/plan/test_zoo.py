"""What holds for every spec there is."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from resnetcli.net.module import build
from resnetcli.ops import BatchNorm
from resnetcli.plan.count import count, stage_steps, sum_costs
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo
from tests.support.written import plan_of_model

ZOO = Zoo()
NAMES = list(ZOO.files)
every_spec = pytest.mark.parametrize("name", NAMES)

BATCH = 2
LONG = 100
"""Number of steps from which a model is left to the slow tests, but for those in ALWAYS."""
ALWAYS = {"resnet50", "googlenet"}


@cache
def spec_of(name: str) -> Spec:
    return read(name, zoo=ZOO)


@cache
def plan_of(name: str) -> Plan:
    """With its auxiliary heads, if there are any: they follow the model proper, which is as it is without them."""
    spec = spec_of(name)
    return lower(spec, aux=bool(spec.aux))


@dataclass(frozen=True)
class Oracle:
    """What torch says of a net."""

    params: tuple[int, ...]
    """Learnable scalars of each layer that has some, in order."""
    macs: int
    shapes: tuple[tuple[int, ...], ...]
    without_gradient: frozenset[str]


def oracle(name: str) -> Oracle:
    """One forward and backward on the meta device."""
    plan = plan_of(name)
    net = build(plan, device="meta")
    x = torch.empty(BATCH, plan.input.c, plan.input.h, plan.input.w, device="meta")
    shapes: list[tuple[int, ...]] = []
    with FlopCounterMode(display=False) as counter:
        y = net.run(x, observe=lambda value: shapes.append(tuple(value.shape)))
    outputs = y if isinstance(y, tuple) else (y,)
    torch.stack([output.sum() for output in outputs]).sum().backward()  # type: ignore[no-untyped-call]
    flops, remainder = divmod(counter.get_total_flops(), 2 * BATCH)
    assert not remainder
    return Oracle(
        tuple(numbers for module in net.modules() if (numbers := own_parameters(module))),
        flops,
        tuple((*shape, 1, 1)[:4] for shape in shapes),
        frozenset(path for path, parameter in net.named_parameters() if parameter.grad is None),
    )


def own_parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters(recurse=False))


def is_long(name: str) -> bool:
    return len(plan_of(name).steps) > LONG and name not in ALWAYS


with_torch = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if is_long(name) else ()) for name in NAMES]
)


def test_there_is_a_zoo() -> None:
    assert len(NAMES) > 40


@every_spec
def test_a_spec_counts_what_it_expects(name: str) -> None:
    spec = spec_of(name)
    assert spec.expect is not None, "every spec of the zoo has its `expect:`"
    plan = lower(spec)
    counts = count(plan)
    counted = {
        "params": counts.params, "macs": counts.macs, "activations": counts.activations, "depth": counts.depth,
    }  # fmt: skip
    figures = spec.expect.figures
    assert {"params", "macs", "depth"} <= figures.keys()
    assert {figure: counted[figure] for figure in figures} == figures
    assert spec.expect.sizes == tuple(plan.steps[index].shape.h for index in plan.stages.values())


@with_torch
def test_torch_has_the_same_parameters_macs_and_shapes_and_trains_all_of_it(name: str) -> None:
    """One test, for each model is run by torch but once."""
    plan, torch_s = plan_of(name), oracle(name)
    counts = count(plan)
    assert tuple(cost.params for cost in counts.steps if cost.params) == torch_s.params
    assert counts.macs == torch_s.macs
    shapes = [step.shape for step in plan.steps]
    assert tuple((BATCH * shape.n, shape.c, shape.h, shape.w) for shape in shapes) == torch_s.shapes
    aside = {path for path in torch_s.without_gradient if ".aside." in path}
    assert not torch_s.without_gradient - aside


@every_spec
def test_rows_sum_to_the_total(name: str) -> None:
    plan = plan_of(name)
    counts = count(plan)
    assert list(counts.stages) == list(plan.stages)
    assert sum_costs(counts.stages.values()) == counts.total
    assert sum_costs(counts.steps) == counts.total


@every_spec
def test_every_step_stands_in_one_row_and_a_row_passes_on_a_step_of_its_own_or_of_one_above(name: str) -> None:
    plan = plan_of(name)
    rows = stage_steps(plan)
    assert [index for where in rows.values() for index in where] == list(range(1, len(plan.steps)))
    for row, passed_on in plan.stages.items():
        assert passed_on < rows[row].stop
        assert all(step.path.startswith(f"{row}.") for step in plan.steps[rows[row].start : rows[row].stop])


@every_spec
def test_paths_are_unique_and_make_a_hierarchy_whose_groups_stand_together(name: str) -> None:
    paths = [step.path for step in plan_of(name).steps]
    assert [path for path, times in Counter(paths).items() if times > 1] == []
    groups = [{path[:i] for i, char in enumerate(path) if char == "."} for path in paths]
    assert not set(paths) & set().union(*groups), "a step is no group of steps"
    begun = Counter(group for before, after in pairwise(groups) for group in after - before)
    assert [group for group, times in begun.items() if times > 1] == [], "a group, once left, is not entered again"


@every_spec
def test_steps_read_earlier_steps_and_nothing_is_computed_in_vain(name: str) -> None:
    plan = plan_of(name)
    assert all(source < index for index, step in enumerate(plan.steps) for source in step.inputs)
    needed = set(plan.outputs)
    for index in range(len(plan.steps) - 1, -1, -1):
        if index in needed:
            needed.update(plan.steps[index].inputs)
    idle = [step.path for index, step in enumerate(plan.steps) if index not in needed and ".aside." not in step.path]
    assert idle == []


@every_spec
def test_auxiliary_heads_come_on_top_of_the_model_and_change_nothing_in_it(name: str) -> None:
    spec, plan = spec_of(name), plan_of(name)
    alone = lower(spec)
    assert plan.steps[: len(alone.steps)] == alone.steps
    assert plan.outputs[: len(alone.outputs)] == alone.outputs
    assert len(plan.outputs) == 1 + len(spec.aux)
    assert [row for row in plan.stages if row not in alone.stages] == [f"aux.{row}" for row in spec.aux]


NUMBERED = re.compile(
    r"(?:(?:cifar_|wide_|preact_)*(?:resnet|plain|resnext)|drn_[acd]_|vgg|darknet)(?P<depth>\d+)(?:_.*)?"
)


@pytest.mark.parametrize("name", [name for name in NAMES if NUMBERED.fullmatch(name)])
def test_depth_is_the_number_in_the_name(name: str) -> None:
    match = NUMBERED.fullmatch(name)
    assert match is not None
    assert count(lower(spec_of(name))).depth == int(match["depth"])


@pytest.mark.parametrize(
    ("name", "depth"),
    [
        ("googlenet", 22),  # which its paper says
        ("googlenet_bn", 22),
        *((f"resnet{variant}", depth + 2) for variant, depth in (("50c", 50), ("50d", 50), ("101d", 101))),  # the stem
        *(
            (f"wrn_{depth}_{k}", depth - 2) for depth, k in ((16, 8), (28, 10), (40, 4), (28, "10_dropout"))
        ),  # counts two projections more
    ],
)
def test_depth_is_what_is_known_of_it(name: str, depth: int) -> None:
    assert count(lower(spec_of(name))).depth == depth


@pytest.mark.parametrize("family", ["cifar_resnet", "cifar_plain"])
@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110, 1202])
def test_depth_is_the_number_that_a_cifar_model_is_given(family: str, depth: int) -> None:
    assert count(plan_of_model(family, depth=depth)).depth == depth


ANCHORS = [
    ("resnet18", 11_689_512, 1_814_073_344),
    ("resnet50", 25_557_032, 4_089_184_256),
    ("resnet50_v1", 25_557_032, 3_857_973_248),
    ("resnext50_32x4d", 25_028_904, 4_230_479_872),
    ("resnext50_32x4d_a", 25_028_904, 4_230_479_872),
    ("resnext50_32x4d_b", 25_028_904, 4_230_479_872),
    ("resnext101_64x4d", 83_455_272, 15_460_270_080),
]


@pytest.mark.parametrize(("name", "params", "macs"), ANCHORS)
def test_well_known_models_have_their_well_known_counts(name: str, params: int, macs: int) -> None:
    total = count(lower(spec_of(name))).total
    assert (total.params, total.macs) == (params, macs)


@pytest.mark.parametrize("depth", [50, 101, 152])
def test_a_stride_in_the_3x3_costs_as_much_more_than_in_the_1x1_at_any_depth(depth: int) -> None:
    v1_5, v1 = (count(lower(spec_of(f"resnet{depth}{version}"))).total for version in ("", "_v1"))
    assert v1_5.macs - v1.macs == 231_211_008
    assert v1_5.params == v1.params


@pytest.mark.parametrize("name", ["cifar_resnet1001", "cifar_preact_resnet1001"])
def test_the_parameters_printed_for_a_thousand_layers_leave_bn_out(name: str) -> None:
    """He et al. 2016, arXiv:1603.05027, Table 4: 10.2M."""
    plan = plan_of_model(name)
    costs = zip(plan.steps, count(plan).steps, strict=True)
    assert sum(cost.params for step, cost in costs if not isinstance(step.op, BatchNorm)) == 10_178_490


@pytest.mark.parametrize("depth", [50, 101, 152, 200])
def test_pre_activation_costs_as_many_macs_and_7680_parameters_less(depth: int) -> None:
    """Projections lose their BN, of 256 + 512 + 1024 + 2048 channels; units' own are only moved."""
    original, preact = (count(plan_of_model(f"{form}resnet{depth}")).total for form in ("", "preact_"))
    assert original.macs == preact.macs
    assert original.params - preact.params == 2 * (256 + 512 + 1024 + 2048)


@pytest.mark.parametrize("name", ["cifar_resnet164", "cifar_preact_resnet164", "cifar_resnext29_8x64d"])
@pytest.mark.parametrize("depth", [11, 20, 56])
def test_a_bottleneck_model_of_cifar_has_the_depth_it_is_given(name: str, depth: int) -> None:
    assert count(plan_of_model(name, depth=depth)).depth == depth


@pytest.mark.parametrize("name", [name for name in NAMES if ZOO.family(name) == "resnext" and f"{name}_a" in NAMES])
def test_the_three_forms_of_a_resnext_cost_the_same_in_every_row(name: str) -> None:
    rows = [count(lower(spec_of(form))).stages for form in (name, f"{name}_a", f"{name}_b")]
    c, a, b = ({row: (cost.params, cost.macs) for row, cost in costs.items()} for costs in rows)
    assert a == b == c


@every_spec
def test_a_spec_stands_there_in_canonical_form(name: str) -> None:
    formatter = pytest.importorskip("resnetcli.spec.format")
    source = ZOO.parsed(ZOO.files[name])[0]
    assert formatter.format_text(source) == source.text
