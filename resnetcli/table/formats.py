"""Output formats: each is one entry of `FORMATS`, which every command's `--format` offers.

A command describes its output once, as an `Output`; a format prints any `Output`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from resnetcli.errors import UsageError, clean
from resnetcli.frozen import frozen

if TYPE_CHECKING:
    from rich.table import Table

    from resnetcli.failures import ModelFailure
    from resnetcli.table.sheet import Sheet

MAX_NOTES = 3
"""Lines of legend and conditions below a table in a terminal; Markdown and JSON have all of them."""


@frozen
class Section:
    """A table with the lines around it; without a sheet, only lines."""

    sheet: Sheet | None = None
    before: Sequence[str] = ()
    after: Sequence[str] = ()
    """Results and warnings: always printed."""
    notes: Sequence[str] = ()
    """Conditions of the figures, the most important first."""
    plot: Sequence[Sequence[tuple[str, str]]] = ()
    """Lines of a plot in text above the table, each as pieces with their style."""
    draw: Callable[[int], Iterable[Table]] | None = None
    """The sheet as a terminal of so many characters shows it, if not as a plain table."""


@frozen
class Output:
    """Output of a command in every form, computed on demand."""

    record: Callable[[], dict[str, Any]]
    """One JSON object."""
    sections: Callable[[], Iterable[Section]]
    """Tables and lines for people."""
    data: Callable[[], Iterable[Sheet]] | None = None
    """One table of exact values for programs, in parts with the same columns; by default the first section's."""
    failures: Sequence[ModelFailure] | None = None
    """Models that failed; None for a command that takes one model."""
    warnings: Sequence[str] = ()
    """Lines that a format without sections prints to stderr."""
    explain_columns: bool = False
    """Whether each table is followed by the meaning of its columns, in place of its legend."""


@frozen
class Format:
    """One choice of `--format`."""

    name: str
    help: str
    write: Callable[[Output], None]
    has_sections: bool = True
    """Whether it prints the lines around the tables."""
    has_tables: bool = True
    """False if it prints the whole record."""

    def __str__(self) -> str:
        return self.name


def _write_table(output: Output) -> None:
    for number, section in enumerate(_with_failures(output, failed_lines(output.failures or ()))):
        _print_section(section, below=number > 0, explain=output.explain_columns)


def _print_section(section: Section, *, below: bool, explain: bool) -> None:
    from rich.text import Text

    from resnetcli.table.output import console, print_sheet, print_table, print_texts
    from resnetcli.table.sheet import explanation, legend

    sheet, notes = section.sheet, list(section.notes)
    print_texts([*([""] if below else []), *section.before, *([""] if section.before and sheet else [])])
    for line in section.plot:
        text = Text.assemble(*line)
        text.rstrip()
        console().print(text, no_wrap=True, overflow="ignore", crop=False)
    print_texts([""] if section.plot and sheet else [])
    if sheet is not None:
        if section.draw is None:
            shown = print_sheet(sheet)
        else:
            shown = sheet
            for table in section.draw(console().width):
                print_table(table)
        meaning = "" if explain else legend(shown)
        notes = [*notes[:1], *([meaning] if meaning else []), *notes[1:]]
    lines = [*section.after, *notes[:MAX_NOTES]]
    print_texts(["", *lines] if lines else [])
    if explain and sheet is not None:
        print_texts(["", *explanation(sheet)])


def _write_markdown(output: Output) -> None:
    from resnetcli.table.output import write
    from resnetcli.table.sheet import explanation, legend, to_markdown

    for section in _with_failures(output, failure_reasons(output.failures or ())):
        _markdown_lines(section.before)
        if section.plot:
            lines = ["".join(text for text, _ in line).rstrip() for line in section.plot]
            write("\n".join(["```text", *lines, "```", "", ""]))
        if section.sheet is None:
            _markdown_lines([*section.after, *section.notes])
            continue
        write(to_markdown(section.sheet) + "\n")
        explain = output.explain_columns
        meaning = explanation(section.sheet) if explain else filter(None, [legend(section.sheet)])
        _markdown_lines([*section.after, *section.notes, *meaning])


def _markdown_lines(lines: Sequence[str]) -> None:
    from resnetcli.table.output import write
    from resnetcli.table.safe import markdown_line

    write("".join(f"{markdown_line(line)}  \n" for line in lines) + ("\n" if lines else ""))


def _write_csv(output: Output) -> None:
    from resnetcli.table.output import write
    from resnetcli.table.sheet import explanation_sheet, to_csv

    for number, sheet in enumerate(_data(output)):
        if output.explain_columns:
            write(to_csv(explanation_sheet(sheet)))
            break
        write(to_csv(sheet, header=number == 0))


def _data(output: Output) -> Iterable[Sheet]:
    """The parts of the table for programs; if models failed, with a column `error` and in the last a row for each."""
    from resnetcli.table.sheet import with_errors

    parts = output.data() if output.data else [next(s.sheet for s in output.sections() if s.sheet is not None)]
    errors = {failure.label: failure.reason for failure in output.failures or ()}
    if not errors:
        return parts
    *others, last = parts
    return [*(with_errors(sheet, {}) for sheet in others), with_errors(last, errors)]


def _write_json(output: Output) -> None:
    from resnetcli.table.output import print_json

    if output.explain_columns:
        raise UsageError("`--explain-columns` is for tables", "omit it, or use `--format table`")
    failed = {} if output.failures is None else {"failed": [failure.record() for failure in output.failures]}
    print_json(output.record() | failed)


TABLE = Format("table", "tables for a terminal", _write_table)
FORMATS = {
    format.name: format
    for format in (
        TABLE,
        Format("md", "Markdown tables", _write_markdown),
        Format("csv", "exact values, comma-separated", _write_csv, has_sections=False),
        Format("json", "exact values, one JSON object", _write_json, has_sections=False, has_tables=False),
    )
}
"""The choices of `--format`, in the order of the help."""


def _with_failures(output: Output, lines: Sequence[str]) -> list[Section]:
    """The sections, the lines about failed models after the last table."""
    sections = list(output.sections())
    if lines:
        last = max((number for number, section in enumerate(sections) if section.sheet is not None), default=None)
        if last is None:
            return [*sections, Section(before=lines)]
        sections[last] = replace(sections[last], after=[*sections[last].after, *lines])
    return sections


def failed_lines(failures: Sequence[ModelFailure]) -> list[str]:
    """The models that failed, where stderr shows why."""
    names = ", ".join(f"`{clean(failure.label)}`" for failure in failures)
    return [f"failed: {names}; see the error below"] if failures else []


def failure_reasons(failures: Sequence[ModelFailure]) -> list[str]:
    """The models that failed and why, for output that is kept without stderr."""
    return [f"failed: `{clean(failure.label)}`: {clean(failure.reason, 300)}" for failure in failures]
