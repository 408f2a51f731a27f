"""Parse numbers with units: `26M`, `4.2G`, `8GB`, `24GiB`, `30s`."""

from __future__ import annotations

import re
from decimal import Decimal

from resnetcli.errors import UsageError

_AMOUNT = re.compile(r"([0-9]{1,16}(?:\.[0-9]{1,16})?)\s*([A-Za-z]{0,3})")
_PREFIXES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40, "pi": 2**50}


def parse_whole(text: str, digits: int = 18) -> int | None:
    """Parse an integer of at most `digits` ASCII digits; None for any other text."""
    return int(text) if re.fullmatch(rf"\s*[+-]?[0-9]{{1,{digits}}}\s*", text) else None


def parse_count(text: str | int, what: str, such_as: str = "26M, 4.2G or 25557032") -> int:
    """Parse a count: `26M` is 26,000,000. Raises UsageError, with `what` as its subject."""
    return _parse(text, what, f"a whole number such as {such_as}", "")


def parse_bytes(text: str | int, what: str) -> int:
    """Parse a size in bytes: `8GB` is 8 x 10^9, `8GiB` is 8 x 2^30, `8G` is `8GB`. Raises UsageError about `what`."""
    if isinstance(text, str) and re.fullmatch(r"[1-9][0-9]{0,2}(\.[0-9]+)?", text.strip()):
        raise UsageError(f"{what}: `{text}` has no unit", f"`{text.strip()}GB`?")
    return _parse(text, what, "an amount of memory such as 8GB (10^9 bytes) or 8GiB (2^30)", "b")


MAX_TIME_S = 86_400
_TIMES = {"": 1.0, "s": 1.0, "ms": 1e-3, "min": 60.0, "h": 3600.0}


def parse_duration(text: str, what: str) -> float:
    """Parse a time in seconds: `30s`, `2min`, `500ms`, `30`; 10 ms to one day. Raises UsageError about `what`."""
    match = _AMOUNT.fullmatch(text.strip())
    unit = _TIMES.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"{what}: `{text}` is not a time", "for example 30s, 2min or 500ms")
    seconds = float(match[1]) * unit
    if not 0.01 <= seconds <= MAX_TIME_S:
        raise UsageError(f"{what}: `{text}` is out of range", "from 10ms to 24h")
    return seconds


def parse_batches(text: str, what: str = "--batch-size") -> tuple[int, ...]:
    """Parse batch sizes, without repetitions: `8`, `1,8,64`. Raises UsageError about `what`."""
    numbers: dict[int, None] = {}
    for word in text.split(","):
        number = parse_whole(word, 12)
        if number is None:
            raise UsageError(
                f"{what}: `{word.strip()}` is not a batch size",
                "for example 8, or 1,8,64",
            )
        numbers[number] = None
    return tuple(numbers)


def _parse(amount: str | int, what: str, hint: str, unit: str) -> int:
    text = str(amount)
    match = _AMOUNT.fullmatch(text.strip())
    word = match[2].lower().removesuffix(unit) if match else ""
    factor = _PREFIXES.get(word) or (_BINARY.get(word) if unit else None)
    if match is None or factor is None:
        raise UsageError(f"{what}: `{text}` is not an amount", hint)
    value = Decimal(match[1]) * factor
    if value < 1:
        raise UsageError(f"{what}: `{text}` is less than one", hint)
    if not unit and value % 1:
        raise UsageError(f"{what}: `{text}` is not a whole number", hint)
    return int(value)
