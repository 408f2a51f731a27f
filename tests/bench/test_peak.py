from __future__ import annotations

import mmap
from pathlib import Path

import pytest

from resnetcli.bench.peak import peak_memory

MIB = 2**20
linux = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux counts")


def touch(size: int) -> int:
    """Makes `size` bytes resident and gives them back."""
    with mmap.mmap(-1, size) as memory:
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = 1
        return len(memory)


@linux
def test_memory_given_back_before_the_end_is_counted() -> None:
    result, peak = peak_memory(lambda: touch(32 * MIB))
    assert result == 32 * MIB
    assert peak == pytest.approx(32 * MIB, abs=2 * MIB)


@linux
def test_an_earlier_peak_is_not_counted() -> None:
    touch(64 * MIB)
    assert peak_memory(lambda: touch(8 * MIB))[1] == pytest.approx(8 * MIB, abs=2 * MIB)


def test_where_nobody_counts_there_is_no_figure_but_the_call_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, text: str) -> int:
        raise PermissionError(path)

    monkeypatch.setattr(Path, "write_text", refuse)
    assert peak_memory(lambda: "done") == ("done", None)
