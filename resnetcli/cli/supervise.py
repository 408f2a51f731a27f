"""Run a command that executes user code in a supervised child process: an early exit is reported as an error."""

from __future__ import annotations

import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import FrameType

from resnetcli.cli.app import complain
from resnetcli.errors import signal_name

_DIE_WITH_PARENT = 1
"""Linux's PR_SET_PDEATHSIG."""


def code_in(words: Sequence[str]) -> list[str]:
    """The command-line arguments that name user code."""
    suspects = [word for word in words if ":" in word or ".pt" in word]
    if not suspects:
        return []
    from resnetcli.spec.reference import origin_of

    return [word for word in suspects if origin_of(word).runs_code]


def supervised(command: Callable[[], None], code: Sequence[str]) -> None:
    """Run a command in a child process, its stdout for results alone, and exit as it exits.

    The child reports when it has finished. An earlier exit (`os._exit`, a signal, a crash) is an error that names the
    code, with exit code 2, or 3 if the system killed the child. Threads and exit handlers that the code left behind
    end with the child.
    """
    import ctypes  # slow to import, and most commands run no user code

    from resnetcli.table.output import reserve_stdout

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
    signals: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        signals.append(number)
        os.kill(child, number)

    signal.signal(signal.SIGTERM, forward)
    _, how = os.waitpid(child, 0)
    os.set_blocking(reader, False)  # a process that the code started may hold the other end
    with suppress(BlockingIOError):
        if finished := os.read(reader, 1):
            sys.exit(finished[0])
    ended = os.waitstatus_to_exitcode(how)
    if ended == -signal.SIGTERM and signals:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
    names = " or ".join(f"`{name}`" for name in code)
    if ended == -signal.SIGKILL:
        complain(f"error: the system killed the process while it ran {names}, probably because memory ran out")
        sys.exit(3)
    cause = signal_name(-ended) if ended < 0 else f"exit code {ended}"
    complain(f"error: the code of {names} ended the process with {cause} before the command finished")
    sys.exit(2)


def _status_of(command: Callable[[], None]) -> int:
    status = 0
    try:
        command()
    except SystemExit as error:
        status = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        status = 1
    from resnetcli.table.output import stream

    for file in (stream(), sys.stderr):
        with suppress(OSError, ValueError):
            file.flush()
    return status
