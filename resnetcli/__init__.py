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

    from resnetcli.errors import ResourceError, Source, SpecError, UsageError
    from resnetcli.measure.ceilings import Ceilings, read_profile
    from resnetcli.measure.latency import Measurement
    from resnetcli.measure.settings import Settings, settings
    from resnetcli.net.module import build
    from resnetcli.plan.count import Cost, Counts, count
    from resnetcli.plan.lower import lower
    from resnetcli.plan.memory import Memory, memory
    from resnetcli.plan.plan import Plan, Step
    from resnetcli.plan.receptive import Receptive, receptive
    from resnetcli.plan.training import training
    from resnetcli.report.check import check
    from resnetcli.report.compare import Comparison, compare
    from resnetcli.report.convention import Tally, tally
    from resnetcli.report.crosscheck import crosscheck
    from resnetcli.report.diff import Diff, diff
    from resnetcli.report.fit import Fit, fit
    from resnetcli.report.gate import limits
    from resnetcli.report.info import info
    from resnetcli.report.listing import models
    from resnetcli.report.papers import paper_tables
    from resnetcli.report.profile import Profile, load, profile, profile_module
    from resnetcli.report.reconcile import reconcile
    from resnetcli.report.roofline import Explanation, ceilings_of, explain, explain_measured, floors
    from resnetcli.report.verify import verify
    from resnetcli.spec.format import format_text

_HOME = {
    "build": "resnetcli.net.module",
    "ResourceError": "resnetcli.errors",
    "Source": "resnetcli.errors",
    "SpecError": "resnetcli.errors",
    "Ceilings": "resnetcli.measure.ceilings",
    "read_profile": "resnetcli.measure.ceilings",
    "Measurement": "resnetcli.measure.latency",
    "Settings": "resnetcli.measure.settings",
    "settings": "resnetcli.measure.settings",
    "UsageError": "resnetcli.errors",
    "Cost": "resnetcli.plan.count",
    "Counts": "resnetcli.plan.count",
    "count": "resnetcli.plan.count",
    "lower": "resnetcli.plan.lower",
    "Plan": "resnetcli.plan.plan",
    "Step": "resnetcli.plan.plan",
    "Receptive": "resnetcli.plan.receptive",
    "receptive": "resnetcli.plan.receptive",
    "check": "resnetcli.report.check",
    "Comparison": "resnetcli.report.compare",
    "compare": "resnetcli.report.compare",
    "Diff": "resnetcli.report.diff",
    "diff": "resnetcli.report.diff",
    "info": "resnetcli.report.info",
    "Fit": "resnetcli.report.fit",
    "fit": "resnetcli.report.fit",
    "Memory": "resnetcli.plan.memory",
    "memory": "resnetcli.plan.memory",
    "training": "resnetcli.plan.training",
    "limits": "resnetcli.report.gate",
    "models": "resnetcli.report.listing",
    "paper_tables": "resnetcli.report.papers",
    "Profile": "resnetcli.report.profile",
    "format_text": "resnetcli.spec.format",
    "load": "resnetcli.report.profile",
    "profile": "resnetcli.report.profile",
    "profile_module": "resnetcli.report.profile",
    "verify": "resnetcli.report.verify",
    "reconcile": "resnetcli.report.reconcile",
    "Explanation": "resnetcli.report.roofline",
    "ceilings_of": "resnetcli.report.roofline",
    "explain": "resnetcli.report.roofline",
    "explain_measured": "resnetcli.report.roofline",
    "floors": "resnetcli.report.roofline",
    "crosscheck": "resnetcli.report.crosscheck",
    "tally": "resnetcli.report.convention",
    "Tally": "resnetcli.report.convention",
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
