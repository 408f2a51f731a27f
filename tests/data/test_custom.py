"""Custom datasets: described, written, converted, and refused if they are inconsistent."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resnetcli.data.arrays import read_arrays
from resnetcli.data.cifar import OFFICIAL
from resnetcli.data.convert import convert
from resnetcli.data.dataset import Split
from resnetcli.data.errors import DataError
from resnetcli.data.read import read_dataset
from resnetcli.data.synthetic import synthetic
from resnetcli.data.write import write_custom
from resnetcli.errors import ResourceError, UsageError
from tests.support.datasets import _tiny, packed, small, write_binary, write_python  # noqa: F401

DATA = synthetic(30, 6, classes=3, size=(5, 8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A dataset of 36 images of 5 x 8."""
    (tmp_path / "own").mkdir()
    write_custom(tmp_path / "own", DATA.train, DATA.test, ["a", "b", "c"])
    return tmp_path / "own"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    change(description)
    path.write_text(json.dumps(description))


def test_a_written_dataset_is_read_back_unchanged(folder: Path) -> None:
    found = read_dataset("custom", folder)
    assert found.digest == DATA.digest
    assert np.array_equal(found.test.images, DATA.test.images)
    assert (found.name, found.class_names, found.image, found.verified) == ("custom", ("a", "b", "c"), (3, 5, 8), False)
    assert found.text == "custom, 36 images"


def test_a_record_is_the_label_then_red_green_and_blue_by_rows(folder: Path) -> None:
    raw = (folder / "test.bin").read_bytes()
    assert len(raw) == 6 * (1 + 3 * 5 * 8)
    assert raw[121] == DATA.test.labels[1]
    assert raw[121 + 1 + 40 + 8 * 2 + 3] == DATA.test.images[1, 1, 2, 3]


def test_more_than_256_classes_take_two_bytes_the_high_one_first(tmp_path: Path) -> None:
    labels = np.array([0, 255, 256, 699], np.int64)
    split = Split(np.zeros((4, 3, 2, 2), np.uint8), labels)
    write_custom(tmp_path, split, split, [f"c{number}" for number in range(700)])
    assert (tmp_path / "train.bin").read_bytes()[2 * 14 : 2 * 14 + 2] == bytes([1, 0])
    assert read_dataset("custom", tmp_path).train.labels.tolist() == labels.tolist()


def test_records_of_several_files_are_concatenated(folder: Path) -> None:
    raw = (folder / "train.bin").read_bytes()
    (folder / "one.bin").write_bytes(raw[: 121 * 7])
    (folder / "two.bin").write_bytes(raw[121 * 7 :])
    edit(folder, lambda description: description.update(train=["one.bin", "two.bin"]))
    assert read_dataset("custom", folder).digest == DATA.digest


def test_the_shortest_description_has_the_classes_alone(tmp_path: Path) -> None:
    data = small()
    write_custom(tmp_path, data.train, data.test, data.class_names)
    (tmp_path / "dataset.json").write_text('{"classes": 10}')
    found = read_dataset("custom", tmp_path)
    assert found.digest == data.digest
    assert found.class_names == tuple(f"class {number}" for number in range(10))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "a key": ({"clases": 3}, "has an unknown key `clases`"),
    "a schema": ({"schema": "resnet-cli/dataset@2"}, "`schema` must be one of resnet-cli/dataset@1, not"),
    "grey": ({"image": [1, 5, 8]}, r"`image\[0\]` must be one of 3, not 1"),
    "huge": ({"image": [3, 10**9, 10**9]}, r"`image\[1\]` must be at most 1,024"),
    "a side that is true": ({"image": [3, True, 8]}, r"`image\[1\]` must be a whole number, not true"),
    "no classes": ({"classes": None, "class_names": None}, "`classes` is missing"),
    "too many classes": ({"classes": 10**9, "class_names": None}, "`classes` must be at most 65,536"),
    "names of others": ({"class_names": ["a", "b"]}, "has 2 `class_names` and 3 `classes`"),
    "one name": ({"class_names": ["a"]}, "`class_names` must have a length of at least 2"),
    "names that are none": ({"class_names": ["a", "b", 3]}, r"`class_names\[2\]` must be text, not 3"),
    "another folder": ({"train": ["../own/train.bin"]}, r"`train\[0\]` must be the name of a file beside it"),
    "an absolute path": ({"train": ["/etc/passwd"]}, r"`train\[0\]` must be the name of a file beside it"),
    "a hidden place": ({"train": [".."]}, r"`train\[0\]` must be the name of a file beside it"),
    "a file twice": ({"train": ["train.bin", "train.bin"]}, "`train` must be different files"),
    "no files": ({"train": []}, "`train` must have a length of at least 1"),
    "a missing file": ({"train": ["more.bin"]}, "more.bin"),
    "another size": ({"image": [3, 8, 8]}, "not a whole number of records of 193"),
    "fewer classes": ({"classes": 2, "class_names": ["a", "b"]}, "but the classes are 0 to 1"),
    "a digest": ({"digest": "12"}, "`digest` must be a SHA-256"),
    "another's digest": ({"digest": "0" * 64}, "does not match its dataset.json"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_invalid_description_is_refused(name: str, folder: Path) -> None:
    changes, message = WRONG[name]
    edit(folder, lambda description: description.update(changes))
    with pytest.raises(DataError, match=message):
        read_dataset("custom", folder)


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b'{"classes": 1e999}'])
def test_a_description_that_is_not_a_json_object_is_refused(raw: bytes, folder: Path) -> None:
    (folder / "dataset.json").write_bytes(raw)
    with pytest.raises(DataError):
        read_dataset("custom", folder)


