"""One phrase of a table <-> its words: `3x3 128 C=32 /2`, `residual 0.17 linear x 5`, `inception 64 96`.

Syntax alone: numbers stay text here, so that a formatter can print `16*k` as it was written. The papers' own
cell text (`7×7, 64, stride 2`) is read too, and printed in the canonical form.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

from resnetcli.errors import did_you_mean
from resnetcli.spec.pasted import Cleaned, clean_cell

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
_UNITS = re.compile(r"([0-9]+)-?(?:d|way)", re.IGNORECASE)
_NUMBER = re.compile(r"[A-Za-z0-9_(\-][A-Za-z0-9_+\-*/()]*")
_SIDE = re.compile(r"[0-9]+|[A-Za-z]")
MAX_BARE = 15
"""Window side above which a convolution without channels is an error: probably an output size or a product."""

MIN_MAP = 14
"""Side from which a window of a pasted cell, if it is even, is taken for the size of a feature map."""

# --- the papers' words
_TOKEN = re.compile(r"×|(?:(?<=×)|(?<=×\s))[0-9]+(?=/[0-9])|[^\s×]+(?:(?<=\*)\s+[^\s×]+|\s+\*\s*[^\s×]+)*")
_POOLING = re.compile(r"(?:(global)-?)?(max|avg|average)(?:-?(pool)(?:ing)?)?")
_PARTS = (
    (re.compile(r"([0-9]+|[A-Za-z])[xX]([0-9]+|[A-Za-z])(/[^/]+)"), r"\1x\2 \3"),  # 7x7/2
    (re.compile(r"(max|avg|pool|conv)(/[0-9A-Za-z]+)", re.IGNORECASE), r"\1 \2"),
    (re.compile(r"stride-?([0-9]+)", re.IGNORECASE), r"/\1"),
    (re.compile(r"conv([0-9]+)-([0-9]+)", re.IGNORECASE), r"\1x\1 \2"),  # VGG's conv3-64
    (re.compile(r"conv([0-9]+)x([0-9]+)(?:-([0-9]+))?", re.IGNORECASE), r"\1x\2 \3"),
    (re.compile(r"fc-([0-9]+)", re.IGNORECASE), r"fc \1"),
    (re.compile(r"([0-9]+)X([0-9]+)"), r"\1x\2"),
)
"""Words of papers -> the grammar's words."""
_WORDS = {
    "convolution": "conv", "conv.": "conv", "pooling": "pool", "soft-max": "softmax", "fully-connected": "fc",
    "depthwise": "dw",
} | {word: word for word in (*LAYER_WORDS, "conv", "pool", "stride", "dw", "pad")}  # fmt: skip
"""Lower case -> the grammar's word; capitals do not matter to these."""
_BEFORE_WINDOW = ("conv", "dw", "max", "avg", "global", "pool")
"""Kinds of layers that papers may write before the window."""
_MARK_WORDS = {"stride": "/", "s": "/", "groups": "C=", "dilation": "dil=", "padding": "pad=", "pad": "pad="}
"""Words that papers write before a number, or before `=` and a number."""


def is_reserved(name: str) -> bool:
    """Whether a word is reserved, in any case: `let:` and `blocks:` cannot use it as a name."""
    return name in RESERVED or (len(name) > 1 and (name.lower() in _WORDS or bool(_POOLING.fullmatch(name.lower()))))


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
    cell = clean_cell(text)
    if not cell.text.strip():
        raise PhraseError("an empty entry", 0, max(1, len(text)), "write a layer")
    if foreign := _FOREIGN.search(cell.text):
        raise _foreign(text, cell, foreign)
    groups: list[list[Word]] = []
    for start, end in _parts(cell.text):
        before = [word.text for word in groups[-1] if word.text != "conv"] if groups else []
        words = _words(cell, start, end, before[0] if len(before) == 1 and _KERNEL.fullmatch(before[0]) else "")
        if not words:
            offset, length = cell.span(max(0, start - 1), max(0, start - 1) + 1)
            raise PhraseError("nothing before or after this comma", offset, length)
        if not groups or (_begins_layer(words) and not _is_half(groups[-1], words)):
            groups.append(words)
        else:
            groups[-1].extend(words)
    phrases = tuple(_layer(_in_order(words)) for words in groups)
    pasted = len(groups) > 1 or bool(_PASTED.search(cell.text))
    for index, phrase in enumerate(phrases):
        _check_channels(phrases, index, pasted=pasted)
        for key, word in phrase.marks if pasted else ():
            if key in ("channels", "C") and (found := re.fullmatch(r"([^()]+)/(\w+)", word.text)):
                lead = "" if key == "channels" else f"{key}="
                hint = f"write a stride as `{lead}{found[1]} /{found[2]}`, a quotient as `{lead}({word.text})`"
                raise PhraseError(
                    f"`{lead}{word.text}` reads like a number and a stride", word.offset, word.length, hint
                )
    return phrases


