"""A run from its start, or from its last checkpoint, to its end: readings, checkpoints, signals, and what can go wrong.

What is on the disk is always a run that can be gone on with: a checkpoint is there whole or not at all, readings after
it are cut off at a resume, and a full disk, a loss that is not finite or a signal leave the last good one.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.memory import fitting
from resnetcli.runs import checkpoint
from resnetcli.runs.directory import RESULT, Config, Record, Run, differences, is_shallow
from resnetcli.runs.metrics import Metrics, Point, intervals
from resnetcli.runs.tensorboard import Board
from resnetcli.train.stop import Interrupted, Stop

if TYPE_CHECKING:
    from resnetcli.train.evaluate import Evaluation
    from resnetcli.train.loop import Progress

Clock = Callable[[], float]
WARM_STEPS, MOST_STEPS, LEAST_S = 3, 50, 3.0
"""The first estimate of the time is measured over so many seconds or steps, behind the first steps, which are slow."""
READINGS, CHECKPOINT, EVENTS, THE_RESULT = "readings", "a checkpoint", "TensorBoard's events", "the result"
"""What a session writes, as its warnings name it."""


class Engine(Protocol):
    """What a session needs of `resnetcli.train.loop.Trainer`."""

    device: torch.device

    @property
    def iteration(self) -> int: ...
    def step(self) -> None: ...
    def read(self) -> Progress: ...
    def evaluate(self, split: str = "test") -> Evaluation: ...
    def state(self) -> Mapping[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None: ...


class Listener(Protocol):
    """Who is told how it goes."""

    def say(self, line: str) -> None:
        """A line that stays."""

    def stepped(self, iteration: int) -> None:
        """One step more, perhaps not yet finished on its device."""

    def estimate(self, step_s: float, steps: int, left_s: float) -> None:
        """The time of a step, how many there are to come, and the time left with tests and checkpoints; once, early."""

    def reading(self, point: Point, left_s: float) -> None:
        """What was read, and the seconds left, tests and checkpoints included."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a session ended."""

    result: Record | None
    """Of a run that has finished."""
    signal: int = 0
    """What it was stopped by; 0 if it was not."""
    unsaved: tuple[str, ...] = ()
    """What could not be written, for good."""


