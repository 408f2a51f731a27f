"""How a net is run: precision, layout, compiler, threads. What a device can do of it, and torch set to it for a while.

Torch is imported only to ask a GPU and to set things.
"""

from __future__ import annotations

import ctypes
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

from resnetcli.errors import ResourceError, UsageError, did_you_mean

if TYPE_CHECKING:
    import torch

Dtype = Literal["fp32", "tf32", "bf16", "fp16"]
Runtime = Literal["eager", "inductor", "torchscript", "cudnn", "onnxruntime", "openvino"]
Mode = Literal["infer", "train"]
DTYPES: tuple[Dtype, ...] = get_args(Dtype)
MODES: tuple[Mode, ...] = get_args(Mode)
MAX_THREADS = 1024
TOLERANCES: dict[Dtype, float] = {"fp32": 1e-3, "tf32": 2e-2, "fp16": 2e-2, "bf16": 1e-1}
"""How far a setting's values may be from those of eager fp32, as the norm of the difference relative to their norm.

Rounding alone was seen to make 2e-6 of ResNet-50's last maps in fp32 and 1.2e-2 in bf16, 6e-2 of Inception v3's. Those
of tf32 and fp16, which round to 10 bits, lie between and were not measured.
"""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a net is run; the default is eager PyTorch with every switch as PyTorch has it."""

    dtype: Dtype = "fp32"
    """Of weights and values. tf32: float32 whose convolutions and products round their inputs to 10 bits."""
    tf32: bool | None = None
    """Whether fp32 may be rounded so: None is as PyTorch has it, which on a GPU rounds in convolutions."""
    channels_last: bool = False
    """Whether a map's channels lie next to each other in memory."""
    fold_bn: bool = False
    """Whether BatchNorm is computed into the weights before it."""
    runtime: Runtime = "eager"
    """Who runs it. inductor: `torch.compile` with frozen weights; torchscript: traced, frozen, fused by oneDNN.

    cudnn: eager PyTorch with one kernel for a convolution, its bias, and the sum and ReLU behind it.
    """
    cuda_graph: bool = False
    """Whether its launches are recorded once and replayed together."""
    threads: int | None = None
    """CPU threads; None is as PyTorch has them."""
    keep_memory: bool = False
    """Whether the C library keeps freed memory for the next call and gives the system none back."""
    mode: Mode = "infer"
    """infer: a forward in evaluation. train: forward, backward and an optimizer's step; then bf16 is autocast."""

    @property
    def compile(self) -> bool:
        """Whether `torch.compile` makes it."""
        return self.runtime == "inductor"

    @property
    def plain(self) -> bool:
        """Whether it is eager fp32 as any net is run or trained, so that nothing needs to be checked."""
        return self == Settings(tf32=self.tf32, threads=self.threads, keep_memory=self.keep_memory, mode=self.mode)

    @property
    def text(self) -> str:
        """For a table: `bf16 channels_last fold-bn compile`. Threads are a condition and not in it."""
        words = {
            "train": self.mode == "train",
            self.dtype: True,
            "channels_last": self.channels_last,
            "fold-bn": self.fold_bn,
            "keep-memory": self.keep_memory,
            "compile" if self.compile else self.runtime: self.runtime != "eager",
            "graph": self.cuda_graph,
        }
        return " ".join(word for word, is_so in words.items() if is_so)

    @property
    def tolerance(self) -> float:
        """How far its values may be from eager fp32's."""
        return TOLERANCES[self.dtype]


def settings(
    dtype: str | None = None,
    *,
    channels_last: bool = False,
    compile: bool = False,
    fold_bn: bool = False,
    cuda_graph: bool = False,
    threads: int | None = None,
    keep_memory: bool = False,
    mode: str = "infer",
) -> Settings:
    """What a user asked for; a `dtype` of None is fp32 as PyTorch has it, "fp32" is without TF32.

    Raises UsageError for a dtype or mode there is not. What the device can do, `require_possible` asks.
    """
    known = next((word for word in DTYPES if word == (dtype or "fp32")), None)
    if known is None:
        raise UsageError(f"unknown dtype `{dtype}`", did_you_mean(dtype or "", DTYPES, f"one of {', '.join(DTYPES)}"))
    kind = next((word for word in MODES if word == mode), None)
    if kind is None:
        raise UsageError(f"unknown mode `{mode}`", did_you_mean(mode, MODES, f"one of {', '.join(MODES)}"))
    tf32 = None if dtype is None else known == "tf32"
    runtime: Runtime = "inductor" if compile else "eager"
    return Settings(known, tf32, channels_last, fold_bn, runtime, cuda_graph, threads, keep_memory, kind)


