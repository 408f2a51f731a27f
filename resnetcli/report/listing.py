"""What there is in the zoo."""

from __future__ import annotations

from dataclasses import dataclass

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.report.profile import Profile, profile_model
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Listing:
    """Every net that was asked for, by family and in natural order."""

    profiles: tuple[Profile, ...]


def models(*patterns: str, zoo: Zoo | None = None) -> tuple[str, ...]:
    """The names in the zoo that match any of the patterns; all without one.

    Raises UsageError if nothing matches.
    """
    zoo = zoo or Zoo()
    found = zoo.matching(patterns or ("*",))
    if not found:
        shown = " ".join(patterns)
        raise UsageError(f"no model matches `{shown}`", did_you_mean(shown, zoo.files, "`resnet-cli list` shows all"))
    return tuple(found)


def listing(*patterns: str, zoo: Zoo | None = None) -> Listing:
    """The profiles of the models that match."""
    zoo = zoo or Zoo()
    return Listing(tuple(profile_model(name, {}, zoo=zoo) for name in models(*patterns, zoo=zoo)))