_FOREIGN = re.compile(r"[\[\];|]|^\s*\([^()]*,")
_PASTED = re.compile(r",|×|conv", re.IGNORECASE)


def _foreign(text: str, cell: Cleaned, where: re.Match[str]) -> PhraseError:
    """The error for brackets, columns or semicolons: a whole table was given instead of one cell."""
    start, length = cell.span(where.start(), where.start() + 1)
    if where.group() == "|" and "[" not in cell.text:
        columns = [column for column in cell.text.split("|") if not _SIZE_COLUMN.fullmatch(column)]
        hint = "omit the other columns"
        with suppress(PhraseError, IndexError):
            hint = f"omit the size: `{', '.join(map(text_of, parse_cell(columns[-1].strip())))}`"
        return PhraseError("`|` separates table columns, and this is one cell", start, length, hint)
    if where.group() == ";" and not re.search(r"[\[(]", cell.text):
        hint = "write layers as a list: `[3x3 64, 3x3 64]`"
        with suppress(PhraseError):
            rows = [text_of(phrase) for row in cell.text.split(";") if row.strip() for phrase in parse_cell(row)]
            hint = f"write layers as a list: `[{', '.join(rows)}]`"
        return PhraseError("`;` does not separate layers", start, length, hint)
    message, hint = bracket_problem(text, outer=True)
    return PhraseError(message, 0, len(text), hint)


_SIZE_COLUMN = re.compile(r"\s*(?:[0-9]+\s*[x×X]\s*[0-9]+(?:\s*[x×X]\s*[0-9]+)?|[A-Za-z]\w*)?\s*")
_ROW_END = re.compile(r"[;\n]|\]\s*,?\s*\[")
_BRACKETS = re.compile(
    r"(?:\[\s*)*\[([^\[\]]*(?:\]\s*[,;\n]?\s*\[[^\[\]]*)*)\](?:\s*\])*\s*(?:[×xX*]\s*([A-Za-z0-9_]+))?"
)
_ROUND = re.compile(r"\(([^()]*,[^()]*)\)")


def bracket_problem(text: str, *, outer: bool) -> tuple[str, str]:
    """Message and hint for a cell with a paper's brackets; the hint gives both texts that the cell may mean.

    In ResNet's tables a bracket is a residual block, in others a plain sequence or what is concatenated: no reader can
    tell. `outer`: whether the text in the hint needs brackets around it, as after a key but not after `-`.
    """
    cell = _ROUND.sub(r"[\1]", clean_cell(text).text)
    message = "a bracket may be a residual block or a plain sequence"
    generic = "`residual x 2: [3x3 64, 3x3 64]` has shortcuts, `seq x 2: [3x3 64, 3x3 64]` has none"
    texts: dict[str, list[str]] = {"residual": [], "seq": []}
    place = 0
    try:
        for match in [*_BRACKETS.finditer(cell), None]:
            between = cell[place : match.start() if match else len(cell)]
            for part in re.split(r"[;\n|]", between):
                part = part.strip(" \t\r,")
                if _FOREIGN.search(part):
                    return message, generic
                if part and not _SIZE_COLUMN.fullmatch(part):
                    for each in texts.values():
                        each.extend(map(text_of, parse_cell(part)))
            if match is None:
                break
            rows = [row.strip(" \t\r,") for row in _ROW_END.split(match[1])]
            layers = [phrase for row in rows if row for phrase in parse_cell(row)]
            if any(phrase.head == "call" and not phrase.words[0].text[0].isalpha() for phrase in layers):
                return message, generic
            body = ", ".join(map(text_of, layers))
            times = f" x {match[2]}" if match[2] else ""
            for head, each in texts.items():
                each.append(f"{head}{times}: [{body}]")
            place = match.end()
    except PhraseError:
        return message, generic
    if not any(each.startswith("residual") for each in texts["residual"]):
        return message, generic
    joined = {head: ", ".join(each) for head, each in texts.items()}
    several = outer or len(texts["seq"]) > 1
    shown = {head: f"[{each}]" if several else each for head, each in joined.items()}
    return message, f"with shortcuts: `{shown['residual']}`; without: `{shown['seq']}`"


