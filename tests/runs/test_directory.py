"""The run directory: one process has it, its files are whole, and nothing is believed that a run would not write."""

from __future__ import annotations

import fcntl
import os
import shlex
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pytest

from resnetcli.errors import ResourceError, UsageError
from resnetcli.files import write_atomic, write_json
from resnetcli.runs import directory as runs
from resnetcli.runs import lock
from resnetcli.runs.config import Config
from resnetcli.runs.directory import create, open_run
from resnetcli.runs.layout import CONFIG_FILE, GROUP_FILE, LOCK_FILE
from resnetcli.runs.lock import discard, lock_directory, require_new
from resnetcli.runs.metrics import Metrics
from tests.support.tiny import CONFIG, config, point

RESULT = {
    "schema": "resnet-cli/train@2", "model": "cifar_resnet20", "parameters": {}, "params": 269722, "recipe": "resnet",
    "seed": 0, "data": "CIFAR-10 (verified)", "iterations": 40, "batch_size": 4, "final_test_error_percent": 8.75,
    "final_test_loss": None, "test_images": 10, "final_train_error_percent": 0.0, "final_train_loss": 0.1,
    "train_images": 20, "images_per_s": None, "wall_s": 1.5, "deviations": ["one"],
    "published": [asdict(entry) for entry in CONFIG.published],
}  # fmt: skip
"""Those keys of one that are shown."""


def make(path: Path, made: Config = CONFIG) -> runs.Run:
    return create(path, made, spec="a: 1\n", model="b: 2\n", recipe="c: 3\n")


def test_a_run_is_read_as_it_was_made(tmp_path: Path) -> None:
    made = make(tmp_path / "a" / "run")
    assert open_run(made.path).config == CONFIG
    assert (made.path / "spec.yaml").read_text() == "a: 1\n"
    assert (made.path / "model.yaml").read_text() == "b: 2\n"
    assert (made.path / "recipe.yaml").read_text() == "c: 3\n"
    assert made.result is None
    made.finish(RESULT)
    assert made.result == RESULT


def test_nothing_that_is_there_is_written_over(tmp_path: Path) -> None:
    Metrics(make(tmp_path / "run").path, 0).append(point(1))
    with pytest.raises(UsageError, match="already has a run") as caught:
        make(tmp_path / "run")
    assert "--resume" in caught.value.hint
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    with pytest.raises(UsageError, match="and is not empty"):
        require_new(tmp_path / "full")
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="already exists"):
        require_new(tmp_path / "file")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="already exists"):
        require_new(tmp_path / "link")
    with pytest.raises(UsageError, match="cannot be a directory"):
        require_new(tmp_path / ("x" * 5000))
    (tmp_path / "empty").mkdir()
    require_new(tmp_path / "empty")


def test_of_runs_that_begin_in_one_place_at_the_same_moment_one_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    together, tried, free = threading.Barrier(8), threading.Barrier(8), lock.require_new
    asked = threading.local()

    def all_find_it_free(path: Path) -> None:
        free(path)
        if not getattr(asked, "before", False):
            asked.before = True
            together.wait(60)

    monkeypatch.setattr(lock, "require_new", all_find_it_free)

    def begin(path: Path, seed: int) -> bool | UsageError:
        asked.before = False
        try:
            with lock_directory(path, new=True):
                runs.write_run(path, config(seed=seed), spec="a: 1", model="b: 2", recipe="c: 3")
                tried.wait(60)
                return True
        except UsageError as error:
            tried.wait(60)
            return error

    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "free" / "run", tmp_path / "empty"):
        with ThreadPoolExecutor(8) as pool:
            ended = list(pool.map(begin, [path] * 8, range(8)))
        assert ended.count(True) == 1
        assert open_run(path).config.seed == ended.index(True)
        assert {each.message for each in ended if isinstance(each, UsageError)} == {
            f"another process is training in `{path}`"
        }


MARK = "resnet-cli run\n"


def leave(file: Path) -> None:
    """An empty file, or a run's lock file as it is before the others are made."""
    file.write_text(MARK if file.name == LOCK_FILE else "")


