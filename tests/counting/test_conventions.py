"""Conventions by their known figures; `tests/net/test_counters.py` holds each to its tool."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import cast

import pytest

import resnetcli as rc
from resnetcli.counting.conventions import CONVENTIONS, aliases, find_convention, tallies, tally
from resnetcli.counting.tally import defects_shown, formula, step_figures
from resnetcli.errors import UsageError
from resnetcli.ops import KINDS
from resnetcli.plan.lower import lower
from resnetcli.reports.profile import By, parts
from resnetcli.reports.profile_record import profile_record
from resnetcli.reports.profile_table import cost_sheet
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo
from tests.support.thin import thinned
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


@pytest.mark.parametrize("name", thinned(Zoo().files, 4))
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
    assert sum(row["figure"] for row in asked["stages"]) == 4_133_742_592


def test_a_comparison_counts_every_model_the_same_way() -> None:
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
    assert {alias: find_convention(alias).name for alias in aliases()} == {
        "pycls": "ptflops-aten", "mmpretrain": "mmcv", "timm": "fvcore", "deepspeed": "calflops",
    }  # fmt: skip


def test_an_unknown_convention_is_an_error_with_the_list() -> None:
    with pytest.raises(UsageError) as caught:
        rc.profile("resnet50", convention="fvcor")
    assert "did you mean `fvcore`" in caught.value.hint
    assert all(name in caught.value.hint for name in (*CONVENTIONS, *aliases()))


def test_a_pytorch_model_is_counted_only_as_far_as_it_shows() -> None:
    import torch

    assert rc.profile_module(torch.nn.Linear(4, 3), input=(1, 1, 4)).tally.total == 12
    with pytest.raises(UsageError, match="`--convention thop` is not supported for PyTorch models"):
        tally(rc.profile_module(torch.nn.Linear(4, 3), input=(1, 1, 4)).plan, "thop")


def test_a_defect_is_stated_where_it_bites() -> None:
    grouped, plain = plan_of_model("resnext50_32x4d"), plan_of_model("resnet50")
    torch_s = CONVENTIONS["torch"]
    assert len(defects_shown(grouped, torch_s)) == 1
    assert defects_shown(plain, torch_s) == []
    aside = plan_of("input: 3x8x8\ntable: {a: [3x3 4, aside: [3x3 8]], b: [global avg, fc 5]}")
    assert any("`aside`" in text for text in defects_shown(aside, CONVENTIONS["fvcore"]))
    assert not any("`aside`" in text for text in defects_shown(plain, CONVENTIONS["fvcore"]))


TOY = """
import json, sys

from typer.testing import CliRunner

from resnetcli.counting.conventions import complete_convention, register_convention
from resnetcli.counting.tally import Convention

register_convention(Convention("toy", "a toy tool", "eval", "MACs", {"macs": 1, "relu": 7}, aliases=("plaything",)))

from resnetcli.cli.main import app

outputs = {"completion": " ".join(complete_convention("to"))}
for command in json.loads(sys.argv[1]):
    outputs[command] = CliRunner().invoke(app, command.split(), prog_name="resnet-cli").output
print(json.dumps(outputs))
"""


def test_a_registered_convention_is_everywhere() -> None:
    figure = 4_089_184_256 + 7 * 9_608_704
    commands = (
        "profile --help",
        "compare resnet50 --convention toy --sort toy",
        "profile resnet50 --convention plaything --format json",
        f"reconcile resnet50 {figure}",
        "profile resnet50 --convention toi",
    )
    environment = {**os.environ, "COLUMNS": "250", "NO_COLOR": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", TOY, json.dumps(commands)],
        capture_output=True, text=True, check=True, timeout=120, env=environment,
    )  # fmt: skip
    outputs = json.loads(answer.stdout)
    help, table, record, answered, unknown = (outputs[command] for command in commands)
    assert outputs["completion"] == "torchinfo torch toy"
    assert "darknet, toy" in help
    assert f"resnet50: {figure:,} = 4,089,184,256 macs + 7 x 9,608,704 relu" in table
    assert "toy: a toy tool, in evaluation" in table
    assert json.loads(record)["convention"] == {
        "name": "toy", "total": figure, "formula": "macs + 7 relu",
        "parts": {"macs": 4_089_184_256, "relu": 7 * 9_608_704},
    }  # fmt: skip
    assert "explained by toy" in answered
    assert "did you mean `toy`" in unknown
    assert "plaything (toy)" in unknown


PAGE = Path(__file__).parents[2] / "docs" / "why" / "counting.md"


def tables() -> dict[str, str]:
    """The tables of docs/why/counting.md by their heads."""
    conventions = CONVENTIONS.values()
    resnet50 = tallies(plan_of_model("resnet50"))
    modes = {"eval": ", evaluation", "train": ", training", "any": ""}
    return {
        "| convention | tool | formula |\n|:--|:--|:--|\n": "".join(
            f"| `{each.name}` | {each.tool}{modes[each.mode]} | `{each.formula}` |\n" for each in conventions
        ),
        "| kind | what is counted |\n|:--|:--|\n": "".join(f"| `{kind}` | {what} |\n" for kind, what in KINDS.items()),
        "| convention | figure | sum of |\n|:--|--:|:--|\n": "".join(
            f"| `{name}` | {found.total:,} | {found.sum_text} |\n" for name, found in resnet50.items()
        ),
        "| convention | defect |\n|:--|:--|\n": "".join(
            f"| `{each.name}` | {defect.text} |\n" for each in conventions for defect in each.defects
        ),
    }


def test_the_tables_of_the_page_are_those_of_the_conventions(request: pytest.FixtureRequest) -> None:
    text = PAGE.read_text("utf-8")
    for head, rows in tables().items():
        before, found, after = text.partition(head)
        assert found, head
        now = re.match("(?:\\|.*\n)*", after)
        assert now is not None
        if request.config.getoption("--update-golden"):
            text = before + head + rows + after[now.end() :]
        else:
            assert now[0] == rows
    if text != PAGE.read_text("utf-8"):
        PAGE.write_text(text, "utf-8")