@lru_cache(maxsize=1024)
def parse_head(text: str) -> Phrase:
    """The key of a composite: `residual [scale] [linear] [x N]`, `concat [of N] [x N]`, `seq`, `aside`."""
    cell = clean_cell(text)
    words, times = _times(_words(cell, 0, len(cell.text)))
    if not words:
        raise PhraseError("an empty key", 0, max(1, len(text)))
    head, rest = words[0], words[1:]
    if head.text.lower() in COMPOSITES:
        head = Word(head.text.lower(), head.offset, head.length)
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


def _words(cell: Cleaned, start: int, end: int, window: str = "") -> list[Word]:
    """The words of a part in the grammar's spelling, with their positions.

    `window`: that of a convolution before the comma, if it has no channels yet.
    """
    tokens = [_Token(match.group(), start + match.start(), start + match.end())
              for match in _TOKEN.finditer(cell.text[start:end])]  # fmt: skip
    tokens = _joined(cell, [word for token in tokens for word in _spelled(token)])
    tokens = _crossed(cell, tokens, window)
    words: list[Word] = []
    for token in tokens:
        word = Word(re.sub(r"\s", "", token.text), *cell.span(token.start, token.end))
        if words and words[-1].text == "stride":
            first = words.pop()
            word = Word(f"/{word.text}", first.offset, word.offset + word.length - first.offset)
        words.append(word)
    if words and words[-1].text == "stride":
        raise PhraseError("`stride` of what?", words[-1].offset, words[-1].length, "`stride 2` or `/2`")
    return words


@dataclass(frozen=True, slots=True)
class _Token:
    text: str
    start: int
    end: int
    """Position in the cleaned text."""


def _spelled(token: _Token) -> list[_Token]:
    """Split a paper's word into the grammar's: `max-pool` is `max pool`, `conv3-64` is `3x3 64`."""
    text, low = token.text, token.text.lower()
    words = [text]
    if pooling := _POOLING.fullmatch(low):
        words = [{"average": "avg"}.get(word, word) for word in pooling.groups() if word]
    elif low in _WORDS:
        words = [_WORDS[low]]
    elif (head := low.partition("(")[0]) in ("bn", "leaky", "avg"):
        words = [head + text[len(head) :]]
    else:
        for pattern, instead in _PARTS:
            if found := pattern.fullmatch(text):
                words = [_WORDS.get(word.lower(), word) for word in found.expand(instead).split()]
                break
    return [_Token(word, token.start, token.end) for word in words]


def _joined(cell: Cleaned, tokens: list[_Token]) -> list[_Token]:
    """`C = 32`, `/ 2`, `fully connected` and `stride=2` as one word each."""
    found: list[_Token] = []
    for token in tokens:
        last = found[-1] if found else None
        text = token.text
        if last and (text.startswith("=") or last.text.endswith("=") or last.text == "/") and last.text != "×":
            found[-1] = _Token(last.text + text, last.start, token.end)
        elif last and last.text.lower() == "fully" and text.lower() == "connected":
            found[-1] = _Token("fc", last.start, token.end)
        else:
            found.append(token)
    return [_Token(_marked(token.text), token.start, token.end) for token in found]


def _marked(text: str) -> str:
    key, equals, value = text.partition("=")
    mark = _MARK_WORDS.get(key.lower() if len(key) > 1 else key)
    return mark + value if equals and mark else text


