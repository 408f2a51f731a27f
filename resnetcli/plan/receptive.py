"""Receptive field, stride and padding of each step: exact, over all paths from the image.

Along one axis, the output at position o of a step depends, by one path, on the pixels from `J*o + low` to
`J*o + high`: J is the product of the path's strides (its *stride*), `high - low + 1` its *field*, `-low` its *padding*:
how far the window of position 0 extends beyond the image. A window of K positions, dilated by D, padded by P,
at stride S, reads positions `S*o - P` to `S*o - P + D*(K-1)` of the step before it (Araujo, Norris and Sim 2019,
Computing Receptive Fields of Convolutional Neural Networks, eqs. 1 to 4). Where paths meet, the largest field is
the union of all of them, each shifted by its own padding; the smallest is that of the smallest path alone.

Sizes are those of a position far from the edges: a field may be larger than the image. Dilation and strides leave gaps
inside a field; its extent counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from itertools import groupby
from math import gcd, lcm
from typing import Literal

from resnetcli.errors import ResourceError, UsageError
from resnetcli.frozen import frozen
from resnetcli.ops import WHOLE, Join, Op, Shape, Window
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

MAX_PERIOD = 16_384
"""Largest period of the windows of uneven pooling that is followed."""


@frozen
class Span:
    """Receptive field along one axis, in pixels; None for the whole axis."""

    size_min: int | None
    """Field of the smallest path."""
    size_max: int | None
    """Union over all paths."""
    stride_min: int | None
    """Pixels from one position's window to the next; minimum and maximum differ where paths or windows are uneven."""
    stride_max: int | None
    padding_min: int | None
    """Pixels that position 0's window extends beyond the image, for the path with the fewest."""
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


@frozen
class Receptive:
    """Receptive field of a step."""

    h: Span
    w: Span

    @property
    def whole(self) -> bool:
        """Whether some path reads the whole image."""
        return self.h.whole and self.w.whole


def require_connections(*, traced: bool) -> None:
    """Raise UsageError for a PyTorch model."""
    if traced:
        raise UsageError("receptive fields require a spec: a PyTorch model's connections are unknown",
                         "omit `--receptive`, or write a spec of the model")  # fmt: skip


def receptive(plan: Plan) -> tuple[Receptive, ...]:
    """Receptive field of each step.

    Raises ResourceError if the windows of consecutive uneven poolings repeat after too many positions, UsageError for a
    PyTorch model.
    """
    require_connections(traced=is_traced(plan))
    axes = [_along(plan, 0), _along(plan, 1)]
    spans = [
        [_span(seen, getattr(step.shape, axis)) for seen, step in zip(along, plan.steps, strict=True)]
        for along, axis in zip(axes, ("h", "w"), strict=True)
    ]
    return tuple(Receptive(h, w) for h, w in zip(*spans, strict=True))


@frozen
class _Paths:
    """Windows of all paths of one stride; they repeat, shifted, after `period` positions."""

    shift: int
    """Pixels from a position's window to that of the position a period later."""
    lows: tuple[int, ...]
    """First pixel that any path reads, per position of the period."""
    highs: tuple[int, ...]
    """Last pixel that any path reads."""
    latest: tuple[int, ...]
    """First pixel of the path that starts last."""
    small_lows: tuple[int, ...]
    """First pixel of the smallest path."""
    small_highs: tuple[int, ...]

    @property
    def period(self) -> int:
        return len(self.lows)

    @property
    def stride(self) -> Fraction:
        """Mean stride, which identifies paths."""
        return Fraction(self.shift, self.period)

    def steps(self, size: int) -> list[int]:
        """Pixels from each of `size` windows to the next, between first and between last pixels."""
        places = range(min(self.period, size - 1) if size > 1 else self.period)
        return [self.at(ends, o + 1) - self.at(ends, o) for ends in (self.lows, self.highs) for o in places]

    def at(self, bounds: tuple[int, ...], position: int) -> int:
        """A bound at any position, also before 0 and beyond the feature map."""
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
        """Smallest field of the smallest path over `positions`, or all."""
        every = zip(self.small_lows[:positions], self.small_highs[:positions], strict=True)
        return min(high - low + 1 for low, high in every)


@frozen
class _Seen:
    """Paths from the image to a step along one axis."""

    whole: bool
    """Whether some path reads the whole axis."""
    paths: tuple[_Paths, ...]
    """The other paths, by stride."""


_ALL = _Seen(True, ())
_PIXEL = _Seen(False, (_Paths(1, (0,), (0,), (0,), (0,), (0,)),))


def _along(plan: Plan, axis: Literal[0, 1]) -> list[_Seen]:
    fields: list[_Seen] = []
    for step in plan.steps:
        if not step.inputs:
            fields.append(_PIXEL)
        elif isinstance(step.op, Join):
            fields.append(_together([fields[i] for i in step.inputs]))
        else:
            fields.append(_through(fields[step.inputs[0]], step.op, plan.steps[step.inputs[0]].shape, axis))
    return fields


def _through(x: _Seen, op: Op, before: Shape, axis: Literal[0, 1]) -> _Seen:
    """Paths through an operation on one feature map."""
    window = op.window(before, axis)
    if window is WHOLE:
        return _ALL
    if window is None or window == _POSITION:
        return x
    return _Seen(x.whole, tuple(_composed(paths, window) for paths in x.paths))


_POSITION = Window(1, (0,), (0,))


def _composed(x: _Paths, window: Window) -> _Paths:
    """Windows over x, in pixels of the image."""
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
    """Union of the paths of several inputs."""
    distinct = list(dict.fromkeys(inputs))
    if len(distinct) == 1:
        return distinct[0]
    every = sorted((paths for seen in distinct for paths in seen.paths), key=lambda paths: paths.stride)
    joined = tuple(_joined(list(alike)) for _, alike in groupby(every, key=lambda paths: paths.stride))
    return _Seen(any(seen.whole for seen in distinct), joined)


def _joined(every: list[_Paths]) -> _Paths:
    """Union of paths of one stride."""
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
            f"the windows of these poolings repeat after {period:,} positions; at most {MAX_PERIOD:,} are supported",
            "use `avg to HxW` or `max to HxW` with a size that divides the feature map's",
        )


def _span(seen: _Seen, size: int) -> Span:
    """The span of an axis of `size` positions."""
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
