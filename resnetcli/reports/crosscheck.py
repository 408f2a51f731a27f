"""Every installed counter's figure on the built net against ours under its convention."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from resnetcli.counting.conventions import CONVENTIONS, tally
from resnetcli.counting.tally import Tally, defects_shown
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, tally_record

if TYPE_CHECKING:
    from resnetcli.counting.tools import ToolReport

Agreement = Literal["agrees", "differs", "no figure"]


@dataclass(frozen=True, slots=True)
class Crosscheck:
    """One tool on one net."""

    reading: ToolReport
    ours: Tally
    params: int
    """Ours."""
    defects: tuple[str, ...]
    """Of the tool's known ones, those that show on this net."""

    @property
    def verdict(self) -> Agreement:
        """Whether the tool's figure is ours to the last digit; its count of parameters too, where it has one."""
        if self.reading.counted is None:
            return "no figure"
        same = self.reading.counted == self.ours.total and self.reading.params in (None, self.params)
        return "agrees" if same else "differs"


@dataclass(frozen=True, slots=True)
class Crosschecked:
    """Every tool on one net."""

    profile: Profile
    tools: tuple[Crosscheck, ...] = field(repr=False)

    @property
    def agrees(self) -> bool:
        """Whether no tool differs; one that gave no figure does not."""
        return not any(tool.verdict == "differs" for tool in self.tools)


def crosscheck(model: str | Profile) -> Crosschecked:
    """Builds a net and runs the counters that are installed: a name or path, or what was profiled.

    Raises UsageError and SpecError as `load` does, ResourceError if memory does not suffice.
    """
    from resnetcli.counting.tools import run_tools

    profile = profile_model(model, {}) if isinstance(model, str) else model
    found = []
    for reading in run_tools(profile.plan):
        convention = CONVENTIONS[reading.convention]
        ours = tally(profile.plan, convention)
        found.append(Crosscheck(reading, ours, profile.counts.params, tuple(defects_shown(profile.plan, convention))))
    return Crosschecked(profile, tuple(found))


def crosscheck_record(found: tuple[Crosschecked, ...]) -> Record:
    """`resnet-cli/crosscheck@1`."""
    return {
        "schema": "resnet-cli/crosscheck@1",
        "models": [
            {
                "model": net.profile.model,
                "parameters": dict(net.profile.plan.parameters),
                "input": list(net.profile.plan.input_sizes),
                "params": net.profile.counts.params,
                "agrees": net.agrees,
                "tools": [
                    {
                        "convention": tally_record(tool.ours),
                        "package": tool.reading.package,
                        "version": tool.reading.version or None,
                        "counted": tool.reading.counted,
                        "params": tool.reading.params,
                        "verdict": tool.verdict,
                        "problem": tool.reading.problem or None,
                        "defects": list(tool.defects),
                    }
                    for tool in net.tools
                ],
            }
            for net in found
        ],
    }
