"""What a command imports."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.thin import thinned


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
    "words",
    thinned(
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
        3,
    ),
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


def test_predicting_and_explaining_without_a_device_load_no_torch() -> None:
    for command in ("estimate resnet50 --device-profile a100-40gb", "explain resnet18 --device-profile a100-40gb"):
        code = f"import sys; sys.argv = 'resnet-cli {command}'.split(); from resnetcli.cli.main import main\n"
        code += "try:\n    main()\nfinally:\n    assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
        result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert result.returncode == 0, result.stderr
        assert "lower bound" in result.stdout


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
