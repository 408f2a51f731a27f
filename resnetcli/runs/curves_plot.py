"""Training and test error against iterations as He et al. draw them (2015, Fig. 6), for a file and for a terminal."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetcli.errors import ResourceError, UsageError, clean, plural
from resnetcli.files import write_output
from resnetcli.runs.curves import Curve, Curves, Line, data_texts, read_curves
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact
from resnetcli.table.plot import Axes, Piece, Stroke, letter, plot, ticks
from resnetcli.table.sheet import Column, Sheet, cell

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Drawing
    from matplotlib.figure import Figure

SUFFIXES = (".png", ".svg")
PICTURE_FILE = "curves.png"
"""Name of the plot in a run directory."""
TOPS = (1, 2, 5, 10, 20, 40, 60, 80, 100)
"""Upper limits of the y axis, in percent."""
PAPER_TOP = 20
"""Upper limit for CIFAR in the paper; also used here unless a curve would not be visible."""
ROOM = 2.0
"""Minimum ratio of the upper limit to the last errors."""
MARKS = 8
"""Maximum number of learning-rate drops that are marked."""
COLOURS = ("#d62728", "#1f77b4", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
NAMED = 24
"""Maximum number of curves in the legend."""
ABOVE = 5
"""Lines of a legend that fit above the plot."""
HALF = 38
"""Characters of a legend entry up to which two fit side by side."""
BOLD, THIN = 1.9, 0.8
"""Line widths in points."""
POINTS = 2000
"""Maximum points of a line in a file."""
WIDTH_IN, HEIGHT_IN, BESIDE_IN, DPI = 6.4, 4.4, 4.0, 200
"""Size of the figure, the extra width for a legend beside the plot, and the resolution."""
CSV_COLUMNS = {
    "name": "model or run",
    "path": "run directory",
    "data": "dataset",
    "seeds": "number of seeds",
    "iteration": "training iteration",
    "train_error_percent": "error on augmented images, before each update; the mean over the seeds",
    "train_lowest": "lowest training error of a seed",
    "train_highest": "highest training error of a seed",
    "test_error_percent": "test error; the mean over the seeds",
    "test_lowest": "lowest test error of a seed",
    "test_highest": "highest test error of a seed",
}
"""Column -> its meaning."""


def error_top(curves: Sequence[Curve]) -> float:
    """Upper limit of the y axis in percent: 20 for CIFAR, as in the paper, unless the last errors are higher."""
    last = [line.last for curve in curves for line in (curve.train, curve.test) if line.last is not None]
    highest = max(last, default=0.0)
    if highest < 0.9 * PAPER_TOP and any(curve.config.data in ("cifar10", "cifar100") for curve in curves):
        return PAPER_TOP
    return next((top for top in TOPS if top >= ROOM * highest and top > highest), TOPS[-1])


def require_top(top: float | None) -> None:
    """Raise UsageError if the upper limit of the y axis is out of range."""
    if top is not None and not 0.1 <= top <= 100:
        raise UsageError(f"`--y-max {top:g}` is out of range", "percent, from 0.1 to 100")


def require_suffix(path: Path) -> None:
    """Raise UsageError unless the name ends in .png or .svg."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o: `{path}` is neither a PNG nor an SVG", "`-o curves.png` or `-o curves.svg`")


def marked_iterations(curves: Sequence[Curve]) -> tuple[int, ...]:
    """Iterations of all learning-rate drops; empty if there are more than MARKS."""
    iterations = sorted({drop.iteration for curve in curves for drop in curve.drops})
    return tuple(iterations) if len(iterations) <= MARKS else ()


# --- a file --------------------------------------------------------------------------------------------------------


def draw_run(folder: Path) -> Path:
    """Plot a run, or several seeds, into their directory.

    Raises UsageError if there is no reading yet, ResourceError if it cannot be plotted or written.
    """
    draw(read_curves([folder]), folder / PICTURE_FILE)
    return folder / PICTURE_FILE


def draw(curves: Curves, path: Path, top: float | None = None) -> None:
    """Atomically write a PNG or SVG of the curves, by the suffix.

    Raises UsageError for another suffix, ResourceError without matplotlib or if the file cannot be written.
    """
    require_suffix(path)
    require_top(top)
    data = picture(curves.curves, path.suffix.lower()[1:], top)
    write_output(path, data)


