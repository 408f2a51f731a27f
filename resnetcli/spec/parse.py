"""Parse the text of a cell or a key into phrases. Numbers are evaluated later, in `bind`."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise

from resnetcli.errors import did_you_mean
from resnetcli.spec.pasted import clean_cell
from resnetcli.spec.phrase import ORDER, Phrase, PhraseError, Word, mark_text, text_of
from resnetcli.spec.spelling import (
    KERNEL,
    MAX_BARE,
    NUMBER,
    in_order,
    is_size,
    no_window,
    second_window,
    split_times,
    words_of,
)
from resnetcli.spec.vocabulary import COMPOSITES, MARKS, Form, form_of, layer_words

FOREIGN = re.compile(r"[\[\];|]|^\s*\([^()]*,")
"""Text that no single cell contains: brackets, columns, semicolons."""
_PASTED = re.compile(r",|×|conv", re.IGNORECASE)
_COPIES = re.compile(r"x[0-9]+")
_SIZED = re.compile(r"([a-z]\w*)\(([^()]*)\)")
_FLAGS = ("V", "dw", "linear", "bare", "ceil")
_ONE_OF = (("C", "dw"), ("V", "pad"), ("linear", "bare"))


class SeveralCellsError(PhraseError):
    """Brackets, columns or semicolons: a whole table instead of one of its cells."""


@lru_cache(maxsize=4096)
def parse_layers(text: str) -> tuple[Phrase, ...]:
    """The layers of one cell: one, or several if commas separate whole layers (`average pool, 1000-d fc`).

    Raises SeveralCellsError for text that no single cell contains, PhraseError for an invalid layer.
    """
    cell = clean_cell(text)
    if not cell.text.strip():
        raise PhraseError("an empty entry", 0, max(1, len(text)), "write a layer")
    if foreign := FOREIGN.search(cell.text):
        raise SeveralCellsError("this is more than one cell", *cell.span(foreign.start(), foreign.end()))
    groups: list[list[Word]] = []
    for start, end in _parts(cell.text):
        before = [word.text for word in groups[-1] if word.text != "conv"] if groups else []
        words = words_of(cell, start, end, before[0] if len(before) == 1 and KERNEL.fullmatch(before[0]) else "")
        if not words:
            offset, length = cell.span(max(0, start - 1), max(0, start - 1) + 1)
            raise PhraseError("empty text before or after this comma", offset, length)
        if not groups or (_begins_layer(words) and not _is_half(groups[-1], words)):
            groups.append(words)
        else:
            groups[-1].extend(words)
    phrases = tuple(_layer(in_order(words)) for words in groups)
    pasted = len(groups) > 1 or bool(_PASTED.search(cell.text))
    for index, phrase in enumerate(phrases):
        _check_channels(phrases, index, pasted=pasted)
        for key, word in phrase.marks if pasted else ():
            if key in ("channels", "C") and (quotient := re.fullmatch(r"([^()]+)/(\w+)", word.text)):
                lead = "" if key == "channels" else f"{key}="
                hint = f"write a stride as `{lead}{quotient[1]} /{quotient[2]}`, a quotient as `{lead}({word.text})`"
                raise PhraseError(
                    f"`{lead}{word.text}` reads like a number and a stride", word.offset, word.length, hint
                )
    return phrases


@lru_cache(maxsize=1024)
def parse_head(text: str) -> Phrase:
    """The key of a composite: `residual [scale] [linear] [x N]`, `concat [of N] [x N]`, `seq`, `aside`."""
    cell = clean_cell(text)
    words, times = split_times(words_of(cell, 0, len(cell.text)))
    if not words:
        raise PhraseError("an empty key", 0, max(1, len(text)))
    head, rest = words[0], words[1:]
    if head.text.lower() in COMPOSITES:
        head = Word(head.text.lower(), head.offset, head.length)
    if head.text not in COMPOSITES:
        hint = did_you_mean(head.text, COMPOSITES, f"known: {', '.join(COMPOSITES)}")
        raise head.error(f"unknown block type `{head.text}`", hint)
    marks: dict[str, Word] = {}
    if head.text == "residual":
        for word in rest:
            key = "linear" if word.text == "linear" else "scale"
            _set(marks, key, word)
    elif head.text in ("concat", "sum") and rest:
        if rest[0].text != "of" or len(rest) != 2:
            raise _unexpected(head, rest[0] if rest[0].text != "of" else rest[-1], f"{head.text}` or `{head.text} of N")
        marks["of"] = rest[1]
    elif rest:
        raise _unexpected(head, rest[0], f"{head.text}:")
    if head.text == "aside" and times is not None:
        raise _unexpected(head, times, "aside:")
    return Phrase(head.text, (), tuple(marks.items()), times, 0, len(text))


def _parts(text: str) -> list[tuple[int, int]]:
    """Start and end of each part between commas."""
    cuts = [-1, *(i for i, char in enumerate(text) if char == ","), len(text)]
    return [(a + 1, b) for a, b in pairwise(cuts)]


def _begins_layer(words: list[Word]) -> bool:
    first = words[0].text.split("(")[0]
    unit = len(words) > 1 and words[1].text == "fc"
    return unit or first in (*layer_words(), "conv") or bool(KERNEL.fullmatch(first))


def _is_half(before: list[Word], words: list[Word]) -> bool:
    """Whether a comma separates a layer's kind from its window: `conv, 7×7, 64`, `max pool, 3×3`."""
    kinds = (["conv"], ["dw"], ["dw", "conv"], ["max", "pool"], ["avg", "pool"])
    return [word.text for word in before] in kinds and bool(KERNEL.fullmatch(words[0].text))


