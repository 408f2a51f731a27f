"""Processes that are started together and end together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from resnetcli.errors import UsageError
from resnetcli.parallel.launch import (
    PARENT,
    REPEAT_S,
    ProcessJob,
    Rank,
    drop_gpus_option,
    end_with_parent,
    launch,
    rank_environment,
    read_rank,
    require_gpus,
)
from tests.support.cli import run

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "node0", "MASTER_PORT": "29500"}


def test_a_process_finds_its_place_in_the_environment() -> None:
    assert read_rank(TORCHRUN) == Rank(rank=1, world=4, local_rank=1)
    assert read_rank(rank_environment(1, 2, 29500)) == Rank(rank=1, world=2, local_rank=1)


def test_processes_share_the_processors_that_this_one_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    assert rank_environment(0, 2, 29500)["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("left_out", ["RANK", "WORLD_SIZE"])
def test_a_process_that_torchrun_did_not_start_is_alone(left_out: str) -> None:
    assert read_rank({}) is None
    assert read_rank({name: value for name, value in TORCHRUN.items() if name != left_out}) is None


def test_one_process_of_one_is_alone() -> None:
    assert read_rank({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}) is None


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("RANK", "x", "`RANK` in the environment is `x`, not a number"), ("RANK", "-1", "not a number"),
     ("WORLD_SIZE", "9" * 30, "not a number"),
     ("LOCAL_RANK", "", "`LOCAL_RANK` in the environment is ``, not a number"),
     ("RANK", "4", "rank 4 of 4 processes"), ("WORLD_SIZE", "9999999", "of 9,999,999 processes"),
     ("MASTER_ADDR", "", "`MASTER_ADDR` is not set"), ("MASTER_PORT", "", "`MASTER_PORT` is not set")],
)  # fmt: skip
def test_an_environment_that_is_not_whole_is_refused(name: str, value: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_rank({**TORCHRUN, name: value})


@pytest.mark.parametrize(
    ("words", "left"),
    [(["--gpus", "8", "--depth", "20"], ["--depth", "20"]), (["--depth", "20", "--gpus=8"], ["--depth", "20"]),
     (["--gpus"], []), (["--gpus", "--gpus", "x"], ["x"]), (["a", "gpus", "8"], ["a", "gpus", "8"])],
)  # fmt: skip
def test_the_words_of_the_others_are_the_same_but_for_their_number(words: list[str], left: list[str]) -> None:
    assert drop_gpus_option(["train-cifar", *words]) == ["train-cifar", *left]


def test_more_gpus_than_there_are_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = run("train-cifar --depth 20 --gpus 2")
    assert (result.exit_code, result.stderr) == (
        2, "error: `--gpus 2`: PyTorch finds no GPU\n"
        "hint: for CPUs: `torchrun --nproc-per-node 2 -m resnetcli train-cifar … --device cpu`\n",
    )  # fmt: skip
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(UsageError, match="`--gpus 5`: this machine has 4") as found:
        require_gpus(5, None)
    assert found.value.hint == "at most `--gpus 4`; `CUDA_VISIBLE_DEVICES` may hide some"
    require_gpus(4, "cuda")


@pytest.mark.parametrize(
    ("options", "said"),
    [("--gpus 0", "`--gpus 0` is out of range"),
     ("--gpus 2 --device cpu", "`--gpus 2` cannot be used with `--device cpu`"),
     ("--gpus 2 --device cuda:1", "`--gpus 2` cannot be used with `--device cuda:1`")],
)  # fmt: skip
def test_gpus_that_contradict_the_device_are_refused(options: str, said: str) -> None:
    result = run(f"train-cifar --depth 20 {options}")
    assert result.exit_code == 2
    assert said in result.stderr


def test_who_wants_cpus_is_told_how_at_once() -> None:
    hint = "hint: for CPUs: `torchrun --nproc-per-node 2 -m resnetcli train-cifar … --device cpu`\n"
    assert run("train-cifar --depth 20 --gpus 2 --device cpu").stderr.endswith(hint)
    assert run("train-cifar --depth 20 --gpus 2 --device cuda:1").stderr.endswith("hint: omit `--device`\n")


def test_gpus_are_not_started_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    result = run("train-cifar --depth 20 --gpus 2")
    assert (result.exit_code, result.stderr) == (
        2, "error: `--gpus` cannot be used under `torchrun`, which has started the processes\nhint: omit it\n"
    )  # fmt: skip


def test_gpus_start_the_same_command_so_many_times(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], int]] = []

    def start(command: list[str], world: int, say: object) -> int:
        started.append((command, world))
        return 130

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 8)
    monkeypatch.setattr("resnetcli.parallel.launch.launch", start)
    monkeypatch.setattr("sys.argv", ["resnet-cli", "train-cifar", "--depth", "20", "--gpus", "8", "--seed", "3"])
    assert run("train-cifar --depth 20 --gpus 8 --seed 3").exit_code == 130
    ((command, world),) = started
    assert world == 8
    assert command[0] == sys.executable
    assert command[-5:] == ["train-cifar", "--depth", "20", "--seed", "3"]


# --- waiting -------------------------------------------------------------------------------------------------------


def job(*scripts: str, grace_s: float = 30, checkpoint_s: float = 30) -> tuple[ProcessJob, list[str]]:
    said: list[str] = []
    processes = [subprocess.Popen(["/bin/sh", "-c", script], start_new_session=True) for script in scripts]
    return ProcessJob(processes, said.append, grace_s, checkpoint_s), said


def test_processes_that_all_end_well_end_well() -> None:
    one, said = job("exit 0", "sleep 0.1")
    assert (one.wait(), said) == (0, [])


@pytest.mark.parametrize(("scripts", "code"), [(("exit 2", "exit 3"), 2), (("exit 0", "exit 5"), 3)])
def test_the_first_process_says_how_it_ended_else_it_could_not_finish(scripts: tuple[str, str], code: int) -> None:
    one, said = job(*scripts)
    assert (one.wait(), said) == (code, [])


def test_when_one_was_killed_the_others_are_given_time_and_then_ended() -> None:
    begun = time.monotonic()
    one, said = job("exec sleep 60", "kill -9 $$", "trap 'exit 143' TERM; sleep 0.1; wait", grace_s=0.2)
    assert one.wait() == 3
    assert time.monotonic() - begun < 20
    assert said == ["error: rank 1 was ended by SIGKILL, probably because memory ran out"]
    assert one.processes[0].returncode == -signal.SIGTERM


def test_one_that_does_not_end_is_killed() -> None:
    one, said = job("trap '' TERM; while :; do sleep 0.05; done", "exit 3", grace_s=0.1, checkpoint_s=0.2)
    assert one.wait() == 3
    assert one.processes[0].returncode == -signal.SIGKILL
    assert said == ["error: rank 0 was ended by SIGKILL, probably because memory ran out"]


def after(seconds: float, number: int) -> threading.Timer:
    timer = threading.Timer(seconds, os.kill, (os.getpid(), number))
    timer.start()
    return timer


def test_a_signal_is_passed_on_and_waited_for(tmp_path: Path) -> None:
    script = f"trap 'touch {tmp_path}/ended; exit 143' TERM; touch {tmp_path}/ready; while :; do sleep 0.05; done"
    one, said = job(script)
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    timer = after(0.2, signal.SIGTERM)
    assert (one.wait(), said) == (143, [])
    timer.join()
    assert (tmp_path / "ended").exists()


def test_a_second_signal_ends_them_but_the_same_one_by_two_ways_does_not(tmp_path: Path) -> None:
    now = [100.0]
    one, said = job(f"trap '' INT; touch {tmp_path}/ready; while :; do sleep 0.05; done")
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    one.clock = lambda: now[0]
    with one._forward_signals():
        signal.raise_signal(signal.SIGINT)
        now[0] += REPEAT_S / 2
        signal.raise_signal(signal.SIGINT)
        time.sleep(0.2)
        assert one.processes[0].poll() is None
        now[0] += REPEAT_S
        signal.raise_signal(signal.SIGINT)
        assert one.processes[0].wait(20) == -signal.SIGKILL
    assert one.wait() == 130
    assert len(said) == 1


def test_each_process_is_told_its_place_and_their_end_is_that_of_all(tmp_path: Path) -> None:
    script = (
        'echo "$RANK $LOCAL_RANK $WORLD_SIZE $MASTER_ADDR $RESNET_CLI_PARENT" > "$0/$RANK"; test $RANK = 0 || exit 4'
    )
    assert launch(["/bin/sh", "-c", script, str(tmp_path)], 3, lambda line: None) == 3
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == [
        f"{rank} {rank} 3 127.0.0.1 {os.getpid()}\n" for rank in range(3)
    ]


def test_a_process_whose_parent_has_ended_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.errors import ResourceError

    called: list[int] = []
    monkeypatch.setattr("ctypes.CDLL", lambda name: type("C", (), {"prctl": lambda self, *a: called.append(a[1])})())
    monkeypatch.setenv(PARENT, str(os.getppid()))
    end_with_parent()
    assert called == [signal.SIGTERM]
    monkeypatch.setenv(PARENT, "1000000000")
    with pytest.raises(ResourceError, match="has ended"):
        end_with_parent()
