"""PyTorch models without a spec: counted as they run, left as they were, and a user's file run only when asked for."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.utils.flop_counter import FlopCounterMode

import resnetcli as rc
from resnetcli.net.trace import weightless
from resnetcli.reports.profile import parts, profile_model
from resnetcli.reports.profile_record import profile_record
from resnetcli.spec.zoo import module_reference
from tests.cli.test_cli import run
from tests.support.thin import thinned
from tests.test_docs import documented, emitted, fits

QUICK = (
    "resnet18", "resnet50", "googlenet", "alexnet_2012", "cifar_preact_resnet164", "inception_resnet_v2", "drn_d_22",
    "faster_rcnn_vgg16", "prelu_net_a",
)  # fmt: skip


def state(module: nn.Module) -> list[Any]:
    """All that a count may not change: what each module holds, bit by bit, and every source of random numbers."""

    def bits(tensor: Tensor | None) -> Any:
        if tensor is None or tensor.device.type == "meta" or nn.parameter.is_lazy(tensor):
            return None if tensor is None else (type(tensor), tensor.device.type, id(tensor))
        return id(tensor), tensor.dtype, tensor.requires_grad, bytes(tensor.detach().clone().untyped_storage())

    held: list[Any] = []
    for path, each in module.named_modules():
        registered = [*each._parameters.items(), *each._buffers.items()]
        held.append((path, type(each), id(each), each.training, [*vars(each)], [(k, bits(v)) for k, v in registered]))
        held.append([(k, [*v.items()]) for k, v in vars(each).items() if k.endswith("_hooks")])
        held.append([bits(p.grad) for p in each._parameters.values() if p is not None and not nn.parameter.is_lazy(p)])
    everywhere = [[*vars(hooks)[name]] for name in sorted(vars(hooks)) if name.startswith("_global_")
                  and isinstance(vars(hooks)[name], dict)]  # fmt: skip
    chance = [random.getstate(), torch.get_rng_state().tolist(), str(numpy.random.get_state())]
    modes = [torch.is_grad_enabled(), torch.get_default_dtype(), torch.backends.mha.get_fastpath_enabled()]
    return [held, [*module.state_dict()], everywhere, chance, modes]


def figures(counts: rc.Counts) -> tuple[int, int, int, int]:
    return counts.params, counts.macs, counts.activations, counts.depth


def counted(module: nn.Module, input: tuple[int, int, int] = (3, 8, 8)) -> rc.Profile:
    """The profile, which is the same twice and leaves the module as it was."""
    before = state(module)
    first, second = (rc.profile_module(module, input=input) for _ in range(2))
    assert state(module) == before
    assert first == second
    return first


def of_torch(module: nn.Module, *shape: int) -> int:
    """MACs as torch's own counter has them, on a copy without weights."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        weightless(module).eval()(torch.empty(1, *shape, device="meta"))
    flops = int(counter.get_total_flops())
    assert flops % 2 == 0
    return flops // 2


# --- what is counted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in rc.models()]
)
def test_a_net_of_the_zoo_counts_the_same_when_its_built_module_is_seen_to_run(name: str) -> None:
    plan = rc.load(name)
    net = rc.build(plan, device="meta")
    net.train(name < "n")
    before = state(net)
    found = rc.profile_module(net, input=plan.input)
    assert state(net) == before
    assert figures(found.counts) == figures(rc.count(plan))
    rows = [part.name for part in parts(found, "row") if part.name != "(Net)"]  # that joins what rows put out
    assert rows == [row if hasattr(net, row) else f"{row}_" for row in plan.rows]
    assert found.counts == rc.count(found.plan)


@pytest.mark.parametrize("name", thinned(["cifar_resnet", "cifar_plain"], 2))
def test_a_net_with_weights_keeps_them_to_the_bit(name: str) -> None:
    plan = rc.load(name, depth=8)
    net: Any = rc.build(plan)
    net.conv1.eval()
    net.head.requires_grad_(False)
    net(torch.rand(2, 3, 32, 32)).sum().backward()
    net.conv2_x.register_forward_hook(_nothing)
    assert figures(counted(net, (3, 32, 32)).counts) == figures(rc.count(plan))


def _nothing(*_: object) -> None:
    pass


