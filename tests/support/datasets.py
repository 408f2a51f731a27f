"""Small datasets in exactly the published formats, and CIFAR reduced to the same size."""

from __future__ import annotations

import gzip
import hashlib
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from resnetcli.data import cifar
from resnetcli.data.cifar import Layout, Official
from resnetcli.data.dataset import Dataset
from resnetcli.data.synthetic import synthetic
from resnetcli.data.write import write_official

TRAIN, TEST = 50, 7


def small(classes: int = 10) -> Dataset:
    return synthetic(TRAIN, TEST, classes=classes)


def tiny(official: Official) -> Official:
    """The published dataset reduced to a few images, without digests."""
    return replace(
        official, train=TRAIN, test=TEST,
        binary=replace(official.binary, sha256=("", "") if official.binary.sha256 else ()),
        python=replace(official.python, md5=("",) * 6 if official.python.md5 else ()),
    )  # fmt: skip


@pytest.fixture
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reduce CIFAR-10 and CIFAR-100 to 50 training and 7 test images."""
    for name, official in list(cifar.OFFICIAL.items()):
        monkeypatch.setitem(cifar.OFFICIAL, name, tiny(official))


def publish(monkeypatch: pytest.MonkeyPatch, name: str, version: cifar.Version, **changed: object) -> None:
    """Replace fields of the layout, such as the digests, by those of a test's own files."""
    official = cifar.OFFICIAL[name]
    layout = replace(official.layout(version), **changed)  # type: ignore[arg-type]
    binary, python = (layout, official.python) if version == "binary" else (official.binary, layout)
    monkeypatch.setitem(cifar.OFFICIAL, name, replace(official, binary=binary, python=python))


# --- Python 2's pickles, instruction by instruction --------------------------------------------------------------


class Pickler2:
    """Write as Python 2's cPickle does with protocol 2: memo from 1, strings as bytes, sizes in 1 or 4 bytes."""

    def __init__(self) -> None:
        self.out, self.put_at = bytearray(b"\x80\x02"), 0

    def put(self) -> None:
        self.put_at += 1
        self.out += b"q" + bytes([self.put_at]) if self.put_at < 256 else b"r" + struct.pack("<I", self.put_at)

    def string(self, text: bytes) -> None:
        self.out += b"U" + bytes([len(text)]) + text if len(text) < 256 else b"T" + struct.pack("<i", len(text)) + text
        self.put()

    def number(self, value: int) -> None:
        self.out += (
            b"K" + bytes([value]) if 0 <= value < 256
            else b"M" + struct.pack("<H", value) if 0 <= value < 65536
            else b"J" + struct.pack("<i", value)
        )  # fmt: skip

    def name(self, module: bytes, name: bytes) -> None:
        self.out += b"c" + module + b"\n" + name + b"\n"
        self.put()

    def numbers(self, values: list[int]) -> None:
        self.out += b"]"
        self.put()
        self.out += b"("
        for value in values:
            self.number(value)
        self.out += b"e"

    def strings(self, values: list[bytes]) -> None:
        self.out += b"]"
        self.put()
        self.out += b"("
        for value in values:
            self.string(value)
        self.out += b"e"

    def array(self, array: NDArray[np.uint8], *, fortran: bool = False) -> None:
        """As ndarray.__reduce__ and dtype.__reduce__ of that time."""
        self.name(b"numpy.core.multiarray", b"_reconstruct")
        self.name(b"numpy", b"ndarray")
        self.out += b"K\x00\x85"
        self.put()
        self.string(b"b")
        self.out += b"\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x01"
        for length in array.shape:
            self.number(length)
        self.out += b"\x86"
        self.put()
        self.name(b"numpy", b"dtype")
        self.string(b"u1")
        self.out += b"K\x00K\x01\x87"
        self.put()
        self.out += b"R"
        self.put()
        self.out += b"(K\x03"
        self.string(b"|")
        self.out += b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00t"
        self.put()
        self.out += b"b" + (b"\x88" if fortran else b"\x89")
        self.string(array.tobytes("F" if fortran else "C"))
        self.out += b"t"
        self.put()
        self.out += b"b"


def batch(images: NDArray[np.uint8], labels: dict[bytes, list[int]], *, fortran: bool = False) -> bytes:
    """A batch as Python 2 pickled it: `batch_label`, the labels, `data`, `filenames`."""
    out = Pickler2()
    out.out += b"}"
    out.put()
    out.out += b"("
    out.string(b"batch_label")
    out.string(b"training batch 1 of 5")
    for key, values in labels.items():
        out.string(key)
        out.numbers(values)
    out.string(b"data")
    out.array(images.reshape(len(images), 3072), fortran=fortran)
    out.string(b"filenames")
    out.strings([b"image_%d.png" % number for number in range(len(images))])
    out.out += b"u."
    return bytes(out.out)


def write_python(folder: Path, official: Official, data: Dataset) -> None:
    """Write the extracted Python version."""
    folder.mkdir(parents=True, exist_ok=True)
    layout = official.python
    shares = np.array_split(np.arange(len(data.train)), len(layout.train))
    splits = [(data.train.images[share], data.train.labels[share]) for share in shares]
    for name, (images, labels) in zip(layout.files, [*splits, (data.test.images, data.test.labels)], strict=True):
        keyed = {layout.labels.encode(): labels.tolist()}
        if official.name == "cifar100":
            keyed[b"coarse_labels"] = (labels % 20).tolist()
        (folder / name).write_bytes(batch(images, keyed))
    (folder / "file.txt~").write_bytes(b"")  # as in CIFAR-100's archive


def write_binary(folder: Path, official: Official, data: Dataset) -> None:
    """Write the extracted binary version."""
    folder.mkdir(parents=True, exist_ok=True)
    write_official(folder, official, data.train, data.test)


def packed(folder: Path, layout: Layout, to: Path) -> Path:
    """Pack the folder as the layout's archive, and return its path."""
    path = to / layout.archive.name
    with tarfile.open(path, "w:gz", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(folder, layout.folder)
    return path


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def tar_of(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    """A gzipped tar archive of these headers and contents."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for info, content in members:
            archive.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), 1)


def member(name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info
