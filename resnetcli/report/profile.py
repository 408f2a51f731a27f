"""Everything there is to say of one net: its spec, its plan, its counts, the printed figures, and measurements."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from resnetcli.errors import UsageError
from resnetcli.ops import Conv, Linear, Pool, Shape
from resnetcli.plan.count import Cost, Counts, count, row_steps, sum_costs
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan, Step
from resnetcli.report.verdict import Judged, judged
from resnetcli.spec.header import MAX_SIZE, parse_input
from resnetcli.spec.read import read
from resnetcli.spec.spec import ConvLayer, PoolLayer, Residual, Spec
from resnetcli.spec.words import layer_text
from resnetcli.spec.zoo import Zoo

if TYPE_CHECKING:
    from resnetcli.measure.latency import Measurement

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

    @property
    def settings(self) -> dict[str, int]:
        """The parameters that were set to something else than the spec says."""
        return {name: value for name, value in self.plan.parameters.items() if name in self.spec.changed}


@dataclass(frozen=True, slots=True)
class Part:
    """Some steps of a plan, summed up."""

    name: str
    layers: str
    """What the steps are, for a part that is one layer."""
    output: Shape
    cost: Cost


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
    **parameters: int,
) -> Profile:
    """A model's profile; measured as well if a device is named (`cpu`, `cuda`, `cuda:1`).

    Raises UsageError and SpecError as `load` does, UsageError for a device there is not, ResourceError if memory
    does not suffice.
    """
    return profile_model(os.fspath(model), parameters, input=input, aux=aux, batch=batch, device=device)


def profile_model(
    model: str,
    parameters: Mapping[str, int],
    *,
    input: Size | None = None,
    aux: bool = False,
    batch: int = 1,
    device: str | None = None,
    zoo: Zoo | None = None,
) -> Profile:
    """`profile` with the parameters as a mapping, so that none of their names can be taken for an option."""
    zoo = zoo or Zoo()
    if batch < 1:
        raise UsageError(f"a batch of {batch} images", hint="at least 1")
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
    return Profile(model, zoo.family(model), spec, plan, counts, found, heads, batch, measurements)


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
    plan, counts = profile.plan, profile.counts
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
        last = plan.steps[plan.rows[name] if by == "row" or not indices else passed[-1]]
        layers = " ".join(_step_text(plan.steps[i]) for i in indices) if by == "layer" else ""
        found.append(Part(name, layers, last.shape, sum_costs(counts.steps[i] for i in indices)))
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
        case _:
            return step.path.rpartition(".")[2]


def _group(profile: Profile, path: str, row: str, by: By) -> str:
    """The part a step belongs to: `conv3_x.0.2` is a block, `conv3_x.0.2.F.1` a layer."""
    if by == "layer":
        return path.rpartition(".")[0]
    spec, inside = profile.spec, path[len(row) + 1 :].split(".")
    items = spec.aux[row.removeprefix("aux.")] if row.startswith("aux.") else spec.rows[row]
    item = items[int(inside[0])]
    numbered = item.times is not None or isinstance(item.what, Residual)
    return ".".join([row, *inside[: 2 if numbered else 1]])


def settings_text(settings: Mapping[str, int]) -> str:
    """`C=8 d=14`."""
    return " ".join(f"{name}={value}" for name, value in settings.items())