def test_a_dataset_without_test_images_is_refused(folder: Path) -> None:
    (folder / "test.bin").write_bytes(b"")
    with pytest.raises(DataError, match="has no test images"):
        read_dataset("custom", folder)


def test_a_folder_without_a_description_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        read_dataset("custom", tmp_path / "none")
    with pytest.raises(UsageError, match=r"has no dataset\.json"):
        read_dataset("custom", tmp_path)


# --- arrays ------------------------------------------------------------------------------------------------------


def saved(tmp_path: Path, **arrays: Any) -> Path:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **arrays)
    return path


RNG = np.random.default_rng(0)
GREY = RNG.integers(0, 256, (20, 6, 7), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 3, 6, 7), dtype=np.uint8)
LABELS = np.arange(20) % 4


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (GREY, np.stack([GREY] * 3, 1)),
        (GREY[:, None], np.stack([GREY] * 3, 1)),
        (GREY[..., None], np.stack([GREY] * 3, 1)),
        (COLOUR, COLOUR),
        (COLOUR.transpose(0, 2, 3, 1), COLOUR),
        (np.asfortranarray(COLOUR), COLOUR),
    ],
    ids=["n h w", "n 1 h w", "n h w 1", "n 3 h w", "n h w 3", "by columns"],
)
def test_images_may_have_their_axes_in_any_usual_order(images: Any, expected: Any, tmp_path: Path) -> None:
    path = saved(
        tmp_path, train_images=images, train_labels=LABELS, test_images=images[:5], test_labels=LABELS[:5].astype("u1")
    )
    converted = convert(path, tmp_path / "out")
    assert np.array_equal(converted.train.images, expected)
    assert np.array_equal(converted.test.images, expected[:5])
    assert converted.train.labels.tolist() == LABELS.tolist()
    assert read_dataset("custom", tmp_path / "out").digest == converted.digest
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["dataset.json", "test.bin", "train.bin"]


