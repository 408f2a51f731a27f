"""Precision, memory format, CUDA graphs and torch.compile: the same training, and no waiting for the device."""

from __future__ import annotations

import ast
import inspect
import itertools
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from resnetcli.bench import allocator
from resnetcli.errors import ResourceError
from resnetcli.net.memory import fitting
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.train import ghost_norm as norm
from resnetcli.train import loop, precision
from resnetcli.train import weights as step_weights
from resnetcli.train.precision import convolution_settings
from tests.support.trainers import ON_GPU, SHORT, differing, spoil, steps, trainer, weights

pytestmark = pytest.mark.usefixtures("one_thread")


def test_errors_are_measured_without_tf32_also_of_what_is_trained_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, asked = trainer(), list[bool]()
    expected, read = ours.evaluate(), ours.evaluator._read_split  # what follows is not resident on a GPU

    @contextmanager
    def noted(allowed: bool) -> Iterator[None]:
        asked.append(allowed)
        yield

    monkeypatch.setattr(precision, "rounding", noted)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    ours.evaluator.device, ours.dtype = torch.device("cuda"), "tf32"
    monkeypatch.setattr(ours.evaluator, "_split", lambda split: read(split))
    classes = ours.evaluator.by_class()
    assert (ours.evaluate(), sum(each.wrong for each in classes)) == (expected, expected.wrong)
    assert asked == [False] * 5


def test_bf16_learns_nearly_as_fp32_does() -> None:
    recipe = replace(SHORT, schedule=Schedule("fixed", 0.05))
    single, half = steps(trainer(recipe), 4), steps(trainer(recipe, dtype="bf16", channels_last=True), 4)
    assert half.read().loss == pytest.approx(single.read().loss, rel=0.03)
    assert all(tensor.dtype in (torch.float32, torch.float64) for tensor in half.state().values())


def test_fp16_learns_nearly_as_fp32_does_and_its_state_is_fp32_with_the_losss_scale() -> None:
    recipe = replace(SHORT, schedule=Schedule("fixed", 0.05))
    single, half = steps(trainer(recipe), 4), steps(trainer(recipe, dtype="fp16", channels_last=True), 4)
    assert half.read().loss == pytest.approx(single.read().loss, rel=0.003)
    state = half.state()
    assert state.keys() - single.state().keys() == {"scale", "scale.steps"}
    assert all(tensor.dtype in (torch.float32, torch.float64, torch.int32) for tensor in state.values())
    for name, tensor in weights(single).items():
        torch.testing.assert_close(state[name], tensor, rtol=0.02, atol=0.01)


def test_gradients_that_overflow_in_fp16_skip_the_update_and_the_next_loss_is_scaled_less() -> None:
    ours = steps(trainer(dtype="fp16"), 2)
    before = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    mend = spoil(ours, "gradient")
    steps(ours, 2)
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.model.named_parameters())
    assert ours.state()["scale"].item() == loop.FIRST_SCALE / 4
    mend()
    steps(ours, 1)
    assert not all(torch.equal(before[name], parameter) for name, parameter in ours.model.named_parameters())
    assert (ours.read().iterations, ours.iteration) == (5, 5)
    assert ours.state()["scale"].item() == loop.FIRST_SCALE / 4


