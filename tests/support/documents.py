"""Run the commands and sessions of a document again; read the tables of keys in docs/reference/json.md."""

from __future__ import annotations

import contextlib
import difflib
import doctest
import io
import re
import shlex
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from resnetcli.cli.main import main

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

FENCED = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
FILE = re.compile(r"# (\S+\.(?:yaml|py))\n")
PROMPT = re.compile(r"^\$ (.*)\n", re.MULTILINE)


def rerun(text: str) -> str:
    """The document with its current outputs, run in the working directory; blocks marked `norun` are not run.

    A block that begins `# name.yaml` or `# name.py` is written to that file. Output that still matches is not changed.
    """
    names: dict[str, Any] = {}

    def block(match: re.Match[str]) -> str:
        info, body = match[1], match[2]
        if info in {"yaml", "python"} and (file := FILE.match(body)):
            Path(file[1]).write_text(body, encoding="utf-8")
        elif info == "console":
            body = transcript(body)
        elif info == "python" and ">>> " in body:
            body = session(body, names)
        return f"```{info}\n{body}```"

    return FENCED.sub(block, text)


def transcript(body: str) -> str:
    """`$ resnet-cli ...` lines, each followed by its output, errors included."""
    before, *parts = PROMPT.split(body)
    assert not before, f"a console block begins with a command: {before}"
    outputs = [shown(expected, run_line(command)) for command, expected in zip(parts[::2], parts[1::2], strict=True)]
    spaced = [f"{text}\n" if text else "" for text in outputs[:-1]]  # a blank line before the next command
    return "".join(f"$ {command}\n{text}" for command, text in zip(parts[::2], [*spaced, outputs[-1]], strict=True))


def run_line(command: str) -> str:
    """The output of `resnet-cli ...`, or the contents of the files for `cat`."""
    program, *arguments = shlex.split(command)
    if program == "cat":
        return "".join(Path(name).read_text(encoding="utf-8") for name in arguments)
    assert program == "resnet-cli", f"only resnet-cli and cat are run, not {program}; mark the block `norun`"
    printed, argv = io.StringIO(), sys.argv
    sys.argv = [program, *arguments]
    try:
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            main()
    except SystemExit:
        pass  # any other exception would be a traceback
    finally:
        sys.argv = argv
    return printed.getvalue()


def session(body: str, names: dict[str, Any]) -> str:
    """`>>>` lines, each followed by Python's output; sessions share `names`."""
    parts = []
    for part in doctest.DocTestParser().parse(body):
        if isinstance(part, str):
            parts.append(part)
            continue
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(part.source, "a document's session", "single", dont_inherit=True), names)
        first, *others = part.source.splitlines()
        parts += [f">>> {first}\n", *(f"... {line}".rstrip() + "\n" for line in others)]
        parts.append(shown(part.want, printed.getvalue()))
    return "".join(parts)


def shown(expected: str, printed: str) -> str:
    """`expected` if `printed` matches it, else `printed`, abbreviated in the same places."""
    lines, now = _lines(expected), _lines(printed)
    pattern = "".join(r"(?:.*\n)*?" if line == "..." else re.escape(line) + "\n" for line in lines)
    same = re.fullmatch(pattern, "".join(f"{line}\n" for line in now))
    return "".join(f"{line}\n" for line in (lines if same else _cut_alike(lines, now)))


def _lines(text: str) -> list[str]:
    """Lines without trailing blanks, and without blank lines at the beginning and end."""
    lines = [line.rstrip() for line in text.splitlines()]
    full = [index for index, line in enumerate(lines) if line]
    return lines[full[0] : full[-1] + 1] if full else []


def _cut_alike(cut: list[str], now: list[str]) -> list[str]:
    """`now` abbreviated by `...` like `cut`: each remaining piece has the length of `cut`'s and is the most similar."""
    kept: list[str] = []
    pieces = [list(lines) for _, lines in groupby(cut, key=lambda line: line == "...")]
    start = 0
    for index, piece in enumerate(pieces):
        last = len(now) - len(piece)
        if piece == ["..."]:
            kept += piece
        elif len(pieces) == 1:
            kept += now
        else:
            places = [0] if index == 0 else [last] if index == len(pieces) - 1 else range(start, last + 1)
            best = max(places, key=lambda place: _likeness(piece, now[place : place + len(piece)]), default=start)
            kept += now[best : best + len(piece)]
            start = best + len(piece)
    return kept or now


def _likeness(a: list[str], b: list[str]) -> float:
    return difflib.SequenceMatcher(None, "\n".join(a), "\n".join(b), autojunk=False).ratio()


# --- keys of the JSON reference ----------------------------------------------------------------------------------


def text_of(document: str) -> str:
    (path,) = (ROOT / "docs").rglob(document)
    return path.read_text(encoding="utf-8")


def documented(schema: str) -> dict[str, str]:
    """Key -> type, from the tables in a schema's section; `stages[].stage` is a key of each item of `stages`."""
    sections = re.split(r"^## ", text_of("json.md"), flags=re.MULTILINE)
    (section,) = [section for section in sections if section.startswith(f"`resnet-cli/{schema}`")]
    return dict(re.findall(r"^\| `([^`]+)` \| ([^|]+?) \|", section, re.MULTILINE))


OWN_NAMES = (
    "parameters",
    "conditions",
    "peaks",
    "convention.parts",
    "conventions[].parts",
    "matches[].parts",
    "nearest[].parts",
)


def emitted(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every key of a record and its value. Objects of `OWN_NAMES` have a model's own names and count as values."""
    if isinstance(value, list):
        for item in value:
            yield from emitted(item, f"{path}[]")
    elif isinstance(value, dict) and not path.endswith(OWN_NAMES):
        for key, item in value.items():
            here = f"{path}.{key}".lstrip(".")
            yield here, item
            yield from emitted(item, here)


def fits(value: Any, kind: str) -> bool:
    """Whether a value has a type of docs/reference/json.md."""
    if kind.endswith(" or null"):
        return value is None or fits(value, kind.removesuffix(" or null"))
    if kind.startswith("list of "):
        return isinstance(value, list) and all(fits(item, kind.removeprefix("list of ")[:-1]) for item in value)
    return type(value) is {"integer": int, "number": float, "string": str, "boolean": bool, "object": dict}[kind]
