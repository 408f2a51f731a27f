"""Training as a person follows it: what begins, how it goes, how it ended, and the printed errors beside ours."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnetcli.errors import plural
from resnetcli.recipes.deviations import setting_text
from resnetcli.recipes.recipe import Augmentation
from resnetcli.table.numbers import bar, exact, rate, short
from resnetcli.table.safe import no_commands, printable
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from resnetcli.runs.directory import Config
    from resnetcli.runs.metrics import Point
    from resnetcli.train.seeds import Ended

REDRAWN_S, LINE_S = 0.1, 10.0
"""How often the bar moves on a terminal, and how often a line is written where there is none."""
WORTH_S = 10.0
"""What takes no longer needs no estimate."""
BAR = 16


class Screen:
    """Tells how training goes: a line that is drawn over on a terminal, now and then a line of its own elsewhere."""

    def __init__(
        self, stream: IO[str] | None = None, clock: Callable[[], float] = time.monotonic, width: int | None = None
    ) -> None:
        self.stream = stream or sys.stderr
        self.clock, self.width = clock, width
        self._live = self.stream.isatty()
        self._drawn = 0
        self._last = float("-inf")
        self._name, self._total, self._batch = "", 1, 1
        self._iteration, self._text = 0, ""

    def say(self, line: str) -> None:
        """A line that stays."""
        self._erase()
        with suppress(OSError):  # a terminal that was closed: training need not end for it
            print(no_commands(printable(line)), file=self.stream, flush=True)

    def begin(self, config: Config, run: Path) -> None:
        """What is trained, on what, how, and where that is not the paper."""
        self._name, self._total, self._batch = Path(config.model).stem, config.iterations, config.batch_size
        self._iteration, self._text, self._last = 0, "", self.clock()
        for line in opening(config, run):
            self.say(line)

    def stepped(self, iteration: int) -> None:
        """One step more."""
        self._iteration = iteration
        if self._live and self.clock() - self._last >= REDRAWN_S:
            self._draw()

    def estimate(self, step_s: float, steps: int, left_s: float) -> None:
        """The time left."""
        if left_s < WORTH_S:
            return
        speed = rate(self._batch / step_s) if step_s > 0 else "many"
        self.say(
            f"{plural(steps, 'iteration')} left, about {time_text(left_s)} with tests and checkpoints, "
            f"at {speed} images/s"
        )

    def reading(self, point: Point, left_s: float) -> None:
        """What was read; on a terminal below the bar, elsewhere as a line if it is time for one."""
        self._iteration, self._text = point.iteration, reading_text(point, left_s)
        if self._live:
            self._draw()
        elif self.clock() - self._last >= LINE_S or point.test_error_percent is not None:
            self._last = self.clock()
            self.say(f"{exact(point.iteration)}/{exact(self._total)}  {self._text}")

    def end(self) -> None:
        """Takes the bar away."""
        self._erase()

    def _draw(self) -> None:
        self._last = self.clock()
        share = self._iteration / self._total
        text = f"{self._name}  {exact(self._iteration)}/{exact(self._total)}  {bar(share, BAR):<{BAR}}  {self._text}"
        room = (self.width or shutil.get_terminal_size().columns) - 1
        text = no_commands(printable(text))[:room]
        with suppress(OSError):
            self.stream.write("\r" + text + " " * max(0, self._drawn - len(text)))
            self.stream.flush()
        self._drawn = len(text)

    def _erase(self) -> None:
        if self._drawn:
            with suppress(OSError):
                self.stream.write("\r" + " " * self._drawn + "\r")
            self._drawn = 0


def reading_text(point: Point, left_s: float) -> str:
    """`loss 0.523  error 17.3%  test 18.90%  lr 0.1  3,421 images/s  12 min left`."""
    words = [f"loss {point.train_loss:.4g}", f"error {point.train_error_percent:.1f}%"]
    if point.validation_error_percent is not None:
        words.append(f"validation {point.validation_error_percent:.2f}%")
    if point.test_error_percent is not None:
        words.append(f"test {point.test_error_percent:.2f}%")
    words += [f"lr {point.lr:.3g}", f"{rate(point.images_per_s)} images/s"]
    return "  ".join([*words, f"{time_text(left_s)} left"] if left_s else words)


def opening(config: Config, run: Path) -> list[str]:
    """What is said before the first step."""
    settings = "".join(f" {name}={value}" for name, value in config.parameters.items())
    how = [config.dtype, *(name for name in ("channels_last", "compile", "cuda_graph") if getattr(config, name))]
    where = (
        config.device_name if config.device != "cpu" else f"{config.device_name}, {plural(config.threads, 'thread')}"
    )
    if config.processes > 1:
        where = f"{config.processes} processes, each on {where}"
    kept = f", {exact(config.validation_images)} kept for validation" if config.validation_images else ""
    epochs = config.iterations * config.batch_size / config.train_images
    recipe = config.recipe
    crops = setting_text("augmentation", Augmentation(**recipe["augmentation"]))
    lines = [
        f"{config.title}   {config.model}{settings}   {short(config.params)} parameters",
        f"data: {config.data_text}: {plural(config.train_images, 'image')} to train on{kept}, "
        f"{exact(config.test_images)} to test, {plural(config.classes, 'class', 'classes')}",
        f"recipe {recipe['name']}: {plural(config.iterations, 'iteration')} of "
        f"{plural(config.batch_size, 'image')}, {epochs:{'.1f' if epochs >= 1 else '.2g'}} epochs; seed {config.seed}",
        f"images: {setting_text('normalise', recipe['normalise'])}, {crops}",
        f"on {where}, {' '.join(how).replace('_', ' ')}; in {run!s}",
    ]
    return lines + [f"not as in the paper: {text}" for text in config.deviations]


def time_text(seconds: float) -> str:
    """As one says it: `41 s`, `12 min`, `4 h 32 min`, `3 days 4 h`."""
    if not math.isfinite(seconds):
        return "an unknown time"
    if seconds < 1:
        return "less than 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    return f"{hours // 24} days {hours % 24} h"


# --- how it ended --------------------------------------------------------------------------------------------------

RUN_COLUMNS = (
    Column("net", "model", "left", "bold"),
    Column("params", "params"),
    Column("iterations", "iterations"),
    Column("seeds", "seeds"),
    Column("test error %", "final_test_error_percent", style="bold"),
    Column("std", "std"),
    Column("best", "best", spare=1),
    Column("printed %", "printed", "left"),
    Column("data", "data", "left", shown=False),
)
OF_SEVERAL = ("seeds", "std", "best")
"""Columns that say nothing of one run."""


def results_sheet(nets: Sequence[Ended]) -> Sheet:
    """As the paper's Table 6: each net's final test error, over its seeds, and what papers print."""
    rows = tuple(_result(net.results, net.summary) for net in nets)
    empty = (
        *(OF_SEVERAL if all(len(net.results) == 1 for net in nets) else ()),
        *(() if any(net.results[0]["printed"] for net in nets) else ("printed",)),
    )
    columns = (replace(column, shown=column.shown and column.key not in empty) for column in RUN_COLUMNS)
    return Sheet(tuple(columns), rows)


def _result(results: Sequence[Mapping[str, Any]], summary: Mapping[str, Any] | None) -> tuple[Cell, ...]:
    first, seeds = results[0], len(results)
    error = first["final_test_error_percent"]
    spread: Mapping[str, Any] = {"mean": error, "std": None, "best": error}
    if summary is not None:
        spread = summary["final_test_error_percent"]
    name = _name(first)
    return (
        cell(name),
        cell(first["params"], short(first["params"])),
        cell(first["iterations"], exact(first["iterations"])),
        cell(seeds),
        _error(spread["mean"]),
        _error(spread["std"]),
        _error(spread["best"] if seeds > 1 else None),
        cell("; ".join(map(_printed, first["printed"])) or None),
        cell(first["data"]),
    )


def _name(record: Mapping[str, Any]) -> str:
    """The net as it was asked for, with what was set of it."""
    return " ".join([record["model"], *(f"{key}={value}" for key, value in record["parameters"].items())])


def seeds_sheet(results: Sequence[Mapping[str, Any]]) -> Sheet:
    """Each seed's run."""
    columns = (
        Column("seed", "seed"),
        Column("test error %", "final_test_error_percent", style="bold"),
        Column("train error %", "final_train_error_percent"),
        Column("images/s", "images_per_s"),
        Column("time", "wall_s"),
        Column("data", "data", "left", shown=False),
    )
    rows = tuple(
        (
            cell(result["seed"]),
            _error(result["final_test_error_percent"]),
            _error(result["final_train_error_percent"]),
            cell(result["images_per_s"], rate(result["images_per_s"]) if result["images_per_s"] else ""),
            cell(result["wall_s"], time_text(result["wall_s"])),
            cell(result["data"]),
        )
        for result in results
    )
    return Sheet(columns, rows)


