from __future__ import annotations

import mmap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from resnetcli.bench.footprint import Footprint, driver_memory, footprint
from resnetcli.bench.options import RunOptions
from resnetcli.bench.worker import Job, execute, measure_memory
from resnetcli.ops import Conv
from tests.support.sketch import Sketch, residual_net

MIB = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts")


def touch() -> None:
    with mmap.mmap(-1, 64 * MIB) as memory:
        for page in range(0, 64 * MIB, mmap.PAGESIZE):
            memory[page] = 1


@linux
def test_a_cpu_s_is_what_the_first_call_takes_and_the_images() -> None:
    found = footprint(touch, 10 * MIB, torch.device("cpu"))
    assert found.peak_bytes == pytest.approx(74 * MIB, abs=4 * MIB)
    assert found.reserved_bytes is None
    assert found.process_bytes is not None
    assert found.process_bytes > 64 * MIB


def test_a_gpu_s_is_of_the_second_call(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    def says(name: str, result: int | None = None) -> Any:
        def said(*_: object) -> int | None:
            log.append(name)
            return result

        return said

    for name, result in (
        ("synchronize", None), ("empty_cache", None), ("reset_peak_memory_stats", None), ("memory_allocated", 100),
        ("max_memory_allocated", 950), ("max_memory_reserved", 2000),
    ):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, says(name, result))
    found = footprint(says("call"), 30, torch.device("cuda", 0), ask=lambda words: None)
    assert found == Footprint(950 - (100 - 30), 2000, None)
    graph = footprint(says("call"), 30, torch.device("cuda", 0), captured_bytes=5000, ask=lambda words: None)
    assert graph == Footprint(5030, 2000, None)
    first = log.index("reset_peak_memory_stats")
    assert log[:first].count("call") == 1
    assert log[first:].index("memory_allocated") < log[first:].index("call") < log[first:].index("max_memory_allocated")


def test_the_driver_s_account_is_of_this_process_on_all_gpus() -> None:
    def ask(words: Sequence[str]) -> str:
        assert words[0] == "nvidia-smi"
        return "12, 500\n7, 100\n12, 24\n"

    assert driver_memory(12, ask) == 524 * MIB
    assert driver_memory(13, ask) is None
    assert driver_memory(12, lambda words: "12, [N/A]\n") is None
    assert driver_memory(12, lambda words: None) is None


@linux
def test_a_separate_process_tells_what_a_model_takes() -> None:
    s = Sketch(3, 64, 64)
    s.step("conv", Conv(64, (3, 3), pad=(1, 1)))
    found = measure_memory(Job(s.plan(), RunOptions(threads=1), "cpu", 32, 0.0))
    assert isinstance(found, Footprint)
    values = 32 * 64 * 64 * 64 * 4  # of the output alone
    assert found.peak_bytes is not None
    assert values < found.peak_bytes < 3 * values
    assert found.process_bytes is not None
    assert found.process_bytes > found.peak_bytes


def test_what_goes_wrong_there_is_a_line() -> None:
    job = Job(residual_net(), RunOptions(), "cpu", 10**12, 0.0, "memory")
    assert "would take" in str(execute(job))
