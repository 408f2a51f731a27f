"""The pickles of CIFAR's Python version, read by Python's own unpickler reduced to lists, dicts, texts and arrays.

They may have been pickled again by any Python and numpy, in protocols 0 to 5. Nothing is imported, and the only
functions called are those below, which stand in for numpy's arrays and scalars and for bytes. Instructions, memo and
copies are bounded. The unpickler is the one written in Python, for the one in C allocates gigabytes for a memo index
of four bytes.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from resnetcli.data.errors import DataError
from resnetcli.errors import plural

STEPS, BYTES_PER_STEP = 10_000, 48
"""Maximum instructions: STEPS, plus one per BYTES_PER_STEP. An image has 3 KB; its name and labels take 40 at most."""
MAX_TEXT = 256
"""Characters of a key or a name."""
_KIND = re.compile("[iu][1248]|[SU][0-9]{1,5}")
"""Allowed dtypes: integers and text."""
_NDARRAY = object()
"""Stands for numpy's class, which is only ever an argument."""
_STAND_INS = {
    **{f"numpy.{core}.multiarray._reconstruct": "reconstruct" for core in ("core", "_core")},  # `_core` since numpy 2
    **{f"numpy.{core}.multiarray.scalar": "scalar" for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": "frombuffer" for core in ("core", "_core")},
    **{f"{module}.{name}": "as_bytes" for module in ("builtins", "__builtin__") for name in ("bytes", "bytearray")},
    "numpy.dtype": "dtype",
    "_codecs.encode": "as_bytes",  # Python 3's bytes in protocols 0 to 2
}
"""The method that stands in for each allowed function."""
_AS_PYTHON = (
    "PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1 FLOAT BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST "
    "APPEND APPENDS EMPTY_DICT EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 PUT BINPUT LONG_BINPUT MEMOIZE GET BINGET "
    "LONG_BINGET GLOBAL STACK_GLOBAL REDUCE"
)
_OVERRIDDEN = "BYTEARRAY8 SETITEM SETITEMS DICT BUILD"
"""The allowed instructions: those executed by Python's unpickler, and those executed by the one below."""


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
    data: bytes = b""
    kind: str = "u1"
    order: str = "|"


class _RefusedError(Exception):
    """Why the bytes are not a pickle of that kind."""


def unpickle(raw: bytes, label: str) -> Any:
    """The pickled value: numbers, str, bytes, lists, tuples, dicts with str keys, and `Pickled` arrays.

    Raises DataError if it is damaged or asks for anything else.
    """
    reason = "it is damaged"
    try:
        return _Unpickler(raw).load()
    except _RefusedError as error:
        reason = str(error)
    except EOFError:
        reason = "it is truncated"
    except (
        pickle.UnpicklingError, struct.error, ValueError, TypeError, LookupError, AttributeError, OverflowError
    ):  # fmt: skip
        pass
    raise DataError(f"`{label}` is not a pickled CIFAR batch: {reason}")


class _Unpickler(pickle._Unpickler):
    """Python's unpickler with a list of allowed instructions and functions, and bounds for what they take."""

    stack: list[Any]
    append: Callable[[Any], None]
    read: Callable[[int], bytes]
    pop_mark: Callable[[], list[Any]]

    def __init__(self, raw: bytes) -> None:
        super().__init__(io.BytesIO(raw), encoding="bytes")
        self.memo = _Memo()
        self.dispatch = _Dispatch(STEPS + len(raw) // BYTES_PER_STEP)  # type: ignore[misc, assignment]
        self.budget = len(raw)
        """Bytes that may be copied out of others: a few bytes referred to many times would become many."""

    def spend(self, size: int) -> None:
        self.budget -= size
        if self.budget < 0:
            raise _RefusedError("it decodes more bytes than it has")

    # --- instructions that Python's unpickler executes without the checks needed here

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))  # Python allocates before it reads

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.fill([key, value])

    def load_setitems(self) -> None:
        self.fill(self.pop_mark())

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self.fill(items)

    def fill(self, items: list[Any]) -> None:
        """Keys are short texts: the hash of nested tuples overflows the stack, those of numbers can be made equal."""
        target = self.stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise _RefusedError("it fills something that is not a dict")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_short_text(key)] = value

    def load_build(self) -> None:
        """Set a dtype's byte order, or an array's state: version, shape, dtype, order, bytes."""
        state = self.stack.pop()
        match self.stack[-1], state:
            case Kind() as kind, (int(), order, *_) if (text := _short_text(order)) in ("<", ">", "|", "="):
                kind.order = text
            case Pickled(), (int(), tuple(shape), Kind() as kind, bool(fortran), data):
                built = self.array(shape, kind, fortran, data)
                for field in Pickled.__slots__:  # in place: others may refer to it already
                    setattr(self.stack[-1], field, getattr(built, field))
            case _:
                raise _RefusedError("it has an invalid array")

    # --- functions

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global. Nothing is imported."""
        full = f"{module}.{name}"
        if full == "numpy.ndarray":
            return _NDARRAY
        if full not in _STAND_INS:
            raise _RefusedError(f"it asks for `{full[:80]}`; only arrays of numbers or texts are allowed")
        return getattr(self, _STAND_INS[full])

    def reconstruct(self, cls: object, shape: object, kind: object) -> Pickled:
        """An empty array, whose state follows."""
        return Pickled() if cls is _NDARRAY and shape == (0,) else _refuse_call()

    def dtype(self, name: object, *flags: object) -> Kind:
        text = _short_text(name)
        if not _KIND.fullmatch(text):
            raise _RefusedError(f"it has an array of `{text}`, not of bytes (`u1`)")
        return Kind(text)

    def as_bytes(self, data: object = b"", encoding: object = "latin1") -> bytes:
        """`bytes()`, `bytearray(data)`, or bytes that were pickled as text, one character per byte."""
        if isinstance(data, bytes):
            return data
        if not isinstance(data, str) or encoding not in ("latin1", "latin-1"):
            _refuse_call()
        self.spend(len(data))
        return data.encode("latin-1")

    def scalar(self, kind: object, data: object) -> int | str:
        """A numpy scalar as a number or text."""
        if not isinstance(kind, Kind) or not isinstance(data, bytes) or len(data) != kind.size:
            _refuse_call()
        self.spend(len(data))
        order: Literal["big", "little"] = "big" if kind.order == ">" else "little"
        match kind.name[0]:
            case "S":
                return str(data, "latin-1")
            case "U":
                return str(data, "utf-32-be" if order == "big" else "utf-32-le", "replace")
            case sign:
                return int.from_bytes(data, order, signed=sign == "i")

    def frombuffer(self, data: object, kind: object, shape: object, order: object, axes: object = None) -> Pickled:
        if not isinstance(kind, Kind) or not isinstance(shape, tuple):
            _refuse_call()
        if order == "K" and axes == (1, 0) and len(shape) == 2:
            return self.array(shape[::-1], kind, True, data)
        return self.array(shape, kind, order == "F", data) if order in ("C", "F") and axes is None else _refuse_call()

    def array(self, shape: tuple[Any, ...], kind: Kind, fortran: bool, data: object) -> Pickled:
        if not isinstance(data, bytes) or not all(type(n) is int and 0 <= n < 2**32 for n in shape) or len(shape) > 8:
            raise _RefusedError("it has an invalid array")
        size = kind.size * math.prod(shape)
        if size != len(data):
            raise _RefusedError(f"it has an array of {plural(len(data), 'byte')} whose shape needs {size:,}")
        return Pickled(shape, fortran, data, kind.name, kind.order)


_EXECUTED: dict[int, Callable[[Any], None]] = {
    **{getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _AS_PYTHON.split()},
    **{getattr(pickle, name)[0]: getattr(_Unpickler, f"load_{name.lower()}") for name in _OVERRIDDEN.split()},
}


class _Dispatch:
    """The allowed instructions by their codes, executed at most so many times."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def __getitem__(self, code: int) -> Callable[[Any], None]:
        self.steps -= 1
        if self.steps < 0:
            raise _RefusedError("it takes too many instructions")
        if code not in _EXECUTED:
            raise _RefusedError(f"it asks for instruction 0x{code:02x}, which arrays and lists do not need")
        return _EXECUTED[code]


class _Memo(dict[int, Any]):
    """Indices as pickle writes them: larger ones can be chosen to have equal hashes."""

    def __setitem__(self, index: int, value: Any) -> None:
        if index >= 2**32:
            raise _RefusedError("it has an invalid memo index")
        super().__setitem__(index, value)


def _short_text(value: object) -> str:
    """A key or a name as text, which Python 2 pickled as bytes."""
    text = str(value, "latin-1") if isinstance(value, bytes) and len(value) <= MAX_TEXT else value
    if type(text) is not str or len(text) > MAX_TEXT:
        raise _RefusedError("it has a key or a name that is not a short text")
    return text


def _refuse_call() -> NoReturn:
    raise _RefusedError("it calls a function that is not allowed")
