"""Write a benchmark's section of docs/why/benchmarks.md, and describe the machine."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from resnetcli.bench.device import describe_device

PAGE = Path(__file__).resolve().parent.parent / "docs" / "why" / "benchmarks.md"


def put(section: str, markdown: str, page: Path = PAGE) -> None:
    """Replace the text between a section's markers. Raises ValueError if the page does not have them."""
    between = re.compile(rf"(?<=<!-- {section} -->\n).*?(?=<!-- /{section} -->)", re.DOTALL)
    text = page.read_text("utf-8")
    if not between.search(text):
        raise ValueError(f"{page.name} has no markers for `{section}`")
    page.write_text(between.sub(lambda _: f"\n{markdown.strip()}\n\n", text), "utf-8")


def machine(packages: Sequence[str], before: float) -> str:
    """Processor, package versions, and the load average before the benchmark and now."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    processors = len(os.sched_getaffinity(0))
    return (
        f"{describe_device('cpu')}, {processors} processors, bf16 {bf16_support()}, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}. "
        f"Load average {before:.1f} before, {os.getloadavg()[0]:.1f} after."
    )


def bf16_support() -> str:
    """The instructions that multiply bf16; of all processor features they affect these tables most."""
    cpus = Path("/proc/cpuinfo")
    flags = cpus.read_text("utf-8").split() if cpus.exists() else []
    known = {"amx_bf16": "by AMX", "avx512_bf16": "by AVX-512, without AMX"}
    return next((name for flag, name in known.items() if flag in flags), "not by the processor itself")
