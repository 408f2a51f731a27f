"""Training and test error against iterations as He et al. draw them (2015, Fig. 6), for a file and for a terminal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetcli.errors import ResourceError, UsageError, clean
from resnetcli.files import write_output
from resnetcli.runs.curves import Curve, Curves, Line, data_texts, read_curves
from resnetcli.table.numbers import exact
from resnetcli.table.plot import Axes, Piece, Stroke, letter, plot, ticks
from resnetcli.table.sheet import Column, Sheet, cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Drawing
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
PICTURE_FILE = "curves.png"
"""What a run's own picture is called."""
TOPS = (1, 2, 5, 10, 20, 40, 60, 80, 100)
"""Per cent at which a picture may end."""
PAPER_TOP = 20
"""At which those of CIFAR end in the paper, and so here unless a curve would not be seen."""
ROOM = 2.0
"""How far above the last errors a picture reaches at least."""
MARKS = 8
"""Steps of the learning rate that are still marked: more say nothing."""
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
NAMED = 24
"""Curves that a legend names."""
ABOVE = 5
"""Lines of a legend that have room above the plot."""
HALF = 38
"""Characters of an entry of which two have room beside each other."""
BOLD, THIN = 1.9, 0.8
"""Widths of lines, in points."""
POINTS = 2000
"""Of a line that a picture of this size can show."""
WIDTH_IN, HEIGHT_IN, BESIDE_IN, DPI = 6.4, 4.4, 4.0, 200
"""The picture's size, and how much wider it is with a legend beside it."""
CSV_COLUMNS = (
    "net", "path", "data", "seeds", "iteration", "train_error_percent", "train_lowest", "train_highest",
    "test_error_percent", "test_lowest", "test_highest",
)  # fmt: skip


def error_top(curves: Sequence[Curve]) -> float:
    """Per cent at which the picture ends: 20 as in the paper for CIFAR, unless the last errors say otherwise."""
    last = [line.last for curve in curves for line in (curve.train, curve.test) if line.last is not None]
    highest = max(last, default=0.0)
    if highest < 0.9 * PAPER_TOP and any(curve.config.data in ("cifar10", "cifar100") for curve in curves):
        return PAPER_TOP
    return next((top for top in TOPS if top >= ROOM * highest and top > highest), TOPS[-1])


def require_top(top: float | None) -> None:
    """Raises UsageError for a picture of no height, or of one that its figures have no room for."""
    if top is not None and not 0.1 <= top <= 100:
        raise UsageError(f"`--y-max {top:g}` is out of range", "per cent, from 0.1 to 100")


def require_suffix(path: Path) -> None:
    """Raises UsageError unless the name says that the file is a PNG or an SVG."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o: `{path}` is neither a PNG nor an SVG", "`-o curves.png` or `-o curves.svg`")


def marked_iterations(curves: Sequence[Curve]) -> tuple[int, ...]:
    """Where the learning rate fell, in whichever curve; none if that would be a fence."""
    found = sorted({drop.iteration for curve in curves for drop in curve.drops})
    return tuple(found) if len(found) <= MARKS else ()


# --- a file --------------------------------------------------------------------------------------------------------


def draw_run(folder: Path) -> Path:
    """Draws a run's own picture, or that of several seeds, into its directory.

    Raises UsageError if nothing was read yet, ResourceError if it cannot be drawn or written: no reason to fail a run.
    """
    draw(read_curves([folder]), folder / PICTURE_FILE)
    return folder / PICTURE_FILE


def draw(found: Curves, path: Path, top: float | None = None) -> None:
    """Writes the curves as a PNG or an SVG, as the file's name says, whole or not at all.

    Raises UsageError for another name, ResourceError without matplotlib and if it cannot be written.
    """
    require_suffix(path)
    require_top(top)
    data = picture(found.curves, path.suffix.lower()[1:], top)
    write_output(path, data)


def picture(curves: Sequence[Curve], kind: str, top: float | None = None) -> bytes:
    """A file of the kind `png` or `svg`, the same for the same curves.

    Raises ResourceError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ResourceError(f"matplotlib cannot be used: {error}", "`pip install matplotlib`") from None
    except ValueError as error:  # the environment names a backend that there is not, though none is needed here
        raise ResourceError(f"matplotlib cannot be used: {clean(str(error), 120)}", "unset `MPLBACKEND`") from None
    out = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # a name may be in any script
        matplotlib.rcdefaults()  # not as somebody's own settings have it
        matplotlib.rcParams["svg.hashsalt"] = "resnet-cli"
        columns = _legend_columns(_legend_texts(curves))
        wide = WIDTH_IN if columns else WIDTH_IN + BESIDE_IN
        figure = Figure(figsize=(wide, HEIGHT_IN), dpi=DPI, layout="constrained")
        colours = _colours(len(curves))
        _fill(figure, curves, colours, error_top(curves) if top is None else top)
        _legend(figure, curves, colours, columns)
        # No date, and no version of what has drawn it: the file depends on the curves.
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(out, format=kind, metadata=metadata)
    return out.getvalue()


