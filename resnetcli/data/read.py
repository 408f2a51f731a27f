"""A data set by its name: found in a folder or an archive, fetched if it is not there, read and held to its digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.data.archive import read_archive
from resnetcli.data.cifar import IMAGE, OFFICIAL, Layout, Official, Version
from resnetcli.data.custom import DESCRIPTION, describes, read_custom
from resnetcli.data.dataset import TITLES, Dataset, make_dataset
from resnetcli.data.errors import FETCH_HINT, DataError
from resnetcli.data.records import binary_part, joined, python_part
from resnetcli.data.synthetic import synthetic
from resnetcli.errors import UsageError, did_you_mean, plural, typed
from resnetcli.files import cache_dir, is_directory, is_file, read_bounded, require_directory_or_free

if TYPE_CHECKING:
    from resnetcli.data.records import Part

MOST_FILE = 256 * 2**20
"""Bytes one file of a published set may have; the largest official one has 156 MB."""
VERSIONS: tuple[Version, ...] = ("binary", "python")


@dataclass(frozen=True, slots=True)
class Place:
    """Where a version of a published set lies: a folder with its files, or an archive."""

    official: Official
    version: Version
    path: Path
    packed: bool

    @property
    def layout(self) -> Layout:
        """What its files are called."""
        return self.official.layout(self.version)


def load(
    name: str = "cifar10",
    folder: Path | None = None,
    *,
    download: bool = True,
    log: Callable[[str], object] = lambda line: None,
) -> Dataset:
    """The data set: `cifar10`, `cifar100`, `custom` or `synthetic`.

    A folder may be an extracted archive, hold one or archives as they are published, or be such an archive itself; for
    `custom` it is the one with `dataset.json`. A missing dataset is downloaded into it; `log` receives a line first.
    Raises UsageError for what there is not, DataError for files that are broken, ResourceError if fetching fails.
    """
    if name not in TITLES:
        hint = did_you_mean(name, TITLES, f"there are {', '.join(f'`{each}`' for each in TITLES)}")
        if os.path.isdir(name):  # noqa: PTH112 - Path's raises for a name too long to exist
            hint = f"a folder is named by `--data-dir`: `--data custom --data-dir {typed(name)}`"
        raise UsageError(f"there is no data set `{name}`", hint)
    if name == "synthetic":
        return synthetic()
    if name == "custom":
        if folder is None:
            raise UsageError("a custom data set needs its folder", f"`--data-dir`, where its {DESCRIPTION} is")
        if is_file(folder) and folder.name == DESCRIPTION:
            folder = folder.parent
        if is_file(folder) and folder.suffix == ".npz":
            raise UsageError(f"`{folder}` is not a folder", convert_hint(folder))
        require_directory_or_free(folder)
        if not is_directory(folder):
            raise UsageError(f"there is no folder `{folder}`", "`--data-dir` says where the data set lies")
        if not describes(folder):
            raise UsageError(
                f"`{folder}` has no {DESCRIPTION}", _hint_at(folder) or "`resnet-cli data convert` writes one"
            )
        return read_custom(folder)
    official = OFFICIAL[name]
    place = find(official, folder or default_folder())
    if place is None:
        place = _fetched(official, folder or default_folder(), download, log, is_cache=folder is None)
    return read_official(place)


def default_name(folder: Path | None) -> str:
    """The default dataset: `custom` if the folder has a `dataset.json`, else `cifar10`."""
    return "custom" if folder is not None and describes(folder) else "cifar10"


def default_folder() -> Path:
    """Where data sets are kept unless another place is given. Raises UsageError where there is no home."""
    return cache_dir("give a directory by `--data-dir`, or set XDG_CACHE_HOME to one") / "data"


def _fetched(
    official: Official, folder: Path, download: bool, log: Callable[[str], object], *, is_cache: bool
) -> Place:  # fmt: skip
    """Download the dataset into the folder. Raises UsageError if the folder holds something else."""
    from resnetcli.data.fetch import fetch

    if describes(folder):
        raise UsageError(f"`{folder}` is a custom data set, not {official.title}", "`--data custom`")
    others = [] if is_cache else _others(official, folder)
    fetching = f"download it there with `resnet-cli data fetch {official.name} --data-dir {typed(folder)}`"
    if not download:
        name = official.binary.archive.name
        last = fetching if others else "omit `--no-download`"
        raise UsageError(
            f"{official.title} is not in `{folder}`, and nothing is to be downloaded",
            (others and _hint_at(folder)) or f"put {name} there, give its folder with `--data-dir`, or {last}",
        )
    if others:
        some = ", ".join(f"`{name}`" for name in others[:3]) + (" and more" if len(others) > 3 else "")
        raise UsageError(
            f"`{folder}` does not hold {official.title} but {some}: nothing is downloaded into it",
            _hint_at(folder) or f"{fetching}, or omit `--data-dir` to use the cache",
        )
    return Place(official, "binary", fetch(official.binary.archive, folder, log=log), packed=True)


def _others(official: Official, folder: Path) -> list[str]:
    """Names in a folder other than the dataset's unfinished download; hidden files are ignored."""
    begun = {f"{official.layout(version).archive.name}.part" for version in VERSIONS}
    try:
        names = sorted(child.name for child in folder.iterdir())
    except OSError:  # there is none yet
        return []
    return [name for name in names if not name.startswith(".") and name not in (*begun, "lost+found")]


