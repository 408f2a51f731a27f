"""Draw the documentation's pictures: what commands print, as SVG.

python docs/pictures.py           # write docs/pictures/*.svg
python docs/pictures.py --check   # exit 1 if one is not current
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from pathlib import Path

from rich.console import Console

from resnetcli.cli.main import app
from resnetcli.table import output

PICTURES = {
    "show": ("show resnet50 resnext50_32x4d", 78),
    "profile": ("profile resnext50_32x4d", 84),
}
HERE = Path(__file__).parent / "pictures"


def draw(command: str, width: int) -> str:
    """The SVG of what a command prints on a terminal of `width` columns."""
    screen = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor",
                     highlight=False, emoji=False, markup=False)  # fmt: skip
    screen.print(f"$ resnet-cli {command}", style="bold green")
    original, output.console = output.console, lambda: screen
    try:
        with contextlib.suppress(SystemExit):
            app(command.split(), prog_name="resnet-cli")
    finally:
        output.console = original
    return screen.export_svg(title="resnet-cli", unique_id=command.split()[0])


def main() -> int:
    """Write the pictures, or check that they are current."""
    os.environ.pop("NO_COLOR", None)  # pictures are in colour on any terminal
    stale = 0
    for name, (command, width) in PICTURES.items():
        path = HERE / f"{name}.svg"
        picture = draw(command, width)
        if "--check" not in sys.argv[1:]:
            path.write_text(picture, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != picture:
            print(f"{path.name} is out of date: python docs/pictures.py", file=sys.stderr)
            stale = 1
    return stale


if __name__ == "__main__":
    sys.exit(main())
