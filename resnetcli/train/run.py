"""The run directory: what a training was asked to do, what it has done so far, and how it ended. No torch is needed.

config.json   what is trained on what and how, everything resolved
spec.yaml     the net's spec as its author wrote it
model.yaml    the same net written out: a spec by itself, which makes the directory a model
recipe.yaml   the recipe as its author wrote it
metrics.jsonl one line for each reading; metrics.csv is the same
events.out.tfevents.N.resnet-cli  the same for TensorBoard, where that was asked for
checkpoint-00032000.safetensors   the last two
result.json   how it ended; only a finished run has one
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from resnetcli.disk import draft_of, load_json, write_json, write_whole
from resnetcli.errors import ResourceError, UsageError

SCHEMA, RESULT, SUMMARY = "resnet-cli/run@1", "resnet-cli/train@1", "resnet-cli/seeds@1"
NETS = "resnet-cli/group@1"
CONFIG_FILE, RESULT_FILE, SUMMARY_FILE = "config.json", "result.json", "summary.json"
SEEDS_FILE, NETS_FILE = "seeds.json", "nets.json"
"""What a directory of several runs has instead of a configuration."""
SPEC_FILE, MODEL_FILE, RECIPE_FILE = "spec.yaml", "model.yaml", "recipe.yaml"
METRICS_FILE, TABLE_FILE, LOCK_FILE = "metrics.jsonl", "metrics.csv", ".lock"
EVENT_FILES = "events.out.tfevents.*.resnet-cli"
MAX_JSON = 2**20
"""Bytes of a configuration or a result, which takes some 5 KB."""
MAX_ITERATIONS = 10**9
MAX_NETS = 100
"""In one directory."""
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
        return dict(flat({name: whole[name] for name in BOUND}))


BOUND = (
    "spec", "recipe", "data_digest", "iterations", "batch_size", "seed", "dtype", "channels_last", "compile",
    "cuda_graph",
)  # fmt: skip


def flat(value: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Each value by its path: `schedule.lr`."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{before}{name}.")
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
    with new_directory(path):
        for name, text in ((SPEC_FILE, spec), (MODEL_FILE, model), (RECIPE_FILE, recipe)):
            write_whole(path / name, text.encode())
        # The last one: where there is a configuration, all of the rest is there.
        write_json(path / CONFIG_FILE, {"schema": SCHEMA, **asdict(config)})
    return Run(path, config)


@contextmanager
def new_directory(path: Path) -> Iterator[None]:
    """Within: a directory that was free or empty, for what comes first; without it, it is taken away again.

    Of processes that find it free at the same moment, one has it. Raises UsageError if there is something of that name,
    ResourceError if it cannot be written.
    """
    require_new(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            (path / LOCK_FILE).touch(exist_ok=False)  # which says whose it is: an empty directory is anybody's
        except FileExistsError:
            raise _taken(path) from None
        try:
            yield
        except BaseException:  # also where somebody interrupts it
            with suppress(OSError):
                discard(path)  # the name is free for another try
            raise
    except OSError as error:
        raise ResourceError(f"`{path}` cannot be written: {error.strerror or error}", "`--out` names another") from None


def require_new(path: Path) -> None:
    """Raises UsageError unless the path is free, or an empty directory: nothing that is there is ever written over."""
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() and not any(path.iterdir()):
            return
    except (OSError, ValueError):  # too long a name, one with a null in it, a directory nobody may look into
        raise UsageError(f"`{path}` is no name for a directory here", "`--out` names another") from None
    raise _taken(path)


def _taken(path: Path) -> UsageError:
    if (path / CONFIG_FILE).exists():
        return UsageError(f"`{path}` is a run already", f"`--resume {path}` goes on with it; `--out` names another")
    if (path / SEEDS_FILE).exists():
        return UsageError(f"`{path}` has several seeds already", f"`--resume {path}` goes on; `--out` names another")
    if (path / NETS_FILE).exists():
        return UsageError(f"`{path}` has several nets already", f"`--resume {path}` goes on; `--out` names another")
    if (path / LOCK_FILE).exists() and not _has_happened(path):  # which `ls` does not show
        return UsageError(f"`{path}` was begun and is no run yet", "remove it if nothing is begun there now")
    return UsageError(f"`{path}` is there already, and not empty", "`--out` names another directory")


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run from its directory. Raises UsageError if it is none, or its configuration is not whole."""
    place = Path(path)
    hint = "a run is a directory that `train-cifar` made"
    if not os.path.isdir(place):  # noqa: PTH112 - Path's raises for a name too long to exist
        raise UsageError(f"there is no directory `{path}`", hint)
    if not os.path.isfile(place / CONFIG_FILE):  # noqa: PTH113
        inside = next(iter(sorted(place.glob(f"*/{CONFIG_FILE}")) or sorted(place.glob(f"*/*/{CONFIG_FILE}"))), None)
        if inside is not None:
            hint = f"there are runs in it, for example `{inside.parent}`"
        raise UsageError(f"`{path}` is not a run: it has no {CONFIG_FILE}", hint)
    return Run(place, _config(read_record(place / CONFIG_FILE, SCHEMA), place / CONFIG_FILE))


