"""Other forms of a data set -> binary records in a new folder, all or nothing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from resnetcli.data.arrays import read_arrays
from resnetcli.data.cifar import OFFICIAL
from resnetcli.data.custom import DESCRIPTION, describes, read_custom
from resnetcli.data.dataset import Dataset
from resnetcli.data.read import Place, find, read_official, read_parts
from resnetcli.data.records import joined
from resnetcli.data.write import write_custom, write_official
from resnetcli.errors import ResourceError, UsageError, typed
from resnetcli.files import is_directory, is_file, require_exists


def convert(
    source: Path, target: Path, *, share: float = 0.2, log: Callable[[str], object] = lambda line: None
) -> Dataset:
    """Writes the records and returns the data set as it is read back from them.

    The source is CIFAR-10 or -100 in the Python version (a folder or an archive), a folder with CIFAR's files of
    another size, or a .npz file of images and labels; without test images, `share` of them become the test set, and
    `log` receives a line about unused arrays.
    Raises UsageError, DataError for a broken source, ResourceError if the disk is full.
    """
    if is_directory(target) and any(target.iterdir()):
        raise UsageError(f"`{target}` is not empty", "give the name of a new directory")
    if is_file(target) or target.is_symlink():
        raise UsageError(f"`{target}` is not a directory", "give the name of a new directory")
    if not 0 < share < 1:
        raise UsageError(f"{share:g} is no share of the images", "between 0 and 1, for example 0.2")
    official, write = _writer(source, share, log)
    draft = target.absolute().with_name(f".{target.absolute().name}.{os.getpid()}")
    try:
        draft.mkdir(parents=True)
        try:
            write(draft)
            if is_directory(target):
                target.rmdir()
            draft.replace(target)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise ResourceError(f"cannot write `{target}`: {error.strerror or error}") from None
    return (
        read_custom(target) if official is None else read_official(Place(OFFICIAL[official], "binary", target, False))
    )


def _writer(source: Path, share: float, log: Callable[[str], object]) -> tuple[str | None, Callable[[Path], None]]:
    """Which published set it is to be, if one, and what writes it."""
    require_exists(source)
    if is_file(source) and source.suffix == ".npz":
        train, test, names = read_arrays(source, share=share, log=log)
        return None, lambda folder: write_custom(folder, train, test, names)
    place = whereabouts(source)
    official = place.official
    parts, last = read_parts(place)
    train, test = joined(parts), joined([last])
    if not len(train) or not len(test):
        raise UsageError(f"`{source}` has no images to train or none to test with")
    if (len(train), len(test)) != (official.train, official.test):
        return None, lambda folder: write_custom(folder, train, test, official.class_names)
    if place.version == "binary":
        raise UsageError(
            f"`{source}` is already the binary version of {official.title}",
            f"train on it directly: `--data {official.name} --data-dir {typed(source)}`",
        )
    coarse = None
    if official.name == "cifar100":
        layout = replace(place.layout, labels="coarse_labels")
        again, test_again = read_parts(replace(place, official=replace(official, python=layout)))
        coarse = joined(again).labels, test_again[1]
    return official.name, lambda folder: write_official(folder, official, train, test, coarse)


def whereabouts(source: Path) -> Place:
    """The one published set at that place. Raises UsageError if there is none, or more than one."""
    if describes(source):
        raise UsageError(
            f"`{source}` is already a dataset of binary records with a {DESCRIPTION}",
            f"train on it directly: `--data custom --data-dir {typed(source)}`",
        )
    places = published_at(source)
    if not places:
        raise UsageError(f"`{source}` is no data set", "the Python version of CIFAR-10 or CIFAR-100, or a .npz file")
    if len(places) > 1:
        raise UsageError(f"`{source}` has both CIFAR-10 and CIFAR-100 in it", "name the folder or archive of one")
    return places[0]


def published_at(path: Path) -> list[Place]:
    """CIFAR-10, CIFAR-100 or both, as they lie there."""
    if is_file(path):
        by_name = [
            each for each in OFFICIAL.values() if path.name in (each.binary.archive.name, each.python.archive.name)
        ]
        return [place for each in by_name if (place := find(each, path))]
    return [place for each in OFFICIAL.values() if (place := find(each, path))]
