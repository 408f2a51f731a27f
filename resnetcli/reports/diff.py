"""Two nets row by row: what differs in words, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import asdict, dataclass, field, replace
from typing import Literal

from resnetcli.ops import Add, BatchNorm, Conv, Norm, Shape
from resnetcli.plan.count import BYTES_FP32, row_steps
from resnetcli.plan.plan import Plan, Step, Where
from resnetcli.reports.bodies import align, body_changes, few, likeness
from resnetcli.reports.compare import Model
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record
from resnetcli.spec.inputs import Size
from resnetcli.spec.spec import ConvStyle, Equation, Item, Spec
from resnetcli.spec.words import body_text, layer_text
from resnetcli.spec.zoo import Zoo

Status = Literal["changed", "added", "dropped"]
FIGURES = ("params", "macs", "activations", "memory_bytes")


@dataclass(frozen=True, slots=True)
class Amounts:
    """What a row costs, or how much more: exact, for one image."""

    params: int = 0
    macs: int = 0
    activations: int = 0
    """Elements convolutions and fully connected layers put out."""
    memory_bytes: int = 0
    """Bytes of every step's output in float32, each as if it were kept; derived."""

    def figure(self, name: str) -> int:
        """One of FIGURES."""
        return int(getattr(self, name))

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(self.figure(name) + other.figure(name) for name in FIGURES))

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(*(self.figure(name) - other.figure(name) for name in FIGURES))


@dataclass(frozen=True, slots=True)
class RowDiff:
    """A row that differs."""

    before: str | None
    """Its name in the first net; None if it was added."""
    after: str | None
    """Its name in the second; None if it was dropped."""
    changes: tuple[str, ...]
    """What differs, in words; none where only what the header says differs, and that changes no step's kind."""
    cost_before: Amounts
    cost_after: Amounts

    @property
    def status(self) -> Status:
        """`changed`, `added` or `dropped`."""
        return "added" if self.before is None else "dropped" if self.after is None else "changed"

    @property
    def name(self) -> str:
        """`conv2_x`, or `conv2_x -> stage1` where the nets call it differently."""
        if self.before is None or self.after is None or self.before == self.after:
            return self.after or self.before or ""
        return f"{self.before} -> {self.after}"

    @property
    def difference(self) -> Amounts:
        """What the second net's row costs more than the first's."""
        return self.cost_after - self.cost_before


@dataclass(frozen=True, slots=True)
class Diff:
    """Two nets and how they differ. The rows' differences sum to that of the totals."""

    before: Profile
    after: Profile
    header: tuple[str, ...]
    """What the headers say differently."""
    rows: tuple[RowDiff, ...]
    """Those that differ, in the order of the second net."""
    equal: int
    """Rows that are written alike and cost the same."""
    total_before: Amounts = field(repr=False)
    total_after: Amounts = field(repr=False)

    @property
    def differs(self) -> bool:
        """Whether there is any difference, in words or in cost."""
        return bool(self.header or self.rows)

    @property
    def difference(self) -> Amounts:
        """What the second net costs more than the first."""
        return self.total_after - self.total_before

    @property
    def peaks(self) -> tuple[int, int]:
        """Bytes that each holds at most when one image is run in float32, weights and all; derived."""
        before, after = (profile.memory.bytes() for profile in (self.before, self.after))
        return before, after

    def share(self, row: RowDiff, name: str) -> float | None:
        """Of a figure's whole difference, what a row makes up; None where the totals agree."""
        whole = self.difference.figure(name)
        return row.difference.figure(name) / whole if whole else None


def diff(before: Model, after: Model, /, *, input: Size | None = None, zoo: Zoo | None = None) -> Diff:
    """How two nets differ: names, paths, or (name, parameters).

    Raises what `profile` raises.
    """
    zoo = zoo or Zoo()
    asked = [(model, {}) if isinstance(model, str) else model for model in (before, after)]
    return diff_profiles(*(profile_model(name, given, input=input, zoo=zoo) for name, given in asked))


def diff_profiles(before: Profile, after: Profile) -> Diff:
    """How two profiled nets differ."""
    old, new = _costs(before), _costs(after)
    header = header_changes(before.spec, after.spec)
    rows, equal = [], 0
    for a, b in match_rows(before.spec.rows, after.spec.rows):
        cost = old[a] if a is not None else Amounts(), new[b] if b is not None else Amounts()
        if a is None or b is None:
            spec, name = (before.spec, a) if a is not None else (after.spec, b)
            words = "dropped" if a is not None else "added"
            rows.append(RowDiff(a, b, (f"row {words}: {body_text(spec.rows[name or ''])}",), *cost))
            continue
        changes = _row_changes(before, after, a, b)
        if a == b and not changes and cost[0] == cost[1]:
            equal += 1
        else:
            rows.append(RowDiff(a, b, changes, *cost))
    return Diff(before, after, header, tuple(rows), equal, _sum(old.values()), _sum(new.values()))


