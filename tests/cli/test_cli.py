"""The command line as a user meets it: what is printed, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

from resnetcli import __version__
from resnetcli.cli.root import PANELS
from tests.support.cli import check_golden, run

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


@pytest.mark.parametrize("name", COMMANDS)
def test_what_a_command_prints_is_as_reviewed(name: str, pytestconfig: pytest.Config) -> None:
    result = run(COMMANDS[name])
    assert result.exit_code == 0, result.output
    check_golden(name, f"$ resnet-cli {COMMANDS[name]}\n{result.stdout}", pytestconfig)


@pytest.mark.parametrize("command", HELPS)
def test_the_help_of_every_command_is_as_reviewed(command: str, pytestconfig: pytest.Config) -> None:
    result = run([*command.split(), "--help"])
    assert result.exit_code == 0
    check_golden(f"help_{command or 'root'}", result.stdout, pytestconfig)


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
    assert record["schema"] == "resnet-cli/profile@2"
    assert record["parameters"] == {"classes": 1000, "C": 8, "d": 14}
    assert (record["params"], record["macs"], record["flops"]) == (25603016, 4267409408, 2 * 4267409408)
    assert record["input"] == [3, 224, 224]
    assert record["published"] == []  # another model's figures
    assert record["latency"] is None
    assert sum(stage["macs"] for stage in record["stages"]) == record["macs"]


@pytest.mark.parametrize(("by", "first"), [("block", "conv1.0"), ("layer", "conv1.0")])
def test_json_has_the_rows_of_a_finer_table(by: str, first: str) -> None:
    record = json.loads(run(f"profile googlenet --by {by} --format json").stdout)
    parts = record["parts"]
    rows = list(csv.DictReader(run(f"profile googlenet --by {by} --format csv").stdout.splitlines()))
    assert parts[0]["part"] == first
    assert [int(row["params"]) for row in rows if row["params"]][: len(parts)] == [part["params"] for part in parts]
    for key, total in (("params", "params"), ("macs", "macs"), ("activations", "activations")):
        assert sum(part[key] for part in parts) == record[total]
    assert json.loads(run("profile googlenet --format json").stdout)["parts"] is None


@pytest.mark.parametrize("command", ["profile resnet18", "max-batch resnet18 --memory 8GB", "reconcile resnet18 1.8G"])
def test_aux_without_auxiliary_classifiers_is_a_warning(command: str) -> None:
    result = run(f"{command} --aux")
    assert result.exit_code == 0
    warning = "warning: `--aux` has no effect on `resnet18`: it has no auxiliary classifiers\n"
    assert result.stderr == warning
    assert "warning" not in run(f"{command.replace('resnet18', 'googlenet').replace('1.8G', '1.6G')} --aux").stderr


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
        {entry["value"]: entry["verdict"] for entry in model["published"] if entry["figure"] in ("params", "macs")}
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
        ("profile resnet50 --flops --convention thop", "`--flops` cannot be used with `--convention thop`"),
        ("explain resnet50", "needs a device or a device profile"),
        ("explain resnet50 --device cpu --device-profile v100", "`--device` cannot be used with `--device-profile`"),
        ("explain resnet50 resnet18 --device-profile v100", "another one with `--vs`"),
        ("explain resnet50 --device-profile v100 --measure", "`--measure` requires --device"),
        ("explain resnet50 --device-profile v100 --channels-last", "`--channels-last` requires --device"),
        ("explain resnet50 --device-profile v100 --keep-memory", "`--keep-memory` requires --device"),
        ("explain resnet50 --device cpu --dtype fp16", "fp16 on a CPU is slower than fp32"),
        ("explain resnet50 --device-profile v100 --roofline nowhere/roof.svg", "--roofline: there is no directory"),
        ("explain resnet50 --device cpu --roofline /dev/null", "--roofline: `/dev/null` is not a regular file"),
        ("explain resnet50 --device cpu --roofline a.png", "--roofline: `a.png` is not an SVG file"),
        ("explain resnet50 --device-profile v100 --roofline roof", "use the extension .svg"),
        ("explain resnet50 --device-profile v100 --dtype bf16", "no peak FLOP/s of NVIDIA V100 SXM2 in `bf16`"),
        ("estimate resnet50 --device-profile rtx409", "did you mean `rtx4090`"),
        ("estimate resnet50 --device-profile v100 --batch-size 0", "invalid batch size 0"),
        ("calibrate --device tpu", "unknown device `tpu`"),
        ("reconcile resnet50", "takes a model and a figure"),
        ("reconcile resnet50 many", "`many` is not a figure"),
        ("reconcile resnet50 resnet18 4.1G", "`reconcile` takes one model, not 2"),
        ("reconcile resnet5 4.1G", "unknown model `resnet5`"),
        ("crosscheck resnet5", "unknown model `resnet5`"),
        ("profile nothing.yaml", "no such file: `nothing.yaml`"),
        ("profile .", "unknown model `.`"),
        ("profile ./", "is a directory"),
        ("profile resnet50 resnet18", "`profile` takes one model, not 2"),
        ("profile C=8", "is not preceded by a model"),
        ("profile resnext50_32x4d C=eight", "`eight` is not a whole number"),
        ("profile resnext50_32x4d G=8", "has no parameter `G`"),
        ("profile resnext50_32x4d C=8 C=4", "`C` is set twice"),
        ("profile cifar_resnet depth=21", "is not a whole number"),
        ("profile resnet50 --input 224a", "`224a` is not an input size"),
        ("profile resnet50 --input 3x8x8 --batch-size 0", "`--batch-size` must be at least 1"),
        ("profile resnet50 --device tpu", "tpu"),
        ("profile resnet50 --device mps", "mps"),
        ("profile resnet50 --compile", "`--compile` requires --device"),
        ("compare --threads 2", "`--threads` requires --device"),
        ("profile resnet50 --device cpu --best --fold-bn", "`--fold-bn` cannot be used with `--best`"),
        ("compare --keep-memory", "`--keep-memory` requires --device"),
        ("profile resnet50 --time-budget 9s", "`--time-budget` requires --device"),
        ("explain resnet50 --device-profile v100 --time-budget 9s", "`--time-budget` requires --device"),
        ("profile resnet50 --device cpu --dtype bf15", "did you mean `bf16`"),
        ("profile resnet50 --device cpu --dtype fp16", "fp16 on a CPU"),
        ("compare --device cpu --dtype tf32", "TF32 requires an NVIDIA GPU"),
        ("profile resnet50 --device cpu --cuda-graph", "`--cuda-graph` requires a GPU"),
        ("compare --device cpu --threads 0", "`--threads` must be 1 to 1024, not 0"),
        ("profile resnet50 --device cpu --best --dtype fp16", "fp16 on a CPU"),
        ("compare --sort size", "cannot sort by `size`"),
        ("compare --sort params_ratio", "hint: add `--baseline MODEL`"),
        ("compare --sort median_s", "measured only with `--device`"),
        ("compare --baseline vgg16", "the baseline `vgg16` is not among the models compared"),
        ("compare --all resnet50", "`--all` cannot be used with models"),
        ("list squeezenet", "no model matches"),
        ("check nothing.yaml", "no such file"),
        ("info nothing", "unknown model `nothing`"),
        ("verify resnext50_32x4d C=8", "published figures are for the default parameters"),
        ("verify nothing", "unknown model `nothing`"),
        ("reconcile resnet50 4.1", "`4.1` has no unit"),
        ("reconcile resnet50 4_G", "is not a figure"),
        ("reconcile 4.1G resnet50", "hint: `resnet-cli reconcile resnet50 4.1G`"),
        ("info resnet50 --yaml --explain-columns", "omit `--explain-columns`"),
        ("train-cifar --depth 20 --data synthetic --data-dir .", "synthetic data is not read from `--data-dir`"),
        ("reconcile resnet50 0G", "`0G` is zero"),
        ("max-batch resnet50 --memory 16", "`16` has no unit"),
        ("max-batch resnet50 --memory 16GB --optimizer adam", "`--optimizer` requires `--mode train`"),
        ("papers resnet table 99", "no table matches `resnet table 99`"),
        ("compare resnet18 --protocol single-crop", "no accuracy is published for these models"),
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


def test_pictures_show_what_the_commands_print() -> None:
    script = Path(__file__).parents[2] / "docs" / "pictures.py"
    result = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("words", ["25.6 M", "25.6M params", "25.6 M parameters"])
def test_a_figure_may_be_several_words(words: str) -> None:
    result = run(f"reconcile resnet50 {words}")
    assert result.exit_code == 0
    assert f"{words} is explained by parameters" in result.stdout


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
