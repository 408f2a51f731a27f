"""Two processes on this machine train as one does; when one fails, all end soon."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from resnetcli.data.write import write_custom
from resnetcli.parallel.launch import PARENT, launch, own_command, rank_environment
from resnetcli.runs.checkpoint import files as checkpoints
from resnetcli.runs.directory import open_run
from resnetcli.runs.metrics import read_metrics
from tests.support import tiny
from tests.support.cli import run
from tests.support.ranks import PATCHED, Ranks, assert_close, patched_command, run_ranks, same_state

RECIPE = tiny.RECIPE.replace("iterations: 40", "iterations: 40\nweight_decay: 1e-3")
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tiny.files(tmp_path, RECIPE)
    model = tmp_path / "tiny.yaml"
    model.write_text(model.read_text().replace("dropout 0.2, ", ""))  # its masks differ between processes
    return tmp_path


@pytest.mark.slow
def test_two_processes_train_as_one_with_batch_norm_over_half_the_batch(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*tiny.words(folder, "two"), "--train-split", "28", "--format", "json"]
    other = Ranks(own_command(words), folder, first=1)
    alone = run([*tiny.words(folder, "one"), "--train-split", "28", "--bn-batch", "4", "--format", "json"])
    assert alone.exit_code == 0, alone.output
    for name, value in rank_environment(0, 2, other.store.port).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(PARENT, "")
    first = run(words)  # in this process: importing torch again takes longer than the test
    ended = other.end()
    assert (first.exit_code, ended.codes) == (0, [0]), (first.output, ended.outputs)
    assert_close(folder / "one", folder / "two")
    one, two = (open_run(folder / name) for name in ("one", "two"))
    assert one.config.bound == two.config.bound
    assert (one.config.processes, two.config.processes) == (1, 2)
    assert one.result is not None
    assert two.result is not None
    for name in ("final_test_error_percent", "final_train_error_percent", "test_images", "train_images"):
        assert one.result[name] == two.result[name]
    assert two.result["final_test_loss"] == pytest.approx(one.result["final_test_loss"], rel=1e-4)
    assert two.result["processes"] == 2
    # Every reading is over the images of all processes.
    for mine, its in zip(read_metrics(one.path), read_metrics(two.path), strict=True):
        assert (mine.iteration, mine.lr, mine.test_error_percent) == (its.iteration, its.lr, its.test_error_percent)
        assert its.train_loss == pytest.approx(mine.train_loss, rel=1e-3)
        assert its.train_error_percent == pytest.approx(mine.train_error_percent)
        assert its.validation_error_percent == mine.validation_error_percent
    assert "2 processes, each on " in first.stderr
    assert json.loads(first.stdout) == two.result
    assert ended.outputs == [""]  # only rank 0 prints


@pytest.mark.slow
@pytest.mark.parametrize(
    ("more", "message"),
    [(["--batch-size", "9"], "error: a batch of 9 cannot be split over 2 processes\nhint: `--batch-size 8`"),
     (["--bn-batch", "8"], "error: BatchNorm is over 8 images, but each of 2 processes has 4 of a batch"),
     (["--recipe", "resmet"], "error: unknown recipe `resmet`\nhint: did you mean"),
     (["--depth", "57"], "error: He et al. have no CIFAR ResNet with 57 layers")],
)  # fmt: skip
def test_bad_input_is_reported_once_and_ends_all(folder: Path, more: list[str], message: str) -> None:
    ended = run_ranks([*tiny.words(folder), *more], folder)
    assert ended.codes == [2, 2]
    assert ended.outputs[0].startswith(message)
    assert ended.outputs[1] == ""
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_a_dataset_that_one_rank_does_not_have_is_reported_by_rank_0(folder: Path) -> None:
    (folder / "other").mkdir()
    write_custom(folder / "other", tiny.split(30, 9), tiny.split(20, 2), ["a", "b", "c", "d"])
    patch = f"""
