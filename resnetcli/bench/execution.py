"""Which `RunOptions` a device supports, and a context manager that sets torch's switches to them.

Torch is imported only to query a GPU and to set its switches.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from resnetcli.bench.allocator import is_adjustable, keep_freed_memory, return_freed_memory
from resnetcli.bench.options import Dtype, RunOptions, option_of
from resnetcli.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import torch

MAX_THREADS = 1024


def require_supported(options: RunOptions, device: str) -> None:
    """Raises UsageError for options the device (`cpu`, `cuda:0`) does not support, ResourceError without a compiler."""
    kind, threads = device.partition(":")[0], options.threads
    if threads is not None and not 1 <= threads <= MAX_THREADS:
        raise UsageError(f"`--threads` must be 1 to {MAX_THREADS}, not {threads}", "for example `--threads 4`")
    for f in fields(options):
        for case in (options.mode, kind):
            if getattr(options, f.name) != f.default and case in option_of(f).refused:
                raise UsageError(*option_of(f).refused[case])
    if options.mode == "train":
        _require_trainable(options)
    if kind == "cpu":
        if options.dtype == "fp16":
            raise UsageError("fp16 on a CPU is slower than fp32: few CPUs compute in it", "use `--dtype bf16`")
        if options.dtype == "tf32":
            raise UsageError("TF32 requires an NVIDIA GPU", "use `--dtype fp32` or `--dtype bf16`")
        if options.runtime == "cudnn":
            raise UsageError("cuDNN requires an NVIDIA GPU", "use `--compile`, or `--device cuda`")
        if options.keep_memory and not is_adjustable():
            raise UsageError("`--keep-memory` requires the allocator of the GNU C library", "omit `--keep-memory`")
    else:
        _require_gpu_dtype(options.precision, device)
        if options.runtime not in ("eager", "inductor", "cudnn"):
            raise UsageError(f"{options.runtime} is measured on a CPU only", "use `--compile`")
        if options.runtime == "cudnn" and not has_fused_convolutions():
            raise ResourceError("this PyTorch has no cuDNN, which fuses convolutions", "use `--compile`")
    if options.compile:
        require_compiler(device)


def _require_trainable(options: RunOptions) -> None:
    """Raises UsageError for options of inference only."""
    if options.runtime not in ("eager", "inductor"):
        raise UsageError(f"{options.runtime} is measured in inference only", "use `--compile`")
    if options.dtype == "fp16":
        raise UsageError("training in fp16 requires loss scaling, which is not measured", "use `--dtype bf16`")


def _require_gpu_dtype(dtype: Dtype, device: str) -> None:
    import torch

    if not gpu_computes(dtype, device):
        hint = "use `--dtype fp16`"
        raise UsageError(f"{torch.cuda.get_device_name(device)} does not support {dtype}", hint)


def gpu_computes(dtype: Dtype, device: str | torch.device) -> bool:
    """Whether a GPU computes in a dtype: TF32 and bf16 require compute capability 8.0 (Ampere)."""
    import torch

    return dtype not in ("tf32", "bf16") or torch.cuda.get_device_capability(device) >= (8, 0)


def has_fused_convolutions() -> bool:
    """Whether this PyTorch has cuDNN compute a convolution, a sum and a ReLU in one kernel; not on AMD GPUs."""
    import torch

    operators = ("cudnn_convolution_relu", "cudnn_convolution_add_relu")
    is_there = all(hasattr(torch, name) for name in operators)
    return is_there and torch.version.cuda is not None and torch.backends.cudnn.is_available()  # type: ignore[no-untyped-call]


def require_compiler(device: str) -> None:
    """Raises ResourceError if `torch.compile` has no compiler to use."""
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
def configure_torch(options: RunOptions, place: torch.device) -> Iterator[None]:
    """Context manager: set torch's switches, and restore them on leaving. Gradients are off except in training.

    A GPU's convolutions are autotuned, since their shapes do not change. glibc cannot report its previous thresholds:
    after `keep_memory` they are set to its defaults.
    """
    import torch

    with ExitStack() as stack:
        if options.threads is not None:
            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(options.threads)
        if place.type == "cuda":
            stack.callback(setattr, torch.backends.cudnn, "benchmark", torch.backends.cudnn.benchmark)
            torch.backends.cudnn.benchmark = True
            if options.tf32 is not None:
                stack.enter_context(rounding(options.tf32))
        if options.keep_memory:
            stack.callback(return_freed_memory)
            keep_freed_memory()
        if options.runtime == "torchscript":
            stack.callback(torch.jit.enable_onednn_fusion, torch.jit.onednn_fusion_enabled())  # type: ignore[no-untyped-call]
            torch.jit.enable_onednn_fusion(True)
        if options.compile:
            _set_up_compiler(stack, freezing=options.mode == "infer")
        # Compilers and graphs do not support inference tensors: TorchScript would fall back to unfused kernels.
        plain = options.runtime in ("eager", "cudnn") and not options.cuda_graph and options.mode == "infer"
        stack.enter_context(torch.inference_mode(plain))
        stack.enter_context(torch.enable_grad() if options.mode == "train" else torch.no_grad())
        yield


@contextmanager
def rounding(allowed: bool) -> Iterator[None]:
    """Context manager: allow or forbid TF32 in convolutions and matrix products, on all GPUs."""
    import torch

    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    try:
        before = cudnn.allow_tf32, matmul.allow_tf32
        precision = torch.get_float32_matmul_precision()  # "high" and "medium" both allow TF32
    except RuntimeError:  # it was set through the newer interface, which cannot be mixed with the older one
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
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores .* not enabled")  # the options decide
    stack.enter_context(torch._inductor.config.patch(freezing=freezing))
    stack.enter_context(torch._dynamo.config.patch(recompile_limits()))


def recompile_limits() -> dict[str, int]:
    """Settings of `torch._dynamo.config` that allow many recompilations, under the names of this PyTorch version.

    Every model is called from the same line of code, and the compiler gives up on a line that recompiles too often.
    """
    import torch._dynamo.config as config

    if hasattr(config, "recompile_limit"):
        return {"recompile_limit": 256, "accumulated_recompile_limit": 4096}
    return {"cache_size_limit": 256, "accumulated_cache_size_limit": 4096}  # PyTorch 2.6