@dataclass
class Session:
    """One go at a run: until it is finished, stopped or fails."""

    run: Run
    engine: Engine
    listener: Listener
    clock: Clock = time.perf_counter
    stop: Stop = field(default_factory=Stop)
    tensorboard: bool = False
    """Whether readings go into event files too."""

    def train(self) -> Outcome:
        """Trains to the end, or until it is stopped.

        Raises ResourceError for a loss that is not finite, and where memory does not suffice; the last checkpoint is
        from before that. Raises UsageError for checkpoints that cannot be gone on from.
        """
        engine, total, looks = self.engine, self.run.config.iterations, intervals(self.run.config)
        with self.stop:
            self._take_up()
            while engine.iteration < total and not self.stop.signal:
                engine.step()
                self._estimate()
                self.listener.stepped(engine.iteration)
                if self._due(*looks):
                    self._look()
            if self.stop.signal:
                self._leave()
            done = engine.iteration == total and not self.stop.signal  # who stops it does not wait for a last test
            result = self._finish() if done else None
        return Outcome(result, self.stop.signal, tuple(self._troubles))

    def _take_up(self) -> None:
        """Restores the newest sound checkpoint, if there is any, and cuts off what was read after it."""
        config, engine = self.run.config, self.engine
        self._wall_s = self._train_s = self._evaluation_s = 0.0
        if checkpoint.files(self.run.path):
            kept = checkpoint.newest(self.run.path, engine.state(), self.listener.say)
            require_same(kept.facts.get("config"), config, self.run.path)
            engine.restore(kept.tensors, kept.iteration)
            self._wall_s, self._train_s = (_seconds(kept.facts, name) for name in ("wall_s", "train_s"))
            self._evaluation_s = _seconds(kept.facts, "evaluation_s")
            self.listener.say(f"going on from iteration {engine.iteration:,} of {config.iterations:,}")
            checkpoint.prune(self.run.path, engine.iteration)
        try:
            self._metrics = Metrics(self.run.path, engine.iteration)
        except OSError as error:
            raise ResourceError(f"`{self.run.path}` cannot be written: {error.strerror or error}") from None
        self._troubles: dict[str, None] = {}
        self._tested: tuple[int, Evaluation] | None = None
        self._image_s: float | None = None
        self._complete()
        self._board = Board(self.run.path) if self.tensorboard else None
        self._show()
        self._begun = self._mark = self.clock()
        self._first = self._marked = self._kept = engine.iteration
        self._aside_s = self._keep_s = 0.0
        self._warm_s: float | None = None
        self._estimated = False

    def _complete(self) -> None:
        """Run the evaluation that a signal cut off at the last reading."""
        last, config = self._metrics.last, self.run.config
        if last is None or last.iteration != self.engine.iteration or not self._tests_at(last.iteration):
            return
        if last.test_error_percent is None or (config.validation_images and last.validation_error_percent is None):
            point = replace(last, **self._tests())
            if point.test_error_percent is not None:
                self._attempt(READINGS, lambda: self._metrics.amend(point))

    def _tests_at(self, iteration: int) -> bool:
        return iteration == self.run.config.iterations or iteration % self.run.config.eval_every == 0

    def _tests(self) -> dict[str, Any]:
        """A reading's errors on the test and the validation set; all None if a signal interrupts."""
        tested = self._evaluate("test")
        validated = self._evaluate("validation") if tested and self.run.config.validation_images else None
        if tested is None or (validated is None and self.run.config.validation_images):
            return dict.fromkeys(("validation_loss", "validation_error_percent", "test_loss", "test_error_percent"))
        self._tested = self.engine.iteration, tested
        return {
            "validation_loss": _finite(validated.loss) if validated else None,
            "validation_error_percent": validated.error_percent if validated else None,
            "test_loss": _finite(tested.loss),
            "test_error_percent": tested.error_percent,
        }

    def _due(self, *every: int) -> bool:
        """Whether it is time for something that is done every so many iterations, at the end and at a stop."""
        at = self.engine.iteration
        return at == self.run.config.iterations or bool(self.stop.signal) or any(at % each == 0 for each in every)

    def _look(self) -> None:
        """Reads what training has come to, then tests and keeps what is due."""
        config, engine = self.run.config, self.engine
        progress = engine.read()  # which waits for the device
        now, at = self.clock(), engine.iteration
        self._train_s += now - self._mark
        rate = (at - self._marked) * config.batch_size / max(now - self._mark, 1e-9)
        tests = self._tests() if self._tests_at(at) else {}
        point = Point(
            iteration=at, epoch=round(at * config.batch_size / config.train_images, 4), lr=progress.lr,
            train_loss=progress.loss, train_error_percent=progress.error_percent,
            validation_loss=tests.get("validation_loss"),
            validation_error_percent=tests.get("validation_error_percent"),
            test_loss=tests.get("test_loss"), test_error_percent=tests.get("test_error_percent"),
            images_per_s=round(rate, 2), wall_s=round(self._wall(), 3),
        )  # fmt: skip
        self._attempt(READINGS, lambda: self._metrics.append(point))
        self._show(point)
        aside, now = now, self.clock()
        self._aside_s += now - aside
        self.listener.reading(point, self._left_s())
        if self._due(config.checkpoint_every):
            self._attempt(CHECKPOINT, self._keep)
        self._mark, self._marked = self.clock(), at
        self._aside_s += self._mark - now

    def _evaluate(self, split: str) -> Evaluation | None:
        """The error on a split; None if a signal comes before that is known."""
        begun = self.clock()
        try:
            with self.stop.breaking(), fitting("evaluation", self.engine.device):
                evaluation = self.engine.evaluate(split)
        except Interrupted:
            return None
        took_s = self.clock() - begun
        self._image_s = took_s / evaluation.n
        self._evaluation_s += took_s
        return evaluation

    def _keep(self) -> None:
        begun = self.clock()
        # Before the checkpoint: a resume keeps the readings up to it. The checkpoint is written without them, too.
        if READINGS in self._troubles:
            self._attempt(READINGS, self._metrics.write)
        with suppress(OSError):
            self._metrics.keep()
        facts = {"config": self.run.config.bound, "wall_s": self._wall(), "train_s": self._train_s,
                 "evaluation_s": self._evaluation_s}  # fmt: skip
        checkpoint.save(self.run.path, self.engine.iteration, self.engine.state(), facts)
        self._kept = self.engine.iteration
        self._keep_s = self.clock() - begun

    def _leave(self) -> None:
        """Reads and keeps what is new: the signal may have come just after it was last looked for."""
        if self.engine.iteration > self._marked:
            self._look()
        self._make_up()

    def _make_up(self) -> None:
        """Retry writes that failed."""
        if self.engine.iteration > self._kept:
            self._attempt(CHECKPOINT, self._keep)
        elif READINGS in self._troubles:
            self._attempt(READINGS, self._metrics.write)
        if EVENTS in self._troubles:
            self._show()

    def _show(self, *points: Point) -> None:
        """Has points in TensorBoard, if they are wanted there."""
        if self._board is not None:
            self._attempt(EVENTS, partial(self._board.write, *points))

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        """Writes if it can; if not, training goes on, and what is missing is told, now and at the end."""
        try:
            write()
        except OSError as error:
            if what not in self._troubles:
                reason = error.strerror or str(error)
                goes_on = "; training goes on" if self.engine.iteration < self.run.config.iterations else ""
                self.listener.say(f"warning: {what} could not be written: {reason}{goes_on}")
            self._troubles[what] = None
        else:
            self._troubles.pop(what, None)

    def _finish(self) -> Record | None:
        """The final result, from the weights of the last iteration, not the best ones; None at a signal."""
        engine, config = self.engine, self.run.config
        self._make_up()
        at, test = self._tested or (0, None)
        if test is None or at != engine.iteration:
            test = self._evaluate("test")
        train = self._evaluate("train") if test else None
        if test is None or train is None:
            return None
        self._make_up()  # a disk may have room again
        checkpoint.prune(self.run.path, engine.iteration)
        result = train_record(config, test, train, self._train_s, self._evaluation_s, self._wall())
        self._attempt(THE_RESULT, lambda: self._conclude(result))
        return result

    def _conclude(self, result: Record) -> None:
        """Write the result, which marks the run as complete: only if nothing else is missing."""
        if missing := [what for what in (READINGS, CHECKPOINT) if what in self._troubles]:
            raise OSError(f"the run is not complete without {missing[0]}")
        self.run.finish(result)

    def _wall(self) -> float:
        """Seconds since the run was first started, as far as it ran."""
        return self._wall_s + self.clock() - self._begun

    def _stepping_s(self) -> float:
        """A clock that stands still while a reading is tested and kept."""
        return self.clock() - self._aside_s

    def _left_s(self) -> float:
        """Seconds until the end: steps, tests and checkpoints, and the training set, which is evaluated last."""
        config, at = self.run.config, self.engine.iteration
        step_s, image_s = self._step_s(), self._image_s
        if image_s is None:  # an evaluation is a forward pass, about a third of a training step
            image_s = step_s / config.batch_size / 3
        tests = _multiples_after(at, config.iterations, config.eval_every)
        images = tests * (config.test_images + config.validation_images) + config.train_images
        checkpoints = _multiples_after(at, config.iterations, config.checkpoint_every)
        return (config.iterations - at) * step_s + images * image_s + checkpoints * self._keep_s

    def _step_s(self) -> float:
        """Seconds a step takes, without the first ones if there are others."""
        done = self.engine.iteration - self._first
        if self._warm_s is None or done <= WARM_STEPS:
            return (self._stepping_s() - self._begun) / max(done, 1)
        return (self._stepping_s() - self._warm_s) / (done - WARM_STEPS)

    def _estimate(self) -> None:
        """Says how long it will take, once a few steps have been timed."""
        done = self.engine.iteration - self._first
        if self._estimated or done < WARM_STEPS:
            return
        if self._warm_s is None:
            _wait(self.engine.device)
            self._warm_s = self._stepping_s()
        elif self._stepping_s() - self._warm_s >= LEAST_S or done - WARM_STEPS >= MOST_STEPS:
            _wait(self.engine.device)
            self._estimated = True
            left = self.run.config.iterations - self.engine.iteration
            self.listener.estimate(self._step_s(), left, self._left_s())


