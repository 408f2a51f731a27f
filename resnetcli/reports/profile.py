"""A model's profile: its spec, plan, counts, published figures and measurements."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from resnetcli.bench.options import DEFAULT as DEFAULT_RUN
from resnetcli.bench.options import TIME_BUDGET_S, BenchmarkOptions, RunOptions
from resnetcli.counting.conventions import CONVENTIONS, DEFAULT, find_convention, tally
from resnetcli.counting.tally import Convention, Tally, step_elements, step_figures
from resnetcli.errors import ResourceError
from resnetcli.frozen import frozen
from resnetcli.ops import Conv, Linear, Pool, Shape, Traced
from resnetcli.plan.count import Cost, Counts, count, stage_steps, sum_costs
from resnetcli.plan.lower import lower
from resnetcli.plan.memory import Memory, memory
from resnetcli.plan.plan import Plan, Step
from resnetcli.reports.verdict import Judged, judge_published
from resnetcli.spec.inputs import Size, as_inputs, as_shape
from resnetcli.spec.read import read
from resnetcli.spec.reference import origin_of
from resnetcli.spec.spec import ConvLayer, PoolLayer, Spec
from resnetcli.spec.words import layer_text
from resnetcli.spec.zoo import UnknownModelError, Zoo

if TYPE_CHECKING:
    from torch import nn

    from resnetcli.bench.benchmark import Failure, Results
    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.search import SettingsSearch
    from resnetcli.reports.foreign import TracedModel

Batches = int | Sequence[int]
STATIC = BenchmarkOptions()
"""Nothing is measured."""
By = Literal["stage", "block", "layer"]


@frozen
class Heads:
    """Counts of a model without and with its auxiliary heads."""

    without: Counts
    """Without the heads, as at inference."""
    with_them: Counts
    """With the heads, as in training."""


@dataclass(frozen=True)  # without slots, which `cached_property` cannot use
class Profile:
    """The results of a model. Counts are for one image at any batch size."""

    model: str
    """As given: a name in the zoo or a path."""
    family: str
    parsed: Spec | None = field(repr=False)
    """None for a PyTorch model."""
    plan: Plan
    counts: Counts
    judged: tuple[Judged, ...] = field(repr=False)
    heads: Heads | None = field(default=None, repr=False)
    """None for a model without auxiliary heads."""
    batches: tuple[int, ...] = (1,)
    """Batch sizes to measure."""
    measurements: tuple[Measurement, ...] = ()
    """One per setting and batch size; empty without a device."""
    failures: tuple[Failure, ...] = ()
    """Settings and batch sizes that could not be measured."""
    notes: tuple[str, ...] = ()
    """Remarks on the figures, one sentence each."""
    convention: Convention = CONVENTIONS[DEFAULT]
    """Counting convention of the work."""
    searches: tuple[SettingsSearch, ...] = ()
    """Searches for the fastest settings, one per batch size; empty without `--best`."""
    library: str = ""
    """Library of a PyTorch model, with its version."""

    @property
    def spec(self) -> Spec:
        """The model's spec. Raises ValueError for a PyTorch model, which has none."""
        if self.parsed is None:
            raise ValueError(f"`{self.model}` has no spec")
        return self.parsed

    @property
    def cite(self) -> str:
        """The spec's `cite:`, or the library a PyTorch model is from."""
        return self.library if self.parsed is None else self.parsed.cite

    @property
    def batch(self) -> int:
        """The first batch size."""
        return self.batches[0]

    @property
    def label(self) -> str:
        """The model with the parameters that were set: `resnext50_32x4d C=8 d=14`."""
        return self.plan.label(self.model)

    @property
    def item(self) -> str:
        """Unit of a batch: `image`, or `input` for other inputs, such as tokens."""
        return "input" if self.plan.inputs else "image"

    def with_results(self, results: Results) -> Profile:
        """This profile with the results of a benchmark."""
        return replace(self, measurements=results.measurements, failures=results.failures, searches=results.searches)

    @cached_property
    def tally(self) -> Tally:
        """Total under the chosen convention."""
        return tally(self.plan, self.convention)

    @cached_property
    def memory(self) -> Memory:
        """The memory of one forward pass in float32."""
        return memory(self.plan)


@frozen
class Part:
    """Sum over some steps of a plan."""

    name: str
    layers: str
    """The layer, in the grammar's words; only for a part that is one layer."""
    output: Shape
    cost: Cost
    step: int
    """Index of the step with the part's output."""
    figure: int
    """Work under the chosen convention; over all parts it sums to the tally's total."""


def load(name: str | os.PathLike[str], /, *, input: Size | None = None, aux: bool = False, **parameters: int) -> Plan:
    """The plan of a model: a name in the zoo or a path to a YAML file, at an input size, with parameters set.

    Raises UsageError for an unknown model, file or parameter, SpecError for an invalid spec.
    """
    return lower(read(os.fspath(name), zoo=Zoo(), input=as_shape(input), parameters=parameters), aux=aux)


