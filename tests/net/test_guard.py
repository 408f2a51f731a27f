"""Model code that does more than build a model: whatever it changes in this process is undone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import resnetcli as rc

CODE = """
import argparse, atexit, os, signal, sys, warnings
import torch
from torch import nn

def {name}():
    {body}

{name}() if {at} == "file" else None

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {name}() if {at} == "made" else None
        self.a = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        {name}() if {at} == "run" else None
        return self.a(x)

    def __del__(self):
        print("gone")
"""
PLACES = ("file", "made", "run")


def code(folder: Path, body: str, at: str) -> str:
    path = folder / "code.py"
    path.write_text(CODE.format(name="act", body=body, at=repr(at)))
    return f"{path}:Net"


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, b'raw')", "sys.__stdout__.write('held back')", "os.system('echo shell')", "os.close(1)",
        "sys.stdout.close()", "sys.stdout = None", "os.chdir('/')", "sys.argv.append('x')", "os.environ['X_Y'] = '1'",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.alarm(600)", "sys.excepthook = print",
        "torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')",
        "torch.use_deterministic_algorithms(True)", "torch.set_num_threads(3)", "warnings.simplefilter('error')",
        "nn.functional.relu = abs", "nn.Conv2d.extra = lambda self: 1", "sys.setrecursionlimit(500)",
        "sys.stdin.read(), os.read(0, 1)", "os.fork() or None", "os.fork() or os._exit(0)",
    ],
)  # fmt: skip
def test_what_code_does_to_the_process_is_undone(
    body: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def settings() -> list[Any]:
        return [
            Path.cwd(), [*sys.argv], {**os.environ}, [*sys.path], signal.getsignal(signal.SIGTERM), sys.excepthook,
            signal.getitimer(signal.ITIMER_REAL)[0], torch.get_default_dtype(), torch.empty(0).device, sys.stdin,
            torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), nn.functional.relu,
            {*vars(nn.Conv2d)}, sys.getrecursionlimit(), sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(0).st_ino,
        ]  # fmt: skip

    reference, before = code(tmp_path, body, at), settings()
    found = rc.profile(reference, input="3x8x8")
    assert (found.counts.params, found.counts.macs) == (224, 7776)
    after = settings()
    assert after == before
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(0)", "os._exit(0)"), ("sys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"), ("act()", "RecursionError"), ("input()", "EOFError"),
    ],
)  # fmt: skip
def test_code_that_ends_is_an_error_that_says_where(body: str, words: str, at: str, tmp_path: Path) -> None:
    with pytest.raises(rc.UsageError) as raised:
        rc.profile(code(tmp_path, body, at), input="3x8x8")
    assert words in str(raised.value)
    assert "code.py:7)" in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("os.abort()", 2, "ended the process with SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 2, "ended the process with SIGTERM"),
        ("__import__('ctypes').CDLL(None)._exit(0)", 2, "ended the process with exit code 0"),
        ("os.execvp('true', ['true'])", 2, "ended the process with exit code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, "probably because memory ran out"),
        ("atexit.register(lambda: (print('late', flush=True), os._exit(7)))", 0, ""),
        ("__import__('threading').Thread(target=lambda: [print('tick') for _ in iter(int, 1)]).start()", 0, ""),
        ("print('loud'); os.write(1, b'raw')", 0, ""),
    ],
)
def test_code_that_ends_the_process_is_an_error_and_stdout_has_the_result_alone(
    body: str, status: int, words: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "resnetcli", "profile", code(tmp_path, body, "made"), "--input", "3x8x8"]
    result = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, timeout=120, check=False, errors="replace"
    )
    assert result.returncode == status
    assert words in result.stderr[-400:]
    assert result.stdout == "" if status else json.loads(result.stdout)["macs"] == 7776


def test_code_gets_no_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resnet-cli", "profile", "--width", "3", "--unknown"])
    body = "p = argparse.ArgumentParser(); p.add_argument('--width', default=8); assert p.parse_args().width == 8"
    assert rc.profile(code(tmp_path, body, "file"), input="3x8x8").counts.params == 224


def test_a_model_whose_code_replaces_torch_s_functions_is_not_timed(tmp_path: Path) -> None:
    reference = code(tmp_path, "nn.functional.relu = abs", "file")
    with pytest.raises(rc.UsageError, match=r"replaces `torch.nn.functional.relu`"):
        rc.profile(reference, input="3x8x8", device="cpu", time_budget_s=0.01)
