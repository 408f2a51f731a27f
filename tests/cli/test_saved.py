"""`--save`, `--against`, `--batch-size`, `--time-budget` and the limits as a user meets them; two fast models."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from resnetcli.bench.environment import Ledger, Noise
from tests.support.cli import run

NETS = "cifar_resnet20 cifar_resnet32"
ROOT = Path(__file__).parents[2]
PRINTS = """\
from torch import nn

class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(288, 10))

    def forward(self, x):
        print("a forward pass")
        return super().forward(x)
"""
QUICK = f"compare {NETS} --device cpu --time-budget 100ms"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def _quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if no other program ran, whatever this machine does meanwhile, and no interval were wide."""
    monkeypatch.setattr(Ledger, "noise", lambda self: ())
    monkeypatch.setattr("resnetcli.bench.latency.spread", lambda limits, middle: ())
    monkeypatch.setattr("resnetcli.bench.interleaved.noise_floor", lambda base, again: 0.01)


@pytest.fixture
def _noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Ledger, "noise", lambda self: (Noise("others", 0.4),))


def altered(path: Path, factor: float, **conditions: Any) -> None:
    """A saved file as if all had taken `factor` times as long."""
    record = json.loads(path.read_text())
    for result in record["results"]:
        result["median_s"] *= factor
        result["interval_s"] = [limit * factor for limit in result["interval_s"]]
        result["conditions"] |= conditions
    path.write_text(json.dumps(record))


