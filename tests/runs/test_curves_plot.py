"""The picture of curves: what is on it, that it is a PNG or an SVG, and the same whenever it is drawn."""

from __future__ import annotations

import builtins
import csv
import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from resnetcli.errors import ResourceError, UsageError
from resnetcli.runs.curves import Curve, Drop, Line, distinct_labels, read_curves
from resnetcli.runs.curves_plot import (
    MARKS,
    NAMED,
    downsample,
    draw,
    draw_run,
    encodes_braille,
    error_top,
    marked_iterations,
    notes,
    picture,
    points_sheet,
    sheet,
    text_plot,
)
from resnetcli.table.sheet import to_csv
from tests.support.trained import CONFIG, a_run, falling, point, points, some_seeds

SVG = "{http://www.w3.org/2000/svg}"


def curve(tmp_path: Path, name: str = "run", train: float = 2.0, test: float = 8.0, **changes: Any) -> Curve:
    config = replace(CONFIG, **changes)
    readings = points(config, falling(90, train, 4000), falling(90, test, 4000), every=1000)
    return read_curves([a_run(tmp_path / name, readings, **changes)]).curves[0]


def lines_of(svg: bytes) -> list[list[tuple[float, float]]]:
    """The points of each line between the axes, in the picture's own units; the first model's alone."""
    root = ElementTree.fromstring(svg)
    found = []
    for path in root.iter(f"{SVG}path"):
        if path.get("clip-path") and "stroke: #d62728" in path.get("style", ""):
            found.append([(float(x), float(y)) for x, y in re.findall(r"[ML] (\S+) (\S+)", path.get("d", ""))])
    return found


def test_an_svg_has_both_lines_at_their_values(tmp_path: Path) -> None:
    config = {"iterations": 400, "eval_every": 100}
    readings = [point(at, error / 2, error) for at, error in ((100, 16.0), (200, 12.0), (300, 8.0), (400, 10.0))]
    found = read_curves([a_run(tmp_path / "run", readings, **config)])
    train, test = lines_of(picture(found.curves, "svg"))
    for line, scale in ((train, 0.5), (test, 1.0)):
        x, y = zip(*line, strict=True)
        steps = [b - a for a, b in pairwise(x)]
        assert steps == pytest.approx([steps[0]] * 3)
        unit = (y[2] - y[0]) / (scale * 8)  # of one per cent; down is more
        assert [y[2] - each for each in y] == pytest.approx([unit * scale * error for error in (8, 4, 0, 2)], abs=1e-4)
    assert train[0][1] > test[0][1]


def test_the_thin_line_is_dashed_and_the_bold_one_has_the_same_colour(tmp_path: Path) -> None:
    svg = picture([curve(tmp_path)], "svg").decode()
    styles = re.findall(r'style="(fill: none; [^"]*stroke: #d62728;[^"]*)"', svg)
    drawn = [style for style in styles if "dasharray" in style]
    assert drawn
    assert all("stroke-width: 0.8" in style for style in drawn)
    assert any("stroke-width: 1.9" in style and "dasharray" not in style for style in styles)


def test_several_seeds_have_their_range_and_one_run_has_none(tmp_path: Path) -> None:
    seeds = some_seeds(tmp_path / "seeds", [points(CONFIG, falling(90, low, 4000), falling(90, low + 6, 4000), 1000)
                                            for low in (1.0, 2.0, 4.0)])  # fmt: skip
    (several,) = read_curves([seeds]).curves
    shaded = re.compile(rb'clip-path="[^"]*" style="fill: #d62728; fill-opacity')
    assert len(shaded.findall(picture([several], "svg"))) == 2
    assert not shaded.search(picture([curve(tmp_path)], "svg"))


def test_a_picture_depends_on_the_curves_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib

    found = [curve(tmp_path)]
    before = {kind: picture(found, kind) for kind in ("png", "svg")}
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    with matplotlib.rc_context({"lines.color": "red", "font.size": 30, "axes.grid": True}):
        assert {kind: picture(found, kind) for kind in before} == before
        assert matplotlib.rcParams["font.size"] == 30  # what somebody has set is still set
    assert before["png"].startswith(b"\x89PNG\r\n")
    assert picture([curve(tmp_path, "other", test=9.0)], "svg") != before["svg"]


@pytest.mark.parametrize("title", ["$x^$ _a", "_hidden", r"\frac{", "网络", "%s {} <&>", "a" * 300, "\x1b[31mred"])
def test_a_name_is_drawn_whatever_is_in_it(tmp_path: Path, title: str) -> None:
    root = ElementTree.fromstring(picture([curve(tmp_path, title=title), curve(tmp_path, "b")], "svg"))
    assert root.tag == f"{SVG}svg"