def picture(curves: Sequence[Curve], kind: str, top: float | None = None) -> bytes:
    """The bytes of a `png` or `svg` file, the same for the same curves.

    Raises ResourceError without matplotlib.
    """
    try:
        import matplotlib
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ResourceError(f"matplotlib cannot be used: {error}", "`pip install matplotlib`") from None
    except ValueError as error:  # MPLBACKEND names an unknown backend; none is needed
        raise ResourceError(f"matplotlib cannot be used: {clean(str(error), 120)}", "unset `MPLBACKEND`") from None
    out = io.BytesIO()
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)  # names may have any characters
        matplotlib.rcdefaults()  # ignore user settings
        matplotlib.rcParams["svg.hashsalt"] = "resnet-cli"
        columns = _legend_columns(_legend_texts(curves))
        wide = WIDTH_IN if columns else WIDTH_IN + BESIDE_IN
        figure = Figure(figsize=(wide, HEIGHT_IN), dpi=DPI, layout="constrained")
        colours = _colours(len(curves))
        _fill(figure, curves, colours, error_top(curves) if top is None else top)
        _legend(figure, curves, colours, columns)
        # No date and no version, so that the file depends only on the curves.
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
    if len(data := data_texts(curves)) == 1:  # otherwise each label has its dataset
        axes.set_title(clean(data[0], 60), loc="right", fontsize=8, parse_math=False)


def _draw_line(axes: Drawing, line: Line, scale: int, colour: Any, *, bold: bool) -> None:
    """Test error bold, training error thin and dashed, as in the paper; with a band for several seeds."""
    if not line.iterations:
        return
    indices = downsample(line.mean, POINTS)
    xs = [line.iterations[index] / scale for index in indices]
    style = _stroke(bold)
    if len(indices) == 1:
        style["marker"] = "o" if bold else "."  # a line of one point is invisible
    axes.plot(xs, [line.mean[index] for index in indices], color=colour, zorder=3 if bold else 2, **style)
    if line.low != line.high:
        low, high = ([values[index] for index in indices] for values in (line.low, line.high))
        axes.fill_between(xs, low, high, color=colour, alpha=0.2 if bold else 0.12, linewidth=0, zorder=1.5)


def _stroke(bold: bool) -> dict[str, Any]:
    return {"linewidth": BOLD} if bold else {"linewidth": THIN, "linestyle": (0, (3, 1.2))}


def _legend(figure: Figure, curves: Sequence[Curve], colours: Sequence[Any], columns: int) -> None:
    """Draw the legend above the plot in `columns` columns, or beside it for 0: inside, it could cover a line."""
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
    legend = figure.legend(handles, blank, fontsize=8, frameon=False, **{"loc": "outside right upper", **place})
    for entry, text in zip(legend.get_texts(), texts, strict=True):
        entry.set_parse_math(False)  # names may have dollar signs and underscores
        entry.set_text(text)


def _legend_texts(curves: Sequence[Curve]) -> list[str]:
    """Legend entries: the models and the line styles."""
    more = [f"and {len(curves) - NAMED:,} more"] if len(curves) > NAMED else []
    spread = ["shaded: lowest to highest of the seeds"] if _has_range(curves) else []
    return [*map(_legend_entry, curves[:NAMED]), *more, "bold: test error", "dashed: training error", *spread]


