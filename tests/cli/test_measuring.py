"""`--mode`, `--memory`, `--energy` and `--best` as a user meets them; models that are quick."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from resnetcli.bench import latency
from resnetcli.bench.energy import Meter, spend
from resnetcli.bench.interleaved import Interleaved
from resnetcli.bench.options import RunOptions
from resnetcli.bench.search import FP32, SettingsSearch, checked
from resnetcli.bench.versus import paired
from resnetcli.bench.worker import Job
from resnetcli.errors import ResourceError
from resnetcli.plan.plan import Plan
from tests.support.cli import run
from tests.support.measured import measured

NET = "cifar_resnet20 --device cpu --time-budget 100ms"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("profile resnet50 --mode train", "`--mode` requires --device"),
        ("compare --memory", "`--memory` requires --device"),
        ("profile resnet50 --energy", "`--energy` requires --device"),
        ("profile resnet50 --device cpu --mode tarin", "did you mean `train`"),
        ("profile resnet50 --device cpu --mode train --fold-bn", "omit `--fold-bn`"),
        ("compare --device cpu --mode train --best", "`--best` cannot be used with `--mode train`"),
        ("profile resnet50 --device cpu --energy --best", "`--best` cannot be used with `--energy`"),
    ],
)
def test_what_contradicts_itself_is_refused(command: str, says: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert says in result.stderr


def test_a_training_step_is_profiled_with_its_phases() -> None:
    result = run(f"profile {NET} --mode train")
    assert result.exit_code == 0
    for word in ("cpu train fp32", "forward", "backward", "optimizer", "derived", "training steps", "timed separately"):
        assert word in result.stdout
    assert "J/image" not in result.stdout
    (m,) = json.loads(run(f"profile {NET} --mode train --format json").stdout)["measurements"]
    assert m["mode"] == "train"
    assert 0 < m["phases"]["optimizer"]["median_s"] < m["phases"]["backward"]["median_s"]


def test_training_steps_are_compared_also_with_a_file_of_inference_only_with_an_error(tmp_path: Path) -> None:
    file = tmp_path / "old.json"
    result = run(f"compare {NET} cifar_resnet32 --mode train --format json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found["timings"][0]["ratios"][0]["ratio"] > 1
    record = found["models"][0]["measurements"][0]
    kept = {
        "model": "cifar_resnet20", "parameters": found["models"][0]["parameters"], "input": [3, 32, 32], "batch": 1,
        "params": 1, "macs": 1, "median_s": 0.1, "interval_s": [0.1, 0.1], "torch": "2",
        "conditions": {"device_name": record["device_name"], "device": "cpu", "mode": "infer"},
    }  # fmt: skip
    for name in ("processors", "dtype", "tf32", "threads", "channels_last", "fold_bn", "runtime", "cuda_graph",
                 "keep_memory", "cudnn_benchmark"):  # fmt: skip
        kept["conditions"][name] = record.get(name, record["environment"]["after"].get(name))
    file.write_text(json.dumps({"schema": "resnet-cli/baseline@1", "results": [kept]}))
    result = run(f"compare {NET} --mode train --against {file}")
    assert result.exit_code == 2
    assert "with other settings: mode `infer`, now `train`" in result.stderr


def test_a_model_that_cannot_be_trained_on_one_image_is_a_line_and_larger_batches_appear(tmp_path: Path) -> None:
    net = tmp_path / "net.yaml"
    net.write_text("input: 3x8x8\ntable: {conv: 3x3 8, head: [global avg, bn, fc 10]}\n")
    result = run(f"profile {net} --device cpu --time-budget 50ms --mode train --batch-size 1,2")
    assert result.exit_code == 0
    assert "normalises each channel over one value" in result.stdout
    assert run(f"profile {net} --device cpu --time-budget 50ms --mode train").exit_code == 3


@pytest.mark.slow
def test_memory_is_that_of_a_separate_process() -> None:
    result = run(f"profile {NET} --memory --format json")
    assert result.exit_code == 0
    (m,) = json.loads(result.stdout)["measurements"]
    assert m["memory"]["process_bytes"] > 10 * m["live_peak_bytes"]  # torch itself is in it
    result = run(f"compare {NET} --memory")
    assert "by itself" in result.stdout
    assert "process" in result.stdout


def test_energy_is_a_column_where_there_is_a_meter_and_else_said_to_be_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "meter", lambda *names, gpu: None)
    assert "energy: not available" in run(f"profile {NET} --energy").stdout
    joules = iter(range(10**6))
    monkeypatch.setattr("resnetcli.bench.energy.SETTLE_S", 0.0)
    monkeypatch.setattr(latency, "spend", partial(spend, least_s=0.1))
    monkeypatch.setattr("resnetcli.bench.latency.idle_power", lambda *others: 5.0)
    monkeypatch.setattr(latency, "meter", lambda *names, gpu: Meter("RAPL", lambda: (float(next(joules)),), (0.0,)))
    result = run(f"compare {NET} --energy")
    assert "J/image" in result.stdout
    assert "J/image: RAPL over at least 0." in result.stdout
    assert "5 W when idle" in result.stdout


@pytest.mark.slow
def test_best_finds_settings_that_pass_and_are_no_slower_than_eager() -> None:
    result = run(f"profile {NET} --best --threads 1 --format json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    trials = found["trials"]
    assert trials[0]["settings"] == "fp32"
    assert [trial["settings"] for trial in trials if trial["best"]] == [found["measurements"][0]["settings"]]
    passed = [trial for trial in trials if trial["passed"]]
    assert found["measurements"][0]["median_s"] == min(trial["measurement"]["median_s"] for trial in passed)
    assert len(passed) >= 4
    for trial in passed[1:]:
        off = trial["measurement"]["deviation_outputs"]
        assert off is None or off <= trial["measurement"]["tolerance"]
    assert found["measurements"][0]["median_s"] <= trials[0]["measurement"]["median_s"]


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_search_that_is_stopped_leaves_nothing_behind(number: signal.Signals, code: int, tmp_path: Path) -> None:
    script = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
    script += "from resnetcli.cli.main import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", script, "profile", *NET.split(), "--best"],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        until = time.monotonic() + 60
        while not list(tmp_path.iterdir()) and time.monotonic() < until:
            time.sleep(0.05)
        assert list(tmp_path.iterdir())  # the first trial's process
        process.send_signal(number)
        printed, said = process.communicate(timeout=20)
    assert (process.returncode, printed, said) == (code, b"", b"")
    assert list(tmp_path.iterdir()) == []


# --- compare --best ----------------------------------------------------------------------------------------------


@pytest.fixture
def climbed(monkeypatch: pytest.MonkeyPatch) -> list[list[Job]]:
    """Ladders whose best is bf16 at batch 1 and fp32 at others; what was then timed in turns."""
    asked: list[list[Job]] = []

    def search(plan: Plan, *, batch_size: int, **others: object) -> SettingsSearch:
        if plan.name == "cifar_resnet44":
            return SettingsSearch(
                batch_size, (checked(FP32, "out of memory"), checked(RunOptions(dtype="bf16"), "out of memory"))
            )
        quick = checked(RunOptions(dtype="bf16"), measured(0.2 / batch_size, batch=batch_size))
        return SettingsSearch(batch_size, (checked(FP32, measured(0.1, batch=batch_size)), quick))

    def measure_interleaved_subprocesses(jobs: list[Job], **others: object) -> Interleaved:
        asked.append(jobs)
        found = tuple(measured(0.01 * (number + 1), batch=job.batch_size) for number, job in enumerate(jobs))
        ratios = (None, *(paired([1.0], [number + 1.0], 0.01) for number in range(1, len(jobs))))
        return Interleaved(found, ratios, 0.01, 12, True)

    monkeypatch.setattr("resnetcli.bench.benchmark.search", search)
    monkeypatch.setattr("resnetcli.bench.benchmark.measure_interleaved_subprocesses", measure_interleaved_subprocesses)
    return asked


def test_the_best_of_each_model_at_each_batch_are_timed_interleaved(climbed: list[list[Job]]) -> None:
    nets = "cifar_resnet20 cifar_resnet32 cifar_resnet56"
    result = run(f"compare {nets} --device cpu --best --batch-size 1,8 --baseline cifar_resnet32")
    assert result.exit_code == 0
    assert [[job.plan.name for job in jobs] for jobs in climbed] == [
        ["cifar_resnet32", "cifar_resnet20", "cifar_resnet56"]
    ] * 2
    assert [[job.options.dtype for job in jobs] for jobs in climbed] == [["fp32"] * 3, ["bf16"] * 3]
    assert [{job.batch_size for job in jobs} for jobs in climbed] == [{1}, {8}]
    assert "each at its best settings in a separate process, 12 rounds" in result.stdout
    assert result.stdout.count("2.00x slower") == 2
    found = json.loads(run(f"compare {nets} --device cpu --best --format json").stdout)
    assert [len(model["measurements"]) for model in found["models"]] == [1, 1, 1]
    assert found["models"][2]["measurements"][0]["median_s"] == 0.03
    assert [trial["best"] for trial in found["models"][0]["trials"]] == [True, False]


def test_a_model_that_no_setting_suits_is_a_line_and_the_others_take_turns(climbed: list[list[Job]]) -> None:
    result = run("compare cifar_resnet44 cifar_resnet20 cifar_resnet56 --device cpu --best")
    assert result.exit_code == 0
    assert "not measured: nothing could be measured at batch 1: out of memory" in result.stdout
    assert [[job.plan.name for job in jobs] for jobs in climbed] == [["cifar_resnet20", "cifar_resnet56"]]
    assert "against cifar_resnet20" in result.stdout
    assert run("compare cifar_resnet44 --device cpu --best").exit_code == 3


def test_a_batch_that_no_setting_suits_is_a_line_and_the_other_batches_appear(
    climbed: list[list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """At batch 8 of the second model nothing passes, and what is tried once more fails once more."""
    from resnetcli.bench import benchmark

    search: Callable[..., SettingsSearch] = vars(benchmark)["search"]
    measure_interleaved_subprocesses: Callable[..., Interleaved] = vars(benchmark)["measure_interleaved_subprocesses"]

    def small_room(plan: Plan, *, batch_size: int, **others: Any) -> SettingsSearch:
        if plan.name == "cifar_resnet56" and batch_size == 8:
            return SettingsSearch(
                8, (checked(FP32, "out of memory"), checked(RunOptions(dtype="bf16"), "out of memory"))
            )
        return search(plan, batch_size=batch_size, **others)

    def no_room(jobs: list[Job], **others: Any) -> Interleaved:
        found = measure_interleaved_subprocesses(jobs, **others)
        large = [job.plan.name == "cifar_resnet56" and job.batch_size == 8 for job in jobs]
        outcomes = [
            ResourceError("out of memory") if is_so else m for is_so, m in zip(large, found.measured, strict=True)
        ]
        ratios = [None if is_so else ratio for is_so, ratio in zip(large, found.ratios, strict=True)]
        return dataclasses.replace(found, measured=tuple(outcomes), ratios=tuple(ratios))

    monkeypatch.setattr("resnetcli.bench.benchmark.search", small_room)
    monkeypatch.setattr("resnetcli.bench.benchmark.measure_interleaved_subprocesses", no_room)
    result = run("profile cifar_resnet56 --device cpu --best --batch-size 1,8")
    assert result.exit_code == 0, result.stderr
    assert "not measured: nothing could be measured at batch 8: out of memory" in result.stdout
    assert result.stdout.count("not run") == 2
    assert result.stdout.count("out of memory") == 3  # of each trial, and of the batch, below the table
    result = run("profile cifar_resnet56 --device cpu --best --batch-size 1,8 --format csv")
    assert [line["batch"] for line in csv.DictReader(result.stdout.splitlines()) if line["stage"] == "total"] == ["1"]
    assert result.stderr == "warning: not measured: nothing could be measured at batch 8: out of memory\n"
    assert run("profile cifar_resnet56 --device cpu --best --batch-size 8").exit_code == 3
    result = run("compare cifar_resnet20 cifar_resnet56 --device cpu --best --batch-size 1,8 --format json")
    assert result.exit_code == 0, result.stderr
    models = json.loads(result.stdout)["models"]
    assert [[m["batch"] for m in model["measurements"]] for model in models] == [[1, 8], [1]]
    assert [[failure["batch"] for failure in model["failures"]] for model in models] == [[], [8]]
    assert [job.options for job in climbed[-1]] == [RunOptions(dtype="bf16"), FP32]


def test_where_they_cannot_take_turns_the_reason_is_reported(
    climbed: list[list[Job]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **others: object) -> None:
        raise ResourceError("its process ended with SIGSEGV")

    monkeypatch.setattr("resnetcli.bench.benchmark.measure_interleaved_subprocesses", fail)
    result = run("compare cifar_resnet20 cifar_resnet56 --device cpu --best")
    assert result.exit_code == 3
    assert "its process ended with SIGSEGV" in result.stderr
    assert run("profile cifar_resnet20 --device cpu --best").exit_code == 0
