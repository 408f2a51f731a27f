"""Files that anybody may have written, read only so far; and files that are there whole or not at all."""

from __future__ import annotations

import errno
import glob
import json
import os
import secrets
import stat
import time
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
    for stale in drafts_of(path):
        with suppress(OSError):
            if stale.stat().st_mtime < time.time() - STALE_S:  # of a process that was killed
                stale.unlink()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # unique among processes
    try:
        with draft.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            _to_disk(file.fileno())
        draft.replace(path)
    finally:  # also where somebody interrupts it
        with suppress(OSError):
            draft.unlink()
    _keep_name(path.parent)


STALE_S = 3600.0
"""Age from which a draft is abandoned."""


def drafts_of(path: Path, pattern: str = "") -> list[Path]:
    """Unfinished drafts of a file, or of all files beside it that match the pattern."""
    return list(path.parent.glob(f".{pattern or glob.escape(path.name)}.*.part"))


_NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM}
"""Errors of file systems without fsync, such as some network ones; the data is written nevertheless."""


def _to_disk(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def drafted(name: str) -> tuple[str, ...]:
    """Names of the files that `.NAME.part` or `.NAME.UNIQUE.part` may be a draft of; empty for other names."""
    if not (name.startswith(".") and name.endswith(".part")):
        return ()
    inner = name[1 : -len(".part")]
    return inner, inner.rpartition(".")[0]


def _keep_name(folder: Path) -> None:
    """Has the directory itself on the disk, without which a renamed file can be lost."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # the directory may be writable but not readable
        return
    try:
        _to_disk(handle)
    finally:
        os.close(handle)


def cache_folder() -> Path:
    """The cache directory. Raises UsageError without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():  # the XDG specification ignores relative paths
        return Path(base) / "resnet-cli"
    with suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home / ".cache" / "resnet-cli"
    raise UsageError("there is no home directory to keep files in", "set XDG_CACHE_HOME to a directory")
