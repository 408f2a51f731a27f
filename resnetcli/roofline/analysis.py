"""Why a net takes the time it takes: the least time its arithmetic, its memory traffic and its launches allow.

Nothing is fitted. A step cannot be quicker than its floating-point operations at the device's peak, nor than its bytes
at the bandwidth of its working set, nor than its kernels can be asked for. What a measurement takes beyond that is not
explained by it, and is called so (Williams et al. 2009, "Roofline").
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from resnetcli.bench.worker import Job, run
from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import Execution, Linear, Shape, Traffic
from resnetcli.plan.count import Counts, count, row_steps
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan, Step
from resnetcli.plan.traffic import traffic
from resnetcli.plan.training import is_traced
from resnetcli.roofline.peaks import DTYPE_BYTES, Ceilings

if TYPE_CHECKING:
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.options import RunOptions
    from resnetcli.bench.versus import Ratio
    from resnetcli.roofline.layers import Split

MAX_BATCH = 10**12
Bound = Literal["compute", "memory", "overhead"]
BOUNDS: tuple[Bound, ...] = ("compute", "memory", "overhead")
LAUNCH_BOUND = 0.8
"""A model is launch-bound from this share of the latency on: the CPU's time to start the kernels."""


@dataclass(frozen=True, slots=True)
class Work:
    """What a step, or some together, ask of a device for one batch, and the seconds each of it takes at least."""

    flops: int = 0
    bytes: int = 0
    kernels: int = 0
    compute_s: float = 0.0
    """Work of steps whose arithmetic takes longer than their traffic."""
    memory_s: float = 0.0
    """Work of steps whose traffic takes longer."""
    overhead_s: float = 0.0
    """Starting the kernels, one after the other."""

    @property
    def floor_s(self) -> float:
        """The least time for all of it."""
        return self.compute_s + self.memory_s + self.overhead_s

    @property
    def intensity(self) -> float:
        """Floating-point operations a byte."""
        return self.flops / self.bytes if self.bytes else 0.0

    @property
    def bound(self) -> Bound:
        """What takes most of the floor."""
        seconds = {"compute": self.compute_s, "memory": self.memory_s, "overhead": self.overhead_s}
        return max(BOUNDS, key=lambda bound: seconds[bound])

    def __add__(self, other: Work) -> Work:
        return Work(
            self.flops + other.flops,
            self.bytes + other.bytes,
            self.kernels + other.kernels,
            self.compute_s + other.compute_s,
            self.memory_s + other.memory_s,
            self.overhead_s + other.overhead_s,
        )


@dataclass(frozen=True, slots=True)
class Floor:
    """A net's least time on a device, for one batch."""

    dtype: str
    batch: int
    fused: bool
    """Whether element-wise steps are part of others' kernels, or executed one by one as eager PyTorch does."""
    channels_last: bool
    """Whether it is executed in that layout, in which a GPU copies some values."""
    steps: tuple[Work, ...] = field(repr=False)
    """As many as the plan has."""
    total: Work
    """Their sum; the overhead is more than theirs where kernels cannot be asked for as quickly as they would run."""

    @property
    def seconds(self) -> float:
        """The least time."""
        return self.total.floor_s


def floor(
    plan: Plan,
    ceilings: Ceilings,
    *,
    dtype: str = "fp32",
    batch: int = 1,
    fused: bool = False,
    channels_last: bool = False,
    products: str | None = None,
) -> Floor:
    """The least time a device with such ceilings can take for a batch.

    `products` is what fully connected layers compute in if that is not `dtype`: by default PyTorch allows TF32 only in
    convolutions. Raises UsageError for a dtype there is no ceiling for, a batch without images, a model that was only
    counted, and where there is nothing to bound: a net that computes nothing, or ceilings no device has.
    """
    if not 1 <= batch <= MAX_BATCH:
        raise UsageError(f"a batch of {batch} images", f"at least 1{f', at most {MAX_BATCH:,}' if batch > 0 else ''}")
    if is_traced(plan):
        raise UsageError(f"`{plan.name}` is a PyTorch model: what it reads and writes is not known", "write its spec")
    peak, size, counts = ceilings.peak(dtype), DTYPE_BYTES[dtype], count(plan)
    matmul = ceilings.peak(products or dtype).matmul
    execution = Execution("cuda" if ceilings.device == "cuda" else "cpu", dtype, channels_last)
    works = []
    every = traffic(plan, fused=fused, execution=execution)
    for step, cost, moved in zip(plan.steps, counts.steps, every, strict=True):
        flops = batch * cost.flops
        arithmetic = flops / (matmul if isinstance(step.op, Linear) else peak.best)
        works.append(_work(ceilings, flops, arithmetic, moved, batch, size))
    total = _sum(works)
    if not total.kernels:
        raise UsageError(f"`{plan.name}` computes nothing, so nothing bounds it")
    if not math.isfinite(total.floor_s) or total.floor_s <= 0:
        problem = f"by the ceilings of {ceilings.name} `{plan.name}` takes {total.floor_s:g} s"
        raise UsageError(problem, "no device has such: look into its profile")
    asked_s = total.kernels * ceilings.launch_s  # a device that works while it is asked waits if that takes longer
    waiting = max(0.0, asked_s - total.floor_s)
    return Floor(dtype, batch, fused, channels_last, tuple(works), total + Work(overhead_s=waiting))


