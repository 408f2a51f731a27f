"""resnet-cli: an architecture explorer and profiler for convnets.

    >>> import resnetcli as rc
    >>> plan = rc.load("resnext50_32x4d", C=8, d=14)
    >>> rc.count(plan).macs
    4267409408

Names are imported when they are first used, and torch not before `build` (or a measurement) needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from resnetcli.errors import ResourceError, Source, SpecError, UsageError
    from resnetcli.net.module import build
    from resnetcli.plan.count import Cost, Counts, count
    from resnetcli.plan.lower import lower
    from resnetcli.plan.plan import Plan, Step
    from resnetcli.report.check import check
    from resnetcli.report.compare import Comparison, compare
    from resnetcli.report.info import info
    from resnetcli.report.listing import models
    from resnetcli.report.papers import paper_tables
    from resnetcli.report.profile import Profile, load, profile
    from resnetcli.report.verify import verify
    from resnetcli.spec.format import format_text

_HOME = {
    "build": "resnetcli.net.module",
    "ResourceError": "resnetcli.errors",
    "Source": "resnetcli.errors",
    "SpecError": "resnetcli.errors",
    "UsageError": "resnetcli.errors",
    "Cost": "resnetcli.plan.count",
    "Counts": "resnetcli.plan.count",
    "count": "resnetcli.plan.count",
    "lower": "resnetcli.plan.lower",
    "Plan": "resnetcli.plan.plan",
    "Step": "resnetcli.plan.plan",
    "check": "resnetcli.report.check",
    "Comparison": "resnetcli.report.compare",
    "compare": "resnetcli.report.compare",
    "info": "resnetcli.report.info",
    "models": "resnetcli.report.listing",
    "paper_tables": "resnetcli.report.papers",
    "Profile": "resnetcli.report.profile",
    "format_text": "resnetcli.spec.format",
    "load": "resnetcli.report.profile",
    "profile": "resnetcli.report.profile",
    "verify": "resnetcli.report.verify",
}
__all__ = [
    "Comparison",
    "Cost",
    "Counts",
    "Plan",
    "Profile",
    "ResourceError",
    "Source",
    "SpecError",
    "Step",
    "UsageError",
    "__version__",
    "build",
    "check",
    "compare",
    "count",
    "format_text",
    "info",
    "load",
    "lower",
    "models",
    "paper_tables",
    "profile",
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
