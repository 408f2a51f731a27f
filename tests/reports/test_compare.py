"""What `compare` leaves out, and how it has models measured; the measuring itself is made up."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import resnetcli as rc
from resnetcli.bench import benchmark as module
from resnetcli.bench.interleaved import Interleaved
from resnetcli.bench.options import BenchmarkOptions
from resnetcli.bench.versus import Ratio
from resnetcli.errors import ResourceError, UsageError
from resnetcli.plan.plan import Plan
from resnetcli.reports.compare import compare, compare_models
from resnetcli.reports.compare_record import compare_record
from resnetcli.reports.compare_table import comparison_sheet, results_lines, timing_lines
from resnetcli.reports.profile import Profile
from resnetcli.table.sheet import to_csv
from tests.support.measured import measured

SECONDS = {"resnet18": 0.030, "resnet34": 0.060, "resnet50": 0.080, "vgg16": 0.150}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], int]]:
    """Who was measured together, at which batch; times are of the table above, a batch of 64 fits no vgg16."""
    made: list[tuple[list[str], int]] = []

    def together(plans: Sequence[Plan], *, batch_size: int, progress: Any, **others: Any) -> Interleaved:
        names = [plan.name for plan in plans]
        made.append((names, batch_size))
        progress(1.0)
        error = ResourceError("`vgg16` with a batch of 64 does not fit", "use a smaller `--batch`")
        fits = [not (name == "vgg16" and batch_size == 64) for name in names]
        times = [batch_size * SECONDS.get(name, 0.01) for name in names]
        ratios = [
            Ratio(t / times[0], (t / times[0] * 0.99, t / times[0] * 1.01), 0.01) if n and fit and fits[0] else None
            for n, (t, fit) in enumerate(zip(times, fits, strict=True))
        ]
        found = [measured(t, batch=batch_size) if fit else error for t, fit in zip(times, fits, strict=True)]
        return Interleaved(tuple(found), tuple(ratios), 0.01 if len(names) > 1 else None, 40, True)

    monkeypatch.setattr("resnetcli.bench.benchmark.measure_interleaved", together)
    return made


def names(profiles: Sequence[Profile]) -> list[str]:
    return [profile.model for profile in profiles]


def test_models_that_cost_too_much_are_left_out_and_reported() -> None:
    found = compare("resnet18", "resnet50", "vgg16", max_params=30_000_000)
    assert names(found.profiles) == ["resnet18", "resnet50"]
    assert found.left_out == ("vgg16",)
    assert "left out: 1 model with more than 30.00M parameters" in results_lines(found)
    both = compare("resnet18", "resnet50", "vgg16", max_params=30_000_000, max_macs=2_000_000_000)
    assert names(both.profiles) == ["resnet18"]
    assert "left out: 2 models with more than 30.00M parameters or more than 2.000G MACs" in results_lines(both)


def test_a_model_that_costs_just_as_much_stays() -> None:
    params = rc.count(rc.load("resnet50")).params
    assert names(compare("resnet50", max_params=params).profiles) == ["resnet50"]
    with pytest.raises(UsageError, match=f"no model within --max-params {params - 1}"):
        compare("resnet50", max_params=params - 1)


def test_what_is_left_out_is_not_measured(calls: list[tuple[list[str], int]]) -> None:
    compare("resnet18", "resnet50", "vgg16", device="cpu", max_params=30_000_000)
    assert calls == [(["resnet18", "resnet50"], 1)]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"sort": "size"}, "cannot sort by `size`"),
        ({"baseline": "vgg19"}, "is not among the models"),
        ({"protocol": "nowhere"}, "no accuracy is published"),
        ({"max_params": 1}, "no model within --max-params 1"),
        ({"batch_size": [1, 0]}, "`--batch-size` must be at least 1"),
    ],
)
def test_a_mistake_is_found_before_anything_is_measured(
    asked: dict[str, Any], message: str, calls: list[tuple[list[str], int]]
) -> None:
    with pytest.raises(UsageError, match=message):
        compare("resnet18", "resnet50", device="cpu", **asked)
    assert calls == []


def test_a_pytorch_model_is_measured_among_others(calls: list[tuple[list[str], int]], tmp_path: Path) -> None:
    net = tmp_path / "net.py"
    net.write_text("from torch import nn\nNet = lambda width=8: nn.Conv2d(3, width, 3)\n")
    found = compare("resnet18", (f"{net}:Net", {"width": 4}), device="cpu")
    assert calls == [(["resnet18", f"{net}:Net"], 1)]
    assert [len(profile.measurements) for profile in found.profiles] == [1, 1]
    assert found.profiles[1].counts.total.params == 4 * 27 + 4


def test_all_models_are_measured_together_once_a_batch(calls: list[tuple[list[str], int]]) -> None:
    told: list[float] = []
    found = compare_models(
        ("resnet18", "resnet50"), benchmark=BenchmarkOptions(device="cpu", batch_sizes=(1, 8)), progress=told.append
    )
    assert calls == [(["resnet18", "resnet50"], 1), (["resnet18", "resnet50"], 8)]
    assert told == [0.5, 1.0]
    assert [[m.batch for m in profile.measurements] for profile in found.profiles] == [[1, 8], [1, 8]]
    assert [timing.against for timing in found.timings] == ["resnet18", "resnet18"]


def test_the_baseline_is_what_the_others_are_timed_against(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", "resnet34", "resnet50", device="cpu", baseline="resnet50")
    assert calls[0][0] == ["resnet50", "resnet18", "resnet34"]
    assert names(found.profiles) == ["resnet18", "resnet34", "resnet50"]
    ratios = [found.ratio(place, 1) for place in range(3)]
    assert [ratio and ratio.ratio for ratio in ratios] == [0.030 / 0.080, 0.060 / 0.080, None]
    assert found.baseline is found.profiles[2]


@pytest.mark.parametrize("column", ["params_ratio", "params change", "-macs_ratio"])
def test_models_are_sorted_by_a_change_relative_to_the_baseline(column: str) -> None:
    found = compare("resnet50", "resnet18", "resnet34", baseline="resnet34", sort=column)
    names = ["resnet18", "resnet34", "resnet50"]
    assert [profile.model for profile in found.profiles] == (names[::-1] if column[0] == "-" else names)
    assert list(found.to_frame()["params_ratio"])[1] == 1


def test_sorting_takes_the_ratios_along(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", "vgg16", "resnet34", device="cpu", sort="-median_s")
    assert names(found.profiles) == ["vgg16", "resnet34", "resnet18"]
    ratios = [found.ratio(place, 1) for place in range(3)]
    assert [ratio and round(ratio.ratio, 6) for ratio in ratios] == [5.0, 2.0, None]


def test_a_model_can_be_compared_with_itself(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", "resnet18", device="cpu")
    assert [found.ratio(place, 1) is None for place in range(2)] == [True, False]


def test_many_models_are_measured_in_groups_that_each_have_the_baseline(
    calls: list[tuple[list[str], int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "GROUP", 2)
    found = compare("resnet18", "resnet34", "resnet50", "vgg16", device="cpu", baseline="resnet34")
    assert [group for group, _ in calls] == [["resnet34", "resnet18", "resnet50"], ["resnet34", "vgg16"]]
    assert [len(profile.measurements) for profile in found.profiles] == [1, 1, 1, 1]
    assert [found.ratio(place, 1) is None for place in range(4)] == [False, True, False, False]


def test_what_does_not_fit_at_one_batch_is_a_line_and_the_rest_appears(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", "vgg16", device="cpu", batch_size=(1, 64))
    problem = "`vgg16` with a batch of 64 does not fit; use a smaller `--batch`"
    assert [failure.problem for failure in found.profiles[1].failures] == [problem]
    record = compare_record(found)
    assert record["models"][1]["failures"] == [{"device": "cpu", "batch": 64, "problem": problem}]
    lines = to_csv(comparison_sheet(found)).splitlines()
    assert len(lines) == 4  # three were measured
    assert {"median_s", "half_interval", "iqr_s", "min_s", "p90_s", "p99_s", "n"} <= set(lines[0].split(","))
    with pytest.raises(ResourceError, match="does not fit"):
        compare("vgg16", device="cpu", batch_size=64)


def test_the_table_has_a_line_for_each_batch_and_the_verdict_in_words(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", "resnet34", device="cpu", batch_size=(1, 8))
    sheet = comparison_sheet(found)
    place = [column.key for column in sheet.columns].index("verdict")
    assert sheet.columns[place].head == "against resnet18"
    assert [row[place].text for row in sheet.rows] == ["", "", "2.00x slower [1.98, 2.02]", "2.00x slower [1.98, 2.02]"]
    assert timing_lines(found)[0] == "interleaved at batch 1, 40 rounds; noise floor (A/A test) 1.0%"


def test_one_model_has_nothing_to_be_compared_with(calls: list[tuple[list[str], int]]) -> None:
    found = compare("resnet18", device="cpu")
    assert timing_lines(found) == []
    assert not next(c for c in comparison_sheet(found).columns if c.key == "verdict").shown
    assert [p.label for p in found.profiles] == ["resnet18"]
