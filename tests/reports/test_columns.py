"""A column is one definition: a new one is in every table, format, data frame and `--sort`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
from typer.testing import CliRunner

from resnetcli.bench.latency import Measurement
from resnetcli.bench.search import FP32, SettingsSearch, checked
from resnetcli.cli.main import app
from resnetcli.reports import comparison as columns
from resnetcli.reports.compare import compare
from resnetcli.reports.compare_record import compare_record
from resnetcli.reports.compare_table import comparison_sheet
from resnetcli.reports.counted import COUNTS, PART_COUNTS
from resnetcli.reports.measured import MEASURED as COLUMNS
from resnetcli.reports.measured import measured_sheet
from resnetcli.reports.search_table import search_sheet
from resnetcli.table.fields import Field
from resnetcli.table.sheet import to_csv, to_markdown
from tests.support.measured import MEASURED


def run(command: str) -> str:
    result = CliRunner().invoke(app, command.split())
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def toy() -> Iterator[None]:
    COUNTS.append(Field("toy", "TOY", lambda profile: -profile.counts.params, "{:,}".format, help="minus the params"))
    PART_COUNTS.append(Field("toy", "TOY", lambda part: -part.cost.params, "{:,}".format))
    yield
    COUNTS.pop()
    PART_COUNTS.pop()


@pytest.mark.usefixtures("toy")
def test_a_column_of_counts_is_one_definition() -> None:
    params = 11_689_512
    for command in ("compare resnet18", "profile resnet18"):
        table = run(command)
        assert "TOY" in table
        assert f"-{params:,}" in table
        assert "TOY" in run(f"{command} --format md")
        lines = [line.split(",") for line in run(f"{command} --format csv").splitlines()]
        assert lines[-1][lines[0].index("toy")] == str(-params)
    (profile,) = json.loads(run("compare resnet18 --format json"))["models"]
    assert profile["toy"] == -params
    assert sum(stage["toy"] for stage in profile["stages"]) == -params
    sorted_by = run("compare resnet18 resnet50 vgg16 --sort TOY --format csv").splitlines()
    assert [line.partition(",")[0] for line in sorted_by[1:]] == ["vgg16", "resnet50", "resnet18"]
    frame = compare("resnet18", "resnet50", sort="-toy").to_frame()
    assert list(frame["toy"]) == [-params, -25_557_032]


@dataclass(frozen=True, slots=True)
class Watched(Measurement):
    """A measurement with one figure more."""

    page_faults: int = 0


def watched(page_faults: int, **changes: Any) -> Watched:
    values = {field.name: getattr(MEASURED, field.name) for field in fields(Measurement)} | changes
    return Watched(**values, page_faults=page_faults)


def test_a_measured_figure_is_a_field_and_its_column() -> None:
    COLUMNS.append(Field("page_faults", "faults", text="{:,}".format, help="page faults of a call"))
    try:
        m = watched(4321)
        found = compare("resnet18")
        found = replace(found, profiles=(replace(found.profiles[0], measurements=(m,)),))
        search = SettingsSearch(2, (checked(FP32, m),))
        for sheet in (comparison_sheet(found), measured_sheet([m]), search_sheet([search])):
            assert "4,321" in to_markdown(sheet)
            assert "faults" in to_markdown(sheet)
            head, line = to_csv(sheet).splitlines()
            assert line.split(",")[head.split(",").index("page_faults")] == "4321"
        assert compare_record(found)["models"][0]["measurements"][0]["page_faults"] == 4321
        assert found.to_frame().loc["resnet18", "page_faults"] == 4321
        assert "page_faults" in {each.key for each in columns.timing_fields(found)}
        result = CliRunner().invoke(app, ["compare", "--sort", "faults"])
        assert "`page_faults` is measured only with `--device`" in result.output
    finally:
        COLUMNS.pop()


def test_a_model_of_tokens_is_measured_in_inputs_a_second() -> None:
    heads = {column.key: column.head for column in measured_sheet([MEASURED], "input").columns}
    assert heads["throughput_img_s"] == "inputs/s"
    assert heads["joules_per_image"] == "J/input"
    assert "images/s" in {column.head for column in measured_sheet([MEASURED]).columns}
