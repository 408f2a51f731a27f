"""Limits on costs, saved profiles, and annotations for GitHub."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from resnetcli.cli.main import app
from resnetcli.errors import At, Problem, Source, UsageError
from resnetcli.reports.annotation import annotation
from resnetcli.reports.check import check
from resnetcli.reports.limits import Limits, limits, read_saved_profile
from resnetcli.reports.profile import profile_model
from resnetcli.reports.profile_record import profile_record

NET = "input: 3x8x8\ntable:\n  a: 3x3 4\n  b: 3x3 8 /2\n  head: [global avg, fc 10]\n"
# Parameters: a 9*3*4 + 8, b 9*4*8 + 16, head 8*10 + 10; MACs: 108*64, 288*16, 80; outputs: 256, 128, 10.
PARAMS, MACS, ACTIVATIONS = 116 + 304 + 90, 6912 + 4608 + 80, 394


@pytest.fixture
def net(tmp_path: Path) -> Path:
    path = tmp_path / "net.yaml"
    path.write_text(NET)
    return path


def saved(net: Path, **changes: Any) -> Path:
    """The model's profile, saved as JSON beside it."""
    path = net.with_name("old.json")
    path.write_text(json.dumps(profile_record(profile_model(str(net), {})) | changes))
    return path


def run(*words: str, **env: str) -> typer.testing.Result:
    environment = {"COLUMNS": "200", "NO_COLOR": "1", "GITHUB_ACTIONS": "", **env}
    return typer.testing.CliRunner().invoke(app, ["check", *words], env=environment)


@pytest.mark.parametrize(
    ("name", "value", "row", "share"),
    [("params", PARAMS, "b", "59.6%"), ("macs", MACS, "a", "59.6%"), ("activations", ACTIVATIONS, "a", "65.0%")],
)
def test_a_limit_holds_up_to_itself_and_names_the_rows_that_break_it(
    net: Path, name: str, value: int, row: str, share: str
) -> None:
    assert check(str(net), limits=Limits({name: value})).exit_code == 0
    outcome = check(str(net), limits=Limits({name: value - 1}))
    assert outcome.exit_code == 1
    (problem,) = outcome.exceeded
    assert f"{value:,}" in problem.message
    assert f", 1 more than the limit of {value - 1:,}" in problem.message
    assert problem.notes[0].split()[0] == row
    assert problem.notes[0].endswith(share)
    assert problem.at is not None
    assert problem.at.source.line(problem.at.line).strip().startswith(f"{row}:")


def test_memory_is_the_peak_of_one_image_with_its_weights(net: Path) -> None:
    """Image 768 bytes; a's convolution and, beside it, its BatchNorm, 1,024 each; 4 * (510 + 24) + 16 of state."""
    peak = 768 + 2 * 1024 + 4 * (PARAMS + 24) + 16
    assert check(str(net), limits=Limits({"memory": peak})).exit_code == 0
    (problem,) = check(str(net), limits=Limits({"memory": peak - 1})).exceeded
    assert problem.message == (f"{peak:,} bytes of peak memory for one image, 1 more than the limit of {peak - 1:,}")
    assert "the peak is in a.0.bn" in problem.notes[0]


def test_every_limit_that_is_exceeded_is_reported_and_the_worst_exit_code_counts(net: Path) -> None:
    result = run(
        str(net), "--max-params", "500", "--max-macs", "0.01M", "--max-activations", "1K", "--max-memory", "1MB"
    )
    assert result.exit_code == 1
    assert result.stderr.count(": error: ") == 2
    assert "510 parameters, 10 more than the limit of 500" in result.stderr
    assert "11,600 MACs, 1,600 more than the limit of 10,000" in result.stderr
    assert "ok" not in result.stdout
    assert run(str(net), str(net.with_name("none.yaml")), "--max-params", "500").exit_code == 2
    assert run(str(net), "--max-params", "510").stdout.startswith(f"{net}: ok, 510 parameters")


