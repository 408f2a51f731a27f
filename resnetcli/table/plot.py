"""Lines drawn with characters: braille dots, or plain ASCII where a terminal has none; readable without colour.

A curve is known by its letter, which stands on its lines every now and then: a capital on the solid line, a small one
on the dotted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise

from resnetcli.frozen import frozen

Span = tuple[float, float]
Piece = tuple[str, str]
"""Characters and their style."""
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STYLES = ("red", "blue", "green", "magenta", "cyan", "yellow")
LABEL = 5
"""Characters for the figures at the left."""
_DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
"""Unicode's braille patterns: the bit of each dot, by column and row in a character."""


@frozen
class Stroke:
    """One line to draw, its points in order of x."""

    xs: Sequence[float]
    ys: Sequence[float]
    curve: int
    """Index of its curve, from 0: selects the letter and the style."""
    solid: bool


@frozen
class Axes:
    """The plotted range, from 0, and the marks."""

    x_max: float
    y_max: float
    marks: Sequence[float] = ()
    """Positions of dotted vertical lines along x."""


def letter(curve: int) -> str:
    """Letter of a curve; empty beyond the alphabet."""
    return LETTERS[curve] if curve < len(LETTERS) else ""


def style(curve: int) -> str:
    """Style of a curve: its colour on a terminal that has colours."""
    return STYLES[curve % len(STYLES)]


def plot(strokes: Sequence[Stroke], axes: Axes, *, width: int, height: int, ascii_only: bool) -> list[list[Piece]]:
    """The lines of the plot, `width` characters wide, `height` of them above the axis."""
    columns = width - LABEL - 1
    grid = _Grid(columns, height, axes, ascii_only)
    for stroke in sorted(strokes, key=lambda stroke: stroke.solid):  # the solid ones on top
        grid.draw(stroke)
    _put_letters(grid, strokes)
    side, corner, foot, tick = ("|", "+", "-", "+") if ascii_only else ("┤", "└", "─", "┴")
    bare = "|" if ascii_only else "│"
    labels = {_row(value, axes.y_max, height): f"{value:g}" for value in ticks(axes.y_max, 5)}
    lines = [
        [(f"{labels.get(row, ''):>{LABEL}}{side if row in labels else bare}", "dim"), *grid.row(row)]
        for row in range(height)
    ]
    about = max(2, columns // 10)
    places = {_column(value, axes.x_max, columns): f"{value:,.10g}" for value in ticks(axes.x_max, about)}
    base = "".join(tick if column in places else foot for column in range(columns))
    return [*lines, [(" " * LABEL + corner + base, "dim")], [(_labels(places, columns), "dim")]]


def spans(xs: Sequence[float], ys: Sequence[float], x_max: float, columns: int) -> list[Span | None]:
    """Lowest and highest y of a line through the points in each of `columns` columns."""
    found: list[Span | None] = [None] * columns

    def cover(column: int, y: float) -> None:
        known = found[column]
        found[column] = (y, y) if known is None else (min(known[0], y), max(known[1], y))

    places = [x / x_max * columns for x in xs]
    for place, y in zip(places, ys, strict=True):
        cover(min(int(place), columns - 1), y)
    for (a, y_a), (b, y_b) in pairwise(zip(places, ys, strict=True)):
        for edge in range(int(a) + 1, min(int(b), columns - 1) + 1):
            y = y_a + (y_b - y_a) * (edge - a) / (b - a)
            cover(edge - 1, y)
            cover(edge, y)
    return found


def ticks(most: float, about: int) -> list[float]:
    """Round numbers from 0 to `most`, some `about` steps of 1, 2 or 5 times a power of ten."""
    rough = most / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))
    return [number * step for number in range(math.floor(most / step * (1 + 1e-9)) + 1)]


class _Grid:
    """The characters between the axes: of two by four dots each, or of one letter."""

    def __init__(self, columns: int, rows: int, axes: Axes, ascii_only: bool) -> None:
        self.columns, self.rows, self.axes, self.ascii = columns, rows, axes, ascii_only
        self.across, self.down = (1, 1) if ascii_only else (2, 4)
        self._dots = [[0] * columns for _ in range(rows)]
        self._marks = [[""] * columns for _ in range(rows)]
        self._styles = [[""] * columns for _ in range(rows)]
        self._ruled = {_column(mark, axes.x_max, columns) for mark in axes.marks}

    def draw(self, stroke: Stroke) -> None:
        """A line, every other character of it where it is not solid."""
        found = spans(stroke.xs, stroke.ys, self.axes.x_max, self.columns * self.across)
        # One point, or a few, would be lost among the gaps.
        dotted = not stroke.solid and sum(span is not None for span in found) > 2 * self.across
        sign = letter(stroke.curve) or "*"
        height = self.rows * self.down
        for place, span in enumerate(found):
            column = place // self.across
            if span is None or span[0] > self.axes.y_max or (dotted and column % 2):
                continue
            for dot in range(_row(span[1], self.axes.y_max, height), _row(span[0], self.axes.y_max, height) + 1):
                row = dot // self.down
                self._dots[row][column] |= _DOTS[place % self.across][dot % self.down]
                self._styles[row][column] = style(stroke.curve)
                if self.ascii:
                    self._marks[row][column] = sign if stroke.solid else sign.lower()

    def put(self, column: int, y: float, sign: str, curve: int) -> None:
        """A letter, where none is yet."""
        row = _row(y, self.axes.y_max, self.rows)
        if not self._marks[row][column]:
            self._marks[row][column] = sign
            self._styles[row][column] = f"bold {style(curve)}"

    def row(self, row: int) -> Iterator[Piece]:
        """The pieces of one line."""
        for column, (dots, mark, style) in enumerate(
            zip(self._dots[row], self._marks[row], self._styles[row], strict=True)
        ):
            if mark:
                yield mark, style
            elif dots:
                yield chr(0x2800 + dots), style
            elif column in self._ruled:
                yield (":" if self.ascii else "┊"), "dim"
            else:
                yield " ", ""


def _put_letters(grid: _Grid, strokes: Sequence[Stroke]) -> None:
    """Put letters on each line at regular intervals, offset from those of the other lines."""
    known = [stroke for stroke in strokes if letter(stroke.curve)]
    if grid.ascii:
        return  # its lines are of letters
    every = max(16, 4 * len(known))
    for index, stroke in enumerate(known):
        found = spans(stroke.xs, stroke.ys, grid.axes.x_max, grid.columns)
        drawn = [column for column, span in enumerate(found) if span is not None and span[0] <= grid.axes.y_max]
        sign = letter(stroke.curve) if stroke.solid else letter(stroke.curve).lower()
        first = every * index // len(known)
        for place in drawn[::-1][min(first, len(drawn) - 1) :: every] if drawn else []:
            span = found[place]
            if span is not None:
                grid.put(place, (span[0] + span[1]) / 2, sign, stroke.curve)


def _row(y: float, y_max: float, rows: int) -> int:
    """Row of a value, from the top; values above the plot are in its top row."""
    return min(max(rows - 1 - int(y / y_max * rows), 0), rows - 1)


def _column(x: float, x_max: float, columns: int) -> int:
    return min(int(x / x_max * columns), columns - 1)


def _labels(places: dict[int, str], columns: int) -> str:
    """The figures below the axis, each in the middle under its tick, as far as there is room."""
    line = ""
    for column, text in places.items():
        start = min(LABEL + 1 + column - len(text) // 2, LABEL + 1 + columns - len(text))
        if start > len(line):
            line += " " * (start - len(line)) + text
    return line
