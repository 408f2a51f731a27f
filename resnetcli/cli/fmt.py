"""Format spec files in place."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from resnetcli.cli.app import complain, examples, guarded, worse
from resnetcli.errors import SpecError, UsageError

app = typer.Typer(add_completion=False)


@app.command("fmt", epilog=examples("fmt my_model.yaml", "fmt --check specs/*.yaml"))
@guarded
def fmt(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="YAML files; - reads stdin, writes stdout.")],
    check_only: Annotated[
        bool, typer.Option("--check", help="Check only; exit 1 if a file would be reformatted.")
    ] = False,
) -> None:
    """Format spec files in place."""
    worst = 0
    for file in files:
        try:
            changed = format_file(file, write=not check_only)
        except (SpecError, UsageError) as error:
            complain(str(error))
            worst = 2
            continue
        except OSError as error:  # a file that cannot be replaced leaves the others to be formatted
            complain(f"error: `{file}` cannot be written: {error.strerror or error}")
            worst = worse(worst, 3)
            continue
        if changed:
            complain(f"{file}: {'not in canonical form' if check_only else 'formatted'}")
            worst = worse(worst, 1 if check_only else 0)
    if worst:
        raise typer.Exit(worst)


def format_file(path: Path, *, write: bool) -> bool:
    """Format a file in place, or stdin to stdout for `-`, and return whether the text differs.

    Raises SpecError or UsageError, and then changes nothing.
    """
    from resnetcli.files import write_atomic
    from resnetcli.spec.format import format_text
    from resnetcli.spec.source import MAX_BYTES, decode, read_source

    if str(path) == "-":
        source = decode(sys.stdin.buffer.read(MAX_BYTES + 1) if sys.stdin else b"", "<stdin>")
        text = format_text(source)
        if write:
            sys.stdout.write(text)
            return False
    else:
        source = read_source(path)
        text = format_text(source)
        if write and text != source.text:
            write_atomic(path.resolve(), text.encode())  # a link stays a link
    return text != source.text
