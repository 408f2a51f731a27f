"""What a spec means: a flat, topologically sorted tuple of typed primitive steps with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resnetcli.errors import Problem
from resnetcli.ops import Op, Shape


@dataclass(frozen=True, slots=True)
class Step:
    """One operation on one image."""

    path: str
    """`conv3_x.0.2.F.1.conv`: row, item, copy, ...; unique; its dots give the hierarchy back."""
    op: Op
    inputs: tuple[int, ...]
    """Indices of earlier steps."""
    shape: Shape
    """Of the output."""


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
    """What a user can set, and what it was set to."""
    warnings: tuple[Problem, ...] = field(default=(), compare=False, repr=False)
    """What is legal but hardly meant: a BN on a BN, parameters that influence no output."""

    @property
    def input(self) -> Shape:
        """The image's shape."""
        return self.steps[0].shape
