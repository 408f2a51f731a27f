"""A net that is Python and has no spec: a module in hand, or one that is named, `net.py:Net`, `timm:resnet50`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from resnetcli.errors import UsageError
from resnetcli.ops import Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.inputs import Inputs
from resnetcli.spec.libraries import EXAMPLES, require_name
from resnetcli.spec.spec import ConvStyle, Equation, Shortcut, Spec
from resnetcli.spec.zoo import module_reference

if TYPE_CHECKING:
    from torch import nn

    from resnetcli.net.trace import Trace

IMAGE = Shape(3, 224, 224)
"""What a model is given unless told otherwise: it does not say itself what it takes."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a profile is made of."""

    spec: Spec
    """Its title, where it is from and its input; there are no rows in it."""
    plan: Plan
    notes: tuple[str, ...]


def of_module(module: nn.Module, input: Shape | Inputs | None, name: str | None) -> Seen:
    """A module as it was seen to run. Raises UsageError if it cannot."""
    from resnetcli.net.trace import trace

    title = type(module).__name__
    found = trace(module, input or IMAGE, name=name or title, title=title)
    return _seen(found, "", {}, given=input is not None)


def of_reference(model: str, parameters: Mapping[str, Any], input: Shape | Inputs | None) -> Seen:
    """`torchvision:resnet50`, `timm:convnext_tiny`, `net.py:Net`, whose file is run; parameters go to its constructor.

    Raises UsageError for what there is not or fails, SpecError for a file that is no Python.
    """
    reference = module_reference(model)
    if reference is None:
        raise UsageError(f"`{model}` names no PyTorch model", "for example `torchvision:resnet50` or `net.py:Net`")
    source, name = reference
    if source in EXAMPLES:
        require_name(source, name)  # before torch is imported
    from resnetcli.net.foreign import nets_written_in, trace_reference

    if source.endswith(".py") and not name:
        names = nets_written_in(source) or ["Net"]
        raise UsageError(f"`{model}` is a Python file: which net in it?", f"for example `{source}:{names[-1]}`")
    found, cite = trace_reference(reference, parameters, input or IMAGE, name=model)
    return _seen(found, cite, parameters, given=input is not None)


def _seen(found: Trace, cite: str, parameters: Mapping[str, Any], *, given: bool) -> Seen:
    plan = replace(found.plan, parameters=dict(parameters))
    spec = Spec(
        name=plan.name,
        title=plan.title,
        cite=cite,
        about="",
        deviations=(),
        input=plan.input,
        style=ConvStyle(),
        equation=Equation(),
        shortcut=Shortcut(),
        rows={},
        aux={},
        parameters=plan.parameters,
        changed=frozenset(parameters),
        published=(),
        expect=None,
        extends=(),
        places={},
    )
    return Seen(spec, plan, (_how(plan, given), *found.notes))


def _how(plan: Plan, given: bool) -> str:
    default = "" if given else " (no --input was given)"
    return f"counted as PyTorch ran it, in evaluation, on {plan.input_text}{default}"
