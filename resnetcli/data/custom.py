"""A custom dataset: CIFAR's binary records beside a `dataset.json` with the size and classes of its images."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from resnetcli.data.dataset import Dataset, Split, make_dataset
from resnetcli.data.errors import DataError
from resnetcli.data.records import decode_binary, join_parts
from resnetcli.errors import did_you_mean
from resnetcli.files import is_file, read_bounded, require_regular
from resnetcli.frozen import frozen
from resnetcli.structure import Bounds, Check, StructureError, parse_json, structure

if TYPE_CHECKING:
    from resnetcli.data.records import Part

DESCRIPTION = "dataset.json"
SCHEMA = "resnet-cli/dataset@1"
MAX_DESCRIPTION = 8 * 2**20
MAX_BYTES = 8 * 2**30
"""Maximum bytes of images, which are all kept in memory."""
MAX_CLASSES = 65_536
MAX_NAME = 100
MAX_FILES = 1_000
MAX_SIDE = 1_024


def _distinct(names: tuple[str, ...]) -> bool:
    return len(set(names)) == len(names)


Side = Annotated[int, Bounds(1, MAX_SIDE)]
Text = Annotated[str, Bounds(1, MAX_NAME)]
FileName = Annotated[str, Check(re.compile(r"[\w-][\w .-]{0,99}").fullmatch, "the name of a file beside it")]
Files = FileName | Annotated[tuple[FileName, ...], Bounds(1, MAX_FILES), Check(_distinct, "different files")]
Digest = Annotated[str, Check(re.compile("[0-9a-f]{64}").fullmatch, "a SHA-256 in 64 hexadecimal digits")]


@frozen
class Description:
    """The content of `dataset.json`, as the annotations say."""

    schema: Literal["resnet-cli/dataset@1"] = "resnet-cli/dataset@1"
    image: tuple[Literal[3], Side, Side] = (3, 32, 32)
    classes: Annotated[int, Bounds(2, MAX_CLASSES)] | None = None
    """May be missing if there are `class_names`."""
    class_names: Annotated[tuple[Text, ...], Bounds(2, MAX_CLASSES)] | None = None
    train: Files = "train.bin"
    test: Files = "test.bin"
    digest: Digest | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, or numbers."""
        return self.class_names or tuple(f"class {number}" for number in range(self.classes or 0))

    @property
    def label_bytes(self) -> int:
        """Bytes of a record before the image: one, or two with the high byte first."""
        return 1 if len(self.names) <= 256 else 2


def is_custom(folder: Path) -> bool:
    """Whether the folder has a `dataset.json`."""
    return is_file(folder / DESCRIPTION)


def read_custom(folder: Path) -> Dataset:
    """Read the dataset in a folder. Raises DataError, also if its digest is not the described one."""
    description = read_description(folder / DESCRIPTION)
    train, test = ([folder / name for name in _files(each)] for each in (description.train, description.test))
    if (total := sum(require_regular(path, error=DataError) for path in (*train, *test))) > MAX_BYTES:
        raise DataError(f"`{folder}` has {total:,} bytes of images, more than the allowed {MAX_BYTES:,}")
    splits = _split(folder, train, description, "training"), _split(folder, test, description, "test")
    data = make_dataset("custom", *splits, description.names)
    if description.digest not in (None, data.digest):
        raise DataError(
            f"`{folder}` does not match its {DESCRIPTION}: the digest of its images and labels is "
            f"{data.digest[:12]}..., not {str(description.digest)[:12]}...",
            f"if they were changed on purpose, remove `digest` from {DESCRIPTION}",
        )
    return data


def _files(names: str | tuple[str, ...]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else names


def _split(folder: Path, files: list[Path], description: Description, kind: str) -> Split:
    parts: list[Part] = [
        decode_binary(
            read_bounded(path, MAX_BYTES, error=DataError), str(path), description.image, len(description.names),
            label_bytes=description.label_bytes, wide=description.label_bytes == 2,
        )
        for path in files
    ]  # fmt: skip
    split = join_parts(parts)
    if not len(split):
        raise DataError(f"`{folder}` has no {kind} images")
    return split


def read_description(path: Path) -> Description:
    """Read and check a `dataset.json`. Raises DataError."""
    raw = read_bounded(path, MAX_DESCRIPTION, error=DataError)
    try:
        value = parse_json(raw)
    except ValueError as error:  # JSON's own and UTF-8's, too
        raise DataError(f"`{path}` is not JSON: {error}") from None
    if isinstance(value, dict):
        keys = [field.name for field in fields(Description)]
        for key in value.keys() - set(keys):
            raise DataError(f"`{path}` has an unknown key `{key[:80]}`", did_you_mean(key, keys))
    try:
        description = structure(Description, value)
    except StructureError as error:
        raise DataError(f"`{path}`: {error.problems[0]}") from None
    if not description.names:
        raise DataError(f"`{path}`: `classes` is missing, the number of classes")
    if description.classes not in (None, len(description.names)):
        raise DataError(f"`{path}` has {len(description.names)} `class_names` and {description.classes} `classes`")
    return description
