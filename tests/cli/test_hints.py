"""What people type wrong, and the hints for it: every hint works when it is typed."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from tests.support.cli import run
from tests.support.thin import thinned

WRONG = """\
summary resnet50
flops resnet50 --input 32
benchmark resnet18 --format csv
params resnet18
profil resnet50 --by layer
PROFILE resnet18
resnet50
resnet50 --flops
./net.yaml
train
summary
help nothing
data fetc
compare resnext50
compare ResNet50 resnet18
profile resnet-50
profile wrn-28-10
profile densenet
show vgg
list ResNet50
info Resnet50
max-batch mobilenet_v2 --memory 8GB
estimate vgg --device-profile v100
estimate resnet18 --device-profile V-100
estimate resnet18 --device-profile rtx-4090
profile resnet50 --flop
profile resnet50 --macs
profile resnet50 --json
profile resnet50 --csv
profile resnet50 --markdown
profile resnet50 --imgsz 64
profile resnet50 --bs 8
profile resnet50 --batchsize 8
profile resnet50 --batch 8
show resnet50 --batch 8
explain resnet50 --batch 8 --device-profile v100
profile resnet50 --layers
profile resnet50 --by row
profile resnet50 --format jsn
profile resnet50 --format markdown
profile resnet50 --convention fvcor
profile resnet50 --input 64x64x3
profile resnet50 --input 8x3x64x64
profile resnet50 --input 3x64
profile resnet50 depht=3
profile cifar_resnet dept=20
max-batch resnet50 --memory 8
max-batch resnet50 --memory 8GB --dtype bf15
max-batch resnet50 --memory 8GB --mode trian
max-batch resnet50 --memory 8GB --mode train --optimizer adamw
max-batch resnet50 --memory 8GB --half
max-batch resnet50
compare --sort flop
compare --sort parms
compare --baseline resnet5
compare --protocol single-crop
compare --output-format csv
compare --flops --convention thop
papers resnt
papers --list --format json
reconcile resnet50
reconcile resnet50 4.1
diff resnet50
profile
check
check net
data convert
data check
curves
profile resnet50 resnet18
verify resnet50 classes=8
profile resnet50 classes
compare resnet50 classes resnet18
estimate resnet50
"""
QUOTED = re.compile("`([^`]+)`")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text("input: 3x32x32\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n")
    (tmp_path / "sub").mkdir()
    for name, text in (("base1", ""), ("child", "extends: base2.yaml\n"), ("zoo", "extends: resnet50.yaml\n")):
        (tmp_path / "sub" / f"{name}.yaml").write_text(text)


def hint_of(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("hint: "))


def typed(command: str, message: str, quoted: str) -> list[str] | None:
    """The command line with what a hint quotes in it; None for what is not to be typed."""
    if quoted.startswith("resnet-cli "):
        return shlex.split(quoted)[1:]
    words = shlex.split(command)
    for wrong in [*QUOTED.findall(message)[::-1], message.removeprefix("error: ").partition(":")[0]]:
        if place := next((n for n, word in enumerate(words) if word == wrong or word.startswith(f"{wrong}=")), None):
            break
    else:
        return None
    quoted += words[place][len(wrong) :]  # `depth` and what it was set to
    new = quoted.split()
    if len(new) > 1 and new[0] == words[place - 1]:
        return [*words[: place - 1], *new, *words[place + 1 :]]  # `--input 3x64x64` in the place of both
    return [*words[:place], *new, *words[place + 1 :]]


@pytest.mark.parametrize("command", thinned(WRONG.splitlines(), 3))
def test_every_hint_works_when_it_is_typed(command: str) -> None:
    result = run(shlex.split(command))
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert "╭" not in result.output  # typer's box
    assert "Value error" not in result.output
    message, hint = result.stderr.splitlines()[0], hint_of(result.stderr)
    assert hint, "without a hint"
    quoted = QUOTED.findall(hint)
    assert len(set(quoted)) == len(quoted)
    for text in quoted:
        omitted = f"omit `{text}`" in hint
        words = [word for word in shlex.split(command) if word != text] if omitted else typed(command, message, text)
        if words is None or "torchvision:" in text or "timm:" in text:  # which would import torch
            continue
        again = run(words)
        assert again.exit_code in (0, 1), (words, again.stderr)


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("profile resnext50", "did you mean `resnext50_32x4d`, "),
        ("profile mobilenet_v2", "did you mean `torchvision:mobilenet_v2` or `timm:mobilenetv2_100`?"),
        ("profile densenet", "`torchvision:densenet121`"),
        ("profile timm:efficientnet_bo", "did you mean `timm:efficientnet_b0`"),
        ("profile torchvision:ResNet50", "did you mean `torchvision:resnet50`?"),
        ("profile ResNet50", "did you mean `resnet50`?"),
        ("profile wrn-28-10", "did you mean `wrn_28_10`?"),
        ("profile resnext101", "did you mean `resnext101_"),
        ("profile vgg", "did you mean `vgg16`"),
        ("max-batch vgg --memory 8GB", "did you mean `vgg16`"),
        ("train-cifar --depth 20 --epochs 3", "did you mean `--iterations`?"),
        ("train-cifar --depth 20 --lr 0.1", "set it in the recipe, a YAML file: `--recipe`"),
        ("train-cifar --depth 20 --batchsize 8", "did you mean `--batch-size`?"),
        ("train-cifar --depth 20 --workers 8", "there are no data loader workers"),
        ("train-cifar --depth 20 --precision bf16", "did you mean `--dtype`?"),
        ("train-cifar --depth 20 --gpu", "did you mean `--device cuda`?"),
        ("profile resnet50 --cuda", "did you mean `--device cuda`?"),
        ("profile resnet50 -d cpu", "did you mean `--device`?"),
        ("profile resnet50 --output x", "the result goes to stdout: add `> FILE`"),
        ("curves a --output x.png", "did you mean `--out`?"),
        ("train --depth 20", "did you mean `resnet-cli train-cifar --depth 20`?"),
        ("profile resnet50 --batch-size", "see `resnet-cli profile --help`"),
        ("profile resnet50 --batch 8", "did you mean `--batch-size`?"),
        ("calibrate cpu", "did you mean `--device cpu`?"),
        ("calibrate resnet50", "see `resnet-cli calibrate --help`"),
        ("max-batch resnet50 8GB", "did you mean `--memory 8GB`?"),
        ("max-batch resnet50 --memory", "see `resnet-cli max-batch --help`"),
    ],
)
def test_what_other_tools_call_it_is_understood(command: str, hint: str) -> None:
    result = run(command)
    assert result.exit_code == 2
    assert hint in hint_of(result.stderr)


ONE_INPUT = (
    "64", "64x64", "64,64", "3,64,64", "3×64×64", "3X64X64", "(3, 64, 64)", "[3,64,64]", "1x3x64x64", " 3x64x64 ",
    "3 64 64", "3 x 64 x 64", "(1, 3, 64, 64)", "64 64",
)  # fmt: skip
TAKE_INPUT = (
    "profile resnet18", "show resnet18", "compare resnet18", "diff resnet18 resnet34", "reconcile resnet18 1G",
    "max-batch resnet18 --memory 8GB", "estimate resnet18 --device-profile v100",
    "explain resnet18 --device-profile v100",
)  # fmt: skip


@pytest.mark.parametrize("text", ONE_INPUT)
def test_an_input_can_be_written_as_people_do(text: str) -> None:
    expected = run("profile resnet18 --input 3x64x64 --format json").stdout
    assert run(["profile", "resnet18", "--input", text, "--format", "json"]).stdout == expected
    assert run(["profile", "resnet18", "--format", "json", "--input", *text.split()]).stdout == expected


@pytest.mark.parametrize("command", thinned(TAKE_INPUT, 2))
def test_every_command_takes_an_input_alike(command: str) -> None:
    expected = run(f"{command} --input 3x64x64 --format csv")
    assert expected.exit_code in (0, 1)
    for text in ("64", "(3, 64, 64)", "1x3x64x64"):
        result = run([*command.split(), "--format", "csv", "--input", text])
        assert (result.stdout, result.exit_code) == (expected.stdout, expected.exit_code)
        assert ("note: --input" in result.stderr) == (text == "1x3x64x64")
    for text in ("", "x", "3x", "0", "-1", "3x64x64x64x64", "٣x64x64", "1e3", "16385", "9" * 400, "axbxc", "64x64x3"):
        result = run([*command.split(), "--input", text])
        assert result.exit_code == 2, text
        assert result.stdout == ""
        assert "hint: " in result.stderr


def test_channels_that_are_not_given_are_the_models_own() -> None:
    spec = Path("grey.yaml")
    spec.write_text("input: 1x28x28\ntable: {conv1: 3x3 16 /2, head: [global avg, fc 10]}\n")
    record = json.loads(run("profile grey.yaml --input 56 --format json").stdout)
    assert record["input"] == [1, 56, 56]
    record = json.loads(run("compare grey.yaml net.yaml --input 56x48 --format json").stdout)
    assert [model["input"] for model in record["models"]] == [[1, 56, 48], [3, 56, 48]]


@pytest.mark.parametrize(
    "text", ["8GB", "8G", "8gb", "8 GB", "8 gb", "8.0GB", "8000MB", "8000 m", "8000000kB", " 8GB "]
)
def test_an_amount_of_memory_can_be_written_as_people_do(text: str) -> None:
    expected = run("max-batch resnet18 --memory 8GB --format csv").stdout
    assert run(["max-batch", "resnet18", "--memory", text, "--format", "csv"]).stdout == expected
    assert run(["max-batch", "resnet18", "--memory", *text.split(), "--format", "csv"]).stdout == expected
    gib = run("max-batch resnet18 --memory 8GiB --format csv").stdout
    assert run("max-batch --memory 8 GiB resnet18 --format csv").stdout == gib != expected
    assert run("max-batch resnet18 --memory 8192MiB --format csv").stdout == gib


def test_limits_are_read_where_a_shell_has_split_them() -> None:
    assert run("check resnet18 --max-params 26 M").exit_code == 0
    assert run("check resnet18 --max-params 1 M").exit_code == 1
    assert "resnet50" not in run("compare resnet18 resnet50 --max-params 12 M").stdout


@pytest.mark.parametrize(
    ("word", "same"),
    [("float32", "fp32"), ("single", "fp32"), ("torch.float16", "fp16"), ("half", "fp16"), ("Float16", "fp16"),
     ("bfloat16", "bf16"), ("torch.bfloat16", "bf16"), ("BF16", "bf16")],
)  # fmt: skip
def test_a_dtype_can_be_written_as_people_do(word: str, same: str) -> None:
    command = "max-batch resnet18 --memory 8GB --mode train --format csv --dtype"
    assert run(f"{command} {word}").stdout == run(f"{command} {same}").stdout != ""


@pytest.mark.parametrize(("word", "same"), [("training", "train"), ("TRAIN", "train"), ("inference", "infer"),
                                            ("eval", "infer"), ("Evaluation", "infer")])  # fmt: skip
def test_a_mode_can_be_written_as_people_do(word: str, same: str) -> None:
    command = "max-batch resnet18 --memory 8GB --format csv --mode"
    assert run(f"{command} {word}").stdout == run(f"{command} {same}").stdout != ""


def test_help_and_version_have_their_usual_names() -> None:
    assert run("help").stdout == run("--help").stdout
    expected = run("profile --help").stdout
    for command in ("help profile", "--help profile", "-h profile"):
        assert run(command).stdout == expected
        assert run(command).exit_code == 0
    assert run("help data fetch").stdout == run("data fetch --help").stdout
    for command in ("version", "-V", "-v"):
        assert run(command).stdout == run("--version").stdout


@pytest.mark.parametrize("sort", ["macs", "MACs", "acts", "activations", "-params", "-Params", "fvcore-train",
                                  "fvcore_train", "FVCORE_TRAIN", "depth", "model", "name"])  # fmt: skip
def test_a_column_is_sorted_by_the_name_it_has_anywhere(sort: str) -> None:
    result = run(["compare", "resnet50", "resnet18", "vgg16", "--convention", "fvcore-train", "--sort", sort])
    assert result.exit_code == 0


MISUSED = [
    ("explain resnet50 --device-profile v100 --channels-last", "replace `--device-profile v100` by `--device cpu`, "),
    ("explain resnet50 --device-profile v100 --time-budget 3s", "replace `--device-profile v100` by `--device cpu`, "),
    ("explain resnet50 --device-profile v100 --device cpu", "omit one of them"),
    ("explain resnet50 --channels-last", "add `--device cpu`"),
    ("explain resnet50 resnet18 classes=10 --device-profile v100",
     "`resnet-cli explain resnet50 --vs 'resnet18 classes=10' --device-profile v100`"),
    ("explain resnet50 --vs 'vgg1*' --device-profile v100", "`resnet-cli explain resnet50 --vs vgg"),
    ("explain resnet50 cpu", "`resnet-cli explain resnet50 --device cpu`"),
    ("profile resnet50 classes=10 cpu", "did you mean `resnet-cli profile resnet50 classes=10 --device cpu`?"),
    ("profile resnet50 cuda:0", "did you mean `resnet-cli profile resnet50 --device cuda:0`?"),
    ("profile resnet50 classes=10 'vgg1*'", "`resnet-cli compare resnet50 classes=10 'vgg1*'`, with your "),
    ("train-cifar --depth 20 -m x", "did you mean `--model`?"),
    ("train-cifar --depth 20 --weights x", "omit it: training starts from random weights"),
    ("eval run --workers 2", "omit it: there are no data loader workers"),
    ("eval run --model resnet50", "give the run's directory as an argument"),
    ("eval run --weights x", "`--checkpoint` selects an iteration"),
    ("max-batch resnet50 --memory 8GB --batch-size 8", "omit it: the batch size is the result"),
    ("diff vgg16 vgg19 --batch-size 8", "omit it: counts are per image"),
    ("check resnet50 --model x", "give the model as an argument"),
    *((f"{command} {option} 2", f"see `resnet-cli {command.split(' x')[0]} --help`")
      for command in ("calibrate", "fmt x", "list", "curves x", "papers", "data fetch", "data check x",
                      "data convert x y")
      for option in ("--batch-size", "--workers", "--pretrained")),
    *((f"{command} --model x", f"see `resnet-cli {command} --help`")
      for command in ("calibrate", "fmt", "list", "papers", "data check")),
    ("info 'resnet5*'", "did you mean `resnet50`, `resnet50c` or `resnet50d`? `resnet-cli list 'resnet5*'` shows all"),
    ("check 'zz*'", "see `resnet-cli list`"),
    ("check 'resnet50?' --against old.json", "check one at a time: `resnet-cli check resnet50c --against old.json`"),
    ("compare resnet50 resnet18 --baseline resnet50 --max-params 20M",
     "include it with `--max-params 25557032`, or use another baseline, e.g. `resnet18`"),
    ("compare resnet50 resnet18 --baseline resnet50 --max-params 20M --max-macs 2G",
     "include it with `--max-params 25557032 --max-macs 4089184256`, "),
    ("reconcile vgg16", "`resnet-cli reconcile vgg16 4.13G`"),
    ("reconcile xyz", "`resnet-cli reconcile resnet50 4.13G`"),
    ("reconcile resnet50 0", "for example 4.13G, "),
    ("reconcile resnet50 0M", "for example 4.13G, "),
    ("reconcile resnet50 .", "for example 4.13G, "),
    ("reconcile resnet50 resnet18 25M", "one at a time: `resnet-cli reconcile resnet50 25M`"),
    ("reconcile resnet50 4.1G 25M", "one at a time: `resnet-cli reconcile resnet50 4.1G`"),
    ("reconcile 4.1 G FLOPs resnet50", "`resnet-cli reconcile resnet50 4.1 G FLOPs`"),
    ("reconcile resnet50 4.1G classes=10", "`resnet-cli reconcile resnet50 classes=10 4.1G`"),
    ("reconcile resnet50 classes=10", "`resnet-cli reconcile resnet50 classes=10 4.13G`"),
    ("reconcile resnet50 --macs 4.1G", "give the figure last, without an option"),
    ("profile net.yml", "did you mean `net.yaml`?"),
    ("check other/net.yaml", "there is no directory `other` either"),
    ("compare unlike-anything.yaml", "check the path"),
    ("profile resnet50.yaml", "for the model in the zoo, write `resnet50`"),
    ("data check nat.yaml", "did you mean `net.yaml`?"),
    ("max-batch resnet50 resnet18 vgg16 --memory 8GB", "one at a time: omit `resnet18` `vgg16`"),
    ("reconcile 4.1G 25M", "one at a time: `resnet-cli reconcile resnet50 4.1G`"),
    ("reconcile resnet50 4.1G 25", "`resnet-cli reconcile resnet50 4.1G`"),
    ("reconcile resnet50 4.1G resnet18", "`resnet-cli reconcile resnet50 4.1G`"),
    ("reconcile resnet50 classes=10 classes=20", "`resnet-cli reconcile resnet50 classes=10 4.13G`"),
    ("explain resnet50 cpu cuda:0", "`resnet-cli explain resnet50 --device cpu`"),
    ("explain resnet50 classes=10 resnet18 cpu", "`resnet-cli explain resnet50 classes=10 --device cpu`"),
    ("explain resnet50 --vs cpu --device-profile v100", "`resnet-cli explain resnet50 --device cpu`"),
    ("explain resnet50 v100", "use `--device-profile v100`"),
    ("compare resnet50 cuda", "`resnet-cli compare resnet50 --device cuda`"),
    ("show resnet50 --pretrained", "omit it: a model's cost does not depend on its weights"),
    ("compare resnet50 resnet50 classes=10 resnet18 --baseline resnet50 --max-params 24M",
     "include it with `--max-params 25557032`, or use another baseline, e.g. `resnet50 classes=10`"),
    ("check sub/child.yaml", "did you mean `base1.yaml`?"),
    ("check sub/zoo.yaml", "for the model in the zoo, write `resnet50`"),
    ("check o.yaml", "check the path"),
    ("max-batch resnet50 --memory 8GB --optimizer adam", "add `--mode train`, or omit `--optimizer`"),
    ("profile resnet50 classes=0", "from 1 to 1,048,576, e.g. `classes=1000`"),
    ("profile resnet50 classes=1 classes=2", "set it once: `classes=1` or `classes=2`"),
    ("profile resnet50 --workers 2", "see `resnet-cli profile --help`"),
    ("profile resnet50 --abc", "see `resnet-cli profile --help`"),
    ("profile resnet50 --auy", "did you mean `--aux`?"),
]  # fmt: skip
"""Misused commands, and what their hint says; a whole command without a device in it is typed."""


@pytest.mark.parametrize(("command", "hint"), MISUSED)
def test_a_misused_command_has_a_hint_that_works(command: str, hint: str) -> None:
    result = run(shlex.split(command))
    assert result.exit_code == 2, result.output
    assert hint in hint_of(result.stderr)
    for quoted in QUOTED.findall(hint_of(result.stderr)):
        words = shlex.split(quoted)
        if words[:1] == ["resnet-cli"] and not {"--device", "--against"} & set(words):
            again = run(words[1:])
            assert again.exit_code in (0, 1), (words, again.stderr)


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        ("train-cifar", ["resnet-cli/data in $XDG_CACHE_HOME or ~/.cache", "cifar10, or custom if --data-dir has a"]),
        ("data fetch", ["resnet-cli/data in $XDG_CACHE_HOME or ~/.cache"]),
        (
            "eval",
            ["--data-dir DIR Dataset directory. [default: the run's]", "Number of CPU threads. [default: the run's]"],
        ),
    ],
)
def test_a_default_in_the_help_is_what_the_code_takes(command: str, defaults: list[str]) -> None:
    text = " ".join(run(f"{command} --help", COLUMNS="200", TERMINAL_WIDTH="200").stdout.replace("│", " ").split())
    for default in defaults:
        assert default in text


def test_receptive_fields_of_a_pytorch_model_have_a_hint() -> None:
    Path("own.py").write_text("from torch import nn\n\nclass Own(nn.Sequential):\n    pass\n")
    result = run("profile own.py:Own --receptive")
    assert result.exit_code == 2
    assert hint_of(result.stderr) == "hint: omit `--receptive`, or write a spec of the model"
    for format in ("json", "csv", "md"):
        assert run(f"profile own.py:Own --receptive --format {format}").stderr == result.stderr
    assert run("profile own.py:Own").exit_code == 0


def test_check_takes_globs_and_info_says_that_it_takes_one_name() -> None:
    assert run(["check", "resnet50?"]).stdout.splitlines() == [
        line for name in ("resnet50c", "resnet50d") for line in run(f"check {name}").stdout.splitlines()
    ]
    assert "`resnet5*` matches 7 models: one name is needed" in run(["info", "resnet5*"]).stderr
