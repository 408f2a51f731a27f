"""Where text goes: data to stdout, whole lines when piped, colour only where a terminal can show it.

All output of a command passes through here (or `cli.app.complain`), where it is made safe for its destination.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable
from textwrap import wrap
from typing import IO, TYPE_CHECKING, Any, cast

from resnetcli.table.safe import ENCODING_ERRORS, json_text, no_commands, printable
from resnetcli.table.sheet import (
    Sheet,
    comfortable_width,
    fitting_widths,
    groups,
    split_columns,
    to_rich,
    without_spare,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 10_000
"""Wider than any table: nothing is cut when a program reads it."""
_TRAILING = re.compile(r" +(?=\n)")


_results: IO[str] | None = None


def stream() -> IO[str]:
    """The stream for results."""
    return _results or sys.stdout


def reserve_stdout() -> None:
    """Reserve stdout for results until the process ends: other writes to it go to stderr."""
    global _results
    encoding = sys.stdout.encoding
    sys.stdout.flush()
    _results = open(os.dup(1), "w", encoding=encoding, errors=ENCODING_ERRORS)  # noqa: SIM115, PTH123 - as above
    os.dup2(2, 1)
    sys.stdout = sys.stderr


class _Log:
    """A stream without trailing blanks and without workflow commands."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(no_commands(_TRAILING.sub("", text)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def console() -> Console:
    """The terminal; rich honours NO_COLOR and the terminal's width by itself."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # ours to end quietly; rich's own way out is exit code 1

    wide = None if stream().isatty() else PIPED_WIDTH
    log = cast("IO[str]", _Log(stream()))
    return Screen(file=log, width=wide, highlight=False, soft_wrap=False, emoji=False, markup=False)


def bar_width() -> int:
    """Characters a bar may take: more on a wide terminal."""
    width = console().width
    return 30 if 120 <= width < PIPED_WIDTH else 12


def natural_width(table: Table, *, wrapped: bool = False) -> int:
    """Width of a table in characters, with nothing wrapped or with everything wrapped."""
    from rich.measure import Measurement

    screen = console()
    measured = Measurement.get(screen, screen.options.update(max_width=PIPED_WIDTH), table)
    return measured.minimum if wrapped else measured.maximum


def print_sheet(sheet: Sheet) -> Sheet:
    """Print a sheet to the terminal; return it as shown.

    If it is too narrow, columns of low priority are hidden and listed; what is still too wide continues below.
    """
    screen, left_out = console(), []
    while comfortable_width(sheet) > screen.width and (fewer := without_spare(sheet)):
        sheet, head = fewer
        head = " ".join(head.split("\n"))
        left_out += [head] if head and head not in left_out else []
    if sheet.headings:
        _print_groups(sheet)
    else:
        for number, part in enumerate(split_columns(sheet, screen.width)):
            print_texts([""] if number else [])
            print_table(to_rich(part, widths=fitting_widths(part, screen.width)))
    print_texts([f"hidden (terminal too narrow): {', '.join(left_out)}"] if left_out else [], style="dim")
    return sheet


def print_table(table: Table) -> None:
    """Print a table without blank edges; figures are never cut, however narrow the terminal."""
    from rich.segment import Segment, Segments

    screen = console()
    narrow = screen.width < PIPED_WIDTH  # to measure a table takes as long as to draw it
    table.width = least if narrow and (least := natural_width(table, wrapped=True)) > screen.width else None
    options = screen.options.update_width(max(screen.width, table.width or 0))
    lines = screen.render_lines(table, options, pad=False)
    for edge in (0, -1):
        if lines and not "".join(segment.text for segment in lines[edge]).strip():
            del lines[edge]
    for line in lines:
        while line and not line[-1].text.strip():
            line.pop()
        line.append(Segment.line())
    screen.print(Segments([segment for line in lines for segment in line]), crop=False, end="")


def _print_groups(sheet: Sheet) -> None:
    widths = fitting_widths(sheet, console().width)
    print_table(to_rich(sheet, range(0), widths))
    for number, (heading, rows) in enumerate(groups(sheet)):
        print_texts([""] if number else [])
        print_texts([heading], "dim", indent=" ")
        print_table(to_rich(sheet, rows, widths))


def print_texts(lines: Iterable[str], style: str = "", *, indent: str = "") -> None:
    """Print lines, wrapped between words if the terminal is too narrow."""
    from rich.text import Text

    screen = console()
    for line in lines:
        line = indent + printable(line)
        # rich would break a word that is too long, or not break at all
        parts = wrap(line, screen.width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)
        for part in parts if len(line) > screen.width else [line]:
            screen.print(Text(part, style=style), overflow="ignore", crop=False)


def print_json(record: dict[str, Any]) -> None:
    """One JSON object, indented; in ASCII where the stream cannot have other characters."""
    import json

    known = (getattr(stream(), "encoding", None) or "utf-8").lower().replace("-", "").startswith("utf")
    write(json_text(json.dumps(record, indent=2, ensure_ascii=not known)) + "\n")


def print_whole(line: str) -> None:
    """Print a line without wrapping: it may be a path to copy."""
    write(printable(line) + "\n")


def write(text: str) -> None:
    """Print Markdown, CSV or JSON that is already safe."""
    stream().write(no_commands(text))


def write_verbatim(text: str) -> None:
    """Print a file's text unchanged."""
    stream().write(text)
