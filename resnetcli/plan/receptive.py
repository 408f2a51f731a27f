"""What each step sees of the image: receptive field, stride and padding, exact, over all paths that lead to it.

Along one axis, the value at position o of a step depends, by one path, on the pixels from `J*o + low` to
`J*o + high`: J is the product of the path's strides (its *stride*), `high - low + 1` its *field*, `-low` its *padding*:
how far the window of position 0 reaches beyond the image's edge. A window of K positions, dilated by D, padded by P,
at stride S, reads positions `S*o - P` to `S*o - P + D*(K-1)` of the step before it (Araujo, Norris and Sim 2019,
Computing Receptive Fields of Convolutional Neural Networks, eqs. 1 to 4). Where paths meet, the largest field is the
extent of all of them, each where its own padding puts it; the smallest is that of the smallest path alone.

Sizes are those of a position far from the edges, whatever the image's size: a field may be larger than the image.
Dilation and strides leave gaps inside a field; its extent counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import groupby
from math import gcd, lcm
from typing import Literal

from resnetcli.errors import ResourceError, UsageError
from resnetcli.ops import WHOLE, Join, Op, Shape, Window
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

MAX_PERIOD = 16_384
"""After so many positions the windows of uneven pooling must repeat, or they are not followed."""


@dataclass(frozen=True, slots=True)
class Span:
    """What a step sees along one axis, in pixels; None in the place of a figure without bound: the whole axis."""

    size_min: int | None
    """Of the path that sees least."""
    size_max: int | None
    """Of all paths together."""
    stride_min: int | None
    """Pixels from one position's window to the next; one number but where paths or windows are uneven."""
    stride_max: int | None
    padding_min: int | None
    """Pixels that position 0's window reaches beyond the image, of the path where they are fewest."""
    padding_max: int | None
    """Of all paths together."""

    @property
    def whole(self) -> bool:
        """Whether some path reads the whole axis: global pooling, a fully connected layer, a pyramid, regions."""
        return self.size_max is None

    @property
    def stride(self) -> int | None:
        """The stride if it is one number."""
        low, high = self.stride_min, self.stride_max
        return low if low == high else None


@dataclass(frozen=True, slots=True)
class Receptive:
    """What a step sees of the image."""

    h: Span
    w: Span

    @property
    def whole(self) -> bool:
        """Whether some path reads the whole image."""
        return self.h.whole and self.w.whole


def receptive(plan: Plan) -> tuple[Receptive, ...]:
    """What each step sees, one a step.

    Raises ResourceError where uneven poolings follow on each other whose windows repeat after too many positions,
    UsageError for the plan of a PyTorch model, of which it is not known what a step reads.
    """
    if is_traced(plan):
        raise UsageError("receptive fields are of specs: of a PyTorch model it is not known what a layer reads")
    axes = [_along(plan, 0), _along(plan, 1)]
    spans = [
        [_span(seen, getattr(step.shape, axis)) for seen, step in zip(along, plan.steps, strict=True)]
        for along, axis in zip(axes, ("h", "w"), strict=True)
    ]
    return tuple(Receptive(h, w) for h, w in zip(*spans, strict=True))


@dataclass(frozen=True, slots=True)
class _Paths:
    """Windows of all paths of one stride: position o's is position (o mod period)'s, moved by so many shifts."""

    shift: int
    """Pixels from a position's window to that of the position a period later."""
    lows: tuple[int, ...]
    """First pixel that any path reads, by position within the period."""
    highs: tuple[int, ...]
    """Last pixel that any path reads."""
    latest: tuple[int, ...]
    """First pixel of the path that begins last."""
    small_lows: tuple[int, ...]
    """First pixel of the path that sees least."""
    small_highs: tuple[int, ...]

    @property
    def period(self) -> int:
        return len(self.lows)

    @property
    def stride(self) -> Fraction:
        """On average, which tells paths apart."""
        return Fraction(self.shift, self.period)

    def steps(self, size: int) -> list[int]:
        """Pixels from a window to the next, of each of `size` positions: from first to first and from last to last."""
        places = range(min(self.period, size - 1) if size > 1 else self.period)
        return [self.at(ends, o + 1) - self.at(ends, o) for ends in (self.lows, self.highs) for o in places]

    def at(self, bounds: tuple[int, ...], position: int) -> int:
        """A bound at any position, also before 0 and beyond the map."""
        times, place = divmod(position, len(bounds))
        return bounds[place] + times * self.shift

    def repeated(self, period: int) -> _Paths:
        """The same over a multiple of the period."""
        if period == self.period:
            return self
        return _Paths(self.shift * (period // self.period), *(
            tuple(self.at(bounds, position) for position in range(period)) for bounds in self.bounds()
        ))  # fmt: skip

    def bounds(self) -> tuple[tuple[int, ...], ...]:
        return self.lows, self.highs, self.latest, self.small_lows, self.small_highs

    def least(self, positions: int | None = None) -> int:
        """Pixels of the smallest path, over so many positions, or all."""
        every = zip(self.small_lows[:positions], self.small_highs[:positions], strict=True)
        return min(high - low + 1 for low, high in every)


