"""An option that says how a model is run is a field of `RunOptions` and the place where it acts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import resnetcli
from resnetcli.bench.options import BenchmarkOptions, RunOptions
from resnetcli.errors import UsageError

ROOT = Path(resnetcli.__file__).parents[1]
FIELD = '    toy: bool = option(False, "Play around.")\n'
EFFECT = """
    if options.toy:
        with open(os.environ["TOY_LOG"], "a") as log:
            log.write(f"{os.getpid()}\\n")
"""
CHECKS = """
import json, os, sys
from pathlib import Path
from typer.testing import CliRunner
from resnetcli.bench.options import RunOptions
from resnetcli.bench.search import candidates
from resnetcli.cli.main import app
from resnetcli.errors import UsageError
from tests.support.baselines import against, keep, run
from tests.support.measured import measured

def cli(*words):
    return CliRunner().invoke(app, words)

for command in ("profile", "compare", "explain"):
    help = cli(command, "--help").output
    assert "--toy" in help and "Play around." in help, help
assert "--toy" not in cli("estimate", "--help").output
for words in (["profile", "cifar_resnet20"], ["explain", "cifar_resnet20", "--device-profile", "v100"]):
    assert "`--toy` requires --device" in cli(*words, "--toy").output
measure = ["profile", "cifar_resnet20", "--device", "cpu", "--time-budget", "20ms", "--memory", "--toy"]
record = json.loads(cli(*measure, "--format", "json").stdout)["latency"]
assert record["toy"] is True and record["settings"] == "fp32 toy"
log = Path(os.environ["TOY_LOG"]).read_text().split()
assert log[0] == str(os.getpid()) and len(set(log)) == 2, log  # here and in the process that measures memory
assert all(options.toy for options in candidates("cpu", RunOptions(toy=True)))
base = keep(run(measured(0.1, options=RunOptions(toy=True))), Path("base.json"))
assert against(run(measured(0.1, options=RunOptions(toy=True))), base).changes[0].verdict == "same"
try:
    against(run(measured(0.1)), base)
except UsageError as error:
    assert "was measured with other settings: toy `True`, now `False`" in str(error)
else:
    raise AssertionError("a baseline with the option was compared with a run without it")
"""


def insert(path: Path, before: str, text: str) -> None:
    source = path.read_text()
    assert source.count(before) == 1
    path.write_text(source.replace(before, text + before))


def test_an_option_is_a_field_and_the_place_where_it_acts(tmp_path: Path) -> None:
    bench = Path(shutil.copytree(ROOT / "resnetcli", tmp_path / "resnetcli")) / "bench"
    (tmp_path / "specs").symlink_to(ROOT / "specs")
    insert(bench / "options.py", "    threads: int | None = option(\n", FIELD)
    insert(bench / "execution.py", "    with ExitStack() as stack:\n", "    import os" + EFFECT)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    env = {**os.environ, "PYTHONPATH": path, "TOY_LOG": str(tmp_path / "log"), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-P", "-c", CHECKS], cwd=tmp_path, env=env, check=True)


def test_the_text_of_options_is_what_is_not_the_default() -> None:
    options = RunOptions(dtype="bf16", channels_last=True, fold_bn=True, runtime="inductor", mode="train", threads=2)
    assert RunOptions().text == "fp32"
    assert options.text == "train bf16 channels_last fold-bn compile"
    assert options.flags == ("--mode", "--dtype", "--channels-last", "--fold-bn", "--compile", "--threads")
    assert RunOptions(keep_memory=True, dtype="fp32").plain
    assert not RunOptions(fold_bn=True).plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_sizes": (1, 0)}, "must be at least 1"),
        ({"batch_sizes": ()}, "must be at least 1"),
        ({"best": True, "run": RunOptions(mode="train")}, "`--best` cannot be used with `--mode train`"),
        ({"best": True, "energy": True}, "`--best` cannot be used with `--energy`"),
        ({"best": True, "run": RunOptions(runtime="inductor")}, "`--compile` cannot be used with `--best`"),
        ({"best": True, "run": RunOptions(keep_memory=True)}, "`--keep-memory` cannot be used with `--best`"),
    ],
)
def test_options_that_exclude_each_other_are_refused(values: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchmarkOptions(**values)  # type: ignore[arg-type]
