"""Writes docs/reference/zoo.md from the specs: every model with its counts, published figures and known deviations.

python docs/zoo.py           # write it
python docs/zoo.py --check   # exit 1 if it is not current
"""

from __future__ import annotations

import sys
from pathlib import Path

from resnetcli.reports.listing import Group, listing
from resnetcli.reports.profile import Profile
from resnetcli.reports.verdict import COUNTED
from resnetcli.table.numbers import exact, figure_name
from resnetcli.table.sheet import Cell, Column, Sheet, cell, to_markdown

PAGE = Path(__file__).parent / "reference" / "zoo.md"
INTRODUCTION = """\
# The zoo

Every net of `resnet-cli list`, written from the specs by `python docs/zoo.py`. Counts are exact, for one image; papers
call MACs FLOPs. *Printed* is what papers say of these counts: a figure agrees if the count rounds or truncates to its
digits, otherwise it **differs**, and the reason stands below the table if one is known; `resnet-cli verify` holds them
to that. Accuracies and further figures are in `resnet-cli info MODEL` and, paper by paper, in `resnet-cli papers`.
"""
COLUMNS = (
    Column("model", "model", "left"),
    Column("net", "net", "left"),
    Column("input", "input"),
    Column("parameters", "params"),
    Column("MACs", "macs"),
    Column("depth", "depth"),
    Column("printed", "printed", "left"),
)


def page() -> str:
    """The whole text."""
    found = listing()
    parts = [INTRODUCTION]
    family = ""
    for group in found.groups:
        if group.family != family:
            family = group.family
            parts.append(f"## {family}\n")
        parts.append(section(group))
    return "\n".join(parts)


def section(group: Group) -> str:
    """One paper's nets of a family: the table, then what there is to say of each."""
    assert group.paper is not None  # a test holds every citation to the zoo's papers
    lines = [f"### {group.paper.authors}, *{group.paper.title}*", "", group.paper.key, ""]
    lines.append(to_markdown(Sheet(COLUMNS, tuple(map(row, group.profiles)))).replace("\\`", "`"))  # names as code
    said = [text for profile in group.profiles if (text := remarks(profile))]
    return "\n".join([*lines, *([*said, ""] if said else [])])


def row(profile: Profile) -> tuple[Cell, ...]:
    """One net's line."""
    counts, size = profile.counts, profile.plan.input
    printed = dict.fromkeys(
        f"{entry.published.printed} {figure_name(entry.published.figure)}" + ("*" if entry.verdict == "differs" else "")
        for entry in profile.judged
        if entry.published.figure in COUNTED
    )
    return (
        cell(f"`{profile.model}`"),
        cell(profile.spec.title),
        cell(f"{size.c}x{size.h}x{size.w}"),
        cell(exact(counts.params)),
        cell(exact(counts.macs)),
        cell(counts.depth),
        cell(", ".join(printed)),
    )


def remarks(profile: Profile) -> str:
    """What distinguishes the net, its auxiliary heads, and where it is not what is printed."""
    lines = [f"- `{profile.model}`: {profile.spec.about}".rstrip(": ")]
    if profile.heads:
        with_them = profile.heads.with_them
        lines.append(
            f"  - with its auxiliary training heads (`--aux`): {exact(with_them.params)} parameters, "
            f"{exact(with_them.macs)} MACs"
        )
    lines += [f"  - {text}" for text in profile.spec.deviations]
    lines += [
        f"  - **differs**: {figure_name(e.published.figure)} {e.published.printed} in {e.published.source}, "
        f"{e.published.table}, counted {exact(e.counted)}; {e.published.note}"
        for e in profile.judged
        if e.verdict == "differs" and e.counted is not None
    ]
    return "\n".join(lines) if profile.spec.about or len(lines) > 1 else ""


def main() -> int:
    """Writes the page, or says whether it is current."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/reference/zoo.md is out of date: python docs/zoo.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