def _work(ceilings: Ceilings, flops: int, arithmetic_s: float, moved: Traffic, batch: int, size: int) -> Work:
    read, written = moved.read_bytes(batch, size), moved.written_bytes(batch, size)
    moving_s = ceilings.seconds(read, written) if read + written else 0.0
    compute = arithmetic_s > moving_s
    return Work(
        flops,
        read + written,
        moved.kernels,
        arithmetic_s if compute else 0.0,
        0.0 if compute else moving_s,
        moved.kernels * ceilings.gap_s,
    )


def _sum(works: Iterable[Work]) -> Work:
    total = Work()
    for work in works:
        total += work
    return total


@dataclass(frozen=True, slots=True)
class Part:
    """Some steps of a net: a table row, a kind of step, or one step."""

    name: str
    output: Shape | None
    steps: tuple[int, ...] = field(repr=False)
    macs: int
    """For one image, as the next."""
    activations: int
    work: Work
    fused: Work
    measured_s: float | None
    """By the profiled pass; None without one, or where that is not to be trusted."""

    @property
    def attained(self) -> float | None:
        """The floor's share of the measured time."""
        return self.work.floor_s / self.measured_s if self.measured_s else None


@dataclass(frozen=True)  # without slots, which `cached_property` cannot use
class Explanation:
    """One net on one device: the floors, and the measured time beside them if it was measured."""

    model: str
    title: str
    plan: Plan
    ceilings: Ceilings
    executed: Floor
    fused: Floor
    measurement: Measurement | None = None
    split: Split | None = None
    """Times of the layers."""

    @property
    def time_s(self) -> float:
        """What is explained: the measured median, or the floor where nothing was measured."""
        return self.measurement.median_s if self.measurement else self.executed.seconds

    @property
    def attained(self) -> float | None:
        """The floor's share of the measured time; above 1 the ceilings are too low."""
        return self.executed.seconds / self.measurement.median_s if self.measurement else None

    @property
    def launch_bound(self) -> bool:
        """Whether a GPU waits for the CPU: starting the kernels takes most of the measured time."""
        m = self.measurement
        return m is not None and m.host_s is not None and m.host_s >= LAUNCH_BOUND * m.median_s

    @property
    def unexplained_s(self) -> float:
        """What was measured above the floor; negative where it is below."""
        return self.time_s - self.executed.seconds

    @property
    def shares(self) -> dict[str, float]:
        """Of the time: compute-, memory- and overhead-bound, and unexplained; they sum to 1."""
        total, time = self.executed.total, self.time_s
        return {
            "compute": total.compute_s / time,
            "memory": total.memory_s / time,
            "overhead": total.overhead_s / time,
            "unexplained": self.unexplained_s / time,
        }

    @cached_property
    def counts(self) -> Counts:
        """The plan's costs."""
        return count(self.plan)

    @cached_property
    def rows(self) -> tuple[Part, ...]:
        """By table row."""
        return tuple(self._part(row, tuple(steps)) for row, steps in row_steps(self.plan).items() if steps)

    @cached_property
    def kinds(self) -> tuple[Part, ...]:
        """By kind of step, the one that takes longest first."""
        groups: dict[str, list[int]] = {}
        for index, step in enumerate(self.plan.steps):
            if self.executed.steps[index].kernels:
                groups.setdefault(kind(step), []).append(index)
        found = [self._part(name, tuple(steps)) for name, steps in groups.items()]
        return tuple(sorted(found, key=lambda part: -(part.measured_s or part.work.floor_s)))

    def layers(self, most: int = 5) -> tuple[Part, ...]:
        """The steps that take longest."""
        every = [self._part(step.path, (i,)) for i, step in enumerate(self.plan.steps) if step.inputs]
        return tuple(sorted(every, key=lambda part: -(part.measured_s or part.work.floor_s))[:most])

    def _part(self, name: str, steps: tuple[int, ...]) -> Part:
        counts = self.counts.steps
        times = self.split.steps_s if self.split else None
        return Part(
            name,
            self.plan.steps[steps[-1]].shape,
            steps,
            sum(counts[i].macs for i in steps),
            sum(counts[i].activations for i in steps),
            _sum(self.executed.steps[i] for i in steps),
            _sum(self.fused.steps[i] for i in steps),
            None if times is None else sum(times[i] for i in steps),
        )


