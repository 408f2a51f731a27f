"""Where a published figure comes from: the convention, and the variant of the model, that give it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Literal

from resnetcli.counting.conventions import tallies
from resnetcli.counting.tally import Tally
from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan, settings_text
from resnetcli.reports.readings import Quantity, Reading, readings
from resnetcli.reports.records import Record, sizes, tally_record
from resnetcli.reports.variants import Variant, far_variants, near_variants
from resnetcli.reports.verdict import Verdict, judge
from resnetcli.spec.inputs import Size, as_shape
from resnetcli.spec.numbers import printed_figure
from resnetcli.spec.read import read
from resnetcli.spec.zoo import Zoo

NEAREST = 5
"""Candidates listed for an unexplained figure."""
BINARY = {1: "1024", 2: "1024^2", 3: "1024^3", 4: "1024^4"}
"""Power of a prefix -> K, M, G and T in binary units."""
DIGITS = {1: 3, 2: 4}
"""Deviations from the usual reading of the model itself -> significant digits needed to exclude a coincidence."""
MANY_DIGITS = 6
"""The same for more deviations."""
_FIGURE = re.compile(
    r"([0-9]+(?:\.[0-9]+)?|[0-9]{1,3}(?:[_,][0-9]{3})+)"
    r"(?:E\+?([0-9]{1,2})| ?[X×*·] ?10(?:\^|\*\*)?([0-9]{1,2}))? ?([KMGTB]?)"
    r" ?(?:((?:FL)?OPS?|MACS?|MULT(?:IPLY)?-ADDS?|MADDS?)|(PARAM(?:ETER)?S?)|(ACT(?:IVATION)?S?))?",
    re.IGNORECASE,
)


@frozen
class Figure:
    """A published number."""

    text: str
    value: Decimal
    """4130000000 for `4.13G`."""
    quantum: Decimal
    """The unit of its last digit: 10000000."""
    digits: int
    """Significant digits."""
    power: int = 0
    """The prefix as a power of 1000: 3 for `G`."""
    quantity: Quantity | None = None
    """The quantity of its label, as in `25.6M params`. Papers also write `4.1 GFLOPs` for MACs, so both are work."""


@frozen
class Candidate:
    """A reading of a variant, compared with the figure."""

    variant: Variant
    counted: Reading
    figure: Figure
    binary: bool = False
    """Whether the figure's prefix is read as a power of 1024."""
    rank: int = 0
    """Its position among the variant's readings, the likeliest first."""

    @property
    def reading(self) -> str:
        """`thop`, `2 x fvcore`, `parameters in units of 1024^2`."""
        return f"{self.counted.name} in units of {BINARY[self.figure.power]}" if self.binary else self.counted.name

    @property
    def conventions(self) -> tuple[str, ...]:
        """The conventions with this total; empty for other readings."""
        return self.counted.conventions

    @property
    def parts(self) -> Mapping[str, int]:
        """The terms of the total."""
        return self.counted.parts

    @property
    def text(self) -> str:
        """The sum written out."""
        return self.counted.text

    @property
    def total(self) -> int:
        """The sum of the parts."""
        return self.counted.total

    @property
    def target(self) -> Decimal:
        """The figure in the candidate's units."""
        return self.figure.value * self._unit

    @property
    def verdict(self) -> Verdict:
        """Whether the total, as the tool prints it, rounds or truncates to the figure, or differs."""
        return judge(_Scaled(self.target, self.figure.quantum * self._unit), self.counted.printed)

    @property
    def matches(self) -> bool:
        """Whether it gives the figure and is worth listing."""
        return self.possible and self.verdict != "differs"

    @property
    def difference(self) -> int:
        """Total minus the figure."""
        return int(self.total - self.target)

    @property
    def deviations(self) -> int:
        """Number of deviations from the usual reading of the model itself."""
        return self.variant.distance + self.counted.oddity + 2 * self.binary

    @property
    def likely(self) -> bool:
        """Whether a match is probably not a coincidence.

        Hundreds of candidates are compared, so some match a figure of few digits by chance. A candidate that deviates
        must round to the figure, and match more digits the more it deviates. For the model itself a truncation is
        accepted with one digit more.
        """
        needed = MANY_DIGITS if self.variant.distance > 1 else DIGITS.get(self.deviations, MANY_DIGITS)
        needed += self.verdict == "truncates" and not self.variant.distance
        rounds = self.verdict == "rounds" or not self.variant.distance
        return not self.deviations or (rounds and self.figure.digits >= needed)

    @property
    def possible(self) -> bool:
        """Whether a match is worth listing: not if it deviates much and the figure has few digits."""
        if self.deviations < 2 or not (self.variant.distance or self.binary):
            return True
        return self.figure.digits >= DIGITS.get(self.deviations - 1, MANY_DIGITS)

    @property
    def _unit(self) -> Decimal:
        return (Decimal(1024) / 1000) ** self.figure.power if self.binary else Decimal(1)


