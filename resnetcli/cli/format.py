"""Formatting files in place: the new text replaces the old one whole or not at all."""

from __future__ import annotations

import os
import sys
import tempfile
from enum import Enum
from pathlib import Path

from resnetcli.spec.format import format_text
from resnetcli.spec.source import MAX_BYTES, decode, read_source


class Outcome(Enum):
    """What formatting a file came to."""

    unchanged = 0
    changed = 1


def format_file(path: Path, *, write: bool) -> Outcome:
    """Formats a file, or stdin to stdout for `-`. Raises SpecError or UsageError, and then changes nothing."""
    if str(path) == "-":
        source = decode(sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b"", "<stdin>")
        text = format_text(source)
        if write:
            sys.stdout.write(text)
            return Outcome.unchanged
    else:
        source = read_source(path)
        text = format_text(source)
        if write and text != source.text:
            _replace(path, text)
    return Outcome.changed if text != source.text else Outcome.unchanged


def _replace(path: Path, text: str) -> None:
    """Writes beside the file and renames, so that an interruption loses nothing."""
    target = path.resolve()  # a link stays a link
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(text.encode("utf-8"))
        Path(name).chmod(target.stat().st_mode & 0o7777)
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink()
        raise
