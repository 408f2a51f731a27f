"""One phrase of a table <-> its words: `3x3 128 C=32 /2`, `residual 0.17 linear x 5`, `inception 64 96`.

Syntax alone: numbers stay text here, so that a formatter can print `16*k` as it was written. The papers' own
cell text (`7×7, 64, stride 2`) is read too, and printed in the canonical form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from resnetcli.errors import did_you_mean

COMPOSITES = ("residual", "concat", "sum", "seq", "aside")
LAYER_WORDS = ("max", "avg", "global", "fc", "bn", "relu", "prelu", "leaky", "lrn", "dropout", "softmax", "spp", "roi")
MARKS = ("linear", "bare", "V", "dw", "ceil", "pad", "dil")
RESERVED = frozenset((
    *COMPOSITES, *LAYER_WORDS, *MARKS, "x", "s", "of", "to", "conv", "average", "pool", "stride", "null", "classes",
    "input", "aux", "batch", "device",
))  # fmt: skip
"""Words of the grammar and options of Python's `load` and `profile`: no names for `let:` or `blocks:`. (`C` is one.)"""

_KERNEL = re.compile(r"([0-9]+|[A-Za-z])x([0-9]+|[A-Za-z])")
_SIZED = re.compile(r"(bn|leaky)\(([^()]*)\)")
_COPIES = re.compile(r"x[0-9]+")
_UNITS = re.compile(r"([0-9]+)-?d")
_NUMBER = re.compile(r"[A-Za-z0-9_(\-][A-Za-z0-9_+\-*/()]*")


