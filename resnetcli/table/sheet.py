"""A table as data, and the three ways to write it: for a terminal, as Markdown, as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, TypeVar

from resnetcli.frozen import frozen
from resnetcli.table.safe import csv_value, markdown, printable

if TYPE_CHECKING:
    from typing import Protocol

    from rich.table import Table

    R = TypeVar("R")
    Row = TypeVar("Row", contravariant=True)

    class Definition(Protocol[Row]):
        """Defines a column of tables whose rows are objects of one type: `table.fields.Field`."""

        def column(self, rows: Sequence[Row], /) -> Column: ...
        def cell(self, row: Row, /) -> Cell: ...


PROSE, FIGURE = 20, 8
"""Characters below which a column of texts, or the head of one of figures, is not wrapped as long as others can go."""
Value = int | float | str | None


@frozen
class Column:
    """One column: its head for people and its key for programs."""

    head: str
    key: str
    align: Literal["left", "right"] = "right"
    style: str = ""
    shown: bool = True
    """False for what only CSV carries."""
    exported: bool = True
    """False for decoration."""
    wrap: bool = False
    """Whether its texts may go on in a second line."""
    spare: int = 0
    """Above 0: left out of a terminal too narrow for all, the highest first."""
    legend: str = ""
    """The legend below a table that shows the column."""
    help: str = ""
    """Meaning, for `--explain-columns`; the legend if empty."""


@frozen
class Cell:
    """Displayed text and exact value."""

    text: str
    value: Value


@frozen
class Sheet:
    """Columns, rows, and a last row set apart."""

    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: tuple[Cell, ...] | None = None
    headings: Mapping[int, str] = field(default_factory=dict)
    """Row number -> heading of the group that begins there. Formats for programs have a column instead."""

    @classmethod
    def of(
        cls, fields: Sequence[Definition[R]], rows: Sequence[R], total: R | None = None,
        headings: Mapping[int, str] | None = None,
    ) -> Sheet:  # fmt: skip
        """The sheet with these columns and a row for each object; `total` is the object of the last row."""
        columns = tuple(each.column(rows) for each in fields)
        lines = tuple(tuple(each.cell(row) for each in fields) for row in rows)
        last = None if total is None else tuple(each.cell(total) for each in fields)
        return cls(columns, lines, last, headings or {})


def cell(value: Value, text: str | None = None) -> Cell:
    """A cell whose text is the value's unless given."""
    return Cell(("" if value is None else str(value)) if text is None else text, value)


def with_errors(sheet: Sheet, errors: Mapping[str, str]) -> Sheet:
    """The sheet with a column `error` and a row for each model that failed."""
    place = next((i for i, column in enumerate(sheet.columns) if column.key == "model"), 0)
    empty = [cell(None)] * len(sheet.columns)
    failed = [(*empty[:place], cell(model), *empty[place + 1 :], cell(error)) for model, error in errors.items()]
    rows = [*((*row, cell(None)) for row in sheet.rows), *failed]
    total = None if sheet.total is None else (*sheet.total, cell(None))
    return replace(sheet, columns=(*sheet.columns, Column("error", "error", "left")), rows=tuple(rows), total=total)


def to_csv(sheet: Sheet, *, header: bool = True) -> str:
    """Comma-separated, one line a row, exact values, keys as the header; the total is its last line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    keep = [i for i, column in enumerate(sheet.columns) if column.exported]
    if header:
        writer.writerow([csv_value(sheet.columns[i].key) for i in keep])
    for row in (*sheet.rows, *([sheet.total] if sheet.total else [])):
        writer.writerow([csv_value(row[i].value) for i in keep])
    return out.getvalue()


def to_markdown(sheet: Sheet) -> str:
    """A Markdown table with the figures a person reads."""
    keep = [i for i, column in enumerate(sheet.columns) if column.shown and column.exported]
    columns = [sheet.columns[i] for i in keep]
    lines = [_markdown_row([" ".join((column.head or column.key).split("\n")) for column in columns])]
    lines.append("|" + "|".join(":--" if column.align == "left" else "--:" for column in columns) + "|")
    for number, row in enumerate(sheet.rows):
        if number in sheet.headings:
            lines.append(_markdown_row([sheet.headings[number], *[""] * (len(keep) - 1)], bold=True))
        lines.append(_markdown_row([row[i].text for i in keep]))
    if sheet.total:
        lines.append(_markdown_row([sheet.total[i].text.strip() for i in keep], bold=True))
    return "\n".join(lines) + "\n"


def _markdown_row(texts: Sequence[str], *, bold: bool = False) -> str:
    mark = "**" if bold else ""
    return "| " + " | ".join(f"{mark}{markdown(text)}{mark}" if text else "" for text in texts) + " |"


def legend(sheet: Sheet) -> str:
    """The legends of the columns that are shown."""
    return "; ".join(dict.fromkeys(column.legend for column in sheet.columns if column.shown and column.legend))


def explanation(sheet: Sheet) -> list[str]:
    """A line for each column that is shown, `acts (activations): outputs of ...`: its head, key and meaning."""
    lines = []
    for column in sheet.columns:
        head, text = " ".join((column.head or column.key).split("\n")), meaning(column)
        if column.shown and text:
            lines.append(f"{head if column.key in ('', head) else f'{head} ({column.key})'}: {text}")
    return lines


def explanation_sheet(sheet: Sheet) -> Sheet:
    """Key and meaning of each exported column, a row each."""
    rows = tuple((cell(column.key), cell(meaning(column))) for column in sheet.columns if column.exported)
    return Sheet((Column("column", "column", "left"), Column("meaning", "meaning", "left")), rows)


def meaning(column: Column) -> str:
    """The meaning of a column, from its help or its legend; empty without both."""
    return column.help or column.legend.partition(": ")[2]


def column_widths(sheet: Sheet, *, least: bool = False) -> dict[int, int]:
    """Characters each shown column takes, wrapped as far as it reads well, or with `least` as far as it may be.

    A word is never cut.
    """
    from rich.cells import cell_len

    widths = {}
    for i in [i for i, column in enumerate(sheet.columns) if column.shown]:
        column = sheet.columns[i]
        texts = [column.head, *(row[i].text for row in (*sheet.rows, *([sheet.total] if sheet.total else [])))]
        widths[i] = max(cell_len(line) for text in texts for line in text.split("\n"))
        if column.wrap:
            word = max((cell_len(word) for text in texts for word in text.split()), default=0)
            readable = 0 if least else PROSE if column.align == "left" else FIGURE
            widths[i] = min(widths[i], max(word, readable))
    return widths


def fitting_widths(sheet: Sheet, width: int) -> dict[int, int]:
    """The columns' widths in a terminal of that width: those that read well, or the least if these do not fit."""
    return column_widths(sheet, least=comfortable_width(sheet) > width)