def _fill(figure: Figure, curves: Sequence[Curve], colours: Sequence[Any], top: float) -> None:
    axes = figure.add_subplot()
    furthest = max(curve.reached for curve in curves)
    scale = 10_000 if furthest >= 10_000 else 1
    for mark in marked_iterations(curves):
        axes.axvline(mark / scale, color="0.75", linewidth=0.8, linestyle=(0, (1, 2)), zorder=1)
    for curve, colour in zip(curves, colours, strict=True):
        _draw_line(axes, curve.train, scale, colour, bold=False)
    for curve, colour in zip(curves, colours, strict=True):
        _draw_line(axes, curve.test, scale, colour, bold=True)
    axes.set_xlim(0, furthest / scale)
    axes.set_ylim(0, top)
    axes.set_yticks(ticks(top, 5))
    axes.set_xlabel("iterations (1e4)" if scale > 1 else "iterations")
    axes.set_ylabel("error (%)")
    axes.grid(axis="y", color="0.85", linestyle="--", linewidth=0.6)
    axes.set_axisbelow(True)
    if len(data := data_texts(curves)) == 1:  # else each name has its own
        axes.set_title(clean(data[0], 60), loc="right", fontsize=8, parse_math=False)


def _draw_line(axes: Drawing, line: Line, scale: int, colour: Any, *, bold: bool) -> None:
    """Testing errors bold, training errors thin and dashed, as in the paper; of several seeds also their range."""
    if not line.iterations:
        return
    kept = thinned(line.mean, POINTS)
    xs = [line.iterations[index] / scale for index in kept]
    how = _stroke(bold)
    if len(kept) == 1:
        how["marker"] = "o" if bold else "."  # a line of one point is not seen
    axes.plot(xs, [line.mean[index] for index in kept], color=colour, zorder=3 if bold else 2, **how)
    if line.low != line.high:
        low, high = ([values[index] for index in kept] for values in (line.low, line.high))
        axes.fill_between(xs, low, high, color=colour, alpha=0.2 if bold else 0.12, linewidth=0, zorder=1.5)


def _stroke(bold: bool) -> dict[str, Any]:
    return {"linewidth": BOLD} if bold else {"linewidth": THIN, "linestyle": (0, (3, 1.2))}


def _legend(figure: Figure, curves: Sequence[Curve], colours: Sequence[Any], columns: int) -> None:
    """Above the lines in so many columns, or beside them: no corner among them is free for certain."""
    from matplotlib.artist import Artist
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Artist] = [Line2D([], [], color=colour, linewidth=BOLD) for colour in colours[:NAMED]]
    if len(curves) > NAMED:
        handles.append(Line2D([], [], linewidth=0))
    handles += [Line2D([], [], color="0.3", **_stroke(bold)) for bold in (True, False)]
    if _has_range(curves):
        handles.append(Patch(color="0.3", alpha=0.2, linewidth=0))
    texts = _legend_texts(curves)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns} if columns else {}
    blank = [str(index) for index in range(len(handles))]
    made = figure.legend(handles, blank, fontsize=8, frameon=False, **{"loc": "outside right upper", **place})
    for entry, text in zip(made.get_texts(), texts, strict=True):
        entry.set_parse_math(False)  # a name is a name, with whatever dollars and underscores in it
        entry.set_text(text)


def _legend_texts(curves: Sequence[Curve]) -> list[str]:
    """The nets, and what the two kinds of line are."""
    more = [f"and {len(curves) - NAMED:,} more"] if len(curves) > NAMED else []
    spread = ["shaded: lowest to highest of the seeds"] if _has_range(curves) else []
    return [*map(_net_text, curves[:NAMED]), *more, "bold: testing error", "dashed: training error", *spread]