def profile(
    model: str | os.PathLike[str],
    /,
    *,
    input: Size | None = None,
    aux: bool = False,
    batch_size: Batches = 1,
    device: str | None = None,
    time_budget_s: float = TIME_BUDGET_S,
    options: RunOptions = DEFAULT_RUN,
    best: bool = False,
    memory: bool = False,
    energy: bool = False,
    convention: str = DEFAULT,
    **parameters: int,
) -> Profile:
    """A model's profile; benchmarked as well with a `device` (`cpu`, `cuda`, `cuda:1`), `time_budget_s` per batch size.

    `convention` selects a tool's counting rules (`fvcore`, `thop`, ...), for `tally`. `options` are how the model is
    run; with `best` the fastest options are searched for, and it is measured under them. `memory` also measures
    the peak memory of a separate process, `energy` reads the device's meter for some seconds.

    `torchvision:resnet50`, `timm:convnext_tiny` and `net.py:Net`, whose file is run, are models too.
    Raises UsageError and SpecError as `load` does, UsageError for an unknown device or convention, ResourceError
    if memory does not suffice.
    """
    benchmark = BenchmarkOptions(
        batch_sizes=as_batches(batch_size), device=device, time_budget_s=time_budget_s, run=options, best=best,
        memory=memory, energy=energy,
    )  # fmt: skip
    found = profile_model(
        os.fspath(model), parameters, input=input, aux=aux, benchmark=benchmark, convention=convention, modules=True
    )
    if device is not None and not found.measurements:
        raise ResourceError(found.failures[-1].problem)
    return found


def profile_module(module: nn.Module, /, *, input: Size | None = None, name: str | None = None) -> Profile:
    """A PyTorch model's profile, counted on one image of 3 x 224 x 224 or as given, in evaluation.

    The model is left as it was to the bit: a copy of it is run, without its weights where that will do. Raises
    UsageError for a model that cannot be copied, takes other inputs than one image, or fails.
    """
    from resnetcli.reports.foreign import of_module

    return _of_traced(of_module(module, as_inputs(input), name))


def profile_model(
    model: str,
    parameters: Mapping[str, int],
    *,
    input: Size | None = None,
    aux: bool = False,
    benchmark: BenchmarkOptions = STATIC,
    zoo: Zoo | None = None,
    modules: bool = False,
    convention: str = DEFAULT,
    progress: Callable[[float], None] = lambda share: None,
) -> Profile:
    """`profile` with the parameters as a mapping, so that none of their names can be taken for an option.

    PyTorch models are profiled only with `modules`: what works on specs must not run a file. `progress` receives
    the completed share of the benchmark, from 0 to 1. What could not be measured is in `failures`, even if all failed.
    """
    zoo = zoo or Zoo()
    counting = find_convention(convention)
    benchmark = benchmark.resolve_device()
    batches = benchmark.batch_sizes
    if modules and origin_of(model).is_pytorch:
        from resnetcli.reports.foreign import of_reference

        found = _of_traced(of_reference(model, parameters, as_inputs(input)), batches, counting)
    else:
        try:
            spec = read(model, zoo=zoo, input=as_shape(input), parameters=parameters)
        except UnknownModelError as error:
            raise error.for_any_model() if modules else error from None
        plan = lower(spec, aux=aux)
        counts = count(plan)
        printed = () if aux and spec.aux else judge_published(spec, plan, counts)
        heads = Heads(*(count(lower(spec, aux=flag)) for flag in (False, True))) if spec.aux else None
        found = Profile(model, zoo.family(model), spec, plan, counts, printed, heads, batches, convention=counting)
    if benchmark.device is None:
        return found
    from resnetcli.bench.benchmark import benchmark as measure

    return found.with_results(measure(found.plan, benchmark, progress))


def as_batches(batch: Batches) -> tuple[int, ...]:
    """Each batch size once, in the order given."""
    return tuple(dict.fromkeys([batch] if isinstance(batch, int) else batch))


def _of_traced(
    model: TracedModel, batches: tuple[int, ...] = (1,), convention: Convention = CONVENTIONS[DEFAULT]
) -> Profile:
    step_elements(model.plan, convention)  # raises for a convention that counts more than a PyTorch model shows
    return Profile(
        model.plan.name, "", None, model.plan, count(model.plan), (), batches=batches, notes=model.notes,
        convention=convention, library=model.cite,
    )  # fmt: skip


def parts(profile: Profile, by: By) -> list[Part]:
    """The model's costs by stage, by block (an item of a stage, each copy separately) or by layer."""
    plan, counts, figures = profile.plan, profile.counts, step_figures(profile.plan, profile.convention)
    groups: dict[str, list[int]] = {}
    for row, steps in stage_steps(plan).items():
        if by == "stage" or not steps:
            groups[row] = list(steps)
            continue
        for index in steps:
            groups.setdefault(
                plan.steps[index].where.layer if by == "layer" else plan.steps[index].where.block, []
            ).append(index)
    found = []
    for name, indices in groups.items():
        passed = [i for i in indices if not plan.steps[i].where.inside("aside")] or indices
        last = plan.stages[name] if by == "stage" or not indices else passed[-1]
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
            return step.where.name
