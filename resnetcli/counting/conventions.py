"""What counting tools print: each convention a weighted sum of the same plan's elements.

A convention is what the tool named prints on the module that `build` gives, to the last digit; tests hold each to its
tool where that is installed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.ops import BatchNorm, Conv, Linear, LocalResponseNorm, PReLU, PyramidPool, RegionPool, Traced
from resnetcli.plan.elements import Elements, elements, kept_by_trace, sum_elements
from resnetcli.plan.plan import Plan


@dataclass(frozen=True, slots=True)
class Defect:
    """Something a tool is known to do wrong."""

    text: str
    bites: Callable[[Plan], bool] = field(default=lambda plan: True, repr=False)
    """Whether it shows on a net."""


@dataclass(frozen=True, slots=True)
class Convention:
    """How one tool counts, in one mode."""

    name: str
    tool: str
    """What prints the figure, and what it calls it there."""
    mode: Literal["eval", "train", "any"]
    """The mode the module is in while the tool looks at it."""
    unit: Literal["MACs", "FLOPs"]
    """Whether a multiply-accumulate is one or two, whatever the tool calls it."""
    weights: Mapping[str, int]
    """Kind of element -> what one of them counts for; a kind that is not there counts nothing."""
    traced: bool = False
    """Whether it counts a trace of the net, which leaves out what nothing needs."""
    defects: tuple[Defect, ...] = ()

    @property
    def formula(self) -> str:
        """`macs + 2 batchnorm + adaptive_avg_in`, for any net."""
        return formula(self.weights)


@dataclass(frozen=True, slots=True)
class Tally:
    """A net's figure under one convention."""

    convention: Convention
    parts: Mapping[str, int]
    """Kind of element -> its share of the total, the weight multiplied in; `macs` always, others if the net has any."""
    numbers: Elements
    """The same kinds -> how many elements."""

    @property
    def name(self) -> str:
        """The convention's."""
        return self.convention.name

    @property
    def total(self) -> int:
        """What the tool prints."""
        return sum(self.parts.values())

    @property
    def formula(self) -> str:
        """The convention's formula, as far as the net has such elements."""
        return formula({kind: self.convention.weights[kind] for kind in self.parts})


def formula(weights: Mapping[str, int], numbers: Elements | None = None) -> str:
    """`macs + 2 batchnorm`; with numbers, `4,089,184,256 macs + 2 x 11,113,984 batchnorm`."""
    terms = []
    for kind, weight in weights.items():
        factor = f"{abs(weight)} x " if numbers and abs(weight) != 1 else f"{abs(weight)} " if abs(weight) != 1 else ""
        count = f"{numbers[kind]:,} " if numbers else ""
        terms.append(("- " if weight < 0 else "+ ") + factor + count + kind)
    return " ".join(terms).removeprefix("+ ")


def _has(*kinds: type) -> Callable[[Plan], bool]:
    return lambda plan: any(isinstance(step.op, kinds) for step in plan.steps)


def _untraced(training: bool) -> Defect:
    return Defect(
        "what nothing needs (an `aside`) is left out: it counts a trace of the net, and the trace drops it",
        lambda plan: not all(kept_by_trace(plan, training=training)),
    )


def _grouped(plan: Plan) -> bool:
    return any(isinstance(step.op, Conv) and step.op.groups > 1 for step in plan.steps)


def _rounds(plan: Plan) -> bool:
    found = sum_elements(elements(plan))
    exact = found.get("adaptive_avg_in", 0) + found.get("adaptive_avg_out", 0)
    return found.get("adaptive_avg_work", 0) != exact


def _single_values(plan: Plan) -> bool:
    return any(
        isinstance(step.op, BatchNorm) and step.shape.n * step.shape.h * step.shape.w == 1 for step in plan.steps
    )


def _mixed_bias(plan: Plan) -> bool:
    return any(isinstance(step.op, Linear) and step.op.bias for step in plan.steps)


_META = Defect("it fails on the meta device, so the weights must be in memory")

