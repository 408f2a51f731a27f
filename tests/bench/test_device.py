from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resnetcli.bench import device
from resnetcli.bench.device import describe_device, find
from resnetcli.errors import UsageError


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: f"GPU {which}")


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", None)


def refusal(text: str) -> str:
    with pytest.raises(UsageError) as caught:
        find(text)
    return str(caught.value)


def test_the_cpu_is_there() -> None:
    assert find("cpu") == find("cpu:0") == "cpu"


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_found_by_its_number_and_the_first_without_one() -> None:
    assert [find(text) for text in ("cuda", "cuda:0", "cuda:1")] == ["cuda:0", "cuda:0", "cuda:1"]


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_that_is_not_there_is_refused_with_those_that_are() -> None:
    assert refusal("cuda:2") == "error: no device `cuda:2`\nhint: available: `cuda:0` (GPU 0), `cuda:1` (GPU 1)"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize("text", ["cuda", "cuda:1"])
def test_cuda_without_cuda_is_refused(text: str) -> None:
    assert refusal(text) == (
        f"error: no device `{text}`: this PyTorch is built without CUDA\n"
        "hint: use `--device cpu`, or install a PyTorch with CUDA"
    )


@pytest.mark.usefixtures("no_gpu")
def test_cuda_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    assert refusal("cuda") == (
        "error: no device `cuda`: PyTorch sees no GPU\n"
        "hint: use `--device cpu`, or check `nvidia-smi` and `CUDA_VISIBLE_DEVICES`"
    )


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("The NVIDIA driver on your system is too old (found version 12000). Please update your GPU driver.",
         "The NVIDIA driver on your system is too old (found version 12000)"),
        ("Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU.",
         "Found no NVIDIA driver on your system"),
        ("No CUDA GPUs are available", "PyTorch sees no GPU"),
    ],
)  # fmt: skip
def test_what_pytorch_says_of_a_driver_is_quoted(text: str, cause: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init() -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "init", init)
    assert refusal("cuda").startswith(f"error: no device `cuda`: {cause}\nhint: use `--device cpu`, or ")


def test_mps_and_meta_are_refused_by_name() -> None:
    assert refusal("mps") == "error: device `mps` is not supported\nhint: use `cpu` or `cuda`"
    assert refusal("meta") == "error: device `meta` is not supported\nhint: use `cpu` or `cuda`"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("cdua", "did you mean `cuda`?"),
        ("CUDA", "did you mean `cuda`?"),
        ("gpu", "did you mean `cuda`?"),
        ("cuda:x", "did you mean `cuda`?"),
        ("cuda:-1", "did you mean `cuda`?"),
        ("cpu:7", "did you mean `cpu`?"),
        ("", "use `cpu`, `cuda` or `cuda:1`"),
        ("toaster", "use `cpu`, `cuda` or `cuda:1`"),
        ("cuda:" + "9" * 50, "use `cpu`, `cuda` or `cuda:1`"),
    ],
)
def test_an_unknown_device_is_refused_with_the_nearest_known(text: str, hint: str) -> None:
    assert refusal(text) == f"error: unknown device `{text}`\nhint: {hint}"


def test_a_cpu_is_called_what_the_kernel_calls_it(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: AMD EPYC 9965 192-Core Processor\nflags\t\t: fpu\n")
    assert device.cpu_name(cpuinfo) == "AMD EPYC 9965 192-Core Processor"


def test_a_cpu_the_kernel_has_no_name_for_still_has_one(tmp_path: Path) -> None:
    assert device.cpu_name(tmp_path / "none")
    assert describe_device("cpu")


@pytest.mark.usefixtures("two_gpus")
def test_a_gpu_is_called_what_its_driver_calls_it() -> None:
    assert describe_device("cuda:1") == "GPU cuda:1"