def discard(path: Path) -> None:
    """Takes away a run's directory in which nothing has happened; one with a reading or a checkpoint stays."""
    if _has_happened(path):
        return
    names = (CONFIG_FILE, SPEC_FILE, MODEL_FILE, RECIPE_FILE, METRICS_FILE, TABLE_FILE, SEEDS_FILE, NETS_FILE,
             LOCK_FILE)  # fmt: skip
    for file in (*(path / name for name in names), *path.glob(EVENT_FILES)):
        file.unlink(missing_ok=True)
        draft_of(file).unlink(missing_ok=True)
    with suppress(OSError):  # something of somebody else's is in it
        path.rmdir()


def _has_happened(path: Path) -> bool:
    """Whether there is a reading or a checkpoint."""
    metrics = path / METRICS_FILE
    return any(path.glob("checkpoint-*")) or (metrics.exists() and metrics.stat().st_size > 0)


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
    record = load_json(path, MAX_JSON)
    if not isinstance(record, dict) or record.get("schema") != schema:
        raise UsageError(f"`{path}` is no `{schema}`", "it was written by another version, or is another file")
    return record


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


def is_shallow(value: object, levels: int) -> bool:
    """Whether JSON has so many objects and lists within each other at most: endless ones end whatever walks them."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is None or (levels > 0 and all(is_shallow(each, levels - 1) for each in inner))


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
    need("recipe", isinstance(values["recipe"].get("name"), str) and is_shallow(values["recipe"], 3))
    for name in ("seed", "validation_images"):
        need(name, values[name] >= 0)
    need("deviations", _is_list(values["deviations"], str))
    printed = values["printed"]
    need("printed", _is_list(printed, dict) and all(map(_is_printed, printed)))
    values |= {"input": tuple(values["input"]), "deviations": tuple(values["deviations"])}
    return Config(**values | {"printed": tuple(Printed(**entry) for entry in printed)})


# --- several runs ------------------------------------------------------------------------------------------------


def seed_folder(path: Path, seed: int) -> Path:
    """Where one seed's run lies among several."""
    return path / f"seed{seed}"


def has_nets(path: Path) -> bool:
    """Whether it is a directory of several nets."""
    return os.path.isfile(path / NETS_FILE)  # noqa: PTH113 - Path's raises for a name too long to exist


def write_nets(path: Path, names: Sequence[str]) -> None:
    """Makes a directory one of several nets, each in a folder of that name."""
    write_json(path / NETS_FILE, {"schema": NETS, "nets": list(names)})


def net_folders(path: Path) -> list[Path]:
    """Where each of several nets lies, in order. Raises UsageError for a list that `write_nets` has not written."""
    names = read_record(path / NETS_FILE, NETS).get("nets")
    if not isinstance(names, list) or not 1 <= len(names) <= MAX_NETS or not all(map(is_folder_name, names)):
        raise UsageError(f"`{path / NETS_FILE}` is not whole")
    return [path / name for name in names]


def is_folder_name(name: object) -> bool:
    """Whether it is a folder's, in the directory and nowhere else, and can be shown as it is."""
    return isinstance(name, str) and name not in ("", ".", "..") and "/" not in name and name.isprintable()
