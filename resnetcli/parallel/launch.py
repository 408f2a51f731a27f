"""Processes on this machine that train one net together, as `torchrun` would start them: what `--gpus N` does.

Each finds out from its environment which one it is. Nothing of torch is imported before there is something to start.
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

from resnetcli.errors import ResourceError, UsageError, plural
from resnetcli.train.stop import NUMBERS

MAX_WORLD = 65_536
ON_CPUS = "on CPUs: `torchrun --nproc-per-node 2 -m resnetcli train-cifar … --device cpu`"
PARENT = "RESNET_CLI_PARENT"
"""In the environment of a process that was started here: who started it."""
GRACE_S = 15.0
"""After one process has failed, how long the others may take to notice and say so."""
LAST_S = 30.0
"""How long they have then for a checkpoint."""
AGAIN_S = 3.0
"""A signal within this time after another is the same one, which has come by several ways."""
POLL_S = 0.05
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Place:
    """Which of how many processes this is."""

    rank: int
    world: int
    local_rank: int
    """Among those of this machine, which is also the number of its GPU."""


def place_in(environment: Mapping[str, str]) -> Place | None:
    """The place that `torchrun` has given this process; None if it is the only one.

    Raises UsageError for an environment that is not whole.
    """
    if "RANK" not in environment or "WORLD_SIZE" not in environment:
        return None
    numbers = {}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        text = environment.get(name, "")
        if not (text.isascii() and text.isdigit() and len(text) < 8):
            raise UsageError(f"`{name}` in the environment is `{text}`, no number", "start it with `torchrun`")
        numbers[name] = int(text)
    rank, world, local_rank = numbers["RANK"], numbers["WORLD_SIZE"], numbers["LOCAL_RANK"]
    if not rank < world <= MAX_WORLD:
        raise UsageError(
            f"rank {rank} of {plural(world, 'process', 'processes')} is in the environment", "start it with `torchrun`"
        )
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        if world > 1 and not environment.get(name):
            raise UsageError(f"`{name}` is missing in the environment", "start it with `torchrun`")
    return Place(rank, world, local_rank) if world > 1 else None


def require_gpus(wanted: int, device: str | None) -> None:
    """Raises UsageError unless this machine has so many GPUs, and they are what was asked for."""
    if wanted < 1:
        raise UsageError(f"`--gpus {wanted}` is out of range", "at least 1")
    if device not in (None, "cuda"):
        raise UsageError(
            f"`--gpus {wanted}` is not `--device {device}`", ON_CPUS if device == "cpu" else "leave `--device` out"
        )
    import torch

    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if wanted > there:
        have = f"this machine has {there}" if there else "PyTorch sees no GPU here"
        hint = f"`--gpus {there}` at most; `CUDA_VISIBLE_DEVICES` may hide some" if there else ON_CPUS
        raise UsageError(f"`--gpus {wanted}`: {have}", hint)


def without_gpus(words: Sequence[str]) -> list[str]:
    """The words of a command line less `--gpus N`."""
    left, skip = [], False
    for word in words:
        if not skip and word != "--gpus" and not word.startswith("--gpus="):
            left.append(word)
        skip = word == "--gpus" and not skip
    return left


# --- the processes -------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """Processes that are waited for together: when one fails, none of them is left."""

    processes: list[subprocess.Popen[bytes]]
    say: Callable[[str], object]
    grace_s: float = GRACE_S
    last_s: float = LAST_S
    clock: Callable[[], float] = time.monotonic
    signal: int = 0
    """What was passed on to them."""
    _signalled: float = 0.0
    _told: set[int] = field(default_factory=set)

    def wait(self) -> int:
        """The exit code of them all, once all have ended."""
        failed: float | None = None
        asked = False
        with self._listening():
            while any(process.poll() is None for process in self.processes):
                now = self.clock()
                if failed is None and any(process.poll() for process in self.processes):
                    failed = now
                    self._tell()
                if failed is not None and not asked and now - failed > self.grace_s:
                    self._send(signal.SIGTERM)
                    asked = True
                if failed is not None and now - failed > self.grace_s + self.last_s:
                    self._send(signal.SIGKILL)
                time.sleep(POLL_S)
            self._tell()
        return self._code()

    def kill(self) -> None:
        """Ends at once what is still there."""
        self._send(signal.SIGKILL)
        for process in self.processes:
            process.wait()

    def _code(self) -> int:
        """Rank 0's, which has said why; for what killed a process: the signal that was asked for, else 3."""
        codes = [process.returncode for process in self.processes]
        if codes[0] > 0:
            return codes[0]
        if not any(codes):
            return 0
        return 128 + self.signal if self.signal else 3

    def _tell(self) -> None:
        """Says which processes were killed: they could not say so themselves."""
        for rank, process in enumerate(self.processes):
            code = process.poll()
            if code is not None and code < 0 and -code not in (self.signal, signal.SIGTERM) and rank not in self._told:
                self._told.add(rank)
                why = ", most likely by the system for want of memory" if -code == signal.SIGKILL else ""
                self.say(f"error: rank {rank} was ended by {signal.Signals(-code).name}{why}")

    def _send(self, number: int) -> None:
        for process in self.processes:
            with suppress(OSError):  # it has just ended
                process.send_signal(number)

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Within: SIGINT, SIGTERM and SIGHUP are passed on, and a second one later on ends them all."""
        heard = [number for number in NUMBERS if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]
        before = {number: signal.signal(number, self._note) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if not self.signal:
            self.signal, self._signalled = number, self.clock()
            self._send(number)
        elif self.clock() - self._signalled > AGAIN_S:
            self._send(signal.SIGKILL)


def launch(command: Sequence[str], world: int, say: Callable[[str], object]) -> int:
    """Starts the command `world` times on this machine and waits: the exit code of them all.

    Raises ResourceError if they cannot be started.
    """
    from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is, though not by name

    try:  # where they meet; it is here, so that its port is known to be free and its end is theirs
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    except RuntimeError as error:
        raise ResourceError(f"no port on this machine for the processes: {str(error).splitlines()[0]}") from None
    job = Job([], say)
    try:
        for rank in range(world):
            environment = {**os.environ, **surroundings(rank, world, store.port)}
            # A session of its own, so that Ctrl-C comes once, from here.
            job.processes.append(
                subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)
            )
        return job.wait()
    except OSError as error:
        raise ResourceError(f"the processes could not be started: {error.strerror or error}") from None
    finally:
        job.kill()


def surroundings(rank: int, world: int, port: int) -> dict[str, str]:
    """What a process finds in its environment, as `torchrun` puts it there."""
    threads = max(1, (os.cpu_count() or 1) // world)
    package = str(Path(__file__).resolve().parents[2])
    found = {
        "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)), PARENT: str(os.getpid()),
        "PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH", "")))),
    }  # fmt: skip
    if sys.platform == "linux":  # the machine's name may stand for an address that it cannot be reached by
        found["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return found


def again(words: Sequence[str]) -> list[str]:
    """This program with other words behind it."""
    return [sys.executable, "-P", "-c", "from resnetcli.cli.main import main; main()", *words]


def follow_parent() -> None:
    """Has the system end this process with whoever started it, however that ends."""
    parent = os.environ.get(PARENT, "")
    if sys.platform != "linux" or not parent.isdigit():
        return
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != int(parent):  # it has ended already
        raise ResourceError("the process that started this one has ended")
