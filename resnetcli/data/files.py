"""Files of unknown origin, read whole but never without a bound: on disk, or in a .tar.gz whose names lead nowhere."""

from __future__ import annotations

import gzip
import hashlib
import stat
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

from resnetcli.data.errors import DataError
from resnetcli.errors import ResourceError, UsageError

MOST_UNPACKED = 512 * 2**20
"""Bytes an archive may unpack to; the official ones are 185 MB."""
BLOCK = 512
CHUNK = 2**20
_HINT = "fetch it again: `resnet-cli data fetch`"


def size_of_file(path: Path) -> int:
    """Bytes. Raises DataError if there is no such file or it is none, which reading might never come to an end."""
    try:
        found = path.stat()
    except (OSError, ValueError) as error:
        raise DataError(f"`{path}`: {_reason(error)}", _HINT) from None
    if not stat.S_ISREG(found.st_mode):
        raise DataError(f"`{path}` is no regular file")
    return found.st_size


def read_file(path: Path, most: int) -> bytes:
    """The whole of it. Raises DataError if it is larger than `most` bytes."""
    size = size_of_file(path)
    if size > most:
        raise DataError(f"`{path}` has {size:,} bytes, more than the {most:,} there can be")
    try:
        with path.open("rb") as file:
            return file.read(most)
    except OSError as error:
        raise ResourceError(f"cannot read `{path}`: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__


def is_file(path: Path) -> bool:
    """Whether there is a regular file; False for what cannot be a path."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def is_folder(path: Path) -> bool:
    """Whether there is a directory; False for what cannot be a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False


def require_there(path: Path) -> None:
    """Raises UsageError if there is neither a file nor a directory, or none that can be got at."""
    try:
        path.stat()
    except FileNotFoundError:
        raise UsageError(f"there is no file or directory `{path}`") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"`{path}` cannot be read: {_reason(error)}") from None


# --- archives ----------------------------------------------------------------------------------------------------


def read_archive(path: Path, wanted: Collection[str], most: int) -> tuple[dict[str, bytes], str]:
    """The wanted members of a .tar.gz by name, `most` bytes each at the most, and the SHA-256 of the archive.

    It is read once, front to back. Nothing is written anywhere, links and devices are never followed, and what a
    header claims is held against bounds before it is believed. Raises DataError.
    """
    size_of_file(path)
    try:
        with path.open("rb") as file:
            hashed = _Hashed(file)
            with gzip.GzipFile(fileobj=hashed, mode="rb") as unpacked:  # type: ignore[call-overload]
                found = _members(unpacked, path, wanted, most)
            while hashed.read(CHUNK):  # what comes after the tar's end belongs to the file as well
                pass
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"`{path}` is no whole gzip file: {error}", _HINT) from None
    except EOFError:
        raise DataError(f"`{path}` ends in the middle", _HINT) from None
    except OSError as error:
        raise ResourceError(f"cannot read `{path}`: {_reason(error)}") from None
    missing = [name for name in wanted if name not in found]
    if missing:
        raise DataError(f"`{path}` has no `{missing[0]}` in it")
    return found, hashed.digest.hexdigest()


class _Hashed:
    """A file that hashes what is read of it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


def _members(unpacked: gzip.GzipFile, path: Path, wanted: Collection[str], most: int) -> dict[str, bytes]:
    """Walks over a tar's headers (POSIX ustar, 512 bytes each) and the contents after them.

    Not by `tarfile`, which reads an extended header whole, however large it says that it is.
    """
    found: dict[str, bytes] = {}
    left = MOST_UNPACKED
    while len(header := _exactly(unpacked, BLOCK, path)) == BLOCK and any(header):
        left -= BLOCK
        name, size, kind = _header(header, path)
        padded = size + -size % BLOCK
        if padded > left:
            raise DataError(f"`{path}` unpacks to more than {MOST_UNPACKED:,} bytes")
        left -= padded
        if name not in wanted:
            _skip(unpacked, padded, path)
            continue
        if kind not in (b"0", b"\0"):
            raise DataError(f"`{path}`: `{name}` is no regular file in it")
        if name in found:
            raise DataError(f"`{path}` has `{name}` in it twice")
        if size > most:
            raise DataError(f"`{path}`: `{name}` has {size:,} bytes, more than the {most:,} there can be")
        found[name] = _exactly(unpacked, size, path)
        _skip(unpacked, padded - size, path)
    _drain(unpacked, left, path)
    return found


def _header(header: bytes, path: Path) -> tuple[str, int, bytes]:
    """Name, size and kind of a member; its checksum must hold."""
    try:
        claimed = int(header[148:156].rstrip(b"\0 ") or b"0", 8)
        size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        raise DataError(f"`{path}` holds no tar archive") from None
    if claimed != sum(header) - sum(header[148:156]) + 8 * ord(" ") or size < 0:
        raise DataError(f"`{path}` holds no tar archive, or a damaged one")
    name = header[:100].partition(b"\0")[0].decode("utf-8", "replace")
    prefix = header[345:500].partition(b"\0")[0].decode("utf-8", "replace") if header[257:263] == b"ustar\0" else ""
    return (f"{prefix}/{name}" if prefix else name).removeprefix("./"), size, header[156:157]


def _exactly(unpacked: gzip.GzipFile, size: int, path: Path) -> bytes:
    data = unpacked.read(size)
    if len(data) < size:
        raise DataError(f"`{path}` ends in the middle", _HINT)
    return data


def _skip(unpacked: gzip.GzipFile, size: int, path: Path) -> None:
    while size:
        size -= len(_exactly(unpacked, min(size, CHUNK), path))


def _drain(unpacked: gzip.GzipFile, left: int, path: Path) -> None:
    """Reads what is left, so that gzip's checksum of the whole is looked at."""
    while data := unpacked.read(CHUNK):
        left -= len(data)
        if left < 0:
            raise DataError(f"`{path}` unpacks to more than {MOST_UNPACKED:,} bytes")


def check_folder(folder: Path) -> None:
    """Raises UsageError if there is something else in its place."""
    if not is_folder(folder) and (is_file(folder) or folder.is_symlink()):
        raise UsageError(f"`{folder}` is no directory")
