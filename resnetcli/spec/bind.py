"""Nodes of a table -> items: words looked up, blocks expanded, names of `let` evaluated."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal, cast

from resnetcli.errors import At, Problems, SpecError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.ops import WORDS, PoolTo
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.numbers import NAME, NumberError, decimal, evaluate_expression, names_in
from resnetcli.spec.parse import parse_head
from resnetcli.spec.phrase import Phrase, PhraseError, Word
from resnetcli.spec.source import MAX_DEPTH, Map, Node, Seq, Text
from resnetcli.spec.spec import (
    Aside,
    Branches,
    Call,
    Composite,
    ConvLayer,
    Item,
    Layer,
    PoolLayer,
    Residual,
    Sequence,
)
from resnetcli.spec.vocabulary import COMPOSITES, MAX_CHANNELS, MAX_WINDOW, Argument, form_of, layer_words

MAX_COPIES = 16_384
MAX_ITEMS = 8_192
"""Entries of a table after its blocks are expanded."""

Names = Mapping[str, int]


@frozen
class Block:
    """A named block as written: its parameters and its body."""

    parameters: tuple[str, ...]
    body: Node
    at: At
    sound: bool = True
    """Whether its syntax is valid; if not, that is reported once and not at every call."""


class _Skip(Exception):  # noqa: N818 - not an error: leaves an entry whose problem is in the list
    pass


@dataclass
class Binder:
    """Read bodies; after a problem, reading continues with the next entry."""

    problems: Problems
    blocks: Mapping[str, Block] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    """Names that numbers of the bodies use."""
    _open: list[str] = field(default_factory=list)
    _called: set[str] = field(default_factory=set)
    _outermost: At | None = None
    """Position of the outermost open call."""
    _depth: int = 0
    _count: int = 0

    def uncalled(self, names: Names) -> None:
        """Check the blocks that nothing calls; problems that depend on their numbers are ignored."""
        for name, block in self.blocks.items():
            if name in self._called or not block.sound:
                continue
            trial = Binder(Problems(), self.blocks, _open=[name])
            with suppress(SpecError):  # raised if the expanded block is too large
                trial.body(block.body, {**names, **dict.fromkeys(block.parameters, 1)})
            for problem in trial.problems.found:
                if problem.kind:  # does not depend on the numbers
                    self.problems.add(problem.message, problem.at, problem.hint)

    def body(self, node: Node, names: Names) -> tuple[Item, ...]:
        """A body, a branch or a stage: one item, or a list of items."""
        if self._depth >= MAX_DEPTH:
            self.problems.add(f"nested more than {MAX_DEPTH} deep after blocks are expanded", node.at)
            return ()
        self._depth += 1
        try:
            if not isinstance(node, Seq):
                return tuple(self._entry(node, names, None))
            if not node.items:
                self.problems.add("an empty list", node.at, "write at least one layer")
            return tuple([item for entry in node.items for item in self._entry(entry, names, node)])
        finally:
            self._depth -= 1

    def _spend(self, entries: int, at: At) -> None:
        """Count entries; stop if nested blocks expand to too many."""
        self._count += entries
        if self._count > MAX_ITEMS:
            at = self._outermost if self._open and self._outermost else at
            self.problems.add(f"more than {MAX_ITEMS:,} entries after blocks are expanded", at)
            self.problems.close()

    def _entry(self, node: Node, names: Names, within: Seq | None) -> list[Item]:
        match node:
            case Text():
                try:
                    phrases = parse_cell(node.value)
                except PhraseError as error:
                    self._bad_phrase(node, error, within)
                    return []
                return [item for phrase in phrases for item in self._item(node, phrase, names, within)]
            case Seq():
                self.problems.add(
                    "a list inside a list",
                    node.at,
                    "name it: `residual: [...]` if it has a shortcut, `seq: [...]` if not",
                )
                return []
            case Map():
                return self._composite(node, names)

    def _bad_phrase(self, node: Text, error: PhraseError, within: Seq | None) -> None:
        at = node.word(error.offset, error.length)
        if not node.value and node.plain:
            hint = "write a layer, or `null` to drop an inherited stage" if self._depth == 1 else "write a layer"
            self.problems.add("an empty value", at, hint)
            return
        self.problems.add(error.message, at, self._comma_hint(node, within) or error.hint)

    def _comma_hint(self, node: Text, within: Seq | None) -> str:
        """The hint for a paper's cell pasted inside brackets, which YAML has split at its commas."""
        if within is None or not within.flow:
            return ""
        first = node.value.split()[:1]
        if first and (first[0][0].isdigit() or first[0].split("=")[0] in ("stride", "C", "groups", "dil", "pad")):
            return "no commas inside brackets, `[7x7 64 /2]`; write a cell with commas on a separate line"
        return ""

    def _item(self, node: Text, phrase: Phrase, names: Names, within: Seq | None) -> list[Item]:
        at = node.word(phrase.offset, phrase.length)
        self._spend(1 + len(phrase.words) // 4, at)
        bind = _Words(self.problems, node, names, self.used)
        try:
            times = bind.count(phrase.times, "x N", 1, MAX_COPIES) if phrase.times else None
            what = self._call(node, phrase, bind, within) if phrase.head == "call" else bind.layer(phrase)
        except _Skip:
            return []
        return [self._repeated(Item(what, times, at))]

    def _call(self, node: Text, phrase: Phrase, bind: _Words, within: Seq | None) -> Call:
        head, *arguments = phrase.words
        block = self.blocks.get(head.text)
        at = node.word(head.offset, head.length)
        if block is None:
            known = [*layer_words(), *COMPOSITES, *self.blocks]
            hint = self._comma_hint(node, within) or did_you_mean(
                head.text,
                known,
                "a layer begins with its window, as in `3x3 64`, or with a word such as `fc`, `max`, `bn`",
            )
            written = node.value[head.offset : head.offset + head.length]
            self.problems.add(f"unknown word `{written}`", at, hint, kind="unknown word")
            raise _Skip
        if not block.sound:
            raise _Skip
        if head.text in self._open:
            chain = " -> ".join([*self._open[self._open.index(head.text) :], head.text])
            self.problems.add(
                f"block `{head.text}` calls itself: {chain}", at, "blocks are expanded inline and cannot be recursive",
                kind="recursion",
            )  # fmt: skip
            raise _Skip
        if len(arguments) != len(block.parameters):
            usage = " ".join([head.text, *block.parameters])
            self.problems.add(
                f"`{head.text}` takes {len(block.parameters)} numbers, not {len(arguments)}",
                at,
                f"write `{usage}`",
            )
            raise _Skip
        values = tuple(
            bind.count(word, f"`{name}`", 0, MAX_CHANNELS)
            for name, word in zip(block.parameters, arguments, strict=True)
        )
        if not self._open:
            self._outermost = at
        self._called.add(head.text)
        self._open.append(head.text)
        try:
            body = self.body(block.body, {**bind.names, **dict(zip(block.parameters, values, strict=True))})
        finally:
            self._open.pop()
        return Call(head.text, values, body)

    def _composite(self, node: Map, names: Names) -> list[Item]:
        if len(node.pairs) != 1:
            at = node.pairs[1][0].at if node.pairs else node.at
            self.problems.add(
                "one entry with several keys" if node.pairs else "an empty entry",
                at,
                "write entries in [ ], one key each" if node.flow else "start each with a separate `-`",
            )
            return []
        key, value = node.pairs[0]
        self._spend(1, key.at)
        try:
            phrase = parse_head(key.value)
        except PhraseError as error:
            self.problems.add(error.message, key.word(error.offset, error.length), error.hint)
            return []
        bind = _Words(self.problems, key, names, self.used)
        what: Composite
        try:
            times = bind.count(phrase.times, "x N", 1, MAX_COPIES) if phrase.times else None
            match phrase.head:
                case "residual":
                    scale = phrase.mark("scale")
                    factor = bind.scale(scale) if scale else None
                    what = Residual(self.body(value, names), factor, phrase.mark("linear") is not None)
                case "concat" | "sum":
                    of = phrase.mark("of")
                    number = bind.count(of, "of N", 1, MAX_COPIES) if of else None
                    kind: Literal["concat", "sum"] = "concat" if phrase.head == "concat" else "sum"
                    what = Branches(kind, self._branches(key, value, names, number), number)
                case "seq":
                    what = Sequence(self.body(value, names))
                case _:
                    what = Aside(self.body(value, names))
        except _Skip:
            return []
        return [self._repeated(Item(what, times, key.at))]

    def _branches(self, key: Text, value: Node, names: Names, of: int | None) -> tuple[tuple[Item, ...], ...]:
        if of is not None:
            return (self.body(value, names),)
        if not isinstance(value, Seq) or not value.items:
            self.problems.add(
                f"`{key.value}` takes a list of branches", key.at, f"`{key.value}: [1x1 64, [1x1 96, 3x3 128]]`"
            )
            raise _Skip
        return tuple(self.body(branch, names) for branch in value.items)

    def _repeated(self, item: Item) -> Item:
        """The item; a stride in a repeated entry other than `residual` is a problem."""
        if item.times is not None and not isinstance(item.what, Residual) and (place := strided(item)) is not None:
            there = item.at is not None and item.at.line != place.line
            self.problems.add(
                "a stride inside a repeated entry is ambiguous",
                place,
                "write the copy with the stride separately; only in `residual x N` it acts in the first copy",
                (f"the entry is repeated on line {item.at.line}",) if item.at and there else (),
            )
        return item


def strided(item: Item) -> At | None:
    """Position of a stride inside an item; None if there is none."""
    match item.what:
        case ConvLayer(stride=stride) | PoolLayer(stride=stride):
            return item.at if stride > 1 else None
        case Branches(branches=branches):
            inner = [entry for branch in branches for entry in branch]
        case Residual(body=body) | Sequence(body=body) | Aside(body=body) | Call(body=body):
            inner = list(body)
        case _:
            return None
    return next((place for entry in inner if (place := strided(entry)) is not None), None)


@dataclass
class _Words:
    """Evaluates the words of one phrase."""

    problems: Problems
    node: Text
    names: Names
    used: set[str]

    def count(self, word: Word, what: str, least: int, most: int) -> int:
        """A whole number from `least` to `most`."""
        at = self.node.word(word.offset, word.length)
        if not word.text.isdecimal():
            self.used.update(names_in(word.text))
        try:
            value = evaluate_expression(word.text, self.names)
        except NumberError as error:
            stride = re.fullmatch("s([0-9]+)", word.text)
            hint = f"a stride is written `/{stride[1]}`" if stride else error.hint
            self.problems.add(error.message, at, hint)
            raise _Skip from None
        if not least <= value <= most:
            shown = f"{value:,}" if word.text.lstrip("-").isdecimal() else f"`{word.text}` = {value:,}"
            limit = f"at least {least}" if value < least else f"at most {most:,}"
            self.problems.add(f"{shown} is out of range: {what} is {limit}", at)
            raise _Skip
        return value

    def decimal(self, word: Word, what: str) -> float:
        """A number with decimals, never negative."""
        value = decimal(word.text)
        if value is None:
            at = self.node.word(word.offset, word.length)
            self.problems.add(f"`{word.text}` is not a number: {what} is a number such as 0.5", at)
            raise _Skip
        return value

    def scale(self, word: Word) -> float:
        """The factor of a scaled residual; a whole number is probably a missing `x`."""
        copies = word.text.removeprefix("x")
        if copies.isdecimal():
            at = self.node.word(word.offset, word.length)
            self.problems.add(
                f"`{word.text}` is not a scale like 0.2", at, f"to repeat the block, write `residual x {copies}`"
            )
            raise _Skip
        return self.decimal(word, "the scale")

    def layer(self, phrase: Phrase) -> Layer:
        """The layer of any phrase but a block call."""
        match phrase.head:
            case "conv":
                return self._conv(phrase)
            case "pool":
                return self._pool(phrase)
            case "pool to":
                kind = cast(Literal["max", "avg"], phrase.marks[0][1].text)
                return PoolTo(kind, self._size(phrase.words))
            case word:
                return WORDS[word](*self._arguments(word, list(phrase.words)))

    def _arguments(self, head: str, words: list[Word]) -> Iterator[object]:
        """The arguments of an operation's word, which are the fields of its class."""
        form = form_of(head)
        assert form is not None  # the parser accepts no other word
        if form.repeated:
            yield tuple(self._argument(form.arguments[0], word) for word in words)
            return
        for argument in form.arguments if words or not form.optional else ():
            if argument.kind == "size":
                yield self._size((words.pop(0), words.pop(0)))
            elif argument.kind != "word":
                yield self._argument(argument, words.pop(0))

    def _argument(self, argument: Argument, word: Word) -> int | float:
        if argument.kind == "whole":
            return self.count(word, argument.what, argument.least, argument.most)
        value = self.decimal(word, argument.what)
        if value >= argument.below:
            at = self.node.word(word.offset, word.length)
            self.problems.add(f"{word.text} is out of range: {argument.what} is below {argument.below}", at)
            raise _Skip
        return value

    def _size(self, words: Many[Word]) -> tuple[int, int]:
        h, w = (self.count(word, "a window", 1, MAX_WINDOW) for word in words)
        return h, w

    def _mark(self, phrase: Phrase, name: str, least: int, most: int, default: int) -> int:
        word = phrase.mark(name)
        what = {"/": "the stride", "C": "the number of groups"}.get(name, f"`{name}`")
        return self.count(word, what, least, most) if word else default

    def _pad(self, phrase: Phrase) -> int | None:
        if phrase.mark("V"):
            return 0
        return self._mark(phrase, "pad", 0, MAX_WINDOW, 0) if phrase.mark("pad") else None

    def _conv(self, phrase: Phrase) -> ConvLayer:
        channels = phrase.mark("channels")
        return ConvLayer(
            self._size(phrase.words),
            self.count(channels, "the number of channels", 1, MAX_CHANNELS) if channels else None,
            "dw" if phrase.mark("dw") else self._mark(phrase, "C", 1, MAX_CHANNELS, 1),
            self._mark(phrase, "/", 1, MAX_WINDOW, 1),
            self._mark(phrase, "dil", 1, MAX_WINDOW, 1),
            self._pad(phrase),
            "linear" if phrase.mark("linear") else "bare" if phrase.mark("bare") else "style",
        )

    def _pool(self, phrase: Phrase) -> PoolLayer:
        kind = phrase.mark("kind")
        assert kind is not None  # a phrase without it is not a pool
        return PoolLayer(
            "max" if kind.text == "max" else "avg",
            self._size(phrase.words),
            self._mark(phrase, "/", 1, MAX_WINDOW, 1),
            self._pad(phrase),
            phrase.mark("ceil") is not None,
            kind.text == "avg(pad)",
        )


def is_name(text: str) -> bool:
    """Whether a text can name a parameter or a block."""
    return NAME.fullmatch(text) is not None and len(text) <= 40
