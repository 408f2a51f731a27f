"""Conventions of counting as a person reads them: captions, what gives a figure, what the tools say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from resnetcli.counting.tally import Tally
from resnetcli.errors import plural
from resnetcli.table.numbers import exact, short, signed_percent
from resnetcli.table.sheet import Cell, Column, Sheet, cell

if TYPE_CHECKING:
    from resnetcli.reports.crosscheck import Crosscheck, Crosschecked
    from resnetcli.reports.reconcile import Candidate, Reconciliation
    from resnetcli.reports.variants import Variant

MOST = 12
"""Explanations that a table shows."""
_QUANTITIES = {"params": "parameters", "activations": "activations"}


def reconcile_heading(found: Reconciliation) -> list[str]:
    """The question, and the answer in one sentence."""
    variant, figure = found.variant, found.figure.printed
    name = " ".join(filter(None, (variant.model, variant.settings)))
    heads = ", with auxiliary heads" if variant.aux else ""
    title = f"{found.title}   {name}   {variant.input}{heads}"
    if found.answer == "unexplained":
        return [title, f"{figure} is unexplained: no convention gives it, for this model or a variant; nearest"]
    best, others = found.matches[0], len(found.matches) - 1
    more = f"; {others} more below" if others else ""
    verb = "equals" if not best.difference else best.verdict
    single = " in single precision" if best.of.printed != best.total else ""
    end = f"{exact(best.total)} {verb} {'it' if verb == 'equals' else 'to it'}{single}{more}"
    if found.explained:
        return [title, f"{figure} is explained: {best.reading}{_of(best.variant, variant)}, {end}"]
    answer = f"{figure} may be {best.reading}{_of(best.variant, variant)}: {end}"
    return [
        title,
        answer,
        "it may be a coincidence: hundreds of numbers are compared, and this one is not the usual one",
    ]


def candidates_sheet(found: Reconciliation, most: int | None = MOST) -> Sheet:
    """What gives the figure, or comes nearest: the convention, the variant, the total and its parts; `most` of it."""
    listed = (found.matches or found.nearest)[:most]
    columns = (
        Column("counted as", "reading", "left", "bold"),
        Column("net", "variant", "left", shown=False),
        Column("total", "total"),
        Column("verdict", "verdict", "left", shown=bool(found.matches)),
        Column("off by", "difference", spare=1),
        Column("sum of", "sum", "left", "dim", wrap=True),
    )

    def line(candidate: Candidate) -> tuple[Cell, ...]:
        return (
            cell(candidate.reading, candidate.reading + _of(candidate.variant, found.variant)),
            cell(candidate.variant.text),
            cell(candidate.total, exact(candidate.total)),
            cell(candidate.verdict),
            cell(candidate.difference, _off(candidate.difference, candidate.total)),
            cell(candidate.text),
        )

    return Sheet(columns, tuple(map(line, listed)))


def _of(variant: Variant, asked: Variant) -> str:
    """The variant, if it is not the model as asked."""
    return "" if variant == asked else f", {variant.text}"


def _off(difference: int, total: int) -> str:
    if not difference:
        return "0"
    reference = total - difference
    return signed_percent(difference / reference, 2) if reference else f"{difference:+,}"


def own_sheet(found: Reconciliation) -> Sheet:
    """Figures of the model as asked, for the quantity that the figure counts."""
    return tools_sheet(found) if found.quantity == "work" else readings_sheet(found)


def own_heading(found: Reconciliation) -> str:
    """The heading of that table."""
    work = "every tool's figure for the model as asked"
    return work if found.quantity == "work" else f"{_QUANTITIES[found.quantity]} of the model as asked"


def tools_sheet(found: Reconciliation) -> Sheet:
    """The model as asked, under every convention."""
    columns = (
        Column("convention", "convention", "left", "bold"),
        Column("says", "total"),
        Column("exactly", "exact", spare=2, exported=False),
        Column("from the figure", "difference", spare=1),
        Column("formula", "formula", "left", "dim", wrap=True),
    )

    def line(tally: Tally) -> tuple[Cell, ...]:
        difference = int(tally.total - found.figure.value)
        return (
            cell(tally.name),
            cell(tally.total, short(tally.total)),
            cell(tally.total, exact(tally.total)),
            cell(difference, _off(difference, tally.total)),
            cell(tally.formula),
        )

    return Sheet(columns, tuple(map(line, found.tools.values())))


def readings_sheet(found: Reconciliation) -> Sheet:
    """The model as asked: each way to count the quantity."""
    columns = (
        Column("counted as", "reading", "left", "bold"),
        Column("total", "total"),
        Column("from the figure", "difference", spare=1),
        Column("sum of", "sum", "left", "dim", wrap=True),
    )
    own = [each for each in found.own if each.of.quantity == found.quantity and not each.binary]
    return Sheet(
        columns,
        tuple(
            (
                cell(each.reading),
                cell(each.total, exact(each.total)),
                cell(each.difference, _off(each.difference, each.total)),
                cell(each.text),
            )
            for each in own
        ),
    )


def reconcile_notes(found: Reconciliation) -> list[str]:
    """What was left out, and what it all holds for."""
    lines = []
    if (left := len(found.matches) - MOST) > 0:
        lines.append(f"{left} more give it (--format json lists all): many numbers fit a figure of few digits")
    return [*lines, "counted for one image; kinds of elements and conventions: docs/why/counting.md"]


def crosscheck_sheet(found: tuple[Crosschecked, ...]) -> Sheet:
    """A row a tool: its figure, ours, the verdict."""
    columns = (
        Column("model", "model", "left", shown=False),
        Column("convention", "convention", "left", "bold"),
        Column("tool", "tool", "left", spare=2),
        Column("says", "counted"),
        Column("we say", "ours"),
        Column("its params", "params", spare=1),
        Column("verdict", "verdict", "left"),
        Column("", "problem", shown=False),
    )

    def line(model: str, tool: Crosscheck) -> tuple[Cell, ...]:
        reading = tool.reading
        return (
            cell(model),
            cell(reading.convention),
            cell(f"{reading.package} {reading.version}".strip()),
            cell(reading.counted, "" if reading.counted is None else exact(reading.counted)),
            cell(tool.ours.total, exact(tool.ours.total)),
            cell(reading.params, "" if reading.params is None else exact(reading.params)),
            cell(tool.verdict),
            cell(reading.problem),
        )

    rows: list[tuple[Cell, ...]] = []
    headings: dict[int, str] = {}
    for net in found:
        size = net.profile.plan.input
        headings[len(rows)] = f"{net.profile.model}, {size}, {exact(net.profile.counts.params)} parameters"
        rows += [line(net.profile.model, tool) for tool in net.tools]
    return Sheet(columns, tuple(rows), headings=headings)


def crosscheck_lines(found: tuple[Crosschecked, ...]) -> list[str]:
    """The results, and why a figure is missing."""
    verdicts = [tool.verdict for net in found for tool in net.tools]
    said = {verdict: verdicts.count(verdict) for verdict in ("agrees", "differs", "no figure")}
    agree, differ = said["agrees"], said["differs"]
    counted = (
        f"{plural(len(found), 'net')}: {plural(agree, 'figure agrees', 'figures agree')} to the last digit, "
        f"{plural(differ, 'differs', 'differ')}"
    )
    missing = f", {said['no figure']} could not be had" if said["no figure"] else ""
    problems = dict.fromkeys(
        f"{tool.reading.convention}: {tool.reading.problem}"
        for net in found
        for tool in net.tools
        if tool.reading.problem
    )
    return [counted + missing, *problems]


def crosscheck_notes(found: tuple[Crosschecked, ...]) -> list[str]:
    """The known defects of the tools that show here, each once."""
    whose: dict[str, dict[str, None]] = {}
    for tool in (tool for net in found for tool in net.tools if tool.reading.counted is not None):
        for text in tool.defects:
            whose.setdefault(text, {})[tool.reading.convention] = None
    return [f"known issue of {', '.join(names)}: {text}" for text, names in whose.items()]
