r"""Replace characters pasted from PDFs and LaTeX by the grammar's, with their positions in the original text.

`3 \times 3`, `3✕3` and `3×3` become the same characters, so one parser reads them all, and its errors point at the
original text.
"""

# ruff: noqa: RUF001 - look-alikes are what is replaced

from __future__ import annotations

import re
import unicodedata
from itertools import chain

from resnetcli.frozen import frozen

_PLAIN = re.compile(r"[\t\n\r -#%-\[\]-}×]*")
"""Text that needs no replacement: no `$`, no backslash, no `~`."""
_SAME = str.maketrans(
    dict.fromkeys("✕✖⨯⨉╳⤫хХχΧⅹⅩ∗⁎⋅·∙", "×")
    | dict.fromkeys("‐‑‒–—−", "-")
    | dict.fromkeys("∕⁄", "/")
    | dict(zip("、АВСЕНКМОРТаеорс", ",ABCEHKMOPTaeopc", strict=True))
)
"""Look-alikes. `∗` and `·` stand for `×` in papers, in `3∗3` as in `16·k`."""
_UNSEEN = frozenset("\u00ad\u200b\u200c\u200d\u2060\ufeff")
_LATEX = re.compile(
    r"""
    (?P<open> \\begin\s*\{(?:[bpvBV]?matrix|smallmatrix|array|tabular)\}(?:\{[^{}]*\})? | \\left\s*[\[({] )
    | (?P<close> \\end\s*\{[a-zA-Z]+\} | \\right\s*[\])}] )
    | (?P<row> \\\\(?:\[[^\[\]]*\])? )
    | (?P<times> \\(?:times|cdot|ast)(?![A-Za-z])\s* )
    | (?P<space> \\[,;:!\ ] | ~ | \\q?quad(?![A-Za-z]) )
    | (?P<nothing> \$ | [{}] | \\(?:text|textrm|textbf|textit|mathrm|mathbf|mbox|rm|bf|it)(?![A-Za-z])\s* )
    """,
    re.VERBOSE,
)
_MEANS = {"open": "[", "close": "]", "row": ";", "times": "×", "space": " ", "nothing": ""}


@frozen
class Cleaned:
    """A text in the grammar's characters."""

    text: str
    places: tuple[tuple[int, int], ...] | None
    """Span of each character in the original text; None if nothing was replaced."""

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Offset and length, in the original text, of the characters from `start` to `end`."""
        if self.places is None or start >= end:
            return start, end - start
        first = self.places[start][0]
        return first, self.places[end - 1][1] - first


def clean_cell(text: str) -> Cleaned:
    """Replace LaTeX and look-alikes in a cell or a key."""
    if _PLAIN.fullmatch(text):
        return Cleaned(text, None)
    characters: list[str] = []
    places: list[tuple[int, int]] = []
    latex = _LATEX.finditer(text) if "\\" in text or "$" in text else iter(())
    place = 0
    for match in chain(latex, [None]):
        start, end = match.span() if match else (len(text), len(text))
        for index in range(place, start):
            if text[index] not in _UNSEEN:
                characters.append(_plain(text[index]))
                places.append((index, index + 1))
        if match and (means := _MEANS[match.lastgroup or "nothing"]):
            characters.append(means)
            places.append((start, end))
        place = end
    return Cleaned("".join(characters), tuple(places))


def _plain(char: str) -> str:
    """The ASCII character that `char` looks like. Superscripts are not replaced: `3²` is not 32."""
    if "\uff01" <= char <= "\uff5e" or "\U0001d400" <= char <= "\U0001d7ff":  # full width, mathematical letters
        wide = unicodedata.normalize("NFKC", char)
        char = wide if len(wide) == 1 else char
    return char.translate(_SAME)
