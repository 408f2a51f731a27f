"""A group of runs: a directory with a folder for each model, or for each seed of one model.

group.json lists the folders. It is written last, so a directory that has one has all of its runs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from resnetcli.errors import UsageError
from resnetcli.files import write_json
from resnetcli.frozen import frozen
from resnetcli.runs.directory import read_record, structure_record
from resnetcli.runs.layout import EDITED, GROUP_FILE, is_folder_name
from resnetcli.structure import Bounds, Check

SCHEMA = "resnet-cli/group@2"
Kind = Literal["models", "seeds"]
MAX_RUNS = {"models": 100, "seeds": 1000}
_Name = Annotated[str, Check(is_folder_name, "the name of a folder")]


@frozen
class _Listing:
    kind: Kind
    runs: Annotated[tuple[_Name, ...], Bounds(1, max(MAX_RUNS.values()))]


@frozen
class Group:
    """Several runs in one directory. Each model of a group may itself be a group of seeds."""

    path: Path
    kind: Kind
    folders: tuple[Path, ...]
    """In the order of training."""


def write_group(path: Path, kind: Kind, names: Sequence[str]) -> None:
    """Make a directory a group of the runs in these folders. Raises OSError."""
    write_json(path / GROUP_FILE, {"schema": SCHEMA, "kind": kind, "runs": list(names)})


def read_group(path: Path) -> Group | None:
    """The group in a directory; None if it has no group.json. Raises UsageError if the file is invalid."""
    file = path / GROUP_FILE
    if not os.path.isfile(file):  # noqa: PTH113 - Path's raises if the name is too long
        return None
    listing = structure_record(_Listing, read_record(file, SCHEMA), file)
    if len(listing.runs) > MAX_RUNS[listing.kind] or len(set(listing.runs)) < len(listing.runs):
        raise UsageError(f"`{file}` is invalid: too many runs, or one of them twice", EDITED)
    return Group(path, listing.kind, tuple(path / name for name in listing.runs))


def models_of(path: Path) -> tuple[Path, ...]:
    """The folder of each model in a directory: those of a group of models, or the directory itself."""
    group = read_group(path)
    return group.folders if group is not None and group.kind == "models" else (path,)


def seeds_of(path: Path) -> Group | None:
    """The group of seeds in a directory; None if there is none. Raises UsageError for a group of models."""
    group = read_group(path)
    if group is not None and group.kind != "seeds":
        raise UsageError(f"`{path}` is a group of several models", "name one of them")
    return group
