"""The command line as a user meets it: what is printed, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import typer.testing

from resnetcli import __version__
from resnetcli.cli.main import app
from resnetcli.cli.root import PANELS

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = {
    "compare": "compare",
    "compare_baseline": "compare resnet50 resnext50_32x4d resnext50_32x4d C=8 d=14 --baseline resnet50",
    "compare_md": "compare --format md",
    "compare_csv": "compare resnet18* --sort -params --format csv",
    "compare_inputs": "compare resnet18 cifar_resnet20 --flops",
    "list": "list resnet18* cifar_resnet1*",
    "list_csv": "list cifar_plain --format csv",
    "profile": "profile resnext50_32x4d",
    "profile_block": "profile cifar_resnet depth=8 --by block",
    "profile_layer": "profile cifar_resnet20 --by layer",
    "profile_md": "profile resnet50_v1 --format md",
    "profile_csv": "profile resnet18 --format csv --flops",
    "profile_changed": "profile resnet50 --input 3x320x320 --batch-size 8",
    "show": "show resnet50 resnext50_32x4d",
    "show_md": "show resnet18 --format md",
    "show_csv": "show resnext50_32x4d_a --format csv",
    "show_form_b": "show resnext50_32x4d_b",
    "check": "check resnet50 cifar_resnet110",
    "compare_accuracy": "compare resnet50 resnet34_a resnext50_32x4d vgg16 --accuracy",
    "compare_limits": "compare resnet18* resnet50 vgg16 --max-params 30M --max-macs 2G",
    "compare_protocol": "compare resnet34* resnext50_32x4d --protocol 10-crop --format csv",
    "info": "info googlenet",
    "info_md": "info resnext101_32x4d --format md",
    "info_csv": "info cifar_resnet20 --format csv",
    "verify": "verify resnet50 resnext101_32x4d googlenet",
    "verify_csv": "verify resnext50_32x4d --format csv",
    "papers": "papers resnet table 6",
    "papers_conditions": "papers resnext 5",
    "papers_two": "papers resnet figure 3 caption",
    "papers_md": "papers resnext table 1 --format md",
    "papers_csv": "papers wrn table 8 --format csv",
    "papers_list": "papers resnext --list",
    "profile_aux": "profile googlenet --aux",
    "max_batch": "max-batch resnet50 --memory 8GB",
    "max_batch_train": "max-batch vgg16 --memory 24GiB --mode train --dtype bf16 --optimizer adam",
    "max_batch_md": "max-batch cifar_resnet depth=56 --memory 512MB --mode train --format md",
    "max_batch_csv": "max-batch resnet18 --memory 1GB --format csv",
    "profile_receptive": "profile inception_v3 --receptive",
    "profile_receptive_csv": "profile resnet50 --receptive --by block --format csv",
    "profile_convention": "profile resnext50_32x4d --convention thop",
    "profile_convention_csv": "profile resnet18 --convention fvcore-train --format csv",
    "compare_convention": "compare --convention timm --baseline resnet50",
    "reconcile": "reconcile resnet50 4.13G",
    "reconcile_variant": "reconcile resnet50 3.8G",
    "reconcile_md": "reconcile vgg16 15.3G --format md",
    "reconcile_csv": "reconcile googlenet 6.99M --format csv",
    "diff": "diff resnet50 resnext50_32x4d",
    "diff_header": "diff googlenet googlenet_bn",
    "diff_md": "diff resnet34 resnet34_a --format md",
    "diff_csv": "diff resnet50_v1 resnet50 --format csv",
    "diff_unlike": "diff alexnet resnet18",
    "estimate": "estimate resnet50 resnext50_32x4d wide_resnet50_2 --device-profile rtx4090 --dtype fp16 "
    "--batch-size 512",
    "estimate_csv": "estimate resnet18 --device-profile v100 --format csv",
    "explain": "explain resnext50_32x4d --vs resnet50 --device-profile a100-80gb --dtype bf16 --batch-size 256",
    "explain_md": "explain vgg16 --device-profile rtx3090 --format md",
    "explain_csv": "explain resnet18 --device-profile v100 --dtype fp16 --format csv",
    "diff_none": "diff cifar_resnet20 cifar_resnet depth=20",
}
HELPS = (
    "",
    "max-batch",
    "list",
    "info",
    "show",
    "profile",
    "compare",
    "check",
    "diff",
    "verify",
    "papers",
    "fmt",
    "reconcile",
    "crosscheck",
    "calibrate",
    "explain",
    "estimate",
    "train-cifar",
    "eval",
    "curves",
)


def run(command: str | list[str], **env: str) -> typer.testing.Result:
    """Runs a command inside this process, as if its output were piped."""
    words = command.split() if isinstance(command, str) else command
    environment = {"COLUMNS": "80", "TERMINAL_WIDTH": "80", "NO_COLOR": "1", "GITHUB_ACTIONS": "", **env}
    return typer.testing.CliRunner().invoke(app, words, env=environment, prog_name="resnet-cli")


def process(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a process of its own."""
    command = [sys.executable, "-m", "resnetcli", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, **env})


