"""Read untrusted files with size limits; replace files atomically."""

from __future__ import annotations

import errno
import glob
import json
import os
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from resnetcli.errors import ResourceError, UsageError, any_of, nearest, typed
from resnetcli.structure import parse_json

StrPath = str | os.PathLike[str]


# --- reading -----------------------------------------------------------------------------------------------------


@contextmanager
def open_regular(
    path: StrPath, hint: str = "", *, label: str = "", error: type[UsageError] = UsageError
) -> Iterator[BinaryIO]:
    """Open a regular file for reading in binary; messages call it `label`.

    Raises `error` if the file is missing or not regular (reading a pipe may never end), UsageError if it cannot be
    read, including OSError in the `with` block.
    """
    label = label or str(path)
    try:
        require_regular(path, hint, label=label, error=error)
        with Path(path).open("rb") as file:
            yield file
    except OSError as problem:
        raise UsageError(f"cannot read `{label}`: {reason(problem)}", hint or _UNREADABLE) from None


def require_regular(path: StrPath, hint: str = "", *, label: str = "", error: type[UsageError] = UsageError) -> int:
    """Size of a regular file in bytes. Raises `error` for anything else."""
    label = label or str(path)
    try:
        status = Path(path).stat()
    except FileNotFoundError:
        raise error(f"no such file: `{label}`", hint or missing_hint(path)) from None
    except (OSError, ValueError) as problem:
        raise error(f"cannot read `{label}`: {reason(problem)}", hint or _UNREADABLE) from None
    if stat.S_ISDIR(status.st_mode):
        raise error(f"`{label}` is a directory", hint or "give a file in it")
    if not stat.S_ISREG(status.st_mode):
        raise error(f"`{label}` is not a regular file", hint or "copy its content into a file")
    return status.st_size


def read_bounded(
    path: StrPath, limit: int, hint: str = "", *, label: str = "", error: type[UsageError] = UsageError
) -> bytes:
    """The content of a regular file of at most `limit` bytes. Raises as `open_regular`, and `error` if it is larger."""
    with open_regular(path, hint, label=label, error=error) as file:
        size = min(os.fstat(file.fileno()).st_size, limit)
        data = file.read(size + 1)  # `read(limit)` would allocate that much
        if len(data) > size:  # it is growing, or its size is unknown, as in /proc
            data += file.read(limit - size)
    if len(data) > limit:
        allowed = f"{limit // 2**20} MiB" if limit >= 2**20 else f"{limit // 2**10} KiB"
        raise error(f"`{label or path}` is larger than {allowed}", hint or "check that it is the right file")
    return data


def load_json(path: StrPath, limit: int, hint: str = "") -> Any:
    """Parse a JSON file of at most `limit` bytes; NaN is a value. Raises UsageError for any other file."""
    try:
        return parse_json(read_bounded(path, limit, hint), constants=True)
    except ValueError:  # not JSON, not UTF-8, a number of thousands of digits, deep nesting
        raise UsageError(f"`{path}` is not JSON", hint) from None


def is_file(path: StrPath) -> bool:
    """Whether it is a regular file or a link to one; False for a name that no file can have."""
    return os.path.isfile(path)  # noqa: PTH113 - Path.is_file raises for such names


def is_directory(path: StrPath) -> bool:
    """Whether it is a directory or a link to one; False for a name that no directory can have."""
    return os.path.isdir(path)  # noqa: PTH112 - Path.is_dir raises for such names


def require_exists(path: StrPath) -> None:
    """Raise UsageError unless a file or directory of that name exists and is accessible."""
    try:
        Path(path).stat()
    except FileNotFoundError:
        raise UsageError(f"there is no file or directory `{path}`", missing_hint(path)) from None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read `{path}`: {reason(error)}", _UNREADABLE) from None


def require_directory_or_free(path: StrPath) -> None:
    """Raise UsageError if the path exists and is not a directory."""
    if not is_directory(path) and os.path.lexists(path):
        raise UsageError(f"`{path}` is not a directory", "give a directory, or a new name")


_UNREADABLE = "check its name and its permissions"


def missing_hint(path: StrPath) -> str:
    """The hint for a path that does not exist: similar names beside it, or its directory that is missing, too."""
    place = Path(path)
    with suppress(OSError, ValueError):
        if not place.parent.is_dir():
            return f"there is no directory `{place.parent}` either"
    if close := similar_names(place):
        return f"did you mean {any_of([typed(place.with_name(name)) for name in close])}?"
    return "check the path"