def test_without_test_images_a_share_of_each_class_becomes_the_test_set(tmp_path: Path) -> None:
    images = np.arange(20, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 4), np.uint8)
    path = saved(tmp_path, images=images, labels=LABELS, class_names=np.array(["p", "q", "r", "s"]))
    train, test, names = read_arrays(path, share=0.4)
    assert np.bincount(test.labels).tolist() == [2] * 4
    assert np.bincount(train.labels).tolist() == [3] * 4
    both = [*train.images[:, 0, 0, 0].tolist(), *test.images[:, 0, 0, 0].tolist()]
    assert sorted(both) == list(range(20))
    assert (train.images[:, 0, 0, 0] % 4 == train.labels).all()
    assert names == ("p", "q", "r", "s")
    assert np.array_equal(read_arrays(path, share=0.4)[1].images, test.images)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"pictures": GREY}, "has `pictures` in it"),
        ({"images": GREY.astype("f4"), "labels": LABELS}, "images of float32, not of bytes|holds float32"),
        ({"images": GREY.astype("u2"), "labels": LABELS}, "images of uint16, not of bytes"),
        ({"images": GREY, "labels": LABELS[:-1]}, "labels that are not one whole number per image"),
        ({"images": GREY, "labels": LABELS - 1}, "labels from -1 to 2"),
        ({"images": GREY, "labels": LABELS + 65_536}, "labels from 65536"),
        ({"images": GREY, "labels": LABELS / 2}, "holds float64"),
        ({"images": GREY[0], "labels": LABELS[:6]}, "images of 6 x 7, not"),
        ({"images": GREY[:0], "labels": LABELS[:0]}, "there must be images"),
        ({"images": GREY[:1], "labels": LABELS[:1]}, "too few images"),
        ({"images": COLOUR[..., :3], "labels": LABELS}, "the axis of the channels is ambiguous"),
        ({"images": GREY, "labels": LABELS, "class_names": np.array(["a"])}, "`class_names` that are not"),
        ({"images": np.array([Path()] * 20, object), "labels": LABELS}, "Object arrays cannot be loaded"),
        ({"x_train": GREY, "y_train": LABELS, "x_test": GREY[:, :5], "y_test": LABELS}, "of different sizes"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_a_dataset_are_refused(arrays: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(DataError, match=message):
        convert(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["set.npz"]


def test_images_of_floats_are_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds float32") as found:
        read_arrays(saved(tmp_path, images=GREY.astype("f4"), labels=LABELS))
    assert found.value.hint == "images are bytes (uint8), from 0 (black) to 255 (white)"
    with pytest.raises(DataError, match="holds float64") as found:
        read_arrays(saved(tmp_path, images=GREY, labels=LABELS / 2))
    assert found.value.hint == ""


def test_a_share_too_small_is_reported_as_given(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"too few images for a test split of 0\.01%"):
        read_arrays(saved(tmp_path, images=GREY, labels=LABELS), share=0.0001)


def test_a_header_that_claims_more_than_the_file_has_is_refused(tmp_path: Path) -> None:
    out = io.BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": "|u1", "fortran_order": False, "shape": (2**40, 3, 32, 32)})
    path = tmp_path / "set.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", out.getvalue())
        archive.writestr("labels.npy", out.getvalue())
    with pytest.raises(DataError, match=r"Unable to allocate 3\.00 PiB"):
        convert(path, tmp_path / "out")


@pytest.mark.parametrize(
    "header",
    ["(" * 300, "-" * 9000 + "1", '{"descr": "|u1", "fortran_order": False, "shape": (', '"""', "  1\n 2\n3", "{[]: 1}",
     "{'descr': ',', 'fortran_order': False, 'shape': (5,), }", "\t if", "\0", "{'descr': 5, 'shape': (5,)}",
     *(f"{{'descr': '|u1', 'fortran_order': False, 'shape': ({shape},), }}" for shape in ("10**9", "True", "-5", "1.5",
                                                                                        "9" * 5000))],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_invalid_header_is_refused_whatever_error_reading_it_raises(
    header: str, version: int, tmp_path: Path
) -> None:
    length = len(header).to_bytes(2 if version == 1 else 4, "little")
    raw = b"\x93NUMPY" + bytes([version, 0]) + length + header.encode() + bytes(100)
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for name in ("images.npy", "labels.npy"):
            archive.writestr(name, raw)
    with pytest.raises(DataError, match="is not an array of whole numbers or text"):
        read_arrays(tmp_path / "set.npz")


def test_an_npz_of_python_2_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        for name, shape, data in (("images", "(9L, 1L, 1L)", bytes(9)), ("labels", "(9L,)", bytes(range(3)) * 3)):
            header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
            archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data)
    train, test, names = read_arrays(tmp_path / "set.npz", share=0.34)
    assert (len(train), len(test), len(names)) == (6, 3, 3)


def test_names_in_an_npz_that_are_not_text_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("\u00e9\u00e9.npy", b"x")
    raw = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(raw.replace("\u00e9\u00e9".encode(), b"\xff" * 4))
    with pytest.raises(DataError, match=r"is not (a whole \.npz file|an array of whole numbers or text)"):
        read_arrays(tmp_path / "set.npz")


def test_every_cut_of_an_npz_is_refused(tmp_path: Path) -> None:
    raw = saved(tmp_path, images=GREY[:8], labels=LABELS[:8]).read_bytes()
    for length in range(0, len(raw), 7):
        (tmp_path / "cut.npz").write_bytes(raw[:length])
        with pytest.raises(DataError):
            read_arrays(tmp_path / "cut.npz")


def test_every_changed_byte_of_an_npz_is_read_or_refused(tmp_path: Path) -> None:
    raw = saved(tmp_path, images=GREY[:8], labels=LABELS[:8]).read_bytes()
    for place in range(len(raw)):
        (tmp_path / "changed.npz").write_bytes(raw[:place] + bytes([raw[place] ^ 0x11]) + raw[place + 1 :])
        try:
            train, test, _ = read_arrays(tmp_path / "changed.npz")
        except DataError:
            continue
        assert train.images.shape[1:] == test.images.shape[1:] == (3, 6, 7)


# --- conversion --------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("_tiny")
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("form", ["folder", "archive"])
def test_the_python_version_becomes_the_binary_one_byte_for_byte(name: str, form: str, tmp_path: Path) -> None:
    official = OFFICIAL[name]
    data = small(len(official.class_names))
    source = tmp_path / official.python.folder
    write_python(source, official, data)
    if form == "archive":
        source = packed(source, official.python, tmp_path)
    converted = convert(source, tmp_path / "out")
    assert (converted.digest, converted.name) == (data.digest, name)
    assert read_dataset(name, tmp_path / "out", download=False).digest == data.digest
    raw = (tmp_path / "out" / official.binary.test).read_bytes()
    image, label = data.test.images[3], int(data.test.labels[3])
    head = bytes([label]) if name == "cifar10" else bytes([label % 20, label])
    size = len(head) + 3072
    assert raw[3 * size : 4 * size] == head + image.tobytes()
    names = tmp_path / "out" / ("batches.meta.txt" if name == "cifar10" else "fine_label_names.txt")
    assert names.read_text().split() == list(official.class_names)


@pytest.mark.parametrize("version", ["binary", "python"])
def test_cifar_s_files_of_another_size_become_a_custom_set(version: str, tmp_path: Path) -> None:
    official, data = OFFICIAL["cifar10"], small()
    write = write_binary if version == "binary" else write_python
    write(tmp_path / "in", official, data)
    converted = convert(tmp_path / "in", tmp_path / "out")
    assert (converted.name, converted.digest, converted.class_names) == ("custom", data.digest, official.class_names)


@pytest.mark.usefixtures("_tiny")
def test_the_binary_version_is_not_converted(tmp_path: Path) -> None:
    write_binary(tmp_path / "in", OFFICIAL["cifar10"], small())
    with pytest.raises(UsageError, match="is already the binary version"):
        convert(tmp_path / "in", tmp_path / "out")


def test_an_existing_target_is_not_modified(tmp_path: Path, folder: Path) -> None:
    path = saved(tmp_path, images=GREY, labels=LABELS)
    with pytest.raises(UsageError, match="is not empty"):
        convert(path, folder)
    with pytest.raises(UsageError, match="is not a directory"):
        convert(path, path)
    (tmp_path / "empty").mkdir()
    assert len(convert(path, tmp_path / "empty").train) == 16


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path, images=GREY, labels=LABELS)

    def write_bytes(self: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(ResourceError, match="No space left on device"):
        convert(path, tmp_path / "out")
    assert [each.name for each in tmp_path.iterdir()] == ["set.npz"]


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, float("nan")])
def test_a_test_share_outside_0_to_1_is_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--test must be between 0 and 1"):
        convert(saved(tmp_path, images=GREY, labels=LABELS), tmp_path / "out", share=share)


def test_other_sources_are_refused(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="is not a supported dataset"):
        convert(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(UsageError, match="there is no file or directory"):
        convert(tmp_path / "none.npz", tmp_path / "out")
    with pytest.raises(UsageError, match=r"cannot read .*: File name too long"):
        convert(tmp_path / ("x" * 300), tmp_path / "out")
    with pytest.raises(UsageError, match="already a dataset of binary records"):
        convert(folder, tmp_path / "out")
