"""Errors that a user can cause: message, position and hint. They are printed without a traceback."""

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

from resnetcli.frozen import frozen

_BREAK = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
"""Line breaks as YAML defines them: line and column numbers refer to YAML."""


@frozen
class Source:
    """The text of a spec, and its name in messages."""

    label: str
    text: str
    path: str = ""
    """The file, which `extends:` is relative to; empty for text that is not from a file."""

    def line(self, number: int) -> str:
        """Line `number`, counted from 1."""
        lines = _BREAK.split(self.text)
        return lines[number - 1] if 0 < number <= len(lines) else ""

    def at(self, index: int) -> At:
        """Position of one character."""
        breaks = list(_BREAK.finditer(self.text, 0, index))
        return At(self, len(breaks) + 1, index - (breaks[-1].end() if breaks else 0) + 1, 1)


@frozen
class At:
    """A span within one line of a source. Lines and columns count from 1."""

    source: Source
    line: int
    column: int
    length: int

    def part(self, offset: int, length: int) -> At:
        """The span at `offset` in this one; the whole span if that would exceed it."""
        if offset + length > self.length:
            return self
        return At(self.source, self.line, self.column + offset, length)


Kind = Literal["", "unknown word", "recursion"]
"""Kinds of problems that callers distinguish: these two do not depend on a block's parameters."""


@frozen
class Problem:
    """One thing wrong with a spec."""

    message: str
    at: At | None = None
    hint: str = ""
    notes: tuple[str, ...] = ()
    """Further lines, printed below the excerpt."""
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
    """Make a user's text safe to print: control characters become U+FFFD, the middle of a long text is omitted."""
    if len(text) > most:
        text = f"{text[: most * 2 // 3]} ... {text[-most // 3 :]}"
    return printable(text)


def first_line(text: object) -> str:
    """The first line of a text or an error's message; empty if it has none."""
    return (str(text).strip().splitlines() or [""])[0]


def printable(text: str, keep: str = "") -> str:
    """Replace control, bidirectional and invisible characters by U+FFFD, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else "\ufffd" for char in text)


def typed(path: str | os.PathLike[str]) -> str:
    """A path quoted for a shell."""
    from shlex import quote

    return quote(str(path))


def error_text(error: BaseException) -> str:
    """An exception on one line: `ValueError: 3 is too few`."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def signal_name(number: int) -> str:
    """`SIGKILL`, or `signal 40` for one without a name."""
    import signal

    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def plural(number: float, one: str, many: str = "") -> str:
    """A number with its noun: `1 model`, `1,234 models`, `0.5 epochs`; `many`: an irregular plural."""
    amount = f"{number:,}" if isinstance(number, int) else f"{number:,.12g}"
    return f"{amount} {one if number == 1 else many or one + 's'}"


def _excerpt(at: At, width: int = 120) -> list[str]:
    """The line with carets below the span, cut to `width` characters around it."""
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
    """An invalid spec: all problems found by the first phase that found any."""

    problems: tuple[Problem, ...]

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


@dataclass(eq=False)
class UsageError(Exception):
    """A command or call with invalid arguments or input."""

    message: str
    hint: str = ""

    def __str__(self) -> str:
        return f"error: {clean(self.message)}" + (f"\nhint: {clean(self.hint)}" if self.hint else "")


@dataclass(eq=False)
class ResourceError(Exception):
    """A valid request that failed for lack of a resource: memory, disk space, a device."""

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
    """Problems collected during a phase; `close` raises them together."""

    found: list[Problem] = field(default_factory=list)

    LIMIT = 50
    """Maximum number of problems reported for one spec."""

    def add(self, message: str, at: At | None, hint: str = "", notes: tuple[str, ...] = (), kind: Kind = "") -> None:
        """Add a problem unless it is known. Raises SpecError at the limit."""
        problem = Problem(message, at, hint, notes, kind=kind)
        if problem in self.found:
            return
        self.found.append(problem)
        if len(self.found) == self.LIMIT:
            self.found.append(Problem(f"stopped after {self.LIMIT} errors"))
            self.close()

    def close(self) -> None:
        """Raise SpecError with all problems in the order of the text, if there are any."""
        if self.found:
            raise SpecError(tuple(sorted(self.found, key=_place)))


def _place(problem: Problem) -> tuple[bool, str, int, int]:
    at = problem.at
    return (True, "", 0, 0) if at is None else (False, at.source.label, at.line, at.column)


def nearest(word: str, known: Iterable[str], most: int = 3, *, loose: bool = True) -> list[str]:
    """The known words most similar to `word`, best first; empty if none is similar.

    Without `loose`, only different spellings, and names that start with it or contain it as a part.
    """
    return list(_nearest(word, tuple(known), most, loose))


@lru_cache(maxsize=256)  # a wrong word in a block is reported at each use of the block
def _nearest(word: str, known: tuple[str, ...], most: int, loose: bool) -> tuple[str, ...]:
    """By rank: a different spelling, then a prefix or part of the name, then similar letters, then a substring."""
    word = word[:MAX_WORD]  # the time is the product of the lengths
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
            # Prefer a name that is a prefix of others: `resnext50_32x4d` to `resnext50_32x4d_a`.
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
    """A hint: the nearest known words, each prefixed with `before`; `otherwise` if there are none."""
    close = nearest(word, known)
    return f"did you mean {any_of([before + name for name in close])}?" if close else otherwise


def any_of(names: Sequence[str]) -> str:
    """Quote and join names: `a`, `b` or `c`."""
    quoted = [f"`{name}`" for name in names]
    return " or ".join(filter(None, [", ".join(quoted[:-1]), *quoted[-1:]]))
