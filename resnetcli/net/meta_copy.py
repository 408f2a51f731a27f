"""Copy a model to PyTorch's meta device: tensors keep shapes and dtypes, without memory or values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode


def meta_copy(module: nn.Module) -> nn.Module:
    """Copy a module to the meta device. Tied weights stay tied."""
    memo: dict[int, Any] = {id(tensor): _on_meta(tensor) for tensor in (*module.parameters(), *module.buffers())}
    with _CopyToMeta():
        return copy.deepcopy(module, memo)


def _on_meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        kind: Any = UninitializedParameter if isinstance(tensor, UninitializedParameter) else UninitializedBuffer
        lazy: Tensor = kind(tensor.requires_grad, device="meta", dtype=tensor.dtype)
        return lazy
    empty = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


class _CopyToMeta(TorchFunctionMode):
    """Make `copy.deepcopy` also copy unregistered tensors to the meta device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _on_meta(tensor))
        if func is Tensor.clone:  # `nn.Parameter.__deepcopy__` calls it
            return _on_meta(args[0])
        return func(*args, **(kwargs or {}))