import os
from pathlib import Path
from resnetcli.parallel import team
load = team.read_dataset
team.read_dataset = lambda name, path, **more: load(name, Path({str(folder / "other")!r}), **more)
from resnetcli.cli.main import main
main()
"""
    ended = Ranks([sys.executable, "-c", patch, *tiny.words(folder)], folder).end()
    assert ended.codes == [2, 2]
    assert re.match(
        r"error: rank 1, on \S+: the dataset differs from that of rank 0\nhint: every machine needs the same",
        ended.outputs[0],
    )
    assert ended.outputs[1] == ""
    assert not (folder / "run").exists()


@pytest.mark.slow
def test_a_run_resumes_with_another_number_of_processes(folder: Path) -> None:
    """2 processes, then 1, then 2 again, against one from beginning to end; and 2 all the way, to the bit."""
    kill = "os.kill(os.getpid(), signal.SIGTERM)"
    assert run_ranks(tiny.words(folder, "two"), folder).codes == [0, 0]
    assert run([*tiny.words(folder, "one"), "--bn-batch", "4"]).exit_code == 0

    first = Ranks(patched_command(11, kill, tiny.words(folder, "mixed")), folder).end()
    assert first.codes == [143, 143], first.outputs
    assert "stopped by SIGTERM; to continue: `resnet-cli train-cifar --resume" in first.outputs[0]
    at = checkpoints(folder / "mixed")[0][0]
    assert 11 <= at <= 13  # the others receive it with the next command
    resumed = subprocess.run(patched_command(23, kill, ["train-cifar", "--resume", "mixed"], rank=0),
                             env={**os.environ, "RANK": "0"}, capture_output=True, text=True, check=False)  # fmt: skip
    assert resumed.returncode == 143, resumed.stderr
    assert f"resuming at iteration {at}/40" in resumed.stderr
    assert "different number of processes than before: the last digits of the weights may differ" in resumed.stderr
    assert checkpoints(folder / "mixed")[0][0] == 24
    last = run_ranks(["train-cifar", "--resume", "mixed"], folder)
    assert last.codes == [0, 0], last.outputs
    assert "resuming at iteration 24/40" in last.outputs[0]
    assert_close(folder / "one", folder / "mixed")
    assert_close(folder / "two", folder / "mixed")

    assert Ranks(patched_command(17, kill, tiny.words(folder, "stopped")), folder).end().codes == [143, 143]
    assert run_ranks(["train-cifar", "--resume", "stopped"], folder).codes == [0, 0]
    assert same_state(folder / "two", folder / "stopped")


@pytest.mark.slow
def test_a_run_with_larger_batch_norm_groups_does_not_resume_in_two_processes(folder: Path) -> None:
    stopped = subprocess.run(patched_command(17, "os.kill(os.getpid(), signal.SIGINT)", tiny.words(folder), rank=0),
                             env={**os.environ, "RANK": "0"}, capture_output=True, check=False)  # fmt: skip
    assert stopped.returncode == 130
    ended = run_ranks(["train-cifar", "--resume", "run"], folder)
    assert ended.codes == [2, 2]
    assert ended.outputs[0].startswith("error: BatchNorm is over 8 images, but each of 2 processes has 4 of a batch\n"
                                    "hint: resume with at most 1")  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_killed_process_ends_the_others_and_the_run_can_be_resumed(folder: Path, rank: int) -> None:
    words = [*tiny.words(folder), "--checkpoint-every", "10"]
    begun = time.monotonic()
    ended = Ranks(patched_command(27, "os.kill(os.getpid(), signal.SIGKILL)", words, rank), folder).end()
    assert time.monotonic() - begun < 60
    assert ended.codes[rank] == -signal.SIGKILL
    assert ended.codes[1 - rank] == 3
    output = ended.outputs[1 - rank]
    assert "another of the 2 processes has ended, or does not respond" in output
    assert "Traceback" not in output
    assert [at for at, _ in checkpoints(folder / "run")] == [20, 10]
    assert run_ranks(tiny.words(folder, "whole"), folder).codes == [0, 0]
    assert run_ranks(["train-cifar", "--resume", "run"], folder).codes == [0, 0]
    assert same_state(folder / "run", folder / "whole")


@pytest.mark.slow
def test_a_process_that_does_not_respond_times_out(folder: Path) -> None:
    patch = f"""
