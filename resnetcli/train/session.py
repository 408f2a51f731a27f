"""Train a run from its start or last checkpoint to its end: readings, checkpoints, signals and failures.

The directory can be resumed at any moment: checkpoints are atomic, a resume cuts off the readings after the last one,
and a full disk, a non-finite loss or a signal leave the last good one.
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
from resnetcli.frozen import frozen
from resnetcli.net.memory import fitting
from resnetcli.runs import checkpoint
from resnetcli.runs.config import Config, differences, is_shallow
from resnetcli.runs.directory import RESULT, Record, Run
from resnetcli.runs.metrics import Metrics, Point, intervals
from resnetcli.runs.tensorboard import EventWriter
from resnetcli.train.stop import Interrupted, Stop

if TYPE_CHECKING:
    from resnetcli.train.evaluate import Evaluation
    from resnetcli.train.loop import Progress

Clock = Callable[[], float]
WARM_STEPS, MAX_TIMED_STEPS, MIN_TIMED_S = 3, 50, 3.0
"""The first estimate of the time left is over MIN_TIMED_S or MAX_TIMED_STEPS, after WARM_STEPS slow ones."""
READINGS, CHECKPOINT, EVENTS, THE_RESULT = "readings", "a checkpoint", "TensorBoard events", "the result"
"""Names of a session's outputs in its warnings."""


class Engine(Protocol):
    """The interface of `resnetcli.train.loop.Trainer` that a session uses."""

    device: torch.device

    @property
    def iteration(self) -> int: ...
    def step(self) -> None: ...
    def read(self) -> Progress: ...
    def evaluate(self, split: str = "test") -> Evaluation: ...
    def state(self) -> Mapping[str, Tensor]: ...
    def restore(self, state: Mapping[str, Tensor], iteration: int) -> None: ...


class Listener(Protocol):
    """Receives the progress of a session."""

    def say(self, line: str) -> None:
        """A line of text."""

    def stepped(self, iteration: int) -> None:
        """A step, which its device may not have finished."""

    def estimate(self, step_s: float, steps: int, left_s: float) -> None:
        """Once, early: seconds per step, steps left, and seconds left including evaluation and checkpoints."""

    def reading(self, point: Point, left_s: float) -> None:
        """A reading, and the seconds left including evaluation and checkpoints."""


@frozen
class SessionOutcome:
    """How a session ended."""

    result: Record | None
    """The final result, if the run is complete."""
    signal: int = 0
    """The signal that stopped it; 0 if none did."""
    unsaved: tuple[str, ...] = ()
    """Outputs that could not be written by the end of the session."""


