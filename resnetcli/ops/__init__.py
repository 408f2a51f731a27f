"""The primitive operations, one class each: its word, formula, counts, memory, traffic and PyTorch module together.

An activation is a class in `activations` and nothing else. Any other operation is a class here and, if it takes
arguments, a row of `resnetcli.spec.vocabulary`.
"""

from __future__ import annotations

from resnetcli.ops.activations import LeakyReLU, PReLU, ReLU
from resnetcli.ops.base import (
    INDEX_BYTES,
    KINDS,
    MAX_ELEMENTS,
    NO_TRAFFIC,
    TOOL_WEIGHTS,
    WHOLE,
    WORDS,
    Activation,
    Execution,
    Join,
    ModuleSettings,
    Norm,
    Op,
    Place,
    Saved,
    Shape,
    ShapeError,
    Sides,
    TensorSettings,
    Traffic,
    Window,
    register,
)
from resnetcli.ops.norms import BatchNorm, LocalResponseNorm, Softmax
from resnetcli.ops.pools import Pool, PoolTo, PyramidPool, RegionPool
from resnetcli.ops.weighted import Conv, Linear
from resnetcli.ops.wiring import Add, Concat, Dropout, Input, PadChannels, Scale, Traced

__all__ = [
    "INDEX_BYTES", "KINDS", "MAX_ELEMENTS", "NO_TRAFFIC", "TOOL_WEIGHTS", "WHOLE", "WORDS", "Activation", "Add",
    "BatchNorm", "Concat", "Conv", "Dropout", "Execution", "Input", "Join", "LeakyReLU", "Linear", "LocalResponseNorm",
    "ModuleSettings", "Norm", "Op", "PReLU", "PadChannels", "Place", "Pool", "PoolTo", "PyramidPool", "ReLU",
    "RegionPool", "Saved", "Scale", "Shape", "ShapeError", "Sides", "Softmax", "TensorSettings", "Traced", "Traffic",
    "Window", "register",
]  # fmt: skip
