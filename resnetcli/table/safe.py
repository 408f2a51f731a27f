"""Make untrusted text safe for its destination: a terminal, a workflow's log, Markdown, CSV, JSON, XML."""

from __future__ import annotations

import codecs
import json
import re

from resnetcli.errors import printable as printable

_COMMAND = re.compile(r"^([^\S\n]*):(?=:)|##(?=\w*\[)", re.MULTILINE)
"""Workflow commands in a log: `::error` at the start of a line, `##[error]` anywhere."""
_MARKUP = re.compile(r"[\\`|~$]|(?<!\w)_|_(?!\w)|\](?=[(\[:])|(?<=:)/(?=/)|(?<=\bwww)\.", re.IGNORECASE)
_BLOCK = re.compile(r"[#>=+-]|([0-9]+)(?=[.)](?:\s|$))")
"""Starts of a Markdown heading, quotation, list or rule."""
_OURS = re.compile(r"(`(?:resnet-cli|--)[^`<>|&\[\]]*`)")
"""A command to type, which is code."""
_FORMULA = re.compile(r"\s*[=+\-@\uff1d\uff0b\uff0d\uff20].")
_NUMBER = re.compile(r"[+-]?[0-9][0-9.,]*(?:[eE][+-]?[0-9]+)?%?")
_ASCII = {
    **dict.fromkeys("█▉▊▋▌▇▆▅▄", "#"), **dict.fromkeys("▍▎▏▁▂▃", "."), **dict.fromkeys("─━", "-"), "│": "|",
    **dict.fromkeys("┌┬┐├┼┤└┴┘", "+"), **dict.fromkeys("⎡⎢⎣", "["), **dict.fromkeys("⎤⎥⎦", "]"), "×": "x",
    "±": "+-", "…": "...", "→": "->", "\u2013": "-", "\u2014": "-", "\u2018": "'", "\u2019": "'",
    "\u201c": '"', "\u201d": '"',
}  # fmt: skip
ENCODING_ERRORS = "resnetcli"
"""Error handler for streams with a limited character set: the nearest ASCII, else a question mark."""


def no_commands(text: str) -> str:
    """Disable workflow commands in text for a log."""
    return _COMMAND.sub(lambda match: f"{match[1]}: " if match[1] is not None else "# #", text)


def markdown(text: str) -> str:
    """Escape text for a Markdown cell or line: no HTML, no links, no code."""
    text = printable(text, "\n").replace("&", "&amp;").replace("<", "&lt;")
    text = _MARKUP.sub(r"\\\g<0>", text).replace("\n", "<br>")
    return text.replace("*", "\\*") if text.count("*") > 1 else text  # it takes two to emphasise


def markdown_line(text: str) -> str:
    """Escape text for a whole line, which must not become a heading or a list; a command to type stays code."""
    pieces = _OURS.split(printable(text.strip()))
    text = "".join(piece if number % 2 else markdown(piece) for number, piece in enumerate(pieces))
    if (block := _BLOCK.match(text)) is None:
        return text
    return f"{block[1]}\\{text[block.end() :]}" if block[1] else f"\\{text}"


def csv_value(value: float | str | None) -> float | str:
    """A CSV cell that a spreadsheet does not evaluate; numbers stay numbers, text becomes one line."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return value
    text = printable(re.sub(r"[\t\r\n]+", " ", value))
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def json_text(text: str) -> str:
    """Equivalent JSON, with escapes for what a terminal or a workflow's log would interpret."""
    lines = (line if line.isprintable() else "".join(map(_json_char, line)) for line in text.split("\n"))
    return re.sub(r"#(?=#\w*\[)", r"\\u0023", "\n".join(lines))


def _json_char(char: str) -> str:
    return char if char.isprintable() else json.dumps(char)[1:-1]


def xml(text: str) -> str:
    """Text within XML: an SVG's title."""
    from html import escape  # its table of entities takes 2 ms

    return escape(printable(text))


def _nearest_ascii(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_ASCII.get(char, "?") for char in error.object[error.start : error.end]), error.end


codecs.register_error(ENCODING_ERRORS, _nearest_ascii)
