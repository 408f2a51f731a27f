"""Align the items of two bodies, and describe their differences in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Sequence as Many
from typing import TypeVar

from resnetcli import ops
from resnetcli.frozen import frozen
from resnetcli.spec.spec import Aside, Branches, Call, ConvLayer, Item, PoolLayer, Residual, Sequence
from resnetcli.spec.words import body_text, decimal_text, head_text, item_text, layer_text

MAX_ALIGNMENT_PAIRS = 250_000
"""Above this many pairs of layers, bodies are compared position by position instead of aligned."""
T = TypeVar("T")


@frozen
class Change:
    """A difference in one property of an item."""

    what: str
    """`width`, `stride`, ...; empty for an item of one side only."""
    before: str
    after: str
    place: str
    """The item: `first 1x1`, `branch 2: 3x3`."""


def body_changes(a: tuple[Item, ...], b: tuple[Item, ...]) -> tuple[str, ...]:
    """The differences of two bodies in words; empty if they are equivalent."""
    old, new = _spliced(a), _spliced(b)
    if old == new:
        return ()
    weight = _weight(old) + _weight(new)
    if 100 * _distance(old, new) > 50 * weight:
        return (f"replaced: {body_text(old)} -> {body_text(new)}",)
    return _worded(list(_changes(old, new, "", named=weight > 20)))


def _worded(changes: list[Change]) -> tuple[str, ...]:
    """Combine equal changes of several layers, and a stride that moved."""
    words, changes = _moved(changes)
    places_of: dict[tuple[str, str, str], list[str]] = {}
    for change in changes:
        places_of.setdefault((change.what, change.before, change.after), []).append(change.place)
    for (what, before, after), places in places_of.items():
        named = {place: number for place, number in Counter(places).items() if place}
        where = ", ".join(f"{number} x {place}" if number > 1 else place for place, number in named.items())
        if not what:
            words.append(f"{'dropped' if before else 'added'} {before or after}" + (f" ({where})" if where else ""))
        else:
            words.append(f"{what} {before} -> {after}" + (f" ({where})" if where else ""))
    return tuple(words)


def _moved(changes: list[Change]) -> tuple[list[str], list[Change]]:
    """Strides that moved from one layer to another, in words, and the other changes."""
    lost = [change for change in changes if change.what == "stride" and change.after == "1"]
    words, rest = [], list(changes)
    for one in lost:
        gained = next((c for c in rest if c.what == "stride" and c.before == "1" and c.after == one.before), None)
        if gained is not None:
            rest.remove(one)
            rest.remove(gained)
            lost_at, _, where = one.place.partition(" of ")
            lost_at = lost_at if gained.place.endswith(f" of {where}") else one.place
            words.append(f"stride {one.before} moved from the {lost_at} to the {gained.place}")
    return words, rest


def _spliced(items: Many[Item]) -> tuple[Item, ...]:
    """The items with sequences and named blocks expanded inline, unless they are repeated."""
    expanded: list[Item] = []
    for item in items:
        times = None if item.times == 1 else item.times
        match item.what:
            case Sequence(body=body) | Call(body=body):
                inner = _spliced(body)
                expanded += inner if times is None else [Item(Sequence(inner), times)]
            case Residual(body=body, scale=scale, linear=linear):
                expanded.append(Item(Residual(_spliced(body), scale, linear), times))
            case Aside(body=body):
                expanded.append(Item(Aside(_spliced(body)), times))
            case Branches(kind=kind, branches=branches, of=of):
                expanded.append(Item(Branches(kind, tuple(map(_spliced, branches)), of), times))
            case _:
                expanded.append(Item(item.what, times))
    return tuple(expanded)


def _bodies(item: Item) -> tuple[tuple[Item, ...], ...]:
    match item.what:
        case Residual(body=body) | Sequence(body=body) | Aside(body=body) | Call(body=body):
            return (body,)
        case Branches(branches=branches):
            return branches
        case _:
            return ()


def _weight(items: Many[Item]) -> int:
    """The number of layers in the text, in tenths; repetitions count once."""
    return sum(sum(map(_weight, bodies)) if (bodies := _bodies(item)) else 10 for item in items)


def dissimilarity(a: tuple[Item, ...], b: tuple[Item, ...]) -> int | None:
    """From 0 to 35 percent; None for bodies that do not correspond."""
    weight = _weight(a) + _weight(b)
    unlike = 100 * _distance(_spliced(a), _spliced(b)) // weight if weight else 0
    return unlike if unlike <= 35 else None


def align(
    a: Many[T], b: Many[T], unlike: Callable[[T, T], int | None], weight: Callable[[T], int], *, optimal: bool = True
) -> tuple[int, list[tuple[int | None, int | None]]]:
    """The minimum edit distance of two lists, and index pairs of corresponding elements in order, None for none.

    `unlike` is the distance of two elements, None if they never correspond; an unpaired element costs its `weight`.
    Among equally good alignments, the earliest pairs win. Unless `optimal`, elements correspond by position.
    """
    rows, columns = len(a), len(b)
    pairs: list[tuple[int | None, int | None]] = []
    if not optimal:
        total = 0
        for k in range(max(rows, columns)):
            here = unlike(a[k], b[k]) if k < min(rows, columns) else None
            if here is not None:
                total += here
                pairs.append((k, k))
                continue
            total += (weight(a[k]) if k < rows else 0) + (weight(b[k]) if k < columns else 0)
            pairs += [(k, None)] * (k < rows) + [(None, k)] * (k < columns)
        return total, pairs
    alone_a, alone_b = list(map(weight, a)), list(map(weight, b))
    cost = [[0] * (columns + 1) for _ in range(rows + 1)]  # cost[i][j]: distance of a[i:] and b[j:]
    paired: dict[tuple[int, int], int | None] = {}
    for i in range(rows, -1, -1):
        for j in range(columns, -1, -1):
            ways = []
            if i < rows:
                ways.append(cost[i + 1][j] + alone_a[i])
            if j < columns:
                ways.append(cost[i][j + 1] + alone_b[j])
            if i < rows and j < columns:
                paired[i, j] = here = unlike(a[i], b[j])
                if here is not None:
                    ways.append(cost[i + 1][j + 1] + here)
            cost[i][j] = min(ways, default=0)
    i = j = 0
    while i < rows or j < columns:
        here = paired.get((i, j))
        if here is not None and cost[i][j] == cost[i + 1][j + 1] + here:
            pairs.append((i, j))
            i, j = i + 1, j + 1
        elif i < rows and cost[i][j] == cost[i + 1][j] + alone_a[i]:
            pairs.append((i, None))
            i += 1
        else:
            pairs.append((None, j))
            j += 1
    return cost[0][0], pairs


def can_align(a: Many[tuple[Item, ...]], b: Many[tuple[Item, ...]]) -> bool:
    """Whether two lists of bodies are short enough for an optimal alignment."""
    return sum(map(_weight, a)) * sum(map(_weight, b)) <= 100 * MAX_ALIGNMENT_PAIRS


def _aligned(a: tuple[Item, ...], b: tuple[Item, ...]) -> tuple[int, list[tuple[int | None, int | None]]]:
    return align(a, b, _unlike, lambda item: _weight((item,)), optimal=can_align((a,), (b,)))


def _distance(a: tuple[Item, ...], b: tuple[Item, ...]) -> int:
    """The distance of two bodies, at most the sum of their weights."""
    return 0 if a == b else _aligned(a, b)[0]


def _unlike(a: Item, b: Item) -> int | None:
    """The distance of two items in tenths of a layer; None if they never correspond."""
    if _sort(a) is not _sort(b):
        return None
    inside = _bodies(a), _bodies(b)
    differ = sum(4 if what in ("kernel", "kind") else 2 for what, _, _ in _properties(a, b))
    if not inside[0]:
        return differ
    return differ + align(*inside, _distance, _weight, optimal=can_align(*inside))[0]


def _sort(item: Item) -> type:
    """The class of items that an item corresponds to: any activation to any other."""
    return ops.Activation if isinstance(item.what, ops.Activation) else type(item.what)


_ORDINALS = ("first", "second", "third")


def _changes(
    a: tuple[Item, ...], b: tuple[Item, ...], prefix: str, suffix: str = "", *, named: bool
) -> Iterator[Change]:
    """The changes between two bodies. `named`: whether to say which layer of the stage changed."""
    for i, j in _aligned(a, b)[1]:
        if i is None or j is None:
            side, other = (item_text(a[i]) if i is not None else ""), (item_text(b[j]) if j is not None else "")
            yield Change("", side, other, prefix.removesuffix(": "))
            continue
        old, new = a[i], b[j]
        inside = _bodies(old), _bodies(new)
        name = _place(a, i) if named else ""
        if not inside[0]:
            for what, before, after in _properties(old, new):
                place = f"{prefix}{name}" if named else prefix.removesuffix(": ")
                yield Change(what, before, after, f"{place}{suffix}" if what == "stride" else place)
            continue
        alone = sum(bool(_bodies(item)) for item in a) == 1
        within = prefix if alone else f"{prefix}{name}: "
        for what, before, after in _properties(old, new):
            yield Change(what, before, after, within.removesuffix(": "))
        if isinstance(old.what, Branches):
            yield from _branch_changes(inside[0], inside[1], within)
            continue
        first = " of the first block" if isinstance(old.what, Residual) and (old.times or new.times) else suffix
        yield from _changes(inside[0][0], inside[1][0], within, first, named=named)


def _branch_changes(a: tuple[tuple[Item, ...], ...], b: tuple[tuple[Item, ...], ...], prefix: str) -> Iterator[Change]:
    for i, j in align(a, b, _distance, _weight, optimal=can_align(a, b))[1]:
        if i is not None and j is not None:
            where = f"{prefix}branch {i + 1}: " if len(a) > 1 else prefix
            yield from _changes(a[i], b[j], where, named=True)
        else:
            side, other = (body_text(a[i]) if i is not None else ""), (body_text(b[j]) if j is not None else "")
            yield Change("", f"branch {side}" if side else "", f"branch {other}" if other else "", prefix[:-2])


def _place(items: tuple[Item, ...], index: int) -> str:
    """The name of an item within its body: `3x3`, `first 1x1`, `second residual`."""
    names = list(map(_name, items))
    name, earlier = names[index], names[:index].count(names[index])
    if names.count(name) == 1:
        return name
    return f"{_ORDINALS[earlier]} {name}" if earlier < len(_ORDINALS) else f"{name} number {earlier + 1}"


def _name(item: Item) -> str:
    match item.what:
        case ConvLayer(kernel=kernel):
            return f"{kernel[0]}x{kernel[1]}"
        case PoolLayer(kernel=kernel, kind=kind):
            return f"{kernel[0]}x{kernel[1]} {kind}"
        case _:
            return head_text(item).split()[0].split("(")[0]


def _properties(a: Item, b: Item) -> Iterator[tuple[str, str, str]]:
    """Properties that differ between two items of one type, their bodies excluded: (what, before, after)."""
    for (what, before), (_, after) in zip(_facts(a), _facts(b), strict=True):
        if before != after:
            yield what, before, after
    if (one := a.times or 1) != (other := b.times or 1):
        yield "blocks" if isinstance(a.what, Residual) else "repeats", str(one), str(other)


def _facts(item: Item) -> list[tuple[str, str]]:
    """The properties of an item, in words."""
    match item.what:
        case ConvLayer(kernel, channels, groups, stride, dilation, pad, finish):
            return [
                ("kernel", f"{kernel[0]}x{kernel[1]}"),
                ("width", str(channels or "as input")),
                ("groups", str(groups)),
                ("stride", str(stride)),
                ("dilation", str(dilation)),
                ("padding", _padding_text(pad)),
                ("form", "conv" if finish == "style" else finish),
            ]
        case PoolLayer(kind, kernel, stride, pad, ceil, count_pad):
            return [
                ("kind", kind),
                ("kernel", f"{kernel[0]}x{kernel[1]}"),
                ("stride", str(stride)),
                ("padding", _padding_text(pad)),
                ("size", "rounded up" if ceil else "rounded down"),
                ("mean", "with padding" if count_pad else "without padding"),
            ]
        case ops.PoolTo(kind, size):
            return [("kind", kind), ("to", f"{size[0]}x{size[1]}")]
        case ops.Linear(features):
            return [("width", str(features))]
        case ops.Dropout(p):
            return [("p", decimal_text(p))]
        case ops.PyramidPool(levels):
            return [("levels", " ".join(map(str, levels)))]
        case ops.RegionPool(size, maps):
            return [("to", f"{size[0]}x{size[1]}"), ("regions", str(maps))]
        case ops.Op() as op:
            return [("layer", layer_text(op))]
        case Residual(scale=scale, linear=linear):
            return [("scale", "none" if scale is None else decimal_text(scale)), ("linear", "yes" if linear else "no")]
        case Branches(kind=kind, of=of):
            return [("kind", kind), ("branches", str(of or "written out"))]
        case _:
            return []


def _padding_text(pad: int | None) -> str:
    return "same" if pad is None else "none" if pad == 0 else str(pad)
