"""One phrase of a table, such as `3x3 128 C=32 /2` or `residual 0.17 linear x 5`, and its canonical text.

Numbers are kept as text, so that `fmt` prints `16*k` as it was written.
"""

from __future__ import annotations

from dataclasses import field

from resnetcli.frozen import frozen
from resnetcli.spec.vocabulary import form_of

ORDER = ("kind", "channels", "C", "dw", "/", "dil", "V", "pad", "ceil", "linear", "bare")
"""The canonical order of marks."""


class PhraseError(Exception):
    """Text that is not a phrase; `offset` and `length` are its position."""

    def __init__(self, message: str, offset: int, length: int, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.length, self.hint = message, offset, length, hint


@frozen
class Word:
    """A word and its position in the text."""

    text: str
    offset: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)

    def error(self, message: str, hint: str = "") -> PhraseError:
        """An error that points at the word."""
        return PhraseError(message, self.offset, self.length, hint)


@frozen
class Phrase:
    """A head with its arguments and marks, syntactically valid; `resnetcli.spec.bind` evaluates it."""

    head: str
    """`conv`, `pool`, `pool to`, an operation's word, a word of COMPOSITES, or `call`."""
    words: tuple[Word, ...] = ()
    """Arguments in order: kernel height and width of a convolution or a pool; the block's name first in a call."""
    marks: tuple[tuple[str, Word], ...] = ()
    """`channels`, `C`, `/`, `dil`, `pad`, `V`, `dw`, `linear`, `bare`, `ceil`, `of`, ... in canonical order."""
    times: Word | None = None
    offset: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)

    def mark(self, name: str) -> Word | None:
        """The word of a mark; None if the phrase does not have it."""
        return next((word for key, word in self.marks if key == name), None)


def text_of(phrase: Phrase) -> str:
    """The canonical text; `parse_cell` or `parse_head` reads it back as an equal phrase."""
    words = [word.text for word in phrase.words]
    marks = phrase.marks
    match phrase.head:
        case "conv" | "pool":
            parts = [f"{words[0]}x{words[1]}", *(mark_text(key, word) for key, word in marks)]
        case "pool to":
            kind, size = marks[0][1].text, "x".join(words)
            parts = ["global", kind] if size == "1x1" and kind == "avg" else [kind, "to", size]
        case "call":
            parts = words
        case "residual":
            parts = ["residual", *(word.text for key, word in sorted(marks, key=lambda mark: mark[0] != "scale"))]
        case "concat" | "sum" if marks:
            parts = [phrase.head, "of", marks[0][1].text]
        case head:
            form = form_of(head)
            parts = form.text(head, words) if form else [head]
    if phrase.times is not None:
        parts += ["x", phrase.times.text]
    return " ".join(parts)


def mark_text(key: str, word: Word) -> str:
    """Text of a mark: `/2`, `C=32`, `linear`; channels and a pool's kind are just the word."""
    match key:
        case "kind" | "channels" | "scale":
            return word.text
        case "/":
            return f"/{word.text}"
        case "C" | "dil" | "pad":
            return f"{key}={word.text}"
        case _:
            return key
