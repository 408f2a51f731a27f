"""Compute precision of training: the dtypes, and how a GPU's convolutions are computed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from resnetcli.bench.execution import rounding
from resnetcli.runs.config import Config

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
"""Mixed precision: weights, their gradients and BatchNorm's parameters are fp32."""


@contextmanager
def convolution_settings(device: torch.device, *, tf32: bool, deterministic: bool) -> Iterator[None]:
    """Context manager: on a GPU, TF32 only with `tf32`, and convolutions autotuned, as their shapes never change.

    `deterministic`: no autotuning, which chooses by time and may choose differently in the next run.
    """
    if device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic or before[1]
    try:
        with torch.cuda.device(device), rounding(tf32):
            yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before


def supported_settings(config: Config, device: str, processes: int) -> tuple[str, bool]:
    """The run's dtype and whether it uses a CUDA graph, on a device that may differ from the one it started on.

    On a CPU TF32 becomes fp32 and there are no CUDA graphs; several processes use none either.
    """
    cpu = device == "cpu"
    return "fp32" if cpu and config.dtype == "tf32" else config.dtype, config.cuda_graph and not cpu and processes == 1
