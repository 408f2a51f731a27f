"""Models that are easily taken for one another: with auxiliary heads, another stem or shortcut, at other sizes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from resnetcli.errors import SpecError, UsageError
from resnetcli.frozen import frozen
from resnetcli.ops import Shape
from resnetcli.plan.lower import lower
from resnetcli.plan.plan import Plan
from resnetcli.spec.read import read
from resnetcli.spec.spec import ConvLayer, PoolLayer, Shortcut, Spec
from resnetcli.spec.summary import parents
from resnetcli.spec.zoo import Zoo

SIZES = (192, 224, 227, 256, 288, 299, 320, 331, 384)
"""Square inputs that models are usually run on."""
CLASSES = (10, 100, 200, 365, 1000, 21841, 21843)
"""CIFAR-10, CIFAR-100, Tiny ImageNet, Places365, ImageNet-1K, ImageNet-21K with and without two empty classes."""
CIFAR = Shape(3, 32, 32)
OPTIONS = {"A": "pad", "B": "project", "C": "project all"}
"""Shortcuts in He et al. 2015, section 3.3."""


@frozen
class Variant:
    """The model in question, or one that is easily taken for it."""

    model: str
    settings: str
    """`C=8 d=14`."""
    input: Shape
    aux: bool
    """Whether auxiliary heads are included."""
    text: str
    """The difference: `as asked`, `with auxiliary heads`, `at 3 x 256 x 256`, `resnet50_v1`."""
    distance: int = 0
    """Number of differences."""
    of_classes: bool = False
    """Whether only the number of classes differs, which changes little but the parameters."""


def near_variants(itself: Variant, settings: Mapping[str, int], spec: Spec, zoo: Zoo) -> Iterator[tuple[Variant, Plan]]:
    """Models with one difference, the likeliest first. `spec` is the model itself at its own or the asked input."""
    if spec.aux:
        text = "without auxiliary heads" if itself.aux else "with auxiliary heads"
        yield replace(itself, aux=not itself.aux, text=text, distance=1), lower(spec, aux=not itself.aux)
    for name in () if settings else relatives(itself.model, spec, zoo):
        yield from _read(replace(itself, model=name, aux=False, text=name, distance=1), zoo, {})
    for text, other in _shortcuts(spec):
        yield from _lowered(replace(itself, text=text, distance=1), other)
    for number, (text, other) in enumerate(_cifar(itself.model, spec, zoo, settings)):
        variant = replace(itself, input=other.input, text=text, distance=1, of_classes=number > 0)
        yield from _lowered(variant, other)
    for classes in CLASSES:
        if "classes" in spec.parameters and "classes" not in settings and classes != spec.parameters["classes"]:
            variant = replace(itself, text=f"with {classes:,} classes", distance=1, of_classes=True)
            yield from _read(variant, zoo, {**settings, "classes": classes})
    for size in _sizes(itself.input):
        yield from _read(replace(itself, input=size, text=f"at {size}", distance=1), zoo, settings)


def far_variants(itself: Variant, settings: Mapping[str, int], spec: Spec, zoo: Zoo) -> Iterator[tuple[Variant, Plan]]:
    """Models with two differences: relatives at other sizes."""
    for name in () if settings else relatives(itself.model, spec, zoo):
        for size in _sizes(itself.input):
            variant = replace(itself, model=name, aux=False, input=size, text=f"{name} at {size}", distance=2)
            yield from _read(variant, zoo, {})


def _sizes(input: Shape) -> list[Shape]:
    """The usual sizes, the nearest first, without the one at hand."""
    found = [Shape(input.c, size, size) for size in sorted(SIZES, key=lambda size: abs(size - input.h))]
    return [size for size in found if size != input]


def _read(variant: Variant, zoo: Zoo, parameters: Mapping[str, int]) -> Iterator[tuple[Variant, Plan]]:
    """The variant's plan; nothing if it takes no such input or parameters."""
    try:
        spec = read(variant.model, zoo=zoo, input=variant.input, parameters=parameters)
    except (SpecError, UsageError):
        return
    yield from _lowered(variant, spec)


def _lowered(variant: Variant, spec: Spec) -> Iterator[tuple[Variant, Plan]]:
    try:
        yield variant, lower(spec, aux=variant.aux)
    except SpecError:
        return


def _shortcuts(spec: Spec) -> Iterator[tuple[str, Spec]]:
    """The same model with the other shortcut options."""
    if not spec.equation.adds or spec.shortcut.kind not in OPTIONS.values():
        return
    for option, kind in OPTIONS.items():
        if kind != spec.shortcut.kind:
            yield f"with option {option} shortcuts", replace(spec, shortcut=Shortcut(kind))  # type: ignore[arg-type]


def _cifar(model: str, spec: Spec, zoo: Zoo, settings: Mapping[str, int]) -> Iterator[tuple[str, Spec]]:
    """An ImageNet model as it is usually adapted to CIFAR."""
    if _cifar_stem(spec) is None:
        return
    own = spec.parameters.get("classes", 0)
    for classes in [own] if "classes" in settings else CLASSES[:3]:
        try:
            cut = _cifar_stem(read(model, zoo=zoo, input=CIFAR, parameters={**settings, "classes": classes}))
        except UsageError:  # the number of classes is fixed
            return
        if cut is not None:
            yield f"with a 3x3 stem, no max pooling, {classes:,} classes, at {CIFAR}", cut


def _cifar_stem(spec: Spec) -> Spec | None:
    """A 3x3 convolution of stride 1 in place of a 7x7 one and max pooling; None for another stem."""
    first = [(row, item) for row, items in spec.stages.items() for item in items][:2]
    match [item.what for _, item in first]:
        case [ConvLayer(kernel=(7, 7), stride=2) as conv, PoolLayer(kind="max")]:
            (row, stem), (below, pool) = first
        case _:
            return None
    rows = dict(spec.stages)
    rows[row] = (replace(stem, what=replace(conv, kernel=(3, 3), stride=1, pad=None)), *rows[row][1:])
    rows[below] = tuple(item for item in rows[below] if item is not pool)
    return replace(spec, stages={name: items for name, items in rows.items() if items})


def relatives(model: str, spec: Spec, zoo: Zoo) -> list[str]:
    """Models of the zoo that extend this one or are extended by it, or whose name starts with its name."""
    near = set(spec.extends) & zoo.files.keys()
    parent = parents(zoo)
    near |= {name for name in zoo.files if name.startswith(model) or parent.get(name) in (model, *spec.extends)}
    near.discard(model)
    places = {name: place for place, name in enumerate(zoo.files)}
    return sorted(near, key=lambda name: (not name.startswith(model), not name.startswith(f"{model}_v"), places[name]))
