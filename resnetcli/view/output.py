"""Where text goes: data to stdout, whole lines when piped, colour only where a terminal can show it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 10_000
"""Wider than any table: nothing is cut when a program reads it."""


def console() -> Console:
    """The terminal; rich honours NO_COLOR and the terminal's width by itself."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() else PIPED_WIDTH
    return Console(width=wide, highlight=False, soft_wrap=False, emoji=False, markup=False)


def print_json(record: dict[str, Any]) -> None:
    """One JSON object, indented."""
    sys.stdout.write(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write(text: str) -> None:
    """Text as it is."""
    sys.stdout.write(text)