def kind(step: Step) -> str:
    """What sort of step it is: `conv 3x3`, `grouped conv 3x3`, `BatchNorm`."""
    return step.op.label


def explain(
    model: str,
    plan: Plan,
    title: str,
    ceilings: Ceilings,
    *,
    dtype: str = "fp32",
    batch: int = 1,
    measurement: Measurement | None = None,
    split: Split | None = None,
    products: str | None = None,
) -> Explanation:
    """The floors of a net beside its measured time. Raises UsageError as `floor` does."""
    channels_last = measurement is not None and measurement.options.channels_last
    executed = floor(plan, ceilings, dtype=dtype, batch=batch, channels_last=channels_last, products=products)
    fused = floor(plan, ceilings, dtype=dtype, batch=batch, fused=True, products=products)
    return Explanation(model, title, plan, ceilings, executed, fused, measurement, split)


def floors(
    nets: Sequence[tuple[str, str, Plan]], ceilings: Ceilings, *, dtype: str = "fp32", batch_size: int = 1
) -> tuple[Explanation, ...]:
    """Nets (model, title, plan) that were not measured. Raises UsageError as `floor` does."""
    return tuple(explain(model, plan, title, ceilings, dtype=dtype, batch=batch_size) for model, title, plan in nets)


# --- against another net -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Difference:
    """What a net asks for beyond another, and what of the difference in time, for one batch, that explains."""

    net: Explanation
    other: Explanation
    paired: Ratio | None = None
    """The net's time to the other's, timed in turns; None where nothing was measured."""

    @property
    def time_ratio(self) -> float:
        """The net's time to the other's."""
        return self.paired.ratio if self.paired else self.net.time_s / self.other.time_s

    @property
    def seconds(self) -> dict[str, float]:
        """The difference, as the shares of time: its parts sum to it."""
        net, other = self.net, self.other
        return {name: net.shares[name] * net.time_s - other.shares[name] * other.time_s for name in net.shares}

    @property
    def figures(self) -> dict[str, tuple[int, int]]:
        """The other's and the net's: MACs and activations of an image, bytes moved and kernels of a batch."""
        found = {}
        for name in ("macs", "activations"):
            found[name] = self.other.counts.total.figure(name), self.net.counts.total.figure(name)
        old, new = self.other.executed.total, self.net.executed.total
        return found | {"bytes": (old.bytes, new.bytes), "kernels": (old.kernels, new.kernels)}

    def ratio(self, name: str) -> float | None:
        """The net's figure to the other's; None where only the other has none of it."""
        other, net = self.figures[name]
        if other == net:
            return 1.0
        return net / other if other else None

    @property
    def timed(self) -> bool:
        """Whether both nets' layers were timed, and add up."""
        return all(each.split is not None and each.split.agrees for each in (self.net, self.other))

    def time_of(self, part: Part | None) -> float:
        """A part's measured seconds where all were timed, else its floor; 0 for one that is not there."""
        if part is None:
            return 0.0
        return part.measured_s if self.timed and part.measured_s is not None else part.work.floor_s

    @property
    def kinds(self) -> tuple[tuple[str, Part | None, Part | None], ...]:
        """Kinds of step that differ, the other's and the net's, the largest difference first."""
        old, new = ({part.name: part for part in each.kinds} for each in (self.other, self.net))
        names = [name for name in dict.fromkeys([*new, *old]) if _figures(old.get(name)) != _figures(new.get(name))]

        def gap(name: str) -> float:
            return abs(self.time_of(new.get(name)) - self.time_of(old.get(name)))

        return tuple((name, old.get(name), new.get(name)) for name in sorted(names, key=gap, reverse=True))


