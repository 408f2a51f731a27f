"""Where text goes: data to stdout, whole lines when piped, colour only where a terminal can show it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from resnetcli.view.sheet import Sheet, comfortable_width, groups, split, to_rich, without_spare

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 10_000
"""Wider than any table: nothing is cut when a program reads it."""


def console() -> Console:
    """The terminal; rich honours NO_COLOR and the terminal's width by itself."""
    from rich.console import Console

    class Screen(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # ours to end quietly; rich's own way out is exit code 1

    wide = None if sys.stdout.isatty() else PIPED_WIDTH
    return Screen(width=wide, highlight=False, soft_wrap=False, emoji=False, markup=False)


def bar_width() -> int:
    """Characters a bar may take: more on a wide terminal."""
    width = console().width
    return 30 if 120 <= width < PIPED_WIDTH else 12


def text_width() -> int:
    """Characters a line of prose may take beside its name: no more than one reads with ease."""
    return max(20, min(console().width - 18, 90))


def natural_width(table: Table) -> int:
    """Characters a table takes if nothing is wrapped."""
    from rich.measure import Measurement

    screen = console()
    return Measurement.get(screen, screen.options.update(max_width=PIPED_WIDTH), table).maximum


def print_sheet(sheet: Sheet) -> None:
    """A sheet to the terminal.

    Where that is too narrow, spare columns are left out, which is said, and what is still too wide goes on below.
    """
    screen, left_out = console(), []
    while comfortable_width(sheet) > screen.width and (fewer := without_spare(sheet)):
        sheet, head = fewer
        left_out += [head] if head and head not in left_out else []
    if sheet.headings:
        _print_groups(sheet, screen)
    else:
        for part in split(sheet, screen.width):
            screen.print(to_rich(part))
    if left_out:
        screen.print(f"too narrow for: {', '.join(left_out)}", style="dim")


def _print_groups(sheet: Sheet, screen: Console) -> None:
    from rich.padding import Padding

    screen.print("", Padding(to_rich(sheet, range(0)), (0, 0, 0, 1), expand=False))
    for heading, rows in groups(sheet):
        screen.print(f" {heading}", style="dim", no_wrap=True, overflow="ellipsis")
        screen.print(Padding(to_rich(sheet, rows), (0, 0, 0, 1), expand=False), "")


def print_json(record: dict[str, Any]) -> None:
    """One JSON object, indented."""
    import json

    sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Text as it is."""
    sys.stdout.write(text)
