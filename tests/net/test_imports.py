"""A user's file or module as a model: run only when asked for, with its neighbours, and shown in reports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from torch import Tensor, nn

import resnetcli as rc
from resnetcli.reports.profile import profile_model
from resnetcli.reports.profile_record import profile_record
from resnetcli.spec.reference import Origin, origin_of
from tests.support.cli import run
from tests.support.documents import documented, emitted, fits

NETS = """
import dataclasses
import torch
from torch import nn
from widths import STEM

print("loud")

@dataclasses.dataclass
class Config:
    width: int = STEM

class Net(nn.Sequential):
    def __init__(self, width=Config().width, classes=5):
        print("made")
        super().__init__(nn.Conv2d(3, width, 3), nn.Flatten(), nn.LazyLinear(classes))

class Needs(nn.Module):
    def __init__(self, depth):
        super().__init__()
        raise ValueError(f"depth {depth}\\nis odd")

class Outer:
    Inner = Net

def make(width=2):
    return Net(width).eval()

def none():
    return 3

def leaves():
    raise SystemExit("bye")

ready = nn.Conv2d(3, 2, 1)
answer = 42
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "widths.py").write_text("STEM = 4\n")
    (tmp_path / "nets.py").write_text(NETS)
    monkeypatch.chdir(tmp_path)
    return "nets.py"


@pytest.mark.parametrize(
    ("command", "macs"),
    [
        ("nets.py:Net", 108 * 36 + 4 * 36 * 5),
        ("nets.py:Net width=2 classes=3", 54 * 36 + 2 * 36 * 3),
        ("nets.py:make", 54 * 36 + 2 * 36 * 5),
        ("nets.py:Outer.Inner", 108 * 36 + 4 * 36 * 5),
        ("./nets.py:ready", 6 * 64),
    ],
)
def test_a_file_s_model_is_profiled_and_its_running_is_reported(
    file: str, command: str, macs: int, tmp_path: Path
) -> None:
    modules, path = set(sys.modules), list(sys.path)
    result = run(f"profile {command} --input 3x8x8 --format json")
    assert result.exit_code == 0, result.stderr
    record = json.loads(result.stdout)  # nothing of what the file prints is in it
    assert result.stderr.splitlines()[0] == f"running {command.partition(':')[0]}"
    assert "loud" in result.stderr
    assert record["macs"] == macs
    assert record["model"] == command.split()[0]
    assert sys.path == path
    assert not {name for name in set(sys.modules) - modules if "widths" in name or "nets" in name}
    assert sorted(each.name for each in tmp_path.iterdir()) == ["nets.py", "widths.py"]


