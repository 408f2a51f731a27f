"""A plot of characters: every point is where it belongs, and the lines are told apart without any colour."""

from __future__ import annotations

import pytest

from resnetcli.table.plot import LABEL, Axes, Stroke, letter, plot, spans, style, ticks

WIDTH, HEIGHT = 66, 20
AXES = Axes(600, 20)


def drawn(*strokes: Stroke, axes: Axes = AXES, ascii_only: bool = False, width: int = WIDTH) -> list[str]:
    lines = plot(strokes, axes, width=width, height=HEIGHT, ascii_only=ascii_only)
    return ["".join(text for text, _ in line) for line in lines]


def canvas(lines: list[str]) -> list[str]:
    """What is between the axes."""
    return [line[LABEL + 1 :] for line in lines[:HEIGHT]]


def rows_with(lines: list[str], column: int) -> set[int]:
    return {row for row, line in enumerate(canvas(lines)) if line[column] != " "}


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize(("y", "row"), [(0, 19), (0.9, 19), (1.1, 18), (10.5, 9), (19.9, 0), (20, 0)])
def test_a_level_line_is_in_the_row_of_its_value(y: float, row: int, ascii_only: bool) -> None:
    lines = drawn(Stroke((0, 600), (y, y), 0, True), ascii_only=ascii_only)
    assert all(rows_with(lines, column) == {row} for column in range(60))


def test_a_line_has_no_gap_however_steep_it_is() -> None:
    lines = canvas(drawn(Stroke((0, 300, 310, 600), (19, 19, 1, 1), 0, True), ascii_only=True))
    assert {row for row, line in enumerate(lines) if "A" in line} == set(range(19))
    assert all("A" in column for column in zip(*lines, strict=True))


def test_the_lowest_and_the_highest_point_of_a_column_are_drawn() -> None:
    xs = range(601)
    ys = [5.0] * 601
    ys[300], ys[304] = 15.5, 1.5
    lines = drawn(Stroke(xs, ys, 0, True), ascii_only=True)
    assert {4, 18} <= rows_with(lines, 30)
    assert rows_with(lines, 28) == {14}


def test_what_is_above_the_plot_is_not_drawn() -> None:
    lines = canvas(drawn(Stroke((0, 300, 600), (90, 90, 5), 0, True)))
    assert not any(line[:30].strip() for line in lines)
    assert any(line[55:].strip() for line in lines)


def test_spans_are_what_a_line_covers_of_each_column() -> None:
    assert spans((0, 4), (0, 8), 4, 4) == [(0, 2), (2, 4), (4, 6), (6, 8)]
    assert spans((1, 2), (5, 5), 4, 4) == [None, (5, 5), (5, 5), None]
    assert spans((2.5,), (7,), 4, 4) == [None, None, (7, 7), None]
    assert spans((), (), 4, 2) == [None, None]


def test_each_line_has_its_letter_on_it_small_where_it_is_dotted() -> None:
    levels = {"A": 18.5, "a": 12.5, "B": 8.5, "b": 2.5}
    strokes = [Stroke((0, 600), (y, y), "AB".index(sign.upper()), sign.isupper()) for sign, y in levels.items()]
    for ascii_only in (False, True):
        lines = canvas(drawn(*strokes, ascii_only=ascii_only))
        for sign, y in levels.items():
            assert {row for row, line in enumerate(lines) if sign in line} == {HEIGHT - 1 - int(y)}


def test_a_dotted_line_has_gaps_and_is_below_a_solid_one() -> None:
    solid, dotted = Stroke((0, 600), (5, 5), 0, True), Stroke((0, 600), (5, 5), 1, False)
    alone = canvas(drawn(dotted, ascii_only=True))[14]
    assert alone == "b " * 30
    assert canvas(drawn(solid, dotted, ascii_only=True))[14] == "A" * 60


def test_a_single_point_is_seen() -> None:
    for x in (0, 290, 300, 310, 600):
        for solid in (True, False):
            for ascii_only in (True, False):
                assert any(line.strip() for line in canvas(drawn(Stroke((x,), (5,), 0, solid), ascii_only=ascii_only)))


def test_only_as_many_curves_as_there_are_letters_have_one() -> None:
    assert (letter(0), letter(25), letter(26)) == ("A", "Z", "")
    assert style(0) != style(1)
    lines = canvas(drawn(Stroke((0, 600), (5, 5), 26, True), ascii_only=True))
    assert lines[14] == "*" * 60


def test_a_mark_is_a_dotted_vertical_behind_the_lines() -> None:
    lines = canvas(drawn(Stroke((0, 600), (5, 5), 0, True), axes=Axes(600, 20, (300,)), ascii_only=True))
    assert [line[30] for line in lines] == [":"] * 14 + ["A"] + [":"] * 5


def test_the_axes_have_round_figures_at_their_places() -> None:
    *_, base, figures = lines = drawn(Stroke((0, 600), (5, 5), 0, True))
    assert [line[:LABEL].strip() for line in lines[:HEIGHT] if line[:LABEL].strip()] == ["20", "15", "10", "5", "0"]
    assert base.count("┴") == len(figures.split()) == 7
    assert figures.split() == ["0", "100", "200", "300", "400", "500", "600"]
    for value in (100, 200, 500):
        place = LABEL + 1 + value // 10
        assert base[place] == "┴"
        assert str(value) in figures[place - 2 : place + 3]


@pytest.mark.parametrize("width", [24, 80, 200])
@pytest.mark.parametrize("x_max", [1, 7, 150, 64_000, 999_999, 10**9])
def test_no_line_is_wider_than_it_may_be(width: int, x_max: int) -> None:
    lines = drawn(Stroke((0, x_max), (5, 5), 0, True), axes=Axes(x_max, 20), width=width)
    assert max(map(len, lines)) == width
    assert {len(line) for line in lines[:HEIGHT]} == {width}


def test_what_is_drawn_in_ascii_is_ascii() -> None:
    text = "\n".join(drawn(Stroke((0, 600), (5, 9), 0, True), axes=Axes(600, 20, (300,)), ascii_only=True))
    assert text.isascii()


@pytest.mark.parametrize(
    ("most", "about", "expected"),
    [(20, 5, [0, 5, 10, 15, 20]), (100, 5, [0, 20, 40, 60, 80, 100]), (5, 5, [0, 1, 2, 3, 4, 5]), (7, 3, [0, 5])],
)
def test_ticks_are_round_and_end_where_the_axis_does(most: float, about: int, expected: list[float]) -> None:
    assert ticks(most, about) == pytest.approx(expected)
    assert ticks(1, 5) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
