"""The devices to measure on, and their names. Torch is imported only to look for a GPU."""

from __future__ import annotations

import platform
import re
import warnings
from contextlib import suppress
from pathlib import Path

from resnetcli.errors import UsageError, did_you_mean

KINDS = ("cpu", "cuda")


def find(text: str) -> str:
    """`cpu` or `cuda:n` for a device as typed. Raises UsageError for an unknown device."""
    match = re.fullmatch(r"(?P<kind>\w+)(:(?P<index>\d{1,9}))?", text)
    kind, index = (match["kind"], match["index"]) if match else ("", None)
    if kind == "cpu" and index in {None, "0"}:
        return "cpu"
    if kind == "cuda":
        return _cuda(text, int(index or 0))
    if kind in {"mps", "meta"}:
        raise UsageError(f"device `{kind}` is not supported", "use `cpu` or `cuda`")
    hint = did_you_mean("cuda" if kind == "gpu" else text.lower(), KINDS, "use `cpu`, `cuda` or `cuda:1`")
    raise UsageError(f"unknown device `{text}`", hint)


def _cuda(text: str, index: int) -> str:
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch also warns about causes that are reported here
        available = torch.cuda.is_available()
    if not available:
        if torch.version.cuda is None:
            cause, remedy = "this PyTorch is built without CUDA", "install a PyTorch with CUDA"
        elif reason := _driver_problem():
            cause, remedy = reason, "install a driver and a PyTorch that match"
        else:
            cause, remedy = "PyTorch sees no GPU", "check `nvidia-smi` and `CUDA_VISIBLE_DEVICES`"
        raise UsageError(f"no device `{text}`: {cause}", f"use `--device cpu`, or {remedy}")
    names = [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())]
    if index >= len(names):
        known = ", ".join(f"`cuda:{n}` ({name})" for n, name in enumerate(names))
        raise UsageError(f"no device `{text}`", f"available: {known}")
    return f"cuda:{index}"


def _driver_problem() -> str:
    """The first sentence of PyTorch's error on a missing or outdated driver; empty if the driver is not the cause."""
    import torch

    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        sentence, _, _ = str(error).partition(". ")
        return sentence.removesuffix(".") if "driver" in sentence else ""
    return ""


def describe_device(device: str) -> str:
    """The product name of a device: "AMD EPYC 9965", "NVIDIA H200"."""
    if device.startswith("cuda"):
        import torch

        return torch.cuda.get_device_name(device)
    return cpu_name(Path("/proc/cpuinfo"))


def cpu_name(cpuinfo: Path) -> str:
    """The first model name in /proc/cpuinfo; elsewhere the name that Python knows."""
    with suppress(OSError):
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name" and value.strip():
                return value.strip()
    return platform.processor() or platform.machine()
