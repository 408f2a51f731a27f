"""Turn a recorded run into a plan, with notes on what its figures include and omit."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor
from torch.nn.parameter import is_lazy

from resnetcli.errors import UsageError, plural
from resnetcli.frozen import frozen
from resnetcli.net.outputs import tensors
from resnetcli.net.recorder import RecordedStep, Recorder
from resnetcli.ops import Input, Shape, Traced
from resnetcli.plan.plan import Plan, Step, Where
from resnetcli.spec.inputs import Inputs, first_shape, image_of


@frozen
class Trace:
    """A model as a plan."""

    plan: Plan
    notes: tuple[str, ...]
    """Caveats about the figures, one sentence each."""


def trace_of(recorder: Recorder, output: object, name: str, title: str) -> Trace:
    """The plan of a recorded run: a stage for each visit to a child, `layer1` and later `layer1#2`.

    Raises UsageError for tokens that exceed the vocabulary of an embedding.
    """
    result = next(tensors(output), None)
    source = recorder.provenance.dependent(result)
    last = max(source.steps, default=-1) if source else len(recorder.steps) - 1
    notes = _unused_parameters(recorder)
    first = first_shape(recorder.inputs)
    steps = [Step(Where("input"), Input(first), (), first)]
    indices = {-1: 0}
    stages: dict[str, int] = {}
    uncalled = _uncalled(recorder)
    paths, visits = Counter[str](), Counter[str]()
    for visit, stage in enumerate(recorder.visits):
        visits[stage] += 1
        stage = f"{stage}#{visits[stage]}" if visits[stage] > 1 else stage
        stage_steps: list[tuple[int | None, RecordedStep]] = [(None, step) for step in uncalled if step.visit == visit]
        stage_steps += [(index, step) for index, step in enumerate(recorder.steps) if step.visit == visit]
        for index, step in stage_steps:
            if index is not None:
                indices[index] = len(steps)
            where = _where(stage, step, paths)
            steps.append(Step(where, step.op, tuple(indices[i] for i in step.inputs), step.shape))
        stages[stage] = len(steps) - 1
    plan = Plan(name, title, tuple(steps), stages, (indices[last],), {}, inputs=_with_vocabulary(recorder))
    notes += _notes(recorder, depends=source is not None or result is None)
    return Trace(plan, tuple(notes))


def _where(stage: str, step: RecordedStep, paths: Counter[str]) -> Where:
    """The step's place: its module's path, then the first word of its text, numbered if the path is not new."""
    where = Where(stage)
    for name in filter(None, step.path.split(".")):
        where = where.item_at(name)
    kind = step.op.text.partition(" ")[0].replace(".", "_")
    path = f"{where.path}.{kind}"
    paths[path] += 1
    return where.level(f"{kind}#{paths[path]}" if paths[path] > 1 else kind)


def _with_vocabulary(recorder: Recorder) -> Inputs:
    """The inputs with the vocabulary that was used; empty for one image."""
    if image_of(recorder.inputs):
        return ()
    vocabulary = recorder.vocabulary
    for each in recorder.inputs:
        if each.bound and vocabulary and each.bound > vocabulary:
            raise UsageError(
                f"`{each.text}` exceeds the vocabulary of an embedding, {vocabulary:,}",
                f"`{dataclasses.replace(each, bound=vocabulary).text}`",
            )
    return tuple(
        dataclasses.replace(each, bound=each.bound or vocabulary) if each.kind == "tokens" else each
        for each in recorder.inputs
    )


# --- notes -------------------------------------------------------------------------------------------------------


def _notes(recorder: Recorder, *, depends: bool) -> Iterator[str]:
    provenance = recorder.provenance
    registered: Iterable[Any] = recorder.module.parameters()
    parameters = {provenance.storage(p): p.numel() for p in registered if not is_lazy(p)}
    if not depends:
        yield "no torch operation leads from the image to the output: other computation (NumPy) is not counted"
    if recorder.multiplies_activations:
        yield "MACs and activations include products of two activations, as in attention"
    if recorder.constant_macs:
        yield f"MACs include {recorder.constant_macs:,} that do not depend on the image (weights computed from weights)"
    other = set[int]().union(*(origins for origins in recorder.weights if not origins & parameters.keys()))
    if other:
        yield (
            f"layers use {plural(sum(provenance.sizes[key] for key in other), 'weight')} that are not parameters, and "
            "are not counted as such: buffers, constants, packed weights, modules that are not registered"
        )
    calls = []
    for name, uncounted in sorted(recorder.uncounted.items()):
        read = sum(parameters.get(key, 0) for key in uncounted.origins)
        calls.append(f"{name} ({plural(uncounted.calls, 'call')}, {plural(read, 'parameter')})")
    if calls:
        yield f"not counted (no formula for their MACs): {', '.join(calls)}"


def _uncalled(recorder: Recorder) -> list[RecordedStep]:
    """Steps with the parameters of modules that were never called, in their stage."""
    recorder.register_modules()
    steps = []
    for path, module in recorder.module.named_modules():
        if params := recorder.count_parameters(module):
            stage, _, below = path.partition(".") if path else (recorder.root, "", "")
            if stage not in recorder.visits:
                recorder.visits.append(stage)
            op = Traced("(own)", params, 0, 0, 0)
            steps.append(RecordedStep(recorder.visits.index(stage), below, op, (), Shape(0, 0, 0)))
    return steps


def _unused_parameters(recorder: Recorder) -> list[str]:
    """A note that names the parameters that no operation read, whole modules by their name; empty if all are read."""

    def unread(parameters: Iterable[tuple[str, Tensor | None]]) -> dict[str, Tensor]:
        known = [(name, p) for name, p in parameters if p is not None and not is_lazy(p)]
        return {name: p for name, p in known if recorder.provenance.storage(p) not in recorder.provenance.read}

    names: list[str] = []
    unused: dict[int, Tensor] = {}
    for path, module in recorder.module.named_modules():
        if any(above == recorder.root or path.startswith(f"{above}.") for above in names):
            continue
        parameters: list[Any] = [*module.parameters()]
        whole = unread(module.named_parameters())
        if whole and len(whole) == len([p for p in parameters if not is_lazy(p)]):
            names.append(path or recorder.root)
            unused |= {id(p): p for p in whole.values()}
            continue
        new = {name: p for name, p in unread(module._parameters.items()).items() if id(p) not in unused}
        names += [f"{path}.{name}" if path else name for name in new]
        unused |= {id(p): p for p in new.values()}
    if not names:
        return []
    total = sum(p.numel() for p in unused.values())
    listed = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
    return [f"unused in this forward pass, their {plural(total, 'parameter')} counted: {listed}"]