def _multiples_after(at: int, total: int, every: int) -> int:
    """Number of iterations after `at` that are a multiple of `every`, or the last one."""
    return total // every - at // every + (1 if total % every and at < total else 0)


def require_same(kept: object, config: Config, place: os.PathLike[str]) -> None:
    """Raises UsageError unless a checkpoint's configuration is the run's, with all that differs."""
    found = differences(kept if isinstance(kept, dict) and is_shallow(kept, 2) else {}, config.bound)
    if found:
        raise UsageError(
            f"the checkpoints of `{place}` are of another configuration: {'; '.join(found)}", "was a file changed?"
        )


def train_record(
    config: Config, test: Evaluation, train: Evaluation, train_s: float, evaluation_s: float, wall_s: float
) -> Record:
    """`resnet-cli/train@1`: how a run ended."""
    return {
        "schema": RESULT,
        "model": config.model,
        "parameters": dict(config.parameters),
        "params": config.params,
        "recipe": config.recipe["name"],
        "seed": config.seed,
        "data": config.data_text,
        "iterations": config.iterations,
        "batch_size": config.batch_size,
        "final_test_error_percent": test.error_percent,
        "final_test_loss": _finite(test.loss),
        "test_images": test.n,
        "final_train_error_percent": train.error_percent,
        "final_train_loss": _finite(train.loss),
        "train_images": train.n,
        "images_per_s": round(config.iterations * config.batch_size / train_s, 2) if train_s > 0 else None,
        "evaluation_s": round(evaluation_s, 3),
        "wall_s": round(wall_s, 3),
        "device": config.device,
        "device_name": config.device_name,
        "threads": config.threads,
        "processes": config.processes,
        "dtype": config.dtype,
        "channels_last": config.channels_last,
        "cuda_graph": config.cuda_graph,
        "deterministic": config.deterministic,
        "printed": [asdict(entry) for entry in config.printed],
        "deviations": list(config.deviations),
        "versions": dict(config.versions),
    }


def _seconds(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    return float(value) if isinstance(value, float) and 0 <= value < 1e9 else 0.0


def _finite(loss: float) -> float | None:
    """The loss as JSON can have it; None for what is no number, as of a net on its way to diverge."""
    return loss if math.isfinite(loss) else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
