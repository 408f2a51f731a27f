"""Checkpoints: what was kept comes back to the bit, and no other file is taken for one."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor

from resnetcli.errors import UsageError
from resnetcli.runs import checkpoint
from resnetcli.runs.checkpoint import Damaged, files, load_checkpoint, newest, save

FACTS = {"config": {"seed": 0}, "wall_s": 1.5}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "net.weight": torch.randn(3, 4, generator=generator),
        "odd": torch.tensor([float("nan"), -0.0, float("inf")], dtype=torch.float64),
        "half": torch.randn(5, generator=generator).to(torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
        "bytes": torch.arange(9, dtype=torch.uint8),
    }


def raw(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(a[n].shape == b[n].shape and raw(a[n]) == raw(b[n]) for n in a)


def test_what_was_kept_comes_back_to_the_bit(tmp_path: Path) -> None:
    path = save(tmp_path, 32000, tensors(), FACTS)
    assert path.name == "checkpoint-00032000.safetensors"
    found = load_checkpoint(path, tensors())
    assert (found.iteration, found.facts) == (32000, FACTS)
    assert same(dict(found.tensors), tensors())
    assert list(tmp_path.iterdir()) == [path]


def test_it_is_a_safetensors_file_with_json_that_any_reader_reads(tmp_path: Path) -> None:
    path = save(tmp_path, 5, tensors(), FACTS)
    data = path.read_bytes()
    assert same(load_safetensors(data), tensors())
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["__metadata__"]["iteration"] == "5"
    assert json.loads(header["__metadata__"]["facts"]) == FACTS


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    for iteration in (10, 20, 30, 40):
        save(tmp_path, iteration, tensors(), FACTS)
    assert [iteration for iteration, _ in files(tmp_path)] == [40, 30]


def test_what_is_damaged_and_later_than_what_was_resumed_from_is_none_of_the_last_two(tmp_path: Path) -> None:
    for iteration in (10, 20, 30):
        path = save(tmp_path, iteration, tensors(), FACTS)
    path.write_bytes(b"damaged")
    assert newest(tmp_path, tensors(), lambda line: None).iteration == 20
    save(tmp_path, 25, tensors(), FACTS)
    assert [iteration for iteration, _ in files(tmp_path)] == [25, 20]


@pytest.mark.parametrize("text", ["[" * 100_000, "x", "[]", '{"a": ' + "1" * 5000 + "}"])
def test_facts_are_not_believed_for_a_digest_that_anybody_can_make(tmp_path: Path, text: str) -> None:
    path = tmp_path / "checkpoint-00000005.safetensors"
    digest = checkpoint._digest(5, text, tensors())
    about = {"format": checkpoint.FORMAT, "iteration": "5", "facts": text, "sha256": digest}
    path.write_bytes(save_safetensors(tensors(), about))
    with pytest.raises(Damaged):
        load_checkpoint(path, tensors())


def test_any_changed_byte_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 5, tensors(), FACTS)
    data = path.read_bytes()
    noticed = 0
    for place in range(0, len(data), 3):
        path.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        try:
            found = load_checkpoint(path, tensors())
        except Damaged:
            noticed += 1
        else:  # in the header's spaces, or the like: then nothing has changed
            assert found.iteration == 5
            assert found.facts == FACTS
            assert same(dict(found.tensors), tensors())
    assert noticed > 0.9 * len(range(0, len(data), 3))


def test_a_file_cut_short_anywhere_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 5, tensors(), FACTS)
    data = path.read_bytes()
    for length in {*range(0, len(data), 7), len(data) - 1}:
        path.write_bytes(data[:length])
        with pytest.raises(Damaged):
            load_checkpoint(path, tensors())
    path.write_bytes(data + b"x")
    with pytest.raises(Damaged, match="bytes, not"):
        load_checkpoint(path, tensors())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"extra": torch.zeros(1)}, "a tensor that the model does not have"),
        ({"count": torch.zeros(2, dtype=torch.int64)}, "another shape"),
        ({"count": torch.tensor(7.0)}, "another type"),
    ],
)
def test_another_models_checkpoint_is_refused(tmp_path: Path, change: dict[str, Tensor], why: str) -> None:
    path = save(tmp_path, 5, {**tensors(), **change}, FACTS)
    with pytest.raises(Damaged, match=why):
        load_checkpoint(path, tensors())


def test_a_missing_tensor_is_noticed(tmp_path: Path) -> None:
    fewer = tensors()
    del fewer["half"]
    with pytest.raises(Damaged, match="it has no `half`"):
        load_checkpoint(save(tmp_path, 5, fewer, FACTS), tensors())


def test_a_header_that_claims_too_much_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-00000005.safetensors"
    path.write_bytes((2**40).to_bytes(8, "little") + b"{}")
    with pytest.raises(Damaged, match="truncated"):
        load_checkpoint(path, tensors())
    header = json.dumps({"count": {"dtype": "I64", "shape": [2**40], "data_offsets": [0, 2**43]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(Damaged, match="not written by a run"):
        load_checkpoint(path, tensors())
    nested = b"[" * 100_000
    path.write_bytes(len(nested).to_bytes(8, "little") + nested)
    with pytest.raises(Damaged, match="not JSON"):
        load_checkpoint(path, tensors())


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch executed",)


def test_nothing_in_a_file_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "checkpoint-00000005.safetensors"
    path.write_bytes(pickle.dumps(Evil()))
    with pytest.raises(Damaged):
        load_checkpoint(path, tensors())
    assert not (tmp_path / "executed").exists()


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-00000005.safetensors"
    os.mkfifo(path)
    with pytest.raises(Damaged, match="not a regular file"):
        load_checkpoint(path, tensors())


def test_a_checkpoint_of_another_name_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path, 5, tensors(), FACTS)
    other = path.rename(tmp_path / "checkpoint-00000007.safetensors")
    with pytest.raises(Damaged, match="iteration is not the one in its name"):
        load_checkpoint(other, tensors())


def test_metadata_without_a_digest_of_its_own_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint-00000005.safetensors"
    about = {"format": checkpoint.FORMAT, "iteration": "5", "facts": "{}", "sha256": "0" * 64}
    path.write_bytes(save_safetensors(tensors(), about))
    with pytest.raises(Damaged, match="digest does not match"):
        load_checkpoint(path, tensors())


def test_the_one_before_a_damaged_one_is_used_with_a_warning(tmp_path: Path) -> None:
    save(tmp_path, 10, tensors(), FACTS)
    last = save(tmp_path, 20, tensors(), FACTS)
    last.write_bytes(last.read_bytes()[:-1])
    told: list[str] = []
    assert newest(tmp_path, tensors(), told.append).iteration == 10
    assert len(told) == 1
    assert f"warning: `{last}` is damaged" in told[0]
    assert "the previous one is used" in told[0]


def test_where_all_are_damaged_nothing_is_started_over_silently(tmp_path: Path) -> None:
    save(tmp_path, 10, tensors(), FACTS).write_bytes(b"")
    told: list[str] = []
    with pytest.raises(UsageError, match="no checkpoint of"):
        newest(tmp_path, tensors(), told.append)
    assert len(told) == 1


def test_a_full_disk_leaves_the_old_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 10, tensors(), FACTS)
    save(tmp_path, 20, tensors(), FACTS)

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            save(tmp_path, 30, tensors(), FACTS)
    assert [iteration for iteration, _ in files(tmp_path)] == [20, 10]
    assert len(list(tmp_path.iterdir())) == 2
    assert load_checkpoint(files(tmp_path)[0][1], tensors()).iteration == 20
