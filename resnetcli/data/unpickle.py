"""The pickles of CIFAR's Python version, read by a machine that can build nothing but lists, dicts, text and bytes.

Nothing is imported and nothing is called: a global is a word, and of all words only numpy's three for an array of
bytes mean anything. Every size is held against what the file has left before it is believed: Python's own unpickler,
with every name refused, still takes gigabytes for the memo that an index of four bytes claims.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from resnetcli.data.errors import DataError
from resnetcli.errors import plural

MOST_STEPS = 1_000_000
"""Instructions; CIFAR-100's 50,000 images take about 250,000."""
SMALL = 2**16
"""Bytes up to which a string is text; the pixels are not copied."""

_RECONSTRUCT: Final = "reconstruct"
_GLOBALS: dict[tuple[str, str], Literal["reconstruct", "ndarray", "dtype"]] = {
    ("numpy.core.multiarray", "_reconstruct"): "reconstruct",
    ("numpy._core.multiarray", "_reconstruct"): "reconstruct",  # since numpy 2
    ("numpy", "ndarray"): "ndarray",
    ("numpy", "dtype"): "dtype",
}


@dataclass(frozen=True, slots=True)
class Global:
    """One of the three names."""

    what: Literal["reconstruct", "ndarray", "dtype"]


@dataclass(slots=True)
class Bytes:
    """numpy's dtype of bytes, `u1`."""

    state: Any = None


@dataclass(slots=True)
class Pickled:
    """An array of bytes, as it is pickled: numpy is not asked to make it."""

    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes | memoryview = b""


class _Mark:
    """Where a tuple, a list's items or a dict's begin."""


_MARK = _Mark()


class _DamagedError(Exception):
    """Why the bytes are no pickle of that kind."""


def unpickle(raw: bytes, label: str) -> Any:
    """What is pickled: text for strings (keys and names alike), numbers, lists, tuples, dicts, `Pickled` arrays.

    Raises DataError for whatever else it asks for, or if it is damaged.
    """
    try:
        return _Machine(raw).run()
    except _DamagedError as error:
        raise DataError(f"`{label}` is no pickled batch of CIFAR: {error}") from None


