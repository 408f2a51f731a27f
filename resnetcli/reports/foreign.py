"""Trace PyTorch models: a module, or a reference such as `model.py:Net` or `timm:resnet50`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from resnetcli.errors import UsageError
from resnetcli.ops import Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.inputs import Inputs
from resnetcli.spec.libraries import require_name
from resnetcli.spec.reference import origin_of

if TYPE_CHECKING:
    from torch import nn

    from resnetcli.net.trace_plan import Trace

IMAGE = Shape(3, 224, 224)
"""The default input."""


class TracedModel(NamedTuple):
    """A traced PyTorch model."""

    plan: Plan
    cite: str
    """The library and its version; empty for a user's own model."""
    notes: tuple[str, ...]


def of_module(module: nn.Module, input: Shape | Inputs | None, name: str | None) -> TracedModel:
    """Trace a module. Raises UsageError if it cannot be copied or run."""
    from resnetcli.net.trace import trace

    title = type(module).__name__
    return _with_notes(trace(module, input or IMAGE, name=name or title, title=title), "", given=input is not None)


def of_reference(model: str, parameters: Mapping[str, Any], input: Shape | Inputs | None) -> TracedModel:
    """Trace `torchvision:resnet50`, `timm:convnext_tiny` or `model.py:Net`, whose file is executed.

    `parameters` go to the constructor. Raises UsageError for a model that does not exist or fails, SpecError for a file
    that is not valid Python.
    """
    origin = origin_of(model)
    if not origin.is_pytorch:
        raise UsageError(f"`{model}` is not a PyTorch model", "for example `torchvision:resnet50` or `net.py:Net`")
    if origin.kind == "library":
        require_name(origin.source, origin.name)  # before torch is imported
    from resnetcli.net.foreign import models_defined_in, trace_origin

    if origin.kind == "file" and not origin.name:
        names = models_defined_in(origin.source) or ["Net"]
        raise UsageError(
            f"`{model}` is a Python file: name a model in it", f"for example `{origin.source}:{names[-1]}`"
        )
    trace, cite = trace_origin(origin, parameters, input or IMAGE, name=model)
    return _with_notes(trace, cite, given=input is not None)


def _with_notes(trace: Trace, cite: str, *, given: bool) -> TracedModel:
    default = "" if given else " (no --input was given)"
    how = f"counted as PyTorch ran it, in evaluation, on {trace.plan.input_text}{default}"
    return TracedModel(trace.plan, cite, (how, *trace.notes))