def test_a_run_without_progress_is_taken_over_with_all_that_it_left(tmp_path: Path) -> None:
    left = [
        [],
        [LOCK_FILE],
        [LOCK_FILE, ".spec.yaml.part", "model.yaml"],
        [LOCK_FILE, ".config.json.4711-x.part", "spec.yaml", "model.yaml", "recipe.yaml"],
        [LOCK_FILE, CONFIG_FILE, "metrics.jsonl", "metrics.csv", ".checkpoint-00000010.safetensors.part"],
        [LOCK_FILE, CONFIG_FILE, "events.out.tfevents.17.resnet-cli"],
        [LOCK_FILE, GROUP_FILE, "seed0/.lock", "seed0/config.json", "seed1/"],
        [LOCK_FILE, "group.json", "a/.lock", "a/group.json", "a/seed0/.lock", "a/seed0/config.json", "b/"],
    ]
    for number, names in enumerate(left):
        path = tmp_path / str(number)
        path.mkdir()
        for name in names:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).mkdir() if name.endswith("/") else leave(path / name)
        made = make(path)
        assert sorted(each.name for each in path.iterdir()) == [
            LOCK_FILE, "config.json", "model.yaml", "recipe.yaml", "spec.yaml"
        ]  # fmt: skip
        assert open_run(path).config == made.config


@pytest.mark.parametrize(
    "file",
    ["mine.txt", "notes/a.txt", "notes/", ".hidden", "checkpoint-00000010.safetensors", "result.json", "curves.png",
     "metrics.jsonl", "seed0/metrics.jsonl", "a/seed0/mine", "a/b/c/.lock", ".lock", ".mine.part"],
)  # fmt: skip
def test_what_another_has_put_there_or_a_run_has_come_to_is_never_taken_over(tmp_path: Path, file: str) -> None:
    path = make(tmp_path / "run").path
    place = path / file
    for folder in reversed(place.relative_to(path).parents[:-1]):
        (path / folder).mkdir()
        leave(path / folder / LOCK_FILE)
    if file.endswith("/"):
        place.mkdir()
        (place / "inside").touch()
    else:
        place.write_text("mine")
    before = sorted(path.rglob("*"))
    with pytest.raises(UsageError, match="already"):
        make(path)
    discard(path)
    assert sorted(path.rglob("*")) == before


def test_files_of_others_with_a_run_s_names_are_no_run_that_was_begun(tmp_path: Path) -> None:
    (tmp_path / "model.yaml").touch()
    (tmp_path / "recipe.yaml").touch()
    with pytest.raises(UsageError, match="already exists and is not empty"):
        make(tmp_path)
    (tmp_path / LOCK_FILE).symlink_to("nowhere")
    with pytest.raises(UsageError, match="already exists and is not empty"):
        make(tmp_path)
    (tmp_path / LOCK_FILE).unlink()
    for text in ("", "4711", MARK[:-1], MARK + " "):  # as many programs make one
        (tmp_path / LOCK_FILE).write_text(text)
        with pytest.raises(UsageError, match="already exists and is not empty"):
            make(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == [LOCK_FILE, "model.yaml", "recipe.yaml"]


@pytest.mark.parametrize("size", range(len(MARK) + 1))
def test_a_run_killed_while_it_marked_its_lock_is_taken_over(tmp_path: Path, size: int) -> None:
    (tmp_path / LOCK_FILE).write_text(MARK[:size])
    make(tmp_path)
    assert (tmp_path / LOCK_FILE).read_text() == MARK


def test_one_that_was_stopped_while_it_was_made_says_what_to_type(tmp_path: Path) -> None:
    leave(tmp_path / LOCK_FILE)
    leave(tmp_path / "spec.yaml")
    with pytest.raises(UsageError, match="stopped before the first step, and no progress is lost") as caught:
        open_run(tmp_path)
    assert f"with `--out {tmp_path}`" in caught.value.hint


@pytest.mark.parametrize("name", ["run", "my run", "it's", "a;b", "$HOME", "a`b"])
def test_what_is_to_be_typed_is_one_word_for_a_shell(tmp_path: Path, name: str) -> None:
    path = make(tmp_path / name).path
    with pytest.raises(UsageError, match="already has a run") as caught:
        make_progress(path)
    typed = caught.value.hint.partition("with `")[2].partition("`, or select another")[0]
    assert shlex.split(typed) == ["--resume", str(path)]
    (path / "metrics.jsonl").unlink()
    (path / CONFIG_FILE).unlink()
    with pytest.raises(UsageError, match="not a run yet") as caught:
        open_run(path)
    assert shlex.split(caught.value.hint.partition("with `")[2][:-1]) == ["--out", str(path)]


def make_progress(path: Path) -> None:
    (path / "metrics.jsonl").write_text("a reading\n")
    make(path)


def test_a_lock_file_that_its_holder_has_removed_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, first = fcntl.flock, True

    def removed_meanwhile(handle: int, operation: int) -> None:
        nonlocal first
        if first:
            first = False
            (tmp_path / LOCK_FILE).unlink()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with lock_directory(tmp_path):
        monkeypatch.undo()
        with pytest.raises(UsageError, match="another process"), lock_directory(tmp_path):
            pass


def test_a_directory_in_which_a_run_could_not_begin_is_free_for_another_try(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, record: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(runs, "write_json", full)
        with pytest.raises(ResourceError, match="cannot be written: No space left"):
            make(tmp_path / "run")
    assert not (tmp_path / "run").exists()
    make(tmp_path / "run")


@pytest.mark.parametrize("last", [CONFIG_FILE, GROUP_FILE])
def test_one_that_was_interrupted_while_it_was_begun_is_free_too(tmp_path: Path, last: str) -> None:
    def begin() -> None:
        with lock_directory(tmp_path / "run", new=True):
            (tmp_path / "run" / last).touch()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        begin()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [(CONFIG_FILE, "already has a run"), (GROUP_FILE, "already has several runs"),
     ("mine", "already exists and is not empty")],
)  # fmt: skip
def test_what_is_in_the_way_of_a_run_is_reported(tmp_path: Path, file: str, said: str) -> None:
    for name in (file, LOCK_FILE, "result.json"):
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=said) as found:
        make(tmp_path)
    assert ("--resume" in found.value.hint) == (file in (CONFIG_FILE, GROUP_FILE))


