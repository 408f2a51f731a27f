"""Read members of an untrusted .tar.gz into memory, within bounds."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO

from resnetcli.data.errors import FETCH_HINT, DataError
from resnetcli.files import open_regular

MAX_UNPACKED = 512 * 2**20
"""Bytes an archive may unpack to; the official ones are 185 MB."""
MAX_MEMBERS = 10_000
CHUNK = 2**20


def read_archive(path: Path, wanted: Collection[str], limit: int) -> tuple[dict[str, bytes], str]:
    """The wanted members of a .tar.gz by name, at most `limit` bytes each, and the SHA-256 of the archive.

    The archive is read once, front to back. Nothing is written to disk, and links are not followed. Raises DataError.
    """
    with open_regular(path, FETCH_HINT, error=DataError) as file:
        hashed = _Hashed(file)
        try:
            with gzip.GzipFile(fileobj=hashed, mode="rb") as unpacked:  # type: ignore[call-overload]
                contents = _members(_Bounded(unpacked, path), path, wanted, limit)
        except (gzip.BadGzipFile, zlib.error) as error:
            raise DataError(f"`{path}` is not a whole gzip file: {error}", FETCH_HINT) from None
        except EOFError:
            raise DataError(f"`{path}` is truncated", FETCH_HINT) from None
        except tarfile.TarError as error:
            raise DataError(f"`{path}` is not a whole tar archive: {error}", FETCH_HINT) from None
    missing = [name for name in wanted if name not in contents]
    if missing:
        raise DataError(f"`{path}` does not contain `{missing[0]}`")
    return contents, hashed.digest.hexdigest()


class _Hashed:
    """A file that hashes all bytes read from it."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.digest.update(data)
        return data


class _Bounded:
    """A stream that raises DataError after `MAX_UNPACKED` bytes."""

    def __init__(self, unpacked: gzip.GzipFile, path: Path) -> None:
        self.unpacked, self.path, self.left = unpacked, path, MAX_UNPACKED

    def read(self, size: int = -1) -> bytes:
        data = self.unpacked.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise _too_large(self.path)
        return data


class _Member(tarfile.TarInfo):
    """A member described by its own header alone.

    An extended header is a member to be skipped: `tarfile` would read it whole, however large it claims to be.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> _Member:
        member = super().frombuf(buf, encoding, errors)
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            member.type = b"?"  # `tarfile` skips the content of types that it does not know
        if not 0 <= member.size <= MAX_UNPACKED:
            raise tarfile.ReadError(f"a header claims {member.size:,} bytes")
        return member


def _members(stream: _Bounded, path: Path, wanted: Collection[str], limit: int) -> dict[str, bytes]:
    contents: dict[str, bytes] = {}
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:  # type: ignore[call-overload]
        for number, member in enumerate(tar):
            if number >= MAX_MEMBERS:
                raise DataError(f"`{path}` has more than {MAX_MEMBERS:,} members")
            name = member.name.removeprefix("./")
            if name not in wanted:
                continue
            content = tar.extractfile(member) if member.isreg() else None
            if content is None:
                raise DataError(f"`{path}`: its member `{name}` is not a regular file")
            if name in contents:
                raise DataError(f"`{path}` contains `{name}` twice")
            if member.size > limit:
                raise DataError(f"`{path}`: `{name}` has {member.size:,} bytes, more than the allowed {limit:,}")
            contents[name] = content.read()
    while stream.read(CHUNK):  # gzip checks its checksum at the end
        pass
    return contents


def _too_large(path: Path) -> DataError:
    return DataError(f"`{path}` unpacks to more than {MAX_UNPACKED:,} bytes")