TWINS = [
    ("resnet18", "torchvision:resnet18", {}), ("resnet50", "torchvision:resnet50", {}),
    ("resnext50_32x4d", "torchvision:resnext50_32x4d", {}), ("wide_resnet50_2", "torchvision:wide_resnet50_2", {}),
    ("vgg16_bn", "torchvision:vgg16_bn", {}), ("alexnet", "torchvision:alexnet", {}),
    ("googlenet_bn", "torchvision:googlenet", {"aux_logits": 0}),
    ("inception_v3", "torchvision:inception_v3", {"aux_logits": 0}),
    ("resnet50d", "timm:resnet50d", {}), ("resnet50c", "timm:resnet50c", {}),
]  # fmt: skip


@pytest.mark.parametrize(("ours", "theirs", "parameters"), TWINS, ids=lambda value: str(value))
def test_a_model_of_torchvision_or_timm_counts_as_its_spec(ours: str, theirs: str, parameters: dict[str, Any]) -> None:
    pytest.importorskip(theirs.partition(":")[0])
    plan = rc.load(ours)
    found = rc.profile(theirs, input=plan.input, **parameters)
    assert figures(found.counts) == figures(rc.count(plan))
    assert found.settings == parameters
    assert found.spec.cite.split()[0] == theirs.partition(":")[0]


@pytest.mark.parametrize(
    ("name", "depth"),
    [("densenet121", 121), ("mobilenet_v2", 53), ("squeezenet1_1", None), ("vit_b_32", None), ("swin_t", None),
     ("convnext_tiny", None), ("shufflenet_v2_x0_5", None)],
)  # fmt: skip
def test_macs_and_parameters_are_torch_s_own(name: str, depth: int | None) -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        module = models.get_model(name)
    found = rc.profile_module(module)
    assert found.counts.macs == of_torch(module, 3, 224, 224)
    assert found.counts.params == sum(p.numel() for p in module.parameters())
    assert depth in {None, found.counts.depth}
    for by in ("row", "block", "layer"):
        costs = [part.cost for part in parts(found, by)]
        assert sum(cost.macs for cost in costs) == found.counts.macs
        assert sum(cost.params for cost in costs) == found.counts.params


def torchvision_s_models() -> list[str]:
    models = pytest.importorskip("torchvision.models")
    return [name for name in models.list_models(module=models) if not re.search(r"_h_14|y_128|_l_|googlenet", name)]


@pytest.mark.slow
@pytest.mark.parametrize("name", torchvision_s_models())
def test_every_classifier_of_torchvision_counts_what_torchvision_prints_of_it(name: str) -> None:
    weights = pytest.importorskip("torchvision.models").get_model_weights(name).DEFAULT
    (size,) = weights.transforms().crop_size
    found = rc.profile(f"torchvision:{name}", input=(3, size, size)).counts
    assert found.params == weights.meta["num_params"]
    assert found.macs / 1e9 == pytest.approx(weights.meta["_ops"], abs=0.001)


def test_a_model_whose_constructor_needs_values_is_made_with_them() -> None:
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"), pytest.raises(NotImplementedError):
        models.regnet_y_400mf()
    printed = models.RegNet_Y_400MF_Weights.IMAGENET1K_V1.meta
    found = rc.profile("torchvision:regnet_y_400mf").counts
    assert (found.params, round(found.macs / 1e9, 3)) == (printed["num_params"], printed["_ops"])


