"""What a net is and where it is from, as a person reads it."""

from __future__ import annotations

from textwrap import fill

from resnetcli.reports.info import Info
from resnetcli.reports.profile import settings_text
from resnetcli.reports.profile_table import heads_line
from resnetcli.table.numbers import exact
from resnetcli.table.sheet import Column, Sheet, cell


def info_sheet(info: Info, width: int | None = None, *, figures: bool = False) -> Sheet:
    """A fact a line, broken where it is longer than `width` if there is one; the printed figures too if asked for."""
    profile = info.profile
    spec, counts = profile.spec, profile.counts
    counted = f"{exact(counts.params)} parameters, {exact(counts.macs)} MACs, depth {counts.depth}, for one image of "
    facts = [
        ("net", spec.title),
        ("model", profile.model),
        ("family", profile.family),
        ("cite", spec.cite),
        ("paper", info.paper.title if info.paper else ""),
        ("about", spec.about),
        ("extends", ", which extends ".join(spec.extends)),
        ("extended by", ", ".join(info.extended_by)),
        ("parameters", settings_text(profile.plan.parameters)),
        ("counted", f"{counted}{profile.plan.input}"),
        ("", heads_line(profile)),
        *(("" if number else "deviations", text) for number, text in enumerate(spec.deviations)),
        ("file", info.source.label),
    ]
    printed = [entry.published for entry in profile.judged] if figures else []
    facts += [("published", " ".join(filter(None, (p.figure, p.printed, p.dataset, p.protocol, p.source, p.table))))
              for p in printed]  # fmt: skip
    columns = (Column("", "fact", "left", "bold"), Column("", "text", "left"))
    return Sheet(columns, tuple((cell(name), cell(text, _filled(text, width, listed=text in spec.deviations)))
                                for name, text in facts if text))  # fmt: skip


def _filled(text: str, width: int | None, *, listed: bool) -> str:
    lead, indent = ("- ", "  ") if listed else ("", "")
    if width is None:
        return lead + text
    return fill(text, width, initial_indent=lead, subsequent_indent=indent, break_long_words=False)