def _crossed(cell: Cleaned, tokens: list[_Token], window: str) -> list[_Token]:
    """Resolve every `×`: it separates a window's sides, multiplies, or precedes the number of copies."""
    for token in tokens:
        if re.fullmatch(r"[0-9]+(\s*\*\s*[0-9]+)+", token.text) and re.search(r"\s", token.text):
            raise _doubtful(cell, token, token.text.split("*"), window or _window_of(tokens))
    if not any(token.text in ("×", "x") for token in tokens):
        return tokens
    first = next((i for i, token in enumerate(tokens) if token.text not in _BEFORE_WINDOW), 0)
    found = tokens[:first]
    index = first
    while index < len(tokens):
        links = _chain(tokens, index)
        here = tokens[index : index + len(links) * 2 - 1]
        whole = _Token("x".join(links), here[0].start, here[-1].end)
        before = found[-1] if found else None
        tight = whole.end - whole.start == len(whole.text)
        signs = {token.text for token in here[1::2]}
        words = [token.text for token in found if token.text != "conv"]
        behind = window if index == 0 else words[-1] if words and _KERNEL.fullmatch(words[-1]) else ""
        if len(links) == 1 or (signs != {"×"} and index > first):  # ` x N` repeats
            found.append(tokens[index])
            index += 1
            continue
        if before and before.text in ("to", "roi") and len(links) == 2:
            found.append(whole)
        elif behind and before and _is_window(links):
            raise _second_window(cell.text[whole.start : whole.end], *cell.span(whole.start, whole.end))
        elif behind and not (len(links) == 2 and _is_window(links) and index == 0):
            if signs == {"×"} and tight and not all(map(str.isdecimal, links)) and "/" not in links[-1]:
                found.append(_Token("*".join(links), whole.start, whole.end))
            else:
                raise _doubtful(cell, whole, links, behind)
        elif index == first and all(map(str.isdecimal if not tight else _SIDE.fullmatch, links)):
            if len(links) > 2:
                raise _no_window(links, *cell.span(whole.start, whole.end))
            found.append(whole)
        elif signs == {"×"} and re.fullmatch(r"([0-9]+)x\1\b.*", "x".join(links)):  # `3×3-64`, `BN-ReLU-Conv 3×3`
            hint = f"write the window first, then the channels: `{links[0]}x{links[0]} 64`"
            raise PhraseError(f"`{'×'.join(links)}` is not a window here", *cell.span(whole.start, whole.end), hint)
        elif signs == {"×"} and (index > first or links[0].isdecimal()):
            raise _doubtful(cell, whole, links, " ".join(token.text for token in found))
        else:
            found.append(_Token(links[0], here[0].start, here[0].end))
            found.append(_Token("x", here[1].start, here[1].end))
            index += 2
            continue
        index += len(here)
    return [_Token("x", token.start, token.end) if token.text == "×" else token for token in found]


def _chain(tokens: list[_Token], index: int) -> list[str]:
    """Numbers joined by signs from here on: `3`, `3`, `64` of `3 × 3 × 64`."""
    links = [tokens[index].text]
    head = links[0].partition("(")[0]
    if not _NUMBER.fullmatch(links[0]) or head in RESERVED - {"s", "classes"} or _KERNEL.fullmatch(head):
        return links
    while (
        index + 2 < len(tokens)
        and tokens[index + 1].text in ("×", "x")
        and _NUMBER.fullmatch(tokens[index + 2].text)
        and tokens[index + 2].text not in RESERVED - {"s", "classes"}
        and not _KERNEL.fullmatch(tokens[index + 2].text)
    ):
        links.append(tokens[index + 2].text)
        index += 2
    return links


def _is_window(links: list[str]) -> bool:
    """Whether two numbers after a comma are a window rather than a product: `3×3`, `1×7`."""
    return links[0] == links[1] or (
        "1" in links and all(map(str.isdecimal, links)) and max(map(int, links)) <= MAX_BARE
    )


def _no_window(links: list[str], offset: int, length: int, written: str = "") -> PhraseError:
    hint = "write two sides, then the channels; `x N` repeats a layer: `3x3 64 x 2`"
    if len(links) == 2:
        hint = f"write the window as `{'x'.join(links)}`"
    elif len(links) == 3 and links[0] == links[1] and _is_size(links[0]):
        hint = f"omit the size of the feature map and write a window first: `3x3 {links[2]}`"
    elif len(links) == 3 and links[0] == links[1]:
        hint = f"write two sides, then the channels: `{links[0]}x{links[1]} {links[2]}`"
    return PhraseError(f"`{written or 'x'.join(links)}` is not a window", offset, length, hint)


def _second_window(text: str, offset: int, length: int) -> PhraseError:
    hint = "omit the output size, as in `7x7 64 /2`; write several layers as a list: `[3x3 64, 3x3 64]`"
    return PhraseError(f"`{text}` is a second window", offset, length, hint)


def _window_of(tokens: list[_Token]) -> str:
    sides = [token.text for token in tokens[:3:2]] if [token.text for token in tokens[1:2]] == ["×"] else []
    return "x".join(sides) or next((token.text for token in tokens if _KERNEL.fullmatch(token.text)), "3x3")


