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
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from resnetcli.errors import ResourceError, UsageError, typed
from resnetcli.files import draft_targets, load_json, write_atomic, write_json

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
    deterministic: bool = False
    """Whether cuDNN uses deterministic algorithms, without autotuning."""
    processes: int = 1
    """That train together, each on its share of every batch, with as many threads or a GPU each."""

    @property
    def bound(self) -> dict[str, Any]:
        """What the weights follow from, flat: `recipe.momentum`, `seed`; two runs that agree on it are one run."""
        whole = asdict(self)
        return dict(flat({name: whole[name] for name in BOUND}))


BOUND = (
    "spec", "recipe", "data_digest", "iterations", "batch_size", "seed", "dtype", "channels_last", "compile",
    "cuda_graph", "deterministic",
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
    """Make a new run's directory with all that is known before the first step.

    Raises UsageError if the path is not free, ResourceError if it cannot be written.
    """
    with only_one(path, new=True):
        return write_run(path, config, spec=spec, model=model, recipe=recipe)


def write_run(path: Path, config: Config, *, spec: str, model: str, recipe: str) -> Run:
    """Write a new run's files into its directory, which the caller has locked. Raises ResourceError if it cannot."""
    with writing(path):
        for name, text in ((SPEC_FILE, spec), (MODEL_FILE, model), (RECIPE_FILE, recipe)):
            write_atomic(path / name, text.encode())
        # The last one: where there is a configuration, all of the rest is there.
        write_json(path / CONFIG_FILE, {"schema": SCHEMA, **asdict(config)})
    return Run(path, config)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Context manager: report an OSError as a directory that cannot be written."""
    try:
        yield
    except OSError as error:
        raise ResourceError(f"`{path}` cannot be written: {error.strerror or error}", "`--out` names another") from None


def require_new(path: Path) -> None:
    """Raise UsageError unless a new run may use the path.

    It may if the path does not exist, is an empty directory, or has a run without readings and checkpoints. Nothing
    else is ever overwritten.
    """
    try:
        if not path.exists() and not path.is_symlink():
            return
        if path.is_dir() and (not any(path.iterdir()) or leftovers(path) is not None):
            return
    except (OSError, ValueError):  # too long a name, one with a null in it, a directory nobody may look into
        raise UsageError(f"`{path}` is no name for a directory here", "`--out` names another") from None
    raise _taken(path)


def _taken(path: Path) -> UsageError:
    for file, what in ((CONFIG_FILE, "is a run"), (SEEDS_FILE, "has several seeds"), (NETS_FILE, "has several nets")):
        if (path / file).exists():
            hint = f"resume it with `--resume {typed(path)}`, or name another directory with `--out`"
            return UsageError(f"`{path}` {what} already", hint)
    return UsageError(f"`{path}` is there already, and not empty", "`--out` names another directory")


def open_run(path: str | os.PathLike[str]) -> Run:
    """A run from its directory. Raises UsageError if it is none, or its configuration is not whole."""
    place = Path(path)
    hint = "a run is a directory that `train-cifar` made"
    if not os.path.isdir(place):  # noqa: PTH112 - Path's raises for a name too long to exist
        raise UsageError(f"there is no directory `{path}`", hint)
    if not os.path.isfile(place / CONFIG_FILE):  # noqa: PTH113
        require_begun(place)
        inside = next(iter(sorted(place.glob(f"*/{CONFIG_FILE}")) or sorted(place.glob(f"*/*/{CONFIG_FILE}"))), None)
        if inside is not None:
            hint = f"there are runs in it, for example `{inside.parent}`"
        raise UsageError(f"`{path}` is not a run: it has no {CONFIG_FILE}", hint)
    return Run(place, _config(read_record(place / CONFIG_FILE, SCHEMA), place / CONFIG_FILE))


def require_begun(path: Path) -> None:
    """Raise UsageError for an empty directory, and for one whose run was stopped while the directory was created."""
    try:
        is_empty = not any(path.iterdir())
        if not is_empty and leftovers(path) is None:
            return
    except OSError:  # open_run reports what is wrong with it
        return
    why = "it is empty" if is_empty else "its run was stopped before the first step, and no progress is lost"
    raise UsageError(
        f"`{path}` is not a run yet: {why}", f"run the whole `train-cifar` command again, with `--out {typed(path)}`"
    )


def leftovers(path: Path, depth: int = 2) -> list[Path] | None:
    """Files and directories of a run without progress, in order of removal, without the lock.

    None if there is anything else: a reading, a checkpoint, another's file, or no lock file, which a run makes first
    and marks as its own before it makes others: a file of a run's name beside another's lock is another's.
    What is left if removing them is interrupted is a run without progress, too. Raises OSError.
    """
    files: list[Path] = []
    inner: list[Path] = []
    empty = True
    for child in path.iterdir():
        empty = False
        if child.is_symlink():
            return None
        if child.is_dir():
            below = leftovers(child, depth - 1) if depth else None
            if below is None:
                return None
            inner += [*below, child / LOCK_FILE, child]
        elif not child.is_file() or not _is_of_start(child.name) or (child.name == METRICS_FILE and _size(child)):
            return None
        elif child.name != LOCK_FILE:
            files.append(child)
    if not _is_marked(path / LOCK_FILE, alone=not files and not inner) and not (empty and depth < 2):
        return None  # but for an empty one within another, which was about to be locked
    commits = (CONFIG_FILE, SEEDS_FILE, NETS_FILE)  # without them first, no directory claims what it no longer has
    return [*sorted(files, key=lambda file: (file.name not in commits, file.name)), *inner]


_START = {CONFIG_FILE, SPEC_FILE, MODEL_FILE, RECIPE_FILE, METRICS_FILE, TABLE_FILE, SEEDS_FILE, NETS_FILE, LOCK_FILE}
"""What a run has before its first reading, beside event files."""
_MARK = b"resnet-cli run\n"
"""What is in the lock file of a directory that a run has made or taken over."""
_LATER = (EVENT_FILES, "checkpoint-*.safetensors", RESULT_FILE, SUMMARY_FILE, "curves.png")
"""What else a run writes."""


def _is_marked(lock: Path, *, alone: bool) -> bool:
    """Whether it is a run's lock file; `alone`: or one that was not yet marked when the run was killed."""
    if not lock.is_file() or _size(lock) > len(_MARK):
        return False
    found = lock.read_bytes()
    return found == _MARK or (alone and _MARK.startswith(found))


def _size(file: Path) -> int:
    return file.stat().st_size


def _is_of_start(name: str) -> bool:
    """Whether a run without progress may have a file of that name: one of its first files, or a draft of any file."""
    return name in _START or fnmatch(name, EVENT_FILES) or any(map(_is_of_run, draft_targets(name)))


def _is_of_run(name: str) -> bool:
    """Whether a run writes a file of that name."""
    return name in _START or any(fnmatch(name, pattern) for pattern in _LATER)


def discard(path: Path, *, whole: bool = True) -> None:
    """Remove a run's directory in which nothing has happened; one with a reading or a checkpoint stays.

    `whole`: the directory itself and its lock, not only what is in it. Raises OSError.
    """
    found = leftovers(path)
    if found is None:
        return
    for each in [*found, *([path / LOCK_FILE, path] if whole else [])]:
        with suppress(FileNotFoundError):
            each.rmdir() if each.is_dir() else each.unlink()


@contextmanager
def only_one(run: Path, *, new: bool = False) -> Iterator[None]:
    """Holds the directory for this process, without what a killed one has left half written.

    `new`: makes it, or takes over one whose run has made no progress, and removes it again if an error leaves it
    without any; of processes that begin at the same moment, one has it. Raises UsageError while another one trains
    there or if the path is not free, ResourceError if it cannot be written. The system lets go of it however the
    process ends.
    """
    if new:
        require_new(run)
        with writing(run):
            run.mkdir(parents=True, exist_ok=True)
    handle = _locked(run)
    try:
        if new:
            require_new(run)  # now that no other process can change it
            with writing(run):
                discard(run, whole=False)
                os.pwrite(handle, _MARK, 0)
        else:
            _sweep(run)
        try:
            yield
        except BaseException:  # also if interrupted
            if new:
                with suppress(OSError):
                    discard(run)  # the name is free for another try
            raise
    finally:
        os.close(handle)


def _locked(run: Path) -> int:
    """The open lock file of a directory, locked. Raises as `only_one`."""
    while True:
        try:  # neither through a link nor into a pipe: a directory may come from anywhere
            handle = os.open(run / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
        except OSError as error:
            raise ResourceError(f"`{run / LOCK_FILE}` cannot be written: {error.strerror or error}") from None
        try:
            _flock(handle, run)
            if _is_at(handle, run / LOCK_FILE):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)  # the previous holder has removed the file: try again


def _flock(handle: int, run: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UsageError(f"another process is training in `{run}`", "wait for it, or `--out` elsewhere") from None
    except OSError:  # a file system without locks
        pass


def _is_at(handle: int, path: Path) -> bool:
    """Whether the open file is still the one of that name."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _sweep(run: Path) -> None:
    """Remove the unfinished files that a killed process has left in a run's directory, as far as that is possible."""
    with suppress(OSError):
        for child in run.iterdir():
            if draft_targets(child.name) and any(map(_is_of_run, draft_targets(child.name))):
                child.unlink(missing_ok=True)


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
    """Whether it is a folder's, in the directory and nowhere else, no file's there, and can be shown as it is."""
    if not isinstance(name, str) or _is_of_start(name) or _is_of_run(name):
        return False
    return name not in ("", ".", "..") and "/" not in name and name.isprintable()