def _legend_columns(texts: Sequence[str]) -> int:
    """Columns of a legend above the plot; 0 if it would take too much height."""
    columns = 2 if max(map(len, texts)) <= HALF else 1
    return columns if -(-len(texts) // columns) <= ABOVE else 0


def _has_range(curves: Sequence[Curve]) -> bool:
    return any(len(curve.runs) > 1 for curve in curves)


def _legend_entry(curve: Curve) -> str:
    """The model, its last test error, and its progress if the run is not complete."""
    words = [clean(curve.label, 60)]
    if curve.test.last is not None:
        words.append(f"{curve.test.last:.2f}%")
    if curve.reached < curve.config.iterations:
        words.append(f"({curve.reached:,} of {curve.config.iterations:,})")
    return "  ".join(words)


def _colours(count: int) -> Sequence[Any]:
    """A colour per curve: easily distinguished ones for few, a colour map for many."""
    if count <= len(COLOURS):
        return COLOURS[:count]
    from matplotlib import colormaps

    return [colormaps["turbo"](0.05 + 0.9 * index / (count - 1)) for index in range(count)]


def downsample(values: Sequence[float], most: int) -> list[int]:
    """Indices of at most about `most` values: the minimum and maximum of each interval, and both ends."""
    count = len(values)
    if count <= most:
        return list(range(count))
    size = -(-2 * count // most)
    indices = {0, count - 1}
    for start in range(0, count, size):
        part = range(start, min(start + size, count))
        indices |= {min(part, key=values.__getitem__), max(part, key=values.__getitem__)}
    return sorted(indices)


# --- a terminal ----------------------------------------------------------------------------------------------------

NARROW, WIDE = 24, 200
"""Limits of a plot's width in characters."""


def text_plot(curves: Sequence[Curve], width: int, top: float | None = None, *, ascii_only: bool) -> list[list[Piece]]:
    """The lines of a text plot, each as pieces with a style."""
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
    """Whether the encoding has braille characters."""
    try:
        "⣿┊┤└".encode(encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def sheet(curves: Sequence[Curve], *, letters: bool = True) -> Sheet:
    """A row per curve: its letter in the plot, iterations, and latest errors."""
    fields: list[Field[tuple[int, Curve]]] = [
        Field("letter", "", lambda row: letter(row[0]), align="left", style="bold", shown=letters,
              help="letter of the curve in the plot"),
        Field("name", "model", lambda row: row[1].label, align="left", style="bold", help="model or run"),
        Field("iterations", "iterations", lambda row: row[1].reached, row_text=lambda row: _progress(row[1]),
              help="iterations that are complete"),
        Field("train_error_percent", "train error %", lambda row: row[1].train.last, "{:.2f}".format,
              help="latest error on augmented images, before each update"),
        Field("test_error_percent", "test error %", lambda row: row[1].test.last, "{:.2f}".format, style="bold",
              help="latest error on the test set"),
        Field("range", "lowest - highest", lambda row: _range(row[1]), priority=1, shown=_has_range(curves),
              help="lowest and highest test error of a seed"),
    ]  # fmt: skip
    return Sheet.of(fields, list(enumerate(curves)))


def _progress(curve: Curve) -> str:
    total = curve.config.iterations
    return f"{exact(curve.reached)} of {exact(total)}" if curve.reached < total else exact(total)


def _range(curve: Curve) -> str | None:
    test = curve.test
    return f"{test.low[-1]:.2f} - {test.high[-1]:.2f}" if len(curve.runs) > 1 and test.iterations else None


def key_lines(curves: Sequence[Curve]) -> list[str]:
    """Legend of a text plot: the line styles, and the drops of the learning rate."""
    lines = ["capital letters, solid: test error; small letters, dotted: training error"]
    for drops in dict.fromkeys(curve.drops for curve in curves if curve.drops):
        whose = [letter(number) for number, curve in enumerate(curves) if curve.drops == drops]
        rates = "".join(f", {drop.after:.3g} from {exact(drop.iteration)} on" for drop in drops)
        of = "" if len(whose) == len(curves) else f" of {' '.join(filter(None, whose))}"
        lines.append(f"learning rate{of}: {drops[0].before:.3g}{rates}")
    return lines


def notes(curves: Sequence[Curve], top: float | None = None) -> list[str]:
    """Notes below the table: the dataset, if there is only one; the definition of the errors; points not drawn."""
    data = [f"data: {text}; " for text in data_texts(curves)]
    errors = "errors: latest values; train error: on augmented images, before each update"
    limit = error_top(curves) if top is None else top
    above = sum(value > limit for curve in curves for line in (curve.train, curve.test) for value in line.mean)
    outside = [f"{plural(above, 'point')} above {limit:g}% not drawn; --y-max 100 shows all"] if above else []
    return [(data[0] if len(data) == 1 else "") + errors, *outside]


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
    return Sheet(tuple(Column(key, key, help=text) for key, text in CSV_COLUMNS.items()), tuple(rows))