def _doubtful(cell: Cleaned, token: _Token, links: list[str], window: str) -> PhraseError:
    numbers = [link.strip() for link in links]
    product, copies = "*".join(numbers), numbers[-1]
    lead = f"{window} " if window else ""
    hint = f"write a product as `{lead}{product}`, {copies} layers as `{lead}{'*'.join(numbers[:-1])} x {copies}`"
    written = cell.text[token.start : token.end]
    return PhraseError(f"`{written}` may be a product or a layer repeated", *cell.span(token.start, token.end), hint)


def _in_order(words: list[Word]) -> list[Word]:
    """A layer's words in the grammar's order: window first, without `conv` and `pool`, `fc 1000` for `1000-d fc`."""
    texts = [word.text for word in words]
    if texts[0] in ("conv", "dw"):
        window = next((index for index, text in enumerate(texts) if text not in ("conv", "dw")), len(words))
        if window == len(words) or not _KERNEL.fullmatch(texts[window]):
            raise PhraseError(f"`{texts[0]}` needs its window", words[0].offset, words[0].length, "`3x3 64`, `3x3 dw`")
        words = [words[window], *words[:window], *words[window + 1 :]]
    elif texts[0] in ("max", "avg", "avg(pad)"):
        pool = texts[1:2] == ["pool"]
        rest = words[2:] if pool else words[1:]
        if pool and rest and _KERNEL.fullmatch(rest[0].text):
            words = [rest[0], words[0], *rest[1:]]
        elif pool and texts[0] == "avg" and not _times(words)[0][2:]:  # the end of a net
            words = [Word("global", words[0].offset, words[0].length), words[0], *rest]
    elif texts[0] == "global" and texts[2:3] == ["pool"]:
        words = [*words[:2], *words[3:]]
    elif len(words) > 1 and texts[1] == "fc" and (units := _UNITS.fullmatch(texts[0])):
        words = [words[1], Word(units[1], words[0].offset, len(units[1])), *words[2:]]
    if words[0].text == "fc" and len(words) > 1 and (units := _UNITS.fullmatch(words[1].text)):
        words = [words[0], Word(units[1], words[1].offset, len(units[1])), *words[2:]]
    return _marks_in_order(words) if _KERNEL.fullmatch(words[0].text) else words


def _marks_in_order(words: list[Word]) -> list[Word]:
    """A window's marks without redundant words; `padding 3` and, where a number came before it, `s2`."""
    kept = [words[0]]
    for word in words[1:]:
        text, last = word.text, kept[-1]
        numbered = any(other.text[0].isdigit() or other.text in ("max", "avg") for other in kept[1:])
        if text == "conv" or (text == "pool" and last.text in ("max", "avg", "avg(pad)")):
            continue
        if text in ("filters", "channels", "kernels") and last.text.isdecimal():
            continue
        if re.fullmatch("[0-9]+-d", text):
            hint = f"write the channels as `{text[:-2]}`, a difference as `({text})`"
            raise PhraseError(f"`{text}` may be a number of dimensions", word.offset, word.length, hint)
        if text.isdecimal() and (
            last.text == "pad" or (numbered and last.text in ("padding", "groups", "dilation", "s"))
        ):
            word = Word(_MARK_WORDS[last.text] + text, last.offset, word.offset + word.length - last.offset)
            kept.pop()
        elif numbered and re.fullmatch("s[0-9]+", text):
            word = Word(f"/{text[1:]}", word.offset, word.length)
        kept.append(word)
    return kept


def _begins_layer(words: list[Word]) -> bool:
    first = words[0].text.split("(")[0]
    unit = len(words) > 1 and words[1].text == "fc"
    return unit or first in (*LAYER_WORDS, "conv") or bool(_KERNEL.fullmatch(first))


def _is_half(before: list[Word], words: list[Word]) -> bool:
    """Whether a layer's kind is before the comma and its window after it: `conv, 7×7, 64`, `max pool, 3×3`."""
    kinds = (["conv"], ["dw"], ["dw", "conv"], ["max", "pool"], ["avg", "pool"])
    return [word.text for word in before] in kinds and bool(_KERNEL.fullmatch(words[0].text))


def _is_odd(phrase: Phrase) -> bool:
    """Whether a phrase is only a window, of an unusual size: `16x2`, `112x112`."""
    sides = {side.text for side in phrase.words}
    largest = max((int(side) for side in sides if side.isdecimal()), default=0)
    return phrase.head == "conv" and not phrase.marks and (len(sides - {"1"}) > 1 or largest > MAX_BARE)


