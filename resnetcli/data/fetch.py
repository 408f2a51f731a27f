"""Download a dataset's archive from the official host or a mirror: resumable, and checked by its SHA-256."""

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
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from resnetcli.data.cifar import HOSTS, Archive
from resnetcli.errors import ResourceError, UsageError, clean, plural
from resnetcli.files import is_file, require_directory_or_free
from resnetcli.frozen import frozen

CHUNK = 2**18
TRIES = 32
"""Maximum requests to one host; another one follows only if the last answer had new bytes."""
PROGRESS_S = 10.0
"""Seconds between two progress lines."""

Log = Callable[[str], object]


@frozen
class DownloadOptions:
    """Hosts in the order they are tried, and the timeout."""

    hosts: Sequence[str] = HOSTS
    timeout_s: float = 30.0
    """Maximum time without new bytes."""
    handlers: Sequence[urllib.request.BaseHandler] = ()
    """Used in addition to urllib's own."""


class _HostError(Exception):
    """Why a host's answer is not, or not yet, the whole file.

    `retry`: whether to request the rest from it; `stalled`: whether to try another host first.
    """

    def __init__(self, reason: str, *, retry: bool = False, stalled: bool = False) -> None:
        super().__init__(clean(reason))
        self.retry, self.stalled = retry, stalled


def fetch(
    archive: Archive, folder: Path, *, log: Log = lambda line: None, options: DownloadOptions | None = None
) -> Path:
    """Download an archive into a folder unless it is there; return its path. `log` receives progress lines.

    An unfinished download (`NAME.part`) is resumed. Only a file with the published digest gets the archive's name.
    Raises UsageError if the folder is not a directory, ResourceError if no host has the file or the disk is full.
    """
    require_directory_or_free(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder, log):
            return _fetch(archive, folder, log, options or DownloadOptions())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise ResourceError(
            f"{archive.name} could not be written to {clean(str(folder))}: {error.strerror or error}",
            "free some space and run it again: the download resumes" if full else "name another by `--data-dir`",
        ) from None


def is_whole(path: Path, archive: Archive) -> bool:
    """Whether the file has the published size and digest."""
    if _size(path) != archive.bytes:
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == archive.sha256