@dataclass(frozen=True, slots=True)
class _Seen:
    """What a step sees along one axis."""

    whole: bool
    """Whether some path reads all of it."""
    paths: tuple[_Paths, ...]
    """The other paths, by stride."""


_ALL = _Seen(True, ())
_PIXEL = _Seen(False, (_Paths(1, (0,), (0,), (0,), (0,), (0,)),))


def _along(plan: Plan, axis: Literal[0, 1]) -> list[_Seen]:
    found: list[_Seen] = []
    for step in plan.steps:
        if not step.inputs:
            found.append(_PIXEL)
        elif isinstance(step.op, Join):
            found.append(_together([found[i] for i in step.inputs]))
        else:
            found.append(_through(found[step.inputs[0]], step.op, plan.steps[step.inputs[0]].shape, axis))
    return found


def _through(x: _Seen, op: Op, before: Shape, axis: Literal[0, 1]) -> _Seen:
    """What is seen behind an operation on one feature map."""
    window = op.window(before, axis)
    if window is WHOLE:
        return _ALL
    if window is None or window == _POSITION:
        return x
    return _Seen(x.whole, tuple(_composed(paths, window) for paths in x.paths))


_POSITION = Window(1, (0,), (0,))


def _composed(x: _Paths, window: Window) -> _Paths:
    """The windows in the image of windows over x."""
    one = len(window.firsts)
    period = one * (x.period // gcd(x.period, window.shift))
    _bounded(period)

    def bound(bounds: tuple[int, ...], ends: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(x.at(bounds, ends[o % one] + window.shift * (o // one)) for o in range(period))

    return _Paths(
        x.shift * (window.shift * (period // one) // x.period),
        bound(x.lows, window.firsts),
        bound(x.highs, window.lasts),
        bound(x.latest, window.firsts),
        bound(x.small_lows, window.firsts),
        bound(x.small_highs, window.lasts),
    )


def _together(inputs: Iterable[_Seen]) -> _Seen:
    """What is seen where several values meet."""
    distinct = list(dict.fromkeys(inputs))
    if len(distinct) == 1:
        return distinct[0]
    every = sorted((paths for seen in distinct for paths in seen.paths), key=lambda paths: paths.stride)
    joined = tuple(_joined(list(alike)) for _, alike in groupby(every, key=lambda paths: paths.stride))
    return _Seen(any(seen.whole for seen in distinct), joined)


def _joined(every: list[_Paths]) -> _Paths:
    """Paths of one stride as one."""
    period = lcm(*(paths.period for paths in every))
    _bounded(period)
    every = [paths.repeated(period) for paths in every]
    # Behind even windows the smallest path stays the smallest, for they widen all paths of one stride alike.
    smallest = min(every, key=lambda paths: paths.least())
    return _Paths(
        every[0].shift,
        tuple(map(min, zip(*(paths.lows for paths in every), strict=True))),
        tuple(map(max, zip(*(paths.highs for paths in every), strict=True))),
        tuple(map(max, zip(*(paths.latest for paths in every), strict=True))),
        smallest.small_lows,
        smallest.small_highs,
    )


def _bounded(period: int) -> None:
    if period > MAX_PERIOD:
        raise ResourceError(
            f"the windows of these poolings repeat only after {period:,} positions: their fields are not followed",
            "`avg to HxW` or `max to HxW` of a size that divides the map's has even windows",
        )


def _span(seen: _Seen, size: int) -> Span:
    """The figures of an axis of `size` positions."""
    if not seen.paths:
        return Span(None, None, None, None, None, None)
    paths = seen.paths
    # Windows of one stride are alike from period to period; those of several drift apart from position to position.
    places = range(min(size, paths[0].period) if len(paths) == 1 else size)
    most = max(max(p.at(p.highs, o) for p in paths) - min(p.at(p.lows, o) for p in paths) + 1 for o in places)
    strides = [stride for p in paths for stride in p.steps(size)]
    return Span(
        min(p.least(size) for p in paths),
        None if seen.whole else most,
        min(strides),
        max(strides),
        min(-p.latest[0] for p in paths),
        None if seen.whole else max(-p.lows[0] for p in paths),
    )
