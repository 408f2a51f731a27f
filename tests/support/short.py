"""Out-of-memory errors of PyTorch and the libraries below it, for tests of their handling."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import torch
from torch import Tensor

OUT_OF_MEMORY = (
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 1 GiB"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError(
        "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call"
    ),
    RuntimeError("Triton Error [CUDA]: out of memory"),
    MemoryError(),
)


@dataclass
class Shortage:
    """Raises an error as an allocator does in the middle of a forward pass: while a local variable holds a tensor."""

    error: Exception
    held: list[weakref.ref[Tensor]] = field(default_factory=list)

    def __call__(self) -> None:
        values = torch.zeros(1000)
        self.held.append(weakref.ref(values))
        raise type(self.error)(*self.error.args)

    @property
    def alive(self) -> int:
        """The number of those tensors that are still referenced."""
        return sum(each() is not None for each in self.held)
