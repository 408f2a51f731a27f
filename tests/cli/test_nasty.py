"""Every option of every command, with values that nobody should type: an error with exit code 2 or 3, or a result.

A few values for each; with ALL_NASTY=1 in the environment all, which takes ten minutes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from resnetcli.cli.main import app
from tests.support.cli import run
from tests.support.thin import thinned

NASTY = (
    "", " ", "0", "-1", "-0", "1e3", "1e400", "nan", "inf", "-inf", "8,8", "1,,2", "1, 8", "4-8", "9" * 30, "9" * 5000,
    "٣", "\uff13", "1_000", "0x10", "½", "8GB", "8 GB", "100000", "true", "None", "~", ".", "..", "/", "a\0b",
    "\udcff", "\x1b[31m", "\n", "x" * 5000, "%s", "{}", "[", "(", "*", "?", "=", "C=", "--", "-", "'", '"', "`", "$(x)",
    "/dev/null",
)  # fmt: skip
BEFORE = {
    "profile": ["resnet18"], "compare": ["resnet18"], "show": ["resnet18"], "explain": ["resnet18"],
    "estimate": ["resnet18", "--device-profile", "v100"], "diff": ["resnet18", "resnet34"], "verify": ["resnet18"],
    "max-batch": ["resnet18", "--memory", "8GB"], "check": ["resnet18"], "reconcile": ["resnet18", "1.8G"],
    "list": ["resnet18"], "info": ["resnet18"], "papers": ["resnet table 6"], "fmt": ["net.yaml"], "curves": ["run"],
    "data check": ["net.yaml"], "data convert": ["net.yaml", "out"], "eval": ["run"], "train-cifar": [],
}  # fmt: skip
"""What a command needs besides; those that would build or measure or fetch something are not here."""
LOADS_TORCH = {"train-cifar", "eval", "crosscheck", "calibrate"}


def options() -> Iterator[tuple[str, str]]:
    root: Any = typer.main.get_command(app)
    groups = [("", root), ("data ", root.get_command(None, "data"))]
    for path, group in groups:
        for name in group.list_commands(None):
            command = group.get_command(None, name)
            if path + name in BEFORE and path + name not in LOADS_TORCH:
                for param in command.params:
                    if param.param_type_name == "option" and not param.is_flag:
                        yield path + name, max(param.opts, key=len)


OPTIONS = list(dict.fromkeys(options()))


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text("input: 3x32x32\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n")


def ends_well(words: list[str]) -> None:
    result = run(words)
    said = f"{words[:4]!r}: {result.exit_code}: {result.output[:400]}"
    assert result.exception is None or isinstance(result.exception, SystemExit), said
    assert result.exit_code in (0, 1, 2, 3), said
    assert "Traceback" not in result.output, said
    assert "╭" not in result.stderr, said
    if result.exit_code == 2:
        assert "error: " in result.stderr, said
        assert result.stderr.replace("\n", "").replace("\t", "").isprintable(), said
        assert len(result.stderr) < 4000, said


def test_every_option_of_every_command_is_tried() -> None:
    assert len(OPTIONS) > 60
    assert {command for command, _ in OPTIONS} >= {"profile", "compare", "max-batch", "data convert", "explain"}


@pytest.mark.parametrize(("command", "option"), thinned(OPTIONS, 4))
def test_no_value_of_an_option_ends_in_a_traceback(command: str, option: str) -> None:
    own = [] if option in ("--memory", "--device-profile") else BEFORE[command]
    own = own or BEFORE[command][:1]
    if command == "explain" and option not in ("--device", "--device-profile"):
        own = [*own, "--device-profile", "v100"]
    some = NASTY if os.environ.get("ALL_NASTY") else NASTY[sum(map(ord, command + option)) % 9 :: 9]
    for value in some:
        if option == "--out" and value in ("..", "."):
            continue
        ends_well([*command.split(), *own, option, value])


@pytest.mark.parametrize("command", thinned([name for name in BEFORE if name not in LOADS_TORCH], 4))
def test_no_argument_ends_in_a_traceback(command: str) -> None:
    more = BEFORE[command][1:] if command in ("max-batch", "estimate") else []
    if command == "explain":
        more = ["--device-profile", "v100"]
    some = NASTY if os.environ.get("ALL_NASTY") else NASTY[sum(map(ord, command)) % 6 :: 6]
    for value in some:
        if not (command == "fmt" and value == "-"):
            ends_well([*command.split(), *([value, "1.8G"] if command == "reconcile" else [value]), *more])


@pytest.mark.parametrize("value", NASTY if os.environ.get("ALL_NASTY") else NASTY[::6])
def test_no_command_or_option_s_name_ends_in_a_traceback(value: str) -> None:
    ends_well([value])
    ends_well([value, "resnet18"])
    ends_well(["help", value])
    ends_well(["profile", "resnet18", f"--{value}"])
    ends_well(["profile", "resnet18", f"--{value}=3"])
    ends_well(["profile", "resnet18", f"x={value}"])


@pytest.mark.parametrize(
    "value", thinned(["0", "-1", "1,,2", "1e3", "4-8", "٣", "9" * 30, "", "nan", "1.5", "8x", ","], 4)
)
def test_what_is_no_batch_is_refused(value: str) -> None:
    for command in ("profile resnet18", "compare", "explain resnet18 --device-profile v100",
                    "estimate resnet18 --device-profile v100"):  # fmt: skip
        result = run([*command.split(), "--batch-size", value])
        assert result.exit_code == 2, (command, result.output)
        assert "hint: " in result.stderr
    for text in ("1, 8", "8,8", "8"):
        assert run(["profile", "resnet18", "--batch-size", text]).exit_code == 0


@pytest.mark.parametrize("value", ["0", "inf", "nan", "-1s", "1e400s", "3 weeks", "", "9" * 400, "٣s", "-"])
def test_what_is_no_time_is_refused(value: str) -> None:
    for command in ("profile resnet18", "compare", "explain resnet18"):
        result = run([*command.split(), "--device", "cpu", "--time-budget", value])
        assert result.exit_code == 2, (command, result.output)
        assert "hint: " in result.stderr


@pytest.mark.parametrize("value", ["0", "-1", "100000", "9" * 30, "two", "", "1.5", "٣"])
def test_what_is_no_number_of_threads_is_refused(value: str) -> None:
    result = run(["compare", "--device", "cpu", "--threads", value])
    assert result.exit_code == 2
    assert "hint: " in result.stderr
