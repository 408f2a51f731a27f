"""Every UsageError that the package raises has a hint."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import resnetcli

PACKAGE = Path(resnetcli.__file__).parent


def without_hint(source: str) -> Iterator[int]:
    """Lines of the calls of `UsageError` with the message only, or with an empty hint."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or ast.unparse(node.func).rpartition(".")[2] != "UsageError":
            continue
        if any(isinstance(argument, ast.Starred) for argument in node.args):
            continue  # message and hint of an option, in `bench.options`
        hints = [*node.args[1:], *(keyword.value for keyword in node.keywords if keyword.arg == "hint")]
        if not hints or (isinstance(hints[0], ast.Constant) and not hints[0].value):
            yield node.lineno


def test_errors_without_a_hint_are_detected() -> None:
    source = "UsageError('a')\nUsageError('a', 'b')\nUsageError('a', hint='b')\nerrors.UsageError('a', '')\n"
    assert list(without_hint(source)) == [1, 4]


def test_every_usage_error_has_a_hint() -> None:
    missing = [
        f"{file.relative_to(PACKAGE)}:{line}"
        for file in sorted(PACKAGE.rglob("*.py"))
        for line in without_hint(file.read_text(encoding="utf-8"))
    ]
    assert missing == []
