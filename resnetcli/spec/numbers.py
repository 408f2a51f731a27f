"""Parse numbers: `(depth-2)/6`, `0.5`, `25.5M`; exactly, without `eval`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Never

from resnetcli.errors import did_you_mean

MAX_LENGTH = 80
"""Characters of an expression; also bounds the depth of its brackets."""
MAX_VALUE = 10**12

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_DECIMAL = re.compile(r"[0-9]{1,16}(\.[0-9]{1,20})?(e[-+]?[0-9]{1,2})?")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_TOKEN = re.compile(r"[0-9]+|[A-Za-z_][A-Za-z0-9_]*|[-+*/()]")


class NumberError(Exception):
    """An expression that is not a whole number."""

    def __init__(self, message: str, hint: str = "", *, fraction: bool = False) -> None:
        super().__init__(message)
        self.message, self.hint, self.fraction = message, hint, fraction


def names_in(text: str) -> list[str]:
    """The names an expression uses, in order."""
    return NAME.findall(text)


def decimal(text: str) -> float | None:
    """Parse a non-negative decimal number, `0.5`, `1e-3`; None for other text."""
    return float(text) if _DECIMAL.fullmatch(text) else None


def printed_figure(digits: str, unit: str) -> tuple[Decimal, Decimal]:
    """A published figure and the unit of its last digit: `25.5`, `M` -> 25500000, 100000."""
    value = Decimal(digits)
    return value * _UNITS[unit], Decimal(1).scaleb(int(value.as_tuple().exponent)) * _UNITS[unit]


def evaluate_expression(text: str, names: Mapping[str, int]) -> int:
    """The value of an expression of whole numbers, `names`, + - * / and brackets.

    Raises NumberError for anything else, for an unknown name, a division with a remainder, or an enormous value.
    """
    if text.isdecimal() and text.isascii() and len(text) < 12:  # nearly all of them
        return int(text)
    if text in names:
        return names[text]
    return _Reader(text, names).read()


class _Reader:
    """Recursive descent; evaluates as it reads."""

    def __init__(self, text: str, names: Mapping[str, int]) -> None:
        if len(text) > MAX_LENGTH:
            raise NumberError(f"an expression of {len(text)} characters", f"at most {MAX_LENGTH} are allowed")
        self.text, self.names = text, names
        self.tokens: list[str] = []
        place = 0
        while place < len(text):
            match = _TOKEN.match(text, place)
            if match is None:
                raise NumberError(
                    f"`{text}` is not a number: `{text[place]}` is not allowed in it",
                    "numbers are whole; they may use names from `let:` and + - * / ( ), without spaces",
                )
            self.tokens.append(match.group())
            place = match.end()
        self.place = 0

    def read(self) -> int:
        value = self.sum()
        if self.place < len(self.tokens):
            self.unexpected()
        return value

    def peek(self) -> str:
        return self.tokens[self.place] if self.place < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.place += 1
        return token

    def unexpected(self) -> Never:
        token = self.peek()
        reason = f"unexpected `{token}`" if token else "it is incomplete"
        raise NumberError(f"`{self.text}` is not a number: {reason}", "for example `16*k` or `(depth-2)/6`")

    def bounded(self, value: int) -> int:
        if abs(value) > MAX_VALUE:
            raise NumberError(f"`{self.text}` is larger than {MAX_VALUE:,}")
        return value

    def sum(self) -> int:
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = 1 if self.take() == "+" else -1
            value = self.bounded(value + sign * self.product())
        return value

    def product(self) -> int:
        value = self.atom()
        while self.peek() in ("*", "/"):
            if self.take() == "*":
                value = self.bounded(value * self.atom())
                continue
            divisor = self.atom()
            if divisor == 0:
                raise NumberError(f"`{self.text}` divides by zero")
            if value % divisor:
                rest = f"{value}/{divisor}"
                detail = "" if rest == self.text else f": {rest}"
                raise NumberError(f"`{self.text}` is not a whole number{detail}", fraction=True)
            value //= divisor
        return value

    def atom(self) -> int:
        token = self.peek()
        if token == "-":
            self.take()
            return -self.atom()
        if token == "(":
            self.take()
            value = self.sum()
            if self.peek() != ")":
                self.unexpected()
            self.take()
            return value
        if token.isdigit():
            self.take()
            return self.bounded(int(token))
        if NAME.fullmatch(token):
            self.take()
            if token not in self.names:
                known = f"names known here: {', '.join(self.names)}; `let:` declares others"
                raise NumberError(f"unknown name `{token}`", did_you_mean(token, self.names, known))
            return self.names[token]
        return self.unexpected()