def test_as_many_curves_as_one_likes_are_drawn_and_the_first_are_named(tmp_path: Path) -> None:
    one = curve(tmp_path)
    found = [replace(one, label=f"net {number}") for number in range(NAMED + 6)]
    svg = picture(found, "svg").decode()
    assert "<!-- net 0  8.00% -->" in svg
    assert f"<!-- net {NAMED - 1}  8.00% -->" in svg
    assert f"net {NAMED} " not in svg
    assert "<!-- and 6 more -->" in svg
    assert len(set(re.findall(r"stroke: (#\w+); stroke-width: 1.9", svg))) > NAMED


def test_a_run_in_progress_says_how_far_it_is(tmp_path: Path) -> None:
    readings = points(CONFIG, falling(90, 2, 4000), falling(90, 8, 4000), every=1000, until=21_000)
    (found,) = read_curves([a_run(tmp_path / "run", readings)]).curves
    assert "(21,000 of 64,000)" in picture([found], "svg").decode()
    assert "21,000 of 64,000" in [cell.text for cell in sheet([found]).rows[0]]


@pytest.mark.parametrize("readings", [[point(100, 60.0)], [point(100, 60.0, 55.0)], [point(100, 0.0, 0.0)]])
def test_a_run_that_has_just_begun_is_drawn_too(tmp_path: Path, readings: Sequence[Any]) -> None:
    found = read_curves([a_run(tmp_path / "run", readings)]).curves
    assert picture(found, "png").startswith(b"\x89PNG")
    for ascii_only in (False, True):
        drawn = [text for line in text_plot(found, 80, ascii_only=ascii_only)[1:-3] for text, _ in line[1:]]
        assert any(text.lower() == "a" for text in drawn)


# --- the axis -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("errors", "data", "top"),
    [
        ([8.75, 13.0], "cifar10", 20),
        ([17.9], "cifar100", 20),
        ([0.5], "cifar10", 20),
        ([26.0], "cifar100", 60),
        ([89.0], "cifar10", 100),
        ([2.1], "custom", 5),
        ([8.75], "custom", 20),
        ([0.0], "synthetic", 1),
        ([100.0], "custom", 100),
    ],
)
def test_the_errors_end_at_20_as_in_the_paper_unless_that_shows_too_little(
    tmp_path: Path, errors: list[float], data: str, top: float
) -> None:
    readings = [[point(100, 0.0, error)] for error in errors]
    runs = [a_run(tmp_path / str(number), each, data=data) for number, each in enumerate(readings)]
    assert error_top(read_curves(runs).curves) == top


def test_steps_of_the_rate_are_marked_unless_there_are_too_many(tmp_path: Path) -> None:
    one = curve(tmp_path)
    assert marked_iterations([one, one]) == (32_000, 48_000)
    other = replace(one, drops=tuple(Drop(at, 0.1, 0.01) for at in range(MARKS - 1)))
    assert marked_iterations([other]) == tuple(range(MARKS - 1))
    assert marked_iterations([one, other]) == ()


def test_a_long_line_is_drawn_by_its_extremes() -> None:
    values = [float(index % 7) for index in range(10_000)]
    values[5003], values[7777] = 99.0, -5.0
    kept = downsample(values, 500)
    assert len(kept) <= 502
    assert {0, 5003, 7777, 9999} <= set(kept)
    assert kept == sorted(kept)
    assert downsample(values[:500], 500) == list(range(500))


# --- files --------------------------------------------------------------------------------------------------------


def test_another_kind_of_file_is_refused(tmp_path: Path) -> None:
    found = read_curves([a_run(tmp_path / "run", [point(100, 60.0)])])
    for name in ("curves.pdf", "curves", "curves.png.txt", ".png"):
        with pytest.raises(UsageError, match="neither a PNG nor an SVG"):
            draw(found, tmp_path / name)
    draw(found, tmp_path / "CURVES.SVG")
    assert ElementTree.parse(tmp_path / "CURVES.SVG").getroot().tag == f"{SVG}svg"


def test_a_file_that_cannot_be_written_is_reported_and_leaves_nothing(tmp_path: Path) -> None:
    found = read_curves([a_run(tmp_path / "run", [point(100, 60.0)])])
    with pytest.raises(ResourceError, match="cannot be written"):
        draw(found, tmp_path / "nowhere" / "curves.png")
    assert list(tmp_path.iterdir()) == [tmp_path / "run"]


def test_without_matplotlib_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "run", [point(100, 60.0)])
    usual = builtins.__import__

    def none(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(f"No module named '{name}'")
        return usual(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(ResourceError, match="matplotlib cannot be used"):
        draw_run(run)
    assert text_plot(read_curves([run]).curves, 80, ascii_only=True)  # which needs none


def test_a_backend_that_there_is_not_is_no_traceback(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [point(100, 60.0)])
    command = [sys.executable, "-m", "resnetcli", "curves", str(run), "-o", str(tmp_path / "curves.png")]
    environment = os.environ | {"MPLBACKEND": "nonsense"}
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert result.returncode == 3
    assert "error: matplotlib cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_run_s_own_picture_is_in_its_directory(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", [point(100, 60.0, 60.0)])
    assert draw_run(run) == run / "curves.png"
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="has no reading yet"):
        draw_run(a_run(tmp_path / "none", []))


