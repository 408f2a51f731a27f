"""Counts worked out by hand."""

from __future__ import annotations

import pytest

from resnetcli.ops import Shape
from resnetcli.plan.count import Cost, Counts, count, stage_steps, sum_costs
from tests.support.written import plan_of, row

# Over images of 8 x 8 x 8: parameters, MACs, activations.
LAYERS: list[tuple[str, tuple[int, int, int]]] = [
    ("3x3 16 bare", (9 * 8 * 16, 9 * 8 * 16 * 64, 16 * 64)),
    ("3x3 16 linear", (9 * 8 * 16 + 16, 9 * 8 * 16 * 64, 16 * 64)),  # a bias has parameters and no MACs
    ("3x3 16 /2 bare", (9 * 8 * 16, 9 * 8 * 16 * 16, 16 * 16)),
    ("3x3 16 C=4 bare", (9 * 2 * 16, 9 * 2 * 16 * 64, 16 * 64)),
    ("3x3 dw bare", (9 * 8, 9 * 8 * 64, 8 * 64)),
    ("3x3 24 dw bare", (9 * 24, 9 * 24 * 64, 24 * 64)),
    ("1x7 16 bare", (7 * 8 * 16, 7 * 8 * 16 * 64, 16 * 64)),
    ("5x5 16 V bare", (25 * 8 * 16, 25 * 8 * 16 * 16, 16 * 16)),
    ("3x3 16 dil=2 bare", (9 * 8 * 16, 9 * 8 * 16 * 64, 16 * 64)),
    ("3x3 16", (9 * 8 * 16 + 2 * 16, 9 * 8 * 16 * 64, 16 * 64)),  # bn: gamma and beta, nothing else
    ("fc 10", (8 * 64 * 10 + 10, 8 * 64 * 10, 10)),
    ("bn", (16, 0, 0)),
    ("prelu", (8, 0, 0)),
    ("[relu, leaky(0.1), dropout 0.5, softmax, lrn 5 0.0001 0.75 2]", (0, 0, 0)),
    ("[3x3 max, 3x3 avg, avg to 4x4, global max]", (0, 0, 0)),
    ("[spp 2 1, fc 3]", (8 * 5 * 3 + 3, 8 * 5 * 3, 3)),
    ("concat of 3: [1x1 2 bare]", (3 * 16, 3 * 16 * 64, 3 * 2 * 64)),
    ("sum of 3: [1x1 2 bare]", (3 * 16, 3 * 16 * 64, 3 * 2 * 64)),
    ("residual: [3x3 8 bare]", (9 * 64, 9 * 64 * 64, 8 * 64)),
    ("residual: [3x3 16 /2 bare]", (9 * 128 + 128 + 32, 9 * 128 * 16 + 128 * 16, 2 * 16 * 16)),
    ("seq x 3: [1x1 8 bare]", (3 * 64, 3 * 64 * 64, 3 * 8 * 64)),
    ("[aside: [fc 10], 1x1 2 bare]", (8 * 64 * 10 + 10 + 16, 8 * 64 * 10 + 16 * 64, 10 + 2 * 64)),
    ("[roi 2x2 of 5, 3x3 16]", (9 * 8 * 16 + 32, 9 * 8 * 16 * 4 * 5, 16 * 4 * 5)),
    ("[roi 2x2 of 5, fc 3]", (8 * 4 * 3 + 3, 8 * 4 * 3 * 5, 3 * 5)),
]


@pytest.mark.parametrize(("items", "wanted"), LAYERS, ids=[items for items, _ in LAYERS])
def test_a_layer_costs_what_its_formula_says(items: str, wanted: tuple[int, int, int]) -> None:
    assert count(row(items)).total == Cost(*wanted)


SMALL = """
    input: 3x8x8
    classes: 5
    shortcut: project
    aux: {conv2_x: fc classes}
    table:
      conv1:   3x3 4
      conv2_x: [3x3 max /2, residual x 2: [1x1 2, 3x3 2, 1x1 8]]
      head:    [global avg, fc classes]
"""


@pytest.fixture
def small() -> Counts:
    return count(plan_of(SMALL))


def test_a_small_model_is_counted_by_row(small: Counts) -> None:
    assert small.stages == {
        "conv1": Cost(27 * 4 + 8, 27 * 4 * 64, 4 * 64),
        "conv2_x": Cost(
            (4 * 2 + 4) + (9 * 4 + 4) + (2 * 8 + 16) + (4 * 8 + 16)  # the projection is the last
            + (8 * 2 + 4) + (9 * 4 + 4) + (2 * 8 + 16),
            (4 * 2 + 9 * 4 + 2 * 8 + 4 * 8 + 8 * 2 + 9 * 4 + 2 * 8) * 16,
            (2 + 2 + 8 + 8 + 2 + 2 + 8) * 16,
        ),
        "head": Cost(8 * 5 + 5, 8 * 5, 5),
    }  # fmt: skip


def test_a_small_model_is_counted_in_total(small: Counts) -> None:
    assert small.total == sum_costs(small.stages.values()) == sum_costs(small.steps)
    assert (small.params, small.macs, small.activations) == (
        116 + 224 + 45, 6912 + 2560 + 40, 256 + 512 + 5
    )  # fmt: skip
    assert small.flops == small.total.flops == 2 * small.macs
    assert small.weight_bytes == 4 * 385
    assert small.activation_bytes == 4 * 773
    assert [small.total.figure(name) for name in ("params", "macs", "flops", "activations")] == [385, 9512, 19024, 773]


def test_auxiliary_heads_count_only_where_they_are_asked_for(small: Counts) -> None:
    with_heads = count(plan_of(SMALL, aux=True))
    assert with_heads.stages == {**small.stages, "aux.conv2_x": Cost(8 * 16 * 5 + 5, 8 * 16 * 5, 5)}
    assert with_heads.total == sum_costs([small.total, with_heads.stages["aux.conv2_x"]])
    assert with_heads.depth == small.depth


def test_a_row_s_steps_stand_together() -> None:
    plan = plan_of("{input: 3x8x8, table: {a: [3x3 4, 3x3 4], ab: {aside: fc 5}, b: relu}}")
    assert stage_steps(plan) == {"a": range(1, 7), "ab": range(7, 8), "b": range(8, 9)}


@pytest.mark.parametrize(
    ("items", "depth"),
    [
        ("relu", 0),
        ("[3x3, bn, 3x3 max, fc 5]", 2),
        ("residual x 3: [1x1, 3x3, 1x1]", 9),
        ("residual: [3x3 16]", 1),  # of two paths the longer, the projection is on the other
        ("residual: [3x3 max, 3x3 max /2]", 1),  # here the projection is the only weight
        ("concat: [1x1 4, [1x1 4, 3x3 4, 3x3 4], [3x3 max, 1x1 4]]", 3),
        ("sum of 4: [1x1, 3x3]", 2),
        ("[3x3, aside: [3x3, 3x3, fc 9]]", 1),
        ("[aside: [3x3, 3x3, fc 9], 3x3]", 1),
    ],
)
def test_depth_is_the_longest_weighted_path_to_the_output(items: str, depth: int) -> None:
    assert count(row(items)).depth == depth


def test_counts_are_exact_however_large() -> None:
    """Far beyond what a double holds exactly."""
    plan = row("[1x1 1048575 bare, 1x1 1048573 bare]", input="3x1023x1021")
    counts = count(plan)
    assert plan.steps[-1].shape == Shape(1_048_573, 1023, 1021)
    assert counts.params == 3 * 1_048_575 + 1_048_575 * 1_048_573
    assert counts.macs == counts.params * 1023 * 1021
