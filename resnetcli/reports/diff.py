"""Compare two models stage by stage: the changes in words, and the difference in cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import asdict, field, replace
from typing import Literal

from resnetcli.frozen import frozen
from resnetcli.ops import Add, BatchNorm, Conv, Norm, Shape
from resnetcli.plan.count import BYTES_FP32, stage_steps
from resnetcli.plan.plan import Plan, Step, Where
from resnetcli.reports.bodies import align, body_changes, can_align, dissimilarity
from resnetcli.reports.compare import Model
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, model_head
from resnetcli.spec.inputs import Size
from resnetcli.spec.spec import ConvStyle, Equation, Item, Spec
from resnetcli.spec.words import body_text, layer_text
from resnetcli.spec.zoo import Zoo

Status = Literal["changed", "added", "dropped"]
FIGURES = ("params", "macs", "activations", "memory_bytes")


@frozen
class Amounts:
    """The exact costs of a stage for one image, or a difference of costs."""

    params: int = 0
    macs: int = 0
    activations: int = 0
    """Outputs of convolutions and fully connected layers."""
    memory_bytes: int = 0
    """The outputs of all steps in float32; derived."""

    def figure(self, name: str) -> int:
        """One of FIGURES."""
        return int(getattr(self, name))

    def __add__(self, other: Amounts) -> Amounts:
        return Amounts(*(self.figure(name) + other.figure(name) for name in FIGURES))

    def __sub__(self, other: Amounts) -> Amounts:
        return Amounts(*(self.figure(name) - other.figure(name) for name in FIGURES))


@frozen
class StageDiff:
    """A stage that differs."""

    before: str | None
    """Its name in the first model; None if it was added."""
    after: str | None
    """Its name in the second model; None if it was dropped."""
    changes: tuple[str, ...]
    """Changes in words; empty if only the header differs without changing the kind of a step."""
    cost_before: Amounts
    cost_after: Amounts

    @property
    def status(self) -> Status:
        """`changed`, `added` or `dropped`."""
        return "added" if self.before is None else "dropped" if self.after is None else "changed"

    @property
    def name(self) -> str:
        """`conv2_x`, or `conv2_x -> stage1` if its name differs."""
        if self.before is None or self.after is None or self.before == self.after:
            return self.after or self.before or ""
        return f"{self.before} -> {self.after}"

    @property
    def difference(self) -> Amounts:
        """Cost in the second model minus cost in the first."""
        return self.cost_after - self.cost_before


@frozen
class Diff:
    """The differences of two models. Those of the stages sum to the difference of the totals."""

    before: Profile
    after: Profile
    header: tuple[str, ...]
    """Differences of the headers."""
    stages: tuple[StageDiff, ...]
    """Stages that differ, in the order of the second model."""
    equal_stages: int
    """Stages with equal text and cost."""
    total_before: Amounts = field(repr=False)
    total_after: Amounts = field(repr=False)

    @property
    def differs(self) -> bool:
        """Whether anything differs, in words or in cost."""
        return bool(self.header or self.stages)

    @property
    def difference(self) -> Amounts:
        """Total cost of the second model minus that of the first."""
        return self.total_after - self.total_before

    @property
    def peaks(self) -> tuple[int, int]:
        """Peak memory of both models for one image in float32, weights included; derived."""
        before, after = (profile.memory.bytes() for profile in (self.before, self.after))
        return before, after

    def share(self, stage: StageDiff, name: str) -> float | None:
        """A stage's part of a figure's total difference; None if the totals are equal."""
        whole = self.difference.figure(name)
        return stage.difference.figure(name) / whole if whole else None


def diff(before: Model, after: Model, /, *, input: Size | None = None, zoo: Zoo | None = None) -> Diff:
    """The differences of two models: names, paths, or (name, parameters).

    Raises as `profile` does.
    """
    zoo = zoo or Zoo()
    models = [(model, {}) if isinstance(model, str) else model for model in (before, after)]
    return diff_profiles(*(profile_model(name, given, input=input, zoo=zoo) for name, given in models))


def diff_profiles(before: Profile, after: Profile) -> Diff:
    """The differences of two profiled models."""
    old, new = _costs(before), _costs(after)
    header = header_changes(before.spec, after.spec)
    stages, equal = [], 0
    for a, b in match_stages(before.spec.stages, after.spec.stages):
        cost = old[a] if a is not None else Amounts(), new[b] if b is not None else Amounts()
        if a is None or b is None:
            spec, name = (before.spec, a) if a is not None else (after.spec, b)
            words = "dropped" if a is not None else "added"
            stages.append(StageDiff(a, b, (f"stage {words}: {body_text(spec.stages[name or ''])}",), *cost))
            continue
        changes = _stage_changes(before, after, a, b)
        if a == b and not changes and cost[0] == cost[1]:
            equal += 1
        else:
            stages.append(StageDiff(a, b, changes, *cost))
    return Diff(before, after, header, tuple(stages), equal, _sum(old.values()), _sum(new.values()))


def _costs(profile: Profile) -> dict[str, Amounts]:
    plan, costs = profile.plan, {}
    for stage, steps in stage_steps(plan).items():
        cost = profile.counts.stages[stage]
        memory = BYTES_FP32 * sum(plan.steps[i].shape.elements for i in steps)
        costs[stage] = Amounts(cost.params, cost.macs, cost.activations, memory)
    return costs


def _sum(amounts: Iterable[Amounts]) -> Amounts:
    total = Amounts()
    for amount in amounts:
        total += amount
    return total


# --- the header ------------------------------------------------------------------------------------------------------


def header_changes(a: Spec, b: Spec) -> tuple[str, ...]:
    """Differences of two headers: `residual: relu(x + F) -> x + F`."""
    changes = []
    if a.input != b.input:
        changes.append(f"input: {a.input} -> {b.input}")
    if a.style != b.style:
        effects = ", ".join(_style_effects(a.style, b.style))
        changes.append(f"conv: {_style_text(a.style)} -> {_style_text(b.style)}" + (f" ({effects})" if effects else ""))
    if a.equation != b.equation:
        changes.append(f"residual: {_equation_text(a.equation)} -> {_equation_text(b.equation)}")
    if a.shortcut != b.shortcut:
        changes.append(f"shortcut: {a.shortcut.text or a.shortcut.kind} -> {b.shortcut.text or b.shortcut.kind}")
    for row in dict.fromkeys((*a.aux, *b.aux)):
        one, other = a.aux.get(row), b.aux.get(row)
        if one is None or other is None:
            changes.append(f"auxiliary head at {row} {'added' if one is None else 'dropped'} (not counted)")
        elif words := body_changes(one, other):
            changes.append(f"auxiliary head at {row} (not counted): {'; '.join(words)}")
    return tuple(changes)


def _style_text(style: ConvStyle) -> str:
    words = [*map(layer_text, style.before), "conv(bias)" if style.bias else "conv", *map(layer_text, style.after)]
    return " ".join(words)


def _style_effects(a: ConvStyle, b: ConvStyle) -> Iterator[str]:
    """Consequences for a convolution that the texts do not show: `bias dropped`."""
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


# --- stages ----------------------------------------------------------------------------------------------------------


def match_stages(
    a: Mapping[str, tuple[Item, ...]], b: Mapping[str, tuple[Item, ...]]
) -> list[tuple[str | None, str | None]]:
    """Pairs of corresponding stages, None for none: by name, then in order if their structure is similar.

    In the order of b; stages that only a has stay between their neighbours in a.
    """
    left, right = list(a), list(b)
    named = _in_order([(left.index(name), j) for j, name in enumerate(right) if name in a])
    pairs: list[tuple[int, int]] = []
    start = (0, 0)
    for i, j in (*named, (len(left), len(right))):
        rows = list(range(start[0], i)), list(range(start[1], j))
        bodies = [a[left[k]] for k in rows[0]], [b[right[k]] for k in rows[1]]
        _, alike = align(bodies[0], bodies[1], dissimilarity, lambda _: 100, optimal=can_align(*bodies))
        pairs += [(rows[0][x], rows[1][y]) for x, y in alike if x is not None and y is not None]
        pairs += [(i, j)] if i < len(left) and j < len(right) else []
        start = i + 1, j + 1
    matched: list[tuple[str | None, str | None]] = []
    at = 0
    partner = {j: i for i, j in pairs}
    taken = {i for i, _ in pairs}
    for j, name in enumerate(right):
        if j in partner:
            matched += [(left[i], None) for i in range(at, partner[j]) if i not in taken]
            at = partner[j] + 1
            matched.append((left[partner[j]], name))
        else:
            matched.append((None, name))
    return [*matched, *((left[i], None) for i in range(at, len(left)) if i not in taken)]


def _in_order(pairs: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The longest subsequence of pairs in the same order on both sides."""
    best: list[list[tuple[int, int]]] = []
    for k, pair in enumerate(pairs):
        before = max((best[m] for m in range(k) if pairs[m][0] < pair[0]), key=len, default=[])
        best.append([*before, pair])
    return max(best, key=len, default=[])


