"""Several models trained by one command, side by side."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from pathlib import Path

import pytest
import torch

from resnetcli.files import write_atomic
from resnetcli.runs.group import models_of
from resnetcli.train.loop import Trainer
from tests.support import tiny
from tests.support.cli import run
from tests.support.training import skip_plots, weights

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(plotting: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    skip_plots(monkeypatch)
    return plotting


@pytest.fixture
def plotting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two models, one of them with two blocks to a stage, with a recipe and data."""
    monkeypatch.chdir(tmp_path)
    deep = tiny.NET.replace("name: tiny", "name: deep").replace("n: 1", "n: 2")
    (tiny.files(tmp_path) / "deep.yaml").write_text(deep)
    return tmp_path


def words(folder: Path, out: str = "all") -> list[str]:
    return [*tiny.words(folder, out), "--model", "deep.yaml"]


def test_several_models_are_trained_in_turn_as_each_would_be_alone(plotting: Path) -> None:
    folder = plotting
    result = run(words(folder))
    assert result.exit_code == 0, result.output
    assert models_of(folder / "all") == (folder / "all" / "tiny", folder / "all" / "deep")
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0].endswith("yaml")] == [str(folder / "tiny.yaml"), "deep.yaml"]
    assert "deep.yaml: error on training images without augmentation: " in result.stdout
    assert result.stderr.splitlines()[-1] == f"plotted: {folder / 'all' / 'curves.png'}"
    for place in ("all", "all/tiny", "all/deep"):
        assert (folder / place / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert run(tiny.words(folder, "alone")).exit_code == 0
    assert weights(folder / "all" / "tiny") == weights(folder / "alone")
    drawn = run("curves all --format csv")
    assert drawn.exit_code == 0
    assert {row["name"] for row in csv.DictReader(io.StringIO(drawn.stdout))} == {"tiny", "deep"}
    again = run("train-cifar --resume all --format json")
    assert again.exit_code == 0
    assert again.stderr.count("has finished") == 2
    record = json.loads(again.stdout)
    assert record["schema"] == "resnet-cli/models@1"
    results = [folder / "all" / net / "result.json" for net in ("tiny", "deep")]
    assert record["models"] == [json.loads(result.read_text()) for result in results]


def test_each_of_several_models_can_have_its_own_parameters_and_what_is_in_it_is_named(folder: Path) -> None:
    result = run([*tiny.words(folder, "all"), "--model", "tiny.yaml n=2", "--iterations", "4"])
    assert result.exit_code == 0, result.output
    assert models_of(folder / "all") == (folder / "all" / "tiny", folder / "all" / "tiny-n2")
    assert "tiny.yaml n=2" in result.stdout
    tested = run("eval all")
    assert tested.exit_code == 2
    assert tested.stderr.endswith(f"hint: it contains runs, for example `{Path('all') / 'tiny'}`\n")


def test_each_of_several_models_can_have_several_seeds(folder: Path) -> None:
    result = run([*words(folder), "--seeds", "2", "--seed", "3", "--format", "json"])
    assert result.exit_code == 0, result.output
    nets = json.loads(result.stdout)["models"]
    assert [net["schema"] for net in nets] == ["resnet-cli/seeds@2"] * 2
    assert [net["finished"] for net in nets] == [[3, 4]] * 2
    table = run("train-cifar --resume all --format csv")
    rows = list(csv.DictReader(io.StringIO(table.stdout)))
    assert [row["seeds"] for row in rows] == ["2", "2"]
    assert [float(row["final_test_error_percent"]) for row in rows] == [
        net["final_test_error_percent"]["mean"] for net in nets
    ]
    assert {row["data"] for row in rows} == {nets[0]["data"]}


def test_what_is_wrong_with_the_last_model_is_reported_before_the_first_is_trained(folder: Path) -> None:
    (folder / "other").mkdir()
    for file in ("other/tiny.yaml", "..yaml", "a\n.yaml"):
        (folder / file).write_text((folder / "deep.yaml").read_text())
    before = sorted(folder.rglob("*"))
    for last, said in (
        ("cifar_resne", "did you mean `cifar_resnet`"),
        ("tiny.yaml", "`tiny` is given twice"),
        ("..yaml", "`.` cannot be the name of a model's folder"),
        ("a\n.yaml", "cannot be the name of a model's folder"),
        ("other/tiny.yaml", "two models are called `tiny`\nhint: each has a folder of that name: rename a file"),
    ):
        result = run([*words(folder), "--model", last])
        assert result.exit_code == 2, result.output
        assert said in result.stderr
        assert sorted(folder.rglob("*")) == before


def test_models_that_were_not_begun_are_trained_at_a_resume(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Trainer.step

    def interrupted(self: Trainer) -> None:
        if self.iteration == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        stopped = run(words(folder))
    assert stopped.exit_code == 143
    assert f"to continue: `resnet-cli train-cifar --resume {folder / 'all'}`" in stopped.stderr
    assert not list((folder / "all" / "deep").glob("checkpoint-*"))
    assert not (folder / "all" / "curves.png").exists()
    other = run("train-cifar --resume all --seed 9")
    assert other.exit_code == 2
    assert "with different settings: seed 0 -> 9" in other.stderr
    checkpoints = sorted((folder / "all" / "tiny").glob("checkpoint-*"))
    one = run(["train-cifar", "--resume", "all", "--model", str(folder / "tiny.yaml")])
    assert one.exit_code == 2
    assert one.stderr.startswith("error: `--resume` resumes all models of the directory")
    config = folder / "all" / "deep" / "config.json"
    config.rename(folder / "kept.json")
    broken = run("train-cifar --resume all")
    assert broken.exit_code == 2
    assert "`all/deep` is not a run" in broken.stderr
    assert sorted((folder / "all" / "tiny").glob("checkpoint-*")) == checkpoints  # the first was not gone on with
    (folder / "kept.json").rename(config)
    assert run("train-cifar --resume all").exit_code == 0
    assert run(tiny.words(folder, "alone")).exit_code == 0
    assert weights(folder / "all" / "tiny") == weights(folder / "alone")
    assert (folder / "all" / "deep" / "result.json").is_file()


def test_a_model_that_diverges_does_not_keep_the_others_from_their_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, trainers = Trainer.step, list[Trainer]()

    def diverging(self: Trainer) -> None:
        trainers.append(self)
        if self is trainers[0] and self.iteration == 7:
            with torch.no_grad():
                next(self.model.parameters()).fill_(float("nan"))
        step(self)

    monkeypatch.setattr(Trainer, "step", diverging)
    result = run([*words(folder), "--format", "json"])
    assert result.exit_code == 3
    assert "error: not finished: tiny: the loss or a gradient of iteration 8 is not finite" in result.stderr
    assert [net["model"] for net in json.loads(result.stdout)["models"]] == ["deep.yaml"]


def test_a_disk_that_is_full_at_the_second_model_leaves_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> None:
        if "deep" in path.parts:
            raise OSError(28, "No space left on device")
        write_atomic(path, data)

    monkeypatch.setattr("resnetcli.runs.directory.write_atomic", full)
    result = run(words(folder))
    assert result.exit_code == 3
    assert "No space left on device" in result.stderr
    assert not (folder / "all").exists()


def test_a_directory_of_several_models_is_not_written_over_nor_asked_for_others(folder: Path) -> None:
    assert run(words(folder)).exit_code == 0
    again = run(words(folder))
    assert again.exit_code == 2
    assert again.stderr.startswith(f"error: `{folder / 'all'}` already has several runs\nhint: resume with `--resume ")
    others = run("train-cifar --resume all --depth 20 --depth 56")
    assert others.exit_code == 2
    assert others.stderr.startswith("error: `--resume` resumes all models of the directory")


def test_a_model_that_is_the_directory_above_has_its_name_and_nothing_else_is_touched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(tiny.words(folder)).exit_code == 0
    (folder / "run" / "inside").mkdir()
    monkeypatch.chdir(folder / "run" / "inside")
    deep = ["--model", str(folder / "deep.yaml")]
    result = run([*tiny.words(folder)[:1], "--model", "../", *deep, *tiny.words(folder, "all")[3:]])
    assert (folder / "recipe.yaml").is_file()  # beside the new directory, of a name that runs have in theirs
    assert result.exit_code == 0, result.output
    assert [place.name for place in models_of(folder / "all")] == ["run", "deep"]


@pytest.mark.parametrize(
    "nets",
    [[], "tiny", ["../tiny"], ["tiny", ".."], [""], ["a\0"], ["\x1b[2J"], ["\ud800"], [3], ["tiny"] * 101, {"tiny": 1}],
    ids=repr,
)
def test_a_list_of_models_that_nobody_has_written_is_refused(folder: Path, nets: object) -> None:
    (folder / "all").mkdir()
    record = {"schema": "resnet-cli/group@2", "kind": "models", "runs": nets}
    (folder / "all" / "group.json").write_text(json.dumps(record))
    for command in ("train-cifar --resume all", "curves all"):
        result = run(command)
        assert result.exit_code == 2, result.output
        assert "group.json` is invalid" in result.stderr
