from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from resnetcli.bench import prepare as ready
from resnetcli.bench import runtimes as variants
from resnetcli.bench.deviation import as_tuple
from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import RunOptions
from resnetcli.bench.prepare import on_device, prepare, set_up
from resnetcli.errors import ResourceError, UsageError
from resnetcli.net.memory import NoRoom
from resnetcli.ops import Shape
from resnetcli.plan.memory import memory
from resnetcli.plan.plan import Plan
from resnetcli.reports.foreign import of_module, of_reference
from tests.support.short import OUT_OF_MEMORY
from tests.support.sketch import residual_net

CPU = torch.device("cpu")


def test_a_model_that_is_ready_has_run_and_is_checked_against_eager_fp32_where_it_is_run_otherwise() -> None:
    options = RunOptions(channels_last=True, fold_bn=True)
    with on_device(CPU), configure_torch(options, CPU):
        ticks = iter(range(100))
        found = prepare(residual_net(), CPU, 2, lambda: next(ticks) / 64, options)
        assert found.setup.first_call_s == 1 / 64
        assert found.setup.prepare_s == 2 / 64  # folding, and the first call
        assert found.setup.deviation_outputs is not None
        assert found.setup.tolerance is not None
        assert found.setup.deviation_outputs <= found.setup.tolerance
        assert found.waited(3) == 1 / 64
    with on_device(CPU), configure_torch(RunOptions(), CPU):
        assert prepare(residual_net(), CPU, 2, lambda: 0.0).setup.tolerance is None


def test_a_model_that_is_set_up_has_yet_to_run() -> None:
    with on_device(CPU), configure_torch(RunOptions(), CPU):
        found = set_up(residual_net(), CPU, 3, lambda: 0.0, RunOptions())
        assert found.images.shape == (3, 3, 8, 8)
        assert (found.check, found.seconds, found.step) == (None, 0.0, None)
        assert isinstance(found.call(), torch.Tensor)
        with pytest.raises(UsageError, match="`--batch-size` must be at least 1"):
            set_up(residual_net(), CPU, 0, lambda: 0.0, RunOptions())


def test_on_a_gpu_latency_waits_for_each_call_and_throughput_only_for_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None:
            assert enable_timing

        def record(self) -> None:
            log.append("mark")

        def synchronize(self) -> None:
            log.append("wait")

        def elapsed_time(self, end: Event) -> float:
            return 250.0  # ms

    monkeypatch.setattr(torch.cuda, "Event", Event)
    waited, queued = ready.timers(lambda: log.append("call"), torch.device("cuda", 0), lambda: 0.0)
    assert waited(2) == 0.5
    assert log == ["mark", "call", "mark", "wait"] * 2
    log.clear()
    assert queued(2) == 0.25
    assert log == ["mark", "call", "call", "mark", "wait"]


def test_the_peak_memory_of_a_graph_is_what_its_capture_took(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RunOptions(dtype="bf16", cuda_graph=True)
    monkeypatch.setattr(variants, "_graph", lambda call, x, pool: (lambda images: torch.zeros(()), 10**9))
    monkeypatch.setattr(ready, "check_outputs", lambda variant, x, expected: None)
    with on_device(CPU), configure_torch(options, CPU):
        found = prepare(residual_net(), CPU, 2, lambda: 0.0, options)
    assert found.setup.peak_memory_bytes == 10**9 + 2 * 3 * 8 * 8 * 2


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=str)
def test_a_gpu_on_which_nothing_fits_is_an_error_in_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def first_use(place: torch.device) -> None:
        raise error

    monkeypatch.setattr(ready, "_on", first_use)
    with pytest.raises(NoRoom) as caught, on_device(torch.device("cuda", 1)):
        pass
    assert caught.value.message.startswith("PyTorch does not fit into the memory of `cuda:1`")