def _stage_changes(before: Profile, after: Profile, a: str, b: str) -> tuple[str, ...]:
    """The changes of a stage in words."""
    old, new = before.spec.stages[a], after.spec.stages[b]
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
    return [plan.steps[i] for i in stage_steps(plan)[row]]


def _entry(plan: Plan, row: str) -> Shape:
    """The input shape of a stage."""
    rows = list(plan.stages)
    at = rows.index(row)
    return plan.steps[plan.stages[rows[at - 1]]].shape if at else plan.input


def _size(shape: Shape) -> str:
    return f"{shape.n} x {shape.h}x{shape.w}" if shape.n != 1 else f"{shape.h}x{shape.w}"


def _step_changes(a: Many[Step], b: Many[Step], *, every: bool) -> list[str]:
    """Changes of the layers that the headers add: `bn 0 -> 6`; unless `every`, only kinds that are new or gone."""
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
    """Numbers of the layers that the header adds to convolutions and after a block's F, shortcuts excluded."""
    convolutions = {step.where.layer for step in steps if isinstance(step.op, Conv)}
    numbers: Counter[str] = Counter()
    for step in steps:
        where = step.where
        if where.inside("shortcut"):
            continue
        if isinstance(step.op, Conv):
            numbers["bias"] += step.op.bias
        elif where.layer in convolutions:
            numbers["bn" if isinstance(step.op, BatchNorm) else where.name] += 1
        elif where.role == "end":
            numbers["sum" if isinstance(step.op, Add) else f"{where.name} of a block"] += 1
    return +numbers


