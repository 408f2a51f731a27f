"""What a net is, where it is from, and what is known to differ from its paper."""

from __future__ import annotations

from dataclasses import dataclass

from resnetcli.errors import Source
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, heads_record, published_record
from resnetcli.spec.lineage import open_document
from resnetcli.spec.papers import Paper
from resnetcli.spec.source import Text, parse
from resnetcli.spec.zoo import Zoo


@dataclass(frozen=True, slots=True)
class Info:
    """A net's papers and relatives; what it costs is in its profile."""

    profile: Profile
    paper: Paper | None
    """None where `cite:` names no paper of the zoo's."""
    extended_by: tuple[str, ...]
    """The nets of the zoo that start from this one."""
    source: Source
    """Its file, with the text."""


def info(model: str, zoo: Zoo | None = None) -> Info:
    """All there is to say of a model: a name in the zoo or a path. Raises UsageError and SpecError as `load` does."""
    zoo = zoo or Zoo()
    profile = profile_model(model, {}, zoo=zoo)
    return Info(profile, zoo.paper(profile.spec.cite), _extended_by(model, zoo), open_document(model, zoo).source)


def _extended_by(model: str, zoo: Zoo) -> tuple[str, ...]:
    parents = {name: zoo.parsed(path)[1].get("extends") for name, path in zoo.files.items()}
    return tuple(name for name, parent in parents.items() if isinstance(parent, Text) and parent.value == model)


def starter(source: Source) -> str:
    """A spec's text without what is true of that net alone: `published:` and `expect:`."""
    pairs = parse(source).pairs
    lines = source.text.splitlines(keepends=True)
    starts = [key.at.line - 1 for key, _ in pairs]
    for (key, _), start, end in reversed(list(zip(pairs, starts, [*starts[1:], len(lines)], strict=True))):
        if key.value in ("published", "expect"):
            del lines[start:end]
    return "".join(lines).rstrip() + "\n"


def info_record(info: Info) -> Record:
    """`resnet-cli/info@1`."""
    profile, paper = info.profile, info.paper
    return {
        "schema": "resnet-cli/info@1",
        "model": profile.model,
        "family": profile.family,
        "name": profile.spec.title,
        "cite": profile.spec.cite,
        "paper": {"key": paper.key, "name": paper.name, "authors": paper.authors, "title": paper.title}
        if paper
        else None,
        "about": profile.spec.about or None,
        "deviations": list(profile.spec.deviations),
        "extends": list(profile.spec.extends),
        "extended_by": list(info.extended_by),
        "parameters": dict(profile.plan.parameters),
        "params": profile.counts.params,
        "macs": profile.counts.macs,
        "depth": profile.counts.depth,
        "aux": heads_record(profile),
        "published": [published_record(entry) for entry in profile.judged],
        "file": info.source.label,
    }
