"""Archives that are not what they should be: nothing of them is written, followed or believed without a bound."""

from __future__ import annotations

import gzip
import hashlib
import tarfile
import tracemalloc
from pathlib import Path

import pytest

from resnetcli.data import archive as module
from resnetcli.data.archive import read_archive
from resnetcli.data.errors import DataError
from tests.support.datasets import member, tar_of

WANTED = ("set/a.bin", "set/b.bin")
GOOD = [(member(name, name.encode()), name.encode()) for name in WANTED]


def archive(tmp_path: Path, raw: bytes) -> Path:
    path = tmp_path / "data.tar.gz"
    path.write_bytes(raw)
    return path


def test_members_are_read_in_any_order_and_others_skipped(tmp_path: Path) -> None:
    others = [
        (member("set", kind=tarfile.DIRTYPE), b""),
        (member("../../etc/passwd", b"x"), b"x"),
        (member("/etc/passwd", b"x" * 1000), b"x" * 1000),
        (member("set/link", kind=tarfile.SYMTYPE, link="/etc/passwd"), b""),
        (member("set/device", kind=tarfile.CHRTYPE), b""),
        (member("set/file.txt~"), b""),
    ]
    raw = tar_of([others[0], GOOD[1], *others[1:], GOOD[0]])
    path = archive(tmp_path, raw)
    found, digest = read_archive(path, WANTED, 100)
    assert found == {name: name.encode() for name in WANTED}
    assert digest == hashlib.sha256(raw).hexdigest()
    assert list(tmp_path.iterdir()) == [path]


def test_names_with_a_leading_dot_and_long_posix_names_are_read(tmp_path: Path) -> None:
    long = "d" * 90 + "/" + "f" * 90
    raw = tar_of([(member("./set/a.bin", b"a"), b"a"), (member(long, b"b"), b"b")])
    assert read_archive(archive(tmp_path, raw), ("set/a.bin", long), 10)[0] == {"set/a.bin": b"a", long: b"b"}


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, b"S", b"L"])
def test_a_member_that_is_not_a_regular_file_is_refused(kind: bytes, tmp_path: Path) -> None:
    raw = tar_of([(member("set/a.bin", kind=kind, link="/etc/passwd"), b""), GOOD[1]])
    with pytest.raises(DataError, match=r"its member `set/a\.bin` is not a regular file"):
        read_archive(archive(tmp_path, raw), WANTED, 100)


def test_a_size_that_a_header_only_claims_is_not_allocated(tmp_path: Path) -> None:
    info = member("set/a.bin")
    info.size = 2**32
    header = info.tobuf(tarfile.USTAR_FORMAT)
    with pytest.raises(DataError, match="a header claims 4,294,967,296 bytes"):
        read_archive(archive(tmp_path, gzip.compress(header, mtime=0)), WANTED, 100)
    info.size = 1000
    with pytest.raises(DataError, match="has 1,000 bytes, more than the allowed 100"):
        read_archive(archive(tmp_path, gzip.compress(info.tobuf(tarfile.USTAR_FORMAT), mtime=0)), WANTED, 100)


def test_a_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_UNPACKED", 10**6)
    big = bytes(2 * 10**6)
    with pytest.raises(DataError, match="a header claims 2,000,000 bytes"):
        read_archive(archive(tmp_path, tar_of([(member("other", big), big), *GOOD])), WANTED, 100)
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):  # behind the tar's end
        read_archive(archive(tmp_path, tar_of(GOOD) + gzip.compress(big, mtime=0)), WANTED, 100)
    tiny = [(member(f"{number}"), b"") for number in range(3000)]  # nothing but headers
    with pytest.raises(DataError, match="unpacks to more than 1,000,000 bytes"):
        read_archive(archive(tmp_path, tar_of([*tiny, *GOOD])), WANTED, 100)


@pytest.mark.parametrize("kind", [b"x", b"g", b"L", b"K", b"S"])
def test_an_extended_header_is_skipped_and_never_held_in_memory(kind: bytes, tmp_path: Path) -> None:
    """`tarfile` alone reads it whole: the size that it claims, and a dictionary of what it contains."""
    size = 64 * 2**20
    raw = gzip.compress(member("long", bytes(size), kind=kind).tobuf(tarfile.USTAR_FORMAT) + bytes(size), 1, mtime=0)
    path = archive(tmp_path, raw + tar_of(GOOD))
    tracemalloc.start()
    try:
        contents, _ = read_archive(path, WANTED, 100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert contents == {name: name.encode() for name in WANTED}
    assert peak < 4 * 2**20
    huge = member("long", kind=kind)
    huge.size = 2**33 - 1
    with pytest.raises(DataError, match="a header claims 8,589,934,591 bytes"):
        read_archive(archive(tmp_path, gzip.compress(huge.tobuf(tarfile.USTAR_FORMAT), mtime=0)), WANTED, 100)


@pytest.mark.parametrize("size", [b"\x80" + b"\xff" * 11, b"\xff" * 12])
def test_a_size_in_binary_is_checked_as_well(size: bytes, tmp_path: Path) -> None:
    header = bytearray(member("other").tobuf(tarfile.USTAR_FORMAT))
    header[124:136] = size
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + sum(header[156:512]) + 8 * 32)
    with pytest.raises(DataError, match="a header claims"):
        read_archive(archive(tmp_path, gzip.compress(bytes(header), mtime=0)), WANTED, 100)


def test_members_are_limited_in_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    assert read_archive(archive(tmp_path, tar_of(GOOD)), WANTED, 100)[0]
    with pytest.raises(DataError, match="has more than 2 members"):
        read_archive(archive(tmp_path, tar_of([(member("other"), b""), *GOOD])), WANTED, 100)


def test_a_repeated_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="twice"):
        read_archive(archive(tmp_path, tar_of([*GOOD, GOOD[0]])), WANTED, 100)


def test_a_missing_member_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"does not contain `set/b\.bin`"):
        read_archive(archive(tmp_path, tar_of(GOOD[:1])), WANTED, 100)


def test_an_archive_cut_anywhere_is_refused(tmp_path: Path) -> None:
    raw = tar_of(GOOD)
    for length in range(len(raw)):
        with pytest.raises(DataError):
            read_archive(archive(tmp_path, raw[:length]), WANTED, 100)


def test_a_changed_byte_is_refused_or_changes_the_digest(tmp_path: Path) -> None:
    raw = tar_of(GOOD)
    _, digest = read_archive(archive(tmp_path, raw), WANTED, 100)
    for place in range(len(raw)):
        changed = raw[:place] + bytes([raw[place] ^ 0x41]) + raw[place + 1 :]
        try:
            assert read_archive(archive(tmp_path, changed), WANTED, 100)[1] != digest
        except DataError:
            continue


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"<html><body>not found</body></html>", "not a whole gzip file"),
        (b"", "not a whole tar archive: empty file"),
        (gzip.compress(b"x" * 1024, mtime=0), "not a whole tar archive: bad checksum|invalid header"),
        (gzip.compress(b"x" * 100, mtime=0), "not a whole tar archive: truncated header"),
    ],
)
def test_other_files_are_refused(raw: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read_archive(archive(tmp_path, raw), WANTED, 100)
