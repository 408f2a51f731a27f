"""Data-parallel processes on this machine, as `torchrun` starts them, and their final states."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from resnetcli.parallel.launch import own_command, rank_environment
from resnetcli.runs.checkpoint import files as checkpoints

PATCHED = """
import os, signal, sys, time
from resnetcli.train import loop
step = loop.Trainer.step
def patched(self):
    if self.iteration == {at} and os.environ.get("RANK") == "{rank}":
        {what}
    step(self)
loop.Trainer.step = patched
from resnetcli.cli.main import main
main()
"""
"""`resnet-cli`, with code that one rank runs before a step."""


@dataclass
class Ended:
    """Exit codes and outputs of the processes of one job."""

    codes: list[int]
    outputs: list[str]
    """By process: stdout and stderr."""


class Ranks:
    """Processes of one job."""

    def __init__(self, command: list[str], folder: Path, world: int = 2, first: int = 0) -> None:
        """`first`: the lowest rank that is started."""
        self.world = world
        self.store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        self.logs = [folder / f"output{rank}.txt" for rank in range(world)]
        self.processes = []
        for rank, log in enumerate(self.logs[first:], first):
            environment = {**os.environ, **rank_environment(rank, world, self.store.port), "OMP_NUM_THREADS": "1"}
            with log.open("w") as output:
                self.processes.append(
                    subprocess.Popen(command, env=environment, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
                )

    def end(self, timeout: float = 120) -> Ended:
        """Wait until all have ended."""
        try:
            codes = [process.wait(timeout) for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
                process.wait()
        return Ended(codes, [log.read_text() for log in self.logs if log.exists()])


def run_ranks(words: list[str], folder: Path, world: int = 2) -> Ended:
    """Run the program in several processes."""
    return Ranks(own_command(words), folder, world).end()


def patched_command(at: int, what: str, words: list[str], rank: int = 1) -> list[str]:
    """The program's command line, with code that one rank runs before the step after `at` iterations."""
    return [sys.executable, "-c", PATCHED.format(at=at, what=what, rank=rank), *words]


def final_state(path: Path) -> dict[str, Tensor]:
    return load_file(checkpoints(path)[0][1])


def same_state(one: Path, other: Path) -> bool:
    """Whether the final states of two runs are bit-identical."""
    a, b = final_state(one), final_state(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def assert_close(one: Path, other: Path) -> None:
    """Assert that the final states of two runs are equal up to rounding."""
    a, b = final_state(one), final_state(other)
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-3, atol=1e-5, msg=f"{name}: {a[name]}, {b[name]}")