@frozen
class _Scaled:
    value: Decimal
    quantum: Decimal


@dataclass(frozen=True)
class Reconciliation:
    """The candidates that give a figure, or are nearest to it."""

    variant: Variant
    title: str
    parameters: Mapping[str, int]
    figure: Figure
    matches: tuple[Candidate, ...] = field(repr=False)
    """Candidates that give the figure, the likeliest first; empty if it is unexplained."""
    nearest: tuple[Candidate, ...] = field(repr=False)
    """The candidates nearest to an unexplained figure."""
    tools: Mapping[str, Tally] = field(repr=False)
    """The model itself under every convention."""
    own: tuple[Candidate, ...] = field(repr=False)
    """Every reading of the model itself, matching or not."""

    @property
    def explained(self) -> bool:
        """Whether a match is likely to be the cause."""
        return any(match.likely for match in self.matches)

    @property
    def answer(self) -> Literal["explained", "possible", "unexplained"]:
        """`possible` if all matches may be coincidences."""
        return "explained" if self.explained else "possible" if self.matches else "unexplained"

    @property
    def quantity(self) -> Quantity:
        """The quantity of the figure's label, or else of the best candidate."""
        if self.figure.quantity or not (best := self.matches or self.nearest):
            return self.figure.quantity or "work"
        return best[0].counted.quantity

    @cached_property
    def itself(self) -> tuple[Candidate, ...]:
        """The matches of the model itself."""
        return tuple(match for match in self.matches if match.variant == self.variant)


_EXAMPLES = "for example 4.13G, 4133742592 or 25.6M"


def _zero(text: str) -> UsageError:
    return UsageError(f"`{text}` is zero: no model has such a figure", _EXAMPLES)


def parse_figure(figure: str | int) -> Figure:
    """Parse `4.13G`, `4133742592`, `25.6M` or `8.2 GFLOPs`. Raises UsageError for other text."""
    text = str(figure)
    if re.fullmatch(r"0*\.?0*", text.strip()) and "0" in text:
        raise _zero(text)
    if re.fullmatch(r"(?=.{1,4}$)([0-9]+\.?[0-9]*|\.[0-9]+)", text.strip()):
        raise UsageError(f"`{text}` has no unit", f"`{text.strip()}G`, or `{text.strip()}M`?")
    match = _FIGURE.fullmatch(text.strip())
    if match is None or len(text) > 40:
        raise UsageError(f"`{text}` is not a figure", _EXAMPLES)
    number, last = printed_figure(re.sub("[_,]", "", match[1]), match[4].upper())
    if not number:
        raise _zero(text)
    factor = 10 ** int(match[2] or match[3] or 0)
    quantity: Quantity | None = "work" if match[5] else "params" if match[6] else "activations" if match[7] else None
    digits = len(re.sub("[^0-9]", "", match[1]).lstrip("0"))
    power = " KMGT".index(match[4].upper().replace("B", "G") or " ")
    return Figure(text.strip(), number * factor, last * factor, digits, power, quantity)


