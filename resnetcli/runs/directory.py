"""The run directory: the configuration a run was started with, and its result. No torch is needed.

`runs.layout` lists the files.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, TypeVar

from resnetcli.errors import UsageError
from resnetcli.files import load_json, write_atomic, write_json
from resnetcli.frozen import frozen
from resnetcli.runs.config import Config, PublishedError
from resnetcli.runs.layout import CONFIG_FILE, EDITED, MODEL_FILE, RECIPE_FILE, RESULT_FILE, SPEC_FILE
from resnetcli.runs.lock import lock_directory, require_begun, writing
from resnetcli.structure import Check, Count, StructureError, structure

SCHEMA, RESULT = "resnet-cli/run@2", "resnet-cli/train@2"
MAX_JSON = 2**20
"""Bytes of a configuration or a result; a typical one has 5 KB."""
Record = dict[str, Any]
T = TypeVar("T")


@frozen
class Run:
    """One run's directory."""

    path: Path
    config: Config

    @property
    def result(self) -> Record | None:
        """The final result; None if the run is not complete. Raises UsageError if the file is invalid."""
        path = self.path / RESULT_FILE
        if not path.exists():
            return None
        record = read_record(path, RESULT)
        structure_record(_Result, record, path)
        return record

    def finish(self, record: Mapping[str, Any]) -> None:
        """Write the final result, which marks the run as complete. Raises OSError."""
        write_json(self.path / RESULT_FILE, record)


def create(path: Path, config: Config, *, spec: str, model: str, recipe: str) -> Run:
    """Create a new run's directory with everything known before the first step.

    Raises UsageError if the path is not free, ResourceError if it cannot be written.
    """
    with lock_directory(path, new=True):
        return write_run(path, config, spec=spec, model=model, recipe=recipe)


def write_run(path: Path, config: Config, *, spec: str, model: str, recipe: str) -> Run:
    """Write a new run's files into its directory, which the caller has locked. Raises ResourceError."""
    with writing(path):
        for name, text in ((SPEC_FILE, spec), (MODEL_FILE, model), (RECIPE_FILE, recipe)):
            write_atomic(path / name, text.encode())
        # The configuration comes last: a directory that has one has all of the files.
        write_json(path / CONFIG_FILE, {"schema": SCHEMA, **asdict(config)})
    return Run(path, config)


def open_run(path: str | os.PathLike[str]) -> Run:
    """Read a run directory. Raises UsageError if it is not one, or its configuration is invalid."""
    folder = Path(path)
    hint = "a run is a directory written by `train-cifar`"
    if not os.path.isdir(folder):  # noqa: PTH112 - Path's raises if the name is too long
        raise UsageError(f"there is no directory `{path}`", hint)
    file = folder / CONFIG_FILE
    if not os.path.isfile(file):  # noqa: PTH113
        require_begun(folder)
        inside = next(
            (found for depth in ("*", "*/*") for found in sorted(folder.glob(f"{depth}/{CONFIG_FILE}"))), None
        )
        if inside is not None:
            hint = f"it contains runs, for example `{inside.parent}`"
        raise UsageError(f"`{path}` is not a run: it has no {CONFIG_FILE}", hint)
    return Run(folder, structure_record(Config, read_record(file, SCHEMA), file))


def read_record(path: Path, schema: str) -> Record:
    """Read a JSON object of that schema. Raises UsageError for any other content."""
    record = load_json(path, MAX_JSON)
    if not isinstance(record, dict) or record.get("schema") != schema:
        raise UsageError(f"`{path}` is not a `{schema}`", "another version wrote it, or it is another file")
    return record


def structure_record(cls: type[T], record: Record, path: Path) -> T:
    """Build `cls` from a record. Raises UsageError with everything that is wrong in the file."""
    try:
        return structure(cls, record)
    except StructureError as error:
        raise UsageError(f"`{path}` is invalid: {error}", EDITED) from None


def _is_number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= sys.float_info.max  # type: ignore[operator]  # NaN is not


Loss = Annotated[Any, Check(_is_number, "a number, at least 0")]
"""A diverging model's loss can be larger than any bound."""
MaybeLoss = Annotated[Any, Check(lambda value: value is None or _is_number(value), "a number, at least 0, or null")]


@frozen
class _Result:
    """The fields of `resnet-cli/train@2` that are displayed."""

    model: str
    parameters: Mapping[str, int]
    params: Count
    recipe: str
    seed: Count
    data: str
    iterations: Count
    batch_size: Count
    final_test_error_percent: Loss
    test_images: Count
    final_train_error_percent: Loss
    train_images: Count
    wall_s: Loss
    deviations: tuple[str, ...]
    published: tuple[PublishedError, ...]
    final_test_loss: MaybeLoss = None
    final_train_loss: MaybeLoss = None
    images_per_s: MaybeLoss = None
