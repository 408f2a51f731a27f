"""Whether a spec can be read, holds together, and counts what it says it counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from resnetcli.errors import Problem, SpecError, listening
from resnetcli.ops import Conv
from resnetcli.reports.gate import Limits, exceeded, unlike
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.spec.bind import strided
from resnetcli.spec.spec import Residual
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Checked:
    """The outcome for one spec."""

    model: str
    profile: Profile | None
    """None for a spec that is invalid."""
    errors: tuple[Problem, ...] = ()
    """What makes it invalid."""
    unmet: tuple[Problem, ...] = ()
    """Where `expect:` does not hold."""
    warnings: tuple[Problem, ...] = ()
    exceeded: tuple[Problem, ...] = ()
    """Where it costs more than it may."""

    @property
    def exit_code(self) -> int:
        """0 fine, 1 `expect:` does not hold or a limit is exceeded, 2 invalid."""
        return 2 if self.errors else 1 if self.unmet or self.exceeded else 0


def check(model: str, zoo: Zoo | None = None, limits: Limits | None = None) -> Checked:
    """Checks a spec: a name in the zoo or a path, held to `limits` too if there are any.

    Raises UsageError where there is none to check.
    """
    try:
        with listening(None):  # they are among the outcome's
            found = profile_model(model, {}, zoo=zoo)
    except SpecError as error:
        return Checked(model, None, error.problems)
    most = limits or Limits()
    warnings = (*_warnings(found), *found.plan.warnings, *unlike(found, most))
    return Checked(model, found, (), unmet(found), warnings, exceeded(found, most))


def unmet(profile: Profile) -> tuple[Problem, ...]:
    """Where a net is not what its `expect:` says."""
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
    sizes = tuple(plan.steps[index].shape.h for index in plan.rows.values())
    if expect.sizes is not None and sizes != expect.sizes:
        problems.append(Problem(f"expected sizes {list(expect.sizes)}, counted {list(sizes)}", expect.at))
    return tuple(problems)


def _warnings(profile: Profile) -> tuple[Problem, ...]:
    """Missing strides: legal, but the papers print them in the caption, not in the cells."""
    spec = profile.spec
    hint = "the papers print strides in the caption, not in the cells: write `/2` where a stage halves the size"
    if len(spec.rows) > 2 and not any(strided(item) for items in spec.rows.values() for item in items):
        return (Problem("no row has a stride", spec.places[next(iter(spec.rows))], hint, severity="warning"),)
    return tuple(
        Problem(f"`{row}` doubles the channels and keeps the size", spec.places[row], hint, severity="warning")
        for row in _unhalved(profile)
    )


def _unhalved(profile: Profile) -> Iterator[str]:
    """Residual stages with twice the channels of the one before at the same size, undilated: ResNet's halve it."""
    spec, plan = profile.spec, profile.plan
    for above, row in pairwise(spec.rows):
        x, y = (plan.steps[plan.rows[name]].shape for name in (above, row))
        steps = [step.op for step in plan.steps if step.where.stage == row]
        if (
            y.c == 2 * x.c
            and (y.h, y.w) == (x.h, x.w)
            and all(any(isinstance(item.what, Residual) for item in spec.rows[name]) for name in (above, row))
            and not any(isinstance(op, Conv) and op.dilation > 1 for op in steps)
        ):
            yield row