@contextlib.contextmanager
def _locked(folder: Path, log: Log) -> Iterator[None]:
    """Keep other processes of this program from writing into the folder, where the system has locks."""
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
            log(f"waiting for another process that downloads into {clean(str(folder))}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def _fetch(archive: Archive, folder: Path, log: Log, options: DownloadOptions) -> Path:
    path, part = folder / archive.name, folder / f"{archive.name}.part"
    if is_file(path):
        if is_whole(path, archive):
            return path
        log(f"{clean(str(path))} is not the published file and will be replaced")
    for place in (path, part):
        if os.path.lexists(place) and not is_file(place):
            raise UsageError(f"`{place}` is not a regular file", "remove it")
    missing = archive.bytes - _size(part)
    if missing > (free := shutil.disk_usage(folder).free):
        space = f"it needs {missing / 1e6:,.1f} MB more in {clean(str(folder))}, where {free / 1e6:,.1f} MB are free"
        raise ResourceError(f"no space for {archive.name}: {space}", "name another directory by `--data-dir`")
    reasons: list[str] = []
    for host in options.hosts:
        url, last = host.format(name=archive.name), host is options.hosts[-1]
        if _from_host(archive, url, part, log, options, reasons, last=last):
            part.replace(path)
            log(f"{clean(str(path))} is complete, with the published SHA-256")
            return path
    raise ResourceError(
        f"{archive.name} could not be downloaded: {'; '.join(reasons)}",
        f"retry later (the download resumes), or place the file in {clean(str(folder))}",
    )


def _size(path: Path) -> int:
    return path.stat().st_size if is_file(path) else 0


def _from_host(
    archive: Archive, url: str, part: Path, log: Log, options: DownloadOptions, reasons: list[str], *, last: bool
) -> bool:  # fmt: skip
    """Whether `part` is the published file now. Appends to `reasons` why it is not."""
    for _ in range(TRIES):
        if _size(part) > archive.bytes:
            part.unlink()
        start = _size(part)
        try:
            if start < archive.bytes:
                rest = f" from byte {start:,} on" if start else ""
                log(f"downloading {archive.bytes / 1e6:,.1f} MB{rest} from {url} to {clean(str(part))}")
                _append_rest(archive, url, part, start, log, options)
            if is_whole(part, archive):
                return True
            part.unlink()  # which of its bytes are wrong is not known
            what = "the resumed download does" if start else "the file does"
            raise _HostError(f"{what} not have the published SHA-256", retry=start > 0)
        except _HostError as error:
            reasons.append(f"{url}: {error}")
            log(reasons[-1])
            if not error.retry or (error.stalled and not last):
                return False
    return False


def _append_rest(archive: Archive, url: str, part: Path, start: int, log: Log, options: DownloadOptions) -> None:
    """Append the missing bytes. Raises _HostError if the answer is incomplete, OSError only if writing fails."""
    with _request(url, start, options) as response, part.open("ab") as file:
        skip = _check_answer(response, archive, start)
        done, began = start, time.monotonic()
        reported = began
        while done < archive.bytes:
            try:
                data = response.read1(min(CHUNK, skip or archive.bytes - done))
            except (OSError, http.client.HTTPException) as error:
                reason, stalled = f"{_reason(error)} after {plural(done, 'byte')}", isinstance(error, TimeoutError)
                raise _HostError(reason, retry=done > start, stalled=stalled) from None
            if not data:
                raise _HostError(f"it ended after {done:,} of {archive.bytes:,} bytes", retry=done > start)
            if skip:
                skip -= len(data)
            else:
                file.write(data)
                done += len(data)
            if (now := time.monotonic()) - reported >= PROGRESS_S:
                speed = (done - start) / (now - began) / 1e6
                log(f"{done / 1e6:,.1f} of {archive.bytes / 1e6:,.1f} MB, {speed:.2f} MB/s")
                reported = now
        file.flush()
        os.fsync(file.fileno())


class _HttpsRedirectHandler(urllib.request.HTTPRedirectHandler):
    """Follow redirects, but never from https to anything else."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        allowed = {"https", "http"} if req.type == "http" else {"https"}
        if urlsplit(newurl).scheme not in allowed:
            raise _HostError(f"it redirects to {newurl}, which is not https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _request(url: str, start: int, options: DownloadOptions) -> http.client.HTTPResponse:
    """The host's answer to a request for the bytes from `start` on. Raises _HostError."""
    headers = {"User-Agent": "resnet-cli", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_HttpsRedirectHandler, *options.handlers)
    try:
        answer: http.client.HTTPResponse = opener.open(
            urllib.request.Request(url, headers=headers), timeout=options.timeout_s
        )
        return answer
    except urllib.error.HTTPError as error:
        error.close()
        raise _HostError(f"it answers {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _HostError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """A network error in a few words."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    if isinstance(error, TimeoutError):
        return "it stopped sending"
    text = (error.strerror if isinstance(error, OSError) else "") or str(error) or type(error).__name__
    return text if isinstance(error, OSError) else f"its answer is not HTTP ({text})"


def _check_answer(response: http.client.HTTPResponse, archive: Archive, start: int) -> int:
    """Bytes to skip at the beginning of an answer. Raises _HostError if it cannot be the file."""
    kind = response.headers.get_content_type()
    if kind in ("text/html", "application/xhtml+xml"):
        raise _HostError(f"it sends a web page ({kind}), not the file")
    if (coding := response.headers.get("Content-Encoding", "identity")) != "identity":
        raise _HostError(f"it sends the file encoded ({coding}), which was not requested")
    skip = start
    if response.status == 206:
        text = response.headers.get("Content-Range", "")
        match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)", text.strip())
        if not match or int(match[1]) != start or match[3] not in (str(archive.bytes), "*"):
            raise _HostError(f"the bytes from {start:,} on were requested, it sends `{text}`")
        skip = 0
    elif response.status != 200:
        raise _HostError(f"it answers {response.status} {response.reason}")
    length = response.headers.get("Content-Length", "")
    expected = archive.bytes - start + skip
    if length and length.strip() != str(expected):
        raise _HostError(f"it sends {length} bytes, not {expected:,}")
    return skip
