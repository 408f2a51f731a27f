"""`train-cifar` and `eval` as a user meets them, on a net that takes a moment."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from resnetcli.data.dataset import Dataset
from resnetcli.data.read import load as load_set
from resnetcli.data.write import write_custom
from resnetcli.errors import ResourceError
from resnetcli.plan.memory import memory
from resnetcli.reports.profile import load
from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.runs.lock import lock_directory
from resnetcli.runs.metrics import read_metrics
from resnetcli.train import job
from resnetcli.train.loop import Trainer
from tests.support.cli import run
from tests.train import tiny

pytestmark = pytest.mark.usefixtures("same_threads")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tiny.files(tmp_path)


def weights(run: Path) -> dict[str, bytes]:
    return {name: bytes(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
            for name, tensor in load_file(checkpoints(run)[0][1]).items()}  # fmt: skip


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

    monkeypatch.setattr(job, "load", fetched)
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


def test_a_resume_with_the_recipe_as_it_was_goes_on_and_with_an_edited_one_is_refused(folder: Path) -> None:
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


def test_a_resume_that_names_the_net_is_refused_if_its_file_says_another_one_now(folder: Path) -> None:
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


def test_a_disk_that_is_full_at_the_end_is_told_with_the_way_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("resnetcli.runs.directory.Run.finish", full)
    result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert (
        f"hint: free some space, then continue with `resnet-cli train-cifar --resume {folder / 'run'}`" in result.stderr
    )


def stopped_text(number: int, run: Path) -> str:
    return f"stopped by {signal.Signals(number).name}; to continue: `resnet-cli train-cifar --resume {run}`"


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int = 17, number: int = signal.SIGINT) -> None:
    """A run that a signal has stopped in the middle of a step."""
    step = Trainer.step

    def interrupted(self: Trainer) -> None:
        if self.iteration == at:
            os.kill(os.getpid(), number)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        result = run(tiny.words(folder))
    assert result.exit_code == 128 + number
    assert (
        f"stopped by {signal.Signals(number).name}; to continue: `resnet-cli train-cifar --resume {folder / 'run'}`"
        in (result.stderr)
    )


@pytest.mark.parametrize(
    ("words", "said"),
    [("--eval-every 0", "`--eval-every 0` is out of range\nhint: from 1 to 100,000,000"),
     ("--checkpoint-every -5", "`--checkpoint-every -5` is out of range"),
     ("--eval-every 100000001", "`--eval-every 100000001` is out of range"), ("--threads 0", "0 threads")],
)  # fmt: skip
def test_what_a_resume_may_be_told_anew_is_held_to_its_range(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    with monkeypatch.context() as patched:
        stopped(folder, patched)
    result = run(f"train-cifar --resume run {words}")
    assert result.exit_code == 2
    assert f"error: {said}" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_stopped_run_ends_with_the_same_weights_to_the_bit(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    assert run(tiny.words(folder, "whole")).exit_code == 0
    stopped(folder, monkeypatch, number=number)
    assert not (folder / "run" / "result.json").exists()
    assert [n for n, _ in checkpoints(folder / "run")] == [18]
    result = run("train-cifar --resume run")
    assert result.exit_code == 0, result.output
    assert "resuming at iteration 18/40" in result.stderr
    assert weights(folder / "run") == weights(folder / "whole")


def test_a_resume_on_other_data_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(folder, monkeypatch)
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
    stopped(folder, monkeypatch)
    path = folder / "run" / name
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    result = run("train-cifar --resume run")
    assert result.exit_code == 2
    assert what in result.stderr


DIVERGING = tiny.RECIPE.replace("lr: 0.05", "lr: 1000").replace("at_most: 15", "at_most: 12") + "weight_decay: 1\n"


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(DIVERGING)
    result = run([*tiny.words(folder), "--checkpoint-every", "10"])
    assert result.exit_code == 3
    assert "is not finite" in result.stderr
    assert "Traceback" not in result.output
    assert [n for n, _ in checkpoints(folder / "run")] == [10]
    assert not (folder / "run" / "result.json").exists()
    again = run("train-cifar --resume run")
    assert again.exit_code == 3
    assert "resuming at iteration 10/40" in again.stderr


def test_a_seed_that_diverges_does_not_keep_the_others_from_their_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.step

    def diverges(self: Trainer) -> None:
        if self.seed == 0 and self.iteration == 20:
            raise ResourceError("the loss of iteration 21 is not finite")
        step(self)

    monkeypatch.setattr(Trainer, "step", diverges)
    result = run([*tiny.words(folder, "all"), "--seeds", "2", "--format", "json"])
    assert result.exit_code == 3
    assert result.stderr.endswith("error: not finished: seed 0: the loss of iteration 21 is not finite\n")
    record = json.loads(result.stdout)
    assert (record["seeds"], record["finished"]) == ([0, 1], [1])
    assert record["final_test_error_percent"]["std"] is None


def test_a_batch_that_does_not_fit_is_answered_with_one_that_would(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Trainer) -> None:
        from resnetcli.net.memory import fitting

        with fitting("`tiny` in training", torch.device("cpu"), "use a smaller batch"):
            raise torch.OutOfMemoryError("Tried to allocate 20.00 GiB")

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", full)
        patched.setattr("resnetcli.train.group.device_memory", lambda device: 100_000)
        result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert "does not fit into the memory of `cpu` (failed to allocate 20.00 GiB)" in result.stderr
    room = 90_000 - (30 + 20) * 3 * 8 * 8  # a tenth is not the tensors'; the images are there already
    need = memory(load(str(folder / "tiny.yaml"), classes=4), "train", place="cpu")
    most = max(batch for batch in range(1, 9) if need.bytes(batch) <= room)
    assert 1 < most < 8
    assert f"hint: `--batch-size {most}` would fit (derived)" in result.stderr
    assert not (folder / "run").exists()  # so that the next try has its name


def test_a_machine_that_is_too_small_is_told_before_the_first_step(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resnetcli.train.build.physical_memory", lambda: 50_000)
    result = run(tiny.words(folder))
    assert result.exit_code == 3
    assert "error: a step with a batch of 8 needs" in result.stderr
    assert not (folder / "run").exists()


def test_several_seeds_come_to_a_mean_and_a_deviation(folder: Path) -> None:
    result = run([*tiny.words(folder, "all"), "--seeds", "3", "--seed", "5", "--format", "json"])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record == json.loads((folder / "all" / "summary.json").read_text())
    errors = [json.loads((folder / "all" / f"seed{seed}" / "result.json").read_text())["final_test_error_percent"]
              for seed in (5, 6, 7)]  # fmt: skip
    mean = sum(errors) / 3
    found = record["final_test_error_percent"]
    assert found["mean"] == pytest.approx(mean)
    assert found["std"] == pytest.approx((sum((error - mean) ** 2 for error in errors) / 2) ** 0.5)
    assert (found["best"], found["worst"]) == (min(errors), max(errors))
    assert record["finished"] == [5, 6, 7]
    assert len({tuple(weights(folder / "all" / f"seed{seed}").values()) for seed in (5, 6, 7)}) == 3
    table = run("train-cifar --resume all")
    assert table.exit_code == 0
    assert table.stderr.count("has finished") == 3
    assert " seed   test error %" in table.stdout


def test_several_seeds_go_on_where_they_were_stopped(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, begun = Trainer.step, []

    def interrupted(self: Trainer) -> None:
        if self.seed == 1 and self.iteration == 20:
            begun.append(self.seed)
            os.kill(os.getpid(), signal.SIGTERM)
        step(self)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", interrupted)
        assert run([*tiny.words(folder, "all"), "--seeds", "3"]).exit_code == 143
    assert begun == [1]
    assert not list((folder / "all" / "seed2").glob("checkpoint-*"))
    other = run("train-cifar --resume all --seeds 4")
    assert (other.exit_code, other.stderr.splitlines()[0]) == (2, "error: `all` has the seeds 0 to 2")
    with lock_directory(folder / "all"):
        third = run("train-cifar --resume all")
    assert (third.exit_code, third.stderr.splitlines()[0]) == (2, "error: another process is training in `all`")
    assert run("train-cifar --resume all").exit_code == 0
    assert json.loads((folder / "all" / "summary.json").read_text())["finished"] == [0, 1, 2]
    assert run([*tiny.words(folder, "alone"), "--seed", "1"]).exit_code == 0
    assert weights(folder / "all" / "seed1") == weights(folder / "alone")
    assert run([*tiny.words(folder, "last"), "--seed", "2"]).exit_code == 0
    assert weights(folder / "all" / "seed2") == weights(folder / "last")


def test_a_seed_that_was_killed_before_its_first_step_is_trained_at_a_resume(folder: Path) -> None:
    assert run([*tiny.words(folder, "all"), "--seeds", "2"]).exit_code == 0
    seed = folder / "all" / "seed1"
    before = weights(seed)
    for file in seed.iterdir():
        if not file.name.endswith((".yaml", ".lock", "config.json")):
            file.unlink()
    (seed / ".metrics.jsonl.part").touch()
    result = run("train-cifar --resume all")
    assert result.exit_code == 0, result.output
    assert weights(seed) == before
    (seed / "config.json").unlink()  # of a run that has checkpoints nothing is removed
    again = run("train-cifar --resume all")
    assert (again.exit_code, again.stderr.splitlines()[-2]) == (
        2, f"error: `{Path('all') / 'seed1'}` is not a run: it has no config.json"
    )  # fmt: skip
    assert weights(seed) == before


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
        ("train-cifar --depth 20 --recipe resnett", "did you mean `resnet`"),
        ("train-cifar --depth 20 --iterations many", "--iterations: `many`"),
        ("train-cifar --depth 20 --iterations 0", "0"),
        ("train-cifar --depth 20 --checkpoint-every 0", "`--checkpoint-every 0` is out of range"),
        ("train-cifar --depth 20 --seed -1", "`--seed -1` is out of range"),
        ("train-cifar --depth 20 --seeds 0", "`--seeds 0` is out of range"),
        ("train-cifar --depth 20 --bn-batch 0", "`--bn-batch 0` is out of range\nhint: from 2 to 65,536"),
        ("train-cifar --depth 20 --bn-batch 100", "hint: `--bn-batch` divides `batch_size`"),
        ("train-cifar --depth 20 --batch-size 100 --bn-batch 64", "hint: `--bn-batch` divides `--batch-size`"),
        ("train-cifar --depth 20 --dtype fp17", "dtype `fp17` is not supported in training"),
        ("train-cifar --depth 20 --device gpu", "did you mean `cuda`"),
        ("train-cifar --depth 20 --device cpu --cuda-graph", "a CPU has no CUDA graphs"),
        ("train-cifar --depth 20 --device cpu --threads 0", "0 threads"),
        ("train-cifar --depth 20 --data cifar11", "did you mean `cifar10`"),
        ("train-cifar --depth 20 --no-download --data-dir .", "nothing is to be downloaded"),
        ("train-cifar --resume nowhere", "there is no directory `nowhere`"),
        ("train-cifar --resume .", "is not a run"),
        ("eval .", "is not a run"),
        ("train-cifar --depth 8 --data data", "`--data custom --data-dir data`"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_made(folder: Path, command: str, said: str) -> None:
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


def test_the_papers_depths_are_its_own_nets(folder: Path) -> None:
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_the_data_is_read_ends_the_command_with_nothing_begun(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def stopped(*args: Any, **how: Any) -> Dataset:
        os.kill(os.getpid(), number)
        time.sleep(60)
        raise AssertionError("it went on")

    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(job, "load", stopped)
        result = run(tiny.words(folder))
        assert (result.exit_code, result.stderr) == (
            128 + number,
            f"stopped by {signal.Signals(number).name} before the first step: run the same command again "
            "(a download resumes)\n",
        )
        assert not (folder / "run").exists()
    assert signal.getsignal(number) is before
    assert run([*tiny.words(folder), "--iterations", "2"]).exit_code == 0
    (folder / "run" / "result.json").unlink()
    monkeypatch.setattr(job, "load", stopped)
    again = run("train-cifar --resume run")
    assert again.exit_code == 128 + number
    assert "to continue: `resnet-cli train-cifar --resume run`" in again.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("split", ["test", "train"])
def test_a_signal_during_an_evaluation_ends_it_at_once_and_the_run_goes_on_later(
    folder: Path, monkeypatch: pytest.MonkeyPatch, number: int, split: str
) -> None:
    evaluate = Trainer.evaluate

    def stopped(self: Trainer, which: str = "test", part: tuple[int, int] = (0, 1)) -> Any:
        if which == split and self.iteration >= 20:
            os.kill(os.getpid(), number)
            time.sleep(60)
        return evaluate(self, which, part)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "evaluate", stopped)
        result = run(tiny.words(folder))
    assert result.exit_code == 128 + number, result.output
    assert (
        f"stopped by {signal.Signals(number).name}; to continue: `resnet-cli train-cifar --resume {folder / 'run'}`"
        in (result.stderr)
    )
    assert run("train-cifar --resume run").exit_code == 0
    assert run(tiny.words(folder, "whole")).exit_code == 0
    assert weights(folder / "run") == weights(folder / "whole")
    assert [(p.iteration, p.test_loss) for p in read_metrics(folder / "run")] == [
        (p.iteration, p.test_loss) for p in read_metrics(folder / "whole")
    ]


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
    stopped(folder, monkeypatch)
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


def test_of_two_that_resume_one_run_one_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped(folder, monkeypatch)
    with lock_directory(folder / "run"):
        result = run("train-cifar --resume run")
    assert (result.exit_code, result.stderr.splitlines()[0]) == (2, "error: another process is training in `run`")
    with lock_directory(folder / "new", new=True):
        result = run(tiny.words(folder, "new"))
    assert result.exit_code == 2
    assert "another process is training in" in result.stderr


@pytest.mark.parametrize(
    ("batch", "iterations", "every"),
    [(8, 40, 4), (8, 20, 3), (2, 20, 10), (1, 15, 15), (8, 3, 3), (8, 100, 10), (8, 100_000, 1000), (1, 5000, 500)],
)
def test_a_short_run_is_tested_ten_times_unless_a_test_takes_longer_than_the_way_to_it(
    batch: int, iterations: int, every: int
) -> None:
    assert job.default_eval_every(iterations, batch, 20) == every


# --- killed --------------------------------------------------------------------------------------------------------


def killed_and_resumed(folder: Path, kills: int, iterations: int) -> None:
    """A run that is killed at random moments and resumed each time; its end is held to an uninterrupted one's."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["resnetcli.train.group", "resnetcli.cli.main", "tests.train.tiny"])
    options = ["--iterations", str(iterations), "--checkpoint-every", "7"]

    def start(words: list[str]) -> BaseProcess:
        process = context.Process(target=tiny.command, args=(words, folder))
        process.start()
        return process

    whole = start([*tiny.words(folder, "whole"), *options])
    whole.join(300)
    said = (folder / "said.txt").read_text()
    assert whole.exitcode == 0, said
    took: float = json.loads((folder / "whole" / "result.json").read_text())["wall_s"]

    dice, done, tries = random.Random(2015), 0, 0
    words = [*tiny.words(folder), *options]
    while done < kills:
        tries += 1
        assert tries < 5 * kills, "it ends before it can be killed"
        process = start(words)
        began = time.monotonic()
        while not (folder / "run" / "config.json").exists() and process.is_alive() and time.monotonic() < began + 60:
            time.sleep(0.001)
        process.join(dice.uniform(0, 2 * took / kills))
        if process.is_alive():
            process.kill()
            process.join()
            done += process.exitcode == -signal.SIGKILL
        assert not (folder / "run" / "result.json").exists(), "it ended before it was killed often enough"
        words = ["train-cifar", "--resume", "run"]
    last = start(words)
    last.join(300)
    assert last.exitcode == 0, (folder / "said.txt").read_text()
    assert weights(folder / "run") == weights(folder / "whole")
    assert [_lasting(p) for p in read_metrics(folder / "run")] == [_lasting(p) for p in read_metrics(folder / "whole")]


def _lasting(point: Any) -> tuple[Any, ...]:
    """What of a reading does not depend on how quick the machine was."""
    return point.iteration, point.lr, point.train_loss, point.train_error_percent, point.test_loss


def test_a_run_killed_at_three_random_moments_ends_with_the_same_weights_to_the_bit(folder: Path) -> None:
    killed_and_resumed(folder, kills=3, iterations=400)


@pytest.mark.slow
def test_a_run_killed_at_twenty_random_moments_ends_with_the_same_weights_to_the_bit(folder: Path) -> None:
    killed_and_resumed(folder, kills=20, iterations=3000)
