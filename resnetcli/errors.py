"""Errors a user can cause: what is wrong, where, and what to do. None of them ever shows a traceback."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""What ends a line for YAML, which is what lines and columns come from."""


@dataclass(frozen=True, slots=True)
class Source:
    """One text a spec is read from, with the label errors call it by."""

    label: str
    text: str
    path: str = ""
    """Where it lies, for `extends:` relative to it; empty for text that is no file."""

    def line(self, number: int) -> str:
        """Line `number`, counted from 1."""
        lines = _BREAK.split(self.text)
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def at(self, index: int) -> At:
        """The place of one character."""
        breaks = list(_BREAK.finditer(self.text, 0, index))
        return At(self, len(breaks) + 1, index - (breaks[-1].end() if breaks else 0) + 1, 1)


@dataclass(frozen=True, slots=True)
class At:
    """A stretch of one line of a source. Lines and columns count from 1."""

    source: Source
    line: int
    column: int
    length: int

    def part(self, offset: int, length: int) -> At:
        """The stretch `offset` characters further on; the whole if it would run out of this one."""
        if offset + length > self.length:
            return self
        return At(self.source, self.line, self.column + offset, length)


Kind = Literal["", "unknown word", "recursion"]
"""Kinds of problems that other code tells apart: these two do not depend on the numbers in a block."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec."""

    message: str
    at: At | None = None
    hint: str = ""
    notes: tuple[str, ...] = ()
    """Further facts, a line each, printed below the excerpt."""
    severity: str = "error"
    kind: Kind = ""

    def __str__(self) -> str:
        lines = []
        if self.at is None:
            lines.append(f"{self.severity}: {clean(self.message)}")
        else:
            at = self.at
            lines.append(f"{clean(at.source.label)}:{at.line}:{at.column}: {self.severity}: {clean(self.message)}")
            lines.extend(_excerpt(at))
        lines.extend(f"   {clean(note)}" for note in self.notes)
        if self.hint:
            lines.append(f"hint: {clean(self.hint)}")
        return "\n".join(lines)


def clean(text: str, most: int = 400) -> str:
    """User's text as it can be shown: what a terminal would obey becomes U+FFFD, a long middle is left out."""
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"
    return printable(text)


def printable(text: str, keep: str = "") -> str:
    """Replace control, bidirectional and invisible characters by U+FFFD, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "\ufffd" for char in text)


def typed(path: str | os.PathLike[str]) -> str:
    """A path as it is to be typed into a shell, quoted where it has to be."""
    from shlex import quote

    return quote(str(path))


def error_text(error: BaseException) -> str:
    """An exception on one line: `ValueError: 3 is too few`."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def plural(number: float, one: str, many: str = "") -> str:
    """So many of a thing: `1 net`, `1,234 nets`, `0.5 epochs`; `many`: where that is not `one` and an s."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:,.12g}"
    return f"{amount} {one if number == 1 else many or one + 's'}"


def _excerpt(at: At, width: int = 120) -> list[str]:
    """The line with a row of carets below, cut to `width` characters around the place."""
    text = at.source.line(at.line)
    start = at.column - 1
    left = max(0, start - width // 2) if len(text) > width else 0
    shown = printable(text[left : left + width], "\t")
    lead = "".join("\t" if char == "\t" else " " for char in shown[: start - left])
    carets = "^" * max(1, min(at.length, len(shown) - (start - left)))
    more = ("..." if left else "", "..." if left + width < len(text) else "")
    gutter = f"{at.line:>5} | "
    return [f"{gutter}{more[0]}{shown}{more[1]}".rstrip(), f"      | {' ' * len(more[0])}{lead}{carets}"]


_listener: ContextVar[Callable[[Problem], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[Problem], None] | None) -> Iterator[None]:
    """Context manager: pass every warning about a spec to the listener once."""
    seen: set[str] = set()

    def once(problem: Problem) -> None:
        if listener is not None and (text := str(problem)) not in seen:
            seen.add(text)
            listener(problem)

    token = _listener.set(once)
    try:
        yield
    finally:
        _listener.reset(token)


def notice(problem: Problem) -> None:
    """Pass a warning to the listener."""
    if (listener := _listener.get()) is not None:
        listener(problem)


@dataclass(eq=False)
class SpecError(Exception):
    """A spec that cannot be read or does not fit together: every problem of the phase that found one."""

    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@dataclass(eq=False)
class UsageError(Exception):
    """A command or a call that asks for what there is not."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"error: {clean(self.message)}" + (f"\nhint: {clean(self.hint)}" if self.hint else "")