@dataclass
class Session:
    """Trains a run until it is complete, stopped or fails."""

    run: Run
    engine: Engine
    listener: Listener
    clock: Clock = time.perf_counter
    stop: Stop = field(default_factory=Stop)
    tensorboard: bool = False
    """Whether readings are also written as TensorBoard events."""

    def train(self) -> SessionOutcome:
        """Train to the end, or until a signal.

        Raises ResourceError if a loss is not finite or memory does not suffice; the last checkpoint is from before.
        Raises UsageError if no checkpoint can be resumed from.
        """
        engine, total, every = self.engine, self.run.config.iterations, intervals(self.run.config)
        with self.stop:
            self._restore()
            while engine.iteration < total and not self.stop.signal:
                engine.step()
                self._estimate()
                self.listener.stepped(engine.iteration)
                if self._due(*every):
                    self._read()
            if self.stop.signal:
                self._save_rest()
            done = engine.iteration == total and not self.stop.signal  # a signal does not wait for the last evaluation
            result = self._finish() if done else None
        return SessionOutcome(result, self.stop.signal, tuple(self._unsaved))

    def _restore(self) -> None:
        """Restore the newest valid checkpoint, if there is any, and cut off the readings after it."""
        config, engine = self.run.config, self.engine
        self._wall_s = self._train_s = self._evaluation_s = 0.0
        if checkpoint.files(self.run.path):
            saved = checkpoint.newest(self.run.path, engine.state(), self.listener.say)
            require_same(saved.facts.get("config"), config, self.run.path)
            engine.restore(saved.tensors, saved.iteration)
            self._wall_s, self._train_s = (_seconds(saved.facts, name) for name in ("wall_s", "train_s"))
            self._evaluation_s = _seconds(saved.facts, "evaluation_s")
            self.listener.say(f"resuming at iteration {engine.iteration:,}/{config.iterations:,}")
            checkpoint.prune(self.run.path, engine.iteration)
        try:
            self._metrics = Metrics(self.run.path, engine.iteration)
        except OSError as error:
            raise ResourceError(f"`{self.run.path}` cannot be written: {error.strerror or error}") from None
        self._unsaved: dict[str, None] = {}
        self._tested: tuple[int, Evaluation] | None = None
        self._image_s: float | None = None
        self._complete()
        self._events = EventWriter(self.run.path) if self.tensorboard else None
        self._write_events()
        self._begun = self._mark = self.clock()
        self._first = self._read_at = self._saved_at = engine.iteration
        self._aside_s = self._save_s = 0.0
        self._warm_s: float | None = None
        self._estimated = False

    def _complete(self) -> None:
        """Run the evaluation that a signal interrupted at the last reading."""
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
        """Whether an action is due: every so many iterations, at the end, and after a signal."""
        at = self.engine.iteration
        return at == self.run.config.iterations or bool(self.stop.signal) or any(at % each == 0 for each in every)

    def _read(self) -> None:
        """Take a reading; evaluate and save a checkpoint if they are due."""
        config, engine = self.run.config, self.engine
        progress = engine.read()  # waits for the device
        now, at = self.clock(), engine.iteration
        self._train_s += now - self._mark
        rate = (at - self._read_at) * config.batch_size / max(now - self._mark, 1e-9)
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
        self._write_events(point)
        aside, now = now, self.clock()
        self._aside_s += now - aside
        self.listener.reading(point, self._left_s())
        if self._due(config.checkpoint_every):
            self._attempt(CHECKPOINT, self._save)
        self._mark, self._read_at = self.clock(), at
        self._aside_s += self._mark - now

    def _evaluate(self, split: str) -> Evaluation | None:
        """The error on a split; None if a signal interrupts."""
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

    def _save(self) -> None:
        begun = self.clock()
        # Readings first: a resume needs those up to the checkpoint. If they fail, it is written nevertheless.
        if READINGS in self._unsaved:
            self._attempt(READINGS, self._metrics.write)
        with suppress(OSError):
            self._metrics.sync()
        facts = {"config": self.run.config.bound, "wall_s": self._wall(), "train_s": self._train_s,
                 "evaluation_s": self._evaluation_s}  # fmt: skip
        checkpoint.save(self.run.path, self.engine.iteration, self.engine.state(), facts)
        self._saved_at = self.engine.iteration
        self._save_s = self.clock() - begun

    def _save_rest(self) -> None:
        """Take a last reading and checkpoint after a signal, which may have come after the last check."""
        if self.engine.iteration > self._read_at:
            self._read()
        self._retry()

    def _retry(self) -> None:
        """Retry writes that failed."""
        if self.engine.iteration > self._saved_at:
            self._attempt(CHECKPOINT, self._save)
        elif READINGS in self._unsaved:
            self._attempt(READINGS, self._metrics.write)
        if EVENTS in self._unsaved:
            self._write_events()

    def _write_events(self, *points: Point) -> None:
        """Write points as TensorBoard events, if they are enabled."""
        if self._events is not None:
            self._attempt(EVENTS, partial(self._events.write, *points))

    def _attempt(self, what: str, write: Callable[[], object]) -> None:
        """Write if possible; otherwise training continues, and the failure is reported now and at the end."""
        try:
            write()
        except OSError as error:
            if what not in self._unsaved:
                reason = error.strerror or str(error)
                rest = "; training continues" if self.engine.iteration < self.run.config.iterations else ""
                self.listener.say(f"warning: {what} could not be written: {reason}{rest}")
            self._unsaved[what] = None
        else:
            self._unsaved.pop(what, None)

    def _finish(self) -> Record | None:
        """The final result, from the weights of the last iteration, not the best ones; None at a signal."""
        engine, config = self.engine, self.run.config
        self._retry()
        at, test = self._tested or (0, None)
        if test is None or at != engine.iteration:
            test = self._evaluate("test")
        train = self._evaluate("train") if test else None
        if test is None or train is None:
            return None
        self._retry()  # the disk may have space again
        checkpoint.prune(self.run.path, engine.iteration)
        result = train_record(config, test, train, self._train_s, self._evaluation_s, self._wall())
        self._attempt(THE_RESULT, lambda: self._conclude(result))
        return result

    def _conclude(self, result: Record) -> None:
        """Write the result, which marks the run as complete, unless something else is missing."""
        if missing := [what for what in (READINGS, CHECKPOINT) if what in self._unsaved]:
            raise OSError(f"the run is not complete without {missing[0]}")
        self.run.finish(result)

    def _wall(self) -> float:
        """Seconds of all sessions of the run."""
        return self._wall_s + self.clock() - self._begun

    def _stepping_s(self) -> float:
        """A clock that excludes readings, evaluation and checkpoints."""
        return self.clock() - self._aside_s

    def _left_s(self) -> float:
        """Seconds until the end: steps, evaluation and checkpoints, and the final evaluation of the training set."""
        config, at = self.run.config, self.engine.iteration
        step_s, image_s = self._step_s(), self._image_s
        if image_s is None:  # an evaluation is a forward pass, about a third of a training step
            image_s = step_s / config.batch_size / 3
        tests = _multiples_after(at, config.iterations, config.eval_every)
        images = tests * (config.test_images + config.validation_images) + config.train_images
        checkpoints = _multiples_after(at, config.iterations, config.checkpoint_every)
        return (config.iterations - at) * step_s + images * image_s + checkpoints * self._save_s

    def _step_s(self) -> float:
        """Seconds per step, excluding the first ones if there are others."""
        done = self.engine.iteration - self._first
        if self._warm_s is None or done <= WARM_STEPS:
            return (self._stepping_s() - self._begun) / max(done, 1)
        return (self._stepping_s() - self._warm_s) / (done - WARM_STEPS)

    def _estimate(self) -> None:
        """Report the time left, once a few steps have been timed."""
        done = self.engine.iteration - self._first
        if self._estimated or done < WARM_STEPS:
            return
        if self._warm_s is None:
            _wait(self.engine.device)
            self._warm_s = self._stepping_s()
        elif self._stepping_s() - self._warm_s >= MIN_TIMED_S or done - WARM_STEPS >= MAX_TIMED_STEPS:
            _wait(self.engine.device)
            self._estimated = True
            left = self.run.config.iterations - self.engine.iteration
            self.listener.estimate(self._step_s(), left, self._left_s())