def similar_names(path: StrPath) -> list[str]:
    """Names of files and directories beside a path with its suffix and a similar stem."""
    place = Path(path)
    names: dict[str, str] = {}
    with suppress(OSError, ValueError), os.scandir(place.parent) as entries:
        for entry in islice(entries, MAX_LISTED):
            name = Path(entry.name)
            if _format(name) == _format(place) and (entry.is_file() or entry.is_dir()):
                names.setdefault(name.stem, entry.name)
    return [names[stem] for stem in nearest(place.stem, sorted(names))]


def _format(path: Path) -> str:
    return path.suffix.lower().replace(".yml", ".yaml")


MAX_LISTED = 1000
"""Names of a directory that are compared with a missing one."""


def reason(error: Exception) -> str:
    """Message of an operating system error, without its number and path."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


# --- writing -----------------------------------------------------------------------------------------------------


def check_writable(path: StrPath, option: str) -> None:
    """Raise UsageError, with `option` as its subject, if a file cannot be created or replaced at this path."""
    place = Path(path)
    try:
        if "\0" in str(place):
            raise ValueError
        if place.is_dir():
            raise UsageError(f"{option}: `{place}` is a directory", "give a file name")
        if place.exists() and not place.is_file():
            raise UsageError(f"{option}: `{place}` is not a regular file", "give a file name")
        if not place.parent.is_dir():
            raise UsageError(f"{option}: there is no directory `{place.parent}`", "create it first")
    except (OSError, ValueError):  # a name that is too long, or has a null in it
        raise UsageError(f"{option}: not a valid file name", "give another") from None


def write_output(path: StrPath, data: bytes | str) -> None:
    """Atomically write an output file. Raises ResourceError."""
    try:
        write_atomic(Path(path), data.encode() if isinstance(data, str) else data)
    except OSError as error:
        raise ResourceError(f"`{path}` cannot be written: {reason(error)}") from None


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Atomically write a JSON object. Raises OSError."""
    write_atomic(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def write_atomic(path: Path, *parts: bytes | memoryview) -> None:
    """Atomically and durably replace a file, keeping its permissions.

    Raises OSError, and then leaves the file as it was.
    """
    for stale in drafts_of(path):
        with suppress(OSError):
            if stale.stat().st_mtime < time.time() - STALE_S:  # left by a killed process
                stale.unlink()
    draft = path.with_name(f".{path.name}.{os.urandom(4).hex()}.part")  # unique among processes
    try:
        with draft.open("xb") as file:
            with suppress(OSError):  # a new file, or a file system without permissions
                draft.chmod(stat.S_IMODE(path.stat().st_mode))
            for part in parts:
                file.write(part)
            file.flush()
            _fsync(file.fileno())
        draft.replace(path)
    finally:  # also on KeyboardInterrupt
        with suppress(OSError):
            draft.unlink()
    _fsync_directory(path.parent)


STALE_S = 3600.0
"""Age in seconds from which a draft is abandoned."""


def drafts_of(path: Path, pattern: str = "") -> list[Path]:
    """Unfinished drafts of a file, or of all files beside it that match the pattern."""
    return list(path.parent.glob(f".{pattern or glob.escape(path.name)}.*.part"))


def draft_targets(name: str) -> tuple[str, ...]:
    """Names of the files that `.NAME.part` or `.NAME.UNIQUE.part` may be a draft of; empty for other names."""
    if not (name.startswith(".") and name.endswith(".part")):
        return ()
    inner = name[1 : -len(".part")]
    return inner, inner.rpartition(".")[0]


_NOT_SUPPORTED = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES, errno.EPERM}
"""Errors of file systems without fsync, such as some network ones; the data is written nevertheless."""


def _fsync(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise


def _fsync_directory(folder: Path) -> None:
    """Flush the directory to disk: otherwise a rename can be lost."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # a directory can be writable but not readable
        return
    try:
        _fsync(handle)
    finally:
        os.close(handle)


def cache_dir(hint: str = "set XDG_CACHE_HOME to a directory") -> Path:
    """The cache directory, by the XDG specification. Raises UsageError without a home directory."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if base and Path(base).is_absolute():  # the specification ignores relative paths
        return Path(base) / "resnet-cli"
    with suppress(RuntimeError):
        if (home := Path.home()).is_absolute():
            return home / ".cache" / "resnet-cli"
    raise UsageError("there is no home directory for the cache", hint)