def results_lines(nets: Sequence[Ended]) -> list[str]:
    """The conditions below."""
    first = nets[0].results[0]
    lines = [f"of the last iteration, on all {plural(first['test_images'], 'test image')} of {first['data']}"]
    whose: dict[str, list[str]] = {}
    for net in nets:
        result = net.results[0]
        of = f"{_name(result)}: " if len(nets) > 1 else ""
        took = ""
        if len(net.results) == 1:
            lines.append(f"{of}training images without augmentation: {result['final_train_error_percent']:.2f}%")
            if result["images_per_s"]:
                took = f"{rate(result['images_per_s'])} images/s, {time_text(result['wall_s'])}; "
        lines.append(f"{of}recipe {result['recipe']}; {took}{net.path!s}")
        for text in result["deviations"]:
            whose.setdefault(text, []).append(_name(result))
    for text, names in whose.items():
        only = "" if len(names) == len(nets) else f" ({', '.join(names)})"
        lines.append(f"not as in the paper: {text}{only}")
    return lines


def _printed(entry: Mapping[str, Any]) -> str:
    where = ", ".join(filter(None, (entry["protocol"], entry["source"])))
    return f"{entry['printed']} ({where})"


def _error(value: float | None) -> Cell:
    return cell(value, "" if value is None else f"{value:.2f}")


def eval_sheet(record: Mapping[str, Any]) -> Sheet:
    """Each class's error, and the whole test set's."""
    columns = (
        Column("class", "class", "left", "bold"),
        Column("images", "images"),
        Column("wrong", "wrong"),
        Column("error %", "error_percent"),
        Column("data", "data", "left", shown=False),
    )
    data = cell(record["data"])
    rows = tuple(
        (cell(entry["name"]), cell(entry["images"], exact(entry["images"])),
         cell(entry["wrong"], exact(entry["wrong"])), _error(entry["error_percent"]), data)
        for entry in record["classes"]
    )  # fmt: skip
    total = (cell("all"), cell(record["images"], exact(record["images"])),
             cell(record["wrong"], exact(record["wrong"])), _error(record["error_percent"]), data)  # fmt: skip
    return Sheet(columns, rows, total)


def eval_lines(record: Mapping[str, Any]) -> list[str]:
    """What was evaluated."""
    loss = "not finite" if record["loss"] is None else format(record["loss"], ".4f")
    return [
        f"{_name(record)}, seed {record['seed']}, after {exact(record['iteration'])} of "
        f"{exact(record['iterations'])} iterations; loss {loss}",
        f"test set of {record['data']}",
    ]
