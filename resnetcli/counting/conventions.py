"""The counting conventions: what each counting tool reports, as a weighted sum of the plan's elements.

A convention is registered here, in one place: its weights, the tool, how to run it, its aliases and known defects.
`--convention`, its help and completion, `reconcile`, `crosscheck` and the tables of docs/why/counting.md follow.
Totals equal what the tools report for the module that `build` returns, to the last digit; tests run the installed ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from resnetcli.counting.tally import Convention, Defect, Result, Tally, step_elements, tally_elements
from resnetcli.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from resnetcli.plan.elements import Elements
    from resnetcli.plan.plan import Plan

_REGISTERED: dict[str, Convention] = {}
CONVENTIONS: Mapping[str, Convention] = MappingProxyType(_REGISTERED)
"""By name, in the order of tables and help."""
DEFAULT = "macs"


def register_convention(convention: Convention) -> Convention:
    """Add a convention; it replaces one of the same name."""
    _REGISTERED[convention.name] = convention
    return convention


def aliases() -> dict[str, str]:
    """Other names of conventions -> the convention."""
    return {alias: convention.name for convention in CONVENTIONS.values() for alias in convention.aliases}


def option_help() -> str:
    """The help of `--convention`."""
    return f"Use another tool's counting rules: {', '.join(CONVENTIONS)}."


def complete_convention(incomplete: str) -> list[str]:
    """Names for shell completion."""
    return [name for name in CONVENTIONS if name.startswith(incomplete)]


def find_convention(name: str) -> Convention:
    """The convention of that name or alias. Raises UsageError for an unknown one."""
    others = aliases()
    convention = CONVENTIONS.get(others.get(name, name))
    if convention is None:
        hint = did_you_mean(name, (*CONVENTIONS, *others))
        listed = f"one of {', '.join(CONVENTIONS)}; also {', '.join(f'{a} ({n})' for a, n in others.items())}"
        raise UsageError(f"unknown convention `{name}`", f"{hint} {listed}".strip())
    return convention


def tally(plan: Plan, convention: Convention | str = DEFAULT) -> Tally:
    """A plan's total under a convention. Raises UsageError for an unknown name."""
    from resnetcli.plan.elements import sum_elements

    convention = find_convention(convention) if isinstance(convention, str) else convention
    return tally_elements(sum_elements(step_elements(plan, convention)), convention)


def tallies(plan: Plan) -> dict[str, Tally]:
    """A plan's total under every convention, by name."""
    from resnetcli.plan.elements import sum_elements

    sums: dict[tuple[bool, bool], Elements] = {}
    totals = {}
    for name, convention in CONVENTIONS.items():
        view = convention.traced, convention.traced and convention.mode == "train"
        if view not in sums:
            sums[view] = sum_elements(step_elements(plan, convention))
        totals[name] = tally_elements(sums[view], convention)
    return totals


# --- conditions of defects -------------------------------------------------------------------------------------------


_DROPS_UNUSED = "counts a trace, which drops operations that no output depends on (an `aside`)"


def _drops_unused(plan: Plan, *, training: bool = False) -> bool:
    from resnetcli.plan.elements import kept_by_trace

    return not all(kept_by_trace(plan, training=training))


def _drops_unused_in_training(plan: Plan) -> bool:
    return _drops_unused(plan, training=True)


def _has_groups(plan: Plan) -> bool:
    from resnetcli.ops import Conv

    return any(isinstance(step.op, Conv) and step.op.groups > 1 for step in plan.steps)


def _rounds_pooling(plan: Plan) -> bool:
    from resnetcli.plan.elements import elements, sum_elements

    number = sum_elements(elements(plan))
    exact = number.get("adaptive_avg_in", 0) + number.get("adaptive_avg_out", 0)
    return number.get("adaptive_avg_work", 0) != exact


def _normalizes_single_values(plan: Plan) -> bool:
    from resnetcli.plan.elements import elements

    return any(
        "batchnorm" in counts and step.shape.n * step.shape.h * step.shape.w == 1
        for step, counts in zip(plan.steps, elements(plan), strict=True)
    )


# --- running the tools: called with a module in evaluation mode and one image ----------------------------------------


def _fvcore(module: Any, x: Any) -> Result:
    from fvcore.nn import FlopCountAnalysis

    analysis = FlopCountAnalysis(module, x).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    return int(analysis.total()), None


def _fvcore_train(module: Any, x: Any) -> Result:
    return _fvcore(module.train(), x)


def _thop(module: Any, x: Any) -> Result:
    from thop import profile

    macs, params = profile(module, (x,), verbose=False)
    return int(macs), int(params)


def _ptflops(module: Any, x: Any, backend: str = "pytorch") -> Result:
    from ptflops import get_model_complexity_info

    macs, params = get_model_complexity_info(
        module, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False, backend=backend
    )
    if macs is None:  # it prints its error and returns
        raise RuntimeError("it could not finish")
    return int(macs), int(params)


def _ptflops_aten(module: Any, x: Any) -> Result:
    return _ptflops(module, x, "aten")


def _mmcv(module: Any, x: Any) -> Result:
    from mmcv.cnn import get_model_complexity_info

    macs, params = get_model_complexity_info(module, tuple(x.shape[1:]), as_strings=False, print_per_layer_stat=False)
    return int(macs), int(params)


def _torchinfo(module: Any, x: Any) -> Result:
    from torchinfo import summary

    statistics = summary(module, input_data=x, verbose=0)
    return int(statistics.total_mult_adds), int(statistics.total_params)


def _calflops(module: Any, x: Any) -> Result:
    from calflops import calculate_flops

    flops, _, params = calculate_flops(module, tuple(x.shape), print_results=False, output_as_string=False)
    return int(flops), int(params)