def _shortcuts(steps: Many[Step]) -> Counter[str]:
    """Numbers of shortcuts by their layers."""
    shortcuts: dict[Where, list[str]] = {}
    for step in steps:
        if shortcut := step.where.inside("shortcut"):
            shortcuts.setdefault(shortcut, []).append(step.where.name)
    return Counter(map(" ".join, shortcuts.values()))


def _counted(*kinds: tuple[str, int], sums: int) -> str:
    texts = [f"{number} x {kind}" if number > 1 else kind for kind, number in kinds]
    return ", ".join(texts) or ("identity" if sums else "none")


def diff_record(diff: Diff) -> Record:
    """`resnet-cli/diff@2`."""
    return {
        "schema": "resnet-cli/diff@2",
        "models": [
            {
                **model_head(profile),
                **asdict(total),
                "peak_bytes": peak,
                "depth": profile.counts.depth,
            }
            for profile, total, peak in zip(
                (diff.before, diff.after), (diff.total_before, diff.total_after), diff.peaks, strict=True
            )
        ],
        "differs": diff.differs,
        "header": list(diff.header),
        "stages": [
            {
                "stage_before": stage.before,
                "stage_after": stage.after,
                "status": stage.status,
                "changes": list(stage.changes),
                **asdict(stage.difference),
                "shares": {name: diff.share(stage, name) for name in asdict(stage.difference)},
            }
            for stage in diff.stages
        ],
        "stages_equal": diff.equal_stages,
        "difference": asdict(diff.difference),
    }
