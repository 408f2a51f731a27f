"""The pickles of CIFAR's Python version, read by a machine that can build nothing but lists, dicts, text and bytes.

They may have been pickled again by any Python and numpy, in protocols 0 to 5. Nothing is imported and nothing is
called: only the globals for numpy's arrays and scalars and for bytes are accepted, as names. Every size is checked
against the bytes left in the file before memory is allocated: Python's own unpickler, even with every global refused,
allocates gigabytes for a memo index of four bytes.
"""

from __future__ import annotations

import codecs
import re
import struct
from dataclasses import dataclass
from typing import Any, Final, Literal

from resnetcli.data.errors import DataError
from resnetcli.errors import plural

STEPS, BYTES_A_STEP = 10_000, 48
"""Maximum instructions: STEPS, plus one per BYTES_A_STEP. An image has 3 KB; its name and labels take 40 at most."""
SMALL = 2**16
"""Bytes up to which a string is text; the pixels are not copied."""

Word = Literal["reconstruct", "ndarray", "dtype", "frombuffer", "scalar", "encode", "bytes", "bytearray"]
_NUMPY: Final[dict[str, Word]] = {
    "multiarray._reconstruct": "reconstruct", "multiarray.scalar": "scalar", "numeric._frombuffer": "frombuffer",
}  # fmt: skip
_GLOBALS: dict[str, Word] = {
    **{f"numpy.core.{name}": word for name, word in _NUMPY.items()},
    **{f"numpy._core.{name}": word for name, word in _NUMPY.items()},  # since numpy 2
    "numpy.ndarray": "ndarray",
    "numpy.dtype": "dtype",
    "_codecs.encode": "encode",  # Python 3's bytes in protocols 0 to 2
    **{f"{module}.{name}": name for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
}
_KIND = re.compile("[iu][1248]|[SU][0-9]{1,5}")
"""Allowed dtypes: integers and text."""


@dataclass(frozen=True, slots=True)
class Global:
    """An accepted global."""

    what: Word


@dataclass(slots=True)
class Kind:
    """A numpy dtype."""

    name: str
    """`u1`."""
    order: str = "|"
    """Byte order, `<` or `>`."""

    @property
    def size(self) -> int:
        """Bytes per element."""
        return int(self.name[1:]) * (4 if self.name[0] == "U" else 1)


@dataclass(slots=True)
class Pickled:
    """A pickled array; numpy does not construct it."""

    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes | memoryview = b""
    kind: str = "u1"
    order: str = "|"


@dataclass(frozen=True, slots=True)
class _LongText:
    """A long text, decoded only if it encodes bytes."""

    data: memoryview
    encoding: str


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
        self.left = len(raw)
        """Bytes that may still be copied out of texts; bounds repeated references to one text."""

    def run(self) -> Any:
        for _ in range(STEPS + len(self.raw) // BYTES_A_STEP):
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
            case b"I":  # INT, of which two are the truth values
                digits = self.line()
                self.push(digits == "01" if digits in ("00", "01") else self.digits(digits))
            case b"L":  # LONG
                self.push(self.digits(self.line().removesuffix("L")))
            case b"G":  # BINFLOAT
                self.push(struct.unpack(">d", self.take(8))[0])
            case b"F":  # FLOAT
                try:
                    self.push(float(self.line()))
                except ValueError:
                    raise _DamagedError("it has an invalid number") from None
            case b"\x8a":  # LONG1
                length = self.number(1)
                if length > 8:
                    raise _DamagedError("it has a number of more than 64 bits")
                self.push(self.number(length, signed=True))
            case b"U" | b"C":  # SHORT_BINSTRING of Python 2, SHORT_BINBYTES
                self.string(1)
            case b"T" | b"B":  # BINSTRING, BINBYTES
                self.string(4)
            case b"\x8e" | b"\x96":  # BINBYTES8, BYTEARRAY8
                self.string(8)
            case b"S":  # STRING, as Python 2 would print it
                self.quoted(self.rest_of_line())
            case b"\x8c":  # SHORT_BINUNICODE
                self.text(1)
            case b"X":  # BINUNICODE
                self.text(4)
            case b"\x8d":  # BINUNICODE8
                self.text(8)
            case b"V":  # UNICODE
                self.push_text(self.rest_of_line(), "raw-unicode-escape")
            case b"p":  # PUT
                self.memo[self.index()] = self.top()
            case b"g":  # GET
                self.recall(self.index())
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
            case b"l":  # LIST
                self.push(self.since_mark())
            case b"d":  # DICT
                items = self.since_mark()
                self.push({})
                self.fill(items)
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
                self.push(self.made(self.pop(), arguments))
            case b"b":
                state = self.pop()
                self.build(self.top(), state)
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

    def rest_of_line(self) -> memoryview:
        end = self.raw.find(b"\n", self.at)
        if end < 0:
            raise _DamagedError("it has an unterminated text")
        return self.take(end + 1 - self.at)[:-1]

    def digits(self, text: str) -> int:
        if not re.fullmatch("-?[0-9]{1,20}", text):
            raise _DamagedError("it has an invalid number, or one of more than 64 bits")
        return int(text)

    def index(self) -> int:
        found = self.digits(self.line())
        if found < 0:
            raise _DamagedError("it takes more than it has put down")
        return found

    def string(self, width: int) -> None:
        self.push_bytes(self.take(self.number(width)))

    def quoted(self, line: memoryview) -> None:
        data = bytes(line).strip()
        if len(data) < 2 or data[:1] not in (b"'", b'"') or data[:1] != data[-1:]:
            raise _DamagedError("it has a string without quotes")
        try:
            self.push_bytes(codecs.escape_decode(data[1:-1])[0])
        except ValueError:
            raise _DamagedError("it has an invalid string") from None

    def push_bytes(self, data: bytes | memoryview) -> None:
        self.push(str(data, "latin-1") if len(data) <= SMALL else data)

    def text(self, width: int) -> None:
        self.push_text(self.take(self.number(width)), "utf-8")

    def push_text(self, data: memoryview, encoding: str) -> None:
        self.push(str(data, encoding, "replace") if len(data) <= SMALL else _LongText(data, encoding))

    def encoded(self, text: str | _LongText) -> str | bytes:
        """Bytes that were pickled as text, one character per byte; a short text stays a text."""
        try:
            if isinstance(text, str):
                text.encode("latin-1")
                return text
            self.spend(len(text.data))
            return str(text.data, text.encoding).encode("latin-1")
        except UnicodeError:
            raise _DamagedError("it has invalid bytes") from None

    def spend(self, size: int) -> None:
        """Count bytes about to be copied: few bytes referred to many times become many."""
        self.left -= size
        if self.left < 0:
            raise _DamagedError("it decodes more bytes than it has")

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
        both = f"{module}.{name}" if type(module) is str and type(name) is str else None
        found = _GLOBALS.get(both) if both is not None else None
        if found is None:
            asked = f"`{both}`" if both is not None else "a global that is not a name"
            raise _DamagedError(f"it asks for {asked}; only arrays of numbers or texts are allowed")
        self.push(Global(found))

    def made(self, called: Any, arguments: Any) -> Any:
        """The result of an allowed numpy or bytes function, never larger than its arguments."""
        match called, arguments:
            case Global("reconstruct"), (Global("ndarray"), (0,), str()):
                return Pickled()
            case Global("dtype"), (str(name), *flags) if _KIND.fullmatch(name) and all(
                flag in (0, 1) for flag in flags
            ):
                return Kind(name)
            case Global("dtype"), (str(name), *_):
                raise _DamagedError(f"it has an array of `{name}`, not of bytes (`u1`)")
            case Global("encode"), (str() | _LongText() as text, "latin1" | "latin-1"):
                return self.encoded(text)
            case Global("bytes" | "bytearray"), ():
                return ""
            case Global("bytearray"), (str() | bytes() | memoryview() as data,):
                return data
            case Global("scalar"), (Kind() as kind, str(data)) if len(data) == kind.size:
                self.spend(len(data))
                return _scalar(kind, data.encode("latin-1"))
            case Global("frombuffer"), (data, Kind() as kind, tuple(shape), "C" | "F" as order):
                return self.array(shape, kind, order == "F", data)
            case Global("frombuffer"), (data, Kind() as kind, tuple(shape), "K", (1, 0)) if len(shape) == 2:
                return self.array(shape[::-1], kind, True, data)
        raise _DamagedError("it calls a function that is not allowed")

    def build(self, target: Any, state: Any) -> None:
        """Set a dtype's byte order, or an array's state: version, shape, dtype, order, bytes."""
        match target, state:
            case Kind(), (int(), str(order), *_) if order in ("<", ">", "|", "="):
                target.order = order
            case Pickled(), (int(), tuple(shape), Kind() as kind, bool(fortran), data):
                found = self.array(shape, kind, fortran, data)
                target.shape, target.fortran, target.data = found.shape, found.fortran, found.data
                target.kind, target.order = found.kind, found.order
            case _:
                raise _DamagedError("it has an invalid array")

    def array(self, shape: tuple[Any, ...], kind: Kind, fortran: bool, data: Any) -> Pickled:
        if isinstance(data, str):
            self.spend(len(data))
            data = data.encode("latin-1")
        if (
            not isinstance(data, memoryview | bytes)
            or not all(type(n) is int and n >= 0 for n in shape)
            or len(shape) > 8
        ):
            raise _DamagedError("it has an invalid array")
        size = kind.size
        for length in shape:
            size *= length
        if size != len(data):
            raise _DamagedError(f"it has an array of {plural(len(data), 'byte')} whose shape needs {size:,}")
        return Pickled(shape, fortran, data, kind.name, kind.order)


def _scalar(kind: Kind, data: bytes) -> int | str:
    """A numpy scalar as a number or text."""
    order: Literal["big", "little"] = "big" if kind.order == ">" else "little"
    match kind.name[0]:
        case "S":
            return str(data, "latin-1")
        case "U":
            return str(data, "utf-32-be" if order == "big" else "utf-32-le", "replace")
        case sign:
            return int.from_bytes(data, order, signed=sign == "i")
