"""Roofline analysis of a model: its lower bounds beside its measured latency, by stage, layer and kind of step.

Measured time above the lower bound is called unexplained.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from resnetcli.frozen import frozen
from resnetcli.ops import Shape
from resnetcli.plan.count import Counts, count, stage_steps
from resnetcli.plan.plan import Plan
from resnetcli.roofline.bounds import Bound, LowerBound, RooflineCost, add_costs, lower_bound
from resnetcli.roofline.peaks import DevicePeaks

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.versus import Ratio
    from resnetcli.roofline.layers import LayerTimes

Cause = Bound | Literal["unexplained"]
LAUNCH_BOUND = 0.8
"""A model is launch-bound from this share of the latency on: the CPU's time to start the kernels."""


@frozen
class RooflinePart:
    """Some steps of a model: a stage, a kind of step, or one step."""

    name: str
    output: Shape | None
    steps: tuple[int, ...] = field(repr=False)
    macs: int
    """Per image."""
    activations: int
    """Per image."""
    eager: RooflineCost
    fused: RooflineCost
    measured_s: float | None
    """From the per-layer pass; None without one, or if it is unreliable."""

    @property
    def seconds(self) -> float:
        """The measured time, or the lower bound without one."""
        return self.measured_s or self.eager.lower_bound_s

    @property
    def attained(self) -> float | None:
        """Lower bound / measured time."""
        return self.eager.lower_bound_s / self.measured_s if self.measured_s else None


@dataclass(frozen=True)  # without slots, which `cached_property` cannot use
class Explanation:
    """Roofline analysis of one model on one device."""

    model: str
    title: str
    plan: Plan
    device_peaks: DevicePeaks
    eager: LowerBound
    fused: LowerBound
    measurement: Measurement | None = None
    layer_times: LayerTimes | None = None

    @property
    def label(self) -> str:
        """The model with the parameters that were set."""
        return self.plan.label(self.model)

    @property
    def full_title(self) -> str:
        """The title with the parameters that were set."""
        return self.plan.label(self.title)

    @property
    def time_s(self) -> float:
        """The measured median, or the lower bound if nothing was measured."""
        return self.measurement.median_s if self.measurement else self.eager.seconds

    @property
    def attained(self) -> float | None:
        """Lower bound / measured latency; above 1 the device peaks are too low."""
        return self.eager.seconds / self.measurement.median_s if self.measurement else None

    @property
    def launch_bound(self) -> bool:
        """Whether a GPU waits for the CPU: launching the kernels takes most of the measured time."""
        m = self.measurement
        return m is not None and m.host_s is not None and m.host_s >= LAUNCH_BOUND * m.median_s

    @property
    def unexplained_s(self) -> float:
        """Measured time above the lower bound; negative if it is below."""
        return self.time_s - self.eager.seconds

    @property
    def seconds(self) -> dict[Cause, float]:
        """The time by cause; they sum to `time_s`."""
        return dict(self.eager.total.seconds.items()) | {"unexplained": self.unexplained_s}

    @property
    def shares(self) -> dict[Cause, float]:
        """Fractions of the time by cause; they sum to 1."""
        return {cause: seconds / self.time_s for cause, seconds in self.seconds.items()}

    @cached_property
    def counts(self) -> Counts:
        return count(self.plan)

    @cached_property
    def stages(self) -> tuple[RooflinePart, ...]:
        return tuple(self._part(stage, tuple(steps)) for stage, steps in stage_steps(self.plan).items() if steps)

    @cached_property
    def kinds(self) -> tuple[RooflinePart, ...]:
        """By kind of step (`conv 3x3`, `BatchNorm`), the slowest first."""
        groups: dict[str, list[int]] = {}
        for index, (step, cost) in enumerate(zip(self.plan.steps, self.eager.steps, strict=True)):
            if cost.kernels:
                groups.setdefault(step.op.label, []).append(index)
        kinds = [self._part(name, tuple(steps)) for name, steps in groups.items()]
        return tuple(sorted(kinds, key=lambda part: -part.seconds))

    def slowest_layers(self, limit: int | None = 5) -> tuple[RooflinePart, ...]:
        """The steps by falling time."""
        layers = [self._part(step.path, (i,)) for i, step in enumerate(self.plan.steps) if step.inputs]
        return tuple(sorted(layers, key=lambda part: -part.seconds)[:limit])

    def _part(self, name: str, steps: tuple[int, ...]) -> RooflinePart:
        counts = self.counts.steps
        times = self.layer_times.reliable_s if self.layer_times else None
        return RooflinePart(
            name,
            self.plan.steps[steps[-1]].shape,
            steps,
            sum(counts[i].macs for i in steps),
            sum(counts[i].activations for i in steps),
            add_costs(self.eager.steps[i] for i in steps),
            add_costs(self.fused.steps[i] for i in steps),
            None if times is None else sum(times[i] for i in steps),
        )


