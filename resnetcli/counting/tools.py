"""Run the installed counting tools on the built module and record what each reports."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from resnetcli.counting.conventions import CONVENTIONS
from resnetcli.counting.tally import Convention
from resnetcli.errors import first_line
from resnetcli.frozen import frozen
from resnetcli.net.module import build
from resnetcli.plan.plan import Plan


@frozen
class ToolReport:
    """One tool's report on one model."""

    convention: str
    package: str
    version: str
    """Empty if it is not installed."""
    counted: int | None
    """None if it is not installed or failed."""
    params: int | None
    """None if the tool does not count them."""
    problem: str = ""
    """Why there is no figure: `not installed`, or the tool's own error."""


def _version(package: str) -> str:
    """The version of the distribution that provides a package; MMCV is published under three names."""
    for name in (package, f"{package}-lite", f"{package}-full"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            return importlib.metadata.version(name)
    return ""


def run_tools(plan: Plan) -> Iterator[ToolReport]:
    """Each tool's report, one after another; errors of a tool are part of its report.

    Raises ResourceError if the weights do not fit into memory.
    """
    module = build(plan).eval()
    for convention in CONVENTIONS.values():
        if convention.run is not None:
            yield run_tool(convention, module, plan)


def run_tool(convention: Convention, module: nn.Module, plan: Plan, images: int = 1) -> ToolReport:
    """One tool's report on a copy of the module, because tools leave hooks, buffers or another mode behind.

    The copy shares the parameters, which no tool modifies and which would take as much memory again.
    """
    name, package, run = convention.name, convention.package, convention.run
    if run is None or importlib.util.find_spec(package) is None:
        return ToolReport(name, package, "", None, None, "not installed")
    version = _version(package)
    x = torch.zeros(images, plan.input.c, plan.input.h, plan.input.w)
    try:
        with _quiet(), torch.random.fork_rng(devices=[]), torch.no_grad():
            shared: dict[int, Any] = {id(parameter): parameter for parameter in module.parameters()}
            counted, params = run(copy.deepcopy(module, shared), x)
    except Exception as error:  # whatever it is, it is the tool's
        line = first_line(error)
        problem = f"failed: {type(error).__name__}{f': {line}' if line else ''}"
        return ToolReport(name, package, version, None, None, problem)
    return ToolReport(name, package, version, counted, params)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Context manager: suppress what tools print, log and warn about."""
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
