"""`--gpus N`: start N data-parallel processes on this machine, with the environment that `torchrun` would give them.

Importing this module does not import torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from resnetcli.bench.environment import own_processors
from resnetcli.errors import ResourceError, UsageError, first_line, plural, signal_name
from resnetcli.frozen import frozen
from resnetcli.train.stop import NUMBERS

MAX_WORLD = 65_536
ON_CPUS = "for CPUs: `torchrun --nproc-per-node 2 -m resnetcli train-cifar … --device cpu`"
HINT = "start the command with `torchrun`"
PARENT = "RESNET_CLI_PARENT"
"""Environment variable: the process that started this one."""
GRACE_S = 15.0
"""Time the other processes have to detect and report a failed one."""
CHECKPOINT_S = 30.0
"""Time they then have, after a SIGTERM, to save a checkpoint."""
REPEAT_S = 3.0
"""Signals within this time count as one, which has arrived several times."""
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


@frozen
class Rank:
    """This process among the data-parallel ones."""

    rank: int
    world: int
    local_rank: int
    """Rank among the processes of this machine, and index of the GPU."""


def read_rank(environment: Mapping[str, str]) -> Rank | None:
    """The rank that `torchrun` gave this process; None if it is the only one.

    Raises UsageError for an incomplete environment.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = environment.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 8):
            raise UsageError(f"`{name}` in the environment is `{text}`, not a number", HINT)
        numbers[name] = int(text)
    rank, world, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
    if not rank < world <= MAX_WORLD:
        raise UsageError(
            f"the environment sets rank {rank} of {plural(world, 'process', 'processes')}",
            HINT,
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if world > 1 and not environment.get(name):
            raise UsageError(f"`{name}` is not set in the environment", HINT)
    return Rank(rank, world, local_rank) if world > 1 else None


def require_gpus(number: int, device: str | None) -> None:
    """Raise UsageError unless this machine has that many GPUs and `--device` selects GPUs."""
    if number < 1:
        raise UsageError(f"`--gpus {number}` is out of range", "at least 1")
    if device not in (None, "cuda"):
        raise UsageError(
            f"`--gpus {number}` cannot be used with `--device {device}`",
            ON_CPUS if device == "cpu" else "omit `--device`",
        )
    import torch

    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number > available:
        reason = f"this machine has {available}" if available else "PyTorch finds no GPU"
        hint = f"at most `--gpus {available}`; `CUDA_VISIBLE_DEVICES` may hide some" if available else ON_CPUS
        raise UsageError(f"`--gpus {number}`: {reason}", hint)


def drop_gpus_option(words: Sequence[str]) -> list[str]:
    """The words of a command line without `--gpus N`."""
    others, skip = [], False
    for word in words:
        if not skip and word != "--gpus" and not word.startswith("--gpus="):
            others.append(word)
        skip = word == "--gpus" and not skip
    return others


# --- the processes -------------------------------------------------------------------------------------------------


@dataclass
class ProcessJob:
    """Processes that end together: when one fails, the others are ended too."""

    processes: list[subprocess.Popen[bytes]]
    say: Callable[[str], object]
    grace_s: float = GRACE_S
    checkpoint_s: float = CHECKPOINT_S
    clock: Callable[[], float] = time.monotonic
    signal: int = 0
    """The signal that was passed on; 0 if none was."""
    _signalled: float = 0.0
    _reported: set[int] = field(default_factory=set)

    def wait(self) -> int:
        """Wait until all have ended; returns the exit code of the job."""
        failed: float | None = None
        terminating = False
        with self._forward_signals():
            while any(process.poll() is None for process in self.processes):
                now = self.clock()
                if failed is None and any(process.poll() for process in self.processes):
                    failed = now
                    self._report_killed()
                if failed is not None and not terminating and now - failed > self.grace_s:
                    self._send(signal.SIGTERM)
                    terminating = True
                if failed is not None and now - failed > self.grace_s + self.checkpoint_s:
                    self._send(signal.SIGKILL)
                time.sleep(POLL_S)
            self._report_killed()
        return self._code()

    def kill(self) -> None:
        """Kill the processes that are still running."""
        self._send(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def _code(self) -> int:
        """Exit code of rank 0 if it failed, 0 if none failed, else that of the signal passed on, or 3."""
        codes = [process.returncode for process in self.processes]
        if codes[0] > 0:
            return codes[0]
        if not any(codes):
            return 0
        return 128 + self.signal if self.signal else 3

    def _report_killed(self) -> None:
        """Report processes that were killed, which could not report it themselves."""
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if (
                code is not None
                and code < 0
                and -code not in (self.signal, signal.SIGTERM)
                and rank not in self._reported
            ):
                self._reported.add(rank)
                cause = ", probably because memory ran out" if -code == signal.SIGKILL else ""
                self.say(f"error: rank {rank} was ended by {signal_name(-code)}{cause}")

    def _send(self, number: int) -> None:
        for process in self.processes:
            with suppress(OSError):  # it has just ended
                process.send_signal(number)

    @contextmanager
    def _forward_signals(self) -> Iterator[None]:
        """Context manager: pass SIGINT, SIGTERM and SIGHUP on; a second signal kills the processes."""
        numbers = [
            number for number in NUMBERS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN
        ]
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._signalled = number, self.clock()
            self._send(number)
        elif self.clock() - self._signalled > REPEAT_S:
            self._send(signal.SIGKILL)


def launch(command: Sequence[str], world: int, say: Callable[[str], object]) -> int:
    """Start the command `world` times on this machine and wait; returns the exit code of the job.

    Raises ResourceError if the processes cannot be started.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is, though not by name

    try:  # in this process, so that the port is free and the store ends with the job
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise ResourceError(f"no free port for the processes: {first_line(error)}") from None
    job = ProcessJob([], say)
    try:
        for rank in range(world):
            environment = {**os.environ, **rank_environment(rank, world, store.port)}
            # In a separate session, so that Ctrl-C arrives once, from here.
            job.processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
            )
        return job.wait()
    except OSError as error:
        raise ResourceError(f"the processes could not be started: {error.strerror or error}") from None
    finally:
        job.kill()


def rank_environment(rank: int, world: int, port: int) -> dict[str, str]:
    """The environment of a process, as `torchrun` sets it."""
    threads = max(1, len(own_processors()) // world)
    package = str(Path(__file__).resolve().parents[2])
    variables = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)), PARENT: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", "")))),
    }  # fmt: skip
    if sys.platform == "linux":  # the machine may not be reachable by the address of its own name
        variables["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return variables


def own_command(words: Sequence[str]) -> list[str]:
    """The command line that runs this program with other arguments."""
    return [sys.executable, "-P", "-c", "from resnetcli.cli.main import main; main()", *words]


def end_with_parent() -> None:
    """Have the system terminate this process when the one that started it ends, for any reason."""
    parent = os.environ.get(PARENT, "")
    if sys.platform != "linux" or not parent.isdigit():
        return
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):  # it has already ended
        raise ResourceError("the process that started this one has ended")