def explain(
    model: str,
    plan: Plan,
    title: str,
    device_peaks: DevicePeaks,
    *,
    dtype: str = "fp32",
    batch_size: int = 1,
    measurement: Measurement | None = None,
    layer_times: LayerTimes | None = None,
    linear_dtype: str | None = None,
) -> Explanation:
    """Analyze a model, measured or not. Raises UsageError as `lower_bound` does."""
    channels_last = measurement is not None and measurement.options.channels_last
    eager = lower_bound(plan, device_peaks, dtype=dtype, batch_size=batch_size, channels_last=channels_last,
                        linear_dtype=linear_dtype)  # fmt: skip
    fused = lower_bound(plan, device_peaks, dtype=dtype, batch_size=batch_size, fused=True, linear_dtype=linear_dtype)
    return Explanation(model, title, plan, device_peaks, eager, fused, measurement, layer_times)


def lower_bounds(
    models: Sequence[tuple[str, str, Plan]], device_peaks: DevicePeaks, *, dtype: str = "fp32", batch_size: int = 1
) -> tuple[Explanation, ...]:
    """Analyze models (model, title, plan) without measuring them. Raises UsageError as `lower_bound` does."""
    return tuple(
        explain(model, plan, title, device_peaks, dtype=dtype, batch_size=batch_size) for model, title, plan in models
    )


# --- against another model ---------------------------------------------------------------------------------------


@frozen
class TimeDifference:
    """How a model's time for one batch differs from another's, by cause."""

    model: Explanation
    other: Explanation
    paired: Ratio | None = None
    """The model's latency / the other's, timed interleaved; None if nothing was measured."""

    @property
    def ratio(self) -> float:
        """The model's time / the other's."""
        return self.paired.ratio if self.paired else self.model.time_s / self.other.time_s

    @property
    def seconds(self) -> dict[Cause, float]:
        """The difference by cause; they sum to it."""
        other = self.other.seconds
        return {cause: seconds - other[cause] for cause, seconds in self.model.seconds.items()}

    @property
    def figures(self) -> dict[str, tuple[int, int]]:
        """The other's and the model's: MACs and activations per image, bytes moved and kernels per batch."""
        old, new = self.other.eager.total, self.model.eager.total
        counts = {
            name: (self.other.counts.total.figure(name), self.model.counts.total.figure(name))
            for name in ("macs", "activations")
        }
        return counts | {"bytes": (old.bytes, new.bytes), "kernels": (old.kernels, new.kernels)}

    def ratio_of(self, figure: str) -> float | None:
        """The model's figure / the other's; None if only the other's is 0."""
        old, new = self.figures[figure]
        if old == new:
            return 1.0
        return new / old if old else None

    @property
    def timed(self) -> bool:
        """Whether both models have reliable layer times."""
        return all(each.layer_times is not None and each.layer_times.agrees for each in (self.model, self.other))

    def time_of(self, part: RooflinePart | None) -> float:
        """A part's measured time if both models' layers were timed, else its lower bound; 0 for a missing part."""
        if part is None:
            return 0.0
        return part.measured_s if self.timed and part.measured_s is not None else part.eager.lower_bound_s

    @property
    def kinds(self) -> tuple[KindDifference, ...]:
        """Kinds of step that differ, the largest difference first."""
        old, new = ({part.name: part for part in each.kinds} for each in (self.other, self.model))
        kinds = [
            KindDifference(
                name, old.get(name), new.get(name), self.time_of(new.get(name)) - self.time_of(old.get(name))
            )
            for name in dict.fromkeys([*new, *old])
            if _work(old.get(name)) != _work(new.get(name))
        ]
        return tuple(sorted(kinds, key=lambda kind: abs(kind.difference_s), reverse=True))


@frozen
class KindDifference:
    """A kind of step in two models."""

    kind: str
    other: RooflinePart | None
    model: RooflinePart | None
    difference_s: float
    """The model's time less the other's."""


def _work(part: RooflinePart | None) -> tuple[int, int, int]:
    return (0, 0, 0) if part is None else (part.eager.flops, part.eager.bytes, part.eager.kernels)
