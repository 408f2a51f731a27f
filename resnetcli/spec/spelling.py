"""The papers' spelling of a cell -> the grammar's words, each with its position in the original text.

`7×7, 64, stride 2` becomes `7x7`, `64`, `/2`. An ambiguous spelling is an error whose hint has both meanings.
"""

from __future__ import annotations

import re

from resnetcli.frozen import frozen
from resnetcli.ops import WORDS
from resnetcli.spec.pasted import Cleaned
from resnetcli.spec.phrase import PhraseError, Word
from resnetcli.spec.vocabulary import POOLS, form_of, is_word

KERNEL = re.compile(r"([0-9]+|[A-Za-z])x([0-9]+|[A-Za-z])")
NUMBER = re.compile(r"[A-Za-z0-9_(\-][A-Za-z0-9_+\-*/()]*")
MAX_BARE = 15
"""Largest window side of a convolution without channels; above, it is probably an output size or a product."""
MIN_MAP = 14
"""From this side on, an even window in a pasted cell is probably the size of a feature map."""
_UNITS = re.compile(r"([0-9]+)-?(?:d|way)", re.IGNORECASE)
_SIDE = re.compile(r"[0-9]+|[A-Za-z]")
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
_SYNONYMS = {
    "convolution": "conv", "conv.": "conv", "pooling": "pool", "soft-max": "softmax", "fully-connected": "fc",
    "depthwise": "dw",
} | {word: word for word in (*POOLS, "conv", "pool", "stride", "dw", "pad")}  # fmt: skip
"""Lower case -> the grammar's word, besides the words of operations; case is ignored."""
_BEFORE_WINDOW = ("conv", "dw", "max", "avg", "global", "pool")
"""Words that papers write before the window."""
_MARK_WORDS = {"stride": "/", "s": "/", "groups": "C=", "dilation": "dil=", "padding": "pad=", "pad": "pad="}
"""Words that papers write before a number, or before `=` and a number."""


def is_reserved(name: str) -> bool:
    """Whether a word cannot be a name in `let:` and `blocks:`, in upper or lower case. (`C` can.)"""
    low = name.lower()
    return is_word(name) or (len(name) > 1 and (_synonym(low) is not None or bool(_POOLING.fullmatch(low))))


def _synonym(low: str) -> str | None:
    """The grammar's word for a word in lower case."""
    return low if low in WORDS else _SYNONYMS.get(low)


def words_of(cell: Cleaned, start: int, end: int, window: str = "") -> list[Word]:
    """The words of a part in the grammar's spelling, with their positions.

    `window`: the window of the convolution before the comma, if it has no channels yet.
    """
    tokens = [_Token(match.group(), start + match.start(), start + match.end())
              for match in _TOKEN.finditer(cell.text[start:end])]  # fmt: skip
    tokens = _joined([word for token in tokens for word in _spelled(token)])
    tokens = _crossed(cell, tokens, window)
    words: list[Word] = []
    for token in tokens:
        word = Word(re.sub(r"\s", "", token.text), *cell.span(token.start, token.end))
        if words and words[-1].text == "stride":
            first = words.pop()
            word = Word(f"/{word.text}", first.offset, word.offset + word.length - first.offset)
        words.append(word)
    if words and words[-1].text == "stride":
        raise PhraseError("`stride` needs a number", words[-1].offset, words[-1].length, "`stride 2` or `/2`")
    return words


@frozen
class _Token:
    text: str
    start: int
    end: int
    """Position in the cleaned text."""


def _spelled(token: _Token) -> list[_Token]:
    """A paper's word split into the grammar's: `max-pool` is `max pool`, `conv3-64` is `3x3 64`."""
    text, low = token.text, token.text.lower()
    words = [text]
    if pooling := _POOLING.fullmatch(low):
        words = [{"average": "avg"}.get(word, word) for word in pooling.groups() if word]
    elif synonym := _synonym(low):
        words = [synonym]
    elif (head := low.partition("(")[0]) == "avg" or ((form := form_of(head)) and form.bracketed):
        words = [head + text[len(head) :]]
    else:
        for pattern, instead in _PARTS:
            if match := pattern.fullmatch(text):
                words = [_synonym(word.lower()) or word for word in match.expand(instead).split()]
                break
    return [_Token(word, token.start, token.end) for word in words]


def _joined(tokens: list[_Token]) -> list[_Token]:
    """`C = 32`, `/ 2`, `fully connected` and `stride=2` as one word each."""
    joined: list[_Token] = []
    for token in tokens:
        last = joined[-1] if joined else None
        text = token.text
        if last and (text.startswith("=") or last.text.endswith("=") or last.text == "/") and last.text != "×":
            joined[-1] = _Token(last.text + text, last.start, token.end)
        elif last and last.text.lower() == "fully" and text.lower() == "connected":
            joined[-1] = _Token("fc", last.start, token.end)
        else:
            joined.append(token)
    return [_Token(_with_mark(token.text), token.start, token.end) for token in joined]


