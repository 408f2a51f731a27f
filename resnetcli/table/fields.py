"""A column, defined once: tables, CSV, JSON, data frames and `--sort` follow from its key, head, value and text."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from resnetcli.frozen import frozen
from resnetcli.table.sheet import Cell, Column, Value

if TYPE_CHECKING:
    import pandas as pd

R = TypeVar("R")
S = TypeVar("S")


@frozen
class Field(Generic[R]):
    """One column of tables whose rows are objects of type R."""

    key: str
    """Name in CSV, JSON, data frames and `--sort`."""
    head: str
    """Head of the column in tables."""
    value: Callable[[R], Value] | None = None
    """The exact value of a row; without it the row's attribute `key`."""
    text: Callable[[Any], str] = str
    """Text of a value other than None."""
    missing: str = ""
    """Text of None."""
    row_text: Callable[[R], str] | None = None
    """Replaces `text` and `missing` where the text depends on more than the value."""
    align: Literal["left", "right"] = "right"
    style: str = ""
    priority: int = 0
    """0: always shown. Otherwise hidden in a terminal too narrow for all columns, the highest number first."""
    shown: bool | Callable[[Sequence[R]], bool] = True
    """False: in CSV only; or decided from the rows."""
    sparse: bool = False
    """Whether tables hide the column if all its texts are empty or `missing`."""
    exported: bool = True
    """False: not in CSV and Markdown."""
    wrap: bool = False
    """Whether texts may continue on a second line."""
    legend: str | Callable[[Sequence[R]], str] = ""
    """The line below every table that shows the column; empty if the head explains itself."""
    help: str = ""
    """Meaning, for `--explain-columns`; the legend if empty."""
    aliases: tuple[str, ...] = ()
    """Other names that `--sort` accepts."""

    def of(self, row: R) -> Value:
        """The exact value of a row."""
        return getattr(row, self.key) if self.value is None else self.value(row)

    def cell(self, row: R) -> Cell:
        """The text and the exact value of a row."""
        value = self.of(row)
        if self.row_text is not None:
            return Cell(self.row_text(row), value)
        return Cell(self.missing if value is None else self.text(value), value)

    def column(self, rows: Sequence[R]) -> Column:
        """The column of a sheet with these rows."""
        shown = self.shown if isinstance(self.shown, bool) else self.shown(rows)
        if shown and self.sparse:
            shown = any(self.cell(row).text not in ("", self.missing) for row in rows)
        return Column(
            self.head, self.key, self.align, self.style, shown=shown, exported=self.exported, wrap=self.wrap,
            spare=self.priority, help=self.help,
            legend=self.legend if isinstance(self.legend, str) else self.legend(rows) if shown else "",
        )  # fmt: skip

    def through(self, part: Callable[[S], R | None]) -> Field[S]:
        """The column in tables whose rows have an R as a part: empty in rows where `part` gives None."""

        def parts(rows: Iterable[S]) -> list[R]:
            return [found for row in rows if (found := part(row)) is not None]

        def value(row: S) -> Value:
            return None if (found := part(row)) is None else self.of(found)

        def row_text(row: S) -> str:
            return "" if (found := part(row)) is None else self.cell(found).text

        shown, legend = self.shown, self.legend
        return Field(
            self.key, self.head, value, row_text=row_text, missing=self.missing, align=self.align, style=self.style,
            priority=self.priority, shown=shown if isinstance(shown, bool) else lambda rows: shown(parts(rows)),
            sparse=self.sparse, exported=self.exported, wrap=self.wrap,
            legend=legend if isinstance(legend, str) else lambda rows: legend(parts(rows)), help=self.help,
            aliases=self.aliases,
        )  # fmt: skip


def item_field(key: str, head: str, text: Callable[[Any], str] = str, **options: Any) -> Field[Mapping[str, Any]]:
    """A column of tables whose rows are records: the value is the record's item `key`."""
    return Field(key, head, itemgetter(key), text, **options)


def find_field(fields: Iterable[Field[R]], name: str) -> Field[R] | None:
    """The column with that key, head or alias; case, spaces, hyphens and underscores do not matter."""
    wanted = _letters(name)
    return next((f for f in fields if wanted in map(_letters, (f.key, f.head, *f.aliases))), None)


def _letters(name: str) -> str:
    return "".join(char for char in name.casefold() if not char.isspace() and char not in "-_")


def record(fields: Iterable[Field[R]], row: R) -> dict[str, Value]:
    """The exact values of a row by key, for JSON."""
    return {field.key: field.of(row) for field in fields if field.exported}


def to_frame(fields: Sequence[Field[R]], rows: Iterable[R], index: str) -> pd.DataFrame:
    """A data frame, one row each with exact values, indexed by the column with key `index`. Imports pandas."""
    import pandas as pd

    return pd.DataFrame([record(fields, row) for row in rows]).set_index(index)
