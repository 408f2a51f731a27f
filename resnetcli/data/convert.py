"""Convert a dataset to binary records in a new folder, atomically."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from resnetcli.data.arrays import read_arrays
from resnetcli.data.cifar import OFFICIAL
from resnetcli.data.custom import DESCRIPTION, is_custom, read_custom
from resnetcli.data.dataset import Dataset
from resnetcli.data.read import Location, find_location, read_official, read_parts
from resnetcli.data.records import join_parts
from resnetcli.data.write import write_custom, write_official
from resnetcli.errors import ResourceError, UsageError, typed
from resnetcli.files import is_directory, is_file, require_exists


def convert(
    source: Path, target: Path, *, share: float = 0.2, log: Callable[[str], object] = lambda line: None
) -> Dataset:
    """Write a dataset as binary records, and return it as read back from them.

    The source is the Python version of CIFAR-10 or -100 (a folder or an archive), a folder with CIFAR's files of
    another size, or a .npz file of images and labels; without test images, `share` of them become the test set.
    `log` receives a line about unused arrays.
    Raises UsageError, DataError for a broken source, ResourceError if the disk is full.
    """
    if is_directory(target) and any(target.iterdir()):
        raise UsageError(f"`{target}` is not empty", "give the name of a new directory")
    if is_file(target) or target.is_symlink():
        raise UsageError(f"`{target}` is not a directory", "give the name of a new directory")
    if not 0 < share < 1:
        raise UsageError(f"--test must be between 0 and 1, not {share:g}", "for example 0.2")
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
        read_custom(target)
        if official is None
        else read_official(Location(OFFICIAL[official], "binary", target, False))
    )


def _writer(source: Path, share: float, log: Callable[[str], object]) -> tuple[str | None, Callable[[Path], None]]:
    """The name of the published dataset the result is, if it is one, and the function that writes it."""
    require_exists(source)
    if is_file(source) and source.suffix == ".npz":
        train, test, names = read_arrays(source, share=share, log=log)
        return None, lambda folder: write_custom(folder, train, test, names)
    location = locate_dataset(source)
    official = location.official
    parts, last = read_parts(location)
    train, test = join_parts(parts), join_parts([last])
    if not len(train) or not len(test):
        raise UsageError(f"`{source}` has no training images or no test images", "both are required")
    if (len(train), len(test)) != (official.train, official.test):
        return None, lambda folder: write_custom(folder, train, test, official.class_names)
    if location.version == "binary":
        raise UsageError(
            f"`{source}` is already the binary version of {official.title}",
            f"train on it directly: `--data {official.name} --data-dir {typed(source)}`",
        )
    coarse = None
    if official.name == "cifar100":
        layout = replace(location.layout, labels="coarse_labels")
        coarse_parts, coarse_test = read_parts(replace(location, official=replace(official, python=layout)))
        coarse = join_parts(coarse_parts).labels, coarse_test[1]
    return official.name, lambda folder: write_official(folder, official, train, test, coarse)


def locate_dataset(source: Path) -> Location:
    """Find the published dataset in a directory or archive. Raises UsageError unless there is exactly one."""
    if is_custom(source):
        raise UsageError(
            f"`{source}` is already a dataset of binary records with a {DESCRIPTION}",
            f"train on it directly: `--data custom --data-dir {typed(source)}`",
        )
    locations = find_published(source)
    if not locations:
        raise UsageError(
            f"`{source}` is not a supported dataset", "the Python version of CIFAR-10 or CIFAR-100, or a .npz file"
        )
    if len(locations) > 1:
        raise UsageError(f"`{source}` contains CIFAR-10 and CIFAR-100", "give the folder or archive of one")
    return locations[0]


def find_published(path: Path) -> list[Location]:
    """CIFAR-10 and CIFAR-100 in a directory or archive."""
    published = list(OFFICIAL.values())
    if is_file(path):
        published = [each for each in published if path.name in (each.binary.archive.name, each.python.archive.name)]
    return [location for each in published if (location := find_location(each, path))]
