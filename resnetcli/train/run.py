"""The run directory: what a training was asked to do, what it has done so far, and how it ended. No torch is needed.

config.json   what is trained on what and how, everything resolved
spec.yaml     the net's spec as its author wrote it
model.yaml    the same net written out: a spec by itself, which makes the directory a model
recipe.yaml   the recipe as its author wrote it
metrics.jsonl one line for each reading; metrics.csv is the same
checkpoint-00032000.safetensors   the last two
result.json   how it ended; only a finished run has one
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from resnetcli.errors import ResourceError, UsageError
from resnetcli.jsonfile import load_json

SCHEMA, RESULT, SUMMARY = "resnet-cli/run@1", "resnet-cli/train@1", "resnet-cli/seeds@1"
CONFIG_FILE, RESULT_FILE, SUMMARY_FILE, SEEDS_FILE = "config.json", "result.json", "summary.json", "seeds.json"
SPEC_FILE, MODEL_FILE, RECIPE_FILE = "spec.yaml", "model.yaml", "recipe.yaml"
METRICS_FILE, TABLE_FILE, LOCK_FILE = "metrics.jsonl", "metrics.csv", ".lock"
MAX_JSON = 2**20
"""Bytes of a configuration or a result, which takes some 5 KB."""
MAX_METRICS = 64 * 2**20
MAX_LINE = 2**12
MAX_ITERATIONS = 10**9
LARGEST = sys.float_info.max
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Printed:
    """A test error that a paper prints for the net."""

    figure: str
    """`top1_error`, or `top1_error_mean5`."""
    printed: str
    dataset: str
    protocol: str
    """`test-best5`: what the figure is of."""
    source: str


@dataclass(frozen=True, slots=True)
class Config:
    """All that a run depends on. A resume is held to what `BOUND` names; the rest says how and where."""

    model: str
    """As it was asked for: a name in the zoo, or a path."""
    parameters: Mapping[str, int]
    title: str
    input: tuple[int, ...]
    classes: int
    params: int
    spec: str
    """SHA-256 of the net written out."""
    recipe: Mapping[str, Any]
    """Every value of the recipe as it is used."""
    data: str
    data_text: str
    """`CIFAR-10 (verified)`."""
    data_digest: str
    data_folder: str | None
    train_images: int
    """That are trained on."""
    validation_images: int
    """That are kept from training."""
    test_images: int
    iterations: int
    batch_size: int
    seed: int
    dtype: str
    channels_last: bool
    compile: bool
    cuda_graph: bool
    device: str
    device_name: str
    threads: int
    checkpoint_every: int
    eval_every: int
    deviations: tuple[str, ...]
    """From the paper, a sentence each."""
    printed: tuple[Printed, ...]
    versions: Mapping[str, str]
    processes: int = 1
    """That train together, each on its share of every batch, with as many threads or a GPU each."""

    @property
    def bound(self) -> dict[str, Any]:
        """What the weights follow from, flat: `recipe.momentum`, `seed`; two runs that agree on it are one run."""
        whole = asdict(self)
        return dict(_flat({name: whole[name] for name in BOUND}))


BOUND = (
    "spec", "recipe", "data_digest", "iterations", "batch_size", "seed", "dtype", "channels_last", "compile",
    "cuda_graph",
)  # fmt: skip


def _flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from _flat(item, f"{before}{name}.")
        else:
            yield before + name, list(item) if isinstance(item, tuple) else item


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What two configurations do not agree on, a line each: `seed: 0, now 1`."""
    names = dict.fromkeys([*then, *now])
    return [f"{name}: {_said(then, name)}, now {_said(now, name)}" for name in names if then.get(name) != now.get(name)]


def _said(values: Mapping[str, Any], name: str) -> str:
    text = json.dumps(values[name], ensure_ascii=False) if name in values else "nothing"
    return text.strip('"')[:60]


