"""A model's paper, relatives, deviations and published figures; as a table and as a record."""

from __future__ import annotations

from textwrap import fill

from resnetcli.errors import Source
from resnetcli.frozen import frozen
from resnetcli.plan.plan import settings_text
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.records import Record, heads_record, pick, published_record
from resnetcli.spec.lineage import open_document
from resnetcli.spec.papers import Paper
from resnetcli.spec.source import parse
from resnetcli.spec.summary import parents
from resnetcli.spec.zoo import Zoo
from resnetcli.table.fields import Field
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Sheet


@frozen
class Info:
    """A model's paper and relatives; its costs are in its profile."""

    profile: Profile
    paper: Paper | None
    """None if `cite:` names no paper of the zoo."""
    extended_by: tuple[str, ...]
    """The models of the zoo that extend this one."""
    source: Source
    """Source file with its text."""


def info(model: str, zoo: Zoo | None = None) -> Info:
    """Information on a model: a name in the zoo or a path. Raises UsageError and SpecError as `load` does."""
    zoo = zoo or Zoo()
    profile = profile_model(model, {}, zoo=zoo)
    children = tuple(name for name, parent in parents(zoo).items() if parent == model)
    return Info(profile, zoo.paper(profile.spec.cite), children, open_document(model, zoo).source)


def starter(source: Source) -> str:
    """A spec's text without `published:` and `expect:`, which hold for that model only."""
    pairs = parse(source).pairs
    lines = source.text.splitlines(keepends=True)
    starts = [key.at.line - 1 for key, _ in pairs]
    for (key, _), start, end in reversed(list(zip(pairs, starts, [*starts[1:], len(lines)], strict=True))):
        if key.value in ("published", "expect"):
            del lines[start:end]
    return "".join(lines).rstrip() + "\n"


def info_sheet(info: Info, width: int | None = None, *, figures: bool = False) -> Sheet:
    """One fact per row, wrapped for a terminal of `width` if given; with the published figures if `figures`."""
    from resnetcli.reports.profile_table import heads_line

    profile = info.profile
    spec, counts = profile.spec, profile.counts
    facts = [
        ("name", spec.title),
        ("model", profile.model),
        ("family", profile.family),
        ("cite", spec.cite),
        ("paper", info.paper.title if info.paper else ""),
        ("about", spec.about),
        ("extends", ", which extends ".join(spec.extends)),
        ("extended by", ", ".join(info.extended_by)),
        ("parameters", settings_text(profile.plan.parameters)),
        ("counted", f"{exact(counts.params)} parameters, {exact(counts.macs)} MACs, depth {counts.depth}, "
                    f"for one image of {profile.plan.input}"),
        ("", heads_line(profile)),
        *(("" if number else "deviations", text) for number, text in enumerate(spec.deviations)),
        ("file", info.source.label),
    ]  # fmt: skip
    for entry in profile.judged if figures else ():
        p = entry.published
        words = (p.figure, p.printed, p.dataset, p.protocol, p.source, p.table)
        facts.append(("published", " ".join(filter(None, words))))
    fields: list[Field[tuple[str, str]]] = [
        Field("fact", "", lambda fact: fact[0], align="left", style="bold", help="property of the model"),
        Field("text", "", lambda fact: fact[1], lambda text: _filled(text, width, listed=text in spec.deviations),
              align="left", help="its value"),
    ]  # fmt: skip
    return Sheet.of(fields, [fact for fact in facts if fact[1]])


def _filled(text: str, width: int | None, *, listed: bool) -> str:
    lead, indent = ("- ", "  ") if listed else ("", "")
    if width is None:
        return lead + text
    room = max(20, min(width - 18, 90))  # beside the names; no line longer than is easy to read
    return fill(text, room, initial_indent=lead, subsequent_indent=indent, break_long_words=False)


def info_record(info: Info) -> Record:
    """`resnet-cli/info@2`."""
    profile, paper, spec = info.profile, info.paper, info.profile.spec
    return {
        "schema": "resnet-cli/info@2",
        **pick(profile, "model", "family"),
        "name": spec.title,
        "cite": spec.cite,
        "paper": pick(paper, "key", "name", "authors", "title") if paper else None,
        "about": spec.about or None,
        "deviations": list(spec.deviations),
        "extends": list(spec.extends),
        "extended_by": list(info.extended_by),
        "parameters": dict(profile.plan.parameters),
        **pick(profile.counts, "params", "macs", "depth"),
        "aux": heads_record(profile),
        "published": [published_record(entry) for entry in profile.judged],
        "file": info.source.label,
    }