_ALL = (
    Convention(
        "macs",
        "papers (as FLOPs), torchvision's model pages (as GFLOPS)",
        "any",
        "MACs",
        {"macs": 1},
    ),
    Convention("flops", "two operations a multiply-accumulate", "any", "FLOPs", {"macs": 2}),
    Convention(
        "fvcore",
        "fvcore FlopCountAnalysis (as flops); timm's tables (as GMACs)",
        "eval",
        "MACs",
        {"macs": 1, "batchnorm": 2, "adaptive_avg_in": 1, "roi": 4},
        traced=True,
        defects=(_untraced(False), _META),
    ),
    Convention(
        "fvcore-train",
        "fvcore FlopCountAnalysis on a module in training mode (as flops)",
        "train",
        "MACs",
        {"macs": 1, "batchnorm": 5, "adaptive_avg_in": 1, "roi": 4},
        traced=True,
        defects=(
            _untraced(True),
            _META,
            Defect("it moves BatchNorm's running statistics", _has(BatchNorm)),
            Defect("it fails on one image: torch trains no BatchNorm on a single value a channel", _single_values),
        ),
    ),
    Convention(
        "thop",
        "thop profile (as MACs)",
        "eval",
        "MACs",
        {
            "macs": 1,
            "batchnorm": 4,
            "prelu": 1,
            "avg_pool_out": 1,
            "adaptive_avg_work": 1,
            "softmax": 3,
            "softmax_groups": -1,
        },
        defects=(
            Defect("it leaves its counters, total_ops and total_params, in the module's state_dict"),
            Defect("BatchNorm counts 4 an element, though it does 2 operations in evaluation", _has(BatchNorm)),
            Defect("average pooling to a size is computed in floating point and comes out one short", _rounds),
            Defect("what has no class in torch.nn counts nothing", _has(PyramidPool, RegionPool)),
        ),
    ),
    Convention(
        "ptflops",
        "ptflops get_model_complexity_info, backend pytorch (as MACs)",
        "eval",
        "MACs",
        {
            "macs": 1,
            "conv_bias": 1,
            "fc_bias": 1,
            "batchnorm": 2,
            "relu": 2,
            "leaky_relu": 1,
            "prelu": 2,
            "pool_in": 2,
            "adaptive_max_in": 2,
            "adaptive_avg_in": 2,
            "pyramid_in": 1,
            "softmax": 1,
            "lrn": 3,
            "lrn_padded": 1,
        },
        defects=(
            Defect("ReLU, PReLU and pooling count twice: once as a module, once as the function it calls"),
            Defect("of LRN it counts the parts it knows and not the power and the division", _has(LocalResponseNorm)),
            Defect("it leaves the module in evaluation mode"),
        ),
    ),
    Convention(
        "ptflops-aten",
        "ptflops get_model_complexity_info, backend aten (as MACs); pycls (as flops)",
        "eval",
        "MACs",
        {"macs": 1, "conv_bias": 1, "fc_bias": 1},
        defects=(Defect("it leaves the module in evaluation mode, and its hooks in it"),),
    ),
    Convention(
        "mmcv",
        "MMCV get_model_complexity_info (as FLOPs), MMPretrain's model zoo; ptflops of 2021",
        "eval",
        "MACs",
        {
            "macs": 1,
            "conv_bias": 1,
            "batchnorm": 2,
            "relu": 1,
            "leaky_relu": 1,
            "prelu": 1,
            "pool_in": 1,
            "adaptive_max_in": 1,
            "adaptive_avg_in": 1,
        },
        defects=(
            Defect("the bias of a convolution counts, that of a fully connected layer does not", _mixed_bias),
            Defect("it leaves the model in evaluation mode, and its counters in the modules"),
        ),
    ),
    Convention(
        "torchinfo",
        "torchinfo summary (as mult-adds)",
        "eval",
        "MACs",
        {"macs": 1, "conv_bias": 1, "fc_bias": 1, "batchnorm_params": 1, "prelu_params": 1},
        defects=(
            Defect("BatchNorm counts its parameters, whatever the size of the maps", _has(BatchNorm)),
            Defect("PReLU counts its parameters, whatever the size of the maps", _has(PReLU)),
        ),
    ),
    Convention(
        "calflops",
        "calflops calculate_flops, DeepSpeed's FLOPs profiler (as FLOPs)",
        "eval",
        "FLOPs",
        {
            "macs": 2,
            "conv_bias": 1,
            "batchnorm": 2,
            "relu": 1,
            "leaky_relu": 1,
            "prelu": 1,
            "pool_in": 1,
            "adaptive_max_in": 1,
            "adaptive_avg_in": 1,
            "pyramid_in": 1,
            "softmax": 1,
            "lrn": 3,
            "lrn_padded": 1,
        },
        defects=(
            Defect("the bias of a convolution counts, that of a fully connected layer does not", _mixed_bias),
            Defect("it cannot be imported without transformers, which it does not ask for"),
        ),
    ),
    Convention(
        "torch",
        "torch.utils.flop_counter FlopCounterMode, forward (as FLOPs)",
        "any",
        "FLOPs",
        {"macs": 2},
        defects=(Defect("forward is right; backward of a grouped convolution is overcounted (2.13)", _grouped),),
    ),
    Convention("darknet", "darknet's `Bn Ops` and the YOLO papers'", "any", "FLOPs", {"macs": 2}),
)
CONVENTIONS: Mapping[str, Convention] = MappingProxyType({convention.name: convention for convention in _ALL})
"""By name, in the order they are listed in."""
ALIASES: Mapping[str, str] = MappingProxyType(
    {"pycls": "ptflops-aten", "mmpretrain": "mmcv", "timm": "fvcore", "deepspeed": "calflops"}
)
"""Other names -> the convention they are."""
DEFAULT = "macs"


