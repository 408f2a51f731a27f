"""Check published figures and `expect:` against the counts, as a table and as a record."""

from __future__ import annotations

from resnetcli.errors import plural
from resnetcli.failures import ModelFailure, for_each
from resnetcli.frozen import frozen
from resnetcli.reports.check import unmet
from resnetcli.reports.listing import models
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, published_record
from resnetcli.reports.verdict import Judged
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field
from resnetcli.table.numbers import figure_name, short
from resnetcli.table.sheet import Sheet


@frozen
class VerifiedModel:
    """The result for one model."""

    profile: Profile
    judged: tuple[Judged, ...]
    """The published figures that can be counted."""
    faults: tuple[str, ...]
    """Why verification fails."""


@frozen
class Verification:
    """The results for several models."""

    models: tuple[VerifiedModel, ...]
    failed: tuple[ModelFailure, ...] = ()
    """Models that could not be counted."""

    @property
    def faults(self) -> tuple[str, ...]:
        """All faults, each with its model."""
        return tuple(f"{model.profile.model}: {fault}" for model in self.models for fault in model.faults)


def verify(*names: str, zoo: Zoo | None = None) -> Verification:
    """Verify models: names, wildcards or paths; the whole zoo without any.

    Models that cannot be counted are in `failed`. Raises ModelsError if there are no others.
    """
    zoo = zoo or Zoo()
    verified, failures = for_each(
        ((name, {}) for name in names or models(zoo=zoo)), lambda name, _: _verify(profile_model(name, {}, zoo=zoo))
    )
    return Verification(tuple(verified), tuple(failures))


def _verify(profile: Profile) -> VerifiedModel:
    judged = tuple(entry for entry in profile.judged if entry.verdict is not None)
    faults = [fault for entry in judged if (fault := _fault(entry))]
    faults += [problem.message for problem in unmet(profile)]
    return VerifiedModel(profile, judged, tuple(faults))


def _fault(entry: Judged) -> str:
    published = entry.published
    what = f"{published.figure} {published.printed} in {published.source}, {published.table}"
    if entry.verdict == "differs" and not published.note:
        return f"{what} differs from {entry.counted:,}, and no `note:` explains it"
    if entry.verdict != "differs" and published.note:
        return f"{what} agrees with {entry.counted:,}, but has a `note:`"
    return ""


_Figure = tuple[VerifiedModel, Judged]
FIELDS: tuple[Field[_Figure], ...] = (
    Field("model", "model", lambda figure: figure[0].profile.model, align="left", style="bold",
          help="name of the model in the zoo"),
    Field("figure", "figure", lambda figure: figure[1].published.figure, text=figure_name, align="left",
          help="published quantity"),
    Field("published", "published", lambda figure: figure[1].published.printed,
          help="value as printed in the paper"),
    Field("counted", "counted", lambda figure: figure[1].counted, text=short, help="computed from the spec"),
    Field("verdict", "verdict", lambda figure: figure[1].verdict, align="left",
          help="whether the count rounds or truncates to it, or differs"),
    Field("source", "source", lambda figure: f"{figure[1].published.source} {figure[1].published.table}",
          text=lambda source: source.removeprefix("arXiv:"), align="left", style="dim", priority=1,
          help="paper and table"),
    Field("note", "note", lambda figure: figure[1].published.note, align="left", wrap=True,
          help="why the count differs"),
)  # fmt: skip


def verification_sheet(verification: Verification) -> Sheet:
    """One row per published figure that can be counted."""
    return Sheet.of(FIELDS, [(model, entry) for model in verification.models for entry in model.judged])


def verification_lines(verification: Verification) -> list[str]:
    """How many figures agree and how many differ, and whether that is explained."""
    verdicts = [entry.verdict for model in verification.models for entry in model.judged]
    figures = plural(len(verdicts), "published figure") if verdicts else "no published figure"
    numbers = ", ".join(f"{verdicts.count(v)} {v[:-1]}" for v in ("rounds", "truncates", "differs"))
    expected = sum(model.profile.spec.expect is not None for model in verification.models)
    outcome = "all mismatches are explained" if "differs" in verdicts else "no mismatches"
    return [
        f"{figures} of {plural(len(verification.models), 'model')}: {numbers}; "
        f"{plural(expected, 'model')} checked against exact counts (`expect:`)",
        plural(len(verification.faults), "fault") if verification.faults else f"OK: {outcome}",
    ]


def verify_record(verification: Verification) -> Record:
    """`resnet-cli/verify@2`."""
    return {
        "schema": "resnet-cli/verify@2",
        "models": [
            {
                "model": model.profile.model,
                "published": [published_record(entry) for entry in model.judged],
                "faults": list(model.faults),
            }
            for model in verification.models
        ],
    }
