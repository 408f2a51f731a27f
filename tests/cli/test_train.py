"""`train-cifar` and `eval` as a user meets them, on a model that takes a moment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from resnetcli.data.dataset import Dataset
from resnetcli.data.read import read_dataset as load_set
from resnetcli.runs.metrics import read_metrics
from resnetcli.train import job
from resnetcli.train.evaluate import Evaluation, Evaluator
from resnetcli.train.loop import Trainer
from tests.support import tiny
from tests.support.cli import check_golden, run
from tests.support.thin import thinned
from tests.support.training import skip_plots

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    skip_plots(monkeypatch)
    return tiny.files(tmp_path)


def test_a_run_is_trained_told_of_and_left_in_its_directory(folder: Path) -> None:
    result = run([*tiny.words(folder), "--format", "json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((folder / "run" / "result.json").read_text())
    assert record["schema"] == "resnet-cli/train@2"
    assert record["iterations"] == 40
    assert record["data"] == "custom, 50 images"
    assert [p.iteration for p in read_metrics(folder / "run")] == list(range(4, 41, 4))
    said = result.stderr.splitlines()
    assert said[0].startswith("tiny   ")
    assert "30 training images, 20 test images, 4 classes" in said[1]
    assert "40 iterations of 8 images, 10.7 epochs; seed 0" in said[2]
    assert said[-1].startswith("40/40  loss ")


def test_a_table_like_the_papers_is_printed(folder: Path) -> None:
    result = run(tiny.words(folder))
    assert result.exit_code == 0, result.output
    assert "test error %" in result.stdout
    assert "after the last iteration, on all 20 test images of custom, 50 images" in result.stdout


def test_a_run_is_tested_again_with_each_class(folder: Path) -> None:
    trained = json.loads(run([*tiny.words(folder), "--format", "json"]).stdout)
    result = run("eval run --format json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["error_percent"] == trained["final_test_error_percent"]
    assert record["loss"] == pytest.approx(trained["final_test_loss"], rel=1e-5)
    assert [entry["name"] for entry in record["classes"]] == ["a", "b", "c", "d"]
    assert sum(entry["wrong"] for entry in record["classes"]) == record["wrong"]
    assert sum(entry["images"] for entry in record["classes"]) == record["images"] == 20
    assert re.search(r"^ all +20 ", run("eval run").stdout, re.MULTILINE)
    nothing = run("eval run --checkpoint 7")
    assert (nothing.exit_code, nothing.stderr) == (
        2, "error: `run` has no checkpoint of iteration 7\nhint: available: 40\n"
    )  # fmt: skip


def test_testing_a_run_says_what_it_fetches_but_not_that_the_machine_is_another(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tiny.words(folder))

    def fetched(*args: Any, log: Callable[[str], None], **how: Any) -> Dataset:
        log("fetching 170.1 MB")
        return load_set(*args, log=log, **how)

    monkeypatch.setattr(job, "read_dataset", fetched)
    result = run("eval run --threads 2")
    assert (result.exit_code, result.stderr) == (0, "fetching 170.1 MB\n")


def test_a_run_is_a_model_like_any_other(folder: Path) -> None:
    run(tiny.words(folder))
    profile = json.loads(run("profile ./run --format json").stdout)
    assert profile["params"] == json.loads((folder / "run" / "result.json").read_text())["params"]
    assert profile["input"] == [3, 8, 8]
    assert profile["parameters"] == {"n": 1, "classes": 4}
    assert run("compare ./run cifar_resnet20").exit_code == 0
    assert run("show ./run").exit_code == 0


def test_parameters_and_the_data_are_in_what_a_run_is_a_model_of(folder: Path) -> None:
    command = tiny.words(folder)
    command.insert(3, "n=2")
    assert run(command).exit_code == 0
    assert json.loads(run("profile ./run --format json").stdout)["parameters"] == {"n": 2, "classes": 4}
    assert run([*command[:3], "classes=4", *command[4:]]).exit_code == 2


def test_a_directory_that_is_there_is_not_written_over(folder: Path) -> None:
    run(tiny.words(folder))
    before = (folder / "run" / "result.json").stat().st_mtime_ns
    again = run(tiny.words(folder))
    assert again.exit_code == 2
    assert again.stderr.startswith("error: `")
    assert "already has a run" in again.stderr
    assert (folder / "run" / "result.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_a_run_of_a_few_iterations_can_be_tested_again(folder: Path, iterations: int) -> None:
    """Where the recipe's milestones fall together, or on its end."""
    assert run([*tiny.words(folder), "--iterations", str(iterations)]).exit_code == 0
    result = run("eval run --format json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["iteration"] == iterations


def test_a_run_s_model_is_read_like_any_file_of_unknown_origin(folder: Path) -> None:
    assert run([*tiny.words(folder), "--iterations", "2"]).exit_code == 0
    model = folder / "run" / "model.yaml"
    for junk, message in ((b"\xff\xfe", "not UTF-8 text"), (b"#" * 2**23, "is larger"), (None, "no such file")):
        model.unlink(missing_ok=True)
        if junk is not None:
            model.write_bytes(junk)
        result = run("eval run")
        assert result.exit_code == 2, result.output
        assert message in result.stderr
    os.mkfifo(model)
    assert "is not a regular file" in run("eval run").stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("train-cifar", "no model given: use --depth or --model"),
        ("train-cifar --depth 20 --depth 55", "`--depth 50` or `--depth 56`"),
        (
            "train-cifar n=1 --model cifar_resnet --model cifar_plain",
            '`n=1` is ambiguous with several models\nhint: say which one: `--model "cifar_resnet n=1"`',
        ),
        ("train-cifar --depth 55", "`--depth 50` or `--depth 56`"),
        ("train-cifar --depth 3", "`--depth 8` or `--depth 14`"),
        ("train-cifar depth=20", "`depth=20` is a parameter without a model"),
        ("train-cifar n=1 --depth 20", "to set parameters: `--model cifar_resnet depth=56`"),
        ("train-cifar --model cifar_resnet20 classes=10", "comes from the dataset"),
        ("train-cifar --model cifar_resne", "did you mean `cifar_resnet`"),
        (
            "train-cifar --model cifar_resnet20 cifar_resnet32",
            "`cifar_resnet32` is not a parameter of `cifar_resnet20`\nhint: for another model, repeat `--model`",
        ),
        ("train-cifar --model cifar_resnet1*", "models\nhint: name one, and repeat `--model` for each further"),
        ("train-cifar --depth 20 --recipe resnett", "did you mean `resnet`"),
        ("train-cifar --depth 20 --iterations many", "--iterations: `many`"),
        ("train-cifar --depth 20 --iterations 0", "0"),
        ("train-cifar --depth 20 --checkpoint-every 0", "`--checkpoint-every 0` is out of range"),
        ("train-cifar --depth 20 --seed -1", "`--seed -1` is out of range"),
        ("train-cifar --depth 20 --seeds 0", "`--seeds 0` is out of range"),
        ("train-cifar --depth 20 --bn-batch 0", "`--bn-batch 0` is out of range\nhint: from 2 to 65,536"),
        ("train-cifar --depth 20 --bn-batch 100", "hint: choose a `--bn-batch` that divides `batch_size`"),
        (
            "train-cifar --depth 20 --batch-size 100 --bn-batch 64",
            "hint: choose a `--bn-batch` that divides `--batch-size`",
        ),
        ("train-cifar --depth 20 --dtype fp17", "dtype `fp17` is not supported in training"),
        ("train-cifar --depth 20 --device gpu", "did you mean `cuda`"),
        ("train-cifar --depth 20 --device cpu --cuda-graph", "`--cuda-graph` requires a GPU"),
        ("train-cifar --depth 20 --device cpu --threads 0", "`--threads` must be 1 to 1024"),
        ("train-cifar --depth 20 --data cifar11", "did you mean `cifar10`"),
        ("train-cifar --depth 20 --no-download --data-dir .", "nothing is to be downloaded"),
        ("train-cifar --resume nowhere", "there is no directory `nowhere`"),
        ("train-cifar --resume .", "is not a run"),
        ("eval .", "is not a run"),
        ("train-cifar --depth 8 --data data", "`--data custom --data-dir data`"),
    ],
)
def test_what_cannot_be_is_reported_before_anything_is_made(folder: Path, command: str, said: str) -> None:
    before = sorted(folder.rglob("*"))
    result = run(command)
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert sorted(folder.rglob("*")) == before