def test_a_place_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ResourceError, match="cannot be written"):
        make(tmp_path / "file" / "run")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no directory"):
        open_run(tmp_path / "none")
    with pytest.raises(UsageError, match="is not a run"):
        open_run(tmp_path)
    with pytest.raises(UsageError, match="no directory"):
        open_run("x" * 5000)
    (tmp_path / "large").mkdir()
    (tmp_path / "large" / "config.json").write_text(" " * (2**20 + 1))
    with pytest.raises(UsageError, match="larger than 1 MiB"):
        open_run(tmp_path / "large")


# --- whole files ---------------------------------------------------------------------------------------------------


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    write_atomic(path, b"n", b"ew")
    assert path.read_bytes() == b"new"


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, Path.replace

    def note_sync(handle: int) -> None:
        done.append("directory" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")  # noqa: PTH112
        fsync(handle)

    def note_rename(self: Path, target: Path) -> Path:
        done.append("rename")
        return rename(self, target)

    monkeypatch.setattr(os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_rename)
    write_json(tmp_path / "file", {"a": 1})
    assert done == ["file", "rename", "directory"]


# --- one process ---------------------------------------------------------------------------------------------------


def test_only_one_process_trains_in_a_directory(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from resnetcli.runs.lock import lock_directory\n"
        "with lock_directory(pathlib.Path(sys.argv[1])): pass"
    )

    def other() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    with lock_directory(tmp_path):
        assert "another process is training" in other().stderr
    assert other().returncode == 0


def test_a_file_system_without_locks_keeps_nobody_from_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(handle: int, operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with lock_directory(tmp_path):
        assert (tmp_path / ".lock").exists()


def test_nothing_is_written_through_what_somebody_else_has_put_there(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    run = make(tmp_path / "run").path
    for name in (".lock", ".metrics.jsonl.part"):
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(mine)
    with pytest.raises(ResourceError, match=r"\.lock` cannot be written"), lock_directory(run):
        pass
    Metrics(run, 0).append(point(1))
    assert mine.read_text() == "precious"
    assert not (run / "metrics.jsonl").is_symlink()
    (run / ".lock").unlink()
    os.mkfifo(run / ".lock")
    with lock_directory(run):  # and nobody at the other end is waited for
        pass


def test_a_directory_is_taken_away_only_while_nothing_has_happened_there(tmp_path: Path) -> None:
    first = make(tmp_path / "first").path
    Metrics(first, 0)
    with lock_directory(first):
        pass
    discard(first)
    assert not first.exists()

    second = make(tmp_path / "second").path
    Metrics(second, 0).append(point(1))
    discard(second)
    assert (second / "config.json").exists()

    third = make(tmp_path / "third").path
    (third / "checkpoint-00000001.safetensors").touch()
    discard(third)
    assert (third / "config.json").exists()

    fourth = make(tmp_path / "fourth").path
    (fourth / "mine").touch()
    discard(fourth)
    assert (fourth / "mine").exists()
    assert (fourth / "config.json").exists()


def test_reading_a_run_needs_no_torch() -> None:
    code = "import sys, resnetcli.runs.directory; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
