from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from resnetcli.errors import UsageError
from resnetcli.files import cache_dir, drafts_of, load_json, read_bounded, write_atomic
from resnetcli.roofline.profiles import read_cached


def test_a_file_of_json_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": [1, 2.5, "three"]}')
    assert load_json(str(path), 24, "hint") == {"a": [1, 2.5, "three"]}
    with pytest.raises(UsageError, match="is larger than"):
        load_json(str(path), 23, "hint")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"a": 1} and more', b'{"a": 1, "a": 2}'],
)
def test_what_is_not_json_is_refused_with_the_hint(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_json(str(path), 2**20, "save one")
    assert str(caught.value) == f"error: `{path}` is not JSON\nhint: save one"


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in ("/dev/zero", str(pipe)):
        with pytest.raises(UsageError, match="is not a regular file"):
            load_json(file, 2**20, "hint")
    with pytest.raises(UsageError, match="is a directory"):
        load_json(tmp_path, 2**20, "hint")


@pytest.mark.parametrize(
    ("name", "message"), [("nothing", "no such file: `"), ("x" * 5000, "cannot read `"), ("a\0b", "cannot read `")]
)
def test_a_missing_file_is_reported(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_json(tmp_path / name, 2**20, "hint")
    assert caught.value.message.startswith(message)
    assert caught.value.hint == "hint"


def test_a_file_that_grows_while_it_is_read_stays_within_its_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its size is 0 at first, as is that of every file in /proc."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    empty = tmp_path / "empty"
    empty.touch()
    monkeypatch.setattr("os.fstat", lambda handle: empty.stat())
    assert read_bounded(path, 100) == b"x" * 100
    with pytest.raises(UsageError, match="is larger than"):
        read_bounded(path, 99)


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.touch()
    path.chmod(0o600)
    write_atomic(path, b"new")
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (b"new", 0o600)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_that_refuses_fsync_has_the_file_all_the_same(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int) -> None:
        raise OSError(number, "refused")

    monkeypatch.setattr("os.fsync", refuse)
    write_atomic(tmp_path / "a.json", b"{}")
    assert (tmp_path / "a.json").read_bytes() == b"{}"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_disk_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(handle: int) -> None:
        raise OSError(errno.EIO, "broken")

    (tmp_path / "a").write_text("old")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="broken"):
        write_atomic(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["a"]


def test_two_that_write_one_file_do_not_take_each_other_s_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, fsync = tmp_path / "[a]", os.fsync

    def other(handle: int) -> None:  # writes it meanwhile
        monkeypatch.setattr("os.fsync", fsync)
        write_atomic(path, b"other")
        assert len(drafts_of(path)) == 1

    monkeypatch.setattr("os.fsync", other)
    write_atomic(path, b"mine")
    assert path.read_bytes() == b"mine"
    assert drafts_of(path) == []


def test_a_draft_of_a_killed_process_goes_with_the_next_one(tmp_path: Path) -> None:
    old, new = tmp_path / ".a.0123.part", tmp_path / ".a.4567.part"
    for draft in (old, new):
        draft.touch()
    os.utime(old, (0, 0))
    write_atomic(tmp_path / "a", b"")
    assert drafts_of(tmp_path / "a") == [new]  # which may be another's


def test_the_cache_is_below_an_absolute_path_or_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "resnet-cli"
    monkeypatch.setenv("HOME", str(tmp_path))
    for base in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", base)
        assert cache_dir() == tmp_path / ".cache" / "resnet-cli"

    def homeless(*arguments: object) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr("pathlib.Path.home", homeless)
    with pytest.raises(UsageError, match="no home directory"):
        cache_dir()
    assert read_cached("cpu") is None