def require_possible(settings: Settings, device: str) -> None:
    """Raises UsageError for what a device (`cpu`, `cuda:0`) cannot do, ResourceError where a compiler is missing."""
    threads = settings.threads
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"{threads} threads", f"use `--threads` 1 to {MAX_THREADS}")
    if settings.mode == "train":
        _require_trainable(settings)
    if device == "cpu":
        if settings.dtype == "fp16":
            raise UsageError("fp16 on a CPU is slower than fp32: few can compute in it", "use `--dtype bf16`")
        if settings.dtype == "tf32":
            raise UsageError("TF32 is arithmetic of NVIDIA's GPUs, not of a CPU", "use `--dtype fp32` or `bf16`")
        if settings.runtime == "cudnn":
            raise UsageError("cuDNN runs on NVIDIA's GPUs only", "use `--compile`, or `--device cuda`")
        if settings.cuda_graph:
            raise UsageError("a CPU has no CUDA graphs", "leave `--cuda-graph` out, or use `--device cuda`")
        if settings.keep_memory and _mallopt() is None:
            raise UsageError("only the GNU C library's allocator can keep memory", "leave `--keep-memory` out")
    else:
        if settings.keep_memory:
            raise UsageError("on a GPU PyTorch keeps freed memory by itself", "leave `--keep-memory` out")
        _require_gpu_dtype(settings.dtype, device)
        if settings.runtime not in ("eager", "inductor", "cudnn"):
            raise UsageError(f"{settings.runtime} is measured on a CPU only", "use `--compile`")
        if settings.runtime == "cudnn" and not has_fused_convolutions():
            raise ResourceError("this PyTorch has no cuDNN, which fuses convolutions", "use `--compile`")
    if settings.compile:
        require_compiler(device)


def _require_trainable(settings: Settings) -> None:
    """Raises UsageError for what only inference knows."""
    if settings.fold_bn:
        raise UsageError("BatchNorm that is folded into the weights cannot be trained", "leave `--fold-bn` out")
    if settings.runtime not in ("eager", "inductor"):
        raise UsageError(f"{settings.runtime} is measured in inference only", "use `--compile`")
    if settings.cuda_graph:
        raise UsageError("a training step is not measured as a CUDA graph", "leave `--cuda-graph` out")
    if settings.dtype == "fp16":
        raise UsageError("fp16 is trained with a scaled loss, which is not measured", "use `--dtype bf16`")


def _require_gpu_dtype(dtype: Dtype, device: str) -> None:
    import torch

    if not gpu_computes(dtype, device):
        hint = "use `--dtype fp16`"
        raise UsageError(f"{torch.cuda.get_device_name(device)} is too old for {dtype}", hint)


def gpu_computes(dtype: Dtype, device: str | torch.device) -> bool:
    """Whether a GPU has arithmetic for a dtype: TF32 and bf16 came with Ampere."""
    import torch

    return dtype not in ("tf32", "bf16") or torch.cuda.get_device_capability(device) >= (8, 0)


def has_fused_convolutions() -> bool:
    """Whether this PyTorch can have cuDNN compute a convolution, a sum and a ReLU in one kernel; on AMD it cannot."""
    import torch

    operators = ("cudnn_convolution_relu", "cudnn_convolution_add_relu")
    is_there = all(hasattr(torch, name) for name in operators)
    return is_there and torch.version.cuda is not None and torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]


def require_compiler(device: str) -> None:
    """Raises ResourceError if `torch.compile` would find nothing to compile with."""
    if device == "cpu":
        from torch._inductor import cpp_builder

        try:
            cpp_builder.get_cpp_compiler()
        except Exception:  # its own class, which moves between versions
            raise ResourceError("`torch.compile` finds no C++ compiler", "install g++, or set CXX") from None
    else:
        from torch.utils._triton import has_triton  # `import torch` alone does not load this module

        if not has_triton():
            raise ResourceError("`torch.compile` finds no Triton", "pip install triton")


