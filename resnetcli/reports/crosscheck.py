"""The figures of installed counting tools for the built model, compared with ours under the same conventions."""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from resnetcli.counting.conventions import CONVENTIONS, tally
from resnetcli.counting.tally import Tally, defects_shown
from resnetcli.errors import plural
from resnetcli.frozen import frozen
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import AS_GIVEN, Record, model_head, tally_record
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Sheet

if TYPE_CHECKING:
    from resnetcli.counting.tools import ToolReport

Agreement = Literal["agrees", "differs", "no figure"]


@frozen
class ToolCheck:
    """One tool on one model."""

    model: str
    report: ToolReport
    ours: Tally
    params: int
    """Our number of parameters."""
    defects: tuple[str, ...]
    """The tool's known defects that affect this model."""

    @property
    def verdict(self) -> Agreement:
        """Whether the tool's total, and its number of parameters if it reports one, equal ours exactly."""
        if self.report.counted is None:
            return "no figure"
        same = self.report.counted == self.ours.total and self.report.params in (None, self.params)
        return "agrees" if same else "differs"


@frozen
class Crosscheck:
    """Every tool on one model."""

    profile: Profile
    tools: tuple[ToolCheck, ...] = field(repr=False)

    @property
    def agrees(self) -> bool:
        """Whether no tool differs; tools without a figure do not count."""
        return not any(tool.verdict == "differs" for tool in self.tools)


def crosscheck(model: str | Profile) -> Crosscheck:
    """Build a model (a name, a path or a profile) and run the installed counting tools on it.

    Raises UsageError and SpecError as `load` does, ResourceError if the model does not fit in memory.
    """
    from resnetcli.counting.tools import run_tools

    profile = profile_model(model, {}) if isinstance(model, str) else model
    plan, checks = profile.plan, []
    for report in run_tools(plan):
        convention = CONVENTIONS[report.convention]
        defects = tuple(defects_shown(plan, convention))
        checks.append(ToolCheck(profile.label, report, tally(plan, convention), profile.counts.params, defects))
    return Crosscheck(profile, tuple(checks))


FIELDS: tuple[Field[ToolCheck], ...] = (
    Field("model", "model", align="left", shown=False, help=AS_GIVEN),
    Field("convention", "convention", lambda c: c.report.convention, align="left", style="bold",
          help="counting convention of the tool"),
    Field("tool", "tool", lambda c: f"{c.report.package} {c.report.version}".strip(), align="left", priority=2,
          help="package and version"),
    Field("counted", "tool's figure", lambda c: c.report.counted, exact, help="what the tool reports"),
    Field("ours", "ours", lambda c: c.ours.total, exact, help="our total under the convention"),
    Field("params", "tool's params", lambda c: c.report.params, exact, priority=1,
          help="parameters that the tool reports"),
    Field("verdict", "verdict", align="left", help="whether the figures and the parameters agree"),
    Field("problem", "problem", lambda c: c.report.problem, shown=False, help="why the tool reports no figure"),
)  # fmt: skip


def crosscheck_sheet(results: tuple[Crosscheck, ...]) -> Sheet:
    """One row per model and tool."""
    headings: dict[int, str] = {}
    checks: list[ToolCheck] = []
    for result in results:
        profile = result.profile
        headings[len(checks)] = f"{profile.label}, {profile.plan.input}, {exact(profile.counts.params)} parameters"
        checks += result.tools
    return Sheet.of(FIELDS, checks, headings=headings)


def crosscheck_lines(results: tuple[Crosscheck, ...]) -> list[str]:
    """How many figures agree, and why figures are missing."""
    verdicts = [tool.verdict for result in results for tool in result.tools]
    agree, differ, missing = (verdicts.count(verdict) for verdict in ("agrees", "differs", "no figure"))
    line = (
        f"{plural(len(results), 'model')}: {plural(agree, 'figure agrees', 'figures agree')} to the last digit, "
        f"{plural(differ, 'differs', 'differ')}"
    )
    problems = dict.fromkeys(
        f"{tool.report.convention}: {tool.report.problem}"
        for result in results
        for tool in result.tools
        if tool.report.problem
    )
    return [line + (f", {missing} not available" if missing else ""), *problems]


def crosscheck_notes(results: tuple[Crosscheck, ...]) -> list[str]:
    """The known defects that affect these models, each once with its conventions."""
    conventions: dict[str, dict[str, None]] = {}
    for tool in (tool for result in results for tool in result.tools if tool.report.counted is not None):
        for defect in tool.defects:
            conventions.setdefault(defect, {})[tool.report.convention] = None
    return [f"known defect of {', '.join(names)}: {defect}" for defect, names in conventions.items()]


def crosscheck_record(results: tuple[Crosscheck, ...]) -> Record:
    """`resnet-cli/crosscheck@1`."""
    return {
        "schema": "resnet-cli/crosscheck@1",
        "models": [
            {
                **model_head(result.profile),
                "params": result.profile.counts.params,
                "agrees": result.agrees,
                "tools": [
                    {
                        "convention": tally_record(tool.ours),
                        "package": tool.report.package,
                        "version": tool.report.version or None,
                        "counted": tool.report.counted,
                        "params": tool.report.params,
                        "verdict": tool.verdict,
                        "problem": tool.report.problem or None,
                        "defects": list(tool.defects),
                    }
                    for tool in result.tools
                ],
            }
            for result in results
        ],
    }