def reconcile(
    model: str,
    figure: str | int,
    parameters: Mapping[str, int] | None = None,
    *,
    input: Size | None = None,
    aux: bool = False,
    zoo: Zoo | None = None,
) -> Reconciliation:
    """Find the conventions and the variants of a model that give a published figure.

    Raises UsageError and SpecError as `load` does, UsageError for an invalid figure.
    """
    zoo, target, settings = zoo or Zoo(), parse_figure(figure), dict(parameters or {})
    spec = read(model, zoo=zoo, input=as_shape(input), parameters=settings)
    plan = lower(spec, aux=aux)
    itself = Variant(model, settings_text(settings), plan.input, aux and bool(spec.aux), "as asked")
    own = _candidates(itself, plan, target)
    candidates = [*own]
    for variants in (near_variants, far_variants):
        if variants is far_variants and any(candidate.matches for candidate in candidates):
            break
        for variant, other in variants(itself, settings, spec, zoo):
            candidates += _candidates(variant, other, target)
    candidates = _distinct(candidates)
    matches = sorted((candidate for candidate in candidates if candidate.matches), key=_order)
    near = [candidate for candidate in candidates if candidate.deviations < 2 and not matches]
    nearest = sorted(near, key=lambda candidate: abs(candidate.difference))[:NEAREST]
    return Reconciliation(
        itself, spec.title, plan.parameters, target, tuple(matches), tuple(nearest), tallies(plan), tuple(own)
    )


def _candidates(variant: Variant, plan: Plan, figure: Figure) -> list[Candidate]:
    """The readings of the figure's quantity, in decimal and in binary units."""
    return [
        Candidate(variant, reading, figure, binary, rank)
        for rank, reading in enumerate(readings(plan))
        if figure.quantity in (None, reading.quantity)
        if reading.quantity == "params" or figure.digits >= MANY_DIGITS or not variant.of_classes
        for binary in ((False, True) if figure.power else (False,))
    ]


def _order(candidate: Candidate) -> tuple[bool, int, int, int, bool]:
    """Sort key: the likeliest first."""
    likely, rounds = candidate.likely, candidate.verdict == "rounds"
    return not likely, candidate.deviations, candidate.variant.distance, candidate.rank, not rounds


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Without repetitions: a model has the same parameters at any input size."""
    first: dict[tuple[str, tuple[tuple[str, int], ...]], Candidate] = {}
    for candidate in candidates:
        first.setdefault((candidate.reading, tuple(candidate.parts.items())), candidate)
    return list(first.values())


def reconcile_record(result: Reconciliation) -> Record:
    """`resnet-cli/reconcile@1`."""
    return {
        "schema": "resnet-cli/reconcile@1",
        "model": result.variant.model,
        "parameters": dict(result.parameters),
        "name": result.title,
        "input": sizes(result.variant.input),
        "figure": result.figure.text,
        "value": int(result.figure.value),
        "quantity": result.quantity,
        "answer": result.answer,
        "explained": result.explained,
        "matches": [_candidate(candidate) for candidate in result.matches],
        "nearest": [_candidate(candidate) for candidate in result.nearest],
        "conventions": [tally_record(tally) for tally in result.tools.values()],
    }


def _candidate(candidate: Candidate) -> Record:
    variant = candidate.variant
    return {
        "model": variant.model,
        "input": sizes(variant.input),
        "aux": variant.aux,
        "variant": variant.text,
        "reading": candidate.reading,
        "quantity": candidate.counted.quantity,
        "conventions": list(candidate.conventions),
        "total": candidate.total,
        "parts": dict(candidate.parts),
        "verdict": candidate.verdict,
        "difference": candidate.difference,
        "likely": candidate.likely and candidate.matches,
    }
