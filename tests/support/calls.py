"""Record the order in which a module calls its functions."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest


def calls_of(
    module: ModuleType, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...] = ("prepare", "read_environment")
) -> list[str]:
    """A list to which the names of the module's functions are added as they are called."""
    log: list[str] = []

    def logged(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            log.append(name)
            return work(*arguments, **more)

        return call

    for name in names:
        monkeypatch.setattr(module, name, logged(name, getattr(module, name)))
    return log
