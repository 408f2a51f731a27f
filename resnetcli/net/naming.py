"""Names of modules in tables: the class, with the main parameters of a layer."""

from __future__ import annotations

import torch
from torch import nn


def module_text(module: nn.Module) -> str:
    """A layer's class and main parameters: `Conv2d 3x3 64 /2`."""
    kind = class_name(module)
    match module:
        case nn.Conv2d():
            kernel, stride = "x".join(map(str, module.kernel_size)), module.stride[0]
            groups = f" C={module.groups}" if module.groups > 1 else ""
            return f"{kind} {kernel} {module.out_channels}{groups}{f' /{stride}' if stride > 1 else ''}"
        case nn.Linear():
            return f"{kind} {module.out_features}"
        case _:
            return kind


def class_name(module: nn.Module) -> str:
    """Class name of a module; for TorchScript, of the original module."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
