"""Pickles that are CIFAR's, and those that would do harm elsewhere."""

from __future__ import annotations

import os
import pickle
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from resnetcli.data.errors import DataError
from resnetcli.data.records import decode_pickle
from resnetcli.data.unpickle import Pickled, unpickle
from tests.support.datasets import Pickler2, batch

IMAGES = np.random.default_rng(0).integers(0, 256, (30, 3, 32, 32), dtype=np.uint8)
LABELS = [number % 10 for number in range(30)]


@pytest.mark.parametrize("fortran", [False, True])
def test_a_batch_of_python_2_is_read(fortran: bool) -> None:
    raw = batch(IMAGES, {b"labels": LABELS}, fortran=fortran)
    images, labels = decode_pickle(raw, "batch", "labels", 10)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


def test_the_batches_of_these_tests_are_read_by_pickle() -> None:
    found = pickle.loads(batch(IMAGES, {b"labels": LABELS}), encoding="bytes")
    assert set(found) == {b"batch_label", b"labels", b"data", b"filenames"}
    assert np.array_equal(found[b"data"], IMAGES.reshape(30, 3072))
    assert found[b"filenames"][3] == b"image_3.png"


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_batch_pickled_again_by_this_numpy_is_read(protocol: int) -> None:
    said = {
        "data": IMAGES.reshape(30, 3072),
        "labels": LABELS,
        "filenames": ["a"] * 30,
        "more": (None, True, -5, 2**40),
    }
    images, labels = decode_pickle(pickle.dumps(said, protocol), "batch", "labels", 10)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


def again(protocol: int, **how: Any) -> bytes:
    """The batch as somebody would pickle it who has changed it."""
    said = {
        "data": IMAGES.reshape(30, 3072),
        "labels": LABELS,
        "filenames": [f"image_{n}.png" for n in range(30)],
    } | how
    return pickle.dumps(said, protocol)


