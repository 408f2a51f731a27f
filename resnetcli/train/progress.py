"""Progress of training on a terminal or in a log: the opening lines, a live line or one every 10 s, the time left."""

from __future__ import annotations

import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from resnetcli.errors import plural
from resnetcli.recipes.deviations import setting_text
from resnetcli.recipes.recipe import Augmentation
from resnetcli.table.numbers import bar, exact, rate, short
from resnetcli.table.safe import no_commands, printable

if TYPE_CHECKING:
    from resnetcli.runs.config import Config
    from resnetcli.runs.metrics import Point

REDRAW_S, LINE_S = 0.1, 10.0
"""Interval of updates of the live line on a terminal, and of lines elsewhere."""
MIN_ESTIMATE_S = 10.0
"""Shorter times left are not estimated."""
BAR = 16


class ProgressScreen:
    """Show the progress of runs: a live line on a terminal, separate lines elsewhere."""

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
        """Print a line that stays."""
        self._erase()
        with suppress(OSError):  # a closed terminal does not end training
            print(no_commands(printable(line)), file=self.stream, flush=True)

    def begin(self, config: Config, run: Path) -> None:
        """Print the run's model, dataset, recipe and device, and its differences from the paper."""
        self._name, self._total, self._batch = Path(config.model).stem, config.iterations, config.batch_size
        self._iteration, self._text, self._last = 0, "", self.clock()
        for line in opening(config, run):
            self.say(line)

    def stepped(self, iteration: int) -> None:
        """Update the live line."""
        self._iteration = iteration
        if self._live and self.clock() - self._last >= REDRAW_S:
            self._draw()

    def estimate(self, step_s: float, steps: int, left_s: float) -> None:
        """Print the time left."""
        if left_s < MIN_ESTIMATE_S:
            return
        speed = rate(self._batch / step_s) if step_s > 0 else "many"
        self.say(
            f"{plural(steps, 'iteration')} left, about {time_text(left_s)} with evaluation and checkpoints, "
            f"at {speed} images/s"
        )

    def reading(self, point: Point, left_s: float) -> None:
        """Show a reading: in the live line, or as a line if one is due."""
        self._iteration, self._text = point.iteration, reading_text(point, left_s)
        if self._live:
            self._draw()
        elif self.clock() - self._last >= LINE_S or point.test_error_percent is not None:
            self._last = self.clock()
            self.say(f"{exact(point.iteration)}/{exact(self._total)}  {self._text}")

    def end(self) -> None:
        """Erase the live line."""
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
    """Lines before the first step."""
    parameters = "".join(f" {name}={value}" for name, value in config.parameters.items())
    settings = [config.dtype, *(name for name in ("channels_last", "compile", "cuda_graph") if getattr(config, name))]
    machine = (
        config.device_name if config.device != "cpu" else f"{config.device_name}, {plural(config.threads, 'thread')}"
    )
    if config.processes > 1:
        machine = f"{config.processes} processes, each on {machine}"
    validation = f", {exact(config.validation_images)} for validation" if config.validation_images else ""
    epochs = config.iterations * config.batch_size / config.train_images
    recipe = config.recipe
    crops = setting_text("augmentation", Augmentation(**recipe["augmentation"]))
    lines = [
        f"{config.title}   {config.model}{parameters}   {short(config.params)} parameters",
        f"data: {config.data_text}: {plural(config.train_images, 'training image')}{validation}, "
        f"{plural(config.test_images, 'test image')}, {plural(config.classes, 'class', 'classes')}",
        f"recipe {recipe['name']}: {plural(config.iterations, 'iteration')} of "
        f"{plural(config.batch_size, 'image')}, {epochs:{'.1f' if epochs >= 1 else '.2g'}} epochs; seed {config.seed}",
        f"images: {setting_text('normalise', recipe['normalise'])}, {crops}",
        f"on {machine}, {' '.join(settings).replace('_', ' ')}; in {run!s}",
    ]
    return lines + [f"differs from the paper: {text}" for text in config.deviations]


def time_text(seconds: float) -> str:
    """A duration as text: `41 s`, `12 min`, `4 h 32 min`, `3 days 4 h`."""
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