class PhraseError(Exception):
    """Words that make no phrase; `offset` and `length` point into the text."""

    def __init__(self, message: str, offset: int, length: int, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.offset, self.length, self.hint = message, offset, length, hint


@dataclass(frozen=True, slots=True)
class Word:
    """A word, and where it stands in the phrase's text."""

    text: str
    offset: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Phrase:
    """A head with its marks; which marks a head can have is decided here, what they mean is not."""

    head: str
    """`conv`, `pool`, `pool to`, a word of LAYER_WORDS or COMPOSITES, or `call`."""
    words: tuple[Word, ...] = ()
    """What stands without a mark, in order: kernel height and width first, for a convolution or a pool."""
    marks: tuple[tuple[str, Word], ...] = ()
    """`channels`, `C`, `/`, `dil`, `pad`, `V`, `dw`, `linear`, `bare`, `ceil`, `of`, ... in canonical order."""
    times: Word | None = None
    offset: int = field(default=0, compare=False)
    length: int = field(default=0, compare=False)

    def mark(self, name: str) -> Word | None:
        """The word of a mark, if it is there."""
        return next((word for key, word in self.marks if key == name), None)


_ORDER = ("kind", "channels", "C", "dw", "/", "dil", "V", "pad", "ceil", "linear", "bare")
_FLAGS = ("V", "dw", "linear", "bare", "ceil")
_ONE_OF = (("C", "dw"), ("V", "pad"), ("linear", "bare"))


@lru_cache(maxsize=4096)
def parse_cell(text: str) -> tuple[Phrase, ...]:
    """The layers of one cell: one, or several where commas part whole layers (`average pool, 1000-d fc`)."""
    groups: list[list[Word]] = []
    if not text.strip():
        raise PhraseError("an empty entry", 0, max(1, len(text)), "write a layer")
    for part in _parts(text):
        words = _words(text, *part)
        if not words:
            raise PhraseError("nothing stands before or after this comma", max(0, part[0] - 1), 1)
        if not groups or _begins_layer(words):
            groups.append(words)
        else:
            groups[-1].extend(words)
    return tuple(_layer(words) for words in groups)


@lru_cache(maxsize=1024)
def parse_head(text: str) -> Phrase:
    """The key of a composite: `residual [scale] [linear] [x N]`, `concat [of N] [x N]`, `seq`, `aside`."""
    words, times = _times(_words(text, 0, len(text)))
    if not words:
        raise PhraseError("an empty key", 0, max(1, len(text)))
    head, rest = words[0], words[1:]
    if head.text not in COMPOSITES:
        hint = did_you_mean(head.text, COMPOSITES, f"a body follows {', '.join(COMPOSITES)} alone")
        raise PhraseError(f"`{head.text}` takes no body", head.offset, head.length, hint)
    marks: dict[str, Word] = {}
    if head.text == "residual":
        for word in rest:
            key = "linear" if word.text == "linear" else "scale"
            _set(marks, key, word)
    elif head.text in ("concat", "sum") and rest:
        if rest[0].text != "of" or len(rest) != 2:
            raise _unexpected(rest[0] if rest[0].text != "of" else rest[-1], f"`{head.text}` or `{head.text} of N`")
        marks["of"] = rest[1]
    elif rest:
        raise _unexpected(rest[0], f"`{head.text}:`")
    if head.text == "aside" and times is not None:
        raise _unexpected(times, "`aside:`")
    return Phrase(head.text, (), tuple(marks.items()), times, 0, len(text))


def text_of(phrase: Phrase) -> str:
    """The canonical text; `parse_cell` or `parse_head` reads it back as an equal phrase."""
    words = [word.text for word in phrase.words]
    marks = phrase.marks
    match phrase.head:
        case "conv" | "pool":
            parts = [f"{words[0]}x{words[1]}", *(_mark_text(key, word) for key, word in marks)]
        case "pool to":
            kind, size = marks[0][1].text, "x".join(words)
            parts = ["global", kind] if size == "1x1" and kind == "avg" else [kind, "to", size]
        case "roi":
            parts = ["roi", "x".join(words[:2]), "of", words[2]]
        case "bn" | "leaky":
            parts = [f"{phrase.head}({words[0]})" if words else phrase.head]
        case "call":
            parts = words
        case "residual":
            parts = ["residual", *(word.text for key, word in sorted(marks, key=lambda mark: mark[0] != "scale"))]
        case "concat" | "sum" if marks:
            parts = [phrase.head, "of", marks[0][1].text]
        case head:
            parts = [head, *words]
    if phrase.times is not None:
        parts += ["x", phrase.times.text]
    return " ".join(parts)


def _mark_text(key: str, word: Word) -> str:
    match key:
        case "kind" | "channels" | "scale":
            return word.text
        case "/":
            return f"/{word.text}"
        case "C" | "dil" | "pad":
            return f"{key}={word.text}"
        case _:
            return key


def _parts(text: str) -> list[tuple[int, int]]:
    """The stretches between commas, from and to."""
    cuts = [-1, *(i for i, char in enumerate(text) if char == ","), len(text)]
    return [(a + 1, b) for a, b in pairwise(cuts)]


def _words(text: str, start: int, end: int) -> list[Word]:
    """Words with their places. `×` is `x`; `stride 2` is `/2`; `average` is `avg`; `pool` and `conv` say nothing."""
    words: list[Word] = []
    for match in re.finditer(r"×(?=[0-9])|\S+", text[start:end]):
        raw, offset = match.group().replace("×", "x"), start + match.start()
        word = Word("avg" if raw == "average" else raw, offset, len(raw))
        if words and words[-1].text == "stride":
            first = words.pop()
            word = Word(f"/{raw}", first.offset, offset + len(raw) - first.offset)
        elif (raw == "pool" and words and words[-1].text in ("max", "avg", "avg(pad)")) or (
            raw == "conv" and words and _KERNEL.fullmatch(words[-1].text)
        ):
            continue
        words.append(word)
    if words and words[-1].text == "stride":
        raise PhraseError("`stride` of what?", words[-1].offset, words[-1].length, "`stride 2` or `/2`")
    if [word.text for word in words] == ["avg"] and "pool" in text[start:end]:  # `average pool`, the end of a net
        words.insert(0, Word("global", words[0].offset, words[0].length))
    if len(words) == 2 and words[1].text == "fc" and (units := _UNITS.fullmatch(words[0].text)):
        words = [words[1], Word(units[1], words[0].offset, len(units[1]))]
    return words


def _begins_layer(words: list[Word]) -> bool:
    first = words[0].text.split("(")[0]
    return first in LAYER_WORDS or bool(_KERNEL.fullmatch(first))


def _times(words: list[Word]) -> tuple[list[Word], Word | None]:
    """Takes a closing `x N` off."""
    if len(words) >= 3 and words[-2].text == "x":
        return words[:-2], words[-1]
    return words, None


def _span(words: list[Word]) -> tuple[int, int]:
    return words[0].offset, words[-1].offset + words[-1].length - words[0].offset


def _unexpected(word: Word, usage: str) -> PhraseError:
    return PhraseError(f"`{word.text}` cannot stand here", word.offset, word.length, f"it is written {usage}")


def _lacks(head: Word, what: str, usage: str) -> PhraseError:
    return PhraseError(f"`{head.text}` lacks {what}", head.offset, head.length, f"it is written {usage}")


def _set(marks: dict[str, Word], key: str, word: Word) -> None:
    if key in marks:
        what = {"channels": "the number of channels", "scale": "the scale", "/": "the stride"}.get(key, f"`{key}`")
        hint = f"`{_mark_text(key, marks[key])}` or `{_mark_text(key, word)}`?"
        if _COPIES.fullmatch(word.text):
            hint = f"to repeat a layer, write `x {word.text[1:]}`"
        raise PhraseError(f"{what} is given twice", word.offset, word.length, hint)
    for pair in _ONE_OF:
        if key in pair and (other := pair[1 - pair.index(key)]) in marks:
            raise PhraseError(f"`{other}` and `{key}` exclude each other", word.offset, word.length)
    marks[key] = word


def _layer(words: list[Word]) -> Phrase:
    offset, length = _span(words)
    words, times = _times(words)
    head, rest = words[0], words[1:]
    if stray := next((word for word in words if word.text == "x"), None):
        raise PhraseError(
            "`x N` stands behind what it repeats", stray.offset, stray.length, "`3x3 64 x 3`, `residual x 3: [...]`"
        )
    if kernel := _KERNEL.fullmatch(head.text):
        size = (Word(kernel[1], head.offset, head.length), Word(kernel[2], head.offset, head.length))
        name, marks = _window_marks(rest)
        return Phrase(name, size, marks, times, offset, length)
    name, arguments, marks = _named(head, rest)
    return Phrase(name, arguments, marks, times, offset, length)


def _window_marks(rest: list[Word]) -> tuple[str, tuple[tuple[str, Word], ...]]:
    """The marks of a convolution or of a pool, whose kernel has been read."""
    marks: dict[str, Word] = {}
    for word in rest:
        text = word.text
        if text in ("max", "avg", "avg(pad)"):
            _set(marks, "kind", word)
        elif text in _FLAGS:
            _set(marks, text, word)
        elif text.startswith("/"):
            _set(marks, "/", _number(text[1:], word, "the stride"))
        elif "=" in text:
            key, _, value = text.partition("=")
            if key not in ("C", "dil", "pad"):
                mark = {"stride": "/", "groups": "C=", "dilation": "dil=", "padding": "pad="}.get(key)
                hint = f"it is written `{mark}{value}`" if mark else "the marks are C=, dil= and pad=, with no spaces"
                raise PhraseError(f"unknown mark `{text}`", word.offset, word.length, hint)
            _set(marks, key, _number(value, word, f"`{key}=`"))
        elif text.partition("(")[0] in LAYER_WORDS:
            hint = f"each layer is an entry of its own: `[..., {text}]`"
            raise PhraseError(f"`{text}` is a layer, not a mark of this one", word.offset, word.length, hint)
        elif re.fullmatch("[0-9]+/[0-9]+", text):
            channels, _, stride = text.partition("/")
            hint = f"a stride stands apart: `{channels} /{stride}`"
            raise PhraseError(f"`{text}` reads like channels and a stride", word.offset, word.length, hint)
        else:
            _set(marks, "channels", _number(text, word, "the number of channels"))
    pool = "kind" in marks
    for key in ("channels", "C", "dw", "dil", "linear", "bare") if pool else ("ceil",):
        if key in marks:
            what = "a pool" if pool else "a convolution"
            raise PhraseError(f"{what} has no `{marks[key].text}`", marks[key].offset, marks[key].length)
    return "pool" if pool else "conv", tuple((key, marks[key]) for key in _ORDER if key in marks)


def _number(text: str, word: Word, what: str) -> Word:
    if not _NUMBER.fullmatch(text):
        raise PhraseError(
            f"`{word.text}` is not {what}" if text else f"`{word.text}` lacks its number",
            word.offset,
            word.length,
            "marks of a layer: channels, C=groups or dw, /stride, dil=, V or pad=, linear or bare",
        )
    return Word(text, word.offset, word.length)


def _named(head: Word, rest: list[Word]) -> tuple[str, tuple[Word, ...], tuple[tuple[str, Word], ...]]:
    """A layer that begins with a word, or a block call: head, words, marks."""
    if sized := _SIZED.fullmatch(head.text):
        _arity(head, rest, 0, f"`{sized[1]}(0.1)`")
        return sized[1], (Word(sized[2], head.offset, head.length),), ()
    texts = [word.text for word in rest]
    match head.text:
        case "global":
            if texts != ["avg"] and texts != ["max"]:
                raise _unexpected(rest[0], "`global avg`") if rest else _lacks(head, "`avg` or `max`", "`global avg`")
            one = Word("1", head.offset, head.length)
            return "pool to", (one, one), (("kind", rest[0]),)
        case "max" | "avg":
            if len(rest) != 2 or texts[0] != "to":
                raise PhraseError(
                    f"`{head.text}` needs a window",
                    head.offset,
                    head.length,
                    f"`3x3 {head.text}` or `{head.text} to 7x7`",
                )
            return "pool to", _size(rest[1]), (("kind", head),)
        case "roi":
            if len(rest) != 3 or texts[1] != "of":
                raise _lacks(head, "its size or its number of regions", "`roi 14x14 of 300`")
            return "roi", (*_size(rest[0]), _number(rest[2].text, rest[2], "a number of regions")), ()
        case "fc":
            _arity(head, rest, 1, "`fc 1000`")
            return "fc", (_number(rest[0].text, rest[0], "the number of features"),), ()
        case "dropout":
            _arity(head, rest, 1, "`dropout 0.5`")
        case "lrn":
            _arity(head, rest, 4, "`lrn size alpha beta k`, for example `lrn 5 0.0001 0.75 2`")
        case "spp":
            if not rest:
                raise PhraseError("`spp` needs its levels", head.offset, head.length, "`spp 7 3 2 1`")
        case "leaky":
            raise PhraseError("`leaky` needs its slope", head.offset, head.length, "`leaky(0.1)`")
        case "bn" | "relu" | "prelu" | "softmax":
            _arity(head, rest, 0, f"`{head.text}`")
        case word if word in COMPOSITES:
            raise PhraseError(f"`{word}` needs a body", head.offset, head.length, f"`{word}: [...]`")
        case _:
            return "call", (head, *rest), ()
    return head.text, tuple(rest), ()


def _size(word: Word) -> tuple[Word, Word]:
    kernel = _KERNEL.fullmatch(word.text)
    if kernel is None:
        raise PhraseError(f"`{word.text}` is not a size", word.offset, word.length, "for example `7x7`")
    return Word(kernel[1], word.offset, word.length), Word(kernel[2], word.offset, word.length)


def _arity(head: Word, rest: list[Word], wanted: int, usage: str) -> None:
    if len(rest) > wanted:
        raise _unexpected(rest[wanted], usage)
    if len(rest) < wanted:
        raise _lacks(head, "a number", usage)
