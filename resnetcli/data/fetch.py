"""The downloader: from the official host or a mirror, resumed where it broke off, used only if its digest is right."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from resnetcli.data.cifar import HOSTS, Archive
from resnetcli.errors import ResourceError, UsageError, clean, plural
from resnetcli.files import is_file, require_directory_or_free

CHUNK = 2**18
TRIES = 32
"""At one server, as long as each has brought something more."""
REPORT_S = 10.0
"""Between two lines that say how far it is."""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class How:
    """From where, and how long a server is waited for."""

    hosts: Sequence[str] = HOSTS
    timeout_s: float = 30.0
    """Without a byte for so long, a server is given up."""
    patience_s: float = 60.0
    slowest_bytes_s: float = 50_000
    """Slower than that over `patience_s`, the next is tried; the last is waited for."""
    clock: Callable[[], float] = time.monotonic
    handlers: Sequence[urllib.request.BaseHandler] = ()
    """In place of urllib's own."""


class _RefusedError(Exception):
    """Why what a server sent is not, or not yet, the file; `again`: whether to ask it for the rest."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(clean(reason))
        self.again = again


def fetch(archive: Archive, folder: Path, *, tell: Tell = lambda line: None, how: How | None = None) -> Path:
    """The archive's path in the folder, fetched unless it is there whole; `tell` is told first what comes from where.

    A part of it that is there (`NAME.part`) is gone on with. Nothing gets the archive's name but the bytes that have
    the published digest. Raises UsageError if the folder is none, ResourceError if no server has it or a disk is full.
    """
    require_directory_or_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _alone(folder, tell):
            return _fetch(archive, folder, tell, how or How())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ResourceError(
            f"{archive.name} could not be written to {clean(str(folder))}: {error.strerror or error}",
            "what there is of it is kept: free some room and ask again" if full else "`--data-dir` is another place",
        ) from None


def is_whole(path: Path, archive: Archive) -> bool:
    """Whether the file has the published size and digest."""
    if _size(path) != archive.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == archive.sha256


@contextlib.contextmanager
def _alone(folder: Path, tell: Tell) -> Iterator[None]:
    """Keeps other processes of this program from writing into the folder meanwhile, where a system can do that."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            tell(f"waiting for another process that fetches into {clean(str(folder))}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _fetch(archive: Archive, folder: Path, tell: Tell, how: How) -> Path:
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if is_file(path):
        if is_whole(path, archive):
            return path
        tell(f"{clean(str(path))} is not the published file: fetching that")
    for place in (path, part):
        if (place.exists() or place.is_symlink()) and not is_file(place):
            raise UsageError(f"`{place}` is not a regular file", "remove it")
    missing = archive.bytes - _size(part)
    if missing > (free := shutil.disk_usage(folder).free):
        room = f"{missing / 1e6:,.1f} MB more are needed in {clean(str(folder))}, and {free / 1e6:,.1f} MB are free"
        raise ResourceError(f"no room for {archive.name}: {room}", "`--data-dir` is another place")
    reasons: list[str] = []
    for number, host in enumerate(how.hosts, 1):
        url = host.format(name=archive.name)
        if _from_host(archive, url, part, tell, how, reasons, is_last=number == len(how.hosts)):
            part.replace(path)
            tell(f"{clean(str(path))} is whole: its SHA-256 is the published one")
            return path
    raise ResourceError(
        "\n".join((f"{archive.name} could not be fetched", *(f"   {reason}" for reason in reasons))),
        f"ask again later: what has come is gone on with; or put the file into {clean(str(folder))} yourself",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if is_file(path) else 0


def _from_host(
    archive: Archive, url: str, part: Path, tell: Tell, how: How, reasons: list[str], *, is_last: bool
) -> bool:
    """Whether `part` is the published file now. A server that brings something is asked again for the rest."""
    for _ in range(TRIES):
        if _size(part) > archive.bytes:
            part.unlink()
        had = _size(part)
        try:
            if had < archive.bytes:
                rest = f" from byte {had:,} on" if had else ""
                tell(f"fetching {archive.bytes / 1e6:,.1f} MB{rest} from {url} to {clean(str(part))}")
                _one_try(archive, url, part, had, tell, how, is_last=is_last)
            if is_whole(part, archive):
                return True
            part.unlink()  # nobody knows which of its bytes are wrong
            said = "what was there already and the rest together do" if had else "the file there does"
            raise _RefusedError(f"{said} not have the published SHA-256", again=had > 0)
        except _RefusedError as refused:
            reasons.append(f"{url}: {refused}")
            tell(reasons[-1])
            if not refused.again:
                return False
    return False


def _one_try(
    archive: Archive, url: str, part: Path, had: int, tell: Tell, how: How, *, is_last: bool
) -> None:  # fmt: skip
    """Appends what is missing. Raises _RefusedError if not all of it came, OSError only if it cannot be written."""
    response = _opened(url, had, how)
    with response, part.open("ab", buffering=0) as file:
        skip = _check_answer(response, archive, had)
        done, started, reported = had, how.clock(), how.clock()
        window, before = started, had - skip
        while done < archive.bytes:
            try:
                data = response.read1(min(CHUNK, skip or archive.bytes - done))
            except (OSError, http.client.HTTPException) as error:
                again = done > had and (is_last or not isinstance(error, TimeoutError))
                raise _RefusedError(f"{_why(error)} after {plural(done, 'byte')}", again=again) from None
            if not data:
                raise _RefusedError(f"it ended after {done:,} of {archive.bytes:,} bytes", again=done > had)
            if skip:
                skip -= len(data)
            else:
                _append(file, data)
                done += len(data)
            now = how.clock()
            if now - reported >= REPORT_S:
                speed = (done - had) / (now - started) / 1e6
                tell(f"{done / 1e6:,.1f} of {archive.bytes / 1e6:,.1f} MB, {speed:.2f} MB/s")
                reported = now
            if now - window >= how.patience_s:
                if done - skip - before < how.slowest_bytes_s * (now - window) and not is_last:
                    raise _RefusedError(f"it is too slow, {(done - skip - before) / (now - window):,.0f} bytes/s")
                window, before = now, done - skip
        os.fsync(file.fileno())


def _append(file: IO[bytes], data: bytes) -> None:
    """A raw write may take only some of it, as on a disk that is nearly full."""
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


class _NoWorse(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = {"https", "http"} if req.type == "http" else {"https"}
        if urlsplit(newurl).scheme not in allowed:
            raise _RefusedError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(url: str, had: int, how: How) -> http.client.HTTPResponse:
    """The server's answer when asked for what comes after `had` bytes."""
    headers = {"User-Agent": "resnet-cli", "Accept-Encoding": "identity"}
    if had:
        headers["Range"] = f"bytes={had}-"
    opener = urllib.request.build_opener(_NoWorse, *how.handlers)
    try:
        answer: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=headers), timeout=how.timeout_s
        )
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        raise _RefusedError(f"it answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _RefusedError(_why(error)) from None


def _why(error: Exception) -> str:
    """An error of the network in a few words."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _why(error.reason)
    if isinstance(error, TimeoutError):
        return "it says nothing any more"
    said = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return said if isinstance(error, OSError) else f"it speaks no proper HTTP ({said})"


def _check_answer(response: http.client.HTTPResponse, archive: Archive, had: int) -> int:
    """How many bytes of the answer are there already. Raises _RefusedError if it cannot be the file."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _RefusedError(f"it sends a page ({kind}), not the file")
    if (coding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise _RefusedError(f"it sends the file encoded ({coding}), which was not asked for")
    skip = had
    if response.status == 206:
        said = response.headers.get("Content-Range", "")
        found = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", said.strip())
        if not found or int(found[1]) != had or found[3] not in (str(archive.bytes), "*"):
            raise _RefusedError(f"it was asked for what comes after {plural(had, 'byte')} and sends `{said}`")
        skip = 0
    elif response.status != 200:
        raise _RefusedError(f"it answers {response.status} {response.reason}")
    length = response.headers.get("Content-Length", "")
    expected = archive.bytes - had + skip
    if length and length.strip() != str(expected):
        raise _RefusedError(f"it sends {length} bytes, not {expected:,}")
    return skip
