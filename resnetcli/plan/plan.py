"""What a spec means: a flat, topologically sorted tuple of typed primitive steps with shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from resnetcli.errors import Problem
from resnetcli.ops import Op, Shape
from resnetcli.spec.inputs import Inputs, describe


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
    """Parameters and their values; those of a PyTorch model may be any literal."""
    inputs: Inputs = ()
    """Inputs of a PyTorch model other than one image."""
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
