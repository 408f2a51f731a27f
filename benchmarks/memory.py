"""Measured and derived peak memory of models, in a table in docs/how-to/memory.md.

python benchmarks/memory.py           # measure on the CPU and write the table
python benchmarks/memory.py --cuda    # also measure on the GPU
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
"""Models of every family and their input sizes, small enough to train on a small machine."""
BATCH = 4


@dataclass(frozen=True, slots=True)
class Measured:
    """Peak memory of one model in one mode, in bytes, without weights and optimizer."""

    derived: int
    allocated: int
    """By PyTorch's allocator: all tensors, and the workspaces that libraries allocate through PyTorch."""
    resident: int | None
    """By the operating system, in a separate process; None on a GPU, or if the system does not report it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuda", action="store_true", help="also measure on the GPU")
    parser.add_argument("--measure", nargs=4, metavar=("MODEL", "INPUT", "MODE", "DEVICE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(*arguments.measure)))
        return
    devices = ["cpu", *(["cuda"] if arguments.cuda else [])]
    tables = "\n".join(table(device) for device in devices)
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(MARK.sub(lambda _: tables, text), encoding="utf-8")


def table(device: str) -> str:
    """A Markdown table of all cases, each measured in a separate process."""
    lines = [
        f"{conditions(device)}\n",
        "| model | input | mode | derived | allocated | ratio | resident | ratio |",
        "|:--|--:|:--|--:|--:|--:|--:|--:|",
    ]
    for model, size in CASES:
        for mode in ("infer", "train"):
            m = measure_in_subprocess(model, size, mode, device)
            lines.append(
                f"| {model} | {size} | {mode} | {megabytes(m.derived)} | {megabytes(m.allocated)} | "
                f"{m.derived / m.allocated:.3f} | "
                + (f"{megabytes(m.resident)} | {m.derived / m.resident:.2f} |" if m.resident else "- | - |")
            )
            print(lines[-1], file=sys.stderr)
    return "\n".join(lines) + "\n"


def conditions(device: str) -> str:
    """Device, versions, precision and batch size, as the line above the table."""
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    return f"{name}, torch {torch.__version__}, float32, {BATCH} images:"


def megabytes(size: int) -> str:
    return f"{size / 1e6:.2f} MB"


def measure_in_subprocess(model: str, size: str, mode: str, device: str) -> Measured:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", model, size, mode, device]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Measured(**json.loads(done.stdout))


def measure(model: str, size: str, mode: Mode, device: str) -> dict[str, int | None]:
    """The fields of `Measured`: the peak of one forward pass, or of one forward and backward pass."""
    plan = rc.load(model, input=size)
    net = rc.build(plan, device=device)
    x = torch.randn(BATCH, plan.input.c, plan.input.h, plan.input.w, device=device)
    call = training_step(net, x) if mode == "train" else inference(net, x)
    call()  # warm-up: loads libraries and lets them choose kernels
    model_memory = memory(plan, mode, place="cuda" if device == "cuda" else "cpu")
    derived = max(moment.bytes(BATCH) for moment in model_memory.moments if moment.phase != "update")
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated() - x.nbytes
        call()
        return {"derived": derived, "allocated": torch.cuda.max_memory_allocated() - before, "resident": None}
    _, resident = peak_memory(call)
    allocated = allocated_peak(call) + x.nbytes
    return {"derived": derived, "allocated": allocated, "resident": None if resident is None else resident + x.nbytes}


def inference(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """A function that runs one forward pass in evaluation mode."""
    net.eval()

    def call() -> None:
        with torch.no_grad():
            net(x)

    return call


def training_step(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """A function that runs one forward and backward pass, then frees the gradients of the parameters."""
    net.train()

    def call() -> None:
        outputs = net(x)
        loss(outputs if isinstance(outputs, tuple) else (outputs,)).backward()  # type: ignore[no-untyped-call]
        net.zero_grad(set_to_none=True)

    return call


def loss(outputs: tuple[Tensor, ...]) -> Tensor:
    """A loss that saves no outputs for the backward pass and whose gradient is a materialized tensor."""
    return torch.stack([output.mul(1.0).sum() for output in outputs]).sum()


def allocated_peak(call: Callable[[], object]) -> int:
    """The peak of PyTorch's CPU allocator during a call, in bytes above its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        call()
    events = [event for event in profiled.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


if __name__ == "__main__":
    main()
