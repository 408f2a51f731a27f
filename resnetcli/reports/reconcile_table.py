"""A reconciliation as tables and text."""

from __future__ import annotations

from resnetcli.counting.tally import Tally
from resnetcli.ops import KINDS
from resnetcli.reports.reconcile import Candidate, Reconciliation
from resnetcli.reports.variants import Variant
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact, signed_percent
from resnetcli.table.sheet import Sheet

MAX_MATCHES = 5
"""Matches in a table that is not of all."""
MAX_NAMED = 3
"""Matches in the heading."""
_QUANTITIES = {"params": "parameters", "activations": "activations"}


def reconcile_heading(result: Reconciliation) -> list[str]:
    """The model, and the answer in one sentence."""
    variant, figure = result.variant, result.figure.text
    name = " ".join(filter(None, (variant.model, variant.settings)))
    heads = ", with auxiliary classifiers" if variant.aux else ""
    title = f"{result.title}   {name}   {variant.input}{heads}"
    if result.answer == "unexplained":
        return [title, f"{figure} is unexplained: no convention gives it, for this model or a variant; nearest:"]
    answers = _answers(result)
    best = answers[0]
    single = " in single precision" if best.counted.printed != best.total else ""
    reading = f"{_named(best, variant)}: {exact(best.total)} {_fit(best)} it{single}"
    if not result.explained:
        chance = "but this may be a coincidence: hundreds of numbers are compared, and the figure has few digits"
        return [title, f"{figure} may be {reading}", chance]
    if len(answers) == 1:
        return [title, f"{figure} is explained by {reading}"]
    if len(answers) <= MAX_NAMED:
        names = " or ".join(f"{_named(match, variant)} ({exact(match.total)})" for match in answers)
        return [title, f"{figure} is explained by {names}; more digits would tell which"]
    return [title, f"{figure} fits {len(answers)} ways of counting; more digits would tell which. First: {reading}"]


def _answers(result: Reconciliation) -> tuple[Candidate, ...]:
    """The matches that may be the cause: likely ones of the model itself, else likely ones, else all."""
    own = tuple(match for match in result.itself if match.likely)
    return own or tuple(match for match in result.matches if match.likely) or result.matches


def _named(candidate: Candidate, itself: Variant) -> str:
    """`thop`, or of another model `resnet50_v1 counted as flops, torch or darknet`."""
    before, _, last = candidate.reading.rpartition(", ")
    reading = f"{before} or {last}" if before else last
    return reading if candidate.variant == itself else f"{candidate.variant.text} counted as {reading}"


def _fit(candidate: Candidate) -> str:
    return f"{candidate.verdict} to" if candidate.difference else "equals"


def listed_matches(result: Reconciliation, *, everything: bool = False) -> tuple[Candidate, ...]:
    """The rows of the table: the matches that may be the cause, up to MAX_MATCHES.

    The nearest candidates if there is no match; every match if `everything`.
    """
    if everything or not result.matches:
        return result.matches or result.nearest
    return _answers(result)[:MAX_MATCHES]


def _off(difference: int, total: int) -> str:
    if not difference:
        return "0"
    reference = total - difference
    return signed_percent(difference / reference, 2) if reference else f"{difference:+,}"


def _suffix(variant: Variant, itself: Variant) -> str:
    return "" if variant == itself else f", {variant.text}"


def _fields(result: Reconciliation) -> list[Field[Candidate]]:
    return [
        Field("reading", "counted as", row_text=lambda c: c.reading + _suffix(c.variant, result.variant), align="left",
              style="bold", help="conventions or quantity, and the variant of the model"),
        Field("variant", "model", lambda c: c.variant.text, align="left", shown=False, help="variant of the model"),
        Field("total", "total", text=exact, help="the count"),
        Field("verdict", "verdict", row_text=lambda c: c.verdict if c.difference else "equals", align="left",
              shown=lambda rows: any(c.matches for c in rows), help="how the total gives the figure"),
        Field("difference", "off by", row_text=lambda c: _off(c.difference, c.total), priority=1,
              help="difference from the figure"),
        Field("sum", "sum of", lambda c: c.text, align="left", style="dim", wrap=True,
              help=_terms_help(result.matches or result.nearest)),
    ]  # fmt: skip


def _terms_help(candidates: tuple[Candidate, ...]) -> str:
    """The terms of the candidates' totals, and what each counts."""
    terms = dict.fromkeys(term for candidate in candidates for term in candidate.parts)
    return "; ".join(["terms of the total", *(f"{term}: {KINDS[term]}" for term in terms if term in KINDS)])


def candidates_sheet(result: Reconciliation, *, everything: bool = False) -> Sheet:
    """The convention, the variant, the total and its terms, of each listed match."""
    return Sheet.of(_fields(result), listed_matches(result, everything=everything))


def own_heading(result: Reconciliation) -> str:
    """The heading of `own_sheet`."""
    work = "every tool's figure for this model"
    return work if result.quantity == "work" else f"{_QUANTITIES[result.quantity]} of this model"


def own_sheet(result: Reconciliation) -> Sheet:
    """The model itself under every convention; or its parameters or activations, if the figure counts these."""
    if result.quantity != "work":
        own = [c for c in result.own if c.counted.quantity == result.quantity and not c.binary]
        return Sheet.of([f for f in _fields(result) if f.key not in ("variant", "verdict")], own)
    target = int(result.figure.value)
    fields: list[Field[Tally]] = [
        Field("convention", "convention", lambda tally: tally.name, align="left", style="bold",
              help="counting convention"),
        Field("total", "total", text=exact, help="the count"),
        Field("difference", "off by", lambda tally: tally.total - target, priority=1,
              row_text=lambda tally: _off(tally.total - target, tally.total), help="difference from the figure"),
        Field("formula", "formula", align="left", style="dim", wrap=True, help="terms of the total"),
    ]  # fmt: skip
    return Sheet.of(fields, list(result.tools.values()))


def reconcile_notes(result: Reconciliation, *, everything: bool = False) -> list[str]:
    """How many matches are not listed."""
    hidden = len(result.matches) - len(listed_matches(result, everything=everything)) if result.matches else 0
    less_likely = "" if len(_answers(result)) > MAX_MATCHES else "less likely "
    more = f"{hidden} {less_likely or 'more '}{'match' if hidden == 1 else 'matches'} and " if hidden else ""
    listed = [] if everything or not result.matches else [f"use --all to list {more}every tool's figure"]
    return [*listed, "counted for one image; --explain-columns explains the terms"]
