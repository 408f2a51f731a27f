"""`curves` as a user meets it: what is drawn where, in which form, and what is said of what cannot be."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.testing

from resnetcli.cli.main import app
from resnetcli.errors import ResourceError
from resnetcli.runs.layout import METRICS_FILE
from tests.support import tiny
from tests.support.cli import check_golden
from tests.support.trained import CONFIG, a_run, falling, point, points, some_seeds


def run(*words: str | Path, columns: int = 80) -> typer.testing.Result:
    """Runs `curves` inside this process, as if its output were piped."""
    environment = {"COLUMNS": str(columns), "TERMINAL_WIDTH": str(columns), "NO_COLOR": "1"}
    command = ["curves", *map(str, words)]
    return typer.testing.CliRunner().invoke(app, command, env=environment, prog_name="resnet-cli")


@pytest.fixture
def nets(tmp_path: Path) -> list[Path]:
    """plain-20 and plain-56 as the paper has them: the deeper one is worse, in training too."""
    return [
        a_run(tmp_path / name, points(CONFIG, falling(90, train, 4000), falling(90, test, 4000), every=500),
              title=f"{name} (CIFAR)")
        for name, train, test in (("plain-20", 4.0, 9.0), ("plain-56", 8.0, 13.0))
    ]  # fmt: skip


@pytest.mark.parametrize("columns", [80, 200])
def test_without_a_file_there_is_a_plot_and_the_last_errors(nets: list[Path], columns: int) -> None:
    result = run(*nets, columns=columns)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    plot = lines[1 : next(number for number, line in enumerate(lines) if "└" in line)]
    assert max(map(len, lines[: len(plot) + 4])) == columns
    for sign in "ABab":
        assert any(sign in line for line in plot)
    assert any("⠁" <= char <= "⣿" for line in plot for char in line)
    for letter, name, train, test in (
        ("A", "plain-20 (CIFAR)", "4.00", "9.00"),
        ("B", "plain-56 (CIFAR)", "8.00", "13.00"),
    ):
        (row,) = [line.split() for line in lines if name in line]
        assert row == [letter, *name.split(), "64,000", train, test]
    assert "learning rate: 0.1, 0.01 from 32,000 on, 0.001 from 48,000 on" in lines


@pytest.mark.parametrize(("name", "start"), [("curves.png", b"\x89PNG\r\n"), ("degradation.svg", b"<?xml")])
def test_with_a_file_the_picture_is_there_and_not_in_the_terminal(nets: list[Path], name: str, start: bytes) -> None:
    out = nets[0].parent / name
    result = run(*nets, "-o", out)
    assert (result.exit_code, result.stderr) == (0, f"drawn: {out}\n")
    assert out.read_bytes().startswith(start)
    assert "└" not in result.stdout
    assert "plain-56 (CIFAR)" in result.stdout


def test_json_and_csv_have_the_points_of_the_lines(nets: list[Path]) -> None:
    record = json.loads(run(*nets, "--format", "json").stdout)
    assert record["schema"] == "resnet-cli/curves@2"
    first = record["curves"][0]
    assert first["name"] == "plain-20 (CIFAR)"
    assert first["test"]["iterations"] == list(range(1000, 64_001, 1000))
    assert first["test"]["error_percent"][-1] == pytest.approx(9.0, abs=1e-4)
    assert first["drops"][0] == {"iteration": 32_000, "before": 0.1, "after": 0.01}
    rows = list(csv.DictReader(io.StringIO(run(*nets, "--format", "csv").stdout)))
    for net in record["curves"]:
        own = [row for row in rows if row["name"] == net["name"]]
        for kind in ("train", "test"):
            told = [(int(row["iteration"]), float(row[f"{kind}_error_percent"])) for row in own
                    if row[f"{kind}_error_percent"]]  # fmt: skip
            assert told == list(zip(net[kind]["iterations"], net[kind]["error_percent"], strict=True))


def test_csv_has_a_row_for_a_run_that_cannot_be_read(nets: list[Path], tmp_path: Path) -> None:
    result = run(nets[0], tmp_path / "none", "--format", "csv")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert result.exit_code == 2
    assert rows[0][-1] == "error"
    assert {row[-1] for row in rows[1:-1]} == {""}
    assert "none" in rows[-1][-1]


def test_markdown_has_the_plot_in_a_block_of_its_own(nets: list[Path]) -> None:
    text = run(*nets, "--format", "md").stdout
    assert text.startswith("```text\nerror (%)\n")
    assert text.count("```") == 2
    assert "| A | plain-20 (CIFAR) | 64,000 | 4.00 | 9.00 |" in text


def test_seeds_are_one_curve_with_their_range(tmp_path: Path) -> None:
    runs = [points(CONFIG, falling(90, 1, 4000), falling(90, test, 4000), every=1000) for test in (6.0, 7.0, 7.4)]
    result = run(some_seeds(tmp_path / "seeds", runs))
    assert result.exit_code == 0
    (row,) = [line for line in result.stdout.splitlines() if "mean of 3 seeds" in line]
    assert row.split()[-4:] == ["6.80", "6.00", "-", "7.40"]


def test_what_is_missing_from_the_picture_is_reported_beside_it(nets: list[Path], tmp_path: Path) -> None:
    early, none = a_run(tmp_path / "early", [point(100, 60.0)]), a_run(tmp_path / "none", [])
    result = run(*nets, early, none)
    assert result.exit_code == 0
    assert result.stderr == (
        f"warning: `{none}` has no reading yet\nwarning: training error only, not evaluated yet: ResNet-20 (CIFAR)\n"
    )


def test_where_the_errors_end_can_be_said(nets: list[Path]) -> None:
    assert "   20┤" in run(*nets).stdout
    assert "   50┤" in run(*nets, "--y-max", "50").stdout
    assert run(*nets, "--y-max", "0").exit_code == 2


def test_bad_input_ends_in_a_message_and_exit_code_2(nets: list[Path], tmp_path: Path) -> None:
    (nets[1] / METRICS_FILE).write_text("{}\n")
    none = a_run(tmp_path / "none", [])
    for words, message in (
        ([tmp_path / "nowhere"], "there is no directory"),
        ([tmp_path], "is not a run"),
        ([nets[1]], f"{METRICS_FILE}`, line 1: not a reading of a run"),
        ([none], "has no reading yet"),
        ([nets[0], "-o", "curves.pdf"], "neither a PNG nor an SVG"),
        ([nets[0], "-o", tmp_path / "no" / "curves.png"], "-o: there is no directory"),
        (["\0"], "there is no directory"),
        (["x" * 5000], "there is no directory"),
    ):
        result = run(*words)
        assert (result.exit_code, result.stdout) == (2, "")
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "curves.pdf").exists()


def test_a_terminal_without_braille_gets_ascii_and_torch_is_not_waited_for(nets: list[Path]) -> None:
    code = (
        "import sys; from resnetcli.cli.main import main\n"
        "try: main()\nfinally: assert not {'torch', 'numpy', 'matplotlib'} & set(sys.modules)"
    )
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "COLUMNS": "80"}
    command = [sys.executable, "-c", code, "curves", *map(str, nets)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert (result.returncode, result.stderr) == (0, "")
    plot = result.stdout.splitlines()[1:20]
    assert any("A" in line for line in plot)
    assert any("a" in line for line in plot)
    assert "?" not in result.stdout


def test_what_was_really_trained_has_its_picture_and_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    command = [*tiny.words(tiny.files(tmp_path)), "--seeds", "2"]
    trained = typer.testing.CliRunner().invoke(app, command, prog_name="resnet-cli")
    assert trained.exit_code == 0, trained.stderr
    pictures = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("curves.png"))
    assert pictures == ["run/curves.png", "run/seed0/curves.png", "run/seed1/curves.png"]
    record = json.loads(run("run", "run/seed0", "--format", "json").stdout)
    both, first = record["curves"]
    assert (both["seeds"], first["seeds"], both["iterations"], both["reached"]) == ([0, 1], [0], 40, 40)
    assert [drop["iteration"] for drop in first["drops"]] == [20, 30]
    assert first["test"]["iterations"] == list(range(4, 41, 4))
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())["final_test_error_percent"]
    ends = [both["test"][name][-1] for name in ("error_percent", "lowest", "highest")]
    assert ends == pytest.approx([summary[name] for name in ("mean", "best", "worst")])


def test_a_run_that_cannot_be_drawn_has_finished_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(folder: Path) -> Path:
        raise ResourceError("matplotlib cannot be used: there is none")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("resnetcli.runs.curves_plot.draw_run", cannot)
    trained = typer.testing.CliRunner().invoke(app, tiny.words(tiny.files(tmp_path)), prog_name="resnet-cli")
    assert trained.exit_code == 0
    assert trained.stderr.endswith("warning: the curves were not plotted: matplotlib cannot be used: there is none\n")
    assert (tmp_path / "run" / "result.json").exists()


@pytest.mark.parametrize("format", ["table", "md", "csv"])
def test_what_curves_prints_is_as_reviewed(nets: list[Path], format: str, pytestconfig: pytest.Config) -> None:
    """Of the CSV, the head and the first and last points."""
    result = run(*nets, "--format", format)
    lines = result.stdout.splitlines()
    text = result.stdout if format != "csv" else "\n".join([*lines[:4], "...", *lines[-2:]])
    assert result.exit_code == 0
    text = text.replace(str(nets[0].parent), "RUNS")
    check_golden("curves" if format == "table" else f"curves_{format}", text, pytestconfig)
