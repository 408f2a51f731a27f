"""Loading datasets: every published form of CIFAR, and the errors of other files."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from resnetcli.data import cifar
from resnetcli.data.cifar import OFFICIAL, Version
from resnetcli.data.dataset import Dataset
from resnetcli.data.errors import DataError
from resnetcli.data.read import default_folder, default_name, read_dataset
from resnetcli.data.write import write_cifar10_binary
from resnetcli.errors import ResourceError, UsageError
from tests.support.datasets import _tiny, packed, publish, sha256, small, write_binary, write_python  # noqa: F401

tiny = pytest.mark.usefixtures("_tiny")
every_dataset = pytest.mark.parametrize("name", ["cifar10", "cifar100"])
every_version = pytest.mark.parametrize("version", ["binary", "python"])


def made(name: str, version: Version, folder: Path) -> Dataset:
    """A small set, written extracted where its folder would be."""
    official = OFFICIAL[name]
    data = small(len(official.class_names))
    write = write_binary if version == "binary" else write_python
    write(folder / official.layout(version).folder, official, data)
    return data


def same(a: Dataset, b: Dataset) -> bool:
    return a.digest == b.digest and all(
        np.array_equal(x.images, y.images) and np.array_equal(x.labels, y.labels)
        for x, y in ((a.train, b.train), (a.test, b.test))
    )


@tiny
@every_dataset
@every_version
@pytest.mark.parametrize("form", ["folder above", "folder", "archive", "folder with the archive"])
def test_every_published_form_is_read(name: str, version: Version, form: str, tmp_path: Path) -> None:
    data = made(name, version, tmp_path / "out")
    layout = OFFICIAL[name].layout(version)
    folder = tmp_path / "out" / layout.folder
    (tmp_path / "in").mkdir()
    place = {
        "folder above": lambda: tmp_path / "out",
        "folder": lambda: folder,
        "archive": lambda: packed(folder, layout, tmp_path / "in"),
        "folder with the archive": lambda: packed(folder, layout, tmp_path / "in").parent,
    }[form]()
    found = read_dataset(name, place, download=False)
    assert same(found, data)
    assert (found.name, found.classes, found.class_names) == (name, data.classes, OFFICIAL[name].class_names)
    assert (found.verified, found.text) == (False, f"{OFFICIAL[name].title} (not verified)")
    assert found.train.images.shape == (50, 3, 32, 32)
    assert found.train.images.flags.c_contiguous
    assert [str(array.dtype) for array in (found.train.images, found.train.labels)] == ["uint8", "int64"]
    assert not found.train.images.flags.writeable


@tiny
def test_a_folder_under_another_name_is_known_by_its_files(tmp_path: Path) -> None:
    data = made("cifar10", "binary", tmp_path)
    (tmp_path / "cifar-10-batches-bin").rename(tmp_path / "mine")
    assert same(read_dataset("cifar10", tmp_path / "mine"), data)


@tiny
@every_dataset
@every_version
def test_an_archive_with_the_published_digest_is_verified(
    name: str, version: Version, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(name, version, tmp_path / "out")
    layout = OFFICIAL[name].layout(version)
    path = packed(tmp_path / "out" / layout.folder, layout, tmp_path)
    publish(monkeypatch, name, version, archive=replace(layout.archive, sha256=sha256(path)))
    found = read_dataset(name, path)
    assert found.verified
    assert found.text == f"{OFFICIAL[name].title} (verified)"
    with path.open("ab") as file:
        file.write(bytes(100))  # which gzip reads over, and the digest does not
    assert not read_dataset(name, path).verified


@tiny
def test_extracted_binary_files_with_the_published_digests_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("cifar10", "binary", tmp_path)
    folder = tmp_path / "cifar-10-batches-bin"
    train = b"".join((folder / name).read_bytes() for name in OFFICIAL["cifar10"].binary.train)
    publish(
        monkeypatch, "cifar10", "binary", sha256=(hashlib.sha256(train).hexdigest(), sha256(folder / "test_batch.bin"))
    )
    assert read_dataset("cifar10", tmp_path).verified
    for name in ("data_batch_4.bin", "test_batch.bin"):
        raw = (folder / name).read_bytes()
        (folder / name).write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
        assert not read_dataset("cifar10", tmp_path).verified, name
        (folder / name).write_bytes(raw)
    assert read_dataset("cifar10", tmp_path).verified


@tiny
def test_extracted_python_files_with_the_published_digests_are_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("cifar10", "python", tmp_path)
    folder = tmp_path / "cifar-10-batches-py"
    files = OFFICIAL["cifar10"].python.files
    md5 = tuple(hashlib.md5((folder / name).read_bytes()).hexdigest() for name in files)
    publish(monkeypatch, "cifar10", "python", md5=md5)
    assert read_dataset("cifar10", tmp_path).verified
    (folder / "data_batch_1").write_bytes((folder / "data_batch_2").read_bytes())
    assert not read_dataset("cifar10", tmp_path).verified


def test_other_sizes_are_not_cifar(tmp_path: Path) -> None:
    made("cifar10", "binary", tmp_path)
    with pytest.raises(DataError, match=r"data_batch_1.bin` has 10 images; in CIFAR-10 it has 10,000"):
        read_dataset("cifar10", tmp_path)


def test_published_sizes_and_digests_are_plausible() -> None:
    for official in OFFICIAL.values():
        for version in ("binary", "python"):
            layout = official.layout(version)
            assert len(layout.archive.sha256) == 64
            assert 168e6 < layout.archive.bytes < 171e6
            assert len(layout.md5) in (0, len(layout.files))
            assert all(len(digest) == 32 for digest in layout.md5)
        assert (official.train, official.test) == (50_000, 10_000)
        assert (
            len(set(official.class_names))
            == len(official.class_names)
            == {"cifar10": 10, "cifar100": 100}[official.name]
        )


@tiny
@pytest.mark.parametrize("size", [0, 1, 3073 * 10 - 1, 3073 * 9])
def test_a_batch_cut_short_is_refused(size: int, tmp_path: Path) -> None:
    made("cifar10", "binary", tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=r"data_batch_3\.bin"):
        read_dataset("cifar10", tmp_path)


@tiny
def test_a_label_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    made("cifar10", "binary", tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    raw = bytearray(path.read_bytes())
    raw[2 * 3073] = 10
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"image 2 has label 10, but the classes are 0 to 9"):
        read_dataset("cifar10", tmp_path)


@tiny
@every_version
def test_a_missing_batch_is_named(version: Version, tmp_path: Path) -> None:
    made("cifar10", version, tmp_path)
    layout = OFFICIAL["cifar10"].layout(version)
    (tmp_path / layout.folder / layout.train[2]).unlink()
    with pytest.raises(DataError, match=layout.train[2]):
        read_dataset("cifar10", tmp_path, download=False)


@tiny
def test_a_pipe_in_place_of_a_file_is_refused(tmp_path: Path) -> None:
    import os

    made("cifar10", "binary", tmp_path)
    path = tmp_path / "cifar-10-batches-bin" / "test_batch.bin"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match="not a regular file"):
        read_dataset("cifar10", tmp_path)


@tiny
def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    made("cifar10", "binary", tmp_path)
    with (tmp_path / "cifar-10-batches-bin" / "test_batch.bin").open("ab") as file:
        file.truncate(2**40)  # sparse
    with pytest.raises(DataError, match="is larger than 256 MiB"):
        read_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [("cifar", "unknown dataset `cifar`"), ("custom", "needs `--data-dir`"), ("", "unknown dataset")],
)
def test_an_unknown_dataset_is_refused(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_dataset(name)


def test_without_downloading_a_missing_dataset_is_refused_with_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(UsageError, match=f"CIFAR-100 is not in `{tmp_path}/resnet-cli/data`") as caught:
        read_dataset("cifar100", download=False)
    assert "cifar-100-binary.tar.gz" in caught.value.hint
    assert not list(tmp_path.iterdir())


def test_a_relative_cache_directory_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    monkeypatch.setenv("HOME", "/somewhere")
    assert default_folder() == Path("/somewhere/.cache/resnet-cli/data")


def test_a_file_that_is_not_an_archive_of_the_dataset_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.tar.gz").write_bytes(b"")
    with pytest.raises(UsageError, match="is not an archive of CIFAR-10"):
        read_dataset("cifar10", tmp_path / "data.tar.gz")


def test_a_custom_dataset_is_not_read_as_cifar(tmp_path: Path) -> None:
    data = small()
    write_cifar10_binary(tmp_path, data.train.images, data.train.labels, data.test.images, data.test.labels)
    with pytest.raises(UsageError, match="is a custom dataset, not CIFAR-10"):
        read_dataset("cifar10", tmp_path, download=False)
    assert same(read_dataset("custom", tmp_path), data)
    assert read_dataset("custom", tmp_path).text == "custom, 57 images"


@tiny
@every_dataset
def test_a_missing_dataset_is_downloaded(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(name, "binary", tmp_path / "out")
    layout = OFFICIAL[name].binary
    asked: list[tuple[cifar.Archive, Path]] = []

    def fetch(archive: cifar.Archive, folder: Path, log: object) -> Path:
        asked.append((archive, folder))
        return packed(tmp_path / "out" / layout.folder, layout, folder)

    monkeypatch.setattr("resnetcli.data.fetch.fetch", fetch)
    (tmp_path / "in").mkdir()
    assert same(read_dataset(name, tmp_path / "in"), data)
    assert same(read_dataset(name, tmp_path / "in"), data)
    assert asked == [(layout.archive, tmp_path / "in")]


def test_a_digest_depends_on_labels_images_shapes_and_splits() -> None:
    from resnetcli.data.dataset import Split, content_digest

    rng = np.random.default_rng(1)
    images, labels = rng.integers(0, 256, (4, 3, 2, 6), dtype=np.uint8), np.arange(4)
    split = Split(images, labels)
    changed = images.copy()
    changed[3, 2, 1, 5] ^= 1
    others = [
        (Split(changed, labels), split),
        (Split(images, labels[::-1].copy()), split),
        (Split(images.reshape(4, 3, 6, 2), labels), split),
        (Split(images[:3], labels[:3]), split),
        (split, Split(images[:3], labels[:3])),
    ]
    found = {content_digest(*pair) for pair in [(split, split), *others]}
    assert len(found) == 6


def test_the_synthetic_dataset_is_reproducible_and_labeled_as_such() -> None:
    from resnetcli.data.synthetic import synthetic

    one, two, three = synthetic(100, 20), synthetic(100, 20), synthetic(100, 20, seed=1)
    assert one.digest == two.digest != three.digest
    assert one.text == "synthetic, 100 random images"
    assert not one.verified
    assert np.bincount(one.train.labels).tolist() == [10] * 10
    assert synthetic(8, 4, classes=4, size=(7, 9)).image == (3, 7, 9)


# --- folders that are for something else -----------------------------------------------------------------------------


@pytest.fixture
def nothing_is_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resnetcli.data.fetch.fetch", lambda *args, **how: pytest.fail("it is downloaded"))


@pytest.mark.usefixtures("nothing_is_fetched")
@pytest.mark.parametrize(
    ("inside", "hint"),
    [
        (["a.png"], "download it there with `resnet-cli data fetch cifar10 --data-dir DIR`"),
        (["sub/a.png"], "download it there with `resnet-cli data fetch cifar10 --data-dir DIR`"),
        (["digits.npz", "notes"], "`resnet-cli data convert DIR/digits.npz NEW`, then `--data custom --data-dir NEW`"),
        (["digits/dataset.json"], "`--data custom --data-dir DIR/digits`"),
        (["cifar-100-binary.tar.gz"], "it contains CIFAR-100: `--data cifar100 --data-dir DIR`"),
        (["cifar-100-python/train"], "it contains CIFAR-100: `--data cifar100 --data-dir DIR`"),
        (["train.bin", "test.bin"], "it contains CIFAR-100: `--data cifar100 --data-dir DIR`"),
        (["sets/cifar-10-batches-bin/data_batch_1.bin"], "`--data cifar10 --data-dir DIR/sets`"),
        (["cifar-10-batches-bin.zip"], "download it there with `resnet-cli data fetch cifar10 --data-dir DIR`"),
        (["cifar-10-binary.tar.gz.part", "mine"], "with `resnet-cli data fetch cifar10 --data-dir DIR`"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("download", [True, False])
def test_nothing_is_downloaded_into_a_folder_that_holds_something_else(
    tmp_path: Path, inside: list[str], hint: str, download: bool
) -> None:
    for name in inside:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(UsageError, match="nothing is") as caught:
        read_dataset("cifar10", tmp_path, download=download)
    assert hint.replace("DIR", str(tmp_path)) in caught.value.hint


def refuse_to_fetch(archive: object, folder: Path, **how: object) -> Path:
    raise ResourceError(f"fetching into {folder}")


@pytest.mark.parametrize("inside", [None, [], [".DS_Store"], ["lost+found/"], ["cifar-10-binary.tar.gz.part"]])
def test_an_empty_or_missing_folder_is_downloaded_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: list[str] | None
) -> None:
    monkeypatch.setattr("resnetcli.data.fetch.fetch", refuse_to_fetch)
    folder = tmp_path / "sets"
    for name in inside or ():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).mkdir() if name.endswith("/") else (folder / name).touch()
    with pytest.raises(ResourceError, match=r"fetching into .*sets"):
        read_dataset("cifar10", folder)


def test_nothing_is_downloaded_into_a_directory_whose_name_may_be_misspelt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cifar-data").mkdir()
    with pytest.raises(UsageError, match=r"no such directory: .*cifar-dta") as caught:
        read_dataset("cifar10", tmp_path / "cifar-dta")
    assert f"did you mean `{tmp_path}/cifar-data`?" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-data"]
    monkeypatch.setattr("resnetcli.data.fetch.fetch", refuse_to_fetch)
    with pytest.raises(ResourceError, match=r"fetching into .*cifar-data2"):  # another number is another name
        read_dataset("cifar10", tmp_path / "cifar-data2")


@pytest.mark.parametrize("name", ["cifar10", "custom"])
def test_a_file_in_place_of_a_folder_is_refused_with_the_command(tmp_path: Path, name: str) -> None:
    for file, hint in (
        ("digits.npz", f"`resnet-cli data convert {tmp_path}/digits.npz NEW`, then `--data custom --data-dir NEW`"),
        ("dataset.json", f"`--data custom --data-dir {tmp_path}`"),
        ("cifar-100-python.tar.gz", f"`--data cifar100 --data-dir {tmp_path}/cifar-100-python.tar.gz`"),
    ):
        (tmp_path / file).touch()
        with pytest.raises(UsageError) as caught:
            read_dataset(name, tmp_path / file)
        if name == "cifar10" or file == "digits.npz":
            assert hint in caught.value.hint


def test_the_default_dataset_is_custom_for_a_folder_with_a_description(tmp_path: Path) -> None:
    assert default_name(None) == "cifar10"
    assert default_name(tmp_path) == "cifar10"
    (tmp_path / "dataset.json").touch()
    assert default_name(tmp_path) == "custom"