def _is_odd(phrase: Phrase) -> bool:
    """Whether a phrase is only a window, of an unusual size: `16x2`, `112x112`."""
    sides = {side.text for side in phrase.words}
    largest = max((int(side) for side in sides if side.isdecimal()), default=0)
    return phrase.head == "conv" and not phrase.marks and (len(sides - {"1"}) > 1 or largest > MAX_BARE)


def _is_map(phrase: Phrase) -> bool:
    """Whether a window is large and even like a feature map's size, and not a patch embedding's."""
    one, other = (word.text for word in phrase.words)
    stride = phrase.mark("/")
    return one == other and is_size(one) and (stride is None or stride.text != one)


def _check_channels(phrases: tuple[Phrase, ...], index: int, *, pasted: bool) -> None:
    """Raise PhraseError for a pasted convolution without channels, or with a feature map's size as its window."""
    before, phrase, rest = phrases[:index], phrases[index], phrases[index + 1 :]
    if phrase.head != "conv" or phrase.mark("dw"):
        return
    one, other = phrase.words
    if channels := phrase.mark("channels"):
        if pasted and _is_map(phrase):
            size, patch = f"{one.text}x{other.text}", f"{one.text}x{other.text} {channels.text} /{one.text}"
            raise PhraseError(
                f"`{size}` reads like the size of a feature map", one.offset, max(1, one.length),
                f"a window comes first, `3x3 {channels.text}`, without sizes; patches: `{patch}`",
            )  # fmt: skip
        return
    window = f"{one.text}x{other.text}"
    odd = _is_odd(phrase)
    if not pasted and not odd:
        return
    marks = "".join(f" {mark_text(key, word)}" for key, word in phrase.marks) or (" /1" if odd else "")
    after = ", ".join(text_of(other) + (" /1" if _is_odd(other) else "") for other in rest)
    keeps = f"a convolution that keeps its channels: `[{window}{marks}{', ' if rest else ''}{after}]`"
    if before and before[-1].head == "pool to":
        hint = f"to pool over the whole feature map: `{', '.join(map(text_of, before))}`"
    elif rest and rest[0].head == "pool to":
        kind = rest[0].marks[0][1].text
        hint = f"to pool over a window: `{window} {kind}{marks}`; over the whole feature map: `{after}`"
    elif rest and rest[0].head == "conv" and not rest[0].marks:
        product = "*".join(word.text for word in rest[0].words)
        hint = f"a product as the number of channels: `{window} {product}`; {keeps}"
    elif rest:
        hint = f"omit the output size: `{after}`; {keeps}"
    elif odd and not pasted:
        hint = f"a product as the number of channels: `{one.text}*{other.text}`; {keeps}"
    else:
        hint = f"a convolution: `{window} 64{marks}`; a pool: `{window} max{marks}`; {keeps}"
    raise PhraseError(f"`{window}` has no channels", one.offset, max(1, one.length), hint)


def _span(words: list[Word]) -> tuple[int, int]:
    return words[0].offset, words[-1].offset + words[-1].length - words[0].offset


