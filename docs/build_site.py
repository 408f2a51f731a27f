"""Build the documentation as a site in build/site, from a copy in build/docs.

Generated pages are written first. In the copy, links to other files of the repository lead to copies of them, and links
to the README to the first page. Warnings, such as a dead link, are errors.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DOCS, COPY = ROOT / "docs", ROOT / "build" / "docs"
LINK = re.compile(r"(?<=\]\()((?:\.\./)+[\w./-]+)")
NOT_RUN = re.compile(r"^( *```\w+) norun$", re.MULTILINE)
"""How the tests mark a block that is not run. Python-Markdown knows no such mark."""


def main() -> int:
    """Write, copy and build."""
    for script in ("zoo.py", "pictures.py"):
        subprocess.run([sys.executable, DOCS / script], check=True)
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(DOCS, COPY, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    for page in COPY.rglob("*.md"):
        place = DOCS / page.relative_to(COPY)
        page.write_text(page_text(place), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict", "--clean"]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def page_text(page: Path) -> str:
    """The page for the site; the files that it links to are copied."""

    def link(match: re.Match[str]) -> str:
        target = (page.parent / match[1]).resolve()
        if target.is_relative_to(DOCS):
            return match[1]
        up = match[1].removeprefix("../")
        if target == ROOT / "README.md":
            return up.replace("README.md", "index.md")
        copy = COPY / target.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(target, copy)
        return up

    return LINK.sub(link, NOT_RUN.sub(r"\1", page.read_text(encoding="utf-8")))


if __name__ == "__main__":
    sys.exit(main())
