"""What there is in the zoo."""

from __future__ import annotations

from dataclasses import dataclass

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.failures import ModelFailure, for_each
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record
from resnetcli.spec.papers import Paper
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Group:
    """The nets of one family that one paper is cited for."""

    family: str
    paper: Paper | None
    """None where `cite:` names no paper of the zoo's."""
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True)
class Listing:
    """Every net that was asked for, by family and paper, the oldest paper first."""

    groups: tuple[Group, ...]
    failed: tuple[ModelFailure, ...] = ()
    """Patterns that nothing matches, and models whose specs are invalid."""

    @property
    def profiles(self) -> tuple[Profile, ...]:
        """All of them, in the order of the groups."""
        return tuple(profile for group in self.groups for profile in group.profiles)


def models(*patterns: str, zoo: Zoo | None = None) -> tuple[str, ...]:
    """The names in the zoo that match any of the patterns; all without one.

    Raises UsageError for a pattern that nothing matches.
    """
    zoo = zoo or Zoo()
    for pattern in patterns:
        if not zoo.matching([pattern]):
            hint = did_you_mean(pattern, zoo.files, "`resnet-cli list` shows all")
            raise UsageError(f"no model matches `{pattern}`", hint)
    return tuple(zoo.matching(patterns or ("*",)))


def listing(*patterns: str, zoo: Zoo | None = None) -> Listing:
    """The profiles of the models that match, in the order of the zoo. Raises ModelsError if there are none."""
    zoo = zoo or Zoo()
    matched, failures = for_each(((pattern, {}) for pattern in patterns or ("*",)), lambda p, _: models(p, zoo=zoo))
    names = sorted({name for found in matched for name in found}, key=list(zoo.files).index)
    profiles, invalid = for_each(((name, {}) for name in names), lambda name, _: profile_model(name, {}, zoo=zoo))
    groups: dict[tuple[str, Paper | None], list[Profile]] = {}
    for profile in profiles:
        groups.setdefault((profile.family, zoo.paper(profile.spec.cite)), []).append(profile)
    oldest = list(zoo.papers.values())

    def age(paper: Paper | None) -> int:
        return oldest.index(paper) if paper else len(oldest)

    first = {family: min(age(paper) for f, paper in groups if f == family) for family, _ in groups}
    ordered = sorted(groups.items(), key=lambda entry: (first[entry[0][0]], entry[0][0], age(entry[0][1])))
    found = tuple(Group(family, paper, tuple(nets)) for (family, paper), nets in ordered)
    return Listing(found, (*failures, *invalid))


def list_record(listing: Listing) -> Record:
    """`resnet-cli/list@1`."""
    return {
        "schema": "resnet-cli/list@1",
        "models": [
            {
                "model": profile.model,
                "family": group.family,
                "paper": group.paper.key if group.paper else None,
                "params": profile.counts.params,
                "macs": profile.counts.macs,
                "depth": profile.counts.depth,
                "input": list(profile.plan.input_sizes),
            }
            for group in listing.groups
            for profile in group.profiles
        ],
    }
