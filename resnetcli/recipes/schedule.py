"""The learning rate of every iteration, from a recipe's schedule, its length and the model's depth."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Annotated, Literal, assert_never

from resnetcli.errors import plural
from resnetcli.frozen import frozen
from resnetcli.recipes.schema import Range, Written

Kind = Literal["steps", "one-cycle", "fixed"]
USES = {"steps": ("at", "factor"), "one-cycle": ("end", "peak", "start"), "fixed": ()}
"""The fields that each kind of schedule has besides `kind` and `lr`."""
MAX_ITERATIONS = 100_000_000
MAX_LR = 1000
MAX_MILESTONES = 64


@frozen
class Schedule:
    """The learning rate after any warm-up."""

    kind: Kind
    lr: Annotated[float, Range(0, MAX_LR, above=True)]
    """The rate; one-cycle: its peak."""
    factor: Annotated[float, Range(0, 1, above=True)] = 0.1
    """steps: the factor of the rate at each milestone."""
    at: Annotated[
        tuple[float, ...], Range(0, MAX_ITERATIONS), Written(example="[32000, 48000]", length=MAX_MILESTONES)
    ] = ()
    """steps: the milestones, in iterations or epochs, as the recipe's length."""
    peak: Annotated[float, Range(0, 1, above=True, below=True)] = 0.25
    """one-cycle: the fraction of the run after which the rate is highest."""
    start: Annotated[float, Range(0, 1)] = 0.1
    """one-cycle: the first rate, as a fraction of `lr`."""
    end: Annotated[float, Range(0, 1)] = 0.0
    """one-cycle: the last rate, as a fraction of `lr`."""

    def problems(self, given: Collection[str]) -> Iterator[tuple[str, str, str]]:
        """Key, message and hint for each given key that the kind does not have, and for missing milestones."""
        uses = ("lr", *USES[self.kind])
        for name in given:
            if name not in ("kind", *uses):
                yield name, f"a schedule of kind `{self.kind}` has no `{name}`", f"it has {', '.join(uses)}"
        if self.kind == "steps" and "at" not in given:
            yield "", "`schedule` needs `at`", ""

    def text(self, unit: str) -> str:
        """`learning rate 0.1, x 0.1 at iterations 32,000, 48,000`; `unit`: of the milestones."""
        match self.kind, self.at:
            case ("fixed", _) | ("steps", ()):
                return f"learning rate {self.lr:g}"
            case "one-cycle", _:
                return f"learning rate up to {self.lr:g} at {self.peak:.0%} and down again"
        steps = ", ".join(f"{milestone:,.12g}" for milestone in self.at)
        return f"learning rate {self.lr:g}, x {self.factor:g} at {unit} {steps}"


@frozen
class Warmup:
    """Another rate at the beginning: for a number of iterations, or until the training error is low enough."""

    lr: Annotated[float, Range(0, MAX_LR)]
    iterations: Annotated[int | None, Range(1, MAX_ITERATIONS)] = None
    """How long; None: until the error is low enough."""
    linear: bool = False
    """Whether the rate rises from `lr` to the schedule's over the iterations; otherwise it stays `lr`."""
    until_error: Annotated[float | None, Range(0, 100, above=True)] = None
    """Percent of training images. The warm-up ends with the first iteration whose running error is below it."""
    at_most: Annotated[int, Range(1, MAX_ITERATIONS)] = 2000
    """Iterations after which the warm-up ends whatever the error, and after a tenth of the run in any case."""
    from_depth: Annotated[int, Range(0, 1_000_000)] = 0
    """Models of fewer weighted layers have no warm-up."""

    def problems(self, given: Collection[str]) -> Iterator[tuple[str, str, str]]:
        """Key, message and hint unless exactly one of `iterations` and `until_error` is given."""
        if (self.iterations is None) == (self.until_error is None):
            examples = "`{lr: 0.01, iterations: 400}` or `{lr: 0.01, until_error: 80, at_most: 2000}`"
            yield "", "a warm-up needs either `iterations` or `until_error`", examples

    @property
    def text(self) -> str:
        """`warm-up at 0.01 for 400 iterations`."""
        depth = f", from depth {self.from_depth} on" if self.from_depth else ""
        if self.iterations is None:
            return f"warm-up at {self.lr:g} until the training error is below {self.until_error:g}%{depth}"
        how = f"from {self.lr:g} up" if self.linear else f"at {self.lr:g}"
        return f"warm-up {how} for {plural(self.iterations, 'iteration')}{depth}"


@frozen
class Rate:
    """The schedule of one run, in iterations."""

    iterations: int
    """The length of the run."""
    schedule: Schedule
    at: tuple[int, ...]
    """steps: the milestones, each the first iteration, from 0, of a lower rate."""
    warmup: Warmup | None
    most: int = 0
    """Maximum iterations of the warm-up."""

    def waits(self, iteration: int) -> bool:
        """Whether the warm-up may still wait for the training error, which only the run knows."""
        return self.warmup is not None and self.warmup.until_error is not None and iteration < self.most

    def lr(self, iteration: int, warming: bool = False) -> float:
        """The rate of an iteration, from 0; `warming`: whether a warm-up still waits for the training error."""
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
                # Not by repeated multiplication: 0.1 * 0.1 * 0.1 is not 0.001.
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


def resolve_rate(
    schedule: Schedule, warmup: Warmup | None, *, iterations: int, at: tuple[int, ...] = (), depth: int = 0
) -> Rate:
    """The rate of a run of `iterations`, with milestones in iterations, for a model of `depth` weighted layers."""
    if warmup is not None and depth < warmup.from_depth:
        warmup = None
    most = 0
    if warmup is not None:
        # Bounded: a model that learns nothing would never leave the warm-up, a short run would consist of it.
        most = (
            min(warmup.at_most, iterations // 10) if warmup.iterations is None else min(warmup.iterations, iterations)
        )
    return Rate(iterations, schedule, at, warmup, most)
