"""Files that anybody may have written, read only so far; and files that are there whole or not at all."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from resnetcli.errors import UsageError


def read_bounded(label: str | os.PathLike[str], most: int, hint: str = "") -> bytes:
    """What is in a file of at most so many bytes. Raises UsageError for a larger one, and for what never ends."""
    try:
        path = Path(label)
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe might never end
            raise UsageError(f"`{label}` is no regular file", hint)
        with path.open("rb") as file:
            data = file.read(most + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "no such file"
        raise UsageError(f"`{label}` cannot be read: {reason}", hint) from None
    if len(data) > most:
        raise UsageError(f"`{label}` is larger than {most // 2**20} MiB", hint)
    return data


def load_json(label: str | os.PathLike[str], most: int, hint: str = "") -> Any:
    """What is in a file of JSON of at most so many bytes. Raises UsageError for whatever else a file may hold."""
    try:
        return json.loads(read_bounded(label, most, hint))
    except (ValueError, RecursionError):  # no JSON, no UTF-8, a number of thousands of digits; brackets without end
        raise UsageError(f"`{label}` is not JSON", hint) from None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Writes an object, whole. Raises OSError."""
    write_whole(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a file so that whoever looks, even after a power cut, finds the old one or the new one, whole.

    Raises OSError, and leaves the old one, if it cannot.
    """
    draft = draft_of(path)
    try:
        draft.unlink(missing_ok=True)  # of a process that was killed, or a link to somewhere else
        with draft.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:  # also where somebody interrupts it
        with suppress(OSError):
            draft.unlink()
    _keep_name(path.parent)


def draft_of(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


def drafted(name: str) -> tuple[str, ...]:
    """The names of files that a file of this name may be a draft of, `.NAME.part` or `.NAME.UNIQUE.part`; or none."""
    if not (name.startswith(".") and name.endswith(".part")):
        return ()
    inner = name[1 : -len(".part")]
    return inner, inner.rpartition(".")[0]


def _keep_name(folder: Path) -> None:
    """Has the directory itself on the disk, without which a renamed file can be lost."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
