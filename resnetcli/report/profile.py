"""Everything there is to say of one net: its spec, its plan, its counts, the printed figures, and measurements."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from resnetcli.errors import UsageError
from resnetcli.ops import Conv, Linear, Pool, Shape, Traced
from resnetcli.plan.count import Cost, Counts, count, row_steps, sum_costs
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan, Step
from resnetcli.report.convention import (
    CONVENTIONS,
    DEFAULT,
    Convention,
    Tally,
    find_convention,
    step_elements,
    step_figures,
    tally,
)
from resnetcli.report.verdict import Judged, judged
from resnetcli.spec.header import MAX_SIZE, parse_input
from resnetcli.spec.read import read
from resnetcli.spec.spec import ConvLayer, PoolLayer, Residual, Spec
from resnetcli.spec.words import layer_text
from resnetcli.spec.zoo import Zoo, module_reference

if TYPE_CHECKING:
    from torch import nn

    from resnetcli.measure.latency import Measurement
    from resnetcli.report.foreign import Seen

Size = str | Sequence[int] | Shape
By = Literal["row", "block", "layer"]


@dataclass(frozen=True, slots=True)
class Heads:
    """A net that has auxiliary training heads, counted both ways."""

    without: Counts
    """As it is at inference."""
    with_them: Counts
    """As it is trained."""


@dataclass(frozen=True, slots=True)
class Profile:
    """One net's whole answer. Counts are for one image, whatever the batch."""

    model: str
    """As the user named it: a name in the zoo or a path."""
    family: str
    spec: Spec = field(repr=False)
    plan: Plan
    counts: Counts
    judged: tuple[Judged, ...] = field(repr=False)
    heads: Heads | None = field(default=None, repr=False)
    """None for a net without auxiliary heads."""
    batch: int = 1
    measurements: tuple[Measurement, ...] = ()
    """One a setting; empty unless a device was named."""
    notes: tuple[str, ...] = ()
    """What else one should know of the figures, a sentence each."""
    convention: Convention = CONVENTIONS[DEFAULT]
    """How its work is counted."""

    @property
    def settings(self) -> dict[str, int]:
        """The parameters that were set to something else than the spec says."""
        return {name: value for name, value in self.plan.parameters.items() if name in self.spec.changed}

    @property
    def tally(self) -> Tally:
        """The net's work under the convention asked for."""
        return tally(self.plan, self.convention)


@dataclass(frozen=True, slots=True)
class Part:
    """Some steps of a plan, summed up."""

    name: str
    layers: str
    """What the steps are, for a part that is one layer."""
    output: Shape
    cost: Cost
    step: int
    """The step whose value it passes on."""
    figure: int
    """Its work under the convention asked for; the parts' sum to the tally's total."""


def load(name: str | os.PathLike[str], /, *, input: Size | None = None, aux: bool = False, **parameters: int) -> Plan:
    """The plan of a model: a name in the zoo or a path to a YAML file, at an input size, with parameters set.

    Raises UsageError for an unknown model, file or parameter, SpecError for a spec that does not hold together.
    """
    return lower(read(os.fspath(name), zoo=Zoo(), input=as_shape(input), parameters=parameters), aux=aux)


def profile(
    model: str | os.PathLike[str],
    /,
    *,
    input: Size | None = None,
    aux: bool = False,
    batch: int = 1,
    device: str | None = None,
    convention: str = DEFAULT,
    **parameters: int,
) -> Profile:
    """A model's profile; measured as well if a device is named (`cpu`, `cuda`, `cuda:1`).

    `convention` is how its work is counted: a tool's way (`fvcore`, `thop`, ...), which `tally` has.

    `torchvision:resnet50`, `timm:convnext_tiny` and `net.py:Net`, whose file is run, are models too.
    Raises UsageError and SpecError as `load` does, UsageError for a device or convention there is not, ResourceError
    if memory does not suffice.
    """
    return profile_model(
        os.fspath(model), parameters, input=input, aux=aux, batch=batch, device=device, convention=convention,
        modules=True,
    )  # fmt: skip


def profile_module(module: nn.Module, /, *, input: Size | None = None, name: str | None = None) -> Profile:
    """A PyTorch model's profile, counted on one image of 3 x 224 x 224 or as told, in evaluation.

    The model is left as it was to the bit: a copy of it is run, without its weights where that will do. Raises
    UsageError for a model that cannot be copied, takes other inputs than one image, or fails.
    """
    from resnetcli.report.foreign import of_module

    return _of_seen(of_module(module, as_shape(input), name))


