"""resnet-cli: an architecture explorer and profiler for convnets.

    >>> import resnetcli as rc
    >>> plan = rc.load("resnext50_32x4d", C=8, d=14)
    >>> rc.count(plan).macs
    4267409408

A name is imported when it is first used; PyTorch is imported only to build or measure a model.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which takes a while to import

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from resnetcli.bench.latency import Measurement as Measurement
    from resnetcli.bench.options import RunOptions as RunOptions
    from resnetcli.counting.conventions import tally as tally
    from resnetcli.counting.tally import Tally as Tally
    from resnetcli.errors import ResourceError as ResourceError
    from resnetcli.errors import Source as Source
    from resnetcli.errors import SpecError as SpecError
    from resnetcli.errors import UsageError as UsageError
    from resnetcli.net.module import build as build
    from resnetcli.plan.count import Cost as Cost
    from resnetcli.plan.count import Counts as Counts
    from resnetcli.plan.count import count as count
    from resnetcli.plan.lower import lower as lower
    from resnetcli.plan.memory import Memory as Memory
    from resnetcli.plan.memory import memory as memory
    from resnetcli.plan.plan import Plan as Plan
    from resnetcli.plan.plan import Step as Step
    from resnetcli.plan.receptive import Receptive as Receptive
    from resnetcli.plan.receptive import receptive as receptive
    from resnetcli.plan.training import training as training
    from resnetcli.reports.check import check as check
    from resnetcli.reports.compare import compare as compare
    from resnetcli.reports.comparison import Comparison as Comparison
    from resnetcli.reports.crosscheck import crosscheck as crosscheck
    from resnetcli.reports.diff import Diff as Diff
    from resnetcli.reports.diff import diff as diff
    from resnetcli.reports.info import info as info
    from resnetcli.reports.limits import limits as limits
    from resnetcli.reports.listing import models as models
    from resnetcli.reports.max_batch import MaxBatch as MaxBatch
    from resnetcli.reports.max_batch import max_batch as max_batch
    from resnetcli.reports.papers import paper_tables as paper_tables
    from resnetcli.reports.profile import Profile as Profile
    from resnetcli.reports.profile import load as load
    from resnetcli.reports.profile import profile as profile
    from resnetcli.reports.profile import profile_module as profile_module
    from resnetcli.reports.reconcile import reconcile as reconcile
    from resnetcli.reports.verify import verify as verify
    from resnetcli.roofline.analysis import Explanation as Explanation
    from resnetcli.roofline.analysis import explain as explain
    from resnetcli.roofline.analysis import lower_bounds as lower_bounds
    from resnetcli.roofline.measure import explain_measured as explain_measured
    from resnetcli.roofline.measure import get_device_peaks as get_device_peaks
    from resnetcli.roofline.peaks import DevicePeaks as DevicePeaks
    from resnetcli.roofline.profiles import read_profile as read_profile
    from resnetcli.spec.format import format_text as format_text

_NAMES = {
    "bench.latency": "Measurement",
    "bench.options": "RunOptions",
    "counting.conventions": "tally",
    "counting.tally": "Tally",
    "errors": "ResourceError Source SpecError UsageError",
    "net.module": "build",
    "plan.count": "Cost Counts count",
    "plan.lower": "lower",
    "plan.memory": "Memory memory",
    "plan.plan": "Plan Step",
    "plan.receptive": "Receptive receptive",
    "plan.training": "training",
    "reports.check": "check",
    "reports.compare": "compare",
    "reports.comparison": "Comparison",
    "reports.crosscheck": "crosscheck",
    "reports.diff": "Diff diff",
    "reports.limits": "limits",
    "reports.info": "info",
    "reports.listing": "models",
    "reports.max_batch": "MaxBatch max_batch",
    "reports.papers": "paper_tables",
    "reports.profile": "Profile load profile profile_module",
    "reports.reconcile": "reconcile",
    "reports.verify": "verify",
    "roofline.analysis": "Explanation explain lower_bounds",
    "roofline.measure": "explain_measured get_device_peaks",
    "roofline.peaks": "DevicePeaks",
    "roofline.profiles": "read_profile",
    "spec.format": "format_text",
}
"""Module -> public names, as imported above for type checkers."""
_MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
