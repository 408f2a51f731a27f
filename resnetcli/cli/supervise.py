"""A command that runs a user's code, in a process that is watched: whatever ends it early is an error, not silence."""

from __future__ import annotations

import ctypes
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from resnetcli.cli.app import complain

_DIE_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""


def code_in(words: Sequence[str]) -> list[str]:
    """The words of a command line that name a user's code."""
    suspects = [word for word in words if ":" in word or ".pt" in word]
    if not suspects:
        return []
    from resnetcli.spec.zoo import runs_code

    return [word for word in suspects if runs_code(word)]


def supervised(command: Callable[[], None], code: Sequence[str]) -> None:
    """Run a command in a child process, its stdout for results alone, and exit as it exits.

    The child says when it has finished. If it ends before, by `os._exit`, a signal or a crash, that is an error with
    exit code 2 that names the code; 3 where the system has killed it. Threads and exit handlers that the code has
    left behind end with the child.
    """
    from resnetcli.view.output import reserve_stdout

    if not hasattr(os, "fork") or not isinstance(sys.stdout, io.TextIOWrapper):  # within another program
        command()
        return
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    child = os.fork()  # before torch is imported: this process has one thread
    if child == 0:
        os.close(reader)
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        reserve_stdout()
        status = _status_of(command)
        with suppress(OSError):
            os.write(writer, bytes([status]))
        os._exit(status)
    os.close(writer)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to both
    told: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        told.append(number)
        os.kill(child, number)

    signal.signal(signal.SIGTERM, forward)
    _, how = os.waitpid(child, 0)
    os.set_blocking(reader, False)  # what the code has started may hold the other end
    with suppress(BlockingIOError):
        if finished := os.read(reader, 1):
            sys.exit(finished[0])
    ended = os.waitstatus_to_exitcode(how)
    if ended == -signal.SIGTERM and told:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    names = " or ".join(f"`{each}`" for each in code)
    if ended == -signal.SIGKILL:
        complain(f"error: killed by the system while it ran {names}, most likely for want of memory")
        sys.exit(3)
    cause = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
    complain(f"error: the code of {names} ended the process with {cause} before there was a result")
    sys.exit(2)


def _status_of(command: Callable[[], None]) -> int:
    status = 0
    try:
        command()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        traceback.print_exc()
        status = 1
    from resnetcli.view.output import stream

    for each in (stream(), sys.stderr):
        with suppress(OSError, ValueError):
            each.flush()
    return status
