"""Where a figure that somebody printed comes from: the convention, and the variant of the net, that give it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from itertools import chain

from resnetcli.errors import SpecError, UsageError
from resnetcli.ops import BatchNorm, Linear, Shape
from resnetcli.plan.count import count
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.report.convention import Tally, formula, tallies
from resnetcli.report.profile import Size, as_shape, settings_text
from resnetcli.report.verdict import Verdict, judge
from resnetcli.spec.numbers import printed_figure
from resnetcli.spec.read import read
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo

SIZES = (192, 224, 227, 256, 288, 299, 320, 331, 384)
"""Of square images that nets are usually run on."""
NO_WORK = {"params", "running_statistics", "activations"}
"""Parts of readings that are not of work."""
NEAREST = 5
"""Candidates named for a figure that nothing gives."""
_FIGURE = re.compile(
    r"([0-9]+(?:\.[0-9]+)?|[0-9]{1,3}(?:[_,][0-9]{3})+)(?:E\+?([0-9]{1,2}))? ?([KMGTB]?)"
    r" ?(?:((?:FL)?OPS?|MACS?|MULTIPLY-ADDS)|(PARAMS?|PARAMETERS))?",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Figure:
    """A number as somebody printed it."""

    printed: str
    value: Decimal
    """4130000000 for `4.13G`."""
    quantum: Decimal
    """What its last digit stands for: 10000000."""
    of_params: bool = False
    """Whether it says itself that it is of parameters: `25.6M params`."""
    of_work: bool = False
    """Whether it says itself that it is of work: `8.2 GFLOPs`, which papers write for MACs too, `4.1G MACs`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """The net that was asked about, or one that is easily taken for it."""

    model: str
    settings: str
    """`C=8 d=14`."""
    input: Shape
    aux: bool
    """With the auxiliary training heads."""
    text: str
    """How it differs: `as asked`, `with auxiliary heads`, `at 3 x 256 x 256`, `resnet50_v1`."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One number that a net can be said to have."""

    variant: Variant
    reading: str
    """What is counted: `thop`, `2 x fvcore`, `parameters`; conventions with the same formula together."""
    conventions: tuple[str, ...]
    """Those that give it as it is; none for another reading."""
    parts: Mapping[str, int]
    """They sum to the total."""
    text: str
    """The same as people write it, with how many there are of each: `4,089,184,256 macs + 4 x 11,113,984 batchnorm`."""
    verdict: Verdict
    """Whether it rounds or truncates to the figure, or differs."""
    difference: int
    """Total minus the figure."""
    rank: int = 0
    """How far down the list of readings it stands, which begins with the likeliest."""

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Reconciliation:
    """The answer."""

    variant: Variant
    title: str
    parameters: Mapping[str, int]
    figure: Figure
    matches: tuple[Candidate, ...] = field(repr=False)
    """What gives the figure, the most plausible first: the net itself before its variants. Empty: unexplained."""
    nearest: tuple[Candidate, ...] = field(repr=False)
    """What comes nearest to an unexplained figure."""
    tools: Mapping[str, Tally] = field(repr=False)
    """The net as it was asked for, under every convention."""

    @property
    def explained(self) -> bool:
        """Whether anything gives the figure."""
        return bool(self.matches)

    @cached_property
    def itself(self) -> tuple[Candidate, ...]:
        """The matches of the net as it was asked for."""
        return tuple(match for match in self.matches if match.variant == self.variant)


def parse_figure(figure: str | int) -> Figure:
    """`4.13G`, `4133742592`, `25.6M`, `8.2 GFLOPs`. Raises UsageError for what is no figure."""
    text = str(figure)
    if re.fullmatch(r"[0-9.]{1,4}", text.strip()):
        raise UsageError(f"`{text}` has no unit", f"`{text.strip()}G`, or `{text.strip()}M`?")
    found = _FIGURE.fullmatch(text.strip())
    if found is None or len(text) > 40:
        raise UsageError(f"`{text}` is not a figure", "digits as printed and K, M, G, T or B: 4.13G, 4133742592, 25.6M")
    number, last = printed_figure(re.sub("[_,]", "", found[1]), found[3].upper())
    if not number:
        raise UsageError(f"`{text}` is nothing to explain")
    power = 10 ** int(found[2] or 0)
    return Figure(text.strip(), number * power, last * power, of_params=bool(found[5]), of_work=bool(found[4]))


def reconcile(
    model: str,
    figure: str | int,
    parameters: Mapping[str, int] | None = None,
    *,
    input: Size | None = None,
    aux: bool = False,
    zoo: Zoo | None = None,
) -> Reconciliation:
    """What gives a figure of a model: conventions, and variants of the net.

    Raises UsageError and SpecError as `load` does, UsageError for what is no figure.
    """
    zoo, wanted, settings = zoo or Zoo(), parse_figure(figure), dict(parameters or {})
    spec = read(model, zoo=zoo, input=as_shape(input), parameters=settings)
    plan = lower(spec, aux=aux)
    itself = Variant(model, settings_text(settings), plan.input, aux and bool(spec.aux), "as asked")
    found: list[Candidate] = []
    for variant, other in chain([(itself, plan)], _variants(model, settings, spec, itself, zoo)):
        found += _readings(variant, other, wanted)
    found = _distinct(found)
    matches = sorted((c for c in found if c.verdict != "differs"), key=lambda c: (c.variant != itself, c.rank))
    nearest = [] if matches else sorted(found, key=lambda candidate: abs(candidate.difference))[:NEAREST]
    return Reconciliation(itself, spec.title, plan.parameters, wanted, tuple(matches), tuple(nearest), tallies(plan))


