"""The plan of a model: a flat, topologically sorted tuple of operations with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Literal, NamedTuple

from resnetcli.errors import Problem
from resnetcli.frozen import frozen
from resnetcli.ops import Op, Shape
from resnetcli.spec.inputs import Inputs, describe_inputs
from resnetcli.spec.reference import UNNAMED, Origin

Role = Literal["", "F", "shortcut", "end", "aside"]
"""A residual block's body F, its shortcut, a step after both (addition, activation); the discarded body of `aside`."""


class Where(NamedTuple):
    """Position of a step: stage, item in the stage, copy of a repeated item; deeper levels by `parent`.

    A named tuple: a plan has thousands, and creating a frozen dataclass takes four times as long.
    """

    stage: str
    """Stage of the table; `aux.<stage>` for an auxiliary head; the child module's name for a PyTorch model."""
    item: int | str | None = None
    """Index in the stage; for a PyTorch model the name of the child's child."""
    copy: int | None = None
    """Index of the copy of a repeated item or a residual block."""
    role: Role = ""
    """Role of this level; `inside` also searches the levels above."""
    name: str = ""
    parent: Where | None = None

    def level(self, name: str | int, role: Role = "") -> Where:
        """A level below."""
        return Where(self.stage, self.item, self.copy, role, str(name), self)

    def item_at(self, index: int | str) -> Where:
        """An item below: of the stage, or of a body within one of its items."""
        item = index if self.item is None else self.item
        return Where(self.stage, item, self.copy, "", str(index), self)

    def copy_at(self, index: int) -> Where:
        """A copy of an item."""
        is_item = self.parent is not None and self.parent.parent is None
        return Where(self.stage, self.item, index if is_item else self.copy, "", str(index), self)

    def inside(self, role: Role) -> Where | None:
        """The innermost level with this role: this one or one above it."""
        level: Where | None = self
        while level is not None and level.role != role:
            level = level.parent
        return level

    @property
    def path(self) -> str:
        """`conv3_x.0.2.F.1.conv`: stage, item, copy and all further levels. Unique in a plan."""
        return self.stage if self.parent is None else f"{self.parent.path}.{self.name}"

    @property
    def layer(self) -> str:
        """Path of the step's layer: a convolution, its normalisation and its activation are one layer."""
        return "" if self.parent is None else self.parent.path

    @property
    def block(self) -> str:
        """Path of the item, or of the copy of a repeated item: `conv3_x.0.2`."""
        return ".".join(str(part) for part in (self.stage, self.item, self.copy) if part is not None)


@frozen
class Step:
    """One operation."""

    where: Where
    op: Op
    inputs: tuple[int, ...]
    """Indices of earlier steps."""
    shape: Shape
    """Output shape for one image."""

    @property
    def path(self) -> str:
        """`conv3_x.0.2.F.1.conv`: unique in a plan."""
        return self.where.path


@frozen
class Plan:
    """A model, ready to be counted, shown or built. `steps[0]` is the input."""

    name: str
    """Name in the zoo, or the file's stem."""
    title: str
    """Name in the paper."""
    steps: tuple[Step, ...] = field(repr=False)
    stages: Mapping[str, int] = field(repr=False)
    """Stage -> index of the step whose output it passes on. An auxiliary head is the stage `aux.<stage>`."""
    outputs: tuple[int, ...] = field(repr=False)
    """The model's output, then those of auxiliary heads that are included."""
    parameters: Mapping[str, int]
    """Parameters and their values; for a PyTorch model these may be any literal."""
    settings: Mapping[str, int] = field(default_factory=dict)
    """Parameters whose values are not the spec's."""
    inputs: Inputs = ()
    """Inputs of a PyTorch model other than one image."""
    origin: Origin = UNNAMED
    """Where the model comes from, so that a PyTorch model can be constructed again."""
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
    """Valid but probably unintended: a BN on a BN, parameters that affect no output."""

    def label(self, model: str) -> str:
        """A reference to the model with the parameters that were set: `resnext50_32x4d C=8 d=14`."""
        return " ".join(filter(None, (model, settings_text(self.settings))))

    @property
    def input(self) -> Shape:
        """The image's shape."""
        return self.steps[0].shape

    @property
    def input_text(self) -> str:
        """`3 x 224 x 224`, `128 tokens`."""
        return describe_inputs(self.inputs) if self.inputs else str(self.input)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Channels, height and width; for other inputs the sizes of each, concatenated."""
        if self.inputs:
            return tuple(size for each in self.inputs for size in each.sizes)
        return self.input.c, self.input.h, self.input.w


def settings_text(settings: Mapping[str, int]) -> str:
    """`C=8 d=14`."""
    return " ".join(f"{name}={value}" for name, value in settings.items())