def golden(name: str, text: str, pytestconfig: pytest.Config) -> None:
    path = GOLDEN / f"{name}.txt"
    text = "\n".join(line.rstrip() for line in text.splitlines()) + "\n"
    if pytestconfig.getoption("--update-golden"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints_is_as_reviewed(name: str, pytestconfig: pytest.Config) -> None:
    result = run(COMMANDS[name])
    assert result.exit_code == 0, result.output
    golden(name, f"$ resnet-cli {COMMANDS[name]}\n{result.stdout}", pytestconfig)


@pytest.mark.parametrize("command", HELPS)
def test_the_help_of_every_command_is_as_reviewed(command: str, pytestconfig: pytest.Config) -> None:
    result = run([*command.split(), "--help"])
    assert result.exit_code == 0
    golden(f"help_{command or 'root'}", result.stdout, pytestconfig)


def test_a_command_imports_no_other() -> None:
    code = (
        "import sys; from resnetcli.cli.main import app\n"
        "try: app(['list', 'resnet18'], prog_name='resnet-cli')\nexcept SystemExit: pass\n"
        "print(*(name for name in sys.modules if name.startswith('resnetcli.cli.')), file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    loaded = {name.rpartition(".")[2] for name in result.stderr.split()}
    assert {"main", "root", "list"} <= loaded
    assert not loaded & {"profile", "compare", "explain", "train_cifar", "data", "max_batch"}


@pytest.mark.parametrize(
    ("command", "now"),
    [("fit resnet50 --memory 8GB", "max-batch resnet50 --memory 8GB"), ("fit", "max-batch --help"),
     ("predict resnet50 --device-profile v100", "estimate resnet50 --device-profile v100")],
)  # fmt: skip
def test_a_command_s_earlier_name_is_an_error_with_its_new_name(command: str, now: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert f"unknown command `{command.split()[0]}`" in result.stderr
    assert f"`resnet-cli {now}`" in result.stderr
    assert run(now).exit_code == 0


def test_every_command_has_its_help_reviewed() -> None:
    names = {name for names in PANELS.values() for name in names}
    assert names - {"data"} == set(HELPS) - {""}


def test_without_a_command_the_help_is_printed() -> None:
    assert run("").stdout.strip() == run("--help").stdout.strip()
    assert run("-h").stdout == run("--help").stdout


def test_the_version_is_the_packages() -> None:
    assert run("--version").stdout == f"resnet-cli {__version__}\n"


@pytest.mark.parametrize("name", ["profile", "profile_block", "profile_layer"])
def test_the_columns_of_a_profile_sum_to_its_total(name: str) -> None:
    lines = list(csv.DictReader(io.StringIO(run(f"{COMMANDS[name]} --format csv").stdout)))
    *parts, total = lines
    for column in ("params", "macs", "activations"):
        assert sum(int(part[column]) for part in parts) == int(total[column])


def test_json_says_what_the_table_says() -> None:
    record = json.loads(run("profile resnext50_32x4d C=8 d=14 --format json").stdout)
    assert record["schema"] == "resnet-cli/profile@1"
    assert record["parameters"] == {"classes": 1000, "C": 8, "d": 14}
    assert (record["params"], record["macs"], record["flops"]) == (25603016, 4267409408, 2 * 4267409408)
    assert record["input"] == [3, 224, 224]
    assert record["published"] == []  # another net's figures
    assert record["latency"] is None
    assert sum(row["macs"] for row in record["rows"]) == record["macs"]


def test_a_setting_applies_to_the_model_it_follows() -> None:
    record = json.loads(run("compare resnet50 resnext50_32x4d resnext50_32x4d C=8 d=14 --format json").stdout)
    assert [model["params"] for model in record["models"]] == [25557032, 25028904, 25603016]


def test_a_setting_behind_a_wildcard_applies_to_all_it_stands_for() -> None:
    record = json.loads(run("compare resnet18* classes=10 --format json").stdout)
    assert {model["parameters"]["classes"] for model in record["models"]} == {10}


def test_compare_sorts_by_a_figure() -> None:
    record = json.loads(run("compare resnet* --sort -macs --format json").stdout)
    macs = [model["macs"] for model in record["models"]]
    assert macs == sorted(macs, reverse=True)


def test_the_published_figures_of_the_headline_pair_agree_with_the_counts() -> None:
    record = json.loads(run("compare --format json").stdout)
    printed = [
        {entry["printed"]: entry["verdict"] for entry in model["published"] if entry["figure"] in ("params", "macs")}
        for model in record["models"]
    ]
    assert printed == [
        {"25.5M": "truncates", "4.1G": "rounds", "25.6M": "rounds", "25M": "truncates"},
        {"25.0M": "rounds", "4.2G": "rounds"},
    ]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("profile resnet5", "unknown model `resnet5`"),
        ("profile resnet50 --convention fvcor", "did you mean `fvcore`"),
        ("compare --convention flop", "unknown convention `flop`"),
        ("profile resnet50 --flops --convention thop", "`--flops` is `--convention flops`"),
        ("explain resnet50", "takes a device or a device's profile"),
        ("explain resnet50 --device cpu --device-profile v100", "takes a device or a device's profile"),
        ("explain resnet50 resnet18 --device-profile v100", "one more with `--vs`"),
        ("explain resnet50 --device-profile v100 --measure", "needs a device to measure on"),
        ("explain resnet50 --device-profile v100 --channels-last", "`--channels-last` has no part in a floor"),
        ("explain resnet50 --device-profile v100 --keep-memory", "`--keep-memory` has no part in a floor"),
        ("explain resnet50 --device cpu --dtype fp16", "fp16 on a CPU is slower than fp32"),
        ("explain resnet50 --device-profile v100 --roofline nowhere/roof.svg", "--roofline: there is no directory"),
        ("explain resnet50 --device cpu --roofline /dev/null", "--roofline: `/dev/null` is not a regular file"),
        ("explain resnet50 --device cpu --roofline a.png", "--roofline: `a.png` is no name of an SVG"),
        ("explain resnet50 --device-profile v100 --roofline roof", "end it in .svg"),
        ("explain resnet50 --device-profile v100 --dtype bf16", "no ceiling of NVIDIA V100 SXM2 in `bf16`"),
        ("estimate resnet50 --device-profile rtx409", "did you mean `rtx4090`"),
        ("estimate resnet50 --device-profile v100 --batch-size 0", "a batch of 0 images"),
        ("calibrate --device tpu", "unknown device `tpu`"),
        ("reconcile resnet50", "takes a model and a figure"),
        ("reconcile resnet50 many", "`many` is not a figure"),
        ("reconcile resnet50 resnet18 4.1G", "one model and one figure, not 2"),
        ("reconcile resnet5 4.1G", "unknown model `resnet5`"),
        ("crosscheck resnet5", "unknown model `resnet5`"),
        ("profile nothing.yaml", "no such file: `nothing.yaml`"),
        ("profile .", "unknown model `.`"),
        ("profile ./", "is a directory"),
        ("profile resnet50 resnet18", "`profile` takes one model, not 2"),
        ("profile C=8", "stands before any model"),
        ("profile resnext50_32x4d C=eight", "`eight` is not a whole number"),
        ("profile resnext50_32x4d G=8", "has no parameter `G`"),
        ("profile resnext50_32x4d C=8 C=4", "`C` is set twice"),
        ("profile cifar_resnet depth=21", "does not come out whole"),
        ("profile resnet50 --input 224a", "`224a` is not an input size"),
        ("profile resnet50 --input 3x8x8 --batch-size 0", "a batch of 0 images"),
        ("profile resnet50 --device tpu", "tpu"),
        ("profile resnet50 --device mps", "mps"),
        ("profile resnet50 --compile", "`--compile` is about measuring"),
        ("compare --threads 2", "`--threads` is about measuring"),
        ("profile resnet50 --device cpu --best --fold-bn", "`--best` tries `--fold-bn`"),
        ("compare --keep-memory", "`--keep-memory` is about measuring"),
        ("profile resnet50 --time-budget 9s", "`--time-budget` is about measuring"),
        ("explain resnet50 --device-profile v100 --time-budget 9s", "`--time-budget` is about measuring"),
        ("profile resnet50 --device cpu --dtype bf15", "did you mean `bf16`"),
        ("profile resnet50 --device cpu --dtype fp16", "fp16 on a CPU"),
        ("compare --device cpu --dtype tf32", "TF32 is arithmetic of NVIDIA"),
        ("profile resnet50 --device cpu --cuda-graph", "a CPU has no CUDA graphs"),
        ("compare --device cpu --threads 0", "0 threads"),
        ("profile resnet50 --device cpu --best --dtype fp16", "fp16 on a CPU"),
        ("compare --sort size", "cannot sort by `size`"),
        ("compare --sort median_s", "measured only with `--device`"),
        ("compare --baseline vgg16", "the baseline `vgg16` is not among the models compared"),
        ("compare --all resnet50", "exclude each other"),
        ("list squeezenet", "no model matches"),
        ("check nothing.yaml", "no such file"),
        ("info nothing", "unknown model `nothing`"),
        ("verify resnext50_32x4d C=8", "as the paper has it"),
        ("verify nothing", "unknown model `nothing`"),
        ("reconcile resnet50 4.1", "`4.1` has no unit"),
        ("reconcile resnet50 4_G", "is not a figure"),
        ("reconcile 4.1G resnet50", "hint: `resnet-cli reconcile resnet50 4.1G`"),
        ("reconcile resnet50 0G", "nothing to explain"),
        ("max-batch resnet50 --memory 16", "`16` has no unit"),
        ("max-batch resnet50 --memory 16GB --optimizer adam", "an optimizer is of training"),
        ("papers resnet table 99", "no table matches `resnet table 99`"),
        ("compare resnet18 --protocol single-crop", "no accuracy is published for these nets"),
        ("compare --protocol single-crop", "did you mean `single-crop-224`"),
        ("fmt nothing.yaml", "no such file"),
        ("max-batch resnet50 --memory much", "memory: `much` is not an amount"),
        ("max-batch resnet50 resnet18 --memory 8GB", "`max-batch` takes one model, not 2"),
        ("check resnet50 --max-params many", "--max-params: `many` is not an amount"),
        ("check resnet50 --against nothing.json", "no such file: `nothing.json`"),
        ("diff resnet50", "`diff` takes two models, not 1"),
        ("diff resnet18* resnet50", "`diff` takes two models, not 3"),
        ("diff resnet50 nothing.yaml", "no such file: `nothing.yaml`"),
    ],
)
def test_bad_input_is_a_message_and_exit_code_2(command: str, message: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.output


def test_cuda_without_cuda_is_a_clear_error() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    result = run("profile resnet18 --device cuda")
    assert result.exit_code == 2
    assert "cuda" in result.stderr


def test_check_tells_invalid_from_unexpected(tmp_path: Path) -> None:
    good = "input: 3x32x32\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n"
    (tmp_path / "good.yaml").write_text(good)
    (tmp_path / "unmet.yaml").write_text(good + "expect: {params: 1, sizes: [16, 1]}\n")
    (tmp_path / "invalid.yaml").write_text(good.replace("3x3 16", "3x3 16 C=5"))
    (tmp_path / "flat.yaml").write_text("input: 3x32x32\ntable: {a: 3x3 8, b: 3x3 8, c: 3x3 8}\n")
    assert run(f"check {tmp_path}/good.yaml").exit_code == 0
    unmet = run(f"check {tmp_path}/unmet.yaml")
    assert unmet.exit_code == 1
    assert "expected 1 params, counted 634 (+633)" in unmet.stderr
    assert run(f"check {tmp_path}/invalid.yaml").exit_code == 2
    both = run(f"check {tmp_path}/unmet.yaml {tmp_path}/invalid.yaml {tmp_path}/good.yaml")
    assert both.exit_code == 2
    assert "good.yaml: ok" in both.stdout
    flat = run(f"check {tmp_path}/flat.yaml")
    assert flat.exit_code == 0
    assert "no row has a stride" in flat.stderr


def test_check_warns_of_a_stage_that_lacks_the_captions_stride(tmp_path: Path) -> None:
    table = (
        "input: 3x64x64\n"
        "table: {a: 7x7 8 /2, b: [residual x 2: [3x3 8]], c: [residual x 2: [3x3 16STRIDE]], d: global avg}\n"
    )
    (tmp_path / "lacks.yaml").write_text(table.replace("STRIDE", ""))
    (tmp_path / "has.yaml").write_text(table.replace("STRIDE", " /2"))
    (tmp_path / "dilated.yaml").write_text(table.replace("STRIDE", " dil=2"))
    assert "`c` doubles the channels and keeps the size" in run(f"check {tmp_path}/lacks.yaml").stderr
    assert run(f"check {tmp_path}/has.yaml {tmp_path}/dilated.yaml").stderr == ""


def test_diff_s_exit_code_says_whether_nets_differ_only_if_asked() -> None:
    assert run("diff resnet50 resnet18").exit_code == 0
    assert run("diff resnet50 resnet18 --exit-code").exit_code == 1
    assert run("diff resnet50 resnet18 --exit-code --format json").exit_code == 1
    assert run("diff resnet50 resnet50 --exit-code").exit_code == 0
    assert json.loads(run("diff resnet50 resnet50 --format json").stdout)["differs"] is False


def test_the_columns_of_a_diff_sum_to_its_total() -> None:
    *rows, total = csv.DictReader(io.StringIO(run("diff inception_v3 inception_v4 --format csv").stdout))
    for column in ("params", "macs", "activations", "memory_bytes"):
        assert sum(int(row[column]) for row in rows) == int(total[column])
        assert sum(float(row[f"{column}_share"]) for row in rows) == pytest.approx(1, abs=1e-4)


def test_fmt_keeps_comments_and_writes_the_canonical_form(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text(
        "# mine\ninput: 3×32×32   # small\ntable:\n  conv1: 3x3, 16, stride 2   # stem\n"
        "  conv2:\n  - residual × 2: [3x3 16, 3x3 16]\n  - 3×3 max pool, stride 2\n  head: average pool, 10-d fc\n"
    )
    assert run(f"fmt --check {path}").exit_code == 1
    assert run(f"fmt {path}").exit_code == 0
    assert path.read_text() == (
        "# mine\ninput: 3x32x32   # small\ntable:\n  conv1: 3x3 16 /2   # stem\n"
        "  conv2:\n  - residual x 2: [3x3 16, 3x3 16]\n  - 3x3 max /2\n  head: [global avg, fc 10]\n"
    )
    assert run(f"fmt --check {path}").exit_code == 0


def test_fmt_changes_nothing_in_a_file_it_cannot_read(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("input: 3x32x32\ntable: {conv1: 3x3 16 16}\n")
    before = path.read_bytes()
    assert run(f"fmt {path}").exit_code == 2
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


NUMBER = re.compile(r"(?<![\w.])[0-9]+\.?[0-9]*[KMG]?(?![\w.])")


@pytest.mark.parametrize(
    "command",
    ["verify resnet*", "compare cifar* --accuracy", "papers resnext", "info wrn_28_10", "profile preact_resnet200",
     *(pytest.param(command, marks=pytest.mark.slow) for command in ("verify", "compare --all --accuracy", "papers"))],
)  # fmt: skip
@pytest.mark.parametrize("width", [80, 132])
def test_nothing_is_cut_on_a_terminal_but_what_it_says_it_leaves_out(
    command: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from rich.console import Console

    def terminal() -> Console:
        return Console(width=width, highlight=False, soft_wrap=False, emoji=False, markup=False)

    piped = run(command).stdout
    monkeypatch.setattr("resnetcli.table.output.console", terminal)
    shown = run(command).stdout
    assert max(map(len, shown.splitlines())) <= width
    assert "hidden (terminal too narrow)" in shown or set(NUMBER.findall(piped)) <= set(NUMBER.findall(shown))


def test_nothing_is_cut_when_piped() -> None:
    result = run(["compare", "resnext101_32x4d", "resnext101_32x4d", "C=1", "d=100"], COLUMNS="30")
    assert "resnext101_32x4d C=1 d=100" in result.stdout


def test_a_closed_pipe_ends_quietly() -> None:
    command = f"{sys.executable} -m resnetcli compare vgg* --format json | head -1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (result.stdout, result.stderr) == ("{\n", "")


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("list | head -1; exit ${PIPESTATUS[0]}", 141, ""),
        ("list >&-", 0, ""),
        ("list > /dev/full", 3, "No space left on device"),
        ("--help > /dev/full", 3, "No space left on device"),
        ("profile nothing 2> /dev/full", 2, ""),
        ("fmt - < /dev/zero", 2, "is larger than 64 KiB"),
        ("fmt - <&-", 2, "the file is empty"),
    ],
)
def test_a_stream_that_is_closed_or_full_or_endless_ends_in_an_exit_code(command: str, code: int, message: str) -> None:
    words = ["bash", "-c", f"{sys.executable} -m resnetcli {command}"]
    result = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == code
    assert message in result.stderr
    assert bool(result.stderr) == bool(message)
    assert "Traceback" not in result.stderr


def test_fmt_reads_a_cell_written_as_a_block_of_text(tmp_path: Path) -> None:
    path = tmp_path / "net.yaml"
    path.write_text("input: 3x8x8\ntable:\n  a: |\n    3×3, 64\n  b: 1x1 4\n")
    assert run(f"fmt {path}").exit_code == 0
    assert path.read_text() == "input: 3x8x8\ntable:\n  a: 3x3 64\n  b: 1x1 4\n"


def heeds_interrupts() -> None:
    """As a shell starts its foreground jobs; those in the background, which may be us, are told to ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_ends_quietly_with_130() -> None:
    child = subprocess.Popen([sys.executable, "-m", "resnetcli", "fmt", "-"], stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                             preexec_fn=heeds_interrupts)  # fmt: skip
    assert child.stdin is not None
    child.stdin.write("input: 3x32x32\n" * 100)
    child.stdin.flush()
    with pytest.raises(subprocess.TimeoutExpired):
        child.wait(timeout=1.5)  # it waits for the rest
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert child.returncode == 130
    assert "Traceback" not in errors


def test_a_terminal_without_unicode_still_gets_its_table() -> None:
    result = process("show", "resnet18", PYTHONIOENCODING="ascii")
    assert result.returncode == 0
    assert "conv2_x" in result.stdout


@pytest.mark.parametrize(
    "words",
    [
        ["--help"],
        ["list"],
        ["compare", "vgg*"],
        ["diff", "resnet50", "resnext50_32x4d"],
        ["profile", "resnet50"],
        ["profile", "resnet50", "--receptive"],
        ["show", "resnet50"],
        ["verify", "googlenet"],
        ["papers", "wrn"],
        ["info", "googlenet"],
        ["max-batch", "resnet50", "--memory", "8GB", "--mode", "train"],
        ["check", "resnet50", "--max-memory", "1GB"],
    ],
)
def test_what_needs_no_weights_imports_neither_torch_nor_pandas(words: list[str]) -> None:
    code = (
        "import sys\nfrom resnetcli.cli.main import app\n"
        f"try: app({words!r}, prog_name='resnet-cli')\nexcept SystemExit: pass\n"
        "loaded = {'torch', 'pandas', 'numpy'} & set(sys.modules)\n"
        "assert not loaded, loaded\n"
        f"assert '--help' not in {words!r} or not [m for m in sys.modules if m.startswith('resnetcli.spec')]"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_the_readmes_pictures_are_what_the_commands_print() -> None:
    script = Path(__file__).parents[2] / "docs" / "pictures.py"
    result = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


def test_predicting_and_explaining_without_a_device_load_no_torch() -> None:
    for command in ("estimate resnet50 --device-profile a100-40gb", "explain resnet18 --device-profile a100-40gb"):
        code = f"import sys; sys.argv = 'resnet-cli {command}'.split(); from resnetcli.cli.main import main\n"
        code += "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        assert "floor" in result.stdout


def test_counting_loads_only_what_it_takes() -> None:
    measuring = (
        "bench.search", "plan.receptive", "reports.profile_record", "reports.reconcile", "reports.baseline",
        "reports.search_table",
    )  # fmt: skip
    unused = {"torch", "numpy", "pandas", *(f"resnetcli.{name}" for name in measuring)}
    code = (
        "import sys; sys.argv = ['resnet-cli', 'profile', 'resnet50']; from resnetcli.cli.main import main\n"
        f"try:\n    main()\nfinally:\n    loaded = {unused} & {{*sys.modules}}\n    assert not loaded, loaded"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 0, result.stderr


def test_a_calibration_is_shown_once_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    result = run("calibrate --show")
    assert result.exit_code == 2
    assert "`cpu` was not calibrated here yet" in result.output
    write_profile(read_profile("v100"), cache_file("cpu"))
    shown = run("calibrate --show --format json")
    assert json.loads(shown.stdout)["name"] == "NVIDIA V100 SXM2"
    assert "900.0 GB/s" in run("calibrate --show").stdout


def test_noisy_ceilings_are_not_kept_in_the_place_of_quiet_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetcli.roofline.peaks import cached, read_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    quiet = replace(read_profile("v100"), source="measured", device="cpu")
    noisy = replace(quiet, launch_s=1e-6, noisy=("other programs took 80% of the processors",))
    for found, kept in ((noisy, noisy), (quiet, quiet), (noisy, quiet)):
        monkeypatch.setattr("resnetcli.roofline.calibrate.calibrate", lambda device, report, found=found: found)
        result = run("calibrate")
        assert result.exit_code == 0
        assert ("not cached: these are noisy" in result.stderr) is (found != kept)
        assert cached("cpu") == kept


def test_a_calibration_as_csv_has_all_of_it_a_figure_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    ceilings = replace(read_profile("v100"), launch_s=3e-6, gap_s=1e-6)
    write_profile(ceilings, cache_file("cpu"))
    rows = list(csv.reader(io.StringIO(run("calibrate --show --format csv").stdout)))
    assert rows[0] == ["kind", "what", "value", "unit"]
    found = {(kind, what): (float(value), unit) for kind, what, value, unit in rows[1:]}
    assert found[("launch", "")] == (3e-6, "s")
    assert found[("gap", "")] == (1e-6, "s")
    for dtype, peak in ceilings.peaks.items():
        assert found[("matmul", dtype)] == (peak.matmul, "FLOP/s")
        assert found[("conv", dtype)] == (peak.conv, "FLOP/s")
    for rate in ceilings.rates:
        assert found[("copy", str(rate.working_set))] == (rate.copy, "B/s")
        assert found[("read", str(rate.working_set))] == (rate.read, "B/s")
    assert len(rows) == len(found) + 1 == 3 + 2 * len(ceilings.peaks) + 2 * len(ceilings.rates)


def test_ceilings_of_a_busy_machine_are_said_by_every_command_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    reason = "other programs took 80% of the processors"
    file = tmp_path / "busy.json"
    for path in (cache_file("cpu"), file):
        write_profile(replace(read_profile("v100"), source="measured", device="cpu", noisy=(reason,)), path)
    used = f"the ceilings were measured on a busy machine ({reason}): `resnet-cli calibrate` again when it is quiet"
    profile = ["resnet18", "--device-profile", str(file)]
    for command, line in (
        (["calibrate", "--show"], f"noisy: {reason}; not to be relied upon, calibrate again on a quiet machine"),
        (["explain", *profile], used),
        (["estimate", *profile], used),
    ):
        wide = {"COLUMNS": "200", "TERMINAL_WIDTH": "200"}
        assert run(command, **wide).stdout.splitlines().count(line) == 1
        assert f"{line}  \n" in run([*command, "--format", "md"], **wide).stdout
        table = run([*command, "--format", "csv"], **wide)
        assert (line in table.stdout, f"warning: {line}" in table.stderr) == (False, True)
        record = json.loads(run([*command, "--format", "json"]).stdout)
        assert record.get("ceilings", record)["noisy"] == [reason]


def test_a_net_is_explained_against_a_file_whose_name_has_spaces_and_against_itself(tmp_path: Path) -> None:
    spec = tmp_path / "a net.yaml"
    spec.write_text("input: 3x8x8\nlet: {k: 2}\ntable:\n  conv: [3x3 8*k]\n")
    result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", f"{spec} k=3"])
    assert result.exit_code == 0, result.output
    assert "has a floor" in result.stdout
    same = run("explain resnet18 --device-profile v100 --vs resnet18")
    assert "ResNet-18 has the floor of ResNet-18" in same.stdout
    assert "difference" not in same.stdout  # there is none to be shown
    for other, message in (("", "unknown model ``"), ("resnet18 classes=many", "`many` is not a whole number")):
        result = run(["explain", "resnet18", "--device-profile", "v100", "--vs", other])
        assert result.exit_code == 2
        assert message in result.stderr


def test_only_a_datasheet_that_was_tested_says_so(tmp_path: Path) -> None:
    from resnetcli.roofline.peaks import read_profile, to_json

    own = tmp_path / "own.json"
    own.write_text(json.dumps(to_json(read_profile("rtx4090"))))
    tested = "estimate resnet18 --device-profile rtx4090 --dtype fp16 --batch-size 512"
    assert "\ntested: floors in fp16 at batch 512 were 80% to 98% of" in run(tested).stdout
    assert "never tested" in run(["estimate", "resnet18", "--device-profile", str(own)]).stdout


@pytest.mark.parametrize(("dtype", "batch"), [("fp32", 1), ("fp16", 1), ("bf16", 512)])
def test_a_prediction_for_another_case_than_was_tested_says_so(dtype: str, batch: int) -> None:
    shown = run(
        f"estimate resnet18 --device-profile rtx4090 --dtype {dtype} --batch-size {batch}", COLUMNS="200"
    ).stdout
    assert f"\nnot tested in {dtype} at batch {batch}, which is another case: floors in fp16 at batch 512 were" in shown
    assert "\ntested:" not in shown


def test_a_net_is_explained_by_measuring_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.roofline.peaks import cache_file, read_profile, write_profile

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    write_profile(read_profile("rtx4090"), cache_file("cpu"))
    drawing = tmp_path / "roof.svg"
    command = "explain cifar_resnet20 --vs cifar_resnet32 --device cpu --time-budget 50ms --format json"
    result = run([*command.split(), "--channels-last", "--keep-memory", "--roofline", str(drawing)])
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert record["net"]["settings"] == "fp32 channels_last keep-memory"
    assert 0 < record["net"]["floor"]["floor_s"] < record["net"]["measured_s"]
    assert sum(record["net"]["shares"].values()) == pytest.approx(1)
    assert record["vs"]["net"]["model"] == "cifar_resnet32"
    assert f"drawn: {drawing}" in result.stderr
    assert drawing.read_text().startswith("<svg")


def test_what_is_not_to_be_relied_upon_is_said_beside_a_csv_of_times_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from resnetcli.plan.plan import Plan
    from resnetcli.roofline.analysis import explain
    from resnetcli.roofline.peaks import Ceilings, read_profile
    from tests.support.measured import MEASURED

    def busy(nets: list[tuple[str, str, Plan]], ceilings: Ceilings, **others: object) -> object:
        ((model, title, plan),) = nets
        return (explain(model, plan, title, ceilings, measurement=replace(MEASURED, noisy=("busy",))),), None

    monkeypatch.setattr("resnetcli.roofline.analysis.ceilings_of", lambda *arguments: read_profile("v100"))
    monkeypatch.setattr("resnetcli.roofline.analysis.explain_measured", busy)
    shown = run("explain resnet18 --device cpu --format csv")
    assert shown.exit_code == 0
    assert "warning: noisy: resnet18: busy; not to be relied upon" in shown.stderr


@pytest.mark.parametrize("words", ["25.6 M", "25.6M params", "25.6 M parameters"])
def test_a_figure_may_be_several_words(words: str) -> None:
    result = run(f"reconcile resnet50 {words}")
    assert result.exit_code == 0
    assert f"{words} is explained: parameters" in result.stdout


@pytest.mark.parametrize(
    ("word", "hint"),
    [("net", "`net.py:NAME`"), ("net:Net", "`net.py:Net`"), ("package:Net", "`package/__init__.py:Net`")],
)
def test_the_hint_for_a_file_of_code_without_its_ending_names_it(
    word: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package").mkdir()
    for file in ("net.py", "package/__init__.py"):
        (tmp_path / file).write_text("")
    monkeypatch.chdir(tmp_path)
    result = run(f"profile {word}")
    assert result.exit_code == 2
    assert hint in result.stderr
