"""What every test may rely on."""

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

# Test processes side by side have a core each: threads that wait for one another would take turns on it.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# Building the command line takes longer than most commands; it is the same until a test registers another command.
_built = cache(lambda app, callbacks: typer.main.get_command(app))


def _command_of(app: typer.Typer) -> Any:
    return _built(app, tuple(each.callback for each in app.registered_commands))


vars(typer.testing)["_get_command"] = _command_of

# A test draws the same examples every time, keeps none, and is not timed by a machine that others use too.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write the golden files anew; review them as a diff")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be written and not compared."""
    return bool(request.config.getoption("--update-golden"))


@pytest.fixture
def same_threads() -> Iterator[None]:
    """As many CPU threads after a test as before it, whatever it has asked for."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def one_thread(same_threads: None) -> None:
    """Threads that wait for each other are slow where other programs run."""
    import torch

    torch.set_num_threads(1)
