"""The learning rate of every iteration: pure functions of a recipe's schedule, its length and the net's depth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, assert_never

Kind = Literal["steps", "one-cycle", "fixed"]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the rate goes after any warm-up, as a recipe says it."""

    kind: Kind = "fixed"
    lr: float = 0.1
    """The rate; one-cycle: its peak."""
    factor: float = 0.1
    """steps: what the rate is multiplied by at each milestone."""
    at: tuple[float, ...] = ()
    """steps: the milestones, in what the recipe's length is in, iterations or epochs."""
    peak: float = 0.25
    """one-cycle: the part of the run after which the rate is highest."""
    start: float = 0.1
    """one-cycle: the first rate, as a part of `lr`."""
    end: float = 0.0
    """one-cycle: what the rate goes down to, as a part of `lr`."""


@dataclass(frozen=True, slots=True)
class Warmup:
    """Another rate at the beginning: for some iterations, or until the training error is low enough."""

    lr: float
    iterations: int | None = None
    """How long; None: until the error is low enough."""
    linear: bool = False
    """Whether the rate rises from `lr` to the schedule's over the iterations; else it stays `lr`."""
    until_error: float | None = None
    """Per cent of training images. The first iteration whose running error is below it is the last."""
    at_most: int = 2000
    """Iterations after which the warm-up ends, whatever the error; and a tenth of the run in any case."""
    from_depth: int = 0
    """Weighted layers from which on a net is warmed up at all."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A schedule in iterations, for one run."""

    iterations: int
    """Of the whole run."""
    schedule: Schedule
    at: tuple[int, ...]
    """steps: the milestones: the first iterations, from 0, of each lower rate."""
    warmup: Warmup | None
    most: int = 0
    """Iterations that a warm-up can take."""

    def waits(self, iteration: int) -> bool:
        """Whether the warm-up may still be waiting for the error, which only the run can tell."""
        return self.warmup is not None and self.warmup.until_error is not None and iteration < self.most

    def lr(self, iteration: int, warming: bool = False) -> float:
        """The rate of an iteration, from 0; `warming`: whether a warm-up waits for the error still."""
        warmup = self.warmup
        if warmup is None:
            return self._scheduled(iteration)
        if warmup.until_error is not None:
            return warmup.lr if warming and iteration < self.most else self._scheduled(iteration)
        if iteration >= self.most:
            return self._scheduled(iteration)
        if not warmup.linear:
            return warmup.lr
        return warmup.lr + (self._scheduled(iteration) - warmup.lr) * iteration / self.most

    def _scheduled(self, iteration: int) -> float:
        schedule = self.schedule
        match schedule.kind:
            case "fixed":
                return schedule.lr
            case "steps":
                # Not a product of factors one after another: 0.1 * 0.1 * 0.1 is not 0.001.
                passed = sum(iteration >= milestone for milestone in self.at)
                return schedule.lr if not passed else float(f"{schedule.lr * schedule.factor**passed:.12g}")
            case "one-cycle":
                top = max(1, round(schedule.peak * self.iterations))
                if iteration < top:
                    return schedule.lr * (schedule.start + (1 - schedule.start) * iteration / top)
                left = (self.iterations - iteration) / max(1, self.iterations - top)
                return schedule.lr * (schedule.end + (1 - schedule.end) * max(0.0, left))
            case _:
                assert_never(schedule.kind)


def rate(
    schedule: Schedule, warmup: Warmup | None, *, iterations: int, at: tuple[int, ...] = (), depth: int = 0
) -> Rate:
    """The rate of a run of so many iterations, its milestones given in iterations, of a net of `depth` layers."""
    if warmup is not None and depth < warmup.from_depth:
        warmup = None
    most = 0
    if warmup is not None:
        # Without the bound a net that learns nothing would never leave the warm-up, and a short run would be one.
        most = (
            min(warmup.at_most, iterations // 10) if warmup.iterations is None else min(warmup.iterations, iterations)
        )
    return Rate(iterations, schedule, at, warmup, most)
