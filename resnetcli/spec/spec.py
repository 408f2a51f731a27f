"""A parsed spec: one entry per stage, names and parameters resolved. `resnetcli.plan.lower` infers the shapes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from decimal import Decimal
from typing import Literal

from resnetcli.errors import At
from resnetcli.frozen import frozen
from resnetcli.ops import Activation, Norm, Op, Shape


@frozen
class ConvLayer:
    """`3x3 128 C=32 /2 dil=2 V linear`."""

    kernel: tuple[int, int]
    channels: int | None = None
    """None: as many as the input has; in a shortcut, as many as F puts out."""
    groups: int | Literal["dw"] = 1
    stride: int = 1
    dilation: int = 1
    pad: int | None = None
    """None: (K-1)*dil//2 on each side; `V` is 0."""
    finish: Literal["style", "linear", "bare"] = "style"
    """`linear`: convolution with bias only; `bare`: convolution without bias only."""


@frozen
class PoolLayer:
    """`3x3 max /2 ceil`, `3x3 avg(pad)`."""

    kind: Literal["max", "avg"]
    kernel: tuple[int, int]
    stride: int = 1
    pad: int | None = None
    ceil: bool = False
    count_pad: bool = False


@frozen
class Residual:
    """`residual [scale] [linear]: body`; F is multiplied by `scale`; `linear`: no activation after the sum."""

    body: tuple[Item, ...]
    scale: float | None = None
    linear: bool = False


@frozen
class Branches:
    """`concat:` or `sum:` of branches, or of N equal branches with `of N`."""

    kind: Literal["concat", "sum"]
    branches: tuple[tuple[Item, ...], ...]
    of: int | None = None
    """N of `of N`; `branches` then has one element."""


@frozen
class Sequence:
    """`seq: body`."""

    body: tuple[Item, ...]


@frozen
class Aside:
    """`aside: body`: computed and counted, its output discarded."""

    body: tuple[Item, ...]


@frozen
class Call:
    """A named block with its arguments, expanded inline."""

    block: str
    args: tuple[int, ...]
    body: tuple[Item, ...]


Layer = ConvLayer | PoolLayer | Op
"""A convolution or pool may leave padding, channels and form open; any other layer is its operation."""
Composite = Residual | Branches | Sequence | Aside | Call


@frozen
class Item:
    """One entry of a stage: a layer or a composite, repeated `times`."""

    what: Layer | Composite
    times: int | None = None
    """N of `x N`; None if not written."""
    at: At | None = field(default=None, compare=False, repr=False)


@frozen
class ConvStyle:
    """Operations around a convolution written `3x3 64`: the header's `conv:`."""

    before: tuple[Norm | Activation, ...] = ()
    bias: bool = False
    after: tuple[Norm | Activation, ...] = ()

    @property
    def activates_first(self) -> bool:
        """Whether an activation directly precedes the convolution: pre-activation."""
        return bool(self.before) and not isinstance(self.before[-1], Norm)

    @property
    def norm_before(self) -> Norm | None:
        """The normalisation before the convolution."""
        return next((op for op in self.before if isinstance(op, Norm)), None)

    @property
    def norm(self) -> Norm | None:
        """The normalisation after the convolution, also of a projection shortcut."""
        return next((op for op in self.after if isinstance(op, Norm)), None)


@frozen
class Equation:
    """The header's `residual:`, such as `relu(x + F)`."""

    adds: bool = True
    """False for a plain model: F only."""
    activation: Activation | None = None


@frozen
class Shortcut:
    """The header's `shortcut:`: options A, B and C of He et al. 2015, 3.3, or a list of layers."""

    kind: Literal["pad", "project", "project all", "layers"] = "project"
    layers: Callable[[int], tuple[Item, ...]] | None = field(default=None, compare=False, repr=False)
    """For `layers`: the list, given the stride `s`."""
    text: str = ""
    """The list as written, to compare two of them."""


@frozen
class Published:
    """One figure exactly as published, and where."""

    figure: str
    """`params`, `macs`, `flops`, `top1_error`, ..."""
    printed: str
    """`25.5M`, `22.2`."""
    value: Decimal
    """The figure as a number: 25500000, 22.2."""
    quantum: Decimal
    """The unit of its last digit: 100000, 0.1."""
    source: str
    table: str
    protocol: str = ""
    dataset: str = ""
    note: str = ""
    label: str = ""
    """Name of the row in the paper's table, if it is not the model's."""
    detail: str = ""
    """Further conditions from the paper: number of runs, training crop, ..."""
    row: int | None = None
    """Row of the paper's table, from 1; None if unknown."""


@frozen
class Expect:
    """The exact counts that `expect:` lists."""

    figures: Mapping[str, int]
    """The listed figures among `params`, `macs`, `activations` and `depth`."""
    sizes: tuple[int, ...] | None = None
    """Height of each stage's output."""
    at: At | None = field(default=None, compare=False, repr=False)


@frozen
class Spec:
    """A whole model, ready to be lowered or printed."""

    name: str
    title: str
    cite: str
    about: str
    """How the model differs from related ones."""
    deviations: tuple[str, ...]
    """Known deviations from the paper."""
    input: Shape
    style: ConvStyle
    equation: Equation
    shortcut: Shortcut
    stages: Mapping[str, tuple[Item, ...]]
    aux: Mapping[str, tuple[Item, ...]]
    parameters: Mapping[str, int]
    """Parameters a user can set (`classes` and the numbers of `let:`), with their values."""
    changed: frozenset[str]
    """Parameters, and `input`, whose value is not the spec's default."""
    published: tuple[Published, ...]
    expect: Expect | None
    extends: tuple[str, ...]
    """The specs it extends, nearest first."""
    places: Mapping[str, At]
    """Position of each stage, for errors."""
