"""Elements by kind, against numbers worked out by hand."""

from __future__ import annotations

import pytest

from resnetcli.ops import (
    KINDS,
    BatchNorm,
    Conv,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Op,
    PadChannels,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Scale,
    Softmax,
)
from resnetcli.plan.count import count
from resnetcli.plan.elements import elements, kept_by_trace, sum_elements
from resnetcli.spec.zoo import Zoo
from tests.support.sketch import Sketch
from tests.support.written import plan_of, plan_of_model

# On maps of 6 x 8 x 8, 384 elements.
STEPS: list[tuple[Op, dict[str, int]]] = [
    (Conv(10, (3, 3), pad=(1, 1)), {"macs": 9 * 6 * 10 * 64}),
    (Conv(12, (1, 1), 2, groups=3, bias=True), {"macs": 2 * 12 * 16, "conv_bias": 12 * 16}),
    (Linear(5), {"macs": 384 * 5, "fc_bias": 5}),
    (Linear(5, bias=False), {"macs": 384 * 5}),
    (BatchNorm(), {"batchnorm": 384, "batchnorm_params": 12}),
    (ReLU(), {"relu": 384}),
    (LeakyReLU(0.1), {"leaky_relu": 384}),
    (PReLU(), {"prelu": 384, "prelu_params": 6}),
    (Pool("max", (2, 2), 2), {"pool_in": 384}),
    (Pool("avg", (2, 2), 2), {"pool_in": 384, "avg_pool_out": 6 * 16}),
    (Pool("avg", (3, 3), 2, (1, 1), count_pad=True), {"pool_in": 384, "avg_pool_out": 6 * 16}),
    (PoolTo("max", (1, 1)), {"adaptive_max_in": 384}),
    (PoolTo("avg", (1, 1)), {"adaptive_avg_in": 384, "adaptive_avg_out": 6, "adaptive_avg_work": 390}),
    (PoolTo("avg", (4, 4)), {"adaptive_avg_in": 384, "adaptive_avg_out": 96, "adaptive_avg_work": 480}),
    (PyramidPool((4, 2, 1)), {"pyramid_in": 3 * 384}),
    (LocalResponseNorm(5, 1e-4, 0.75, 2.0), {"lrn": 384, "lrn_padded": (6 + 4) * 64}),
    (LocalResponseNorm(2, 1e-4, 0.75, 2.0), {"lrn": 384, "lrn_padded": (6 + 1) * 64}),
    (Softmax(), {"softmax": 384, "softmax_groups": 64}),
    (RegionPool((2, 3), 7), {"roi": 7 * 6 * 6}),
    (Dropout(0.5), {}),
    (Scale(0.1), {}),
    (PadChannels(12, 2), {}),
]


@pytest.mark.parametrize(("op", "expected"), STEPS, ids=lambda value: str(value) if not isinstance(value, dict) else "")
def test_a_step_has_the_elements_one_counts_by_hand(op: Op, expected: dict[str, int]) -> None:
    sketch = Sketch(6, 8, 8)
    sketch.step("it", op)
    assert elements(sketch.plan())[1] == expected


def test_after_regions_everything_is_counted_once_a_region() -> None:
    plan = plan_of("""
        input: 4x8x8
        conv: conv bn prelu
        table: {head: [roi 2x2 of 7, 1x1 3, global avg, fc 5]}
    """)
    assert sum_elements(elements(plan)) == {
        "macs": 7 * (4 * 3 * 4 + 3 * 5),
        "fc_bias": 7 * 5,
        "batchnorm": 7 * 3 * 4,
        "batchnorm_params": 7 * 6,
        "prelu": 7 * 3 * 4,
        "prelu_params": 7 * 3,
        "adaptive_avg_in": 7 * 12,
        "adaptive_avg_out": 7 * 3,
        "adaptive_avg_work": 7 * 15,
        "roi": 7 * 4 * 4,
    }


def test_average_pooling_to_a_size_that_does_not_divide_comes_out_as_floating_point_has_it() -> None:
    sketch = Sketch(3, 1, 1)
    sketch.step("it", PoolTo("avg", (6, 6)))
    found = elements(sketch.plan())[1]
    assert found["adaptive_avg_in"] + found["adaptive_avg_out"] == 3 + 108
    assert found["adaptive_avg_work"] == 110  # (1/6 * 1/6 + 1) * 108 is 110.99999999999999


def test_elements_are_summed_in_one_order() -> None:
    assert list(sum_elements(elements(plan_of_model("googlenet")))) == sorted(
        sum_elements(elements(plan_of_model("googlenet"))), key=list(KINDS).index
    )


def test_a_trace_drops_an_aside_in_evaluation_and_what_follows_its_last_batchnorm_in_training() -> None:
    plan = plan_of("""
        input: 3x8x8
        conv: conv bn relu
        table: {a: [3x3 4, aside: [3x3 8, 1x1 2 linear]], b: [global avg, fc 5]}
    """)
    kept = {training: kept_by_trace(plan, training=training) for training in (False, True)}
    dropped = {t: [s.path for s, k in zip(plan.steps, flags, strict=True) if not k] for t, flags in kept.items()}
    assert dropped[False] == [step.path for step in plan.steps if ".aside." in step.path]
    assert [path.rpartition(".")[2] for path in dropped[True]] == ["relu", "conv"]


@pytest.mark.parametrize("name", Zoo().files)
def test_macs_are_those_that_are_counted_and_parameters_of_batchnorm_too(name: str) -> None:
    plan = plan_of_model(name)
    counts, found = count(plan), elements(plan)
    assert [each.get("macs", 0) for each in found] == [cost.macs for cost in counts.steps]
    for step, each, cost in zip(plan.steps, found, counts.steps, strict=True):
        if isinstance(step.op, BatchNorm):
            assert each["batchnorm_params"] == cost.params * step.shape.n
