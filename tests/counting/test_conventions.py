"""Conventions by their known figures; `tests/net/test_counters.py` holds each to its tool."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import pytest

import resnetcli as rc
from resnetcli.counting.conventions import (
    ALIASES,
    CONVENTIONS,
    biting,
    find_convention,
    formula,
    step_figures,
    tallies,
    tally,
)
from resnetcli.errors import UsageError
from resnetcli.plan.elements import KINDS
from resnetcli.plan.lower import lower
from resnetcli.reports.profile import By, parts
from resnetcli.reports.profile_record import profile_record
from resnetcli.reports.profile_table import cost_sheet
from resnetcli.reports.reconcile_table import sum_text
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.written import plan_of, plan_of_model

PRINTED = [  # as the tools themselves print them
    ("macs", 4_089_184_256, 4_230_479_872),
    ("flops", 8_178_368_512, 8_460_959_744),
    ("fvcore", 4_111_512_576, 4_259_381_248),
    ("fvcore-train", 4_144_854_528, 4_302_582_784),
    ("thop", 4_133_742_592, 4_288_184_320),
    ("ptflops", 4_132_436_968, 4_286_878_696),
    ("ptflops-aten", 4_089_185_256, 4_230_480_872),
    ("mmcv", 4_121_924_096, 4_273_079_296),
    ("torchinfo", 4_089_238_376, 4_230_549_096),
    ("calflops", 8_211_108_352, 8_503_559_168),
    ("torch", 8_178_368_512, 8_460_959_744),
    ("darknet", 8_178_368_512, 8_460_959_744),
]


@pytest.mark.parametrize(("name", "resnet50", "resnext50"), PRINTED)
def test_resnet_50_and_resnext_50_have_the_figures_that_are_known(name: str, resnet50: int, resnext50: int) -> None:
    assert tally(plan_of_model("resnet50"), name).total == resnet50
    assert tally(plan_of_model("resnext50_32x4d"), name).total == resnext50


def test_every_convention_has_a_known_figure() -> None:
    assert [name for name, _, _ in PRINTED] == list(CONVENTIONS)


def test_darknet_s_own_figures_are_those_of_its_convention() -> None:
    # pjreddie.com/darknet/imagenet: Darknet19 7.29 Bn and Darknet53 18.57 Bn at 256 x 256.
    assert round(tally(plan_of_model("darknet53", 256), "darknet").total / 1e9, 2) == 18.57
    assert round(tally(plan_of_model("darknet19", 256), "darknet").total / 1e9, 2) == 7.29


@pytest.mark.parametrize("name", Zoo().files)
def test_parts_and_rows_and_steps_sum_to_the_total(name: str) -> None:
    spec = read(name, zoo=Zoo())
    for aux in (False, True) if spec.aux else (False,):
        plan = lower(spec, aux=aux)
        for convention, found in tallies(plan).items():
            assert found.total == sum(found.parts.values())
            assert found.total == sum(step_figures(plan, CONVENTIONS[convention]))
            assert found == tally(plan, convention)
            assert all(
                part == found.convention.weights[kind] * found.numbers[kind] for kind, part in found.parts.items()
            )


def test_every_weight_is_of_a_kind_and_every_kind_is_weighed_somewhere() -> None:
    weighed = {kind for convention in CONVENTIONS.values() for kind in convention.weights}
    assert weighed <= KINDS.keys()
    assert KINDS.keys() - weighed == {"adaptive_avg_out"}  # thop has it in `adaptive_avg_work`


@pytest.mark.parametrize("convention", CONVENTIONS)
@pytest.mark.parametrize("by", ["row", "block", "layer"])
def test_a_profile_s_column_is_the_convention_s_and_sums_to_its_total(convention: str, by: str) -> None:
    profile = rc.profile("drn_c_58", convention=convention)
    figures = [part.figure for part in parts(profile, cast(By, by))]
    assert sum(figures) == profile.tally.total
    sheet = cost_sheet(profile, cast(By, by))
    where = next(i for i, column in enumerate(sheet.columns) if column.key == convention.replace("-", "_"))
    assert sheet.total is not None
    assert [row[where].value for row in sheet.rows] == figures
    assert sheet.total[where].value == profile.tally.total


def test_a_record_has_the_convention_whether_one_was_asked_for_or_not() -> None:
    record = profile_record(rc.profile("resnet50"))
    macs = record["macs"]
    assert record["convention"] == {"name": "macs", "total": macs, "formula": "macs", "parts": {"macs": macs}}
    asked = profile_record(rc.profile("resnet50", convention="thop"))
    assert asked["convention"] == {
        "name": "thop",
        "total": 4_133_742_592,
        "formula": "macs + 4 batchnorm + adaptive_avg_work",
        "parts": {"macs": 4_089_184_256, "batchnorm": 4 * 11_113_984, "adaptive_avg_work": 100_352 + 2_048},
    }
    assert asked["macs"] == macs
    assert sum(row["figure"] for row in asked["rows"]) == 4_133_742_592


def test_a_comparison_counts_every_net_the_same_way() -> None:
    found = rc.compare("resnet50", "resnext50_32x4d", convention="fvcore", sort="-fvcore")
    assert [profile.tally.total for profile in found.profiles] == [4_259_381_248, 4_111_512_576]
    assert list(found.to_frame()["fvcore"]) == [4_259_381_248, 4_111_512_576]


def test_a_formula_reads_as_one_writes_it() -> None:
    weights = {"macs": 1, "softmax": 3, "softmax_groups": -1}
    assert formula(weights) == "macs + 3 softmax - softmax_groups"
    assert formula(weights, {"macs": 1000, "softmax": 20, "softmax_groups": 4}) == (
        "1,000 macs + 3 x 20 softmax - 4 softmax_groups"
    )


def test_an_alias_is_the_convention_it_stands_for() -> None:
    assert {alias: find_convention(alias).name for alias in ALIASES} == {
        "pycls": "ptflops-aten", "mmpretrain": "mmcv", "timm": "fvcore", "deepspeed": "calflops",
    }  # fmt: skip


def test_an_unknown_convention_is_an_error_with_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        rc.profile("resnet50", convention="fvcor")
    assert "did you mean `fvcore`" in caught.value.hint
    assert all(name in caught.value.hint for name in (*CONVENTIONS, *ALIASES))


def test_a_pytorch_model_is_counted_only_as_far_as_it_shows() -> None:
    import torch

    assert rc.profile_module(torch.nn.Linear(4, 3), input=(1, 1, 4)).tally.total == 12
    with pytest.raises(UsageError, match="counts more than a PyTorch model shows"):
        tally(rc.profile_module(torch.nn.Linear(4, 3), input=(1, 1, 4)).plan, "thop")


def test_a_defect_is_stated_where_it_bites() -> None:
    grouped, plain = plan_of_model("resnext50_32x4d"), plan_of_model("resnet50")
    torch_s = CONVENTIONS["torch"]
    assert len(biting(grouped, torch_s)) == 1
    assert biting(plain, torch_s) == []
    aside = plan_of("input: 3x8x8\ntable: {a: [3x3 4, aside: [3x3 8]], b: [global avg, fc 5]}")
    assert any("`aside`" in text for text in biting(aside, CONVENTIONS["fvcore"]))
    assert not any("`aside`" in text for text in biting(plain, CONVENTIONS["fvcore"]))


def test_the_page_has_every_formula_kind_defect_and_the_figures_of_resnet_50() -> None:
    text = (Path(__file__).parents[2] / "docs" / "why" / "counting.md").read_text("utf-8")
    lines = {line for line in text.splitlines() if line.startswith("| `")}
    for name, found in tallies(plan_of_model("resnet50")).items():
        convention = CONVENTIONS[name]
        assert any(line.startswith(f"| `{name}` |") and line.endswith(f"| `{convention.formula}` |") for line in lines)
        assert f"| `{name}` | {found.total:,} | {sum_text(found)} |" in lines
        assert {f"| `{name}` | {defect.text} |" for defect in convention.defects} <= lines
    assert {f"| `{kind}` | {what} |" for kind, what in KINDS.items()} <= lines
