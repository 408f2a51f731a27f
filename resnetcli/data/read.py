"""Load a dataset by its name: locate it in a folder or archive, download it if missing, read and verify it."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnetcli.data.archive import read_archive
from resnetcli.data.cifar import IMAGE, OFFICIAL, Layout, Official, Version
from resnetcli.data.custom import DESCRIPTION, is_custom, read_custom
from resnetcli.data.dataset import TITLES, Dataset, make_dataset
from resnetcli.data.errors import FETCH_HINT, DataError
from resnetcli.data.records import decode_binary, decode_pickle, join_parts
from resnetcli.data.synthetic import synthetic
from resnetcli.errors import UsageError, did_you_mean, nearest, plural, typed
from resnetcli.files import cache_dir, is_directory, is_file, read_bounded, require_directory_or_free
from resnetcli.frozen import frozen

if TYPE_CHECKING:
    from resnetcli.data.records import Part

MAX_FILE = 256 * 2**20
"""Maximum bytes of a file of a published dataset; the largest has 156 MB."""
VERSIONS: tuple[Version, ...] = ("binary", "python")


@frozen
class Location:
    """A version of a published dataset on disk: a folder with its files, or an archive."""

    official: Official
    version: Version
    path: Path
    packed: bool

    @property
    def layout(self) -> Layout:
        """Files of this version."""
        return self.official.layout(self.version)


def read_dataset(
    name: str = "cifar10",
    folder: Path | None = None,
    *,
    download: bool = True,
    log: Callable[[str], object] = lambda line: None,
) -> Dataset:
    """Load a dataset: `cifar10`, `cifar100`, `custom` or `synthetic`.

    A folder may be an extracted archive, contain one, contain archives, or be an archive; for `custom` it has a
    `dataset.json`. A missing dataset is downloaded into it; `log` receives a line first. Raises UsageError for an
    unknown or missing dataset, DataError for broken files, ResourceError if the download fails.
    """
    if name not in TITLES:
        hint = did_you_mean(name, TITLES, f"known: {', '.join(f'`{each}`' for each in TITLES)}")
        if os.path.isdir(name):  # noqa: PTH112 - Path's raises for a name too long to exist
            hint = f"a folder is given by `--data-dir`: `--data custom --data-dir {typed(name)}`"
        raise UsageError(f"unknown dataset `{name}`", hint)
    if name == "synthetic":
        if folder is not None:
            raise UsageError("synthetic data is not read from `--data-dir`", "omit `--data-dir`")
        return synthetic()
    if name == "custom":
        if folder is None:
            raise UsageError("a custom dataset needs `--data-dir`", f"the folder with its {DESCRIPTION}")
        if is_file(folder) and folder.name == DESCRIPTION:
            folder = folder.parent
        if is_file(folder) and folder.suffix == ".npz":
            raise UsageError(f"`{folder}` is not a folder", convert_hint(folder))
        require_directory_or_free(folder)
        if not is_directory(folder):
            raise UsageError(f"there is no folder `{folder}`", "`--data-dir` is the folder of the dataset")
        if not is_custom(folder):
            raise UsageError(
                f"`{folder}` has no {DESCRIPTION}", _hint_at(folder) or "`resnet-cli data convert` writes one"
            )
        return read_custom(folder)
    official = OFFICIAL[name]
    location = find_location(official, folder or default_folder())
    if location is None:
        location = _download(official, folder or default_folder(), download, log, is_cache=folder is None)
    return read_official(location)


def default_name(folder: Path | None) -> str:
    """The default dataset: `custom` if the folder has a `dataset.json`, else `cifar10`."""
    return "custom" if folder is not None and is_custom(folder) else "cifar10"


def default_folder() -> Path:
    """The default directory of datasets. Raises UsageError without a home directory."""
    return cache_dir("give a directory by `--data-dir`, or set XDG_CACHE_HOME to one") / "data"


def _download(
    official: Official, folder: Path, download: bool, log: Callable[[str], object], *, is_cache: bool
) -> Location:  # fmt: skip
    """Download the dataset into the folder. Raises UsageError if the folder holds something else."""
    from resnetcli.data.fetch import fetch

    if is_custom(folder):
        raise UsageError(f"`{folder}` is a custom dataset, not {official.title}", "`--data custom`")
    exists = os.path.exists(folder)  # noqa: PTH110 - Path's raises for a name too long to exist
    if not is_cache and not exists and (similar := _similar(folder)):
        create = f"`resnet-cli data fetch {official.name} --data-dir {typed(folder)}` creates it"
        raise UsageError(f"no such directory: `{folder}`", f"did you mean `{typed(similar)}`? {create}")
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
            f"`{folder}` contains {some}, not {official.title}: nothing is downloaded into it",
            _hint_at(folder) or f"{fetching}, or omit `--data-dir` to use the cache",
        )
    return Location(official, "binary", fetch(official.binary.archive, folder, log=log), packed=True)


def _similar(folder: Path) -> Path | None:
    """A directory beside it whose name may be the one that was misspelt: another number is another name."""
    with contextlib.suppress(OSError):
        siblings = [child.name for child in folder.absolute().parent.iterdir() if child.is_dir()]
        names = [name for name in siblings if _digits(name) == _digits(folder.name)]
        return next((folder.with_name(name) for name in nearest(folder.name, names)), None)
    return None


def _digits(name: str) -> str:
    return "".join(char for char in name if char.isdigit())


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
        if find_location(official, folder) is not None:
            return f"it contains {official.title}: `--data {official.name} --data-dir {typed(folder)}`"
    for child in filter(is_directory, inside):
        if is_custom(child):
            return f"`{child.name}` in it is a custom dataset: `--data custom --data-dir {typed(child)}`"
        for official in OFFICIAL.values():
            if find_location(official, child) is not None:
                taken = f"`--data {official.name} --data-dir {typed(child)}`"
                return f"`{child.name}` in it contains {official.title}: {taken}"
    for child in inside:
        if child.suffix == ".npz" and is_file(child):
            return convert_hint(child)
    return ""


def convert_hint(file: Path) -> str:
    """The commands that turn a NumPy file into a dataset."""
    return f"`resnet-cli data convert {typed(file)} NEW`, then `--data custom --data-dir NEW`"


def find_location(official: Official, path: Path) -> Location | None:
    """Find a dataset in a folder: extracted before packed, binary before Python version; None without one.

    Raises UsageError for a file that is not one of its archives.
    """
    if is_file(path):
        for version in VERSIONS:
            if path.name == official.layout(version).archive.name:
                return Location(official, version, path, packed=True)
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
    if is_custom(path):
        return None
    for version in VERSIONS:
        layout = official.layout(version)
        if (path.name == layout.folder and is_directory(path)) or any(is_file(path / name) for name in layout.files):
            return Location(official, version, path, packed=False)
    for version in VERSIONS:
        layout = official.layout(version)
        if is_directory(path / layout.folder):
            return Location(official, version, path / layout.folder, packed=False)
    for version in VERSIONS:
        layout = official.layout(version)
        if is_file(path / layout.archive.name):
            return Location(official, version, path / layout.archive.name, packed=True)
    return None


def read_official(location: Location) -> Dataset:
    """Read a published dataset. Raises DataError for any other files, such as those of another size."""
    official, layout = location.official, location.layout
    contents, archive_digest = _contents(location)
    parts = [_decode(location, name, contents[name]) for name in layout.files]
    for number, name in enumerate(layout.files):
        images, published = len(parts[number][1]), _published(official, layout, number)
        if images != published:
            raise DataError(
                f"`{_label(location, name)}` has {plural(images, 'image')}; in {official.title} it has {published:,}",
                f"for a custom dataset, `resnet-cli data convert` writes a {DESCRIPTION}",
            )
    *train, test = parts
    with ThreadPoolExecutor(1) as thread:  # both hash all bytes, which releases the GIL
        genuine = thread.submit(is_genuine, layout, {} if location.packed else contents)
        data = make_dataset(official.name, join_parts(train), join_parts([test]), official.class_names)
    verified = archive_digest == layout.archive.sha256 if location.packed else genuine.result()
    return replace(data, verified=verified)


def read_parts(location: Location) -> tuple[list[Part], Part]:
    """Training and test images of files in a published layout, of any size. Raises DataError."""
    contents, _ = _contents(location)
    *train, test = (_decode(location, name, contents[name]) for name in location.layout.files)
    return train, test


def _published(official: Official, layout: Layout, number: int) -> int:
    """Images of the file with that number; the last is the test file."""
    return official.test if number == len(layout.train) else official.train // len(layout.train)


def _label(location: Location, name: str) -> str:
    return f"{location.path}: {name}" if location.packed else str(location.path / name)


def _contents(location: Location) -> tuple[Mapping[str, bytes], str]:
    """The bytes of each file with images, and the digest of their archive, if there is one."""
    layout, path = location.layout, location.path
    if not location.packed:
        return {name: read_bounded(path / name, MAX_FILE, FETCH_HINT, error=DataError) for name in layout.files}, ""
    members = {f"{layout.folder}/{name}": name for name in layout.files}
    contents, digest = read_archive(path, members, MAX_FILE)
    return {members[member]: raw for member, raw in contents.items()}, digest


def _decode(location: Location, name: str, raw: bytes) -> Part:
    layout, classes, label = location.layout, len(location.official.class_names), _label(location, name)
    if location.version == "binary":
        return decode_binary(raw, label, IMAGE, classes, label_bytes=layout.label_bytes)
    return decode_pickle(raw, label, layout.labels, classes)


def is_genuine(layout: Layout, contents: Mapping[str, bytes]) -> bool:
    """Whether the files equal the published ones byte for byte; False if no digests are published."""
    if not contents:
        return False
    if layout.md5:
        digests = [hashlib.md5(contents[name], usedforsecurity=False).hexdigest() for name in layout.files]
        return tuple(digests) == layout.md5
    if not layout.sha256:
        return False
    train = hashlib.sha256()
    for name in layout.train:
        train.update(contents[name])
    return (train.hexdigest(), hashlib.sha256(contents[layout.test]).hexdigest()) == layout.sha256