def test_a_batch_that_may_fit_is_of_the_memory_that_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, gpu = residual_net(), torch.device("cuda", 0)
    held = memory(plan, "infer")

    class Properties:
        total_memory = held.bytes(1000)

    for name, value in (("mem_get_info", (held.bytes(10), held.bytes(1000))), ("memory_reserved", 0),
                        ("memory_allocated", 0), ("get_device_properties", Properties)):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda place, value=value: value)
    assert ready.out_of_memory_message(plan, 64, gpu, RunOptions())[1] == "`--batch-size 10` or less may fit"

    def no_context(place: object) -> None:
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "mem_get_info", no_context)
    assert ready.out_of_memory_message(plan, 64, gpu, RunOptions())[1] == "`--batch-size 32` or less may fit"


def test_the_time_to_start_a_call_ends_when_it_returns(monkeypatch: pytest.MonkeyPatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda place: log.append("wait"))
    ticks = iter([1.0, 1.5])

    def clock() -> float:
        log.append("clock")
        return next(ticks)

    assert ready._host(lambda: log.append("call"), torch.device("cuda", 0), clock)() == 0.5
    assert log == ["wait", "clock", "call", "clock", "wait"]


# --- PyTorch models ----------------------------------------------------------------------------------------------

FILE = """
import torch
from torch import nn

print("options")

class Net(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, width, 3, 2), nn.BatchNorm2d(width), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
        self.norm = nn.BatchNorm1d(width)
        self.head = nn.Linear(width, 5)

    def forward(self, x):
        print("run")
        return {"logits": self.head(self.norm(self.stem(x).flatten(1)))}

class Single(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))

    def forward(self, x):
        if len(x) > 1:
            raise RuntimeError("one at a time")
        return super().forward(x)

class Tired(nn.Conv2d):
    def __init__(self, calls):
        super().__init__(3, 8, 3)
        self.left = calls

    def forward(self, x):
        self.left -= 1
        if self.left < 0:
            raise SystemExit("tired")
        return super().forward(x)

class Frozen(nn.Sequential):
    def train(self, mode=True):  # as many write it, without a value
        super().train(False)

frozen = lambda: Frozen(nn.Conv2d(3, 8, 3), nn.Dropout())
there = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8, affine=False))
"""


@pytest.fixture
def seen(tmp_path: Path) -> Callable[..., Plan]:
    """The plan of a model in a file, named, and parameters for it."""
    file = tmp_path / "net.py"
    file.write_text(FILE)
    return lambda name, **given: of_reference(f"{file}:{name}", given, Shape(3, 16, 16)).plan


@pytest.mark.parametrize(
    "options",
    [RunOptions(), RunOptions(dtype="bf16", channels_last=True), RunOptions(runtime="torchscript")],
    ids=lambda s: s.text,
)
def test_a_pytorch_model_is_made_again_and_checked_against_itself(
    options: RunOptions, seen: Callable[..., Plan], capsys: pytest.CaptureFixture[str]
) -> None:
    plan = seen("Net", width=12)
    with on_device(CPU), configure_torch(options, CPU):
        found = prepare(plan, CPU, 1, lambda: 0.0, options)  # BatchNorm1d over one image, which has no variance
        assert found.waited(2) == 0.0
    assert capsys.readouterr().out == ""  # what it prints is no result
    assert found.setup.live_peak_bytes is None
    if options.plain:
        assert found.setup.deviation_outputs is None
        return
    assert found.setup.deviation_maps is None
    assert found.setup.deviation_outputs is not None
    assert found.setup.tolerance is not None
    assert 0 < found.setup.deviation_outputs <= found.setup.tolerance


def test_a_pytorch_model_has_the_weights_its_own_code_draws_and_runs_on_any_batch(seen: Callable[..., Plan]) -> None:
    with on_device(CPU), configure_torch(RunOptions(), CPU):
        options = set_up(seen("Net"), CPU, 3, lambda: 0.0, RunOptions())
        (logits,) = as_tuple(options.call())
        assert logits.shape == (3, 5)
        assert logits.std() > 0
        assert as_tuple(set_up(seen("there"), CPU, 2, lambda: 0.0, RunOptions()).call())[0].shape == (2, 8, 14, 14)