def _unexpected(head: Word, word: Word, usage: str) -> PhraseError:
    if word.text in MARKS or word.text.startswith("/") or "=" in word.text:
        return word.error(f"`{head.text}` has no option `{word.text}`", f"write `{usage}`")
    return word.error(f"unexpected `{word.text}` after `{head.text}`", f"write `{usage}`")


def _missing(head: Word, what: str, usage: str) -> PhraseError:
    return head.error(f"`{head.text}` needs {what}", f"for example `{usage}`")


def _set(marks: dict[str, Word], key: str, word: Word) -> None:
    if key in marks:
        what = {"channels": "the number of channels", "scale": "the scale", "/": "the stride"}.get(key, f"`{key}`")
        hint = f"`{mark_text(key, marks[key])}` or `{mark_text(key, word)}`?"
        if _COPIES.fullmatch(word.text):
            hint = f"to repeat a layer, write `x {word.text[1:]}`"
        elif not NUMBER.fullmatch(word.text) or word.text.startswith("("):
            hint = _MARKS_HINT
        raise word.error(f"{what} is given twice", hint)
    for pair in _ONE_OF:
        if key in pair and (other := pair[1 - pair.index(key)]) in marks:
            raise word.error(f"`{key}` cannot be combined with `{other}`")
    marks[key] = word


def _layer(words: list[Word]) -> Phrase:
    offset, length = _span(words)
    words, times = split_times(words)
    head, rest = words[0], words[1:]
    if stray := next((word for word in words if word.text == "x"), None):
        raise PhraseError(
            "`x N` must follow what it repeats", stray.offset, stray.length, "`3x3 64 x 3`, `residual x 3: [...]`"
        )
    try:
        if kernel := KERNEL.fullmatch(head.text):
            size = (Word(kernel[1], head.offset, head.length), Word(kernel[2], head.offset, head.length))
            name, marks = _window_marks(rest)
            return Phrase(name, size, marks, times, offset, length)
        name, arguments, marks = _named(head, rest)
        return Phrase(name, arguments, marks, times, offset, length)
    except PhraseError as error:
        if times is None and (separated := _separated(words, error.offset)):
            hint = f"separate layers by commas: `{separated}`"
            raise PhraseError(error.message, error.offset, error.length, hint) from None
        raise


MAX_SEPARATED = 30
"""Words of a cell for which a hint is written."""


def _separated(words: list[Word], offset: int) -> str:
    """The text with commas before its layers, of which one begins at `offset`; empty if that is not valid either."""
    if len(words) > MAX_SEPARATED:
        return ""
    starts = [place for place in range(1, len(words)) if _starts_layer(words[place - 1], words[place])]
    if offset not in [words[place].offset for place in starts]:
        return ""
    parts = [words[start:end] for start, end in pairwise([0, *starts, len(words)])]
    text = ", ".join(" ".join(word.text for word in part) for part in parts)
    with suppress(PhraseError):
        return text if len(parse_layers(text)) == len(parts) else ""
    return ""


def _starts_layer(before: Word, word: Word) -> bool:
    """Whether a word within a phrase begins a layer, unlike `avg` in `global avg` and in `3x3 avg`."""
    name = word.text.split("(")[0]
    if name in ("max", "avg") and (before.text == "global" or KERNEL.fullmatch(before.text)):
        return False
    return name in layer_words() or (before.text != "to" and KERNEL.fullmatch(name) is not None)


def _window_marks(rest: list[Word]) -> tuple[str, tuple[tuple[str, Word], ...]]:
    """Head and marks of a convolution or pool, from the words after its window."""
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
                hint = "the marks are C=, dil= and pad="
                raise word.error(f"unknown mark `{text}`", hint)
            _set(marks, key, _number(value, word, f"`{key}=`"))
        elif text == "global":
            hint = "to pool over the whole feature map: `global avg`"
            raise word.error("a global pool has no window", hint)
        elif KERNEL.fullmatch(text):
            raise second_window(text, word.offset, word.length)
        elif text.partition("(")[0] in layer_words():
            hint = f"write each layer as a separate entry: `[..., {text}]`"
            raise word.error(f"`{text}` is a separate layer, not an option of this one", hint)
        elif re.fullmatch("[0-9]+/[0-9]+", text):
            channels, _, stride = text.partition("/")
            hint = f"write the stride as `{channels} /{stride}`"
            raise word.error(f"`{text}` reads like channels and a stride", hint)
        else:
            _set(marks, "channels", _number(text, word, "the number of channels"))
    pool = "kind" in marks
    for key in ("channels", "C", "dw", "dil", "linear", "bare") if pool else ("ceil",):
        if key in marks:
            what = "a pool" if pool else "a convolution"
            raise PhraseError(f"{what} has no option `{marks[key].text}`", marks[key].offset, marks[key].length)
    return "pool" if pool else "conv", tuple((key, marks[key]) for key in ORDER if key in marks)


