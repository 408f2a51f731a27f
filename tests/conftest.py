"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import typer.testing
from hypothesis import settings

# Torchvision registers its compiled operations with torch there, and fails where those are of another build than torch.
# No model needs them.
sys.modules.setdefault("torchvision._meta_registrations", types.ModuleType("torchvision._meta_registrations"))

# Each xdist worker has one core: more threads than cores slow each other down.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Building the command line takes longer than most commands; cached until a test registers another command.
_built = cache(lambda app, callbacks: typer.main.get_command(app))


def _command_of(app: typer.Typer) -> Any:
    return _built(app, tuple(command.callback for command in app.registered_commands))


vars(typer.testing)["_get_command"] = _command_of

# Hypothesis draws the same examples every time, stores none, and has no deadline: the machine may be busy.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None, max_examples=30)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files; review the diff")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether to write golden files instead of comparing with them."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def same_threads() -> Iterator[None]:
    """Restore the number of CPU threads after a test."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(same_threads: None) -> None:
    """Use one CPU thread: several are slow on a busy machine."""
    import torch

    torch.set_num_threads(1)
