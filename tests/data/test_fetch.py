"""The downloader against a server that does everything a server should not."""

from __future__ import annotations

import email.message
import errno
import hashlib
import io
import re
import resource
import shutil
import signal
import socket
import threading
import urllib.request
import urllib.response
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from resnetcli.data import fetch as fetching
from resnetcli.data.cifar import Archive
from resnetcli.data.fetch import DownloadOptions, fetch, is_whole
from resnetcli.errors import ResourceError, UsageError

CONTENT = bytes(range(256)) * 4096  # 1 MiB
HALF = len(CONTENT) // 2
ARCHIVE = Archive("set.tar.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Server(ThreadingHTTPServer):
    """Answers `/KIND/set.tar.gz` as KIND does, and keeps what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, str]] = []
        self.over = threading.Event()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        asked = self.headers.get("Range", "")
        self.server.asked.append((kind, asked))
        match = re.fullmatch(r"bytes=(\d+)-", asked)
        start = int(match[1]) if match else 0
        self.close_connection = True
        getattr(self, f"answer_{kind}")(start)

    def send(self, body: bytes, status: int = 200, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        kind = headers.pop("type", "application/x-gzip")
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def part(self, start: int, end: int | None = None, content: bytes = CONTENT) -> None:
        """From `start` on, perhaps not to the end, though that is announced."""
        if start:
            said = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self.send(content[start:end], 206, len(content) - start, Content_Range=said)
        else:
            self.send(content[:end], length=len(content))

    def answer_good(self, start: int) -> None:
        self.part(start)

    def answer_whole(self, start: int) -> None:
        self.send(CONTENT)  # whatever the range

    def answer_drops(self, start: int) -> None:
        self.part(start, start + HALF // 2)

    def answer_drops_at_once(self, start: int) -> None:
        self.part(start, start)

    def answer_stalls(self, start: int) -> None:
        self.part(start, start + 1000)
        self.wfile.flush()
        self.server.over.wait(20)

    def answer_silent(self, start: int) -> None:
        self.server.over.wait(20)

    def answer_longer(self, start: int) -> None:
        self.send(CONTENT + b"more")

    def answer_shorter(self, start: int) -> None:
        self.send(CONTENT[:-1])

    def answer_endless(self, start: int) -> None:
        self.send_response(200)
        self.end_headers()  # no length: until the connection is closed
        for _ in range(64):
            self.wfile.write(CONTENT)

    def answer_page(self, start: int) -> None:
        self.send(b"<html>log in</html>", type="text/html; charset=utf-8")

    def answer_encoded(self, start: int) -> None:
        self.send(CONTENT, Content_Encoding="gzip")

    def answer_another(self, start: int) -> None:
        self.part(start, content=CONTENT[:-1] + b"!")

    def answer_wrong_range(self, start: int) -> None:
        self.send(CONTENT[10:], 206, Content_Range=f"bytes 10-{len(CONTENT) - 1}/{len(CONTENT)}")

    def answer_no_range(self, start: int) -> None:
        self.send(CONTENT[start:], 206)

    def answer_unsatisfied(self, start: int) -> None:
        self.send(b"", 416 if start else 503)

    def answer_broken(self, start: int) -> None:
        self.send(b"", 503)

    def answer_missing(self, start: int) -> None:
        self.send(b"", 404)

    def answer_empty(self, start: int) -> None:
        self.send(b"", 204)

    def answer_moved(self, start: int) -> None:
        self.send(b"", 302, Location="/good/set.tar.gz")

    def answer_round(self, start: int) -> None:
        self.send(b"", 302, Location="/round/set.tar.gz")

    def answer_file(self, start: int) -> None:
        self.send(b"", 302, Location="file:///etc/passwd")

    def answer_ftp(self, start: int) -> None:
        self.send(b"", 302, Location="ftp://127.0.0.1/set.tar.gz")

    def answer_nonsense(self, start: int) -> None:
        self.wfile.write(b"\x1b[31m nonsense\r\n\r\n")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    found = Server()
    thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    found.over.set()
    found.shutdown()
    thread.join()
    found.server_close()


def hosts(server: Server, *kinds: str, **changed: Any) -> DownloadOptions:
    return DownloadOptions([f"http://127.0.0.1:{server.server_port}/{kind}/{{name}}" for kind in kinds], 0.3, **changed)


def part_of(folder: Path) -> Path:
    return folder / "set.tar.gz.part"


def whole(path: Path) -> bool:
    return path.read_bytes() == CONTENT and not part_of(path.parent).exists()


def test_a_file_is_downloaded_and_announced_first(server: Server, tmp_path: Path) -> None:
    said: list[tuple[str, int]] = []
    folder = tmp_path / "new" / "folder"
    path = fetch(
        ARCHIVE, folder, options=hosts(server, "good"), log=lambda line: said.append((line, len(server.asked)))
    )
    assert path == folder / "set.tar.gz"
    assert whole(path)
    assert said[0][1] == 0  # nothing had been asked of anybody
    assert re.fullmatch(
        r"downloading 1.0 MB from http://127.*/good/set.tar.gz to .*/new/folder/set.tar.gz.part", said[0][0]
    )
    assert "is complete, with the published SHA-256" in said[-1][0]


def test_a_complete_file_is_not_downloaded(server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(CONTENT)
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))
    assert server.asked == []


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"!", CONTENT[:HALF], b""])
def test_a_damaged_file_is_replaced(content: bytes, server: Server, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz").write_bytes(content)
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))


def test_a_partial_download_resumes(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))
    assert server.asked == [("good", f"bytes={HALF}-")]


def test_a_complete_partial_download_needs_no_server(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT)
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "missing")))
    assert server.asked == []


def test_a_server_that_ignores_the_range_keeps_the_partial_download(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "whole")))
    assert server.asked == [("whole", f"bytes={HALF}-")]


@pytest.mark.parametrize("part", [b"x" * HALF, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_corrupt_partial_download_is_discarded(part: bytes, server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(part)
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))
    assert server.asked[-1] == ("good", "")


def test_a_dropped_connection_resumes(server: Server, tmp_path: Path) -> None:
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "drops")))
    starts = [asked for _, asked in server.asked]
    assert starts == ["", *(f"bytes={place}-" for place in (HALF // 2, HALF, HALF * 3 // 2))]


def test_the_mirror_completes_a_partial_download(server: Server, tmp_path: Path) -> None:
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "drops_at_once", "stalls", "good")))
    assert server.asked == [("drops_at_once", ""), ("stalls", ""), ("good", "bytes=1000-")]


FAULTS = {
    "stalls": "stopped sending",
    "silent": "stopped sending",
    "drops_at_once": "ended after 0 of 1,048,576 bytes",
    "longer": "sends 1048580 bytes, not 1,048,576",
    "shorter": "sends 1048575 bytes, not 1,048,576",
    "page": "sends a web page (text/html), not the file",
    "encoded": "sends the file encoded (gzip)",
    "another": "does not have the published SHA-256",
    "wrong_range": "the bytes from 0 on were requested, it sends `bytes 10-",
    "broken": "answers 503 Service Unavailable",
    "unsatisfied": "answers 503",
    "missing": "answers 404 Not Found",
    "empty": "answers 204",
    "round": "answers 302",
    "file": "answers 302",
    "ftp": "redirects to ftp://127.0.0.1/set.tar.gz, which is not https",
    "nonsense": "is not HTTP",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_falls_back_to_the_mirror(fault: str, server: Server, tmp_path: Path) -> None:
    said: list[str] = []
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, fault, "good"), log=said.append))
    text = "\n".join(said)
    assert FAULTS[fault] in text
    assert "\x1b" not in text


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault not in ("stalls", "silent")])
def test_every_fault_of_the_last_host_is_an_error_and_leaves_nothing_unverified(
    fault: str, server: Server, tmp_path: Path
) -> None:
    with pytest.raises(ResourceError) as caught:
        fetch(ARCHIVE, tmp_path, options=hosts(server, "broken", fault))
    assert "answers 503" in caught.value.message
    assert FAULTS[fault] in caught.value.message
    assert "\x1b" not in caught.value.message
    assert "\n" not in caught.value.message
    assert not (tmp_path / "set.tar.gz").exists()


@pytest.mark.parametrize("fault", ["wrong_range", "no_range", "unsatisfied", "longer", "page", "broken", "missing"])
def test_a_valid_partial_download_survives_every_fault(fault: str, server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    with pytest.raises(ResourceError):
        fetch(ARCHIVE, tmp_path, options=hosts(server, fault))
    assert part_of(tmp_path).read_bytes() == CONTENT[:HALF]
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))
    assert server.asked[-1] == ("good", f"bytes={HALF}-")


def test_a_server_of_another_file_is_asked_once(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "another", "good")))
    assert server.asked == [("another", f"bytes={HALF}-"), ("another", ""), ("good", "")]


def test_extra_bytes_are_not_read(server: Server, tmp_path: Path) -> None:
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "endless")))  # its first bytes are the file


def test_a_redirect_is_followed_with_the_range(server: Server, tmp_path: Path) -> None:
    part_of(tmp_path).write_bytes(CONTENT[:HALF])
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "moved")))
    assert server.asked == [("moved", f"bytes={HALF}-"), ("good", f"bytes={HALF}-")]


class Https(urllib.request.HTTPSHandler):
    """An https server without one: always sends elsewhere."""

    def __init__(self, location: str) -> None:
        super().__init__()
        self.location = location

    def https_open(self, req: urllib.request.Request) -> Any:
        headers = email.message.Message()
        headers["Location"] = self.location
        answer: Any = urllib.response.addinfourl(io.BytesIO(b""), headers, req.full_url, 302)
        answer.msg = "Found"
        return answer


def test_https_is_never_redirected_to_http(server: Server, tmp_path: Path) -> None:
    plain = f"http://127.0.0.1:{server.server_port}/good/set.tar.gz"
    secure = DownloadOptions(["https://set.example/{name}"], 0.3, handlers=[Https(plain)])
    with pytest.raises(ResourceError, match=r"it redirects to http://127.*, which is not https"):
        fetch(ARCHIVE, tmp_path, options=secure)
    assert server.asked == []


def test_an_unreachable_host_is_reported(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and nobody listens
        options = DownloadOptions([f"http://127.0.0.1:{taken.getsockname()[1]}/{{name}}"], 0.3)
        with pytest.raises(ResourceError, match=r"Connection refused|111") as caught:
            fetch(ARCHIVE, tmp_path, options=options)
    assert "place the file in" in caught.value.hint


def test_progress_is_logged(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "PROGRESS_S", 0.0)
    lines: list[str] = []
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good"), log=lines.append))
    assert any(re.fullmatch(r"[\d.]+ of 1.0 MB, [\d.]+ MB/s", line) for line in lines)


def test_a_full_disk_keeps_the_partial_download(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file system's limit stands for the disk's."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (HALF + 1000, hard))
    monkeypatch.setattr(errno, "ENOSPC", errno.EFBIG)
    try:
        with pytest.raises(ResourceError, match="File too large") as caught:
            fetch(ARCHIVE, tmp_path, options=hosts(server, "good", "good"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert "free some space" in caught.value.hint
    assert len(server.asked) == 1
    assert HALF <= part_of(tmp_path).stat().st_size < len(CONTENT)
    assert whole(fetch(ARCHIVE, tmp_path, options=hosts(server, "good")))


def test_too_little_space_is_reported_before_downloading(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 10, HALF))
    with pytest.raises(ResourceError, match=r"no space for set.tar.gz: it needs 1.0 MB more"):
        fetch(ARCHIVE, tmp_path, options=hosts(server, "good"))
    assert server.asked == []


def test_concurrent_downloads_download_once(server: Server, tmp_path: Path) -> None:
    found: list[Path] = []
    said: list[str] = []

    def one() -> None:
        found.append(fetch(ARCHIVE, tmp_path, options=hosts(server, "good"), log=said.append))

    threads = [threading.Thread(target=one) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [tmp_path / "set.tar.gz"] * 4
    assert whole(found[0])
    assert len(server.asked) == 1


def test_a_file_for_the_folder_or_a_folder_for_the_file_is_refused(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="is not a directory"):
        fetch(ARCHIVE, tmp_path / "file", options=hosts(server, "good"))
    part_of(tmp_path).mkdir()
    with pytest.raises(UsageError, match=r"part` is not a regular file"):
        fetch(ARCHIVE, tmp_path, options=hosts(server, "good"))


def test_a_complete_file_has_the_size_and_digest(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    assert is_whole(path, ARCHIVE)
    assert not is_whole(path, replace(ARCHIVE, bytes=1))
    assert not is_whole(path, replace(ARCHIVE, sha256="0" * 64))
    assert not is_whole(tmp_path / "none", ARCHIVE)