def names_of(found: Diff) -> tuple[str, str]:
    """What was compared, as the user named it, with the parameters that were set."""
    return found.before.label, found.after.label


def _costs(profile: Profile) -> dict[str, Amounts]:
    plan, found = profile.plan, {}
    for row, steps in row_steps(plan).items():
        cost = profile.counts.rows[row]
        memory = BYTES_FP32 * sum(plan.steps[i].shape.elements for i in steps)
        found[row] = Amounts(cost.params, cost.macs, cost.activations, memory)
    return found


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for one in amounts:
        total += one
    return total


# --- the header ------------------------------------------------------------------------------------------------------


def header_changes(a: Spec, b: Spec) -> tuple[str, ...]:
    """What two headers say differently, each once: `residual: relu(x + F) -> x + F`."""
    found = []
    if a.input != b.input:
        found.append(f"input: {a.input} -> {b.input}")
    if a.style != b.style:
        effects = ", ".join(_style_effects(a.style, b.style))
        found.append(f"conv: {_style_text(a.style)} -> {_style_text(b.style)}" + (f" ({effects})" if effects else ""))
    if a.equation != b.equation:
        found.append(f"residual: {_equation_text(a.equation)} -> {_equation_text(b.equation)}")
    if a.shortcut != b.shortcut:
        found.append(f"shortcut: {a.shortcut.text or a.shortcut.kind} -> {b.shortcut.text or b.shortcut.kind}")
    for row in dict.fromkeys((*a.aux, *b.aux)):
        one, other = a.aux.get(row), b.aux.get(row)
        if one is None or other is None:
            found.append(f"auxiliary head at {row} {'added' if one is None else 'dropped'} (not counted)")
        elif words := body_changes(one, other):
            found.append(f"auxiliary head at {row} (not counted): {'; '.join(words)}")
    return tuple(found)


def _style_text(style: ConvStyle) -> str:
    words = [*map(layer_text, style.before), "conv(bias)" if style.bias else "conv", *map(layer_text, style.after)]
    return " ".join(words)


def _style_effects(a: ConvStyle, b: ConvStyle) -> Iterator[str]:
    """What the two ways mean for a convolution, where the words do not show it: `bias dropped`."""
    if (one := _has_bias(a)) != (other := _has_bias(b)):
        yield f"bias {'added' if other and not one else 'dropped'}"
    norms = [any(isinstance(op, Norm) for op in (*style.before, *style.after)) for style in (a, b)]
    if norms[0] != norms[1]:
        yield f"bn {'added' if norms[1] else 'dropped'}"
    activations = [
        [layer_text(op) for op in (*style.before, *style.after) if not isinstance(op, Norm)] for style in (a, b)
    ]
    if activations[0] != activations[1]:
        yield f"activation {' '.join(activations[0]) or 'none'} -> {' '.join(activations[1]) or 'none'}"


def _has_bias(style: ConvStyle) -> bool:
    return style.bias or not any(isinstance(op, Norm) for op in (*style.before, *style.after))


def _equation_text(equation: Equation) -> str:
    inner = "x + F" if equation.adds else "F"
    return inner if equation.activation is None else f"{layer_text(equation.activation)}({inner})"


# --- rows ------------------------------------------------------------------------------------------------------------


def match_rows(
    a: Mapping[str, tuple[Item, ...]], b: Mapping[str, tuple[Item, ...]]
) -> list[tuple[str | None, str | None]]:
    """Which row of a is which of b, None where there is none: by name, then in order where the structure is alike.

    In the order of b, what it has not between the rows that were around it in a.
    """
    left, right = list(a), list(b)
    named = _in_order([(left.index(name), j) for j, name in enumerate(right) if name in a])
    pairs: list[tuple[int, int]] = []
    start = (0, 0)
    for i, j in (*named, (len(left), len(right))):
        rows = list(range(start[0], i)), list(range(start[1], j))
        bodies = [a[left[k]] for k in rows[0]], [b[right[k]] for k in rows[1]]
        _, alike = align(bodies[0], bodies[1], likeness, lambda _: 100, searched=few(*bodies))
        pairs += [(rows[0][x], rows[1][y]) for x, y in alike if x is not None and y is not None]
        pairs += [(i, j)] if i < len(left) and j < len(right) else []
        start = i + 1, j + 1
    found: list[tuple[str | None, str | None]] = []
    at = 0
    partner = {j: i for i, j in pairs}
    taken = {i for i, _ in pairs}
    for j, name in enumerate(right):
        if j in partner:
            found += [(left[i], None) for i in range(at, partner[j]) if i not in taken]
            at = partner[j] + 1
            found.append((left[partner[j]], name))
        else:
            found.append((None, name))
    return [*found, *((left[i], None) for i in range(at, len(left)) if i not in taken)]


