"""How long one measures: warm-up, samples of latency, windows of throughput. Calls and clock are passed in."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resnetcli.bench.statistics import interval, median

Timer = Callable[[int], float]
"""Makes so many calls and returns the seconds they took together."""
Clock = Callable[[], float]
"""Seconds since some moment."""
Tell = Callable[[float], None]
"""Is told how much of the work is done, from 0 to 1."""


def tell_nobody(share: float) -> None:
    """For who watches no progress."""


def part(tell: Tell, number: int, of: int) -> Tell:
    """For one of several pieces of work: its shares are of that piece."""
    return lambda share: tell((number + share) / of)


@dataclass(frozen=True, slots=True)
class Warmup:
    """What was run before anything counted."""

    seconds: float
    calls: int
    settled: bool
    """Whether the running median had come to rest when it ended."""


@dataclass(frozen=True, slots=True)
class Samples:
    """Seconds a call, in the order taken, none left out."""

    seconds: tuple[float, ...]
    calls: int
    """How many calls each sample is the mean of."""
    precise: bool
    """Whether the interval of the median had become narrow enough; else time had run out."""


def warm_up(
    timer: Timer, clock: Clock, *, least_s: float = 0.5, most_s: float = 2.0, calls: int = 3, tolerance: float = 0.01
) -> Warmup:
    """Calls until `least_s` and `calls` have passed and the running median moves by less than `tolerance`, or `most_s`.

    It has come to rest when the median of all calls is that of the earlier half of them.
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
            return Warmup(elapsed, len(times), settled)


def sample(
    timer: Timer,
    clock: Clock,
    *,
    budget_s: float,
    least_s: float = 0.5,
    least: int = 10,
    tick_s: float = 1e-9,
    tolerance: float = 0.01,
    tell: Tell = tell_nobody,
) -> Samples:
    """Samples until the median's 95% interval is within `tolerance` of it, or the budget ends.

    A sample is of as many calls as last max(1 ms, 100 ticks of the clock). There are `least` or more of them over
    `least_s` or more; where they are so slow that this would take more than four budgets, three have to do.
    """
    start = clock()
    calls = repeats(timer, max(1e-3, 100 * tick_s))
    seconds: list[float] = []
    check = least
    while True:
        seconds.append(timer(calls) / calls)
        elapsed, n = clock() - start, len(seconds)
        tell(min(1.0, elapsed / budget_s))
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
    """When to look again: looking costs time too, and looking often finds a lucky moment."""
    return n + max(1, n // 10)