def _with_mark(text: str) -> str:
    key, equals, value = text.partition("=")
    mark = _MARK_WORDS.get(key.lower() if len(key) > 1 else key)
    return mark + value if equals and mark else text


def _crossed(cell: Cleaned, tokens: list[_Token], window: str) -> list[_Token]:
    """Resolve every `×`: between a window's sides, in a product, or before the number of copies."""
    for token in tokens:
        if re.fullmatch(r"[0-9]+(\s*\*\s*[0-9]+)+", token.text) and re.search(r"\s", token.text):
            raise _doubtful(cell, token, token.text.split("*"), window or _window_of(tokens))
    if not any(token.text in ("×", "x") for token in tokens):
        return tokens
    first = next((i for i, token in enumerate(tokens) if token.text not in _BEFORE_WINDOW), 0)
    resolved = tokens[:first]
    index = first
    while index < len(tokens):
        links = _chain(tokens, index)
        chain = tokens[index : index + len(links) * 2 - 1]
        whole = _Token("x".join(links), chain[0].start, chain[-1].end)
        before = resolved[-1] if resolved else None
        tight = whole.end - whole.start == len(whole.text)
        signs = {token.text for token in chain[1::2]}
        words = [token.text for token in resolved if token.text != "conv"]
        behind = window if index == 0 else words[-1] if words and KERNEL.fullmatch(words[-1]) else ""
        if len(links) == 1 or (signs != {"×"} and index > first):  # ` x N` repeats
            resolved.append(tokens[index])
            index += 1
            continue
        if before and before.text in ("to", "roi") and len(links) == 2:
            resolved.append(whole)
        elif behind and before and _is_window(links):
            raise second_window(cell.text[whole.start : whole.end], *cell.span(whole.start, whole.end))
        elif behind and not (len(links) == 2 and _is_window(links) and index == 0):
            if signs == {"×"} and tight and not all(map(str.isdecimal, links)) and "/" not in links[-1]:
                resolved.append(_Token("*".join(links), whole.start, whole.end))
            else:
                raise _doubtful(cell, whole, links, behind)
        elif index == first and all(map(str.isdecimal if not tight else _SIDE.fullmatch, links)):
            if len(links) > 2:
                raise no_window(links, *cell.span(whole.start, whole.end))
            resolved.append(whole)
        elif signs == {"×"} and re.fullmatch(r"([0-9]+)x\1\b.*", "x".join(links)):  # `3×3-64`, `BN-ReLU-Conv 3×3`
            hint = f"write the window first, then the channels: `{links[0]}x{links[0]} 64`"
            raise PhraseError(f"`{'×'.join(links)}` is not a window here", *cell.span(whole.start, whole.end), hint)
        elif signs == {"×"} and (index > first or links[0].isdecimal()):
            raise _doubtful(cell, whole, links, " ".join(token.text for token in resolved))
        else:
            resolved.append(_Token(links[0], chain[0].start, chain[0].end))
            resolved.append(_Token("x", chain[1].start, chain[1].end))
            index += 2
            continue
        index += len(chain)
    return [_Token("x", token.start, token.end) if token.text == "×" else token for token in resolved]


def _chain(tokens: list[_Token], index: int) -> list[str]:
    """The numbers joined by `×` from `index` on: `3`, `3`, `64` of `3 × 3 × 64`."""
    links = [tokens[index].text]
    head = links[0].partition("(")[0]
    if not NUMBER.fullmatch(links[0]) or _ends_chain(head) or KERNEL.fullmatch(head):
        return links
    while (
        index + 2 < len(tokens)
        and tokens[index + 1].text in ("×", "x")
        and NUMBER.fullmatch(tokens[index + 2].text)
        and not _ends_chain(tokens[index + 2].text)
        and not KERNEL.fullmatch(tokens[index + 2].text)
    ):
        links.append(tokens[index + 2].text)
        index += 2
    return links


def _ends_chain(text: str) -> bool:
    """Whether a word is not a number: `s` and `classes` are names of numbers."""
    return is_word(text) and text not in ("s", "classes")


def _is_window(links: list[str]) -> bool:
    """Whether two numbers after a comma are a window rather than a product: `3×3`, `1×7`."""
    return links[0] == links[1] or (
        "1" in links and all(map(str.isdecimal, links)) and max(map(int, links)) <= MAX_BARE
    )


