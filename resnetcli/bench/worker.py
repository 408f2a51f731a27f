"""A measurement in a process of its own: nothing that ran before is in its memory, caches or compilers.

`run` is the parent's side, `main` the child's: a pickled job on stdin, a pickled answer on stdout. Neither the child
nor what it starts outlives the parent.
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
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Literal

from resnetcli.bench.environment import STARTED_BY
from resnetcli.bench.settings import Settings
from resnetcli.errors import ResourceError, UsageError
from resnetcli.plan.plan import Plan

if TYPE_CHECKING:
    from resnetcli.bench.footprint import Footprint
    from resnetcli.bench.latency import Measurement

PATIENCE_S = 900.0
"""How long a child may take, the compiler included."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be measured."""

    plan: Plan
    settings: Settings
    device: str
    batch: int
    time_budget_s: float
    what: Literal["time", "memory"] = "time"


def remember(job: Job, patience_s: float = PATIENCE_S) -> Footprint | str:
    """What memory a process takes that does nothing but run the net, or in one line why nobody knows."""
    found: Footprint | str = _asked(replace(job, what="memory"), patience_s)
    return found


def run(job: Job, patience_s: float = PATIENCE_S) -> Measurement | str:
    """The measurement, or in one line why there is none; nothing that goes wrong in the child is raised here."""
    found: Measurement | str = _asked(replace(job, what="time"), patience_s)
    return found


def _asked(job: Job, patience_s: float) -> Any:
    _make_room(job.device)
    pipe = subprocess.PIPE
    with spawned("from resnetcli.bench.worker import main; main()", stdin=pipe, stdout=pipe, stderr=pipe) as child:
        try:
            answer, errors = child.communicate(pickle.dumps(job), timeout=patience_s)
        except subprocess.TimeoutExpired:
            return f"not done after {patience_s:.0f} s"
    if child.returncode or not answer:
        return how_it_ended(child.returncode, errors)
    return pickle.loads(answer)


def _make_room(device: str) -> None:
    """Gives back what PyTorch only keeps of a GPU for later: another process could not have it."""
    torch = sys.modules.get("torch")
    if torch is not None and device.startswith("cuda"):
        torch.cuda.empty_cache()


# --- processes ---------------------------------------------------------------------------------------------------


@contextmanager
def spawned(code: str, *, handles: Sequence[int] = (), **streams: Any) -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs some Python; `handles` are what it inherits, `streams` as Popen has them.

    It leads a group of processes, its compilers among them, that is killed on leaving, also by an exception, which
    SIGTERM is meanwhile; where this process is killed at once, the other one sees it and ends its group (`tied`). What
    compilers keep on disk is new and thrown away, so that the time to compile is the time to compile.
    """
    # Whatever was killed may be writing there still, for a moment.
    cache_folder = tempfile.TemporaryDirectory(prefix="resnetcli-", ignore_cleanup_errors=True)
    with _sigterm_raised(), cache_folder as cache:
        theirs, ours = os.pipe()
        with os.fdopen(ours, "wb"):
            try:
                process = subprocess.Popen(
                    [sys.executable, "-P", "-c", f"from resnetcli.bench.worker import tied; tied({theirs}); {code}"],
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
    """A child's: it finds this package, and compilers keep what they make in `cache`."""
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
        "TORCHINDUCTOR_CACHE_DIR": cache,
        STARTED_BY: str(os.getpid()),
    }


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """Within, SIGTERM raises SystemExit with 143, unless somebody listens already."""
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


def tied(handle: int) -> None:
    """In the process that was started: a thread that ends its group once the pipe's other end is closed."""

    def watch() -> None:
        os.read(handle, 1)  # nobody writes: it returns when who has started this process is no more
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def how_it_ended(code: int, errors: bytes) -> str:
    """In a line, why a process is no more; `errors` is what it wrote to stderr."""
    if code == -signal.SIGKILL:
        return "killed by the system, most likely for want of memory"
    last = errors.decode(errors="replace").strip().splitlines()[-1:]
    name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
    return ": ".join([f"its process ended with {name}", *last])


def answer(job: Job) -> Measurement | Footprint | str:
    """The child's side of `run` and of `remember`."""
    from resnetcli.bench.latency import measure, take_footprint

    try:
        if job.what == "memory":
            return take_footprint(job.plan, settings=job.settings, device=job.device, batch=job.batch)
        return measure(
            job.plan, settings=job.settings, device=job.device, batch=job.batch, time_budget_s=job.time_budget_s
        )
    except Exception as error:  # whatever a compiler or a runtime thinks of; the ladder goes on without this rung
        return in_a_line(error)


def in_a_line(error: Exception) -> str:
    """What went wrong."""
    if isinstance(error, UsageError | ResourceError):
        return first_line(str(error).removeprefix("error: "))
    return "out of memory" if isinstance(error, MemoryError) else first_line(f"{type(error).__name__}: {error}")


def first_line(text: str) -> str:
    """Up to the first line's end."""
    return (text.strip().splitlines() or [""])[0]


def main() -> None:
    """Answers one job. Whatever libraries print goes to stderr, for stdout carries the answer."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        job: Job = pickle.load(sys.stdin.buffer)
        pickle.dump(answer(job), out)