class Odd(nn.Module):
    """What hooks on layers get wrong: a layer called twice, tied weights, functions, own parameters, idle ones."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 1, bias=False)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4))
        self.body[0].weight = self.again.weight
        self.kernel = nn.Parameter(torch.zeros(6, 4, 1, 1))
        self.idle = nn.Sequential(nn.Linear(10, 10), nn.ReLU())
        self.head = nn.Linear(6, 5)
        self.register_buffer("scale", torch.ones(7))
        self.unregistered = torch.ones(1)

    def forward(self, x: Tensor) -> Any:
        x = self.again(self.stem(x) * self.unregistered)
        x = x + self.body(x)
        x = self.again(x)
        x = nn.functional.conv2d(x, self.kernel)
        return self.head(x.mean((2, 3)))


def test_what_is_tied_called_again_functional_or_idle_is_counted_once_each() -> None:
    found = counted(Odd())
    # stem 3*9*4 + 4, again 16 (its tie nothing), bn 8, kernel 24, idle 110, head 35
    assert found.counts.params == 112 + 16 + 8 + 24 + 110 + 35
    # 64 positions: stem 108, three times again 16, kernel 24; head 30
    assert found.counts.macs == 64 * (108 + 3 * 16 + 24) + 30
    assert found.counts.activations == 64 * (4 + 3 * 4 + 6) + 5
    assert found.counts.depth == 6
    assert [*found.plan.rows] == ["stem", "again", "body", "again#2", "(Odd)", "head", "(Odd)#2", "idle"]
    assert [str(part.output) for part in parts(found, "row")][:5] == ["4 x 8 x 8"] * 4 + ["6 x 8 x 8"]
    assert found.notes[1:] == ("unused in this forward pass, their 110 parameters counted: idle",)
    assert len({step.path for step in found.plan.steps}) == len(found.plan.steps)
    assert all(i < index for index, step in enumerate(found.plan.steps) for i in step.inputs)


@dataclasses.dataclass
class Answer:
    loss: None
    logits: Tensor


@pytest.mark.parametrize(
    "wrap", [lambda x: (x, x + 1), lambda x: {"out": x, "aux": x}, lambda x: Answer(None, x), lambda x: [[x]]]
)
def test_a_model_may_give_more_than_a_tensor(wrap: Callable[[Tensor], object]) -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x: Tensor) -> object:
            return wrap(self.conv(x))

    found = counted(Wrapped())
    assert (found.counts.macs, found.counts.depth) == (6 * 64, 1)
    assert [str(part.output) for part in parts(found, "row")] == ["2 x 8 x 8"]


@pytest.mark.parametrize("training", [True, False])
def test_what_counts_is_evaluation_whatever_the_mode(training: bool) -> None:
    class Moody(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.main, self.aux, self.norm = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 9, 1), nn.BatchNorm2d(2)

        def forward(self, x: Tensor) -> Any:
            y = self.norm(self.main(x))
            return (y, self.aux(x)) if self.training else y

    found = counted(Moody().train(training))
    assert found.counts.macs == 6 * 64
    assert found.notes[1:] == ("unused in this forward pass, their 36 parameters counted: aux",)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_model_runs_in_its_own_type(dtype: torch.dtype) -> None:
    assert counted(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).to(dtype)).counts.macs == 54 * 36


class Looks(nn.Module):
    """Reads values, which a model without any cannot."""

    calls: Tensor
    seen: int
    attend: nn.MultiheadAttention

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1)
        self.attend = nn.MultiheadAttention(2, 1, batch_first=True)
        self.register_buffer("calls", torch.zeros(()))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.seen += 1
        y: Tensor = self.conv(x).flatten(2).transpose(1, 2)
        return self.attend(y, y, y)[0] if torch.isfinite(y.sum()).item() else y


def test_a_model_that_looks_at_values_is_run_with_its_own_and_keeps_what_it_writes() -> None:
    model = Looks().eval()
    found = counted(model)
    # conv; q, k and v of 64 tokens; every token with every one, twice; the projection out
    assert found.counts.macs == 64 * 6 + 64 * 2 * 6 + 2 * 64 * 64 * 2 + 64 * 2 * 2
    assert found.counts.params == sum(p.numel() for p in model.parameters())
    assert any("attention" in note for note in found.notes)
    assert (model.seen, model.calls.item()) == (0, 0)


def test_a_lazy_model_stays_lazy() -> None:
    model = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(5))
    found = counted(model)
    assert isinstance(model[0], nn.LazyConv2d)
    assert (found.counts.params, found.counts.macs) == (112 + 8 + 725, 108 * 36 + 720)


def test_weight_norm_is_a_layer_and_its_parameters_count() -> None:
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten())
    found = counted(model)
    assert (found.counts.params, found.counts.macs, found.counts.depth) == (4 + 108 + 4, 108 * 36, 1)


def test_a_layer_alone_is_a_model() -> None:
    found = counted(nn.Conv2d(3, 4, 3))
    assert [*found.plan.rows] == ["(Conv2d)"]
    assert found.counts.macs == 108 * 36


# --- what fails --------------------------------------------------------------------------------------------------


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Conv2d(5, 2, 1))

    def forward(self, x: Tensor) -> Any:
        torch.rand(1), random.random()
        return self.inner(x)


class Two(nn.Module):
    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return left + right


class Held(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = (each for each in range(0))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Fails(), "`Fails` fails on an image of 3 x 8 x 8 in `inner.1`: RuntimeError: Given groups=1"),
        (Two(), "does not take one image: missing a required argument: 'right'"),
        (Held(), "cannot be copied: TypeError"),
        (nn.Module(), "NotImplementedError"),
        (nn.Embedding(3, 4), "fails on an image of 3 x 8 x 8"),
    ],
)
def test_a_model_that_cannot_be_counted_is_left_as_it_was_too(module: nn.Module, message: str) -> None:
    before = state(module)
    with pytest.raises(rc.UsageError) as raised:
        rc.profile_module(module, input=(3, 8, 8))
    assert message in str(raised.value)
    assert state(module) == before


# --- a user's file -----------------------------------------------------------------------------------------------

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
def test_a_file_s_net_is_profiled_and_its_running_is_said(file: str, command: str, macs: int, tmp_path: Path) -> None:
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
        ("nets.py:Needs", "`Needs` cannot be made: TypeError: Needs.__init__() missing 1 required"),
        ("nets.py:Needs depth=3", "`Needs depth=3` cannot be made: ValueError: depth 3 is odd (nets.py:21)"),
        ("nets.py:Net heads=3", "unexpected keyword argument 'heads'"),
        ("nets.py:none", "`none` gives a int, not a torch.nn.Module"),
        ("nets.py:leaves", "`leaves` cannot be made: SystemExit: bye"),
        ("nets.py:ready width=3", "is already constructed: `width` cannot be set"),
        ("nets.py:ready --device cpu --fold-bn", "whose BatchNorm is not folded"),
        ("nets.py", "is a Python file: which net in it?\nhint: for example `nets.py:leaves`"),
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
    assert not any(
        map(module_reference, [*rc.models(), "a.yaml", "./b.yml", "a/b", "timm", "keras:resnet50", "a.py/b"])
    )
    assert module_reference("a/b.py:Net") == ("a/b.py", "Net")
    assert module_reference("timm:resnet50.a1_in1k") == ("timm", "resnet50.a1_in1k")


# --- in reports --------------------------------------------------------------------------------------------------


def test_its_json_has_the_keys_and_types_of_every_profile(file: str) -> None:
    record = json.loads(json.dumps(profile_record(rc.profile("nets.py:Net", input="3x8x8"))))
    known = documented("profile@1")
    assert record["notes"]
    for key, value in emitted(record):
        assert fits(value, known[key]), key
    assert record.keys() == profile_record(rc.profile("resnet18")).keys()


def test_it_is_compared_with_nets_of_specs(file: str) -> None:
    result = run("compare resnet18 nets.py:Net width=9 resnet50 --baseline nets.py:Net --sort macs --accuracy")
    assert result.exit_code == 0, result.stderr
    lines = [line.split() for line in result.stdout.splitlines()]
    assert [line[0] for line in lines if line and line[0] in {"nets.py:Net", "resnet18", "resnet50"}][:3] == [
        "nets.py:Net", "resnet18", "resnet50",
    ]  # fmt: skip
    assert "nets.py:Net width=9: counted as PyTorch ran it, in evaluation, on 3 x 224 x 224 (no --input was given)" in (
        result.stdout
    )


def test_it_is_timed_with_nets_of_specs_and_its_file_is_announced_once(file: str) -> None:
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
    result = run("profile batch.py:Two --input 3x8x8 --device cpu --batch 1,2,3 --time-budget 20ms")
    assert result.exit_code == 0, result.stderr
    assert "not measured: `batch.py:Two` as fp32 cannot be run: KeyError: 'never two', at batch 2\n" in result.stdout
    assert "cpu fp32, batch 3" in result.stdout


def test_a_library_that_is_not_installed_is_said_to_be(tmp_path: Path) -> None:
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
    assert "receptive fields are of specs" in result.stderr


def test_a_spec_by_a_strange_name_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("raise SystemExit('I ran')\n")
    spec = tmp_path / "x.py:y.yaml"
    spec.write_text("input: 3x8x8\ntable: {a: 3x3 4}\n")
    assert rc.profile(spec).counts.params == 116


# --- code that does more than make a model -----------------------------------------------------------------------

CODE = """
import argparse, atexit, os, signal, sys, warnings
import torch
from torch import nn

