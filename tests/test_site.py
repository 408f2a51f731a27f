"""Every page of the documentation is in the site's navigation and on its first page."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def pages_of(entry: Any) -> Iterator[str]:
    """Yield the pages of a part of the navigation."""
    if isinstance(entry, str):
        yield entry
    else:
        for part in entry.values() if isinstance(entry, dict) else entry:
            yield from pages_of(part)


def test_every_page_is_in_the_navigation_once() -> None:
    project = tomllib.loads((ROOT / "zensical.toml").read_text("utf-8"))["project"]
    assert sorted(pages_of(project["nav"])) == PAGES


def test_every_page_is_linked_from_the_first_page() -> None:
    links = re.findall(r"\]\(([\w/-]+\.md)\)", (DOCS / "index.md").read_text("utf-8"))
    assert sorted({"index.md", *links}) == PAGES