_MARKS_HINT = "marks of a layer: channels, C=groups or dw, /stride, dil=, V or pad=, linear or bare"


def _number(text: str, word: Word, what: str, hint: str = _MARKS_HINT) -> Word:
    if not NUMBER.fullmatch(text):
        raise word.error(f"`{word.text}` is not {what}" if text else f"`{word.text}` needs a number", hint)
    return Word(text, word.offset, word.length)


def _named(head: Word, rest: list[Word]) -> tuple[str, tuple[Word, ...], tuple[tuple[str, Word], ...]]:
    """Head, words and marks of a layer that starts with a word, or of a block call."""
    texts = [word.text for word in rest]
    bracket = _SIZED.fullmatch(head.text)
    if (form := form_of(bracket[1] if bracket else head.text)) and (form.bracketed or not bracket):
        inside = Word(bracket[2], head.offset, head.length) if bracket else None
        name = Word(bracket[1], head.offset, head.length) if bracket else head
        return name.text, _arguments(form, name, inside, rest), ()
    match head.text:
        case "global":
            if not rest:
                raise _missing(head, "`avg` or `max`", "global avg")
            if texts[0] not in ("avg", "max"):
                raise _unexpected(head, rest[0], "global avg")
            if len(rest) > 1:
                raise _unexpected(rest[0], rest[1], f"global {texts[0]}")
            one = Word("1", head.offset, head.length)
            return "pool to", (one, one), (("kind", rest[0]),)
        case "max" | "avg":
            if len(rest) != 2 or texts[0] != "to":
                stride = next((f" {text}" for text in texts if text.startswith("/")), "")
                window = next((text for text in texts if KERNEL.fullmatch(text)), "")
                if not window:  # in papers, VGG's pools have neither, ResNet's have a stride
                    window, stride = ("3x3", stride) if stride else ("2x2", " /2")
                hint = f"`{window} {head.text}{stride}`, `{head.text} to 7x7` or `global {head.text}`"
                raise head.error(f"`{head.text}` needs a window", hint)
            return "pool to", _size(rest[1]), (("kind", head),)
        case word if word in COMPOSITES:
            raise head.error(f"`{word}` needs a body", f"`{word}: [...]`")
        case "pool":
            raise head.error("`pool` needs a kind: max or avg", "`3x3 max /2`, `3x3 avg /2`")
        case word if re.fullmatch("[0-9]+([*x][0-9]+)+", word):
            raise no_window(re.split("[*x]", word), head.offset, head.length, word)
        case _:
            return "call", (head, *rest), ()


def _arguments(form: Form, head: Word, bracket: Word | None, rest: list[Word]) -> tuple[Word, ...]:
    """The arguments of an operation's word, checked against its form."""
    if form.bracketed:
        if bracket is None and not form.optional:
            raise _missing(head, form.arguments[0].what, form.usage)
        if rest:
            raise _unexpected(head, rest[0], form.usage)
        return () if bracket is None else (bracket,)
    arguments = form.arguments * max(1, len(rest)) if form.repeated else form.arguments
    if len(rest) > len(arguments):
        raise _unexpected(head, rest[len(arguments)], form.usage)
    if len(rest) < len(arguments):
        what = next(argument.what for argument in arguments[len(rest) :] if argument.kind != "word")
        raise _missing(head, what, form.usage)
    words: list[Word] = []
    for argument, word in zip(arguments, rest, strict=True):
        match argument.kind:
            case "size":
                words += _size(word)
            case "word":
                if word.text != argument.what:
                    raise _unexpected(head, word, form.usage)
            case "whole":
                words.append(_number(word.text, word, argument.what, f"for example `{form.usage}`"))
            case "number":
                words.append(word)
    return tuple(words)


def _size(word: Word) -> tuple[Word, Word]:
    kernel = KERNEL.fullmatch(word.text)
    if kernel is None:
        raise word.error(f"`{word.text}` is not a size", "for example `7x7`")
    return Word(kernel[1], word.offset, word.length), Word(kernel[2], word.offset, word.length)
