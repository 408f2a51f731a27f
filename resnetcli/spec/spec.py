"""A spec: what the author of a table wrote, its names and parameters resolved, still one row per stage.

Every number is known here; no shape is. What a table *means* is decided in `resnetcli.plan.lower` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Literal

from resnetcli.errors import At
from resnetcli.ops import Activation, Norm, Op, Shape


@dataclass(frozen=True, slots=True)
class ConvLayer:
    """`3x3 128 C=32 /2 dil=2 V linear`."""

    kernel: tuple[int, int]
    channels: int | None = None
    """None: as many as came in; in a shortcut, as many as F gives."""
    groups: int | Literal["dw"] = 1
    stride: int = 1
    dilation: int = 1
    pad: int | None = None
    """None: (K-1)*dil//2 on each side; `V` is 0."""
    finish: Literal["style", "linear", "bare"] = "style"
    """`linear`: convolution and bias only; `bare`: the weights alone."""


@dataclass(frozen=True, slots=True)
class PoolLayer:
    """`3x3 max /2 ceil`, `3x3 avg(pad)`."""

    kind: Literal["max", "avg"]
    kernel: tuple[int, int]
    stride: int = 1
    pad: int | None = None
    ceil: bool = False
    count_pad: bool = False


@dataclass(frozen=True, slots=True)
class Residual:
    """`residual [scale] [linear]: body`; F is multiplied by scale; linear = no activation after the sum."""

    body: tuple[Item, ...]
    scale: float | None = None
    linear: bool = False


@dataclass(frozen=True, slots=True)
class Branches:
    """`concat:` or `sum:` of branches, or N equal ones with `of N`."""

    kind: Literal["concat", "sum"]
    branches: tuple[tuple[Item, ...], ...]
    of: int | None = None
    """N of `of N`; `branches` then holds the one body."""


@dataclass(frozen=True, slots=True)
class Sequence:
    """`seq: body`."""

    body: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Aside:
    """`aside: body`: computed and counted, not passed on."""

    body: tuple[Item, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """A named block with its arguments; its body stands in its place, for every rule."""

    block: str
    args: tuple[int, ...]
    body: tuple[Item, ...]


Layer = ConvLayer | PoolLayer | Op
"""Convolutions and pools have what the table leaves open: padding, channels, form. Any other layer is its operation."""
Composite = Residual | Branches | Sequence | Aside | Call


@dataclass(frozen=True, slots=True)
class Item:
    """One entry of a row: a layer or a composite, `times` over."""

    what: Layer | Composite
    times: int | None = None
    """N of `x N`; None where none is written."""
    at: At | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class ConvStyle:
    """What a bare `3x3 64` stands for: the header's `conv:`."""

    before: tuple[Norm | Activation, ...] = ()
    bias: bool = False
    after: tuple[Norm | Activation, ...] = ()

    @property
    def activates_first(self) -> bool:
        """Pre-activation: an activation stands right before the convolution."""
        return bool(self.before) and not isinstance(self.before[-1], Norm)

    @property
    def norm_before(self) -> Norm | None:
        """The normalisation before the convolution."""
        return next((op for op in self.before if isinstance(op, Norm)), None)

    @property
    def norm(self) -> Norm | None:
        """The normalisation that follows the convolution, which a projection shortcut has too."""
        return next((op for op in self.after if isinstance(op, Norm)), None)


@dataclass(frozen=True, slots=True)
class Equation:
    """The header's `residual:`: `relu(x + F)` and its kin."""

    adds: bool = True
    """False: a plain net, F alone."""
    activation: Activation | None = None


@dataclass(frozen=True, slots=True)
class Shortcut:
    """The header's `shortcut:`: options A, B and C of He et al. 2015, 3.3, or a list of layers."""

    kind: Literal["pad", "project", "project all", "layers"] = "project"
    layers: Callable[[int], tuple[Item, ...]] | None = field(default=None, compare=False, repr=False)
    """For `layers`: the list for a given stride `s`."""
    text: str = ""
    """The list as written, which tells two of them apart."""


@dataclass(frozen=True, slots=True)
class Published:
    """One figure exactly as printed, with where it was printed."""

    figure: str
    """`params`, `macs`, `flops`, `top1_error`, ..."""
    printed: str
    """`25.5M`, `22.2`."""
    value: Decimal
    """The printed figure as a number: 25500000, 22.2."""
    quantum: Decimal
    """What its last digit stands for: 100000, 0.1."""
    source: str
    table: str
    protocol: str = ""
    dataset: str = ""
    note: str = ""
    label: str = ""
    """What the row of the paper's table is called, where it is not the net's name."""
    detail: str = ""
    """What else the paper says of the figure: number of runs, training crop, ..."""
    row: int | None = None
    """Which row of the table it stands in, from 1; None where that is not said."""


@dataclass(frozen=True, slots=True)
class Expect:
    """The regression baseline, exact integers."""

    figures: Mapping[str, int]
    """`params`, `macs`, `activations`, `depth`: those that are written."""
    sizes: tuple[int, ...] | None = None
    """Height of each row's output."""
    at: At | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Spec:
    """A whole table, ready to be lowered or printed."""

    name: str
    title: str
    cite: str
    about: str
    """What distinguishes the net from those around it."""
    deviations: tuple[str, ...]
    """Where it is known not to be what its paper prints."""
    input: Shape
    style: ConvStyle
    equation: Equation
    shortcut: Shortcut
    rows: Mapping[str, tuple[Item, ...]]
    aux: Mapping[str, tuple[Item, ...]]
    parameters: Mapping[str, int]
    """What a user can set (`classes` and the numbers of `let:`), with the values in force."""
    changed: frozenset[str]
    """Parameters that were set to something else than the spec says, and `input` likewise."""
    published: tuple[Published, ...]
    expect: Expect | None
    extends: tuple[str, ...]
    """The specs it starts from, nearest first."""
    places: Mapping[str, At]
    """Where each row stands, for errors."""