class _Machine:
    """A stack, a memo and the place in the bytes; each instruction of the few that are needed is a case of `step`."""

    def __init__(self, raw: bytes) -> None:
        self.raw, self.view, self.at = raw, memoryview(raw).toreadonly(), 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        for _ in range(MOST_STEPS):
            code = bytes(self.take(1))
            if code == b".":
                if len(self.stack) != 1:
                    raise _DamagedError("something is left over at its end")
                return self.stack[0]
            self.step(code)
        raise _DamagedError("it takes too many instructions")

    def step(self, code: bytes) -> None:
        match code:
            case b"\x80":  # PROTO
                if self.number(1) > 5:
                    raise _DamagedError("its protocol is not known")
            case b"\x95":  # FRAME
                self.number(8)
            case b"}":
                self.push({})
            case b"]":
                self.push([])
            case b")":
                self.push(())
            case b"N":
                self.push(None)
            case b"\x88" | b"\x89":
                self.push(code == b"\x88")
            case b"K":  # BININT1
                self.push(self.number(1))
            case b"M":  # BININT2
                self.push(self.number(2))
            case b"J":  # BININT
                self.push(self.number(4, signed=True))
            case b"\x8a":  # LONG1
                length = self.number(1)
                if length > 8:
                    raise _DamagedError("it has a number of more than 64 bits")
                self.push(self.number(length, signed=True))
            case b"U" | b"C":  # SHORT_BINSTRING of Python 2, SHORT_BINBYTES
                self.string(1)
            case b"T" | b"B":  # BINSTRING, BINBYTES
                self.string(4)
            case b"\x8e":  # BINBYTES8
                self.string(8)
            case b"\x8c":  # SHORT_BINUNICODE
                self.text(1)
            case b"X":  # BINUNICODE
                self.text(4)
            case b"q":  # BINPUT
                self.memo[self.number(1)] = self.top()
            case b"r":  # LONG_BINPUT
                self.memo[self.number(4)] = self.top()
            case b"\x94":  # MEMOIZE
                self.memo[len(self.memo)] = self.top()
            case b"h":  # BINGET
                self.recall(self.number(1))
            case b"j":  # LONG_BINGET
                self.recall(self.number(4))
            case b"(":
                self.push(_MARK)
            case b"\x85" | b"\x86" | b"\x87":  # TUPLE1, TUPLE2, TUPLE3
                self.push(tuple(reversed([self.pop() for _ in range(code[0] - 0x84)])))
            case b"t":
                self.push(tuple(self.since_mark()))
            case b"a":
                item = self.pop()
                self.expect(list).append(item)
            case b"e":
                items = self.since_mark()
                self.expect(list).extend(items)
            case b"s":
                value, key = self.pop(), self.pop()
                self.fill([key, value])
            case b"u":
                self.fill(self.since_mark())
            case b"c":  # GLOBAL
                self.name(self.line(), self.line())
            case b"\x93":  # STACK_GLOBAL
                name, module = self.pop(), self.pop()
                self.name(module, name)
            case b"R":
                arguments = self.pop()
                self.push(_made(self.pop(), arguments))
            case b"b":
                state = self.pop()
                _build(self.top(), state)
            case _:
                raise _DamagedError(f"it asks for instruction 0x{code[0]:02x}, which arrays and lists do not need")

    def take(self, length: int) -> memoryview:
        if length > len(self.raw) - self.at:
            raise _DamagedError("it ends in the middle")
        self.at += length
        return self.view[self.at - length : self.at]

    def number(self, length: int, *, signed: bool = False) -> int:
        return int.from_bytes(self.take(length), "little", signed=signed)

    def line(self) -> str:
        end = self.raw.find(b"\n", self.at, self.at + 256)
        if end < 0:
            raise _DamagedError("it has a name without an end")
        name = bytes(self.take(end + 1 - self.at))[:-1]
        return name.decode("ascii", "replace")

    def string(self, width: int) -> None:
        data = self.take(self.number(width))
        self.push(str(data, "latin-1") if len(data) <= SMALL else data)

    def text(self, width: int) -> None:
        data = self.take(self.number(width))
        if len(data) > SMALL:
            raise _DamagedError("it has a text of more than 65,536 bytes")
        self.push(str(data, "utf-8", "replace"))

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def top(self) -> Any:
        if not self.stack or self.stack[-1] is _MARK:
            raise _DamagedError("it takes more than it has put down")
        return self.stack[-1]

    def pop(self) -> Any:
        value = self.top()
        self.stack.pop()
        return value

    def since_mark(self) -> list[Any]:
        for place in range(len(self.stack) - 1, -1, -1):
            if self.stack[place] is _MARK:
                items = self.stack[place + 1 :]
                del self.stack[place:]
                return items
        raise _DamagedError("it takes more than it has put down")

    def expect(self, kind: type) -> Any:
        if type(value := self.top()) is not kind:
            raise _DamagedError("it fills what is no list and no dict")
        return value

    def fill(self, items: list[Any]) -> None:
        target = self.expect(dict)
        if len(items) % 2 or not all(type(key) is str for key in items[::2]):
            raise _DamagedError("it has a dict whose keys are not all text")
        target.update(zip(items[::2], items[1::2], strict=True))

    def recall(self, index: int) -> None:
        if index not in self.memo:
            raise _DamagedError("it takes more than it has put down")
        self.push(self.memo[index])

    def name(self, module: Any, name: Any) -> None:
        found = _GLOBALS.get((module, name)) if type(module) is str and type(name) is str else None
        if found is None:
            asked = f"`{module}.{name}`" if type(module) is str and type(name) is str else "what is no name"
            raise _DamagedError(f"it asks for {asked}; only an array of bytes is allowed")
        self.push(Global(found))


def _made(called: Any, arguments: Any) -> Any:
    """What numpy's two functions return for an array of bytes before its state is set."""
    match called, arguments:
        case Global("reconstruct"), (Global("ndarray"), (0,), str()):
            return Pickled()
        case Global("dtype"), ("u1", *flags) if all(flag in (0, 1) for flag in flags):
            return Bytes()
        case Global("dtype"), (str(kind), *_):
            raise _DamagedError(f"it has an array of `{kind}`, not of bytes (`u1`)")
    raise _DamagedError("it calls what is not to be called")


def _build(target: Any, state: Any) -> None:
    """An array's state: version, shape, dtype, whether it lies in columns, its bytes."""
    match target, state:
        case Bytes(), tuple():
            return
        case Pickled(), (int(), tuple(shape), Bytes(), bool(fortran), data) if all(type(n) is int for n in shape):
            data = data.encode("latin-1") if type(data) is str else data
            size = 1
            for length in shape[:8]:
                size *= length
            if len(shape) > 8 or min(shape, default=0) < 0 or not isinstance(data, memoryview | bytes):
                raise _DamagedError("it has an array that is none")
            if size != len(data):
                raise _DamagedError(f"it has an array of {plural(len(data), 'byte')} whose shape asks for {size:,}")
            target.shape, target.fortran, target.data = shape, fortran, data
        case _:
            raise _DamagedError("it has an array that is none")
