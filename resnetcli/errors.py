"""Errors a user can cause: what is wrong, where, and what to do. None of them ever shows a traceback."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache

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


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with a spec."""

    message: str
    at: At | None = None
    hint: str = ""
    notes: tuple[str, ...] = ()
    """Further facts, a line each, printed below the excerpt."""
    severity: str = "error"

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
    return text if text.isprintable() else "".join(char if char.isprintable() else "\ufffd" for char in text)


def plural(number: float, one: str, many: str = "") -> str:
    """So many of a thing: `1 net`, `1,234 nets`, `0.5 epochs`; `many`: where that is not `one` and an s."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:,.12g}"
    return f"{amount} {one if number == 1 else many or one + 's'}"


def _excerpt(at: At, width: int = 120) -> list[str]:
    """The line with a row of carets below, cut to `width` characters around the place."""
    text = at.source.line(at.line)
    start = at.column - 1
    left = max(0, start - width // 2) if len(text) > width else 0
    shown = "".join(char if char.isprintable() or char == "\t" else "\ufffd" for char in text[left : left + width])
    lead = "".join("\t" if char == "\t" else " " for char in shown[: start - left])
    carets = "^" * max(1, min(at.length, len(shown) - (start - left)))
    more = ("..." if left else "", "..." if left + width < len(text) else "")
    gutter = f"{at.line:>5} | "
    return [f"{gutter}{more[0]}{shown}{more[1]}".rstrip(), f"      | {' ' * len(more[0])}{lead}{carets}"]


_listener: ContextVar[Callable[[Problem], None] | None] = ContextVar("listener", default=None)


@contextmanager
def listening(listener: Callable[[Problem], None] | None) -> Iterator[None]:
    """Context manager: passes every warning about a spec to the listener, each once."""
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
    """Passes a warning to whoever listens."""
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

    def add(self, message: str, at: At | None, hint: str = "", notes: tuple[str, ...] = ()) -> None:
        """Notes one problem, once. Raises SpecError if there are too many to go on."""
        problem = Problem(message, at, hint, notes)
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


def nearest(word: str, known: Iterable[str], most: int = 3) -> list[str]:
    """The known words most like `word`, best first; none if none is like it."""
    return list(_nearest(word, tuple(known), most))


@lru_cache(maxsize=256)  # a block's one wrong word is met at every call of the block
def _nearest(word: str, known: tuple[str, ...], most: int) -> tuple[str, ...]:
    return tuple(difflib.get_close_matches(word, known, n=most, cutoff=0.6))


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """A hint: the nearest known words, or `otherwise`."""
    close = nearest(word, known)
    return f"did you mean {' or '.join(f'`{name}`' for name in close)}?" if close else otherwise