def _figures(part: Part | None) -> tuple[int, int, int]:
    return (0, 0, 0) if part is None else (part.work.flops, part.work.bytes, part.work.kernels)


# --- what one might try ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A setting, and the least time it would allow."""

    setting: str
    """What to change, as `profile` takes it: `--dtype bf16 --compile`."""
    floor: Floor
    why: str
    measurement: Measurement | None = None
    problem: str = ""
    """Why it could not be measured, or does not count, if that was asked for."""
    fold_bn: bool = False
    cuda_graph: bool = False

    @property
    def seconds(self) -> float:
        """The floor it would give, for as many images as now."""
        return self.floor.seconds


def suggestions(found: Explanation) -> tuple[Suggestion, ...]:
    """Settings whose floor is lower by a tenth or more than the one as executed, the lowest first."""
    executed, ceilings, plan = found.executed, found.ceilings, found.plan
    peak = ceilings.peak(executed.dtype).best
    kept = [option for option, is_so in zip(("--channels-last", "--keep-memory"), _kept(found), strict=True) if is_so]

    def words(option: str = "", dtype: str = executed.dtype) -> str:
        return " ".join(filter(None, [f"--dtype {dtype}" if dtype != "fp32" else "", *kept, option]))

    def eager(plan: Plan, ceilings: Ceilings, dtype: str = executed.dtype) -> Floor:
        return floor(plan, ceilings, dtype=dtype, batch=executed.batch, channels_last=executed.channels_last)

    tried = [Suggestion(words("--compile"), found.fused, "element-wise steps cost no pass over memory")]
    # On a GPU a pass that adds the bias replaces BatchNorm's, so that folding saves kernels at most.
    saved = "fewer kernels than BatchNorm" if ceilings.device == "cuda" else "BatchNorm costs no pass over memory"
    tried.append(Suggestion(words("--fold-bn"), eager(fold(plan).plan, ceilings), saved, fold_bn=True))
    if ceilings.device == "cuda":
        replayed = replace(ceilings, launch_s=ceilings.gap_s)
        graph = eager(plan, replayed)
        tried.append(Suggestion(words("--cuda-graph"), graph, "nothing waits for launches", cuda_graph=True))
    for dtype in ceilings.peaks:
        if DTYPE_BYTES[dtype] > DTYPE_BYTES[executed.dtype] or ceilings.peaks[dtype].best <= 1.1 * peak:
            continue
        for fused in (False, True):
            name = words("--compile" if fused else "", dtype)
            why = (
                "half the bytes, more arithmetic a second"
                if DTYPE_BYTES[dtype] < 4
                else "more arithmetic a second, less exact"
            )
            lower = (
                floor(plan, ceilings, dtype=dtype, batch=executed.batch, fused=True)
                if fused
                else eager(plan, ceilings, dtype)
            )
            tried.append(Suggestion(name, lower, why))
    worth = [each for each in tried if each.seconds < 0.9 * executed.seconds]
    return tuple(sorted(worth, key=lambda each: each.seconds))


def _kept(found: Explanation) -> tuple[bool, bool]:
    """Whether the net was measured with channels_last, and with memory kept: what no suggestion changes."""
    m = found.measurement
    return (False, False) if m is None else (m.options.channels_last, m.options.keep_memory)


# --- measured ----------------------------------------------------------------------------------------------------


def ceilings_of(device: str, tell: Callable[[str], object] | None = None) -> Ceilings:
    """The ceilings of a device of this machine: those kept from earlier, else measured now and kept.

    Raises UsageError for a device there is not.
    """
    from resnetcli.bench.device import find
    from resnetcli.roofline.peaks import cache_file, cached, write_profile

    device = find(device)
    if (kept := cached(device)) is not None:
        return kept
    from resnetcli.roofline.calibrate import calibrate

    found = calibrate(device, report=tell)
    with suppress(OSError, UsageError):  # a failed cache write must not lose the measurement
        write_profile(found, cache_file(device))
    return found