@dataclass(eq=False)
class ResourceError(Exception):
    """Something that was asked for rightly but could not be finished: memory, disk, a device that vanished."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"error: {clean(self.message, 2000)}" + (f"\nhint: {clean(self.hint, 2000)}" if self.hint else "")


def release_frames(error: ResourceError) -> ResourceError:
    """The same error without the stack frames it came through, for storing.

    The frames' locals, and those of the error that caused it, would keep a model's tensors alive as long as the error.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


@dataclass(slots=True)
class Problems:
    """Collects what is wrong while a phase goes on; `close` raises it all together."""

    found: list[Problem] = field(default_factory=list)

    MOST = 50
    """A file of junk is not answered with thousands of lines."""

    def add(self, message: str, at: At | None, hint: str = "", notes: tuple[str, ...] = (), kind: Kind = "") -> None:
        """Add a problem, once. Raises SpecError if there are too many to go on."""
        problem = Problem(message, at, hint, notes, kind=kind)
        if problem in self.found:
            return
        self.found.append(problem)
        if len(self.found) == self.MOST:
            self.found.append(Problem(f"{self.MOST} errors are enough: the rest was not looked at"))
            self.close()

    def close(self) -> None:
        """Raises SpecError if anything was found, in the order of the text."""
        if self.found:
            raise SpecError(tuple(sorted(self.found, key=_place)))


def _place(problem: Problem) -> tuple[bool, str, int, int]:
    at = problem.at
    return (True, "", 0, 0) if at is None else (False, at.source.label, at.line, at.column)


def nearest(word: str, known: Iterable[str], most: int = 3, *, loose: bool = True) -> list[str]:
    """The known words most like `word`, best first; empty if none is similar.

    Not `loose`: only other spellings of it, and what begins with it or has it as a part.
    """
    return list(_nearest(word, tuple(known), most, loose))


@lru_cache(maxsize=256)  # a block's one wrong word is met at every call of the block
def _nearest(word: str, known: tuple[str, ...], most: int, loose: bool) -> tuple[str, ...]:
    """By rank: another spelling, then its beginning or a part of it, then similar letters, then what contains it."""
    word = word[:MAX_WORD]  # comparing takes the product of the lengths
    bare = _bare(word)
    tells = len(bare) >= MIN_PART
    matcher = difflib.SequenceMatcher()
    matcher.set_seq2(word)
    ranks: dict[str, tuple[int, float]] = {}
    for name in known:
        other = _bare(name)
        matcher.set_seq1(name)
        likeness = 0.0
        if matcher.real_quick_ratio() >= ALIKE and matcher.quick_ratio() >= ALIKE:
            likeness = matcher.ratio()
        if bare and bare == other:
            ranks[name] = 0, 0.0
        elif tells and (other.startswith(bare) or bare in _PART.split(name.casefold())):
            # A name that others begin with is the plain form of theirs: `resnext50_32x4d` of `resnext50_32x4d_a`.
            ranks[name] = 1, -float(sum(longer.startswith(name) for longer in known))
        elif not loose:
            continue
        elif likeness >= VERY_ALIKE:
            ranks[name] = 2, -likeness
        elif tells and bare in other:
            ranks[name] = 3, -likeness
        elif likeness >= ALIKE:
            ranks[name] = 4, -likeness
    best = sorted(ranks, key=lambda name: (ranks[name], len(name)))
    same = [name for name in best if ranks[name][0] == 0]
    return tuple((same or best)[:most])


MAX_WORD = 80
MIN_PART = 3
"""Minimum letters for a match by prefix or by part of a name."""
ALIKE, VERY_ALIKE = 0.6, 0.8
"""difflib ratios: the minimum, and the one from which similarity outranks containing the word."""
_PART = re.compile("[^a-z0-9]+")


def _bare(text: str) -> str:
    """Letters and digits only: `ResNet-50` and `resnet_50` are equal."""
    return "".join(char for char in text.casefold() if char.isalnum())


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "", *, before: str = "") -> str:
    """A hint: the nearest known words, or `otherwise`; each with `before` in front of it, as it is typed."""
    close = nearest(word, known)
    return f"did you mean {any_of([before + name for name in close])}?" if close else otherwise


def any_of(names: Sequence[str]) -> str:
    """Names in a sentence: `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))