@pytest.mark.usefixtures("_quiet")
def test_a_run_is_saved_and_a_later_one_compared_with_it(tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    saved = run([*QUICK.split(), "--save", str(base)])
    assert (saved.exit_code, saved.stderr) == (0, "")
    assert json.loads(base.read_text())["schema"] == "resnet-cli/baseline@1"

    altered(base, 1e4)  # more than any stall
    quicker = run([*QUICK.split(), "--against", str(base)])
    assert quicker.exit_code == 0
    assert "improved" in quicker.stdout
    assert "x faster [" in quicker.stdout

    altered(base, 1e-8)  # a ten thousandth of what was measured
    slower = run([*QUICK.split(), "--against", str(base)])
    assert slower.exit_code == 1
    assert "regressed" in slower.stdout
    assert slower.stderr == "slower than before: cifar_resnet20 at batch 1, cifar_resnet32 at batch 1\n"

    record = run([*QUICK.split(), "--against", str(base), "--format", "json"])
    assert record.exit_code == 1
    found = json.loads(record.stdout)["against"]
    assert [change["verdict"] for change in found["changes"]] == ["regressed", "regressed"]


@pytest.mark.usefixtures("_quiet")
def test_a_run_that_is_slower_does_not_replace_what_it_is_compared_with(tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    assert run([*QUICK.split(), "--save", str(base)]).exit_code == 0
    altered(base, 1e-4)
    before = base.read_text()
    assert run([*QUICK.split(), "--against", str(base), "--save", str(base)]).exit_code == 1
    assert base.read_text() == before


@pytest.mark.usefixtures("_noisy")
def test_a_noisy_run_is_marked_and_cannot_become_a_baseline(tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    result = run([*QUICK.split(), "--save", str(base)])
    assert result.exit_code == 3
    assert "error: not saved: the run was noisy: other programs used 40% of the CPU time" in result.stderr
    assert "noisy: other programs used 40% of the CPU time" in result.stdout  # the table still appears
    assert not base.exists()


def test_another_machine_s_or_setting_s_file_is_refused(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("_quiet")
    base = tmp_path / "base.json"
    assert run([*QUICK.split(), "--save", str(base)]).exit_code == 0
    text = base.read_text()
    altered(base, 1.0, threads=999)
    result = run([*QUICK.split(), "--against", str(base)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "was measured with other settings: threads `999`" in result.stderr
    base.write_text(text)
    altered(base, 1.0, device_name="abacus")

    def measured_anyhow(*arguments: Any, **settings: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("resnetcli.reports.compare.compare_models", measured_anyhow)
    result = run([*QUICK.split(), "--against", str(base)])
    assert result.exit_code == 2
    assert "was measured on another machine: `abacus`" in result.stderr


def test_what_cannot_be_kept_or_compared_with_is_reported_before_anything_is_measured(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    request.getfixturevalue("_quiet")
    base = tmp_path / "base.json"
    assert run([*QUICK.split(), "--save", str(base)]).exit_code == 0

    def measured_anyhow(*arguments: Any, **settings: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("resnetcli.reports.compare.compare_models", measured_anyhow)
    limited = "cifar_resnet20 classes=5 cifar_resnet32 --max-params 280K"  # the second one is left out
    for asked in ("cifar_resnet44", f"{NETS} --batch-size 4", f"{NETS} --input 3x64x64", limited):
        result = run(["compare", *asked.split(), "--device", "cpu", "--against", str(base)])
        assert (result.exit_code, result.stdout) == (2, "")
        assert "has none of these models at these batch sizes and inputs" in result.stderr
    result = run(["compare", "cifar_resnet20", "cifar_resnet20", "--device", "cpu", "--save", str(base)])
    assert (result.exit_code, result.stdout) == (2, "")
    assert "two results of `cifar_resnet20` at one batch size" in result.stderr


def test_batches_are_measured_one_after_the_other() -> None:
    result = run("profile cifar_resnet20 --device cpu --batch-size 1,4 --time-budget 100ms --format json")
    record = json.loads(result.stdout)
    assert (record["batch"], record["batches"]) == (1, [1, 4])
    assert [m["batch"] for m in record["measurements"]] == [1, 4]
    assert record["latency"] == record["measurements"][0]
    assert {"before", "after", "others", "stolen", "throttled"} == record["latency"]["environment"].keys()


def test_a_batch_that_does_not_fit_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    result = run("profile cifar_resnet20 --device cpu --batch-size 1,100000000000 --time-budget 100ms")
    assert result.exit_code == 0
    assert "not measured: `cifar_resnet20` with a batch of 100000000000 would take" in result.stdout
    alone = run("profile cifar_resnet20 --device cpu --batch-size 100000000000")
    assert alone.exit_code == 3
    assert "with a batch of 100000000000 would take" in alone.stderr
    assert "269,722 parameters" in alone.stdout  # what it costs is known all the same
    none = run("profile cifar_resnet20 --device cpu --batch-size 100000000000,200000000000 --format json")
    assert none.exit_code == 3
    assert [failure["batch"] for failure in json.loads(none.stdout)["failures"]] == [100000000000, 200000000000]
    assert none.stderr.count("error: ") == 2


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("profile resnet18 --batch-size 1,,8", "--batch-size: `` is not a batch size"),
        ("profile resnet18 --batch-size many", "--batch-size: `many` is not a batch size"),
        ("compare --batch-size 8,-1", "`--batch-size` must be at least 1"),
        ("profile resnet18 --time-budget soon", "--time-budget: `soon` is not a time"),
        ("profile resnet18 --time-budget 0s", "`0s` is out of range"),
        ("compare --time-budget 3weeks", "`3weeks` is not a time"),
        ("compare --max-params lots", "--max-params: `lots` is not an amount"),
        ("compare --max-macs 1K", "no model within --max-macs 1000"),
        ("compare --save times.json", "`--save` requires --device"),
        ("compare --against times.json", "`--against` requires --device"),
        ("compare --device cpu --against nothing.json", "no such file: `nothing.json`"),
        ("compare --device cpu --save nowhere/times.json", "there is no directory `nowhere`"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(command: str, message: str) -> None:
    result = run(command)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


def test_a_piped_run_draws_no_progress() -> None:
    assert run("profile cifar_resnet20 --device cpu --time-budget 50ms").stderr == ""


def on_a_terminal(folder: Path, words: list[str], *, piped: bool) -> tuple[int | None, str, str]:
    """Exit code, what a terminal shows, and stdout where that is piped."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "vt100", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "resnetcli", *words]
    out = subprocess.PIPE if piped else theirs
    with subprocess.Popen(command, stdout=out, stderr=theirs, env=environment, cwd=folder) as child:
        os.close(theirs)
        limit = threading.Timer(120, child.kill)
        limit.start()
        drawn = b""
        with contextlib.suppress(OSError):  # what Linux says when the other side is closed
            while piece := os.read(ours, 65536):
                drawn += piece
        printed = child.communicate()[0] or b""
        limit.cancel()
    os.close(ours)
    return child.returncode, drawn.decode(), printed.decode()


def test_a_terminal_is_shown_how_far_it_is_and_nothing_of_it_stays_in_the_output(tmp_path: Path) -> None:
    words = ["profile", "cifar_resnet20", "--device", "cpu", "--time-budget", "300ms"]
    code, drawn, printed = on_a_terminal(tmp_path, words, piped=True)
    assert code == 0
    assert "measuring cifar_resnet20 on cpu" in drawn
    assert "100%" in drawn
    assert "measuring" not in printed
    assert printed.startswith("ResNet-20")


def test_a_model_that_prints_does_so_beside_the_progress_bar(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(PRINTS)
    words = ["profile", "net.py:Net", "--input", "3x8x8", "--device", "cpu", "--time-budget", "300ms"]
    code, drawn, _ = on_a_terminal(tmp_path, words, piped=False)
    assert code == 0
    assert "measuring net.py:Net on cpu" in drawn
    assert "a forward pass" in drawn
    assert drawn.count("measuring") < 100  # it is drawn ten times a second, not for each line of the model
    assert "cpu fp32" in drawn[drawn.rindex("measuring") :]
