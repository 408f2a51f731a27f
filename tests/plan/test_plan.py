"""A step knows its place in the table by fields; its path is only their text."""

from __future__ import annotations

import resnetcli as rc
from resnetcli.plan.plan import Plan, Role
from tests.support.written import plan_of, row


def paths(plan: Plan, role: Role) -> list[str]:
    return [step.path for step in plan.steps if step.where.inside(role)]


def test_a_step_knows_its_stage_item_copy_layer_and_block() -> None:
    where = next(step.where for step in rc.load("resnet50").steps if step.path == "conv3_x.0.2.F.1.conv")
    assert (where.stage, where.item, where.copy, where.name) == ("conv3_x", 0, 2, "conv")
    assert (where.layer, where.block) == ("conv3_x.0.2.F.1", "conv3_x.0.2")


def test_a_step_knows_which_part_of_a_block_it_is_in() -> None:
    plan = row("[residual: [3x3 16, aside: [1x1 4]]]")
    assert {path.partition(".F.")[0] for path in paths(plan, "F")} == {"r.0.0"}
    assert paths(plan, "shortcut") == ["r.0.0.shortcut.0.conv", "r.0.0.shortcut.0.bn"]
    assert paths(plan, "aside") == [path for path in paths(plan, "F") if ".aside." in path]
    assert paths(plan, "end") == ["r.0.0.add", "r.0.0.relu"]


def test_a_stage_named_as_a_part_of_a_block_is_not_one() -> None:
    plan = plan_of("input: 8x8x8\ntable:\n  shortcut: [3x3 8]\n  F: [fc 10]\n")
    assert plan.steps[-1].path == "F.0.fc"
    assert not any(paths(plan, role) for role in ("F", "shortcut"))
