"""`train-cifar --resume`: what a stopped run needs, and what is refused."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from resnetcli.data.write import write_custom
from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.runs.lock import lock_directory
from tests.support import tiny
from tests.support.cli import run
from tests.support.training import skip_plots, stop_run, weights

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    skip_plots(monkeypatch)
    return tiny.files(tmp_path)


def test_a_finished_run_says_so(folder: Path) -> None:
    first = run([*tiny.words(folder), "--format", "json"])
    again = run("train-cifar --resume run --format json")
    assert again.exit_code == 0
    assert again.stderr == "`run` has finished its 40 iterations\n"
    assert again.stdout == first.stdout


def test_a_resume_with_other_options_is_refused_with_all_that_differs(folder: Path) -> None:
    run(tiny.words(folder))
    result = run("train-cifar --resume run --seed 3 --iterations 50 --batch-size 8 --dtype bf16 --threads 1")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: cannot resume `run` with different settings: iterations 40 -> 50; seed 0 -> 3; dtype fp32 -> bf16\n"
        "hint: omit these options, or start another run with `--out`\n"
    )


def test_a_resume_with_the_recipe_as_it_was_continues_and_with_an_edited_one_is_refused(folder: Path) -> None:
    run([*tiny.words(folder), "--iterations", "20"])
    resume = f"train-cifar --resume run --recipe {folder / 'recipe.yaml'}"
    assert run(f"{resume} --iterations 20").exit_code == 0
    assert "recipe's iterations 20 -> 40" in run(resume).stderr
    text = (folder / "recipe.yaml").read_text()
    (folder / "recipe.yaml").write_text(text.replace("lr: 0.05", "lr: 0.5"))
    result = run(f"{resume} --iterations 20")
    assert result.exit_code == 2
    assert "cannot resume `run` with different settings: recipe's schedule.lr 0.05 -> 0.5\n" in result.stderr


def test_batchnorms_images_that_a_recipe_leaves_open_may_be_said_by_an_option_but_not_by_an_edit(folder: Path) -> None:
    recipe = folder / "recipe.yaml"
    run([*tiny.words(folder), "--bn-batch", "4"])
    assert run(f"train-cifar --resume run --recipe {recipe}").exit_code == 0
    recipe.write_text(recipe.read_text() + "bn_batch: 2\n")
    said = run(f"train-cifar --resume run --recipe {recipe}").stderr
    assert "cannot resume `run` with different settings: recipe's bn_batch 4 -> 2\n" in said


def test_a_resume_that_names_the_model_is_refused_if_its_file_says_another_one_now(folder: Path) -> None:
    run(tiny.words(folder))
    resume, net = f"train-cifar --resume run --model {folder / 'tiny.yaml'}", folder / "tiny.yaml"
    net.write_text(f"# Mine.\n{tiny.NET}")
    assert run(resume).exit_code == 0
    net.write_text(tiny.NET.replace("n: 1", "n: 2"))
    result = run(resume)
    assert result.exit_code == 2
    assert f"cannot resume `run` with different settings: model `{net}` was edited\n" in result.stderr
    assert run("train-cifar --resume run").exit_code == 0


def test_a_resume_of_a_configuration_in_which_settings_are_missing_says_so(folder: Path) -> None:
    run(tiny.words(folder))
    config = json.loads((folder / "run" / "config.json").read_text())
    del config["recipe"]["bn_batch"], config["recipe"]["momentum"]
    (folder / "run" / "config.json").write_text(json.dumps(config))
    result = run(f"train-cifar --resume run --recipe {folder / 'recipe.yaml'}")
    assert result.exit_code == 2
    assert "cannot resume `run` with different settings: recipe's momentum unset -> 0.9\n" in result.stderr


def test_a_disk_that_is_full_at_the_end_is_reported_with_the_way_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("resnetcli.runs.directory.Run.finish", full)
    result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert (
        f"hint: free some space, then continue with `resnet-cli train-cifar --resume {folder / 'run'}`" in result.stderr
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [("--eval-every 0", "`--eval-every 0` is out of range\nhint: from 1 to 100,000,000"),
     ("--checkpoint-every -5", "`--checkpoint-every -5` is out of range"),
     ("--eval-every 100000001", "`--eval-every 100000001` is out of range"),
     ("--threads 0", "`--threads` must be 1 to 1024")],
)  # fmt: skip
def test_what_a_resume_may_be_told_anew_is_checked_against_its_range(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    with monkeypatch.context() as patched:
        stop_run(folder, patched)
    result = run(f"train-cifar --resume run {words}")
    assert result.exit_code == 2
    assert f"error: {said}" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_with_the_same_weights_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert run(tiny.words(folder, "whole")).exit_code == 0
    stop_run(folder, monkeypatch, number=number)
    assert not (folder / "run" / "result.json").exists()
    assert [n for n, _ in checkpoints(folder / "run")] == [18]
    result = run("train-cifar --resume run")
    assert result.exit_code == 0, result.output
    assert "resuming at iteration 18/40" in result.stderr
    assert weights(folder / "run") == weights(folder / "whole")


def test_a_resume_on_other_data_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_run(folder, monkeypatch)
    (folder / "other").mkdir()
    write_custom(folder / "other", tiny.split(30, 9), tiny.split(20, 2), ["a", "b", "c", "d"])
    result = run("train-cifar --resume run --data-dir other")
    assert result.exit_code == 2
    assert "cannot resume `run`: data_digest " in result.stderr
    (folder / "data").rename(folder / "moved")  # the same data elsewhere is the same data
    assert run("train-cifar --resume run --data-dir moved").exit_code == 0


@pytest.mark.parametrize(
    ("name", "old", "new", "what"),
    [("recipe.yaml", "momentum: 0.9", "momentum: 0.8", "recipe.momentum 0.9 -> 0.8"),
     ("model.yaml", "3x3 4", "3x3 5", "spec ")],
)  # fmt: skip
def test_a_run_whose_files_were_changed_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, old: str, new: str, what: str
) -> None:
    stop_run(folder, monkeypatch)
    path = folder / "run" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    result = run("train-cifar --resume run")
    assert result.exit_code == 2
    assert what in result.stderr


def test_a_directory_that_a_killed_run_left_half_made_is_answered_in_a_line_by_every_command(folder: Path) -> None:
    half = folder / "half"
    half.mkdir()
    for names in ([".lock"], ["spec.yaml", ".config.json.part"], ["model.yaml", "recipe.yaml"]):
        for name in names:
            (half / name).write_text("resnet-cli run\n" if name == ".lock" else "")
        for command in ("train-cifar --resume half", "eval half", "curves half", "show ./half", "profile ./half"):
            result = run(command)
            assert result.exit_code == 2, (command, result.output)
            assert result.stderr.startswith("error: "), result.stderr
            assert "Traceback" not in result.output
        assert "run the whole `train-cifar` command again, with `--out half`" in run("eval half").stderr
        assert run("curves half").exit_code == 2
    assert run([*tiny.words(folder, "half"), "--iterations", "2"]).exit_code == 0
    assert not (half / ".config.json.part").exists()


def test_a_run_s_directory_may_be_copied_and_one_that_cannot_be_written_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_run(folder, monkeypatch)
    shutil.copytree(folder / "run", folder / "copy")
    assert run("train-cifar --resume copy").exit_code == 0
    assert run("eval copy").exit_code == 0
    assert run("train-cifar --resume run").exit_code == 0
    assert weights(folder / "run") == weights(folder / "copy")
    (folder / "run" / "result.json").unlink()

    def read_only(path: object, flags: int, *rest: Any) -> int:
        if flags & os.O_RDWR:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest)  # type: ignore[arg-type]

    real = os.open
    monkeypatch.setattr(os, "open", read_only)
    result = run("train-cifar --resume run")
    assert (result.exit_code, result.stderr) == (3, "error: `run/.lock` cannot be written: Read-only file system\n")


def test_of_two_that_resume_one_run_one_is_reported(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_run(folder, monkeypatch)
    with lock_directory(folder / "run"):
        result = run("train-cifar --resume run")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "error: another process is training in `run`")
    with lock_directory(folder / "new", new=True):
        result = run(tiny.words(folder, "new"))
    assert result.exit_code == 2
    assert "another process is training in" in result.stderr