def {name}():
    {body}

{name}() if {at} == "file" else None

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {name}() if {at} == "made" else None
        self.a = nn.Conv2d(3, 8, 3)

    def forward(self, x):
        {name}() if {at} == "run" else None
        return self.a(x)

    def __del__(self):
        print("gone")
"""
PLACES = ("file", "made", "run")


def code(folder: Path, body: str, at: str) -> str:
    path = folder / "code.py"
    path.write_text(CODE.format(name="act", body=body, at=repr(at)))
    return f"{path}:Net"


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(
    "body",
    [
        "os.write(1, b'raw')", "sys.__stdout__.write('held back')", "os.system('echo shell')", "os.close(1)",
        "sys.stdout.close()", "sys.stdout = None", "os.chdir('/')", "sys.argv.append('x')", "os.environ['X_Y'] = '1'",
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)", "signal.alarm(600)", "sys.excepthook = print",
        "torch.set_default_dtype(torch.float64)", "torch.set_default_device('meta')",
        "torch.use_deterministic_algorithms(True)", "torch.set_num_threads(3)", "warnings.simplefilter('error')",
        "nn.functional.relu = abs", "nn.Conv2d.extra = lambda self: 1", "sys.setrecursionlimit(500)",
        "sys.stdin.read(), os.read(0, 1)", "os.fork() or None", "os.fork() or os._exit(0)",
    ],
)  # fmt: skip
def test_what_code_does_to_the_process_is_undone(
    body: str, at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def settings() -> list[Any]:
        return [
            Path.cwd(), [*sys.argv], {**os.environ}, [*sys.path], signal.getsignal(signal.SIGTERM), sys.excepthook,
            signal.getitimer(signal.ITIMER_REAL)[0], torch.get_default_dtype(), torch.empty(0).device, sys.stdin,
            torch.are_deterministic_algorithms_enabled(), torch.get_num_threads(), nn.functional.relu,
            {*vars(nn.Conv2d)}, sys.getrecursionlimit(), sys.stdout, sys.stderr, os.fstat(1).st_ino, os.fstat(0).st_ino,
        ]  # fmt: skip

    reference, before = code(tmp_path, body, at), settings()
    found = rc.profile(reference, input="3x8x8")
    assert (found.counts.params, found.counts.macs) == (224, 7776)
    after = settings()
    assert after == before
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("at", PLACES)
@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("os._exit(0)", "os._exit(0)"), ("sys.exit(0)", "SystemExit: 0"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit", "GeneratorExit"), ("act()", "RecursionError"), ("input()", "EOFError"),
    ],
)  # fmt: skip
def test_code_that_ends_is_an_error_that_says_where(body: str, words: str, at: str, tmp_path: Path) -> None:
    with pytest.raises(rc.UsageError) as raised:
        rc.profile(code(tmp_path, body, at), input="3x8x8")
    assert words in str(raised.value)
    assert "code.py:7)" in str(raised.value)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("os.abort()", 2, "ended the process with SIGABRT"),
        ("os.kill(os.getpid(), signal.SIGTERM)", 2, "ended the process with SIGTERM"),
        ("__import__('ctypes').CDLL(None)._exit(0)", 2, "ended the process with exit code 0"),
        ("os.execvp('true', ['true'])", 2, "ended the process with exit code 0"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 3, "probably because memory ran out"),
        ("atexit.register(lambda: (print('late', flush=True), os._exit(7)))", 0, ""),
        ("__import__('threading').Thread(target=lambda: [print('tick') for _ in iter(int, 1)]).start()", 0, ""),
        ("print('loud'); os.write(1, b'raw')", 0, ""),
    ],
)
def test_code_that_ends_the_process_is_an_error_and_stdout_has_the_result_alone(
    body: str, status: int, words: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "resnetcli", "profile", code(tmp_path, body, "made"), "--input", "3x8x8"]
    result = subprocess.run(
        [*command, "--format", "json"], capture_output=True, text=True, timeout=120, check=False, errors="replace"
    )
    assert result.returncode == status
    assert words in result.stderr[-400:]
    assert result.stdout == "" if status else json.loads(result.stdout)["macs"] == 7776


def test_code_gets_no_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["resnet-cli", "profile", "--width", "3", "--unknown"])
    body = "p = argparse.ArgumentParser(); p.add_argument('--width', default=8); assert p.parse_args().width == 8"
    assert rc.profile(code(tmp_path, body, "file"), input="3x8x8").counts.params == 224


def test_a_model_whose_code_replaces_torch_s_functions_is_not_timed(tmp_path: Path) -> None:
    reference = code(tmp_path, "nn.functional.relu = abs", "file")
    with pytest.raises(rc.UsageError, match=r"replaces `torch.nn.functional.relu`"):
        rc.profile(reference, input="3x8x8", device="cpu", time_budget_s=0.01)


# --- inputs ------------------------------------------------------------------------------------------------------

INPUTS = """
import torch
from torch import nn

