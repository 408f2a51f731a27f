"""A measurement in a separate process: nothing that ran before is in its memory, caches or compilers.

`run` is the parent's side, `run_worker` the child's: a pickled job on stdin, a pickled answer on stdout. Neither the
child nor its own children outlive the parent.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from resnetcli.bench.environment import STARTED_BY
from resnetcli.bench.options import RunOptions
from resnetcli.errors import ResourceError, UsageError, first_line, signal_name
from resnetcli.frozen import frozen
from resnetcli.plan.plan import Plan

if TYPE_CHECKING:
    from resnetcli.bench.footprint import Footprint
    from resnetcli.bench.latency import Measurement

TIMEOUT_S = 900.0
"""How long a child may take, the compiler included."""


@frozen
class Job:
    """One measurement: a model, its options, device, batch size and time budget."""

    plan: Plan
    options: RunOptions
    device: str
    batch_size: int
    time_budget_s: float
    figure: Literal["time", "memory"] = "time"


def measure_memory(job: Job, timeout_s: float = TIMEOUT_S) -> Footprint | str:
    """The memory of a process that only runs the model, or in one line why it is unknown."""
    outcome: Footprint | str = _submit(replace(job, figure="memory"), timeout_s)
    return outcome


def run(job: Job, timeout_s: float = TIMEOUT_S) -> Measurement | str:
    """The measurement, or in one line why there is none; errors of the child are not raised here."""
    outcome: Measurement | str = _submit(replace(job, figure="time"), timeout_s)
    return outcome


def _submit(job: Job, timeout_s: float) -> Any:
    _free_cached_memory(job.device)
    pipe = subprocess.PIPE
    code = "from resnetcli.bench.worker import run_worker; run_worker()"
    with spawned(code, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            answer, errors = child.communicate(pickle.dumps(job), timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return f"not done after {timeout_s:.0f} s"
    if child.returncode or not answer:
        return exit_reason(child.returncode, errors)
    return pickle.loads(answer)


def _free_cached_memory(device: str) -> None:
    """Return GPU memory that PyTorch only caches: another process could not allocate it."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda"):
        torch.cuda.empty_cache()


# --- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def spawned(code: str, *, handles: Sequence[int] = (), **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """Context manager: a process that runs Python code; it inherits `handles`, `streams` are Popen's.

    It leads a process group, which includes its compilers and is killed on leaving, also by an exception; SIGTERM
    raises one meanwhile. If this process is killed, the other one notices and ends its group (`exit_with_parent`).
    Compilers' caches on disk are new and deleted afterwards, so that the time to compile is really measured.
    """
    # A process that was killed may still write there for a moment.
    cache_folder = tempfile.TemporaryDirectory(prefix="resnetcli-", ignore_cleanup_errors=True)
    with _sigterm_raised(), cache_folder as cache:
        theirs, ours = os.pipe()
        tie = "from resnetcli.bench.worker import exit_with_parent"
        with os.fdopen(ours, "wb"):
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", f"{tie}; exit_with_parent({theirs}); {code}"],
                    env=environment(cache), pass_fds=[theirs, *handles], start_new_session=True, **streams,
                )  # fmt: skip
            finally:
                os.close(theirs)
            with process:
                try:
                    yield process
                finally:
                    with suppress(ProcessLookupError, PermissionError):  # of a group that is over, by the system
                        os.killpg(process.pid, signal.SIGKILL)


def environment(cache: str) -> dict[str, str]:
    """A child's environment: it finds this package, and compilers keep their results in `cache`."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TORCHINDUCTOR_CACHE_DIR": cache,
        STARTED_BY: str(os.getpid()),
    }


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Context manager: SIGTERM raises SystemExit with 143, unless a handler is installed already."""
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def exit_with_parent(handle: int) -> None:
    """Start a thread that kills the process group once the other end of the pipe is closed."""

    def watch() -> None:
        os.read(handle, 1)  # nothing is written: it returns when the parent has ended
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def exit_reason(code: int, errors: bytes) -> str:
    """Why a process ended, in one line; `errors` is its stderr."""
    if code == -signal.SIGKILL:
        return "killed by the system, most likely because memory ran out"
    last = errors.decode(errors="replace").strip().splitlines()[-1:]
    name = signal_name(-code) if code < 0 else f"exit code {code}"
    return ": ".join([f"its process ended with {name}", *last])


def execute(job: Job) -> Measurement | Footprint | str:
    """The child's side of `run` and of `measure_memory`."""
    from resnetcli.bench.latency import measure, measure_footprint

    try:
        if job.figure == "memory":
            return measure_footprint(job.plan, options=job.options, device=job.device, batch_size=job.batch_size)
        return measure(
            job.plan, options=job.options, device=job.device, batch_size=job.batch_size, time_budget_s=job.time_budget_s
        )
    except Exception as error:  # compilers and runtimes raise anything; a search continues without this trial
        return one_line(error)


def one_line(error: Exception) -> str:
    """The error's message in one line."""
    if isinstance(error, UsageError | ResourceError):
        return first_line(str(error).removeprefix("error: "))
    return "out of memory" if isinstance(error, MemoryError) else first_line(f"{type(error).__name__}: {error}")


def run_worker() -> None:
    """Run one job. Output of libraries goes to stderr: stdout carries the answer."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        job: Job = pickle.load(sys.stdin.buffer)
        pickle.dump(execute(job), out)