@pytest.mark.parametrize("option", ["--max-params", "--max-macs", "--max-activations", "--max-memory"])
@pytest.mark.parametrize("text", ["many", "-5", "0", "1e400", "4.2.1G", "26 Q"])
def test_a_limit_that_is_none_is_refused(net: Path, option: str, text: str) -> None:
    result = run(str(net), f"{option}={text}")
    assert result.exit_code == 2
    assert f"error: {option}: `{text}` is " in result.stderr


def test_a_model_that_has_not_grown_passes_against_its_former_self(net: Path) -> None:
    old = saved(net)
    assert run(str(net), "--against", str(old)).exit_code == 0
    net.write_text(NET.replace("3x3 8 /2", "3x3 7 /2"))
    assert run(str(net), "--against", str(old)).exit_code == 0


def test_a_model_that_has_grown_fails_with_the_rows_that_have(net: Path) -> None:
    old = saved(net)
    net.write_text(NET.replace("3x3 8 /2", "3x3 10 /2").replace("  head", "  c: 1x1 10\n  head"))
    problems = check(str(net), limits=limits(against=old)).exceeded
    assert [problem.message.split(" ")[1].strip(",") for problem in problems] == [
        "parameters", "MACs", "activations", "bytes",
    ]  # fmt: skip
    params = problems[0]
    assert params.message == "726 parameters, 216 more than the 510 in old.json"
    assert [line.split() for line in params.notes] == [
        ["c", "+120", "a", "new", "stage"],
        ["b", "+76", "was", "304"],
        ["head", "+20", "was", "90"],
    ]
    assert params.at is not None
    assert params.at.source.line(params.at.line).strip() == "c: 1x1 10"


def test_rows_that_are_gone_and_another_input_are_no_surprise(net: Path) -> None:
    old = saved(net)
    net.write_text(NET.replace("  b: 3x3 8 /2\n", "").replace("3x8x8", "3x16x16"))
    (macs, acts, held) = check(str(net), limits=limits(against=old)).exceeded
    assert "MACs" in macs.message
    assert macs.notes[-1] == "the input was 3x8x8"
    assert "activations" in acts.message
    assert "memory" in held.message


def test_a_profile_saved_before_memory_was_worked_out_still_serves(net: Path) -> None:
    old = saved(net)
    record = json.loads(old.read_text())
    del record["memory"], record["training"]
    old.write_text(json.dumps(record))
    assert set(read_saved_profile(old).figures) == {"params", "macs", "activations"}


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\xff\xfe", b"{", b"[" * 100_000, b"9" * 5000, b"null", b"[]", b"{}",
        b'{"schema": "resnet-cli/compare@2"}',
        b'{"schema": "resnet-cli/profile@2"}', b'{"schema": ["resnet-cli/profile@2"]}', b"NaN", b"\0" * 64,
    ],
)  # fmt: skip
def test_a_file_that_is_no_profile_is_refused(net: Path, data: bytes) -> None:
    old = net.with_name("old.json")
    old.write_bytes(data)
    result = run(str(net), "--against", str(old))
    assert result.exit_code == 2
    assert "hint: save one with `resnet-cli profile MODEL.yaml --format json > old.json`" in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    "changes",
    [
        {"params": None}, {"params": "510"}, {"params": True}, {"params": 510.0}, {"macs": -1}, {"macs": 10**30},
        {"stages": {}}, {"stages": [1]}, {"stages": [{"stage": 1}]}, {"stages": [{"stage": "a"}]}, {"input": "3x8x8"},
        {"input": [3, "8", 8]}, {"model": None}, {"memory": {}}, {"memory": {"peak_bytes": "1"}},
    ],
    ids=str,
)  # fmt: skip
def test_a_profile_with_something_else_in_it_is_refused(net: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="is not a valid profile"):
        read_saved_profile(saved(net, **changes))


