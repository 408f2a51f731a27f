"""Readings: as they were written, never doubled, no more of them than are read, and nothing that no run writes."""

from __future__ import annotations

import csv
import json
from dataclasses import asdict
from pathlib import Path

import pytest

from resnetcli.errors import UsageError
from resnetcli.runs.metrics import COLUMNS, MAX_LINE, MAX_POINTS, Metrics, Point, intervals, read_metrics
from tests.support.tiny import config, point


def test_points_are_read_as_they_were_written(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    points = [point(10), point(20, 3.5), point(30)]
    for each in points:
        metrics.append(each)
    assert read_metrics(tmp_path) == points
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert [row["iteration"] for row in rows] == ["10", "20", "30"]
    assert [row["test_error_percent"] for row in rows] == ["", "3.5", ""]
    assert [{k: None if v == "" else float(v) for k, v in row.items()} for row in rows] == [asdict(p) for p in points]


def test_points_after_the_checkpoint_are_cut_off_at_a_resume(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for iteration in (10, 20, 30):
        metrics.append(point(iteration))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 40, "ep')  # the process was killed there
    again = Metrics(tmp_path, 20)
    again.append(point(30, 1.0))
    assert read_metrics(tmp_path) == [point(10), point(20), point(30, 1.0)]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 4


def test_what_a_power_cut_leaves_behind_the_checkpoint_keeps_nobody_from_going_on(tmp_path: Path) -> None:
    metrics = Metrics(tmp_path, 0)
    for iteration in (10, 20):
        metrics.append(point(iteration))
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(bytes(100) + b"\n" + bytes(100))
    with pytest.raises(UsageError, match="line 3"):
        read_metrics(tmp_path)
    Metrics(tmp_path, 20).append(point(30))
    assert read_metrics(tmp_path) == [point(10), point(20), point(30)]
    (tmp_path / "metrics.jsonl").write_bytes(b"junk\n")
    Metrics(tmp_path, 0)
    assert read_metrics(tmp_path) == []


def test_what_a_full_disk_refused_is_written_later_and_half_a_line_taken_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    metrics = Metrics(tmp_path, 0)
    metrics.append(point(10))
    opened = Path.open

    class Half:
        def __init__(self, file: object) -> None:
            self.file = file

        def __enter__(self) -> Half:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self.file, name)

        def write(self, data: bytes) -> None:
            self.file.write(data[: len(data) // 2])  # type: ignore[attr-defined]
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", lambda self, *args, **kwargs: Half(opened(self, *args, **kwargs)))
        for iteration in (20, 30):
            with pytest.raises(OSError, match="No space left"):
                metrics.append(point(iteration))
    metrics.append(point(40))
    assert read_metrics(tmp_path) == [point(10), point(20), point(30), point(40)]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    "line",
    ["{}", "[]", "x", '"' * 5000, "[" * 4000, json.dumps({**asdict(point(1)), "lr": "0.1"}),
     json.dumps({**asdict(point(1)), "iteration": 1.5}), json.dumps({**asdict(point(1)), "lr": float("nan")}),
     json.dumps({**asdict(point(1)), "train_loss": None}), json.dumps({**asdict(point(1)), "more": 1}),
     json.dumps({**asdict(point(1)), "epoch": 10**400}), json.dumps({**asdict(point(1)), "test_error_percent": 101}),
     json.dumps(asdict(point(0)))],
)  # fmt: skip
def test_another_line_is_no_point(tmp_path: Path, line: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line + "\n")
    with pytest.raises(UsageError, match="line 1: not a reading of a run"):
        read_metrics(tmp_path)


def test_points_out_of_order_are_refused(tmp_path: Path) -> None:
    lines = [json.dumps(asdict(point(iteration))) for iteration in (10, 10)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(UsageError, match="line 2"):
        read_metrics(tmp_path)


# --- how many ------------------------------------------------------------------------------------------------------


def points_of(iterations: int, every: tuple[int, ...]) -> int:
    """Counted one by one."""
    return len({at for each in every for at in range(each, iterations + 1, each)})


@pytest.mark.parametrize(
    ("iterations", "tests", "checkpoints", "expected"),
    [
        (64_000, 1000, 1000, 100),
        (64_000, 1, 1, 100),
        (131_072, 1, 7, 100),
        (13_107_200, 1000, 1000, 100),
        (13_107_300, 1000, 1000, 1000),
        (20_000_000, 5000, 7000, 1000),
        (100_000_000, 1000, 1000, 1000),
        (100_000_000, 1501, 1700, 100_000),
    ],
)
def test_a_very_long_run_is_read_less_often(iterations: int, tests: int, checkpoints: int, expected: int) -> None:
    every = intervals(config(iterations=iterations, eval_every=tests, checkpoint_every=checkpoints))
    assert every == (expected, tests, checkpoints)
    assert points_of(iterations, every) <= MAX_POINTS
    if expected > 100:
        assert points_of(iterations, (expected // 10, tests, checkpoints)) > MAX_POINTS


@pytest.mark.parametrize(("tests", "checkpoints"), [(7, 1000), (1000, 7), (13, 14)])
def test_more_tests_and_checkpoints_than_readings_are_kept_are_refused(tests: int, checkpoints: int) -> None:
    with pytest.raises(UsageError, match="at more than 131,072 of 1,000,000 iterations") as caught:
        intervals(config(iterations=1_000_000, eval_every=tests, checkpoint_every=checkpoints))
    assert "of 16 or more" in caught.value.hint
    assert intervals(config(iterations=1_000_000, eval_every=16, checkpoint_every=16))


@pytest.mark.slow
def test_as_many_readings_as_there_can_be_are_read_however_long_their_numbers_are(tmp_path: Path) -> None:
    longest = Point(10**9, *[2.2250738585072014e-308] * (len(COLUMNS) - 1))
    Metrics(tmp_path, 0).append(longest)
    assert read_metrics(tmp_path) == [longest]
    assert (tmp_path / "metrics.jsonl").stat().st_size <= MAX_LINE
    line = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("wb") as file:
        for iteration in range(1, MAX_POINTS + 1):
            file.write(line.replace(b"1000000000", b"%d" % (10**8 + iteration)))
    assert len(read_metrics(tmp_path)) == MAX_POINTS