def explain_measured(
    nets: Sequence[tuple[str, str, Plan]],
    ceilings: Ceilings,
    *,
    device: str,
    batch_size: int = 1,
    options: RunOptions | None = None,
    time_budget_s: float = 3.0,
) -> tuple[tuple[Explanation, ...], Ratio | None]:
    """One or two nets (model, title, plan) measured and explained, and how the first one's time relates to the other's.

    Raises what `measure` raises, and UsageError for a dtype there is no ceiling for.
    """
    from resnetcli.bench.interleaved import measure_interleaved
    from resnetcli.bench.latency import measure
    from resnetcli.bench.options import DEFAULT
    from resnetcli.roofline.layers import split

    chosen = options or DEFAULT
    for _, _, plan in nets:  # whatever is wrong with these is known before anything is measured
        floor(plan, ceilings, dtype=chosen.precision, batch=batch_size)
    plans = [plan for _, _, plan in nets]
    ratio = None
    if len(plans) == 1:
        outcomes: list[Measurement] = [
            measure(plans[0], device=device, batch_size=batch_size, options=chosen, time_budget_s=time_budget_s)
        ]
    else:
        together = measure_interleaved(
            plans, base=1, device=device, batch_size=batch_size, options=chosen, time_budget_s=time_budget_s
        )
        outcomes, ratio = [], together.ratios[0]
        for outcome in together.measured:
            if isinstance(outcome, ResourceError):
                raise outcome
            outcomes.append(outcome)
    found = []
    for (model, title, plan), m in zip(nets, outcomes, strict=True):
        times = split(plan, device=device, batch_size=batch_size, options=chosen, budget_s=time_budget_s)
        dtype = "tf32" if m.tf32 and "tf32" in ceilings.peaks else m.dtype
        explanation = explain(
            model, plan, title, ceilings, dtype=dtype, batch=batch_size, measurement=m, split=times,
            products="fp32" if m.dtype == "fp32" else None,
        )  # fmt: skip
        found.append(explanation)
    return tuple(found), ratio


def measure_suggestions(
    found: Explanation,
    tried: Sequence[Suggestion],
    *,
    device: str,
    time_budget_s: float = 3.0,
    measured: Callable[[Job], Measurement | str] = run,
) -> tuple[Suggestion, ...]:
    """The suggestions with their times, each in a separate process; one that cannot be measured says why instead.

    Nor does one count whose values are not those of eager fp32.
    """
    from resnetcli.bench.options import RunOptions, as_dtype
    from resnetcli.bench.search import checked

    done = []
    channels_last, keep_memory = _kept(found)
    for each in tried:
        options = RunOptions(
            dtype=as_dtype(each.floor.dtype), runtime="inductor" if each.floor.fused else "eager",
            fold_bn=each.fold_bn, cuda_graph=each.cuda_graph, channels_last=channels_last, keep_memory=keep_memory,
        )  # fmt: skip
        trial = checked(options, measured(Job(found.plan, options, device, found.executed.batch, time_budget_s)))
        done.append(replace(each, measurement=trial.measurement, problem=trial.problem))
    return tuple(done)


# --- prediction --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Prediction:
    """The floors of nets on a device that is not here."""

    ceilings: Ceilings
    nets: tuple[Explanation, ...]


_TIMM = "PyTorch Image Models' published fp16 (autocast), channels_last, eager times of PyTorch 2.4"


@dataclass(frozen=True, slots=True)
class Tested:
    """How far floors were from times that others measured, and what of."""

    dtype: str
    batch: int
    found: str

    def covers(self, floor: Floor) -> bool:
        """Whether that was tested, and not another case."""
        return (floor.dtype, floor.batch) == (self.dtype, self.batch)


TESTED: Mapping[str, Tested] = {
    "NVIDIA GeForce RTX 4090": Tested("fp16", 512, f"80% to 98% of {_TIMM}, 11 nets, median 93%"),
    "NVIDIA GeForce RTX 3090": Tested("fp16", 1024, f"71% to 92% of {_TIMM}, 3 nets"),
}
"""By the device's name."""


def bounds_of(floor: Floor) -> Iterator[tuple[Bound, float]]:
    """Each class and its share of the floor; they sum to 1."""
    total = floor.total
    for bound, seconds in zip(BOUNDS, (total.compute_s, total.memory_s, total.overhead_s), strict=True):
        yield bound, seconds / total.floor_s