def test_files_that_cannot_be_read_are_refused(net: Path) -> None:
    for path in (net.parent, net.with_name("none.json"), "/dev/zero", "nul\0byte"):
        with pytest.raises(UsageError):
            read_saved_profile(path)


def test_a_saved_profile_is_of_one_model(net: Path) -> None:
    result = run(str(net), str(net), "--against", str(saved(net)))
    assert result.exit_code == 2
    assert "`--against` takes one model, not 2" in result.stderr


# --- GitHub ------------------------------------------------------------------------------------------------------


def test_github_is_told_where(net: Path) -> None:
    told = run(str(net), "--max-params", "500", GITHUB_ACTIONS="true")
    assert told.exit_code == 1
    assert told.stdout == (
        f"::error file={net},line=4,col=3::510 parameters, 10 more than the limit of 500"
        "%0Ab     304  59.6%25%0Aa     116  22.7%25%0Ahead   90  17.6%25\n"
    )
    assert "::error" not in run(str(net), "--max-params", "500").output


def test_github_is_told_of_ordinary_errors_too(net: Path) -> None:
    net.write_text(NET.replace("3x3 4", "3x3 4 C=2"))
    assert run(str(net), GITHUB_ACTIONS="true").stdout.startswith(f"::error file={net},line=3,col=")
    net.write_text(NET + "expect: {params: 1}\n")
    assert ",line=6,col=" in run(str(net), GITHUB_ACTIONS="true").stdout
    assert run("none.yaml", GITHUB_ACTIONS="true").stdout.startswith("::error::no such file")
    assert run(str(net), "--max-macs", "x", GITHUB_ACTIONS="true").stdout.startswith("::error::--max-macs: `x`")
    net.write_text("input: 3x32x32\ntable: {a: 3x3 8, b: 3x3 8, c: 3x3 8}\n")
    assert run(str(net), GITHUB_ACTIONS="true").stdout.startswith("::warning file=")


def test_nothing_in_a_message_or_a_name_can_be_taken_for_a_command() -> None:
    at = At(Source("a,b:c%\n::x.yaml", "text"), 1, 1, 1)
    line = annotation(Problem("100%\n::set-output name=x::y\r", at, notes=("n\n",), hint="h"))
    assert "\n" not in line
    assert "\r" not in line
    assert line.startswith("::error file=a%2Cb%3Ac%25�%3A%3Ax.yaml,line=1,col=1::100%25�::set-output")
    assert line.endswith("%0Ahint: h")


def test_a_profile_of_another_model_is_no_baseline(net: Path) -> None:
    other = saved(net, model="resnet50")
    result = run(str(net), "--against", str(other))
    assert result.exit_code == 2
    assert "is a profile of `resnet50`" in result.stderr
    heads = saved(net, aux={"counted": True})
    assert "auxiliary heads" in run(str(net), "--against", str(heads)).stderr


def test_what_was_otherwise_is_reported_even_where_nothing_has_grown(net: Path) -> None:
    old = saved(net, input=[3, 16, 16], parameters={"classes": 10}, memory=None)
    result = run(str(net), "--against", str(old))
    assert result.exit_code == 0
    assert "input 3x16x16, now 3x8x8" in result.stderr
    assert "classes=10, now 1000" in result.stderr
    assert "has no memory figure" in result.stderr


def test_a_pipe_is_no_saved_profile(net: Path) -> None:
    pipe = net.with_name("pipe")
    os.mkfifo(pipe)
    assert "not a regular file" in run(str(net), "--against", str(pipe)).stderr


def test_memory_that_weights_take_is_laid_at_the_row_that_has_most_of_them() -> None:
    (problem,) = check("vgg16", limits=Limits({"memory": 10**6})).exceeded
    assert problem.at is not None
    assert problem.at.source.line(problem.at.line).strip().startswith("fc6")
