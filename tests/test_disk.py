from __future__ import annotations

import os
from pathlib import Path

import pytest

from resnetcli.disk import load_json
from resnetcli.errors import UsageError


def test_a_file_of_json_is_read_up_to_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text('{"a": [1, 2.5, "three"]}')
    assert load_json(str(path), 24, "hint") == {"a": [1, 2.5, "three"]}
    with pytest.raises(UsageError, match="is larger than"):
        load_json(str(path), 23, "hint")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"9" * 10_000, b'{"a": 1} and more'])
def test_what_is_not_json_is_refused_with_the_hint(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(data)
    with pytest.raises(UsageError) as caught:
        load_json(str(path), 2**20, "save one")
    assert str(caught.value) == f"error: `{path}` is not JSON\nhint: save one"


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for file in ("/dev/zero", str(pipe), str(tmp_path)):
        with pytest.raises(UsageError, match="is no regular file"):
            load_json(file, 2**20, "hint")


@pytest.mark.parametrize("name", ["nothing", "x" * 5000, "a\0b"])
def test_what_is_not_there_is_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load_json(str(tmp_path / name), 2**20, "hint")
