"""What a spec means: a flat, topologically sorted tuple of typed primitive steps with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from resnetcli.errors import Problem
from resnetcli.ops import Op, Shape
from resnetcli.spec.inputs import Inputs, describe
from resnetcli.spec.reference import UNNAMED, Origin

Role = Literal["", "F", "shortcut", "end", "aside"]
"""A residual block's body F, its shortcut, a step after both (addition, activation); the discarded body of `aside`."""


class Where(NamedTuple):
    """Where a step stands: in which stage, which item of it, which copy of a repeated item; deeper levels by `parent`.

    A named tuple: a plan has thousands, and a frozen dataclass takes four times as long to make.
    """

    stage: str
    """The table row; of an auxiliary head `aux.<row>`; of a PyTorch model the child module's name."""
    item: int | str | None = None
    """Index in the stage; of a PyTorch model the name of the child's child."""
    copy: int | None = None
    """Of a repeated item or a residual block."""
    role: Role = ""
    """Of this level; `inside` also searches the levels above."""
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
        """Path of the layer that a step belongs to: a convolution with its normalisation and activation is one."""
        return "" if self.parent is None else self.parent.path

    @property
    def block(self) -> str:
        """Path of the item, or of the copy of a repeated item: `conv3_x.0.2`."""
        return ".".join(str(part) for part in (self.stage, self.item, self.copy) if part is not None)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on one image."""

    where: Where
    op: Op
    inputs: tuple[int, ...]
    """Indices of earlier steps."""
    shape: Shape
    """Of the output."""

    @property
    def path(self) -> str:
        """`conv3_x.0.2.F.1.conv`: unique in a plan."""
        return self.where.path


@dataclass(frozen=True, slots=True)
class Plan:
    """A net, ready to be counted, drawn or built. `steps[0]` is the input."""

    name: str
    """What the user typed: a name in the zoo or a file's stem."""
    title: str
    """What the paper calls it."""
    steps: tuple[Step, ...] = field(repr=False)
    rows: Mapping[str, int] = field(repr=False)
    """Table row -> index of the step whose value it passes on. An auxiliary head is the row `aux.<row>`."""
    outputs: tuple[int, ...] = field(repr=False)
    """The net's output, then the auxiliary heads' if they were asked for."""
    parameters: Mapping[str, int]
    """Parameters and their values; those of a PyTorch model may be any literal."""
    inputs: Inputs = ()
    """Inputs of a PyTorch model other than one image."""
    origin: Origin = UNNAMED
    """Where the model comes from, so that a PyTorch model can be constructed again."""
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
    """Legal but probably unintended: a BN on a BN, parameters that influence no output."""

    @property
    def input(self) -> Shape:
        """The image's shape."""
        return self.steps[0].shape

    @property
    def input_text(self) -> str:
        """`3 x 224 x 224`, `128 tokens`."""
        return describe(self.inputs) if self.inputs else str(self.input)

    @property
    def input_sizes(self) -> tuple[int, ...]:
        """Channels, height and width; of other inputs the sizes of each, one after the other."""
        if self.inputs:
            return tuple(size for each in self.inputs for size in each.sizes)
        return self.input.c, self.input.h, self.input.w