class Ids(nn.Module):
    def __init__(self): super().__init__(); self.e = nn.Embedding(256, 16); self.c = nn.Linear(16, 4)
    def forward(self, ids, mask=None):
        y = self.c(self.e(ids))
        return {"logits": y if mask is None else y * mask[..., None], "loss": None}

class Clip(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv3d(3, 8, 3, padding=1)
    def forward(self, x): return self.c(x)

class Two(nn.Module):
    def __init__(self): super().__init__(); self.a = nn.Conv2d(1, 10, 3); self.b = nn.Conv2d(1, 10, 3)
    def forward(self, u, v): return self.a(u) + self.b(v)

class Timed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1); self.t = nn.Embedding(1000, 4)
    def forward(self, x, t): return self.c(x) + self.t(t)[:, :, None, None]

class Sample(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1)
    def forward(self, batch): return self.c(batch["image"]) * batch["mask"]

class Listed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 4, 1)
    def forward(self, images): assert isinstance(images, list); return [self.c(each[None]) for each in images]

class Mlp(nn.Module):
    def __init__(self): super().__init__(); self.l = nn.Linear(784, 10)
    def forward(self, x): return self.l(x)

class Squeezed(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 3, padding=1); self.bn = nn.BatchNorm1d(8); self.fc = nn.Linear(8, 10)
    def forward(self, x): return self.fc(self.bn(self.c(x).mean((2, 3)).squeeze()))