def test_a_model_whose_own_train_gives_nothing_back_is_counted_and_run(seen: Callable[..., Plan]) -> None:
    with on_device(CPU), configure_torch(RunOptions(), CPU):
        (found,) = as_tuple(set_up(seen("frozen"), CPU, 1, lambda: 0.0, RunOptions()).call())
    assert found.shape == (1, 8, 14, 14)
    assert found.all()  # nothing was dropped


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Net", RunOptions(fold_bn=True), "is a PyTorch model: its BatchNorm cannot be fused"),
        ("Net", RunOptions(mode="train"), "is a PyTorch model: its training step is not measured"),
        ("Net", RunOptions(runtime="torchscript", fold_bn=True), "is a PyTorch model: its BatchNorm cannot be fused"),
    ],
)
def test_what_only_models_of_specs_can_is_refused(
    name: str, options: RunOptions, message: str, seen: Callable[..., Plan]
) -> None:
    with on_device(CPU), configure_torch(options, CPU), pytest.raises(UsageError, match=message):
        set_up(seen(name), CPU, 2, lambda: 0.0, options)


def test_a_pytorch_model_that_fails_on_a_batch_is_a_line_and_no_traceback(seen: Callable[..., Plan]) -> None:
    plan = seen("Single")
    with on_device(CPU), configure_torch(RunOptions(), CPU):
        prepare(plan, CPU, 1, lambda: 0.0)
        with pytest.raises(ResourceError, match=r"net\.py:Single` as fp32 cannot be run: RuntimeError: one at a time"):
            prepare(plan, CPU, 2, lambda: 0.0)


@pytest.mark.parametrize("calls", [1, 2, 5])
def test_a_pytorch_model_that_ends_itself_at_some_call_is_a_line_and_ends_nothing_else(
    calls: int, seen: Callable[..., Plan]
) -> None:
    plan = seen("Tired", calls=calls)
    words = r"net\.py:Tired` as fp32 cannot be run: SystemExit: tired"
    with on_device(CPU), configure_torch(RunOptions(), CPU), pytest.raises(ResourceError, match=words):
        prepare(plan, CPU, 1, lambda: 0.0).waited(9)


def test_a_module_in_hand_is_counted_and_nothing_leads_back_to_it() -> None:
    plan = of_module(torch.nn.Conv2d(3, 8, 3), Shape(3, 16, 16), None).plan
    with (
        on_device(CPU),
        configure_torch(RunOptions(), CPU),
        pytest.raises(UsageError, match="`Conv2d` was only counted"),
    ):
        set_up(plan, CPU, 1, lambda: 0.0, RunOptions())


def test_a_compiler_finds_what_a_file_imports_from_beside_it_and_nothing_stays_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = "class Block(nn.Conv2d):\n    def forward(self, x):\n        return torch.relu(super().forward(x))\n"
    (tmp_path / "beside.py").write_text(f"import torch\nfrom torch import nn\n\n{block}")
    net = tmp_path / "net.py"
    net.write_text("from beside import Block\nfrom torch import nn\nNet = lambda: nn.Sequential(Block(3, 8, 3))\n")
    plan = of_reference(f"{net}:Net", {}, Shape(3, 16, 16)).plan
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))  # which writes no code
    options = RunOptions(runtime="inductor")
    with on_device(CPU), configure_torch(options, CPU):
        found = prepare(plan, CPU, 2, lambda: 0.0, options)
        assert found.waited(2) == 0.0
    assert found.setup.deviation_outputs is not None
    assert found.setup.deviation_outputs < 1e-6
    assert not {"beside", "_resnetcli_run_net"} & set(sys.modules)
