"""Run a command of the package, in this process or in a separate one, and compare its output with a golden file."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.testing

from resnetcli.cli.main import app

GOLDEN = Path(__file__).parents[1] / "cli" / "golden"


def run(command: str | list[str], **env: str) -> typer.testing.Result:
    """Run a command in this process, as if its output were piped."""
    words = command.split() if isinstance(command, str) else command
    environment = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "GITHUB_ACTIONS": "", **env}
    return typer.testing.CliRunner().invoke(app, words, env=environment, prog_name="resnet-cli")


def run_process(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a separate process."""
    command = [sys.executable, "-m", "resnetcli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env})


def check_golden(name: str, text: str, pytestconfig: pytest.Config) -> None:
    path = GOLDEN / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