def no_window(links: list[str], offset: int, length: int, written: str = "") -> PhraseError:
    hint = "write two sides, then the channels; `x N` repeats a layer: `3x3 64 x 2`"
    if len(links) == 2:
        hint = f"write the window as `{'x'.join(links)}`"
    elif len(links) == 3 and links[0] == links[1] and is_size(links[0]):
        hint = f"omit the size of the feature map and write a window first: `3x3 {links[2]}`"
    elif len(links) == 3 and links[0] == links[1]:
        hint = f"write two sides, then the channels: `{links[0]}x{links[1]} {links[2]}`"
    return PhraseError(f"`{written or 'x'.join(links)}` is not a window", offset, length, hint)


def second_window(text: str, offset: int, length: int) -> PhraseError:
    hint = "omit the output size, as in `7x7 64 /2`; write several layers as a list: `[3x3 64, 3x3 64]`"
    return PhraseError(f"`{text}` is a second window", offset, length, hint)


def _window_of(tokens: list[_Token]) -> str:
    sides = [token.text for token in tokens[:3:2]] if [token.text for token in tokens[1:2]] == ["×"] else []
    return "x".join(sides) or next((token.text for token in tokens if KERNEL.fullmatch(token.text)), "3x3")


def _doubtful(cell: Cleaned, token: _Token, links: list[str], window: str) -> PhraseError:
    numbers = [link.strip() for link in links]
    product, copies = "*".join(numbers), numbers[-1]
    lead = f"{window} " if window else ""
    hint = f"write a product as `{lead}{product}`, {copies} layers as `{lead}{'*'.join(numbers[:-1])} x {copies}`"
    written = cell.text[token.start : token.end]
    return PhraseError(
        f"`{written}` is ambiguous: a product or a repeated layer", *cell.span(token.start, token.end), hint
    )


def in_order(words: list[Word]) -> list[Word]:
    """Sort a layer's words: window first, without `conv` and `pool`, `fc 1000` for `1000-d fc`."""
    texts = [word.text for word in words]
    if texts[0] in ("conv", "dw"):
        window = next((index for index, text in enumerate(texts) if text not in ("conv", "dw")), len(words))
        if window == len(words) or not KERNEL.fullmatch(texts[window]):
            raise PhraseError(f"`{texts[0]}` needs its window", words[0].offset, words[0].length, "`3x3 64`, `3x3 dw`")
        words = [words[window], *words[:window], *words[window + 1 :]]
    elif texts[0] in ("max", "avg", "avg(pad)"):
        pool = texts[1:2] == ["pool"]
        rest = words[2:] if pool else words[1:]
        if pool and rest and KERNEL.fullmatch(rest[0].text):
            words = [rest[0], words[0], *rest[1:]]
        elif pool and texts[0] == "avg" and not split_times(words)[0][2:]:  # global average pooling
            words = [Word("global", words[0].offset, words[0].length), words[0], *rest]
    elif texts[0] == "global" and texts[2:3] == ["pool"]:
        words = [*words[:2], *words[3:]]
    elif len(words) > 1 and texts[1] == "fc" and (units := _UNITS.fullmatch(texts[0])):
        words = [words[1], Word(units[1], words[0].offset, len(units[1])), *words[2:]]
    if words[0].text == "fc" and len(words) > 1 and (units := _UNITS.fullmatch(words[1].text)):
        words = [words[0], Word(units[1], words[1].offset, len(units[1])), *words[2:]]
    return _marks_in_order(words) if KERNEL.fullmatch(words[0].text) else words


def _marks_in_order(words: list[Word]) -> list[Word]:
    """A window's marks without redundant words; joins `padding 3`, replaces `s2` by `/2`."""
    marks = [words[0]]
    for word in words[1:]:
        text, last = word.text, marks[-1]
        numbered = any(other.text[0].isdigit() or other.text in ("max", "avg") for other in marks[1:])
        if text == "conv" or (text == "pool" and last.text in ("max", "avg", "avg(pad)")):
            continue
        if text in ("filters", "channels", "kernels") and last.text.isdecimal():
            continue
        if re.fullmatch("[0-9]+-d", text):
            hint = f"write the channels as `{text[:-2]}`, a difference as `({text})`"
            raise PhraseError(
                f"`{text}` is ambiguous: a number of channels or a difference", word.offset, word.length, hint
            )
        if text.isdecimal() and (
            last.text == "pad" or (numbered and last.text in ("padding", "groups", "dilation", "s"))
        ):
            word = Word(_MARK_WORDS[last.text] + text, last.offset, word.offset + word.length - last.offset)
            marks.pop()
        elif numbered and re.fullmatch("s[0-9]+", text):
            word = Word(f"/{text[1:]}", word.offset, word.length)
        marks.append(word)
    return marks


def is_size(side: str) -> bool:
    return side.isdecimal() and int(side) >= MIN_MAP and int(side) % 2 == 0


def split_times(words: list[Word]) -> tuple[list[Word], Word | None]:
    """The words without a closing `x N`, and N."""
    if len(words) >= 3 and words[-2].text == "x":
        return words[:-2], words[-1]
    return words, None
