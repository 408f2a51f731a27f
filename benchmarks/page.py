"""docs/why/benchmarks.md, of which every benchmark writes its own part and leaves the others as they are."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from resnetcli.bench.device import describe_device

PAGE = Path(__file__).resolve().parent.parent / "docs" / "why" / "benchmarks.md"


def put(part: str, markdown: str, page: Path = PAGE) -> None:
    """Writes a part between its marks. Raises ValueError for a page without them."""
    mark = re.compile(rf"(?<=<!-- {part} -->\n).*?(?=<!-- /{part} -->)", re.DOTALL)
    before = page.read_text("utf-8")
    if not mark.search(before):
        raise ValueError(f"{page.name} has no marks for `{part}`")
    page.write_text(mark.sub(lambda _: f"\n{markdown.strip()}\n\n", before), "utf-8")


def machine(packages: Sequence[str], before: float) -> str:
    """Processor, versions, and the load average before and now."""
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{describe_device('cpu')}, {len(os.sched_getaffinity(0))} processors, bf16 {bf16_by()}, {platform.system()}; "
        f"Python {platform.python_version()}, {versions}. "
        f"Load average {before:.1f} before, {os.getloadavg()[0]:.1f} after."
    )


def bf16_by() -> str:
    """What multiplies bf16 here: of all that a processor may have or lack, it decides most about these tables."""
    cpus = Path("/proc/cpuinfo")
    flags = cpus.read_text("utf-8").split() if cpus.exists() else []
    known = {"amx_bf16": "by AMX", "avx512_bf16": "by AVX-512, without AMX"}
    return next((name for flag, name in known.items() if flag in flags), "not by the processor itself")