def test_two_files_neighbours_of_one_name_are_two(tmp_path: Path) -> None:
    for folder, width in (("a", 2), ("b", 7)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "widths.py").write_text(f"WIDTH = {width}\n")
        text = "import widths\nfrom torch import nn\ndef net(): return nn.Conv2d(3, widths.WIDTH, 1)\n"
        (tmp_path / folder / "net.py").write_text(text)
    found = rc.compare(f"{tmp_path}/a/net.py:net", f"{tmp_path}/b/net.py:net", input="3x8x8")
    assert [profile.counts.macs for profile in found.profiles] == [6 * 64, 21 * 64]


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("nets.py:Nett", "`nets.py` has no `Nett`\nhint: did you mean `nets.py:Net`"),
        ("nets.py:zzzzzz", "it has `Net`, `Needs`, `make`, `none`, `leaves`, `ready`"),
        ("nets.py:answer", "`answer` in `nets.py` is of type int"),
        ("nets.py:Needs", "`Needs` cannot be constructed: TypeError: Needs.__init__() missing 1 required"),
        ("nets.py:Needs depth=3", "`Needs depth=3` cannot be constructed: ValueError: depth 3 is odd (nets.py:21)"),
        ("nets.py:Net heads=3", "unexpected keyword argument 'heads'"),
        ("nets.py:none", "`none` returns a int, not a torch.nn.Module"),
        ("nets.py:leaves", "`leaves` cannot be constructed: SystemExit: bye"),
        ("nets.py:ready width=3", "is already constructed: `width` cannot be set"),
        ("nets.py:ready --device cpu --fold-bn", "its BatchNorm cannot be fused"),
        ("nets.py", "is a Python file: name a model in it\nhint: for example `nets.py:leaves`"),
        ("nothing.py:Net", "no such file: `nothing.py`"),
        ("syntax.py:Net", "syntax.py:2:11: error: not Python: "),
        ("raises.py:Net", "`raises.py` fails when it is run: ZeroDivisionError: division by zero (raises.py:2)"),
        ("imports.py:Net", "ModuleNotFoundError: No module named 'no_such_module' (imports.py:1)"),
        ("bytes.py:Net", "bytes.py"),
        ("torchvision:resnet5", "torchvision has no model `resnet5`\nhint: did you mean `torchvision:resnet50`"),
        ("timm:hf-hub:timm/resnet50", "timm has no model `hf-hub:timm/resnet50`"),
        ("timm:resnet5", "timm has no model `resnet5`"),
        ("torchvision:resnet50 --input 3x0x0", "`3x0x0` is not an input size"),
    ],
)
def test_what_is_wrong_with_a_reference_is_a_message_and_exit_code_2(
    file: str, reference: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "syntax.py").write_text("import torch\nclass Net nn.Module:\n    pass\n")
    (tmp_path / "raises.py").write_text("import torch\n1 / 0\n")
    (tmp_path / "imports.py").write_text("import no_such_module\n")
    (tmp_path / "bytes.py").write_bytes(b"\x00\xff")
    result = run(f"profile {reference}")
    assert result.exit_code == 2
    assert message in result.stderr
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("command", ["check", "show", "info", "verify", "diff resnet18", "list"])
def test_only_profile_and_compare_run_a_file(file: str, command: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    result = run(f"{command} nets.py:Net")
    assert result.exit_code == 2
    assert not (tmp_path / "ran").exists()
    assert "running" not in result.stderr


@pytest.mark.parametrize("parent", ["nets.py:Net", "./nets.py:Net", "torchvision:resnet50"])
def test_a_spec_can_extend_no_module(file: str, parent: str, tmp_path: Path) -> None:
    (tmp_path / "nets.py").write_text("from pathlib import Path\nPath('ran').touch()\n")
    (tmp_path / "net.yaml").write_text(f"extends: '{parent}'\ninput: 3x8x8\ntable: {{a: 3x3 8}}\n")
    result = run("profile net.yaml")
    assert result.exit_code == 2
    assert "net.yaml:1:11: error: " in result.stderr
    assert not (tmp_path / "ran").exists()
    with pytest.raises(rc.UsageError, match="is a PyTorch model, not a spec"):
        profile_model("nets.py:Net", {})


def test_a_name_of_the_zoo_or_a_spec_s_path_is_no_reference() -> None:
    for reference in [*rc.models(), "a.yaml", "./b.yml", "a/b", "timm", "keras:resnet50", "a.py/b"]:
        assert origin_of(reference) == Origin("spec", reference)
    assert origin_of("a/b.py:Net") == Origin("file", "a/b.py", "Net")
    assert origin_of("timm:resnet50.a1_in1k") == Origin("library", "timm", "resnet50.a1_in1k")
    assert origin_of("package.net:Net.inner") == Origin("module", "package.net", "Net.inner")
    assert origin_of("a/model.pt2") == Origin("archive", "a/model.pt2")


# --- in reports --------------------------------------------------------------------------------------------------


def test_its_json_has_the_keys_and_types_of_every_profile(file: str) -> None:
    record = json.loads(json.dumps(profile_record(rc.profile("nets.py:Net", input="3x8x8"))))
    known = documented("profile@2")
    assert record["notes"]
    for key, value in emitted(record):
        assert fits(value, known[key]), key
    assert record.keys() == profile_record(rc.profile("resnet18")).keys()


def test_it_is_compared_with_models_of_specs(file: str) -> None:
    result = run("compare resnet18 nets.py:Net width=9 resnet50 --baseline nets.py:Net --sort macs --accuracy")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0] in {"nets.py:Net", "resnet18", "resnet50"}][:3] == [
        "nets.py:Net", "resnet18", "resnet50",
    ]  # fmt: skip
    assert "nets.py:Net width=9: counted as PyTorch ran it, in evaluation, on 3 x 224 x 224 (no --input was given)" in (
        result.stdout
    )


def test_it_is_timed_with_models_of_specs_and_its_file_is_announced_once(file: str) -> None:
    words = "compare cifar_resnet20 nets.py:Net width=9 --input 3x32x32 --device cpu --time-budget 20ms --format json"
    result = run(words)
    assert result.exit_code == 0, result.stderr
    nets = json.loads(result.stdout)["models"]
    assert [len(net["measurements"]) for net in nets] == [1, 1]
    assert 0 < nets[1]["measurements"][0]["median_s"] < nets[0]["measurements"][0]["median_s"]
    assert result.stderr.count("running nets.py") == 1


def test_a_batch_on_which_it_fails_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "batch.py").write_text(
        "from torch import nn\nclass Two(nn.Conv2d):\n    def __init__(self):\n        super().__init__(3, 4, 3)\n"
        "    def forward(self, x):\n        if len(x) == 2:\n            raise KeyError('never two')\n"
        "        return super().forward(x)\n"
    )
    result = run("profile batch.py:Two --input 3x8x8 --device cpu --batch-size 1,2,3 --time-budget 20ms")
    assert result.exit_code == 0, result.stderr
    assert "not measured: `batch.py:Two` as fp32 cannot be run: KeyError: 'never two', at batch 2\n" in result.stdout
    assert "cpu fp32, batch 3" in result.stdout


