"""Output to terminals, pipes and full disks; interrupts."""

from __future__ import annotations

import re
import signal
import subprocess
import sys

import pytest

from tests.support.cli import run, run_process
from tests.support.thin import thinned

NUMBER = re.compile(r"(?<![\w.])[0-9]+\.?[0-9]*[KMG]?(?![\w.])")


@pytest.mark.parametrize(
    "command",
    ["verify resnet*", "compare cifar* --accuracy", "papers resnext", "info wrn_28_10", "profile preact_resnet200",
     *(pytest.param(command, marks=pytest.mark.slow) for command in ("verify", "compare --all --accuracy", "papers"))],
)  # fmt: skip
@pytest.mark.parametrize("width", thinned([80, 132], 2))
def test_nothing_is_cut_on_a_terminal_but_what_it_says_it_leaves_out(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    def terminal() -> Console:
        return Console(width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)

    piped = run(command).stdout
    monkeypatch.setattr("resnetcli.table.output.console", terminal)
    shown = run(command).stdout
    assert max(map(len, shown.splitlines())) <= width
    assert "hidden (terminal too narrow)" in shown or set(NUMBER.findall(piped)) <= set(NUMBER.findall(shown))


def test_nothing_is_cut_when_piped() -> None:
    result = run(["compare", "resnext101_32x4d", "resnext101_32x4d", "C=1", "d=100"], COLUMNS="30")
    assert "resnext101_32x4d C=1 d=100" in result.stdout


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m resnetcli compare vgg* --format json | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("{\n", "")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("list | head -1; exit ${PIPESTATUS[0]}", 141, ""),
        ("list >&-", 0, ""),
        ("list > /dev/full", 3, "No space left on device"),
        ("--help > /dev/full", 3, "No space left on device"),
        ("profile nothing 2> /dev/full", 2, ""),
        ("fmt - < /dev/zero", 2, "is larger than 64 KiB"),
        ("fmt - <&-", 2, "the file is empty"),
    ],
)
def test_a_stream_that_is_closed_or_full_or_endless_ends_in_an_exit_code(command: str, code: int, message: str) -> None:
    words = ["bash", "-c", f"{sys.executable} -m resnetcli {command}"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert bool(result.stderr) == bool(message)
    assert "Traceback" not in result.stderr


def heeds_interrupts() -> None:
    """As a shell starts its foreground jobs; those in the background, which may be us, are told to ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_quietly_with_130() -> None:
    child = subprocess.Popen([sys.executable, "-m", "resnetcli", "fmt", "-"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=heeds_interrupts)  # fmt: skip
    assert child.stdin is not None
    child.stdin.write("input: 3x32x32\n" * 100)
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=1.5)  # it waits for the rest
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in errors


def test_a_terminal_without_unicode_still_gets_its_table() -> None:
    result = run_process("show", "resnet18", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "conv2_x" in result.stdout