def profile_model(
    model: str,
    parameters: Mapping[str, int],
    *,
    input: Size | None = None,
    aux: bool = False,
    batch: int = 1,
    device: str | None = None,
    zoo: Zoo | None = None,
    modules: bool = False,
    convention: str = DEFAULT,
) -> Profile:
    """`profile` with the parameters as a mapping, so that none of their names can be taken for an option.

    PyTorch models are profiled only with `modules`: what works on specs must not run a file.
    """
    zoo = zoo or Zoo()
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", hint="at least 1")
    counting = find_convention(convention)
    if modules and module_reference(model):
        from resnetcli.report.foreign import of_reference

        if device is not None:
            raise UsageError(f"`{model}` cannot be measured, only counted", "leave `--device` out")
        return _of_seen(of_reference(model, parameters, as_shape(input)), batch, counting)
    if device is not None:
        from resnetcli.measure.device import find

        device = find(device)
    spec = read(model, zoo=zoo, input=as_shape(input), parameters=parameters)
    plan = lower(spec, aux=aux)
    counts = count(plan)
    measurements: tuple[Measurement, ...] = ()
    if device is not None:
        from resnetcli.measure.latency import measure

        measurements = (measure(plan, device=device, batch=batch),)
    found = () if aux and spec.aux else judged(spec, plan, counts)
    heads = Heads(*(count(lower(spec, aux=flag)) for flag in (False, True))) if spec.aux else None
    return Profile(model, zoo.family(model), spec, plan, counts, found, heads, batch, measurements, convention=counting)


def _of_seen(seen: Seen, batch: int = 1, convention: Convention = CONVENTIONS[DEFAULT]) -> Profile:
    step_elements(seen.plan, convention)  # which a PyTorch model may not show
    return Profile(
        seen.plan.name, "", seen.spec, seen.plan, count(seen.plan), (), batch=batch, notes=seen.notes,
        convention=convention,
    )  # fmt: skip


def as_shape(size: Size | None) -> Shape | None:
    """An input size as a shape: `"3x224x224"`, `(3, 224, 224)` or a Shape. Raises UsageError for anything else."""
    if size is None or isinstance(size, Shape):
        return size
    text = size if isinstance(size, str) else "x".join(map(str, size))
    shape = parse_input(text)
    if shape is None:
        raise UsageError(
            f"`{text}` is not an input size",
            hint=f"channels x height x width, for example 3x224x224, at most {MAX_SIZE:,} on a side",
        )
    return shape


def parts(profile: Profile, by: By) -> list[Part]:
    """The net's costs by table row, by block (an item of a row, each copy by itself) or by layer."""
    plan, counts, figures = profile.plan, profile.counts, step_figures(profile.plan, profile.convention)
    groups: dict[str, list[int]] = {}
    for row, steps in row_steps(plan).items():
        if by == "row" or not steps:
            groups[row] = list(steps)
            continue
        for index in steps:
            groups.setdefault(_group(profile, plan.steps[index].path, row, by), []).append(index)
    found = []
    for name, indices in groups.items():
        passed = [i for i in indices if ".aside." not in plan.steps[i].path] or indices
        last = plan.rows[name] if by == "row" or not indices else passed[-1]
        layers = " ".join(_step_text(plan.steps[i]) for i in indices) if by == "layer" else ""
        cost = sum_costs(counts.steps[i] for i in indices)
        found.append(Part(name, layers, plan.steps[last].shape, cost, last, sum(figures[i] for i in indices)))
    return found


def _step_text(step: Step) -> str:
    """A step as the grammar writes it: `3x3 128 C=32 /2`, `3x3 max /2`, `fc 1000`, `bn`."""
    match step.op:
        case Conv(channels, kernel, stride, pad, dilation, groups):
            same = tuple((k - 1) * dilation // 2 for k in kernel)
            layer = ConvLayer(kernel, channels, groups, stride, dilation, None if pad == same else pad[0])
            return layer_text(layer)
        case Pool(kind, kernel, stride, pad, ceil, count_pad):
            same = tuple((k - 1) // 2 for k in kernel)
            return layer_text(PoolLayer(kind, kernel, stride, None if pad == same else pad[0], ceil, count_pad))
        case Linear(features=features):
            return f"fc {features}"
        case Traced(text=text):
            return text
        case _:
            return step.path.rpartition(".")[2]


def _group(profile: Profile, path: str, row: str, by: By) -> str:
    """The part a step belongs to: `conv3_x.0.2` is a block, `conv3_x.0.2.F.1` a layer."""
    if by == "layer":
        return path.rpartition(".")[0]
    spec, inside = profile.spec, path[len(row) + 1 :].split(".")
    if not spec.rows:  # a PyTorch model: children of its children; the last word is a step's
        return ".".join([row, *inside[:-1][:1]])
    items = spec.aux[row.removeprefix("aux.")] if row.startswith("aux.") else spec.rows[row]
    item = items[int(inside[0])]
    numbered = item.times is not None or isinstance(item.what, Residual)
    return ".".join([row, *inside[: 2 if numbered else 1]])


def settings_text(settings: Mapping[str, int]) -> str:
    """`C=8 d=14`."""
    return " ".join(f"{name}={value}" for name, value in settings.items())
