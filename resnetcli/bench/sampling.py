"""How long to measure: warm-up, samples of latency, windows of throughput. Calls and clock are passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnetcli.bench.statistics import interval, median

Timer = Callable[[int], float]
"""Makes a number of calls and returns the seconds they took in all."""
Clock = Callable[[], float]
"""Seconds since some moment."""
Progress = Callable[[float], None]
"""Receives the share of the work that is done, from 0 to 1."""


def no_progress(share: float) -> None:
    """Ignore progress."""


def portion(progress: Progress, number: int, of: int) -> Progress:
    """The progress of one of several equal pieces of work."""
    return lambda share: progress((number + share) / of)


@dataclass(frozen=True, kw_only=True)  # without slots: a `Measurement` inherits from several such classes
class Warmup:
    """The calls before the first sample."""

    warmup_s: float
    warmup_calls: int
    warmup_settled: bool
    """Whether the running median had converged when the warm-up ended."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds per call, in the order taken, none omitted."""

    seconds: tuple[float, ...]
    calls: int
    """Calls that each sample is the mean of."""
    precise: bool
    """Whether the median's interval had become narrow enough; otherwise the time budget ended."""


def warm_up(
    timer: Timer, clock: Clock, *, least_s: float = 0.5, most_s: float = 2.0, calls: int = 3, tolerance: float = 0.01
) -> Warmup:
    """Calls until `least_s` and `calls` have passed and the running median moves by less than `tolerance`, or `most_s`.

    It has converged when the median of all calls is that of the earlier half of them.
    """
    start = clock()
    times: list[float] = []
    check = calls
    while True:
        times.append(timer(1))
        elapsed = clock() - start
        if len(times) < calls or elapsed < least_s or (len(times) < check and elapsed < most_s):
            continue
        check = later(len(times))
        now = median(times)
        settled = abs(median(times[: len(times) // 2]) - now) <= tolerance * now
        if settled or elapsed >= most_s:
            return Warmup(warmup_s=elapsed, warmup_calls=len(times), warmup_settled=settled)


def sample(
    timer: Timer,
    clock: Clock,
    *,
    budget_s: float,
    least_s: float = 0.5,
    least: int = 10,
    tick_s: float = 1e-9,
    tolerance: float = 0.01,
    progress: Progress = no_progress,
) -> Samples:
    """Samples until the median's 95% interval is within `tolerance` of it, or the budget ends.

    Each sample has as many calls as last max(1 ms, 100 ticks of the clock). At least `least` samples are taken, over at
    least `least_s`; three suffice where that would take more than four budgets.
    """
    start = clock()
    calls = repeats(timer, max(1e-3, 100 * tick_s))
    seconds: list[float] = []
    check = least
    while True:
        seconds.append(timer(calls) / calls)
        elapsed, n = clock() - start, len(seconds)
        progress(min(1.0, elapsed / budget_s))
        if elapsed >= (budget_s if n >= least else 4 * budget_s) and n >= min(least, 3):
            return Samples(tuple(seconds), calls, precise(seconds, tolerance))
        if n >= check and elapsed >= least_s:
            check = later(n)
            if precise(seconds, tolerance):
                return Samples(tuple(seconds), calls, True)


def throughput(timer: Timer, clock: Clock, *, budget_s: float, call_s: float, windows: int = 5) -> float:
    """Calls a second, the median over windows of back-to-back calls; `call_s` is about how long one takes.

    Fewer windows where they would take twice the budget.
    """
    calls = max(1, round(budget_s / windows / call_s))
    start = clock()
    rates = [calls / timer(calls)]
    while len(rates) < windows and clock() - start < 2 * budget_s:
        rates.append(calls / timer(calls))
    return median(rates)


def repeats(timer: Timer, least_s: float) -> int:
    """Calls that together last `least_s`."""
    calls = 1
    while (seconds := timer(calls)) < least_s:
        calls = max(2 * calls, min(10 * calls, round(1.2 * calls * least_s / seconds) if seconds > 0 else 10 * calls))
    return calls


def precise(seconds: Sequence[float], tolerance: float = 0.01) -> bool:
    """Whether the median's 95% interval is within `tolerance` of it."""
    low, high = interval(seconds)
    middle = median(seconds)
    return middle - low <= tolerance * middle and high - middle <= tolerance * middle


def later(n: int) -> int:
    """Sample count at the next check: checks take time, and frequent ones stop at a lucky moment."""
    return n + max(1, n // 10)