def test_a_run_with_more_readings_than_are_kept_is_not_begun(folder: Path) -> None:
    result = run([*tiny.words(folder), "--iterations", "1M", "--eval-every", "5"])
    assert result.exit_code == 2
    assert "error: evaluations and checkpoints at more than 131,072 of 1,000,000 iterations" in result.stderr
    assert not (folder / "run").exists()


def test_the_papers_depths_are_its_own_models(folder: Path) -> None:
    from resnetcli.spec.zoo import Zoo
    from resnetcli.train.paper import depth_model

    assert depth_model(56, Zoo()) == ("cifar_resnet56", {})
    assert depth_model(26, Zoo()) == ("cifar_resnet", {"depth": 26})
    assert depth_model(1202, Zoo()) == ("cifar_resnet1202", {})


def test_the_folder_that_data_convert_has_written_is_enough(folder: Path) -> None:
    command = [word for word in tiny.words(folder) if word not in ("--data", "custom")]
    result = run([*command, "--iterations", "2"])
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "run" / "config.json").read_text())["data"] == "custom"
    other = run([*command[:-1], "other", "--data", "cifar10"])
    assert (other.exit_code, other.stderr.splitlines()[1]) == (2, "hint: `--data custom`")


@pytest.mark.parametrize(
    ("batch", "iterations", "every"),
    [(8, 40, 4), (8, 20, 3), (2, 20, 10), (1, 15, 15), (8, 3, 3), (8, 100, 10), (8, 100_000, 1000), (1, 5000, 500)],
)
def test_a_short_run_is_tested_ten_times_unless_a_test_takes_longer_than_the_way_to_it(
    batch: int, iterations: int, every: int
) -> None:
    assert job.default_eval_every(iterations, batch, 20) == every