def _distinct(found: list[Candidate]) -> list[Candidate]:
    """Without what only repeats another candidate: parameters are the same at any size."""
    first: dict[tuple[str, tuple[tuple[str, int], ...]], Candidate] = {}
    for candidate in found:
        first.setdefault((candidate.reading, tuple(candidate.parts.items())), candidate)
    return list(first.values())


def _variants(
    model: str, settings: Mapping[str, int], spec: Spec, itself: Variant, zoo: Zoo
) -> Iterator[tuple[Variant, Plan]]:
    """Nets that are taken for this one, the likeliest first: with the heads, relatives, at other sizes."""
    if spec.aux:
        text = "without auxiliary heads" if itself.aux else "with auxiliary heads"
        yield Variant(model, itself.settings, itself.input, not itself.aux, text), lower(spec, aux=not itself.aux)
    for name in () if settings else relatives(model, spec, zoo):
        try:
            plan = lower(read(name, zoo=zoo, input=itself.input))
        except SpecError:  # it does not take images of that size
            continue
        yield Variant(name, "", plan.input, False, name), plan
    for size in sorted(SIZES, key=lambda size: abs(size - itself.input.h)):
        shape = Shape(itself.input.c, size, size)
        if shape == itself.input:
            continue
        try:
            plan = lower(read(model, zoo=zoo, input=shape, parameters=settings), aux=itself.aux)
        except SpecError:
            continue
        yield Variant(model, itself.settings, shape, itself.aux, f"at {shape}"), plan


def relatives(model: str, spec: Spec, zoo: Zoo) -> list[str]:
    """Nets of the zoo that extend this one or are extended by it, or whose name is its name with something added."""
    near = set(spec.extends) & zoo.files.keys()
    for name, path in zoo.files.items():
        found = re.search(r"^extends: *([^\s#]+)", path.read_text("utf-8"), re.MULTILINE)
        if name.startswith(model) or (found and found[1] in (model, *spec.extends)):
            near.add(name)
    near.discard(model)
    places = {name: place for place, name in enumerate(zoo.files)}
    return sorted(near, key=lambda name: (not name.startswith(model), not name.startswith(f"{model}_v"), places[name]))


def _readings(variant: Variant, plan: Plan, figure: Figure) -> list[Candidate]:
    """Every number of one net, the likeliest first, each with its verdict."""
    found: list[Candidate] = []

    def add(reading: str, parts: Mapping[str, int], text: str, *conventions: str) -> None:
        total = sum(parts.values())
        verdict = judge(figure, total) if total else "differs"
        difference = int(total - figure.value)
        rank = len(found)
        found.append(Candidate(variant, reading, conventions, parts, text, verdict, difference, rank))

    counts, by_tool = count(plan), tallies(plan)
    same: dict[tuple[tuple[str, int], ...], list[Tally]] = {}
    for tally in by_tool.values():
        same.setdefault(tuple(tally.parts.items()), []).append(tally)
    for equal in same.values():
        names = tuple(tally.name for tally in equal)
        first = equal[0]
        weights = {kind: first.convention.weights[kind] for kind in first.parts}
        add(", ".join(names), first.parts, formula(weights, first.numbers), *names)
    add("parameters", {"params": counts.params}, f"{counts.params:,} params")
    running = sum(cost.params for step, cost in zip(plan.steps, counts.steps, strict=True)
                  if isinstance(step.op, BatchNorm))  # fmt: skip
    if running:  # a mean for each scale, a variance for each shift
        add("parameters and BatchNorm's running statistics", {"params": counts.params, "running_statistics": running},
            f"{counts.params:,} params + {running:,} running_statistics")  # fmt: skip
    add("activations", {"activations": counts.activations}, f"{counts.activations:,} activations")
    fc = sum(cost.macs for step, cost in zip(plan.steps, counts.steps, strict=True) if isinstance(step.op, Linear))
    for factor in (1, 2) if fc and fc != counts.macs else ():
        conv, times = counts.macs - fc, f"{factor} x " if factor > 1 else ""
        add(f"{times}macs of convolutions alone", {"conv_macs": factor * conv}, f"{times}{conv:,} conv_macs")
    for tally in by_tool.values():
        weights = {kind: tally.convention.weights[kind] for kind in tally.parts}
        if tally.convention.unit == "MACs" and len(tally.parts) > 1:  # 2 x macs is the convention `flops`
            double = {kind: 2 * part for kind, part in tally.parts.items()}
            add(f"2 x {tally.name}", double, formula({kind: 2 * w for kind, w in weights.items()}, tally.numbers))
    if figure.of_params or figure.of_work:
        found = [candidate for candidate in found if (candidate.parts.keys() <= NO_WORK) == figure.of_params]
        found = [candidate for candidate in found if figure.of_work or "params" in candidate.parts]
    return found
