"""A measurement in a process of its own: nothing that ran before is in its memory, caches or compilers.

`run` is the parent's side, `main` the child's: a pickled job on stdin, a pickled answer on stdout.
"""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.errors import ResourceError, UsageError
from resnetcli.measure.settings import Settings
from resnetcli.plan.plan import Plan

if TYPE_CHECKING:
    from resnetcli.measure.latency import Measurement

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


def run(job: Job, patience_s: float = PATIENCE_S) -> Measurement | str:
    """The measurement, or in one line why there is none; nothing that goes wrong in the child is raised here.

    What compilers keep on disk is new and thrown away, so that the time to compile is the time to compile.
    """
    with tempfile.TemporaryDirectory(prefix="resnetcli-") as cache:
        paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "TORCHINDUCTOR_CACHE_DIR": cache,
        }
        command = [sys.executable, "-P", "-c", "from resnetcli.measure.child import main; main()"]
        try:
            done = subprocess.run(
                command, input=pickle.dumps(job), capture_output=True, env=environment, timeout=patience_s, check=False
            )
        except subprocess.TimeoutExpired:
            return f"not done after {patience_s:.0f} s"
    if done.returncode == -signal.SIGKILL:
        return "killed by the system, most likely for want of memory"
    if done.returncode:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        name = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit code {done.returncode}"
        return ": ".join([f"its process ended with {name}", *last])
    answer: Measurement | str = pickle.loads(done.stdout)
    return answer


def answer(job: Job) -> Measurement | str:
    """The child's side of `run`."""
    from resnetcli.measure.latency import measure

    try:
        return measure(
            job.plan, settings=job.settings, device=job.device, batch=job.batch, time_budget_s=job.time_budget_s
        )
    except (UsageError, ResourceError) as error:
        return first_line(str(error).removeprefix("error: "))
    except MemoryError:
        return "out of memory"
    except Exception as error:  # whatever a compiler or a runtime thinks of; the ladder goes on without this rung
        return first_line(f"{type(error).__name__}: {error}")


def first_line(text: str) -> str:
    """Up to the first line's end."""
    return (text.strip().splitlines() or [""])[0]


def main() -> None:
    """Answers one job. Whatever libraries print goes to stderr, for stdout carries the answer."""
    with os.fdopen(os.dup(1), "wb") as out:
        os.dup2(2, 1)
        job: Job = pickle.load(sys.stdin.buffer)
        pickle.dump(answer(job), out)