# --- text ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [1, 40, 80, 200, 10_000])
def test_a_plot_is_as_wide_as_the_terminal_as_far_as_that_is_readable(tmp_path: Path, width: int) -> None:
    drawn = text_plot([curve(tmp_path)], width, ascii_only=False)
    assert max(sum(len(text) for text, _ in line) for line in drawn) == min(max(24, width), 200)


def test_a_plot_has_ascii_where_there_is_no_braille(tmp_path: Path) -> None:
    assert encodes_braille("utf-8")
    assert not any(map(encodes_braille, ("ascii", "latin-1", "cp1252", None, "no such thing")))
    drawn = text_plot([curve(tmp_path)], 80, ascii_only=True)
    assert all(text.isascii() for line in drawn for text, _ in line)


@pytest.mark.parametrize("top", [0, 0.09, -1, 101, float("nan"), float("inf")])
def test_a_plot_of_no_height_is_refused(tmp_path: Path, top: float) -> None:
    found = read_curves([a_run(tmp_path / "run", [point(100, 60.0)])])
    with pytest.raises(UsageError, match="--y-max"):
        text_plot(found.curves, 80, top, ascii_only=True)
    with pytest.raises(UsageError, match="--y-max"):
        draw(found, tmp_path / "curves.png", top)


@pytest.mark.parametrize("top", [0.1, 0.15, 0.7, 12.345, 33, 99.9, 100])
def test_figures_have_room_beside_a_plot_of_any_height(tmp_path: Path, top: float) -> None:
    found = read_curves([a_run(tmp_path / "run", [point(100, 60.0, 60.0), point(200, 0.05, 0.05)])])
    drawn = text_plot(found.curves, 80, top, ascii_only=True)[1:-3]
    assert {len("".join(text for text, _ in line)) for line in drawn} == {80}
    assert {line[0][0][-1] for line in drawn} == {"|"}


def test_the_sheet_has_the_last_errors_whichever_were_the_lowest(tmp_path: Path) -> None:
    runs = [[point(200, 1.0, base - 3), point(400, 2.0, base)] for base in (8.0, 10.0)]
    found = read_curves([some_seeds(tmp_path / "seeds", runs, iterations=400)])
    (row,) = csv.DictReader(io.StringIO(to_csv(sheet(found.curves))))
    assert (row["train_error_percent"], row["test_error_percent"], row["range"]) == ("2.0", "9.0", "8.00 - 10.00")


def test_csv_has_every_point_of_both_lines(tmp_path: Path) -> None:
    label, lines = (
        "a, b",
        (Line((1, 2), (5.0, 4.0), (3.0, 4.0), (7.0, 4.0)), Line((2, 3), (9.0, 8.0), *[(9.0, 8.0)] * 2)),
    )
    one = replace(curve(tmp_path), label=label, train=lines[0], test=lines[1])
    rows = list(csv.DictReader(io.StringIO(to_csv(points_sheet(one)) + to_csv(points_sheet(one), header=False))))
    assert len(rows) == 6
    assert [list(row.values())[4:] for row in rows[:3]] == [
        ["1", "5.0", "3.0", "7.0", "", "", ""],
        ["2", "4.0", "4.0", "4.0", "9.0", "9.0", "9.0"],
        ["3", "", "", "", "8.0", "8.0", "8.0"],
    ]
    assert {row["name"] for row in rows} == {label}
    assert {row["data"] for row in rows} == {"CIFAR-10 (verified)"}


def test_points_above_the_plot_are_counted(tmp_path: Path) -> None:
    one = curve(tmp_path)
    errors = [*one.train.mean, *one.test.mean]
    assert len(notes([one], 100)) == 1
    for top in (5.0, 8.5):
        above = sum(error > top for error in errors)
        assert above
        assert notes([one], top)[1].startswith(f"{above} point")


def test_whatever_is_drawn_says_of_which_data_it_is(tmp_path: Path) -> None:
    one = curve(tmp_path)
    made_up = replace(one, runs=tuple(replace(run, config=replace(run.config, data_text="synthetic, 9 $x$ images"))
                                      for run in one.runs))  # fmt: skip
    assert notes([one, one])[0].startswith("data: CIFAR-10 (verified); errors: latest values")
    assert b"<!-- synthetic, 9 $x$ images -->" in picture([made_up], "svg")
    assert len(notes([one, made_up], 100)) == 1
    both = distinct_labels([one, made_up])
    assert both == ["ResNet-20 (CIFAR), CIFAR-10 (verified)", "ResNet-20 (CIFAR), synthetic, 9 $x$ images"]
    assert b"<!-- CIFAR-10 (verified) -->" not in picture([one, made_up], "svg")
