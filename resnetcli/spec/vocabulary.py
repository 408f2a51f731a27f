"""The words of the grammar, and the arguments of an operation's word.

An operation's word is in its class (`resnetcli.ops`). Without a row in FORMS its argument, if it has one, is a number
in brackets, as in `leaky(0.1)`.
"""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Literal, NamedTuple

from resnetcli.ops import WORDS, Op

COMPOSITES = ("residual", "concat", "sum", "seq", "aside")
POOLS = ("max", "avg", "global")
MARKS = ("linear", "bare", "V", "dw", "ceil", "pad", "dil")
_OTHER_WORDS = (
    "x", "s", "of", "to", "conv", "average", "pool", "stride", "null", "classes", "input", "aux", "batch", "device",
)  # fmt: skip
_FIXED = frozenset((*COMPOSITES, *POOLS, *MARKS, *_OTHER_WORDS))
MAX_CHANNELS = 2**20
MAX_WINDOW = 1024
"""Of kernels, strides, padding and dilation."""


class Argument(NamedTuple):
    """One argument of a word."""

    what: str
    """In error messages: `the number of features`. For a fixed word, such as `of` in `roi 7x7 of 5`, the word."""
    kind: Literal["whole", "number", "size", "word"]
    """A whole number or an expression; a decimal number; `HxW`; a fixed word."""
    least: int = 1
    most: int = 0
    """Bounds of a whole number."""
    below: float = float("inf")
    """Exclusive upper bound of a decimal number; the lower bound is 0."""


class Form(NamedTuple):
    """Syntax of a word and its arguments."""

    usage: str
    """An example, in hints."""
    arguments: tuple[Argument, ...] = ()
    bracketed: bool = False
    """`leaky(0.1)` instead of `leaky 0.1`."""
    optional: bool = False
    """Whether the bracket can be omitted."""
    repeated: bool = False
    """Whether its argument can be given several times."""

    def text(self, head: str, words: list[str]) -> list[str]:
        """The words of the canonical text."""
        if self.bracketed:
            return [f"{head}({words[0]})" if words else head]
        if self.repeated or not self.arguments:
            return [head, *words]
        parts, rest = [head], iter(words)
        for argument in self.arguments:
            match argument.kind:
                case "size":
                    parts.append(f"{next(rest)}x{next(rest)}")
                case "word":
                    parts.append(argument.what)
                case _:
                    parts.append(next(rest))
        return parts


FORMS = {
    "fc": Form("fc 1000", (Argument("the number of features", "whole", most=MAX_CHANNELS),)),
    "dropout": Form("dropout 0.5", (Argument("the probability", "number", below=1),)),
    "lrn": Form("lrn 5 0.0001 0.75 2", (
        Argument("the size", "whole", most=MAX_WINDOW), *(Argument(name, "number") for name in ("alpha", "beta", "k")),
    )),
    "spp": Form("spp 7 3 2 1", (Argument("a level", "whole", most=64),), repeated=True),
    "roi": Form("roi 14x14 of 300", (
        Argument("its size", "size"), Argument("of", "word"), Argument("the number of regions", "whole", most=100_000),
    )),
}  # fmt: skip
"""Word -> its syntax; the arguments are the fields of its class, in order."""


def _bracket_form(word: str, op: type[Op]) -> Form:
    """The form of a class without a row in FORMS: no argument, or one number in brackets."""
    arguments = fields(op)  # type: ignore[arg-type]
    if not arguments:
        return Form(word)
    (argument,) = arguments
    optional = argument.default is not MISSING
    example = argument.default if optional else 0.1
    return Form(f"{word}({example})", (Argument(f"its {argument.name}", "number"),), bracketed=True, optional=optional)


def form_of(word: str) -> Form | None:
    """Syntax of an operation's word; None for any other word."""
    if word in WORDS:
        return FORMS.get(word) or _bracket_form(word, WORDS[word])
    return None


def layer_words() -> tuple[str, ...]:
    """Words that can start a layer, apart from its window."""
    return (*POOLS, *WORDS)


def is_word(text: str) -> bool:
    """Whether a text is a word of the grammar, or an argument name of `load` and `profile`."""
    return text in _FIXED or text in WORDS