def _in_order(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The most pairs that stand in the same order on both sides."""
    best: list[list[tuple[int, int]]] = []
    for k, pair in enumerate(pairs):
        before = max((best[m] for m in range(k) if pairs[m][0] < pair[0]), key=len, default=[])
        best.append([*before, pair])
    return max(best, key=len, default=[])


def _row_changes(before: Profile, after: Profile, a: str, b: str) -> tuple[str, ...]:
    """What differs between two rows in words."""
    old, new = before.spec.rows[a], after.spec.rows[b]
    words = list(body_changes(old, new))
    if not words or (header_changes(before.spec, after.spec) and not words[0].startswith("replaced")):
        words += _step_changes(_steps(before.plan, a), _steps(after.plan, b), every=not words)
    given = _entry(before.plan, a), _entry(after.plan, b)
    if given[0].c != given[1].c:
        words.append(f"input channels {given[0].c} -> {given[1].c}")
    if given[0] != replace(given[1], c=given[0].c):
        words.append(f"input size {_size(given[0])} -> {_size(given[1])}")
    return tuple(words)


def _steps(plan: Plan, row: str) -> list[Step]:
    return [plan.steps[i] for i in row_steps(plan)[row]]


def _entry(plan: Plan, row: str) -> Shape:
    """The shape of what a row reads."""
    rows = list(plan.rows)
    at = rows.index(row)
    return plan.steps[plan.rows[rows[at - 1]]].shape if at else plan.input


def _size(shape: Shape) -> str:
    return f"{shape.n} x {shape.h}x{shape.w}" if shape.n != 1 else f"{shape.h}x{shape.w}"


def _step_changes(a: Many[Step], b: Many[Step], *, every: bool) -> list[str]:
    """How rows differ in what the headers put into them: `bn 0 -> 6`; or only what is new or gone altogether."""
    old, new = _tally(a), _tally(b)
    words = [
        f"{kind} {old[kind]} -> {new[kind]}"
        for kind in dict.fromkeys((*old, *new))
        if old[kind] != new[kind] and (every or not old[kind] or not new[kind])
    ]
    kinds = _shortcuts(a), _shortcuts(b)
    if kinds[0] != kinds[1] and (every or kinds[0].keys() != kinds[1].keys()):
        words.append(f"shortcut {_counted(*kinds[0].items(), sums=old['sum'])} -> "
                     f"{_counted(*kinds[1].items(), sums=new['sum'])}")  # fmt: skip
    return words


def _tally(steps: Many[Step]) -> Counter[str]:
    """How often the header puts what around convolutions and behind a block's F; shortcuts aside."""
    convolutions = {step.where.layer for step in steps if isinstance(step.op, Conv)}
    found: Counter[str] = Counter()
    for step in steps:
        where = step.where
        if where.inside("shortcut"):
            continue
        if isinstance(step.op, Conv):
            found["bias"] += step.op.bias
        elif where.layer in convolutions:
            found["bn" if isinstance(step.op, BatchNorm) else where.name] += 1
        elif where.role == "end":
            found["sum" if isinstance(step.op, Add) else f"{where.name} of a block"] += 1
    return +found


def _shortcuts(steps: Many[Step]) -> Counter[str]:
    """How often which layers make up a shortcut, where there are any."""
    shortcuts: dict[Where, list[str]] = {}
    for step in steps:
        if shortcut := step.where.inside("shortcut"):
            shortcuts.setdefault(shortcut, []).append(step.where.name)
    return Counter(map(" ".join, shortcuts.values()))


def _counted(*kinds: tuple[str, int], sums: int) -> str:
    texts = [f"{number} x {kind}" if number > 1 else kind for kind, number in kinds]
    return ", ".join(texts) or ("identity" if sums else "none")


def diff_record(found: Diff) -> Record:
    """`resnet-cli/diff@1`."""
    return {
        "schema": "resnet-cli/diff@1",
        "models": [
            {
                "model": profile.model,
                "parameters": dict(profile.plan.parameters),
                "input": list(profile.plan.input_sizes),
                **asdict(total),
                "peak_bytes": peak,
                "depth": profile.counts.depth,
            }
            for profile, total, peak in zip(
                (found.before, found.after), (found.total_before, found.total_after), found.peaks, strict=True
            )
        ],
        "differs": found.differs,
        "header": list(found.header),
        "rows": [
            {
                "row_before": row.before,
                "row_after": row.after,
                "status": row.status,
                "changes": list(row.changes),
                **asdict(row.difference),
                "shares": {name: found.share(row, name) for name in asdict(row.difference)},
            }
            for row in found.rows
        ],
        "rows_equal": found.equal,
        "difference": asdict(found.difference),
    }
