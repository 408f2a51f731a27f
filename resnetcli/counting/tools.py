"""Other people's counters, run on the built net: what each of those installed says of it."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor, nn

from resnetcli.net.module import build
from resnetcli.plan.plan import Plan

Counted = tuple[int, int | None]
"""The tool's figure, and its count of parameters if it gives one."""


@dataclass(frozen=True, slots=True)
class Counter:
    """How one tool is asked."""

    package: str
    """What is installed, and imported."""
    count: Callable[[nn.Module, Tensor], Counted]
    """On a module of its own, in evaluation mode, and one image."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one tool said of one net."""

    convention: str
    package: str
    version: str
    """Empty where it is not installed."""
    counted: int | None
    """None where it is not installed or failed."""
    params: int | None
    """None where the tool does not count them."""
    problem: str = ""
    """Why there is no figure: `not installed`, or the tool's own error."""


def _fvcore(net: nn.Module, x: Tensor) -> Counted:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(net, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(analysis.total()), None


def _fvcore_train(net: nn.Module, x: Tensor) -> Counted:
    return _fvcore(net.train(), x)


def _thop(net: nn.Module, x: Tensor) -> Counted:
    from thop import profile

    macs, params = profile(net, (x,), verbose=False)
    return int(macs), int(params)


def _ptflops(net: nn.Module, x: Tensor, backend: str = "pytorch") -> Counted:
    from ptflops import get_model_complexity_info

    macs, params = get_model_complexity_info(
        net, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend
    )
    if macs is None:  # it prints its error and goes on
        raise RuntimeError("it could not finish")
    return int(macs), int(params)


def _ptflops_aten(net: nn.Module, x: Tensor) -> Counted:
    return _ptflops(net, x, "aten")


def _mmcv(net: nn.Module, x: Tensor) -> Counted:
    from mmcv.cnn import get_model_complexity_info

    macs, params = get_model_complexity_info(net, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False)
    return int(macs), int(params)


def _torchinfo(net: nn.Module, x: Tensor) -> Counted:
    from torchinfo import summary

    found = summary(net, input_data=x, verbose=0)
    return int(found.total_mult_adds), int(found.total_params)


def _calflops(net: nn.Module, x: Tensor) -> Counted:
    from calflops import calculate_flops

    flops, _, params = calculate_flops(net, tuple(x.shape), print_results=False, output_as_string=False)
    return int(flops), int(params)


def _torch(net: nn.Module, x: Tensor) -> Counted:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        net(x)
    return int(counter.get_total_flops()), None


COUNTERS: Mapping[str, Counter] = MappingProxyType(
    {
        "fvcore": Counter("fvcore", _fvcore),
        "fvcore-train": Counter("fvcore", _fvcore_train),
        "thop": Counter("thop", _thop),
        "ptflops": Counter("ptflops", _ptflops),
        "ptflops-aten": Counter("ptflops", _ptflops_aten),
        "mmcv": Counter("mmcv", _mmcv),
        "torchinfo": Counter("torchinfo", _torchinfo),
        "calflops": Counter("calflops", _calflops),
        "torch": Counter("torch", _torch),
    }
)
"""Convention -> the tool it is of, as far as a tool counts built modules."""


def _version(package: str) -> str:
    """Of the distribution that brings a package; MMCV is published under three names."""
    for name in (package, f"{package}-lite", f"{package}-full"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def readings(plan: Plan) -> Iterator[Reading]:
    """What each tool says of the net, one after the other; nothing a tool does wrong ends it.

    Raises ResourceError if the weights do not fit into memory.
    """
    net = build(plan).eval()
    for convention in COUNTERS:
        yield read_counter(convention, net, plan)


def read_counter(convention: str, net: nn.Module, plan: Plan, images: int = 1) -> Reading:
    """What one tool says of a copy of the net, for tools leave hooks, buffers or another mode behind.

    The copy shares the net's parameters, which no tool writes to and which would take as much memory again.
    """
    counter = COUNTERS[convention]
    if importlib.util.find_spec(counter.package) is None:
        return Reading(convention, counter.package, "", None, None, "not installed")
    version = _version(counter.package)
    x = torch.zeros(images, plan.input.c, plan.input.h, plan.input.w)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
            shared: dict[int, Any] = {id(parameter): parameter for parameter in net.parameters()}
            counted, params = counter.count(copy.deepcopy(net, shared), x)
    except Exception as error:  # whatever it is, it is the tool's
        lines = str(error).strip().splitlines()
        problem = f"failed: {type(error).__name__}{f': {lines[0]}' if lines else ''}"
        return Reading(convention, counter.package, version, None, None, problem)
    return Reading(convention, counter.package, version, counted, params)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what tools print, log and warn of."""
    before: Any = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