from resnetcli.parallel import team
join_team = team.join_team
team.join_team = lambda rank, download: join_team(rank, download=download, timeout_s=6)
{PATCHED.format(at=5, what="os.kill(os.getpid(), signal.SIGSTOP)", rank=1)}
"""
    team = Ranks([sys.executable, "-c", patch, *tiny.words(folder)], folder)
    try:
        assert team.processes[0].wait(90) == 3
    finally:
        team.processes[1].kill()
    output = team.end().outputs[0]
    assert "another of the 2 processes has ended, or does not respond" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_a_loss_that_is_not_finite_in_one_of_them_stops_all_before_the_update(folder: Path) -> None:
    words = [*tiny.words(folder), "--checkpoint-every", "10"]
    nan = "f = loop.F.cross_entropy; loop.F.cross_entropy = lambda *a, **k: f(*a, **k) * float('nan')"
    ended = Ranks(patched_command(25, nan, words), folder).end()
    assert ended.codes == [3, 3], ended.outputs
    assert "the loss or a gradient of iteration 26 is not finite" in ended.outputs[0]
    assert ended.outputs[1] == ""
    assert [at for at, _ in checkpoints(folder / "run")] == [20, 10]


@pytest.mark.slow
def test_several_seeds_are_trained_by_the_same_processes(folder: Path) -> None:
    ended = run_ranks([*tiny.words(folder, "seeds"), "--seeds", "2", "--format", "json"], folder)
    assert ended.codes == [0, 0], ended.outputs
    record = json.loads((folder / "seeds" / "summary.json").read_text())
    assert record["finished"] == [0, 1]
    assert run([*tiny.words(folder, "one"), "--seed", "1", "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "seeds" / "seed1")


@pytest.mark.slow
@pytest.mark.parametrize("more", [["--dtype", "bf16", "--channels-last"], ["--channels-last"]])
def test_other_layouts_and_precisions_are_data_parallel_too(folder: Path, more: list[str]) -> None:
    ended = run_ranks([*tiny.words(folder), *more], folder)
    assert ended.codes == [0, 0], ended.outputs
    assert "Warning" not in ended.outputs[0]
    assert ended.outputs[1] == ""


@pytest.mark.slow
def test_a_signal_to_the_launcher_stops_them_all_with_a_checkpoint(folder: Path) -> None:
    lines: list[str] = []
    stop = patched_command(11, "os.kill(os.getppid(), signal.SIGINT)", tiny.words(folder))
    assert launch(stop, 2, lines.append) == 130
    assert lines == []
    ((at, _),) = checkpoints(folder / "run")
    assert 11 <= at < 40
    assert launch(own_command(["train-cifar", "--resume", "run"]), 2, lines.append) == 0
    assert run_ranks(tiny.words(folder, "whole"), folder).codes == [0, 0]
    assert same_state(folder / "run", folder / "whole")


@pytest.mark.slow
def test_if_the_launcher_is_killed_they_end_with_a_checkpoint(folder: Path) -> None:
    words = patched_command(
        11, "os.kill(os.getppid(), signal.SIGKILL)", [*tiny.words(folder), "--iterations", "100000"]
    )
    starter = [sys.executable, "-c", f"from resnetcli.parallel.launch import launch\nlaunch({words!r}, 2, print)"]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(
        starter, env={**os.environ, "PYTHONPATH": root}, capture_output=True, timeout=120, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert checkpoints(folder / "run")  # they hold its output open, so reading it waits for them


@pytest.mark.slow
def test_torchrun_starts_them(folder: Path) -> None:
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "resnetcli",
    ]
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([*torchrun, *tiny.words(folder, "two")], env={**os.environ, "PYTHONPATH": root},
                          capture_output=True, text=True, timeout=120, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("test error %") == 1
    assert run([*tiny.words(folder, "one"), "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "two")


@pytest.mark.gpu
@pytest.mark.values
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="no two CUDA devices")
def test_two_gpus_train_as_one_does(folder: Path) -> None:
    one, two = (["cuda" if word == "cpu" else word for word in tiny.words(folder, name)] for name in ("one", "two"))
    ended = run_ranks(two, folder)
    assert ended.codes == [0, 0], ended.outputs
    assert run([*one, "--bn-batch", "4"]).exit_code == 0
    assert_close(folder / "one", folder / "two")