def _hint_at(folder: Path) -> str:
    """The options for the dataset in a folder or a subfolder; empty if there is none."""
    try:
        inside = sorted(folder.iterdir())
    except OSError:
        return ""
    for official in OFFICIAL.values():
        if find(official, folder) is not None:
            return f"it holds {official.title}: `--data {official.name} --data-dir {typed(folder)}`"
    for child in filter(is_directory, inside):
        if describes(child):
            return f"`{child.name}` in it is a custom data set: `--data custom --data-dir {typed(child)}`"
        for official in OFFICIAL.values():
            if find(official, child) is not None:
                taken = f"`--data {official.name} --data-dir {typed(child)}`"
                return f"`{child.name}` in it holds {official.title}: {taken}"
    for child in inside:
        if child.suffix == ".npz" and is_file(child):
            return convert_hint(child)
    return ""


def convert_hint(file: Path) -> str:
    """The commands that turn a NumPy file into a dataset."""
    return f"`resnet-cli data convert {typed(file)} NEW`, then `--data custom --data-dir NEW`"


def find(official: Official, path: Path) -> Place | None:
    """Where in the folder the set lies: extracted before packed, binary before Python; None if it does not.

    Raises UsageError for a file that is none of its archives.
    """
    if is_file(path):
        for version in VERSIONS:
            if path.name == official.layout(version).archive.name:
                return Place(official, version, path, packed=True)
        names = " or ".join(f"`{official.layout(version).archive.name}`" for version in VERSIONS)
        hint = f"its archives are named {names}"
        other = next(
            (each for each in OFFICIAL.values() if path.name in (each.binary.archive.name, each.python.archive.name)),
            None,
        )
        if other is not None:
            hint = f"it is an archive of {other.title}: `--data {other.name} --data-dir {typed(path)}`"
        elif path.suffix == ".npz":
            hint = convert_hint(path)
        elif path.name == DESCRIPTION:
            hint = f"give the dataset's folder: `--data custom --data-dir {typed(path.parent)}`"
        raise UsageError(f"`{path}` is not an archive of {official.title}", hint)
    require_directory_or_free(path)
    if describes(path):
        return None
    for version in VERSIONS:
        layout = official.layout(version)
        if (path.name == layout.folder and is_directory(path)) or any(is_file(path / name) for name in layout.files):
            return Place(official, version, path, packed=False)
    for version in VERSIONS:
        layout = official.layout(version)
        if is_directory(path / layout.folder):
            return Place(official, version, path / layout.folder, packed=False)
    for version in VERSIONS:
        layout = official.layout(version)
        if is_file(path / layout.archive.name):
            return Place(official, version, path / layout.archive.name, packed=True)
    return None


def read_official(place: Place) -> Dataset:
    """The published set at a place, with as many images as it has. Raises DataError for anything else."""
    official, layout = place.official, place.layout
    contents, archive_digest = _contents(place)
    parts = [_part(place, name, contents[name]) for name in layout.files]
    for number, name in enumerate(layout.files):
        there, published = len(parts[number][1]), _published(official, layout, number)
        if there != published:
            raise DataError(
                f"`{_label(place, name)}` has {plural(there, 'image')}; in {official.title} it has {published:,}",
                f"describe a set of your own in {DESCRIPTION}, or have `resnet-cli data convert` do it",
            )
    *train, test = parts
    with ThreadPoolExecutor(1) as beside:  # both hash all of it, and neither holds the interpreter meanwhile
        is_genuine = beside.submit(genuine, layout, {} if place.packed else contents)
        data = make_dataset(official.name, joined(train), joined([test]), official.class_names)
    verified = archive_digest == layout.archive.sha256 if place.packed else is_genuine.result()
    return replace(data, verified=verified)


def read_parts(place: Place) -> tuple[list[Part], Part]:
    """Training and test images of files in a published layout, however many there are. Raises DataError."""
    contents, _ = _contents(place)
    *train, test = (_part(place, name, contents[name]) for name in place.layout.files)
    return train, test


def _published(official: Official, layout: Layout, number: int) -> int:
    """Images of the file of that number, the test's last."""
    return official.test if number == len(layout.train) else official.train // len(layout.train)


def _label(place: Place, name: str) -> str:
    return f"{place.path}: {name}" if place.packed else str(place.path / name)


def _contents(place: Place) -> tuple[Mapping[str, bytes], str]:
    """The bytes of each file with images, and the digest of the archive they came in, if in one."""
    layout = place.layout
    if not place.packed:
        return {name: _read_file(place.path / name) for name in layout.files}, ""
    members = {f"{layout.folder}/{name}": name for name in layout.files}
    found, digest = read_archive(place.path, members, MOST_FILE)
    return {members[member]: raw for member, raw in found.items()}, digest


def _read_file(path: Path) -> bytes:
    return read_bounded(path, MOST_FILE, FETCH_HINT, error=DataError)


def _part(place: Place, name: str, raw: bytes) -> Part:
    layout, classes = place.layout, len(place.official.class_names)
    if place.version == "binary":
        return binary_part(raw, _label(place, name), IMAGE, classes, label_bytes=layout.label_bytes)
    return python_part(raw, _label(place, name), layout.labels, classes)


def genuine(layout: Layout, contents: Mapping[str, bytes]) -> bool:
    """Whether the files are the published ones byte for byte; False where nothing is published to tell by."""
    if not contents:
        return False
    if layout.md5:
        found = [hashlib.md5(contents[name], usedforsecurity=False).hexdigest() for name in layout.files]
        return tuple(found) == layout.md5
    if not layout.sha256:
        return False
    train = hashlib.sha256()
    for name in layout.train:
        train.update(contents[name])
    return (train.hexdigest(), hashlib.sha256(contents[layout.test]).hexdigest()) == layout.sha256
