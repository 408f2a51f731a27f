"""resnet-cli: an architecture explorer and profiler for convnets.

    >>> import resnetcli as rc
    >>> plan = rc.load("resnext50_32x4d", C=8, d=14)
    >>> rc.count(plan).macs
    4267409408

Names are imported when they are first used, and torch not before `build` (or a measurement) needs it.
"""

from __future__ import annotations

from importlib import import_module

TYPE_CHECKING = False  # as in `typing`, which takes a while to import

__version__ = "0.1.0"

if TYPE_CHECKING:
    from typing import Any

    from resnetcli.bench.latency import Measurement
    from resnetcli.bench.settings import Settings, settings
    from resnetcli.counting.conventions import tally
    from resnetcli.counting.tally import Tally
    from resnetcli.errors import ResourceError, Source, SpecError, UsageError
    from resnetcli.net.module import build
    from resnetcli.plan.count import Cost, Counts, count
    from resnetcli.plan.lower import lower
    from resnetcli.plan.memory import Memory, memory
    from resnetcli.plan.plan import Plan, Step
    from resnetcli.plan.receptive import Receptive, receptive
    from resnetcli.plan.training import training
    from resnetcli.reports.check import check
    from resnetcli.reports.compare import Comparison, compare
    from resnetcli.reports.crosscheck import crosscheck
    from resnetcli.reports.diff import Diff, diff
    from resnetcli.reports.gate import limits
    from resnetcli.reports.info import info
    from resnetcli.reports.listing import models
    from resnetcli.reports.max_batch import Fit, fit
    from resnetcli.reports.papers import paper_tables
    from resnetcli.reports.profile import Profile, load, profile, profile_module
    from resnetcli.reports.reconcile import reconcile
    from resnetcli.reports.verify import verify
    from resnetcli.roofline.analysis import Explanation, ceilings_of, explain, explain_measured, floors
    from resnetcli.roofline.peaks import Ceilings, read_profile
    from resnetcli.spec.format import format_text

_HOME = {
    "build": "resnetcli.net.module",
    "ResourceError": "resnetcli.errors",
    "Source": "resnetcli.errors",
    "SpecError": "resnetcli.errors",
    "Ceilings": "resnetcli.roofline.peaks",
    "read_profile": "resnetcli.roofline.peaks",
    "Measurement": "resnetcli.bench.latency",
    "Settings": "resnetcli.bench.settings",
    "settings": "resnetcli.bench.settings",
    "UsageError": "resnetcli.errors",
    "Cost": "resnetcli.plan.count",
    "Counts": "resnetcli.plan.count",
    "count": "resnetcli.plan.count",
    "lower": "resnetcli.plan.lower",
    "Plan": "resnetcli.plan.plan",
    "Step": "resnetcli.plan.plan",
    "Receptive": "resnetcli.plan.receptive",
    "receptive": "resnetcli.plan.receptive",
    "check": "resnetcli.reports.check",
    "Comparison": "resnetcli.reports.compare",
    "compare": "resnetcli.reports.compare",
    "Diff": "resnetcli.reports.diff",
    "diff": "resnetcli.reports.diff",
    "info": "resnetcli.reports.info",
    "Fit": "resnetcli.reports.max_batch",
    "fit": "resnetcli.reports.max_batch",
    "Memory": "resnetcli.plan.memory",
    "memory": "resnetcli.plan.memory",
    "training": "resnetcli.plan.training",
    "limits": "resnetcli.reports.gate",
    "models": "resnetcli.reports.listing",
    "paper_tables": "resnetcli.reports.papers",
    "Profile": "resnetcli.reports.profile",
    "format_text": "resnetcli.spec.format",
    "load": "resnetcli.reports.profile",
    "profile": "resnetcli.reports.profile",
    "profile_module": "resnetcli.reports.profile",
    "verify": "resnetcli.reports.verify",
    "reconcile": "resnetcli.reports.reconcile",
    "Explanation": "resnetcli.roofline.analysis",
    "ceilings_of": "resnetcli.roofline.analysis",
    "explain": "resnetcli.roofline.analysis",
    "explain_measured": "resnetcli.roofline.analysis",
    "floors": "resnetcli.roofline.analysis",
    "crosscheck": "resnetcli.reports.crosscheck",
    "tally": "resnetcli.counting.conventions",
    "Tally": "resnetcli.counting.tally",
}
__all__ = [
    "Ceilings",
    "Comparison",
    "Cost",
    "Counts",
    "Diff",
    "Explanation",
    "Fit",
    "Measurement",
    "Memory",
    "Plan",
    "Profile",
    "Receptive",
    "ResourceError",
    "Settings",
    "Source",
    "SpecError",
    "Step",
    "Tally",
    "UsageError",
    "__version__",
    "build",
    "ceilings_of",
    "check",
    "compare",
    "count",
    "crosscheck",
    "diff",
    "explain",
    "explain_measured",
    "fit",
    "floors",
    "format_text",
    "info",
    "limits",
    "load",
    "lower",
    "memory",
    "models",
    "paper_tables",
    "profile",
    "profile_module",
    "read_profile",
    "receptive",
    "reconcile",
    "settings",
    "tally",
    "training",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value  # `resnetcli.net` is then the function, as documented, though a package has the name too
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
