from __future__ import annotations

import builtins
import ctypes
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from resnetcli.bench.allocator import (
    M_MMAP_MAX,
    M_MMAP_THRESHOLD,
    M_TRIM_THRESHOLD,
    keep_freed_memory,
    return_freed_memory,
)
from resnetcli.bench.execution import configure_torch, recompile_limits, require_supported, rounding
from resnetcli.bench.options import DTYPES, TOLERANCES, RunOptions
from resnetcli.errors import ResourceError, UsageError

CPU = torch.device("cpu")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def old_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda which: "Tesla T4")


def test_the_default_is_eager_fp32_with_pytorch_s_own_switches() -> None:
    assert RunOptions() == RunOptions()
    assert RunOptions().plain
    assert RunOptions().text == "fp32"
    assert RunOptions().tf32 is None


def test_a_dtype_that_is_named_decides_about_tf32() -> None:
    assert [RunOptions(dtype=dtype).tf32 for dtype in DTYPES] == [False, True, False, False]
    assert RunOptions(dtype="fp32").plain
    assert not RunOptions(dtype="tf32").plain


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (RunOptions(dtype="bf16", channels_last=True, runtime="inductor"), "bf16 channels_last compile"),
        (RunOptions(dtype="fp16", fold_bn=True, cuda_graph=True, threads=3), "fp16 fold-bn graph"),
        (RunOptions(keep_memory=True, runtime="torchscript"), "fp32 keep-memory torchscript"),
    ],
)
def test_settings_have_a_text_for_tables(given: RunOptions, text: str) -> None:
    assert given.text == text
    assert not given.plain


def test_every_dtype_has_its_tolerance_and_the_coarser_the_wider() -> None:
    assert sorted(DTYPES, key=lambda dtype: TOLERANCES[dtype]) == ["fp32", "tf32", "fp16", "bf16"]


def test_an_unknown_dtype_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        RunOptions(dtype="bf1")  # type: ignore[arg-type]
    assert str(caught.value) == "error: unknown dtype `bf1`\nhint: did you mean `bf16`?"


@pytest.mark.parametrize(
    ("given", "device", "message"),
    [
        (RunOptions(dtype="fp16"), "cpu", "fp16 on a CPU"),
        (RunOptions(dtype="tf32"), "cpu", "TF32 requires an NVIDIA GPU"),
        (RunOptions(cuda_graph=True), "cpu", "`--cuda-graph` requires a GPU"),
        (RunOptions(threads=0), "cpu", "`--threads` must be 1 to 1024, not 0"),
        (RunOptions(threads=-1), "cuda:0", "must be 1 to 1024, not -1"),
        (RunOptions(threads=10**9), "cpu", "not 1000000000"),
        (RunOptions(dtype="bf16"), "cuda:0", "Tesla T4 does not support bf16"),
        (RunOptions(dtype="tf32"), "cuda:0", "Tesla T4 does not support tf32"),
        (RunOptions(runtime="torchscript"), "cuda:0", "torchscript is measured on a CPU only"),
        (RunOptions(keep_memory=True), "cuda:0", "on a GPU PyTorch keeps freed memory"),
    ],
)
@pytest.mark.usefixtures("old_gpu")
def test_what_a_device_cannot_do_is_refused(given: RunOptions, device: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        require_supported(given, device)


@pytest.mark.usefixtures("old_gpu")
@pytest.mark.parametrize(
    ("given", "device"),
    [
        (RunOptions(dtype="bf16", channels_last=True, threads=2), "cpu"),
        (RunOptions(dtype="fp16", cuda_graph=True), "cuda:0"),
    ],
)
def test_what_a_device_can_do_is_not(given: RunOptions, device: str) -> None:
    require_supported(given, device)


def test_another_c_library_is_not_reported_to_keep_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetcli.bench.allocator.ctypes.CDLL", lambda name: object())
    with pytest.raises(UsageError, match="requires the allocator of the GNU C library"):
        require_supported(RunOptions(keep_memory=True), "cpu")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than GNU's")
@pytest.mark.parametrize("own", ["mallctl", "tc_malloc", "mi_malloc"])
def test_another_allocator_is_not_reported_to_keep_memory(monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    """One that is loaded before the C library, as jemalloc may be."""
    libc = ctypes.CDLL(None)
    require_supported(RunOptions(keep_memory=True), "cpu")
    loaded = SimpleNamespace(mallopt=libc.mallopt, **{own: libc.malloc})
    monkeypatch.setattr("resnetcli.bench.allocator.ctypes.CDLL", lambda name: loaded if name is None else libc)
    with pytest.raises(UsageError, match="requires the allocator of the GNU C library"):
        require_supported(RunOptions(keep_memory=True), "cpu")


KEPT = """
import ctypes, os, torch
from pathlib import Path
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import RunOptions

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]

def mapped():
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")

def kept(size):
    before = mapped()
    piece = libc.malloc(size)  # never touched, so that however large it is no memory is taken
    assert piece
    libc.free(piece)
    return int(mapped() - before > size / 2)

large, larger = 2**27, 2**31 + 2**20
found = [kept(large)]
with configure_torch(RunOptions(keep_memory=True), torch.device("cpu")):
    found += [kept(large), kept(larger)]
libc.malloc_trim(0)
print(*found, kept(large))
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than GNU's")
def test_memory_is_kept_while_that_is_a_setting_however_much_it_is_and_given_back_afterwards() -> None:
    shown = subprocess.run([sys.executable, "-c", KEPT], capture_output=True, check=True, text=True).stdout
    assert shown.split() == ["0", "1", "1", "0"]


def test_memory_is_kept_in_a_way_that_no_glibc_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before 2.35 it took no threshold above 32 MiB for what is mapped by itself."""
    told: dict[int, int] = {}
    monkeypatch.setattr("resnetcli.bench.allocator._mallopt", lambda: told.__setitem__)
    keep_freed_memory()
    assert told == {M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1}
    return_freed_memory()
    assert told[M_MMAP_MAX] > 0
    assert told[M_MMAP_THRESHOLD] <= 2**25
    assert told[M_TRIM_THRESHOLD] >= 0


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise RuntimeError("No working C++ compiler found")

    from torch._inductor import cpp_builder

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ResourceError) as caught:
        require_supported(RunOptions(runtime="inductor"), "cpu")
    assert str(caught.value) == "error: `torch.compile` finds no C++ compiler\nhint: install g++, or set CXX"


def test_without_triton_nothing_is_compiled_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda which: (9, 0))
    from torch.utils import _triton

    monkeypatch.setattr(_triton, "has_triton", lambda: False)
    with pytest.raises(ResourceError, match="finds no Triton"):
        require_supported(RunOptions(runtime="inductor"), "cuda:0")