def _legend_columns(texts: Sequence[str]) -> int:
    """Columns of a legend above the lines; 0 where it would take too much of the height."""
    columns = 2 if max(map(len, texts)) <= HALF else 1
    return columns if -(-len(texts) // columns) <= ABOVE else 0


def _has_range(curves: Sequence[Curve]) -> bool:
    return any(len(curve.runs) > 1 for curve in curves)


def _net_text(curve: Curve) -> str:
    """The net's name, its last test error, and how far it is where it has not finished."""
    words = [clean(curve.label, 60)]
    if curve.test.last is not None:
        words.append(f"{curve.test.last:.2f}%")
    if curve.reached < curve.config.iterations:
        words.append(f"({curve.reached:,} of {curve.config.iterations:,})")
    return "  ".join(words)


def _colours(count: int) -> Sequence[Any]:
    """One for each net: those that are easily told apart, or as many as there have to be."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    from matplotlib import colormaps

    return [colormaps["turbo"](0.05 + 0.9 * index / (count - 1)) for index in range(count)]


def thinned(values: Sequence[float], most: int) -> list[int]:
    """The indices of what has to be drawn: of every so many values the lowest and the highest, and both ends."""
    count = len(values)
    if count <= most:
        return list(range(count))
    size = -(-2 * count // most)
    kept = {0, count - 1}
    for start in range(0, count, size):
        part = range(start, min(start + size, count))
        kept |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(kept)


# --- a terminal ----------------------------------------------------------------------------------------------------

NARROW, WIDE = 24, 200
"""Characters between which a plot is drawn."""


def text_plot(curves: Sequence[Curve], width: int, top: float | None = None, *, ascii_only: bool) -> list[list[Piece]]:
    """The lines of a plot of characters, each as pieces with a style."""
    require_top(top)
    width = max(NARROW, min(width, WIDE))
    axes = Axes(
        max(curve.reached for curve in curves), error_top(curves) if top is None else top, marked_iterations(curves)
    )
    strokes = [
        Stroke(line.iterations, line.mean, number, solid)
        for number, curve in enumerate(curves)
        for line, solid in ((curve.train, False), (curve.test, True))
        if line.iterations
    ]
    drawn = plot(strokes, axes, width=width, height=max(14, min(width // 4, 30)), ascii_only=ascii_only)
    return [[("error (%)", "dim")], *drawn, [(f"{'iterations':>{width}}", "dim")]]


def encodes_braille(encoding: str | None) -> bool:
    """Whether what is written there can have dots."""
    try:
        "⣿┊┤└".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sheet(curves: Sequence[Curve], *, letters: bool = True) -> Sheet:
    """A row for each net: its letter in the plot, how far it is, and its last errors, whichever were the lowest."""
    several = _has_range(curves)
    columns = (
        *((Column("", "letter", "left", "bold"),) if letters else ()),
        Column("net", "net", "left", "bold"),
        Column("iterations", "iterations"),
        Column("train error %", "train_error_percent"),
        Column("test error %", "test_error_percent", style="bold"),
        *((Column("lowest - highest", "range", spare=1),) if several else ()),
    )
    rows = []
    for number, curve in enumerate(curves):
        total = curve.config.iterations
        so_far = f"{exact(curve.reached)} of {exact(total)}" if curve.reached < total else exact(total)
        test, several_here = curve.test, len(curve.runs) > 1
        spread = f"{test.low[-1]:.2f} - {test.high[-1]:.2f}" if several_here and test.iterations else None
        rows.append((
            *((cell(letter(number)),) if letters else ()),
            cell(curve.label), cell(curve.reached, so_far),
            *(cell(line.last, "" if line.last is None else f"{line.last:.2f}") for line in (curve.train, test)),
            *((cell(spread),) if several else ()),
        ))  # fmt: skip
    return Sheet(columns, tuple(rows))


def key_lines(curves: Sequence[Curve]) -> list[str]:
    """What the lines of a plot are, and where the learning rate fell."""
    lines = ["capital letters, solid: test error; small letters, dotted: training error"]
    for drops in dict.fromkeys(curve.drops for curve in curves if curve.drops):
        whose = [letter(number) for number, curve in enumerate(curves) if curve.drops == drops]
        rates = "".join(f", {drop.after:.3g} from {exact(drop.iteration)} on" for drop in drops)
        of = "" if len(whose) == len(curves) else f" of {' '.join(filter(None, whose))}"
        lines.append(f"learning rate{of}: {drops[0].before:.3g}{rates}")
    return lines


def notes(curves: Sequence[Curve]) -> list[str]:
    """What the errors are of; where they are of several data sets, each name has its own."""
    data = [f"data: {text}; " for text in data_texts(curves)]
    errors = "errors: latest values; train error: on augmented images, before each update"
    return [(data[0] if len(data) == 1 else "") + errors]


# --- for programs --------------------------------------------------------------------------------------------------


def points_sheet(curve: Curve) -> Sheet:
    """A row for each iteration at which an error was read."""
    train, test = (dict(zip(line.iterations, zip(line.mean, line.low, line.high, strict=True), strict=True))
                   for line in (curve.train, curve.test))  # fmt: skip
    rows = []
    for iteration in sorted({*train, *test}):
        errors = (*train.get(iteration, (None,) * 3), *test.get(iteration, (None,) * 3))
        values = (curve.label, str(curve.path), curve.config.data_text, len(curve.runs), iteration, *errors)
        rows.append(tuple(map(cell, values)))
    return Sheet(tuple(Column(key, key) for key in CSV_COLUMNS), tuple(rows))
