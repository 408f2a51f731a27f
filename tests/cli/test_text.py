"""How tables look: distinct heads, few lines below, no blanks at ends; figures are never cut, whatever the terminal."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from itertools import pairwise

import pytest
from rich.console import Console

from resnetcli.cli.main import COMPLETE, tidy
from resnetcli.cli.root import PANELS
from resnetcli.table import output
from resnetcli.table.formats import MAX_NOTES
from tests.support.cli import run
from tests.support.thin import thinned

COMMANDS = (
    "list vgg16 resnet18",
    "info googlenet",
    "papers wrn 8",
    "papers resnext --list",
    "profile resnet18",
    "compare resnet50 resnext50_32x4d --baseline resnet50 --accuracy",
    "diff resnet50 resnet34_a",
    "max-batch resnet50 --memory 8GB --mode train",
    "estimate resnet50 --device-profile v100",
    "explain resnet18 --vs resnet34 --device-profile v100",
    "verify googlenet",
    "reconcile resnet50 4.13G",
)
FIGURE = re.compile(r"[0-9][0-9.,]*[0-9](?:[KMG]|%)?(?![^\s|/)])")


@pytest.mark.parametrize("command", thinned([*COMMANDS, "show resnet18 resnet18"], 2))
def test_no_two_columns_of_a_table_have_one_head(command: str) -> None:
    markdown = run(f"{command} --format md").stdout.splitlines()
    heads = [markdown[number - 1] for number, line in enumerate(markdown) if re.fullmatch(r"\|(:?--:?\|)+", line)]
    assert heads
    for head in heads:
        columns = re.split(r" ?(?<!\\)\| ?", head.strip("|"))
        assert len(set(columns)) == len(columns), head
        assert all(columns), head
    keys = run(f"{command} --format csv").stdout.splitlines()[0].split(",")
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_piped_table_has_no_blanks_at_its_ends_and_few_lines_below(command: str) -> None:
    lines = run(command).stdout.split("\n")
    assert lines.pop() == ""
    assert lines[0].strip()
    assert lines[-1].strip()
    assert all(line == line.rstrip() for line in lines)
    assert not any(first == second == "" for first, second in pairwise(lines))
    below: list[str] = []
    for line in lines[1 + max(number for number, line in enumerate(lines) if line.startswith(" ")) :]:
        below += [line] if line else []
    assert len(below) <= MAX_NOTES, below


def drawn_at(width: int, command: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """What a command draws on a terminal of that width."""
    out = io.StringIO()

    def narrow() -> Console:
        return Console(file=out, width=width, highlight=False, emoji=False, markup=False, color_system=None)

    with monkeypatch.context() as patch:
        patch.setattr(output, "console", narrow)
        result = run(command)
    assert result.exit_code == 0, result.output
    return out.getvalue()


@pytest.mark.parametrize("width", thinned([40, 1, 7, 20, 80, 200], 6))
@pytest.mark.parametrize("command", COMMANDS)
def test_no_figure_is_cut_however_narrow_the_terminal(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = drawn_at(width, command, monkeypatch)
    assert "…" not in drawn
    known = set(FIGURE.findall(run(command).stdout))
    for figure in FIGURE.findall(drawn):
        assert figure in known, figure


@pytest.mark.parametrize("width", [60, 80, 84, 90])
def test_heads_are_wrapped_before_a_figure_is_lost(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = drawn_at(width, "papers resnet table 4", monkeypatch).splitlines()
    assert max(map(len, lines)) <= width
    words = " ".join(lines).split()
    assert {"24.4", "21.59", "19.38", "8.43", "4.49", "single-model-multi-crop"} <= set(words)


def test_the_help_has_every_command_in_the_order_meant() -> None:
    names = [name for names in PANELS.values() for name in names]
    assert len(names) == len(set(names)) == 20
    text = run("--help").stdout
    places = [text.index(f"│ {name} ") for name in names]
    assert places == sorted(places)
    panels = [text.index(f"─ {panel} ─") for panel in PANELS]
    assert panels == sorted(panels)
    assert "─ Commands ─" not in text


@pytest.mark.parametrize(
    "command", [*(name for names in PANELS.values() for name in names), "data fetch", "data check"]
)
def test_the_help_has_examples_in_the_width_of_a_terminal_and_no_types(command: str) -> None:
    text = run(f"{command} --help").stdout
    assert not re.findall(r"<(?:bool|str|int|float|path|list.*)>", text)
    if command != "data":
        examples = text.partition(" Examples")[2].strip().splitlines()
        assert len(examples) in (2, 3)
        assert all(line.strip().startswith(f"resnet-cli {command}") for line in examples)


def test_the_help_names_every_built_in_device_profile() -> None:
    from resnetcli.roofline.profiles import shipped

    text = run("estimate --help", COLUMNS="200", TERMINAL_WIDTH="200").stdout
    assert [name for name in shipped() if name not in text] == []


def test_evaluating_trains_nothing() -> None:
    assert "Model and data" not in run("eval --help").stdout
    assert "Model and data" in run("train-cifar --help").stdout


@pytest.mark.parametrize("value", ["abc", "-1", "0", "", "²", "1e9", "99999999999999999999", " 80", "10001"])
def test_a_size_that_is_none_is_as_if_it_were_not_set(value: str) -> None:
    environ = {"COLUMNS": value, "LINES": value, "TERMINAL_WIDTH": value, "HOME": "/"}
    tidy(environ)
    assert environ == {"HOME": "/"}


def test_a_size_that_is_one_stays() -> None:
    environ = {"COLUMNS": "1", "LINES": "10000", "TERMINAL_WIDTH": "80"}
    tidy(environ)
    assert environ == {"COLUMNS": "1", "LINES": "10000", "TERMINAL_WIDTH": "80"}


def ended(*words: str, **env: str) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "resnetcli", *words]
    done = subprocess.run(command, capture_output=True, timeout=60, check=False, env={**os.environ, **env})
    return done.returncode, done.stdout.decode("ascii", "replace"), done.stderr.decode()


@pytest.mark.parametrize(
    ("env", "code"),
    [
        ({"TERMINAL_WIDTH": "abc", "COLUMNS": "99999999999999999999", "TYPER_USE_RICH": "perhaps", "TERM": "dumb"}, 0),
        ({"PYTHONIOENCODING": "ascii", "FORCE_COLOR": "maybe", "COLUMNS": "-1", "LINES": "x"}, 0),
        ({COMPLETE: "complete_bash"}, 2),
        ({COMPLETE: "complete_bash", "COMP_WORDS": "resnet-cli 'pro", "COMP_CWORD": "x"}, 2),
        ({COMPLETE: "nonsense"}, 1),
    ],
    ids=["sizes", "ascii", "no words", "no number", "nonsense"],
)
def test_nothing_in_the_environment_ends_in_a_traceback(env: dict[str, str], code: int) -> None:
    found, out, errors = ended("profile", "cifar_resnet20", **env)
    assert found == code
    assert "Traceback" not in errors
    assert ("\ufffd" in out) == ("TERMINAL_WIDTH" in env)  # bars and lines, where the stream can have them
    if code == 0:
        assert "269,722 parameters" in out