def _is_map(phrase: Phrase) -> bool:
    """Whether a window is large and even, as sizes of feature maps are, and is not that of patches."""
    one, other = (word.text for word in phrase.words)
    stride = phrase.mark("/")
    return one == other and _is_size(one) and (stride is None or stride.text != one)


def _is_size(side: str) -> bool:
    return side.isdecimal() and int(side) >= MIN_MAP and int(side) % 2 == 0


def _check_channels(phrases: tuple[Phrase, ...], index: int, *, pasted: bool) -> None:
    """Refuse a pasted convolution without channels, or with a feature map's size as its window.

    Only the grammar's own form keeps the input's channels.
    """
    before, phrase, rest = phrases[:index], phrases[index], phrases[index + 1 :]
    if phrase.head != "conv" or phrase.mark("dw"):
        return
    one, other = phrase.words
    if channels := phrase.mark("channels"):
        if pasted and _is_map(phrase):
            size, patch = f"{one.text}x{other.text}", f"{one.text}x{other.text} {channels.text} /{one.text}"
            raise PhraseError(
                f"`{size}` reads like the size of a feature map", one.offset, max(1, one.length),
                f"a window comes first, `3x3 {channels.text}`, and sizes are left out; patches: `{patch}`",
            )  # fmt: skip
        return
    window = f"{one.text}x{other.text}"
    odd = _is_odd(phrase)
    if not pasted and not odd:
        return
    marks = "".join(f" {_mark_text(key, word)}" for key, word in phrase.marks) or (" /1" if odd else "")
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
        elif not _NUMBER.fullmatch(word.text) or word.text.startswith("("):
            hint = _MARKS_HINT
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
                hint = "the marks are C=, dil= and pad="
                raise PhraseError(f"unknown mark `{text}`", word.offset, word.length, hint)
            _set(marks, key, _number(value, word, f"`{key}=`"))
        elif text == "global":
            hint = "to pool over the whole feature map: `global avg`"
            raise PhraseError("a global pool has no window", word.offset, word.length, hint)
        elif _KERNEL.fullmatch(text):
            raise _second_window(text, word.offset, word.length)
        elif text.partition("(")[0] in LAYER_WORDS:
            hint = f"each layer is an entry of its own: `[..., {text}]`"
            raise PhraseError(f"`{text}` is a layer, not a mark of this one", word.offset, word.length, hint)
        elif re.fullmatch("[0-9]+/[0-9]+", text):
            channels, _, stride = text.partition("/")
            hint = f"write the stride as `{channels} /{stride}`"
            raise PhraseError(f"`{text}` reads like channels and a stride", word.offset, word.length, hint)
        else:
            _set(marks, "channels", _number(text, word, "the number of channels"))
    pool = "kind" in marks
    for key in ("channels", "C", "dw", "dil", "linear", "bare") if pool else ("ceil",):
        if key in marks:
            what = "a pool" if pool else "a convolution"
            raise PhraseError(f"{what} has no `{marks[key].text}`", marks[key].offset, marks[key].length)
    return "pool" if pool else "conv", tuple((key, marks[key]) for key in _ORDER if key in marks)


_MARKS_HINT = "marks of a layer: channels, C=groups or dw, /stride, dil=, V or pad=, linear or bare"


def _number(text: str, word: Word, what: str) -> Word:
    if not _NUMBER.fullmatch(text):
        raise PhraseError(
            f"`{word.text}` is not {what}" if text else f"`{word.text}` lacks its number",
            word.offset,
            word.length,
            _MARKS_HINT,
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
                stride = next((f" {text}" for text in texts if text.startswith("/")), "")
                window = next((text for text in texts if _KERNEL.fullmatch(text)), "")
                if not window:  # VGG's pools give neither, ResNet's the stride
                    window, stride = ("3x3", stride) if stride else ("2x2", " /2")
                hint = f"`{window} {head.text}{stride}`, `{head.text} to 7x7` or `global {head.text}`"
                raise PhraseError(f"`{head.text}` needs a window", head.offset, head.length, hint)
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
        case "pool":
            raise PhraseError("`pool` is max or avg", head.offset, head.length, "`3x3 max /2`, `3x3 avg /2`")
        case word if re.fullmatch("[0-9]+([*x][0-9]+)+", word):
            raise _no_window(re.split("[*x]", word), head.offset, head.length, word)
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
