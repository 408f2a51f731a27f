"""Validate specs: problems, unmet expectations, exceeded limits, and warnings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from resnetcli.errors import Problem, SpecError, listening
from resnetcli.frozen import frozen
from resnetcli.ops import Conv
from resnetcli.reports.limits import Limits, changed_conditions, exceeded
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.spec.bind import strided
from resnetcli.spec.spec import Residual
from resnetcli.spec.zoo import Zoo


@frozen
class CheckResult:
    """The result for one spec."""

    model: str
    profile: Profile | None
    """None for an invalid spec."""
    errors: tuple[Problem, ...] = ()
    unmet: tuple[Problem, ...] = ()
    """Mismatches with `expect:`."""
    warnings: tuple[Problem, ...] = ()
    exceeded: tuple[Problem, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 OK, 1 an expectation or a limit is not met, 2 invalid."""
        return 2 if self.errors else 1 if self.unmet or self.exceeded else 0


def check(model: str, zoo: Zoo | None = None, limits: Limits | None = None) -> CheckResult:
    """Check a spec, a zoo name or a path, also against `limits`.

    Raises UsageError for an unknown model or file.
    """
    try:
        with listening(None):  # the result has the warnings
            profile = profile_model(model, {}, zoo=zoo)
    except SpecError as error:
        return CheckResult(model, None, error.problems)
    limits = limits or Limits()
    warnings = (*_warnings(profile), *profile.plan.warnings, *changed_conditions(profile, limits))
    return CheckResult(model, profile, (), unmet(profile), warnings, exceeded(profile, limits))


def unmet(profile: Profile) -> tuple[Problem, ...]:
    """Differences between a model and its `expect:`."""
    expect = profile.spec.expect
    if expect is None:
        return ()
    counts, plan = profile.counts, profile.plan
    problems = []
    for name, value in expect.figures.items():
        counted = int(getattr(counts, name))
        if counted != value:
            message = f"expected {value:,} {name}, counted {counted:,} ({counted - value:+,})"
            problems.append(Problem(message, expect.at))
    sizes = tuple(plan.steps[index].shape.h for index in plan.stages.values())
    if expect.sizes is not None and sizes != expect.sizes:
        problems.append(Problem(f"expected sizes {list(expect.sizes)}, counted {list(sizes)}", expect.at))
    return tuple(problems)


def _warnings(profile: Profile) -> tuple[Problem, ...]:
    """Warnings about missing strides, which papers print in the caption of a table instead of its cells."""
    spec = profile.spec
    hint = "papers print strides in the caption, not in the cells: write `/2` where a stage halves the size"
    if len(spec.stages) > 2 and not any(strided(item) for items in spec.stages.values() for item in items):
        return (Problem("no stage has a stride", spec.places[next(iter(spec.stages))], hint, severity="warning"),)
    return tuple(
        Problem(f"`{row}` doubles the channels and keeps the size", spec.places[row], hint, severity="warning")
        for row in _unhalved(profile)
    )


def _unhalved(profile: Profile) -> Iterator[str]:
    """Undilated residual stages with twice the channels of the previous one at the same size: ResNets halve it."""
    spec, plan = profile.spec, profile.plan
    for above, row in pairwise(spec.stages):
        x, y = (plan.steps[plan.stages[name]].shape for name in (above, row))
        steps = [step.op for step in plan.steps if step.where.stage == row]
        if (
            y.c == 2 * x.c
            and (y.h, y.w) == (x.h, x.w)
            and all(any(isinstance(item.what, Residual) for item in spec.stages[name]) for name in (above, row))
            and not any(isinstance(op, Conv) and op.dilation > 1 for op in steps)
        ):
            yield row
