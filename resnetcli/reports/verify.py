"""Every printed figure against the count, and whether what differs has been given its reason."""

from __future__ import annotations

from dataclasses import dataclass

from resnetcli.failures import ModelFailure, for_each
from resnetcli.reports.check import unmet
from resnetcli.reports.listing import models
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, published_record
from resnetcli.reports.verdict import Judged
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Verified:
    """The outcome for one net."""

    profile: Profile
    judged: tuple[Judged, ...]
    """The figures that can be counted."""
    faults: tuple[str, ...]
    """What makes verification fail."""


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome for all nets that were asked for."""

    nets: tuple[Verified, ...]
    failed: tuple[ModelFailure, ...] = ()
    """Models that could not be counted."""

    @property
    def figures(self) -> tuple[Judged, ...]:
        """All figures that were compared."""
        return tuple(entry for net in self.nets for entry in net.judged)

    @property
    def faults(self) -> tuple[str, ...]:
        """All of them, each with its model."""
        return tuple(f"{net.profile.model}: {fault}" for net in self.nets for fault in net.faults)


def verify(*names: str, zoo: Zoo | None = None) -> Verification:
    """Verifies nets: names, wildcards or paths; the whole zoo without any.

    A model that cannot be counted is among `failed`. Raises ModelsError if there is no other.
    """
    zoo = zoo or Zoo()
    asked = names or models(zoo=zoo)
    nets, failures = for_each(
        ((name, {}) for name in asked), lambda name, _: _verified(profile_model(name, {}, zoo=zoo))
    )
    return Verification(tuple(nets), tuple(failures))


def _verified(profile: Profile) -> Verified:
    judged = tuple(entry for entry in profile.judged if entry.verdict is not None)
    faults = [fault for entry in judged if (fault := _fault(entry))]
    faults += [problem.message for problem in unmet(profile)]
    return Verified(profile, judged, tuple(faults))


def _fault(entry: Judged) -> str:
    published = entry.published
    what = f"{published.figure} {published.printed} of {published.source}, {published.table}"
    if entry.verdict == "differs" and not published.note:
        return f"{what} differs from {entry.counted:,}, and no `note:` says why"
    if entry.verdict != "differs" and published.note:
        return f"{what} agrees with {entry.counted:,}, and yet has a `note:`"
    return ""


def verify_record(found: Verification) -> Record:
    """`resnet-cli/verify@1`."""
    return {
        "schema": "resnet-cli/verify@1",
        "models": [
            {
                "model": net.profile.model,
                "published": [published_record(entry) for entry in net.judged],
                "faults": list(net.faults),
            }
            for net in found.nets
        ],
    }
