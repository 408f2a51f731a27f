"""Write docs/reference/zoo.md from the specs: every model with its counts, published figures and known deviations.

python docs/zoo.py           # write it
python docs/zoo.py --check   # exit 1 if it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

from resnetcli.reports.listing import ListedModel, listing
from resnetcli.reports.profile import Profile, profile_model
from resnetcli.reports.verdict import COUNTED
from resnetcli.spec.papers import Paper
from resnetcli.spec.zoo import Zoo
from resnetcli.table.numbers import exact, figure_name
from resnetcli.table.sheet import Cell, Column, Sheet, cell, to_markdown

PAGE = Path(__file__).parent / "reference" / "zoo.md"
INTRODUCTION = """\
# The zoo

Every model of `resnet-cli list`, written from the specs by `python docs/zoo.py`. Counts are exact, for one image;
papers call MACs FLOPs. A *published* figure agrees if the count rounds or truncates to its digits, otherwise it
**differs** (\\*), and the reason is below the table if it is known; `resnet-cli verify` checks both. Accuracies and
further figures are in `resnet-cli info MODEL` and, paper by paper, in `resnet-cli papers`.
"""
COLUMNS = (
    Column("model", "model", "left"),
    Column("name", "name", "left"),
    Column("input", "input"),
    Column("parameters", "params"),
    Column("MACs", "macs"),
    Column("depth", "depth"),
    Column("published", "published", "left"),
)


def page() -> str:
    """The text of the page."""
    parts, zoo = [INTRODUCTION], Zoo()
    for family, models in groupby(listing(zoo=zoo).models, key=lambda model: model.family):
        parts.append(f"## {family}\n")
        parts += [section(paper, group, zoo) for paper, group in groupby(models, key=lambda model: model.paper)]
    return "\n".join(parts)


def section(paper: Paper | None, models: Iterable[ListedModel], zoo: Zoo) -> str:
    """One paper's models in a family: the table, then remarks on each model."""
    assert paper is not None  # a test checks every citation against the zoo's papers
    profiles = [profile_model(model.model, {}, zoo=zoo) for model in models]
    lines = [f"### {paper.authors}, *{paper.title}*", "", paper.key, ""]
    lines.append(to_markdown(Sheet(COLUMNS, tuple(map(row, profiles)))).replace("\\`", "`"))  # names as code
    texts = [text for profile in profiles if (text := remarks(profile))]
    return "\n".join([*lines, *([*texts, ""] if texts else [])])


def row(profile: Profile) -> tuple[Cell, ...]:
    """One model's row."""
    counts, size = profile.counts, profile.plan.input
    published = dict.fromkeys(
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
        cell(", ".join(published)),
    )


def remarks(profile: Profile) -> str:
    """A description of the model, its auxiliary classifiers, and where it differs from the paper."""
    lines = [f"- `{profile.model}`: {profile.spec.about}".rstrip(": ")]
    if profile.heads:
        with_them = profile.heads.with_them
        lines.append(
            f"    - with auxiliary classifiers (`--aux`): {exact(with_them.params)} parameters, "
            f"{exact(with_them.macs)} MACs"
        )
    lines += [f"    - {text}" for text in profile.spec.deviations]
    lines += [
        f"    - **differs**: {figure_name(e.published.figure)} {e.published.printed} in {e.published.source}, "
        f"{e.published.table}, counted {exact(e.counted)}; {e.published.note}"
        for e in profile.judged
        if e.verdict == "differs" and e.counted is not None
    ]
    return "\n".join(lines) if profile.spec.about or len(lines) > 1 else ""


def main() -> int:
    """Write the page, or check that it is current."""
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/reference/zoo.md is out of date: python docs/zoo.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