@contextmanager
def applied(settings: Settings, place: torch.device) -> Iterator[None]:
    """Torch set to it within, and to what it was before afterwards. Gradients are off, but in training.

    A GPU's convolutions are autotuned, since their shapes never change here. What the C library kept of memory before
    cannot be asked: where it has been told to keep all, it afterwards keeps as much as it comes to by itself at most.
    """
    import torch

    with ExitStack() as stack:
        if settings.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(settings.threads)
        if place.type == "cuda":
            stack.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
            torch.backends.cudnn.benchmark = True
            if settings.tf32 is not None:
                stack.enter_context(rounding(settings.tf32))
        if settings.keep_memory:
            stack.callback(give_memory_back)
            keep_memory()
        if settings.runtime == "torchscript":
            stack.callback(torch.jit.enable_onednn_fusion, torch.jit.onednn_fusion_enabled())  # type: ignore[no-untyped-call]
            torch.jit.enable_onednn_fusion(True)
        if settings.compile:
            _set_up_compiler(stack, freezing=settings.mode == "infer")
        # Compilers and graphs know no inference tensors: TorchScript would fall back to what it has not fused.
        plain = settings.runtime in ("eager", "cudnn") and not settings.cuda_graph and settings.mode == "infer"
        stack.enter_context(torch.inference_mode(plain))
        stack.enter_context(torch.enable_grad() if settings.mode == "train" else torch.no_grad())
        yield


@contextmanager
def rounding(allowed: bool) -> Iterator[None]:
    """With or without TF32 in convolutions and matrix products, on every GPU there is."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        before = cudnn.allow_tf32, matmul.allow_tf32
        precision = torch.get_float32_matmul_precision()  # "high" and "medium" both allow TF32
    except RuntimeError:  # somebody has set it through the newer interface, which the older one refuses to mix with
        switches: list[Any] = [cudnn.conv, matmul]  # type: ignore[attr-defined]
        words = [switch.fp32_precision for switch in switches]
        for switch in switches:
            switch.fp32_precision = "tf32" if allowed else "ieee"
        try:
            yield
        finally:
            for switch, word in zip(switches, words, strict=True):
                switch.fp32_precision = word
        return
    cudnn.allow_tf32, matmul.allow_tf32 = allowed, allowed
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before
        torch.set_float32_matmul_precision(precision)


def _set_up_compiler(stack: ExitStack, *, freezing: bool) -> None:
    import torch._dynamo.config
    import torch._inductor.config

    stack.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores .* not enabled")  # which the settings decide
    stack.enter_context(torch._inductor.config.patch(freezing=freezing))
    stack.enter_context(torch._dynamo.config.patch(recompile_limits()))


def recompile_limits() -> dict[str, int]:
    """Settings of `torch._dynamo.config` that allow many recompilations, by the names that this PyTorch has for them.

    Every model is run by the same line of code, and the compiler gives up on a line that changes too often.
    """
    import torch._dynamo.config as config

    if hasattr(config, "recompile_limit"):
        return {"recompile_limit": 256, "accumulated_recompile_limit": 4096}
    return {"cache_size_limit": 256, "accumulated_cache_size_limit": 4096}  # PyTorch 2.6


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
"""Of glibc's `mallopt`."""
OTHER_ALLOCATORS = ("mallctl", "tc_malloc", "mi_malloc")
"""What only jemalloc, tcmalloc and mimalloc have, which are loaded before the C library where they are used."""


def keep_memory() -> None:
    """Has glibc give no memory back to the system, whose pages would all have to be asked for again at every call.

    Nothing is mapped by itself any more, however large: a threshold so high glibc refuses before 2.35.
    """
    _tell_glibc({M_MMAP_MAX: 0, M_TRIM_THRESHOLD: -1})


def give_memory_back() -> None:
    """Has glibc give memory back again, but for what it keeps by itself at most once large pieces were freed."""
    _tell_glibc({M_MMAP_MAX: 65536, M_MMAP_THRESHOLD: 2**25, M_TRIM_THRESHOLD: 2**26})


def _tell_glibc(options: Mapping[int, int]) -> None:
    if (mallopt := _mallopt()) is not None:
        for option, value in options.items():
            mallopt(option, value)


def _mallopt() -> Callable[[int, int], object] | None:
    """glibc's; None from another C library, and where another allocator has been loaded before it."""
    try:
        loaded = ctypes.CDLL(None)
        # Not by the address of `malloc`, which in some programs, Debian's Python among them, is the program's own stub.
        if any(hasattr(loaded, name) for name in OTHER_ALLOCATORS):
            return None
        return cast("Callable[[int, int], object]", ctypes.CDLL("libc.so.6").mallopt)
    except (OSError, AttributeError, TypeError):
        return None