class Crossed(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv2d(3, 8, 1)
    def forward(self, x):
        y = self.c(x).mean((2, 3)); assert len(y) > 1
        return y @ y.T

class Whole(nn.Module):
    def __init__(self): super().__init__(); self.c = nn.Conv1d(1, 4, 80, 4)
    def forward(self, x): return self.c(x)

models = {"a": Mlp(), "b": Two}
"""


@pytest.fixture
def inputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "inputs.py").write_text(INPUTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("net", "input", "params", "macs"),
    [
        ("Ids", "tokens:192", 4164, 12288),
        ("Ids", "tokens:192:200", 4164, 12288),
        ("Ids", "tokens:3x8x8", 4164, 12288),
        ("Ids", "tokens:192,mask=bool:192", 4164, 12288),
        ("Ids", "ids=tokens:192", 4164, 12288),
        ("Clip", "3x8x8x8", 656, 331776),
        ("Two", "1x28x28,1x28x28", 200, 121680),
        ("Two", ("1x28x28", "1x28x28"), 200, 121680),
        ("Two", "v=1x28x28,u=1x28x28", 200, 121680),
        ("models.b", "1x28x28,v=1x28x28", 200, 121680),
        ("Timed", "3x8x8,int:", 4016, 768),
        ("Sample", "image=3x8x8,mask=4x8x8", 16, 768),
        ("Listed", "list:3x8x8", 16, 768),
        ("Mlp", "float:784", 7850, 7840),
        ("models.a", "float:784", 7850, 7840),
        ("Whole", "1x1000", 324, 320 * 231),
        ("Squeezed", "3x8x8", 330, 13904),
    ],
)
def test_a_model_is_counted_on_the_inputs_it_takes(inputs: Path, net: str, input: Any, params: int, macs: int) -> None:
    found = rc.profile(f"inputs.py:{net}", input=input)
    assert (found.counts.params, found.counts.macs) == (params, macs)


@pytest.mark.parametrize("net", ["Ids", "Clip", "Two", "Timed", "Mlp", "Whole"])
def test_the_hint_names_an_input_that_the_model_runs_on(inputs: Path, net: str) -> None:
    result = run(f"profile inputs.py:{net}")
    assert result.exit_code == 2
    hint = re.search(r"hint: it runs on `(.*)`", result.stderr)
    assert hint, result.stderr
    assert run(f"profile inputs.py:{net} {hint[1]}").exit_code == 0


@pytest.mark.parametrize(
    ("net", "input"),
    [("Ids", "tokens:16"), ("Two", "1x8x8,1x8x8"), ("Timed", "3x8x8,int:"), ("Sample", "image=3x8x8,mask=4x8x8"),
     ("Squeezed", "3x8x8"), ("Clip", "3x8x8x8")],
)  # fmt: skip
def test_a_model_is_timed_on_the_inputs_it_takes(inputs: Path, net: str, input: str) -> None:
    found = rc.profile(f"inputs.py:{net}", input=input, device="cpu", batch=(2, 3), time_budget_s=0.01)
    assert [m.batch for m in found.measurements] == [2, 3]
    assert not found.failures


@pytest.mark.parametrize(
    "input",
    ["tokens", "tokens:", "3x", "x3", "3x0x3", "tokens:8:0", "float:8:3", "3x8x8,", "a=3x8x8,3x8x8", "a=3,a=3",
     "words:3", "9x999999999999x999999999999", ",".join(["3x8x8"] * 20)],
)  # fmt: skip
def test_what_is_no_input_is_refused(inputs: Path, input: str) -> None:
    result = run(["profile", "inputs.py:Mlp", "--input", input])
    assert result.exit_code == 2
    assert "is not an input size" in result.stderr
    assert "hint: " in result.stderr


def test_tokens_beyond_the_embedding_are_refused(inputs: Path) -> None:
    result = run("profile inputs.py:Ids --input tokens:8:300")
    assert "error: `tokens:8:300` exceeds the vocabulary of an embedding, 256\nhint: `tokens:8:256`" in result.stderr


@pytest.mark.parametrize("words", ["--input 1x28x28 --input 1x28x28", "--input 1x28x28,1x28x28"])
def test_several_inputs_are_given_one_by_one_or_by_commas(inputs: Path, words: str) -> None:
    result = run(f"profile inputs.py:Two {words} --format json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["macs"] == 121680


def test_a_spec_takes_one_image(inputs: Path) -> None:
    result = run("profile resnet18 --input 3x224x224 --input 3x224x224")
    assert result.exit_code == 2
    assert "`3x224x224,3x224x224` is not an input size" in result.stderr


def test_what_a_batch_shares_is_not_halved(inputs: Path) -> None:
    with pytest.raises(rc.UsageError, match="fails on an image of 3 x 8 x 8"):
        rc.profile("inputs.py:Crossed", input="3x8x8")


# --- constructors, packages, archives ----------------------------------------------------------------------------


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


def test_saved_programs_are_models_and_pickles_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    torch.jit.script(net).save("script.pt")  # type: ignore[no-untyped-call]
    torch.save(net, "whole.pt")
    torch.save(net.state_dict(), "state.pth")
    Path("bytes.pt").write_bytes(b"PK\x03\x04")
    assert figures(rc.profile("script.pt", input="3x8x8").counts)[:2] == (260, 8928)
    for file in ("whole.pt", "state.pth", "bytes.pt"):
        result = run(f"profile {file}")
        assert result.exit_code == 2
        assert "a pickle can run code and is not opened" in result.stderr
    with zipfile.ZipFile("bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("m/constants.pkl", bytes(2**28 + 2**20))
    assert "more than fit" in run("profile bomb.pt").stderr


@pytest.mark.slow
def test_an_exported_program_may_hold_torch_s_operations_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    torch.export.save(torch.export.export(net, (torch.rand(2, 3, 8, 8),), dynamic_shapes=({0: batch},)), "net.pt2")
    assert figures(rc.profile("net.pt2", input="3x8x8").counts)[:2] == (224, 7776)
    changes = (("torch.ops.aten.relu.default", "torch.os.system"), ('"expr_str": "', '"expr_str": "open(chr(47)) or '))
    for text, evil in changes:
        with zipfile.ZipFile("net.pt2") as good, zipfile.ZipFile("evil.pt2", "w") as bad:
            for info in good.infolist():
                data = good.read(info)
                if info.filename.endswith("models/model.json"):
                    assert text in data.decode()
                    data = data.decode().replace(text, evil).encode()
                bad.writestr(info.filename, data)
        assert "is refused" in run("profile evil.pt2 --input 3x8x8").stderr


def test_a_model_on_meta_is_counted_and_not_timed(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("from torch import nn\ndef net(): return nn.Conv2d(3, 8, 3, device='meta')\n")
    result = run(f"profile {tmp_path}/net.py:net --input 3x8x8 --device cpu --time-budget 10ms")
    assert result.exit_code == 3
    assert "its weights are on the meta device" in result.stderr
    assert "224 parameters" in result.stdout