def test_a_library_that_is_not_installed_is_reported_to_be(tmp_path: Path) -> None:
    code = (
        "import sys\nsys.modules['timm'] = None\nfrom resnetcli.cli.main import app\n"
        "app(['profile', 'timm:resnet50'], prog_name='resnet-cli')"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 2
    assert result.stderr == "error: timm is not installed\nhint: `pip install timm`\n"


class Leaver(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise SystemExit(0)


def test_a_model_does_not_end_whoever_counts_it() -> None:
    with pytest.raises(rc.UsageError, match="SystemExit"):
        rc.profile_module(Leaver())


@pytest.mark.parametrize("format", ["table", "csv", "md"])
def test_what_a_pytorch_model_s_layers_see_is_not_known(tmp_path: Path, format: str) -> None:
    path = tmp_path / "net.py"
    path.write_text("import torch\nNet = lambda: torch.nn.Conv2d(3, 4, 3)\n")
    result = run(["profile", f"{path}:Net", "--receptive", "--format", format])
    assert result.exit_code == 2
    assert "receptive fields require a spec" in result.stderr


def test_a_spec_by_a_strange_name_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("raise SystemExit('I ran')\n")
    spec = tmp_path / "x.py:y.yaml"
    spec.write_text("input: 3x8x8\ntable: {a: 3x3 4}\n")
    assert rc.profile(spec).counts.params == 116


# --- constructors, packages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "value"),
    [("8", 8), ("-3", -3), ("0.3", 0.3), ("1e-3", 1e-3), ("gelu", "gelu"), ("'8'", "8"), ("True", True),
     ("false", False), ("None", None), ("null", None), ("(1,2)", (1, 2)), ("[64,128]", [64, 128]), ("", ""),
     ("1x2", "1x2"), ("(((", "(((")],
)  # fmt: skip
def test_a_constructor_gets_the_value_that_a_word_says(word: str, value: object, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nseen = []\nclass Net(nn.Conv2d):\n    def __init__(self, v=0):\n"
        "        super().__init__(3, 4, 1)\n        assert (type(v).__name__, repr(v)) == "
        f"{(type(value).__name__, repr(value))!r}, v\n"
    )
    result = run(["profile", f"{tmp_path}/net.py:Net", f"v={word}", "--input", "3x8x8"])
    assert result.exit_code == 0, result.stderr


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("bais=False", "did you mean `bias`?"),
        ("", "add the missing values after the model: `width=VALUE`"),
        ("width=4 zzz=1", "it takes `width`, `bias`, `name`"),
    ],
)
def test_a_constructor_s_arguments_are_named(words: str, hint: str, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\nclass Net(nn.Conv2d):\n    def __init__(self, width, bias=True, name='x'):\n"
        "        assert isinstance(name, str)\n        super().__init__(3, width, 1, bias=bias)\n"
    )
    result = run(f"profile {tmp_path}/net.py:Net {words}")
    assert result.exit_code == 2
    assert f"hint: {hint}" in result.stderr
    assert run(f"profile {tmp_path}/net.py:Net width=4 name=3 --input 3x8x8").exit_code == 0


PACKAGE = """
from torch import nn
from {layers} import Block
class Net(nn.Sequential):
    def __init__(self): super().__init__(Block(3))
"""


@pytest.mark.parametrize(
    ("folder", "init", "layers", "reference"),
    [
        ("pkg", True, ".layers", "pkg/net.py:Net"),
        ("pkg", True, "pkg.layers", "pkg/net.py:Net"),
        ("pkg", True, "layers", "pkg/net.py:Net"),
        ("pkg", False, ".layers", "pkg/net.py:Net"),
        ("pkg", False, "pkg.layers", "pkg/net.py:Net"),
        ("src/pkg", True, "pkg.layers", "src/pkg/net.py:Net"),
        ("pkg", True, ".layers", "pkg.net:Net"),
        ("pkg", False, "pkg.layers", "pkg.net:Net"),
        (".", False, "layers", "net.py:Net"),
        ("my-nets", False, "layers", "my-nets/net.py:Net"),
    ],
)
def test_a_file_imports_as_from_its_package_or_folder(
    folder: str, init: bool, layers: str, reference: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / folder
    place.mkdir(parents=True, exist_ok=True)
    if init:
        (place / "__init__.py").write_text("")
    (place / "layers.py").write_text(
        "from torch import nn\nclass Block(nn.Conv2d):\n    def __init__(self, c): super().__init__(c, 8, 1)\n"
    )
    (place / "net.py").write_text(PACKAGE.format(layers=layers))
    before, search = {*sys.modules}, [*sys.path]
    assert rc.profile(reference, input="3x8x8").counts.params == 32
    assert not {name for name in {*sys.modules} - before if name.partition(".")[0] in {"pkg", "layers", "net"}}
    assert sys.path == search


def test_a_neighbour_that_python_has_is_told_to_be_renamed(tmp_path: Path) -> None:
    (tmp_path / "types.py").write_text("class Block: pass\n")
    (tmp_path / "net.py").write_text("from types import Block\n")
    result = run(f"profile {tmp_path}/net.py:Net")
    assert result.exit_code == 2
    assert f"hint: rename {tmp_path}/types.py: Python has its own module `types`" in result.stderr