def to_rich(sheet: Sheet, rows: range | None = None, widths: Mapping[int, int] | None = None) -> Table:
    """A table for the terminal, as wide as its texts; or some of its rows, as wide as if all were there.

    `widths`: the least width of each column, the least possible by default.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    headed = not rows and any(column.head for column in sheet.columns)
    plain = box.Box(str(box.SIMPLE_HEAD), ascii=True)  # as ASCII its line is of hyphens, and there still is no frame
    table = Table(box=plain, pad_edge=False, show_header=headed, show_footer=sheet.total is not None,
                  header_style="bold")  # fmt: skip
    natural = column_widths(replace(sheet, columns=tuple(replace(column, wrap=False) for column in sheet.columns)))
    for i, least in (column_widths(sheet, least=True) if widths is None else widths).items():
        column = sheet.columns[i]
        footer = Text(printable(sheet.total[i].text) if sheet.total else "", style="bold")
        table.add_column(
            Text(printable(column.head, "\n")), footer, justify=column.align, style=column.style,
            no_wrap=not column.wrap or least == natural[i], min_width=least,
        )  # fmt: skip
    for number in range(len(sheet.rows)) if rows is None else rows:
        shown = (entry for entry, column in zip(sheet.rows[number], sheet.columns, strict=True) if column.shown)
        table.add_row(*(Text(printable(entry.text, "\n")) for entry in shown))
    return table


def comfortable_width(sheet: Sheet) -> int:
    """Characters it takes in a terminal where what may wrap does so, but into no narrower a column than one reads."""
    widths = column_widths(sheet).values()
    return sum(widths) + 3 * (len(widths) - 1) + 2  # between columns, and at the edges


def split_columns(sheet: Sheet, width: int) -> list[Sheet]:
    """The sheet, or several with some of its columns each and the first in all, none wider than that if it can be.

    In those that follow, rows that have nothing to say are left out.
    """
    shown = [i for i, column in enumerate(sheet.columns) if column.shown]
    parts: list[list[int]] = []
    for i in shown[1:]:
        if not parts or comfortable_width(_only(sheet, [shown[0], *parts[-1], i])) > width:
            parts.append([])
        parts[-1].append(i)
    if len(parts) < 2:
        return [sheet]
    first, *others = (_only(sheet, [shown[0], *part]) for part in parts)
    more = [replace(other, rows=tuple(row for row in other.rows if any(row[i].text for i in part)))
            for other, part in zip(others, parts[1:], strict=True)]  # fmt: skip
    return [first, *(other for other in more if other.rows)]


def _only(sheet: Sheet, shown: Sequence[int]) -> Sheet:
    return replace(sheet, columns=tuple(replace(c, shown=i in shown) for i, c in enumerate(sheet.columns)))


def groups(sheet: Sheet) -> list[tuple[str, range]]:
    """Its headings, each with the rows below it."""
    starts = [*sheet.headings, len(sheet.rows)]
    return [(sheet.headings[start], range(start, end)) for start, end in pairwise(starts)]


def without_spare(sheet: Sheet) -> tuple[Sheet, str] | None:
    """The sheet without its most spare column, and that column's head; None if every column matters."""
    shown = [column for column in sheet.columns if column.shown and column.spare]
    if not shown:
        return None
    worst = max(shown, key=lambda column: column.spare)
    columns = tuple(replace(column, shown=False) if column is worst else column for column in sheet.columns)
    return replace(sheet, columns=columns), worst.head