@pytest.mark.parametrize("format", thinned(["table", "md", "csv"], 3))
def test_what_train_cifar_and_eval_print_is_as_reviewed(
    format: str, folder: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """One model, and two with two seeds each; errors are fixed and timings masked."""
    evaluation = Evaluation(wrong=9, loss=1.25, n=20)
    monkeypatch.setattr(Trainer, "evaluate", lambda *_, **__: evaluation)
    monkeypatch.setattr(Evaluator, "by_class", lambda _: [Evaluation(wrong, 1.25, 5) for wrong in (0, 2, 3, 4)])
    read = Trainer.read
    monkeypatch.setattr(Trainer, "read", lambda self: replace(read(self), loss=1.5, error_percent=40.0))
    command = tiny.words(folder)
    several = [*tiny.words(folder, "all"), "--model", "tiny.yaml n=2", "--seeds", "2"]
    for name, words in ("train_cifar", command), ("train_cifar_several", several), ("eval", ["eval", "run"]):
        result = run([*(word.replace(f"{folder}/", "") for word in words), "--format", format])
        assert result.exit_code == 0, result.output
        text = re.sub(r"[0-9.,]+ images/s, (less than )?[0-9.]+ \w+", "N images/s, N s", result.stdout)
        check_golden(name if format == "table" else f"{name}_{format}", text, pytestconfig)
