"""A counting convention: a weighted sum of a plan's elements, and a model's total under it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field
from typing import TYPE_CHECKING, Any, Literal

from resnetcli.errors import UsageError
from resnetcli.frozen import frozen

if TYPE_CHECKING:
    from resnetcli.plan.elements import Elements
    from resnetcli.plan.plan import Plan

Result = tuple[int, int | None]
"""A tool's total, and its number of parameters if it reports one."""


@frozen
class Defect:
    """Something a tool is known to do wrong."""

    text: str
    kinds: tuple[str, ...] = ()
    """The defect affects models with elements of these kinds; all models if empty."""
    affects: Callable[[Plan], bool] = field(default=lambda plan: True, repr=False)
    """A condition in addition to `kinds`."""


@frozen
class Convention:
    """How one tool counts, in one mode."""

    name: str
    tool: str
    """The tool, and its name of the figure."""
    mode: Literal["eval", "train", "any"]
    """The mode the module is in while the tool counts."""
    unit: Literal["MACs", "FLOPs"]
    """Whether a multiply-accumulate counts as one or two, whatever the tool calls it."""
    listed_weights: Mapping[str, int]
    """Kind of element -> its weight in the sum, apart from those that operations add (`Op.tool_weights`)."""
    traced: bool = False
    """Whether the tool counts a trace, which drops operations that no output depends on."""
    aliases: tuple[str, ...] = ()
    """Other tools with the same total."""
    defects: tuple[Defect, ...] = ()
    package: str = ""
    """The package to install and import; empty where no tool counts built modules this way."""
    run: Callable[[Any, Any], Result] | None = field(default=None, repr=False)
    """Runs the tool: called with a copy of the module in evaluation mode and one image."""
    head: str = ""
    """The head of a column of its figures; the name if empty."""
    note: str = ""
    """Follows the total where it is not a tool's: `papers call these FLOPs`."""

    @property
    def weights(self) -> Mapping[str, int]:
        """Kind of element -> its weight in the sum; 0 for kinds that are absent."""
        from resnetcli.ops import TOOL_WEIGHTS

        added = TOOL_WEIGHTS.get(self.name)
        return {**self.listed_weights, **added} if added else self.listed_weights

    @property
    def formula(self) -> str:
        """`macs + 2 batchnorm + adaptive_avg_in`, for any model."""
        return formula(self.weights)

    @property
    def label(self) -> str:
        """Name of the figures in a table: `MACs`, `fvcore`."""
        return self.head or self.name

    @property
    def key(self) -> str:
        """Name of the figures in CSV and JSON: `macs`, `fvcore_train`."""
        return self.name.replace("-", "_")

    @property
    def source(self) -> str:
        """`fvcore: fvcore FlopCountAnalysis (as flops), in evaluation`."""
        return f"{self.name}: {self.tool}{_MODES[self.mode]}"

    def lines(self, tallies: Mapping[str, Tally]) -> list[str]:
        """The tool, and the formula or, for a few models, their sums; nothing for a convention of no tool."""
        if self.note:
            return []
        if len(tallies) > MAX_SUMS:
            return [self.source, f"{self.name} = {self.formula}"]
        return [self.source, *(f"{model}: {tally.total:,} = {tally.sum_text}" for model, tally in tallies.items())]


_MODES = {"eval": ", in evaluation", "train": ", in training", "any": ""}
MAX_SUMS = 4
"""Maximum models whose sums are written out below a table."""


@frozen
class Tally:
    """A model's total under one convention."""

    convention: Convention
    parts: Mapping[str, int]
    """Kind of element -> its share of the total (weight x number); `macs` always, others if the model has any."""
    numbers: Elements
    """The same kinds -> the number of elements."""

    @property
    def name(self) -> str:
        """The convention's."""
        return self.convention.name

    @property
    def total(self) -> int:
        """Total that the tool reports."""
        return sum(self.parts.values())

    @property
    def formula(self) -> str:
        """The convention's formula, restricted to elements the model has."""
        return formula({kind: self.convention.weights[kind] for kind in self.parts})

    @property
    def sum_text(self) -> str:
        """`4,089,184,256 macs + 2 x 11,113,984 batchnorm + 100,352 adaptive_avg_in`."""
        return formula({kind: self.convention.weights[kind] for kind in self.parts}, self.numbers)

    @property
    def text(self) -> str:
        """`4,111,512,576 fvcore`, `4,089,184,256 MACs (papers call these FLOPs)`."""
        note = f" ({self.convention.note})" if self.convention.note else ""
        return f"{self.total:,} {self.convention.label}{note}"

    @property
    def lines(self) -> list[str]:
        """The tool and the sum; nothing for a convention of no tool."""
        return [] if self.convention.note else [self.convention.source, f"{self.total:,} = {self.sum_text}"]


def formula(weights: Mapping[str, int], numbers: Elements | None = None) -> str:
    """`macs + 2 batchnorm`; with numbers, `4,089,184,256 macs + 2 x 11,113,984 batchnorm`."""
    terms = []
    for kind, weight in weights.items():
        factor = f"{abs(weight)} x " if numbers and abs(weight) != 1 else f"{abs(weight)} " if abs(weight) != 1 else ""
        count = f"{numbers[kind]:,} " if numbers else ""
        terms.append(("- " if weight < 0 else "+ ") + factor + count + kind)
    return " ".join(terms).removeprefix("+ ")


# --- counting --------------------------------------------------------------------------------------------------------


def step_elements(plan: Plan, convention: Convention) -> tuple[Elements, ...]:
    """The elements that a convention's tool counts, per step.

    Raises UsageError for a PyTorch model under a convention that counts more than multiply-accumulates.
    """
    from resnetcli.ops import Traced
    from resnetcli.plan.elements import elements, kept_by_trace

    if convention.weights.keys() != {"macs"} and any(isinstance(step.op, Traced) for step in plan.steps):
        raise UsageError(
            f"`--convention {convention.name}` is not supported for PyTorch models",
            "`--convention macs`: only multiply-accumulates are counted of such a model",
        )
    return elements(plan, kept_by_trace(plan, training=convention.mode == "train") if convention.traced else None)


def tally_elements(elements: Elements, convention: Convention) -> Tally:
    """The total of elements that are already counted."""
    weights = convention.weights
    numbers = {kind: elements.get(kind, 0) for kind in weights if kind == "macs" or elements.get(kind)}
    return Tally(convention, {kind: weights[kind] * number for kind, number in numbers.items()}, numbers)


def step_figures(plan: Plan, convention: Convention) -> tuple[int, ...]:
    """Each step's share of the total under a convention."""
    weights = convention.weights
    return tuple(
        sum(weights.get(kind, 0) * number for kind, number in elements.items())
        for elements in step_elements(plan, convention)
    )


def defects_shown(plan: Plan, convention: Convention) -> list[str]:
    """The known defects of a convention's tool that affect this model."""
    from resnetcli.plan.elements import elements, sum_elements

    present = sum_elements(elements(plan)) if any(defect.kinds for defect in convention.defects) else {}
    return [
        defect.text
        for defect in convention.defects
        if (not defect.kinds or present.keys() & set(defect.kinds)) and defect.affects(plan)
    ]