AGAIN: dict[str, dict[str, Any]] = {
    "as it was": {},
    "an array of int64": {"labels": np.array(LABELS)},
    "an array of uint8": {"labels": np.array(LABELS, np.uint8)},
    "an array of big-endian int32": {"labels": np.array(LABELS, ">i4")},
    "a column": {"labels": np.array(LABELS)[:, None]},
    "numbers of numpy": {"labels": list(np.array(LABELS))},
    "big-endian numbers of numpy": {"labels": list(np.array(LABELS, ">i2"))},
    "a tuple": {"labels": tuple(LABELS)},
    "pixels in columns": {"data": np.asfortranarray(IMAGES.reshape(30, 3072))},
    "pixels transposed": {"data": np.ascontiguousarray(IMAGES.reshape(30, 3072).T).T},
    "pixels that were cut out": {"data": np.concatenate([IMAGES, IMAGES]).reshape(60, 3072)[::2][:30]},
    "pixels that are read-only": {"data": np.frombuffer(IMAGES.tobytes(), np.uint8).reshape(30, 3072)},
    "four axes": {"data": IMAGES},
    "names as bytes": {"filenames": [b"image \xe9\n'\\"] * 30, "batch_label": b""},
    "names as an array": {"filenames": np.array(["a", "\u0416"] * 15), "more": np.array([b"a"])},
    "other numbers": {"more": [True, False, None, -1, 255, 256, 65_536, 2**40, -(2**40), 1.5, 1e300, (), [], {}]},
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", AGAIN)
def test_a_batch_pickled_again_in_any_form_is_read(protocol: int, name: str) -> None:
    said = AGAIN[name]
    raw = again(protocol, **said)
    expected = said.get("data", IMAGES).reshape(30, 3, 32, 32)
    for module in (b"numpy._core.", b"numpy.core."):  # numpy 2 and numpy 1
        text = raw.replace(b"numpy._core.", module) if protocol < 4 else raw
        images, labels = decode_pickle(text, "batch", "labels", 10)
        assert np.array_equal(images, expected)
        assert labels.tolist() == LABELS
        assert labels.dtype == np.int64


@pytest.mark.parametrize("protocol", range(6))
def test_a_batch_whose_keys_are_bytes_is_read(protocol: int) -> None:
    said = {
        b"data": IMAGES.reshape(30, 3072),
        b"fine_labels": LABELS,
        b"coarse_labels": LABELS,
        b"filenames": [b"a"] * 30,
    }
    images, labels = decode_pickle(pickle.dumps(said, protocol), "batch", "fine_labels", 10)
    assert np.array_equal(images, IMAGES)
    assert labels.tolist() == LABELS


@pytest.mark.parametrize("protocol", range(6))
def test_the_instructions_of_a_whole_dataset_are_allowed(protocol: int) -> None:
    n = 2000
    said = {
        b"data": np.zeros((n, 3072), np.uint8), b"filenames": [b"image %d" % k for k in range(n)],
        b"fine_labels": list(np.arange(n) % 100), b"coarse_labels": list(np.arange(n) % 20),
    }  # fmt: skip
    _, labels = decode_pickle(pickle.dumps(said, protocol), "batch", "fine_labels", 100)
    assert labels.tolist() == [k % 100 for k in range(n)]


class Evil:
    """Runs a command when it is unpickled by what allows that."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch /tmp/resnet-cli-was-here",)


def calling(module: bytes, name: bytes, arguments: bytes) -> bytes:
    return b"\x80\x02c" + module + b"\n" + name + b"\n" + arguments + b"R."


EVIL = {
    "os.system": (pickle.dumps({"data": Evil()}, 2), "asks for `posix.system`"),
    "os.system, protocol 4": (pickle.dumps({"data": Evil()}, 4), "asks for `posix.system`"),
    "eval": (calling(b"builtins", b"eval", b"U\x011\x85"), "asks for `builtins.eval`"),
    "numpy's load": (calling(b"numpy", b"load", b"U\x01x\x85"), "asks for `numpy.load`"),
    "a dotted name": (calling(b"numpy", b"ndarray.tofile", b")"), "asks for `numpy.ndarray.tofile`"),
    "codecs": (calling(b"_codecs", b"encode", b"N\x85"), "that is not allowed"),
    "an array made by its class": (
        calling(b"numpy", b"ndarray", b"J\xff\xff\xff\x7f\x85\x85"),
        "is damaged",
    ),
    "an array of 2**40": (
        calling(
            b"numpy.core.multiarray", b"_reconstruct", b"cnumpy\nndarray\n\x8a\x06" + bytes(5) + b"\x01\x85U\x01b\x87"
        ),
        "that is not allowed",
    ),
    "objects": (calling(b"numpy", b"dtype", b"U\x02O8K\x00K\x01\x87"), "array of `O8`"),
    "floats": (calling(b"numpy", b"dtype", b"U\x02f8K\x00K\x01\x87"), "array of `f8`"),
    "codecs that would call": (
        calling(b"_codecs", b"encode", b"X\x01\0\0\0xX\x03\0\0\0zip\x86"),
        "that is not allowed",
    ),
    "bytes of a size": (calling(b"builtins", b"bytes", b"J\xff\xff\xff\x7f\x85"), "that is not allowed"),
    "bytes beyond a byte": (
        calling(b"_codecs", b"encode", b"X\x02\0\0\0\xd0\x96X\x06\0\0\0latin1\x86"),
        "is damaged",
    ),
    "a long text decoded again and again": (
        b"\x80\x02c_codecs\nencode\nq\x00X"
        + struct.pack("<I", 70_000)
        + b"x" * 70_000
        + b"q\x01X\x06\0\0\0latin1q\x02"
        + b"h\x00h\x01h\x02\x86R" * 100
        + b".",
        "decodes more bytes than it has",
    ),
    **{
        f"a text of 64 KB {what} again and again": (
            b"\x80\x02" + words + b"q\x00cnumpy\ndtype\nU\x06" + kind + b"K\x00K\x01\x87Rq\x01"
            b"T" + struct.pack("<I", 64_000) + bytes(64_000) + b"q\x02" + made * 100 + b".",
            "decodes more bytes than it has",
        )
        for what, words, kind, made in (
            ("made a number of", b"cnumpy.core.multiarray\nscalar\n", b"S64000", b"h\x00h\x01h\x02\x86R"),
            ("made a wide text of", b"cnumpy.core.multiarray\nscalar\n", b"U16000", b"h\x00h\x01h\x02\x86R"),
        )
    },
    "a buffer that is none": (
        calling(b"numpy.core.numeric", b"_frombuffer", b"(U\x02abNK\x02\x85U\x01Ct"),
        "that is not allowed",
    ),
    "a line without an end": (b"V" + b"x" * 100_000, "is truncated"),
    "a string without quotes": (b"Sabc\n.", "is damaged"),
    "a string of a half escape": (b"S'\\x4'\n.", "is damaged"),
    "a memo before all": (b"g-1\n.", "is damaged"),
    "a float that is none": (b"Fone\n.", "is damaged"),
    "an instance": (b"\x80\x02(ios\nsystem\n.", "instruction 0x69"),
    "a class made": (b"\x80\x02cnumpy\nndarray\n)\x81.", "instruction 0x81"),
    "a persistent id": (b"\x80\x02U\x01aQ.", "instruction 0x51"),
    "an extension": (b"\x80\x02\x82\x01.", "instruction 0x82"),
    "2 GB announced": (b"\x80\x02T\xff\xff\xff\x7fabc.", "is truncated"),
    "2**62 bytes announced": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"abc.", "is truncated"),
    "a name of nested tuples": (b"\x80\x04)" + b"\x85" * 9_000 + b")\x93.", "is damaged"),
    "a name without an end": (b"\x80\x02c" + b"a" * 10**6, "asks for `a{80}`; only arrays"),
    "a loop of instructions": (b"\x80\x02" + b"]0" * 10 + b".", "instruction 0x30"),
    "a million lists": (b"\x80\x02" + b"]" * 1_100_000, "too many instructions"),
    "an empty stack": (b"\x80\x02.", "is damaged"),
    "nothing to take": (b"\x80\x02R.", "is damaged"),
    "a mark taken": (b"\x80\x02(R.", "is damaged"),
    "a memo that is not": (b"\x80\x02h\x07.", "is damaged"),
    "a state for a list": (b"\x80\x02]Nb.", "an invalid array"),
    "keys that are lists": (b"\x80\x02}]]s.", "not a short text"),
    "an odd dict": (b"\x80\x02}(U\x01au.", "something that is not a dict"),
    "keys that are nested tuples": (
        b"\x80\x02})" + b"\x85" * 9_000 + b"Ns.",
        "not a short text",
    ),
    "keys that are numbers": (b"\x80\x02}K\x01Ns.", "not a short text"),
    "keys that are long": (
        b"\x80\x02}X\xe8\x03\0\0" + b"x" * 1000 + b"Ns.",
        "not a short text",
    ),
    "a key of a list": (b"\x80\x02]K\x01Ns.", "something that is not a dict"),
    "a memo index beyond 32 bits": (b"Np4611686018427387902\n.", "an invalid memo index"),
    "a state for a function": (b"\x80\x02cnumpy\ndtype\n}U\x01xNsb.", "an invalid array"),
    "2**62 bytes announced for a bytearray": (b"\x80\x05\x96" + struct.pack("<Q", 2**62) + b"abc.", "is truncated"),
    "an array of 2**32 elements": (
        calling(
            b"numpy.core.numeric",
            b"_frombuffer",
            b"(U\x01acnumpy\ndtype\nU\x02u1\x85R\x8a\x05\0\0\0\0\x01\x85X\x01\0\0\0Ct",
        ),
        "an invalid array",
    ),
    "items for a number": (b"\x80\x02K\x01(K\x01e.", "is damaged"),
    "nothing": (b"", "is truncated"),
    "text": (b"<html>", "instruction 0x3c"),
    "another protocol": (b"\x80\x09N.", "is damaged"),
}


@pytest.mark.parametrize("name", EVIL)
def test_any_other_instruction_or_global_is_refused(name: str) -> None:
    raw, message = EVIL[name]
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=message):
            unpickle(raw, "evil")
        assert tracemalloc.get_traced_memory()[1] < 3 * len(raw) + 2**19
    finally:
        tracemalloc.stop()


HARMLESS = {
    "a line of digits": (b"I" + b"9" * 200 + b"\n.", int("9" * 200)),
    "a long number": (b"\x80\x02\x8a\xff" + bytes(255) + b".", 0),
    "something left over": (b"\x80\x02NK\x01.", 1),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_unused_values_are_ignored(name: str) -> None:
    raw, value = HARMLESS[name]
    assert unpickle(raw, "harmless") == value


@pytest.mark.parametrize(
    ("called", "made"),
    [
        (b"cnumpy.core.numeric\n_frombuffer\n", b"h\x00(h\x02h\x01K\x01\x85X\x01\0\0\0CtR"),
        (
            b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
            b"h\x00(K\x01K\x01\x85h\x01\x89h\x02tb",
        ),
    ],
    ids=["made of bytes", "with bytes as its state"],
)
def test_many_arrays_of_the_same_bytes_are_not_copied(called: bytes, made: bytes) -> None:
    raw = (
        b"\x80\x02" + called + b"q\x00cnumpy\ndtype\nU\x06S64000K\x00K\x01\x87Rq\x01"
        b"T" + struct.pack("<I", 64_000) + bytes(64_000) + b"q\x02" + made * 100 + b"."
    )  # fmt: skip
    tracemalloc.start()
    try:
        assert unpickle(raw, "arrays") == Pickled((1,), False, bytes(64_000), "S64000")
        assert tracemalloc.get_traced_memory()[1] < 4 * len(raw)
    finally:
        tracemalloc.stop()


def test_an_arrays_shape_is_checked_against_its_bytes() -> None:
    out = Pickler2()
    out.array(np.zeros((2, 8), np.uint8))
    good = bytes(out.out) + b"."
    assert unpickle(good, "array") == Pickled((2, 8), False, bytes(16))
    with pytest.raises(DataError, match="16 bytes whose shape needs 2,040"):
        unpickle(good.replace(b"K\x02K\x08\x86", b"K\xffK\x08\x86"), "array")
    with pytest.raises(DataError, match="an invalid array"):
        unpickle(good.replace(b"K\x02K\x08\x86", b"J\xfe\xff\xff\xffJ\xf8\xff\xff\xff\x86"), "array")


def test_every_cut_and_every_changed_byte_is_read_or_refused_and_nothing_else() -> None:
    raw = batch(IMAGES[:1], {b"labels": [3]})
    head = len(raw) - 3072 - 60
    rng = np.random.default_rng(2)
    for place in [*range(0, 400), head, len(raw) - 1]:
        for changed in (raw[:place], raw[:place] + bytes([int(rng.integers(256))]) + raw[place + 1 :]):
            try:
                images, labels = decode_pickle(changed, "batch", "labels", 10)
            except DataError:
                continue
            assert (images.shape, labels.shape) == ((1, 3, 32, 32), (1,))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ([1], "a dict was expected"),
        ({"labels": [1]}, "it needs `data` and"),
        ({"data": IMAGES.reshape(30, 3072), "labels": LABELS[:-1]}, "29 labels and `data` of 30 x 3072"),
        ({"data": IMAGES.reshape(60, 1536), "labels": LABELS * 2}, "not n x 3072"),
        ({"data": IMAGES.reshape(30, 3072), "labels": ["a"] * 30}, "not numbers"),
        ({"data": IMAGES.reshape(30, 3072), "labels": [10] * 30}, "has label 10"),
        ({"data": IMAGES.reshape(30, 3072), "labels": [-1] * 30}, "not numbers"),
        ({"data": b"abc", "labels": [1]}, "it needs `data` and"),
    ],
)  # fmt: skip
def test_a_pickle_that_is_not_a_batch_is_refused(said: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        decode_pickle(pickle.dumps(said, 4), "batch", "labels", 10)