def find_convention(name: str) -> Convention:
    """A convention by its name or alias. Raises UsageError for an unknown one."""
    known = CONVENTIONS.get(ALIASES.get(name, name))
    if known is None:
        names = (*CONVENTIONS, *ALIASES)
        message = f"unknown convention `{name}`"
        hint = did_you_mean(name, names)
        listed = f"one of {', '.join(CONVENTIONS)}; also {', '.join(f'{a} ({n})' for a, n in ALIASES.items())}"
        raise UsageError(message, f"{hint} {listed}".strip())
    return known


def step_elements(plan: Plan, convention: Convention) -> tuple[Elements, ...]:
    """The elements that a convention's tool sees, step by step.

    Raises UsageError for a PyTorch model, of which only the multiply-accumulates are known, under most conventions.
    """
    if any(isinstance(step.op, Traced) for step in plan.steps) and convention.weights.keys() != {"macs"}:
        raise UsageError(
            f"`{convention.name}` counts more than a PyTorch model shows",
            f"for such a model {', '.join(n for n, c in CONVENTIONS.items() if c.weights.keys() == {'macs'})}",
        )
    return elements(plan, kept_by_trace(plan, training=convention.mode == "train") if convention.traced else None)


def tally(plan: Plan, convention: Convention | str = DEFAULT) -> Tally:
    """A plan's figure under a convention. Raises UsageError for an unknown name."""
    convention = find_convention(convention) if isinstance(convention, str) else convention
    return tally_elements(sum_elements(step_elements(plan, convention)), convention)


def tally_elements(found: Elements, convention: Convention) -> Tally:
    """The figure from elements that have been counted already."""
    weights = convention.weights
    numbers = {kind: found.get(kind, 0) for kind in weights if kind == "macs" or found.get(kind)}
    return Tally(convention, {kind: weights[kind] * number for kind, number in numbers.items()}, numbers)


def tallies(plan: Plan) -> dict[str, Tally]:
    """A plan's figure under every convention, by name."""
    seen = {(each.traced, each.mode == "train"): each for each in CONVENTIONS.values()}
    counted = {key: sum_elements(step_elements(plan, each)) for key, each in seen.items()}
    return {
        name: tally_elements(counted[each.traced, each.mode == "train"], each) for name, each in CONVENTIONS.items()
    }


def step_figures(plan: Plan, convention: Convention) -> tuple[int, ...]:
    """What each step counts for under a convention; they sum to the tally's total."""
    weights = convention.weights
    return tuple(
        sum(weights.get(kind, 0) * number for kind, number in found.items())
        for found in step_elements(plan, convention)
    )


def biting(plan: Plan, convention: Convention) -> list[str]:
    """The known defects of a convention's tool that show on a net."""
    return [defect.text for defect in convention.defects if defect.bites(plan)]
