"""Long lists of cases: some run by default, the others as slow tests."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def thinned(cases: Iterable[Any], every: int) -> list[Any]:
    """Cases for `parametrize`: one in `every` by default, the others marked slow."""
    return [
        case if not index % every else pytest.param(*(case if type(case) is tuple else (case,)), marks=pytest.mark.slow)
        for index, case in enumerate(cases)
    ]
