from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnetcli.errors import ResourceError
from resnetcli.net.memory import NoRoom, fitting, gigabytes, physical_memory, require
from tests.support.short import OUT_OF_MEMORY

CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.mark.parametrize(
    ("line", "limit"),
    [
        ("0::/", "memory.max"),
        ("0::/system.slice/job.scope", "system.slice/job.scope/memory.max"),
        ("0::/system.slice/job.scope", "system.slice/memory.max"),
        ("5:memory:/slurm/job_7", "memory/slurm/job_7/memory.limit_in_bytes"),
        ("5:memory:/slurm/job_7", "memory/memory.limit_in_bytes"),
    ],
)
def test_the_limit_of_a_container_or_job_counts_and_none_does_not(tmp_path: Path, line: str, limit: str) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    (tmp_path / "proc/self/cgroup").write_text(f"1:name=systemd:/elsewhere\n{line}\n")
    file = tmp_path / "sys/fs/cgroup" / limit
    file.parent.mkdir(parents=True)
    total = physical_memory(tmp_path)
    assert total > 2**28
    for text, found in (("max\n", total), ("9223372036854771712\n", total), ("1048576\n", 2**20)):
        file.write_text(text)
        assert physical_memory(tmp_path) == found
    assert physical_memory() >= 2**28


def test_more_than_the_machine_has_is_refused_on_a_cpu_only() -> None:
    require("it", physical_memory(), CPU)
    require("it", 2 * physical_memory(), GPU)
    require("it", 2 * physical_memory(), torch.device("meta"))
    with pytest.raises(ResourceError, match=r"it would take .* this machine has .*\nhint: take less"):
        require("it", 2 * physical_memory(), CPU, "take less")


def test_a_gpu_s_allocator_s_error_says_what_was_asked_for() -> None:
    with pytest.raises(ResourceError) as caught, fitting("`big` with a batch of 64", GPU, "use a smaller `--batch`"):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 1")
    assert str(caught.value) == (
        "error: `big` with a batch of 64 does not fit into the memory of `cuda:0` (failed to allocate 20.00 GiB)\n"
        "hint: use a smaller `--batch`"
    )


def test_a_cpu_s_allocator_s_error_is_one_too() -> None:
    text = "it does not fit into the memory of `cpu` .failed to allocate 4503599627370496 bytes."
    with pytest.raises(ResourceError, match=text), fitting("it", CPU):
        torch.empty(2**50)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_what_libraries_raise_for_want_of_memory_is_known(error: Exception) -> None:
    with pytest.raises(NoRoom) as caught, fitting("a model", GPU, "use less"):
        raise error
    assert caught.value.message.startswith("a model does not fit into the memory of `cuda:0`")
    assert caught.value.hint == "use less"


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered\nCUDA kernel errors might be reported later",
        "CUDA error: no kernel image is available for execution on the device",
        "CUDA error: all CUDA-capable devices are busy or unavailable",
        "CUDA driver error: invalid device ordinal",
        "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasSgemm`",
    ],
)
def test_what_fails_on_a_gpu_for_another_reason_is_a_line_and_not_about_memory(text: str) -> None:
    with pytest.raises(ResourceError) as caught, fitting("a model", GPU):
        raise RuntimeError(text)
    assert caught.value.message.startswith("a model could not be run on `cuda:0`: ")
    assert not isinstance(caught.value, NoRoom)
    assert "\n" not in caught.value.message


def test_any_other_error_passes() -> None:
    with pytest.raises(RuntimeError, match="shapes"), fitting("it", CPU):
        raise RuntimeError("shapes do not match")


@pytest.mark.parametrize(("size", "text"), [(25_300_000_000, "25.3 GB"), (1_000_000, "0.001 GB"), (2**52, "4,504 TB")])
def test_sizes_are_read_in_gigabytes(size: int, text: str) -> None:
    assert gigabytes(size) == text