def state() -> tuple[Any, ...]:
    return (
        torch.get_num_threads(), torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32, torch.jit.onednn_fusion_enabled(),  # type: ignore[no-untyped-call]
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch._inductor.config.freezing,
    )  # fmt: skip


@pytest.mark.parametrize("fails", [False, True])
def test_torch_is_set_within_and_as_before_afterwards_even_after_an_error(fails: bool) -> None:
    import torch._inductor.config

    before = state()
    options = RunOptions(dtype="tf32", threads=3, runtime="torchscript")
    try:
        with configure_torch(options, torch.device("cuda", 0)):
            assert state() == (3, True, True, True, True, False, False, False)
            if fails:
                raise builtins.ZeroDivisionError
    except ZeroDivisionError:
        pass
    assert state() == before


def test_the_compiler_freezes_weights_only_within() -> None:
    import torch._inductor.config

    with configure_torch(RunOptions(runtime="inductor"), CPU):
        assert torch._inductor.config.freezing
        assert not torch.is_grad_enabled()
    assert not torch._inductor.config.freezing


def test_eager_models_run_in_inference_mode_and_graphs_without() -> None:
    with configure_torch(RunOptions(), CPU):
        assert torch.is_inference_mode_enabled()
    with torch.inference_mode(), configure_torch(RunOptions(cuda_graph=True), CPU):
        assert not torch.is_inference_mode_enabled()


def test_without_a_word_on_tf32_pytorch_s_own_choice_stands() -> None:
    before = torch.backends.cudnn.allow_tf32
    with rounding(not before), configure_torch(RunOptions(), torch.device("cuda", 0)):
        assert torch.backends.cudnn.allow_tf32 is not before
    assert torch.backends.cudnn.allow_tf32 is before


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_precision_of_products_is_as_before(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        for allowed in (False, True):
            with rounding(allowed):
                assert torch.backends.cuda.matmul.allow_tf32 is allowed
            assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_compiling_for_a_gpu_needs_nothing_that_only_other_modules_import() -> None:
    code = (
        "import torch; torch.cuda.get_device_capability = lambda device: (9, 0)\n"
        "from resnetcli.errors import ResourceError\n"
        "from resnetcli.bench.execution import require_supported\n"
        "from resnetcli.bench.options import RunOptions\n"
        "try: require_supported(RunOptions(runtime='inductor'), 'cuda:0')\n"
        "except ResourceError: pass\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")


def test_recompilations_are_allowed_by_the_names_that_pytorch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch._dynamo.config

    with torch._dynamo.config.patch(recompile_limits()):  # raises for a name there is not
        pass
    monkeypatch.setattr(torch._dynamo, "config", SimpleNamespace(cache_size_limit=8))
    assert recompile_limits() == {"cache_size_limit": 256, "accumulated_cache_size_limit": 4096}
    monkeypatch.setattr(torch._dynamo, "config", SimpleNamespace(recompile_limit=8))
    assert recompile_limits() == {"recompile_limit": 256, "accumulated_recompile_limit": 4096}


def test_cudnn_fuses_on_a_gpu_only_and_where_pytorch_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = RunOptions(runtime="cudnn")
    with pytest.raises(UsageError, match="cuDNN requires an NVIDIA GPU"):
        require_supported(fused, "cpu")
    with pytest.raises(UsageError, match="cudnn is measured in inference only"):
        require_supported(RunOptions(runtime="cudnn", mode="train"), "cuda:0")
    monkeypatch.setattr(torch.backends.cudnn, "is_available", lambda: True)
    for cuda, name in ((None, "is_there"), ("13.0", "is_there"), ("13.0", "cudnn_convolution_relu")):
        monkeypatch.setattr(torch.version, "cuda", cuda)
        with monkeypatch.context() as patch:
            patch.delattr(torch, name, raising=False)
            if cuda and name == "is_there":
                require_supported(fused, "cuda:0")
            else:
                with pytest.raises(ResourceError, match="this PyTorch has no cuDNN, which fuses convolutions"):
                    require_supported(fused, "cuda:0")


def test_what_the_compiler_warns_of_and_settings_decide_is_not_reported() -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with configure_torch(RunOptions(runtime="inductor"), CPU):
            warnings.warn(
                "TensorFloat32 tensor cores for float32 matrix multiplication available but not enabled. Consider",
                stacklevel=1,
            )
            warnings.warn("another", stacklevel=1)
    assert [str(each.message) for each in seen] == ["another"]