# --- the directory -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Run:
    """One run's directory."""

    path: Path
    config: Config

    @property
    def result(self) -> Record | None:
        """How it ended; None while it has not. Raises UsageError for a file that says something else."""
        path = self.path / RESULT_FILE
        return _result(read_record(path, RESULT), path) if path.exists() else None

    def finish(self, record: Mapping[str, Any]) -> None:
        """Writes how it ended. Raises OSError if it cannot."""
        write_json(self.path / RESULT_FILE, record)


def create(path: Path, config: Config, *, spec: str, model: str, recipe: str) -> Run:
    """A new run's directory with all that is known before the first step.

    Raises UsageError if there is something of that name, ResourceError if it cannot be written.
    """
    require_new(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, text in ((SPEC_FILE, spec), (MODEL_FILE, model), (RECIPE_FILE, recipe)):
            write_whole(path / name, text.encode())
        # The last one: where there is a configuration, all of the rest is there.
        write_json(path / CONFIG_FILE, {"schema": SCHEMA, **asdict(config)})
    except OSError as error:
        raise ResourceError(f"`{path}` cannot be written: {error.strerror or error}", "`--out` names another") from None
    return Run(path, config)


def require_new(path: Path) -> None:
    """Raises UsageError unless the path is free, or an empty directory: nothing that is there is ever written over."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() and not any(path.iterdir()):
            return
    except (OSError, ValueError):  # too long a name, one with a null in it, a directory nobody may look into
        raise UsageError(f"`{path}` is no name for a directory here", "`--out` names another") from None
    if (path / CONFIG_FILE).exists():
        raise UsageError(f"`{path}` is a run already", f"`--resume {path}` goes on with it; `--out` names another")
    raise UsageError(f"`{path}` is there already, and not empty", "`--out` names another directory")


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run from its directory. Raises UsageError if it is none, or its configuration is not whole."""
    place = Path(path)
    hint = "a run is a directory that `train-cifar` made"
    if not os.path.isdir(place):  # noqa: PTH112 - Path's raises for a name too long to exist
        raise UsageError(f"there is no directory `{path}`", hint)
    if not os.path.isfile(place / CONFIG_FILE):  # noqa: PTH113
        raise UsageError(f"`{path}` is not a run: it has no {CONFIG_FILE}", hint)
    return Run(place, _config(read_record(place / CONFIG_FILE, SCHEMA), place / CONFIG_FILE))


def discard(path: Path) -> None:
    """Takes away a run's directory in which nothing has happened; one with a reading or a checkpoint stays."""
    if any(path.glob("checkpoint-*")) or read_metrics(path):
        return
    for name in (CONFIG_FILE, SPEC_FILE, MODEL_FILE, RECIPE_FILE, METRICS_FILE, TABLE_FILE, LOCK_FILE):
        (path / name).unlink(missing_ok=True)
        _draft(path / name).unlink(missing_ok=True)
    with suppress(OSError):  # something of somebody else's is in it
        path.rmdir()


@contextmanager
def only_one(run: Path) -> Iterator[None]:
    """Holds the directory for this process.

    Raises UsageError while another one trains there, ResourceError if it cannot be written. The system lets go of it
    however the process ends.
    """
    try:  # neither through a link nor into a pipe: a directory may come from anywhere
        handle = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        raise ResourceError(f"`{run / LOCK_FILE}` cannot be written: {error.strerror or error}") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another process is training in `{run}`", "wait for it, or `--out` elsewhere") from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(handle)


def read_record(path: Path, schema: str) -> Record:
    """A JSON object of that schema. Raises UsageError for whatever else a file may hold."""
    record = load_json(str(path), "", MAX_JSON)
    if not isinstance(record, dict) or record.get("schema") != schema:
        raise UsageError(f"`{path}` is no `{schema}`", "it was written by another version, or is another file")
    return record


def _read(path: Path, most: int) -> bytes:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # reading a pipe might never end
            raise UsageError(f"`{path}` is no regular file")
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UsageError(f"`{path}` cannot be read: {error.strerror or error}") from None
    if len(data) > most:
        raise UsageError(f"`{path}` is larger than {most // 2**20} MiB")
    return data


_NUMBERS = ("params", "seed", "iterations", "batch_size", "final_test_error_percent", "test_images",
            "final_train_error_percent", "train_images", "wall_s")  # fmt: skip
_PERHAPS = ("final_test_loss", "final_train_loss", "images_per_s")


def _result(record: Record, path: Path) -> Record:
    """The record of how a run ended, each value that is shown of its kind. Raises UsageError for any other."""

    def is_number(value: object) -> bool:
        return type(value) in (int, float) and 0 <= value <= LARGEST  # type: ignore[operator]

    good = {
        **{name: isinstance(record.get(name), str) for name in ("model", "recipe", "data")},
        **{name: is_number(record.get(name)) for name in _NUMBERS},
        **{name: record.get(name) is None or is_number(record[name]) for name in _PERHAPS},
        "parameters": _is_map(record.get("parameters"), int),
        "deviations": _is_list(record.get("deviations"), str),
        "printed": _is_list(record.get("printed"), dict) and all(map(_is_printed, record["printed"])),
    }
    for name, is_good in good.items():
        if not is_good:
            raise UsageError(f"`{path}` is not whole: `{name}` in it is missing or wrong")
    return record


def _is_map(value: object, kind: type[Any]) -> bool:
    return isinstance(value, dict) and all(isinstance(item, kind) for item in value.values())


def _is_list(value: object, kind: type[Any]) -> bool:
    return isinstance(value, list) and all(isinstance(item, kind) for item in value)


def _is_printed(entry: Record) -> bool:
    return entry.keys() == Printed.__dataclass_fields__.keys() and _is_map(entry, str)


_MAPS: Mapping[str, type[Any]] = {"parameters": int, "recipe": object, "versions": str}
_POSITIVE = ("classes", "params", "train_images", "test_images", "iterations", "batch_size", "threads",
             "checkpoint_every", "eval_every", "processes")  # fmt: skip


def _config(record: Record, path: Path) -> Config:
    """The configuration in a record, each value of its kind."""

    def need(name: str, good: bool) -> None:
        if not good:
            raise UsageError(f"`{path}` is not whole: `{name}` in it is missing or wrong")

    kinds: dict[str, type[Any] | tuple[type[Any], ...]] = {
        "str": str,
        "int": int,
        "bool": bool,
        "str | None": (str, type(None)),
    }
    values: Record = {}
    for each in fields(Config):
        name, value = each.name, record.get(each.name)
        kind = kinds.get(str(each.type))
        if kind is not None:
            need(name, name in record and isinstance(value, kind) and isinstance(value, bool) == (kind is bool))
        elif name in _MAPS:
            need(name, _is_map(value, _MAPS[name]))
        else:
            need(name, isinstance(value, list))
        values[name] = value
    for name in _POSITIVE:
        need(name, 1 <= values[name] <= MAX_ITERATIONS)
    need("input", len(values["input"]) == 3 and all(type(side) is int and side > 0 for side in values["input"]))
    need("recipe", isinstance(values["recipe"].get("name"), str))
    for name in ("seed", "validation_images"):
        need(name, values[name] >= 0)
    need("deviations", _is_list(values["deviations"], str))
    printed = values["printed"]
    need("printed", _is_list(printed, dict) and all(map(_is_printed, printed)))
    values |= {"input": tuple(values["input"]), "deviations": tuple(values["deviations"])}
    return Config(**values | {"printed": tuple(Printed(**entry) for entry in printed)})


# --- files that are there whole or not at all --------------------------------------------------------------------


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """One JSON object, indented."""
    write_whole(path, (json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode())


def write_whole(path: Path, *parts: bytes | memoryview) -> None:
    """Writes a file so that whoever looks, even after a power cut, finds the old one or the new one, whole.

    Raises OSError, and leaves the old one, if it cannot.
    """
    draft = _draft(path)
    try:
        draft.unlink(missing_ok=True)  # of a process that was killed, or a link to somewhere else
        with draft.open("xb") as file:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    _keep_name(path.parent)


def _draft(path: Path) -> Path:
    """What a file is called until it is whole."""
    return path.with_name(f".{path.name}.part")


def _keep_name(folder: Path) -> None:
    """Has the directory itself on the disk, without which a renamed file can be lost."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- metrics -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Point:
    """What was read at one iteration: of training since the reading before, and of the test set where it was due."""

    iteration: int
    epoch: float
    lr: float
    train_loss: float
    train_error_percent: float
    """Images as augmented, each before the update it went into."""
    validation_loss: float | None
    validation_error_percent: float | None
    test_loss: float | None
    """None also where it is not finite."""
    test_error_percent: float | None
    images_per_s: float
    """While training: without evaluation and checkpoints."""
    wall_s: float
    """Since the run was first started, the time between a stop and a resume left out."""


COLUMNS = tuple(each.name for each in fields(Point))


@dataclass
class Metrics:
    """The files of points, to append to. What cannot be written now is written as soon as it can be."""

    folder: Path
    until: int
    """Points after this iteration are of a future that did not happen: they are cut off."""
    _waiting: list[Point] = field(default_factory=list)
    _sizes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = read_metrics(self.folder, self.until)
        for name, text in ((METRICS_FILE, "".join(map(_line, kept))), (TABLE_FILE, _table(kept, head=True))):
            data = text.encode()
            write_whole(self.folder / name, data)
            self._sizes[name] = len(data)

    def append(self, point: Point) -> None:
        """Adds a point, and those that could not be written before. Raises OSError if it still cannot be."""
        self._waiting.append(point)
        lines = (METRICS_FILE, "".join(map(_line, self._waiting))), (TABLE_FILE, _table(self._waiting))
        for name, text in lines:
            with (self.folder / name).open("r+b") as file:
                file.truncate(self._sizes[name])  # of half a line that a full disk has left
                file.seek(self._sizes[name])
                file.write(text.encode())
                file.flush()
        for name, text in lines:
            self._sizes[name] += len(text.encode())
        self._waiting.clear()

    def keep(self) -> None:
        """Has all that was added on the disk. Raises OSError if it cannot."""
        for name in self._sizes:
            with (self.folder / name).open("rb") as file:
                os.fsync(file.fileno())


def _line(point: Point) -> str:
    return json.dumps(asdict(point)) + "\n"


def _table(points: Sequence[Point], head: bool = False) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerows([COLUMNS] if head else [])
    writer.writerows([["" if value is None else value for value in asdict(point).values()] for point in points])
    return out.getvalue()


def read_metrics(folder: Path, until: int = MAX_ITERATIONS) -> list[Point]:
    """The points of a run in order; none if nothing was read yet. A last line that was not finished is no point.

    `until`: none after that iteration, behind which a power cut may have left anything. Raises UsageError if what comes
    before is not what a run writes.
    """
    path = folder / METRICS_FILE
    if not path.exists():
        return []
    *lines, _ = _read(path, MAX_METRICS).split(b"\n")
    found: list[Point] = []
    for number, line in enumerate(lines, start=1):
        if (found[-1].iteration if found else 0) >= until:
            break
        point = _point(line)
        if point is None or (found and point.iteration <= found[-1].iteration):
            raise UsageError(f"`{path}`, line {number}: not what a run writes")
        found.append(point)
    return [point for point in found if point.iteration <= until]


def _point(line: bytes) -> Point | None:
    try:
        values = json.loads(line) if len(line) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(values, dict) or values.keys() != set(COLUMNS):
        return None
    for name, value in values.items():
        if value is None and name.startswith(("test_", "validation_")):
            continue
        most = 100 if name.endswith("_percent") else LARGEST
        if type(value) not in (int, float) or not 0 <= value <= most:  # which NaN is not
            return None
    whole = values["iteration"]
    return Point(**values) if type(whole) is int and 1 <= whole <= MAX_ITERATIONS else None


# --- several seeds -----------------------------------------------------------------------------------------------


def seed_folder(path: Path, seed: int) -> Path:
    """Where one seed's run lies among several."""
    return path / f"seed{seed}"