def _multiples_after(at: int, total: int, every: int) -> int:
    """Number of iterations after `at` that are a multiple of `every`, or the last one."""
    return total // every - at // every + (1 if total % every and at < total else 0)


def require_same(saved: object, config: Config, path: os.PathLike[str]) -> None:
    """Raise UsageError, with all differences, unless a checkpoint's configuration is the run's."""
    changes = differences(saved if isinstance(saved, dict) and is_shallow(saved, 2) else {}, config.bound)
    if changes:
        raise UsageError(
            f"the checkpoints of `{path}` have another configuration: {'; '.join(changes)}", "was a file changed?"
        )


def train_record(
    config: Config, test: Evaluation, train: Evaluation, train_s: float, evaluation_s: float, wall_s: float
) -> Record:
    """`resnet-cli/train@2`: the final result of a run."""
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
        "published": [asdict(entry) for entry in config.published],
        "deviations": list(config.deviations),
        "versions": dict(config.versions),
    }


def _seconds(facts: Mapping[str, Any], name: str) -> float:
    value = facts.get(name)
    return float(value) if isinstance(value, float) and 0 <= value < 1e9 else 0.0


def _finite(loss: float) -> float | None:
    """The loss for JSON: None if it is NaN or infinite."""
    return loss if math.isfinite(loss) else None


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