def test_the_scale_of_the_loss_grows_where_no_update_is_skipped_and_changes_no_weight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loop, "SCALE_STEPS", 2)
    growing = steps(trainer(dtype="fp16"), 5)
    assert growing.state()["scale"].item() == loop.FIRST_SCALE * 4
    monkeypatch.undo()
    fixed = steps(trainer(dtype="fp16"), 5)
    for name, tensor in weights(fixed).items():  # a power of two, so that it differs only where something vanished
        torch.testing.assert_close(weights(growing)[name], tensor, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_in_fp16_without_a_scale_stops_training(where: str) -> None:
    ours = steps(trainer(dtype="fp16"), 3)
    before = {name: parameter.detach().clone() for name, parameter in ours.model.named_parameters()}
    ours._scale.fill_(1.0)
    spoil(ours, where)
    with pytest.raises(ResourceError, match="iteration 4 is not finite"):
        ours.step()
    assert all(torch.equal(before[name], parameter) for name, parameter in ours.model.named_parameters())


def test_channels_last_changes_the_last_digits_only() -> None:
    plain, laid_out = steps(trainer(), 4), steps(trainer(channels_last=True), 4)
    assert laid_out.read().loss == pytest.approx(plain.read().loss, rel=1e-5)


# --- between host and device ---------------------------------------------------------------------------------------

ASKING = {"_local_scalar_dense", "item", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
"""Operations whose result the host waits for."""


class Listening(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the operations that are run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.heard: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Any = None) -> Any:
        self.heard.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


def test_nothing_of_what_a_device_computes_in_a_step_is_waited_for() -> None:
    warmup = Warmup(0.01, until_error=50, at_most=10)
    ours = steps(trainer(replace(SHORT, bn_batch=4, iterations=100, warmup=warmup), channels_last=True), 1)
    with Listening() as mode:
        ours._compute()
    assert {"convolution", "_fused_sgd_"} <= mode.heard
    assert not ASKING & mode.heard
    with Listening() as mode:
        ours.read()
    assert "_local_scalar_dense" in mode.heard  # so that the test above can hear it


WAITS = {"item", "tolist", "cpu", "numpy", "nonzero", "unique", "masked_select", "synchronize", "equal", "allclose"}
"""Methods and functions whose result the host waits for."""


def test_no_line_of_a_step_waits_for_the_device() -> None:
    methods = {node.name: node for node in ast.walk(ast.parse(inspect.getsource(loop.Trainer)))
               if isinstance(node, ast.FunctionDef)}  # fmt: skip
    modules = [ast.parse(inspect.getsource(module)) for module in (norm, step_weights)]
    parts = [methods[name] for name in ("_compute", "_update", "_unscale", "_launch", "_capture")]
    for node in itertools.chain.from_iterable(map(ast.walk, [*parts, *modules])):
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            assert name not in WAITS, ast.unparse(node)
            # Of `bool`, `int` and `float` only the first argument's kind matters: a tensor is never one here.
            assert name not in ("bool", "int", "float") or isinstance(node.func, ast.Attribute), ast.unparse(node)
        if isinstance(node, ast.Attribute) and node.attr in ("T", "data"):
            pytest.fail(ast.unparse(node))
    step = ast.unparse(methods["step"])
    assert step.count("_require_finite") == 1
    assert "if self.device.type == 'cpu':\n        self._require_finite()" in step


class Recording:
    """What stands for a stream, a graph and its recording; recording fails with an error."""

    error: Exception | None = None

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        if self.error is not None:
            raise self.error

    def replay(self) -> None:
        raise AssertionError("there is no graph")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "the memory of `cpu` is too small"),
        (RuntimeError("CUDA error: out of memory\nmore"), "the memory of `cpu` is too small"),
        (RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore"), "operation not permitted"),
    ],
)
def test_a_step_that_cannot_be_recorded_is_launched_by_itself_which_is_reported_once(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    ours, plain = trainer(tell=told.append), trainer()
    ours._eager = 0  # as with a CUDA graph behind the first steps
    for name in ("CUDAGraph", "graph", "stream", "current_stream"):
        monkeypatch.setattr(torch.cuda, name, Recording)
    monkeypatch.setattr(Recording, "error", error)
    compute, recorded = ours._compute, iter([lambda: None])
    monkeypatch.setattr(ours, "_compute", lambda: next(recorded, compute)())  # recording runs nothing
    steps(ours, 4)
    assert not differing(ours.state(), steps(plain, 4).state())
    assert len(told) == 1
    assert told[0].startswith("training continues without a CUDA graph, which may be slower: ")
    assert said in told[0]


def test_a_graph_that_leaves_no_memory_for_evaluation_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    ours = trainer(tell=told.append)
    expected = ours.evaluate()
    tries = iter([torch.OutOfMemoryError("CUDA out of memory."), None, torch.OutOfMemoryError("CUDA out of memory.")])
    measure = ours.evaluator.measure

    def short(*what: Tensor) -> Any:
        with fitting("evaluation", torch.device("cpu")):
            if (error := next(tries)) is not None:
                raise error
        return measure(*what)

    monkeypatch.setattr(ours.evaluator, "measure", short)
    ours._graph = Recording()
    assert ours.evaluate() == expected
    assert ours._graph is None
    assert told == [
        "training continues without a CUDA graph, which may be slower: it leaves too little memory for evaluation"
    ]
    with pytest.raises(ResourceError, match="evaluation does not fit"):
        ours.evaluate()


@pytest.mark.parametrize("deterministic", [False, True])
def test_a_gpus_algorithms_are_chosen_by_time_unless_it_is_to_be_deterministic(
    deterministic: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    before = cudnn.benchmark, cudnn.deterministic
    with convolution_settings(torch.device("cuda"), tf32=False, deterministic=deterministic):
        assert (cudnn.benchmark, cudnn.deterministic) == (not deterministic, deterministic)
    assert (cudnn.benchmark, cudnn.deterministic) == before


def test_a_trainer_sets_nothing_for_the_whole_process(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []
    monkeypatch.setattr(allocator, "_mallopt", lambda: lambda *what: asked.append(what))
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    steps(trainer(dropout=False), 2).evaluate()
    assert not asked
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_a_compiler_that_fails_is_reported_in_a_line_and_its_limits_are_set_back() -> None:
    from torch._dynamo import config

    before, ours = config.recompile_limit, trainer()
    ours._settings = replace(ours._settings, runtime="inductor")

    def fail(x: Tensor) -> Tensor:
        assert config.recompile_limit >= 256
        raise RuntimeError("Failed to find C compiler. Please specify via CC environment variable.\nmore")

    ours.forward = fail
    with pytest.raises(
        ResourceError, match=r"`written` as fp32 compile cannot be run: RuntimeError: Failed to find C compiler"
    ) as one:
        ours.step()
    assert "more" not in str(one.value)
    assert config.recompile_limit == before


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever compilers think of each other
@pytest.mark.parametrize("how", [{"dtype": "bf16", "channels_last": True}, {}])
def test_a_compiled_model_with_groups_learns_as_the_model_itself(how: dict[str, Any]) -> None:
    recipe = replace(SHORT, bn_batch=4)
    compiled, plain = steps(trainer(recipe, compile=True, **how), 3), steps(trainer(recipe, **how), 3)
    assert compiled.read().loss == pytest.approx(plain.read().loss, rel=0.02 if how else 1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # whatever compilers think of each other
def test_a_compiled_model_learns_as_the_model_itself() -> None:
    compiled, plain = steps(trainer(compile=True), 4), steps(trainer(), 4)
    assert compiled.read().loss == pytest.approx(plain.read().loss, rel=1e-4)
    assert compiled.state().keys() == plain.state().keys()
    assert compiled.evaluate().n == 12


@pytest.mark.values
@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=ON_GPU) for how in ({}, {"cuda_graph": True}, {"cuda_graph": True, "dropout": True},
                                                        {"channels_last": True}, {"dtype": "fp16", "cuda_graph": True},
                                                        {"dtype": "tf32", "channels_last": True, "cuda_graph": True})]
)  # fmt: skip
def test_a_gpu_learns_as_the_cpu_does_and_continues_from_its_state(how: dict[str, Any]) -> None:
    plain, ours = trainer(dropout="dropout" in how), trainer(**how, device="cuda")
    assert not differing(weights(plain), weights(ours))
    if "dropout" not in how:  # whose masks are drawn otherwise
        close = 1e-3 if "dtype" not in how else 0.02
        assert steps(ours, 6).read().loss == pytest.approx(steps(plain, 6).read().loss, rel=close)
    else:
        steps(ours, 6).read()
    state = ours.state()
    expected = steps(ours, 2).read()
    ours.restore(state, 6)
    assert steps(ours, 2).read().loss == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize(
    "how", [pytest.param(how, marks=ON_GPU) for how in (
        {}, {"cuda_graph": True}, {"dtype": "fp16", "channels_last": True}, {"dtype": "bf16", "cuda_graph": True},
        {"bn_batch": 4, "channels_last": True}, {"bn_batch": 4, "cuda_graph": True, "dropout": True},
    )]
)  # fmt: skip
def test_a_step_on_a_gpu_waits_for_nothing(how: dict[str, Any]) -> None:
    ours = steps(trainer(**how, device="cuda"), 5)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Synchronization debug mode is a prototype")
        try:
            torch.cuda.set_sync_debug_mode("error")
            steps(ours, 20)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert ours.read().iteration == 25
