"""A data set of one's own: CIFAR's binary records beside a `dataset.json` with size and classes of its images."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetcli.data.dataset import Dataset, Split, make_dataset
from resnetcli.data.errors import DataError
from resnetcli.data.records import binary_part, joined
from resnetcli.errors import did_you_mean
from resnetcli.files import is_file, read_bounded, require_regular

if TYPE_CHECKING:
    from resnetcli.data.records import Part

DESCRIPTION = "dataset.json"
SCHEMA = "resnet-cli/dataset@1"
MOST_DESCRIBED = 8 * 2**20
MOST_BYTES = 8 * 2**30
"""Of images: all of them are held in memory."""
MOST_CLASSES = 65_536
MOST_FILES = 1_000
MOST_SIDE = 1_024
KEYS = ("schema", "image", "classes", "class_names", "train", "test", "digest")


@dataclass(frozen=True, slots=True)
class Description:
    """What `dataset.json` says."""

    image: tuple[int, int, int]
    class_names: tuple[str, ...]
    train: tuple[str, ...]
    test: tuple[str, ...]
    digest: str | None = None

    @property
    def label_bytes(self) -> int:
        """In a record, before the image: two, the high byte first, where one does not do."""
        return 1 if len(self.class_names) <= 256 else 2

    @property
    def record(self) -> int:
        """Bytes."""
        return self.label_bytes + self.image[0] * self.image[1] * self.image[2]


def describes(folder: Path) -> bool:
    """Whether the folder is a data set of one's own."""
    return is_file(folder / DESCRIPTION)


def read_custom(folder: Path) -> Dataset:
    """The data set in the folder. Raises DataError, also where its digest is not the one written down."""
    found = read_description(folder / DESCRIPTION)
    files = [folder / name for name in (*found.train, *found.test)]
    total = sum(require_regular(path, error=DataError) for path in files)
    if total > MOST_BYTES:
        raise DataError(f"`{folder}` has {total:,} bytes of images, more than the {MOST_BYTES:,} that can be held")
    data = make_dataset("custom", _split(folder, found, "train"), _split(folder, found, "test"), found.class_names)
    if found.digest is not None and found.digest != data.digest:
        raise DataError(
            f"`{folder}` is not what its {DESCRIPTION} was written for: the digest of its images and labels is "
            f"{data.digest[:12]}..., not {found.digest[:12]}...",
            f"if they were changed on purpose, take `digest` out of {DESCRIPTION}",
        )
    return data


def _split(folder: Path, found: Description, which: str) -> Split:
    names = found.train if which == "train" else found.test
    parts: list[Part] = []
    for name in names:
        raw = read_bounded(folder / name, MOST_BYTES, error=DataError)
        parts.append(
            binary_part(
                raw, str(folder / name), found.image, len(found.class_names), label_bytes=found.label_bytes,
                wide=found.label_bytes == 2,
            )
        )  # fmt: skip
    split = joined(parts)
    if not len(split):
        raise DataError(f"`{folder}` has no images to {which} with")
    return split


def read_description(path: Path) -> Description:
    """What the file says, checked. Raises DataError."""
    raw = read_bounded(path, MOST_DESCRIBED, error=DataError)
    try:
        said = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # JSON's own and UTF-8's are ValueErrors
        raise DataError(f"`{path}` is no JSON: {error}") from None
    if not isinstance(said, dict):
        raise DataError(f"`{path}` is no JSON object")
    return _Described(path, said).description()


class _Described:
    """The parts of a description, each checked where it is taken."""

    def __init__(self, path: Path, said: dict[str, Any]) -> None:
        self.path, self.said = path, said

    def description(self) -> Description:
        for key in self.said:
            if key not in KEYS:
                raise self.wrong(f"has `{key}`, which means nothing", did_you_mean(key, KEYS))
        schema = self.said.get("schema", SCHEMA)
        if schema != SCHEMA:
            raise self.wrong(f"has the schema `{schema}`, not `{SCHEMA}`")
        digest = self.said.get("digest")
        if digest is not None and not (isinstance(digest, str) and re.fullmatch("[0-9a-f]{64}", digest)):
            raise self.wrong("has a `digest` that is no SHA-256 in 64 hexadecimal digits")
        return Description(self.image(), self.classes(), self.files("train"), self.files("test"), digest)

    def wrong(self, what: str, hint: str = "") -> DataError:
        return DataError(f"`{self.path}` {what}", hint)

    def image(self) -> tuple[int, int, int]:
        match self.said.get("image", [3, 32, 32]):
            case [3, int(height), int(width)] if all(
                type(side) is int and 1 <= side <= MOST_SIDE for side in (height, width)
            ):
                return 3, height, width
        raise self.wrong(f"has an `image` that is not [3, height, width], each side from 1 to {MOST_SIDE:,}")

    def classes(self) -> tuple[str, ...]:
        names, number = self.said.get("class_names"), self.said.get("classes")
        if number is None and isinstance(names, list):
            number = len(names)
        if type(number) is not int or not 2 <= number <= MOST_CLASSES:
            raise self.wrong(f"does not say how many `classes` there are, from 2 to {MOST_CLASSES:,}")
        if names is None:
            return tuple(f"class {place}" for place in range(number))
        if not isinstance(names, list) or not all(isinstance(name, str) and 0 < len(name) <= 100 for name in names):
            raise self.wrong("has `class_names` that are not a list of texts of 1 to 100 characters")
        if len(names) != number:
            raise self.wrong(f"has {len(names)} `class_names` and {number} `classes`")
        return tuple(names)

    def files(self, key: str) -> tuple[str, ...]:
        """Names of files beside the description, never paths that lead elsewhere."""
        names = self.said.get(key, f"{key}.bin")
        names = [names] if isinstance(names, str) else names
        if not isinstance(names, list) or not 0 < len(names) <= MOST_FILES:
            raise self.wrong(f"has `{key}` that is no list of files")
        for name in names:
            if not isinstance(name, str) or not re.fullmatch(r"[\w-][\w .-]{0,99}", name):
                raise self.wrong(f"has a file in `{key}` that is no plain name: `{name}`", "files lie beside it")
        if len(set(names)) < len(names):
            raise self.wrong(f"has a file in `{key}` twice")
        return tuple(names)