def _torch(module: Any, x: Any) -> Result:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        module(x)
    return int(counter.get_total_flops()), None


# --- the conventions -------------------------------------------------------------------------------------------------

_NEEDS_MEMORY = Defect("fails on the meta device: the weights must be in memory")
_ELEMENTWISE = {
    "conv_bias": 1, "batchnorm": 2, "relu": 1, "leaky_relu": 1, "prelu": 1, "pool_in": 1, "adaptive_max_in": 1,
    "adaptive_avg_in": 1,
}  # fmt: skip
"""Weights that MMCV and calflops have in common."""
_BIAS_OF_FC = Defect("counts the bias of convolutions, but not of fully connected layers", ("fc_bias",))

register_convention(
    Convention(
        "macs", "papers (as FLOPs), torchvision's model pages (as GFLOPS)", "any", "MACs", {"macs": 1},
        head="MACs", note="papers call these FLOPs",
    )
)  # fmt: skip
register_convention(
    Convention(
        "flops", "two operations per multiply-accumulate", "any", "FLOPs", {"macs": 2}, head="FLOPs", note="2 x MACs"
    )
)
register_convention(
    Convention(
        "fvcore",
        "fvcore FlopCountAnalysis (as flops); timm's tables (as GMACs)",
        "eval",
        "MACs",
        {"macs": 1, "batchnorm": 2, "adaptive_avg_in": 1, "roi": 4},
        traced=True,
        aliases=("timm",),
        defects=(Defect(_DROPS_UNUSED, affects=_drops_unused), _NEEDS_MEMORY),
        package="fvcore",
        run=_fvcore,
    )
)
register_convention(
    Convention(
        "fvcore-train",
        "fvcore FlopCountAnalysis on a module in training mode (as flops)",
        "train",
        "MACs",
        {"macs": 1, "batchnorm": 5, "adaptive_avg_in": 1, "roi": 4},
        traced=True,
        defects=(
            Defect(_DROPS_UNUSED, affects=_drops_unused_in_training),
            _NEEDS_MEMORY,
            Defect("updates BatchNorm's running statistics", ("batchnorm",)),
            Defect(
                "fails on one image: PyTorch trains no BatchNorm on a single value per channel",
                affects=_normalizes_single_values,
            ),
        ),
        package="fvcore",
        run=_fvcore_train,
    )
)
register_convention(
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
            Defect("leaves its counters, total_ops and total_params, in the module's state_dict"),
            Defect("counts 4 per element of BatchNorm, which takes 2 operations in evaluation", ("batchnorm",)),
            Defect("counts average pooling to a size in floating point, one short", affects=_rounds_pooling),
            Defect("does not count operations without a class in torch.nn", ("pyramid_in", "roi")),
        ),
        package="thop",
        run=_thop,
    )
)
register_convention(
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
            Defect("counts ReLU, PReLU and pooling twice: as a module and as the function it calls"),
            Defect("does not count the power and the division of LRN", ("lrn",)),
            Defect("leaves the module in evaluation mode"),
        ),
        package="ptflops",
        run=_ptflops,
    )
)
register_convention(
    Convention(
        "ptflops-aten",
        "ptflops get_model_complexity_info, backend aten (as MACs); pycls (as flops)",
        "eval",
        "MACs",
        {"macs": 1, "conv_bias": 1, "fc_bias": 1},
        aliases=("pycls",),
        defects=(Defect("leaves the module in evaluation mode, with its hooks"),),
        package="ptflops",
        run=_ptflops_aten,
    )
)
register_convention(
    Convention(
        "mmcv",
        "MMCV get_model_complexity_info (as FLOPs), MMPretrain's model zoo; ptflops of 2021",
        "eval",
        "MACs",
        {"macs": 1, **_ELEMENTWISE},
        aliases=("mmpretrain",),
        defects=(_BIAS_OF_FC, Defect("leaves the module in evaluation mode, with its counters")),
        package="mmcv",
        run=_mmcv,
    )
)
register_convention(
    Convention(
        "torchinfo",
        "torchinfo summary (as mult-adds)",
        "eval",
        "MACs",
        {"macs": 1, "conv_bias": 1, "fc_bias": 1, "batchnorm_params": 1, "prelu_params": 1},
        defects=(
            Defect("counts BatchNorm's parameters, whatever the feature map's size", ("batchnorm",)),
            Defect("counts PReLU's parameters, whatever the feature map's size", ("prelu",)),
        ),
        package="torchinfo",
        run=_torchinfo,
    )
)
register_convention(
    Convention(
        "calflops",
        "calflops calculate_flops, DeepSpeed's FLOPs profiler (as FLOPs)",
        "eval",
        "FLOPs",
        {"macs": 2, **_ELEMENTWISE, "pyramid_in": 1, "softmax": 1, "lrn": 3, "lrn_padded": 1},
        aliases=("deepspeed",),
        defects=(_BIAS_OF_FC, Defect("cannot be imported without transformers, which it does not depend on")),
        package="calflops",
        run=_calflops,
    )
)
register_convention(
    Convention(
        "torch",
        "torch.utils.flop_counter FlopCounterMode, forward (as FLOPs)",
        "any",
        "FLOPs",
        {"macs": 2},
        defects=(
            Defect("exact in the forward pass; overcounts the backward of grouped convolutions (2.13)",
                   affects=_has_groups),
        ),
        package="torch",
        run=_torch,
    )
)  # fmt: skip
register_convention(Convention("darknet", "darknet's `Bn Ops` and the YOLO papers'", "any", "FLOPs", {"macs": 2}))
