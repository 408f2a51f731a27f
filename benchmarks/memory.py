"""Measured peaks of memory beside the derived ones, into docs/how-to/memory.md.

python benchmarks/memory.py           # measure, write
python benchmarks/memory.py --cuda    # measure on the GPU too
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import resnetcli as rc
from resnetcli.bench.peak import peak_memory
from resnetcli.plan.memory import Mode, memory

PAGE = Path(__file__).resolve().parents[1] / "docs" / "how-to" / "memory.md"
MARK = re.compile(r"(?<=<!-- measured -->\n).*?(?=<!-- /measured -->)", re.DOTALL)
CASES = (
    ("alexnet", "3x224x224"),
    ("vgg16", "3x96x96"),
    ("googlenet", "3x128x128"),
    ("inception_v3", "3x171x171"),
    ("inception_resnet_v2", "3x139x139"),
    ("resnet18", "3x128x128"),
    ("resnet18_a", "3x128x128"),
    ("resnet50", "3x128x128"),
    ("preact_resnet50", "3x128x128"),
    ("resnext50_32x4d", "3x128x128"),
    ("resnext50_32x4d_a", "3x64x64"),
    ("wrn_28_10_dropout", "3x32x32"),
    ("drn_d_22", "3x96x96"),
    ("darknet53", "3x128x128"),
    ("prelu_net_a", "3x96x96"),
    ("cifar_resnet110", "3x32x32"),
)
"""A net of every kind, each at a size that a small machine trains."""
BATCH = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """One net in one mode: bytes at the peak above what stands there all the time."""

    predicted: int
    tensors: int
    """As the allocator's own record has it: every tensor, and a library's workspace if it asks PyTorch for it."""
    resident: int | None
    """As the operating system has it, in a process of its own."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true")
    parser.add_argument("--measure", nargs=4, metavar=("MODEL", "INPUT", "MODE", "DEVICE"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.measure:
        print(json.dumps(measure(*asked.measure)))
        return
    devices = ["cpu", *(["cuda"] if asked.cuda else [])]
    found = "\n".join(table(device) for device in devices)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARK.sub(lambda _: found, text), encoding="utf-8")


def table(device: str) -> str:
    """A Markdown table of all cases, each in a process of its own."""
    lines = [
        f"{conditions(device)}\n",
        "| model | input | mode | derived | allocated | ratio | resident | ratio |",
        "|:--|--:|:--|--:|--:|--:|--:|--:|",
    ]
    for model, size in CASES:
        for mode in ("infer", "train"):
            m = alone(model, size, mode, device)
            lines.append(
                f"| {model} | {size} | {mode} | {mega(m.predicted)} | {mega(m.tensors)} | "
                f"{m.predicted / m.tensors:.3f} | "
                + (f"{mega(m.resident)} | {m.predicted / m.resident:.2f} |" if m.resident else "- | - |")
            )
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines) + "\n"


def conditions(device: str) -> str:
    """Under what the figures hold."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}, float32, {BATCH} images:"


def mega(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def alone(model: str, size: str, mode: str, device: str) -> Measured:
    """`measure` in a fresh process."""
    command = [sys.executable, __file__, "--measure", model, size, mode, device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def measure(model: str, size: str, mode: Mode, device: str) -> dict[str, int | None]:
    """The peak of one forward pass, or of one forward and backward, above weights."""
    plan = rc.load(model, input=size)
    net = rc.build(plan, device=device)
    x = torch.randn(BATCH, plan.input.c, plan.input.h, plan.input.w, device=device)
    call = training_step(net, x) if mode == "train" else inference(net, x)
    call()  # libraries are paged in, and their plans made
    predicted = memory(plan, mode, place="cuda" if device == "cuda" else "cpu")
    held = max(moment.bytes(BATCH) for moment in predicted.moments if moment.phase != "update")
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - x.nbytes
        call()
        return {"predicted": held, "tensors": torch.cuda.max_memory_allocated() - before, "resident": None}
    _, resident = peak_memory(call)
    allocated = allocated_peak(call) + x.nbytes
    return {"predicted": held, "tensors": allocated, "resident": None if resident is None else resident + x.nbytes}


def inference(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward pass."""
    net.eval()

    def call() -> None:
        with torch.no_grad():
            net(x)

    return call


def training_step(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """One forward and backward; the gradients of the parameters are dropped afterwards."""
    net.train()

    def call() -> None:
        outputs = net(x)
        loss(outputs if isinstance(outputs, tuple) else (outputs,)).backward()  # type: ignore[no-untyped-call]
        net.zero_grad(set_to_none=True)

    return call


def loss(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that keeps nothing, and whose gradient is a tensor."""
    return torch.stack([output.mul(1.0).sum() for output in outputs]).sum()


def allocated_peak(call: Callable[[], object]) -> int:
    """The most bytes that PyTorch's CPU allocator had given out at once, above those before."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        call()
    events = [event for event in watched.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


if __name__ == "__main__":
    main()
