"""A plan's net under options: cast, laid out, folded, compiled; and how far its values are from eager fp32's."""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from resnetcli.bench.execution import rounding
from resnetcli.bench.options import Dtype, RunOptions
from resnetcli.errors import ResourceError, UsageError, clean
from resnetcli.net.feed import Fed
from resnetcli.net.feed import image_sizes as sizes_of
from resnetcli.net.foreign import rebuilt
from resnetcli.net.guard import CodeExit, no_exit
from resnetcli.net.memory import DEVICE_ERROR, is_out_of_memory
from resnetcli.net.module import Net, build, fuse, initialise, layer_of, put_layer
from resnetcli.net.outputs import tensors
from resnetcli.ops import BatchNorm
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

Output = Tensor | tuple[Tensor, ...]
Call = Callable[[Tensor], Output]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CHECKED = 8
"""Images whose values are compared with eager fp32's. All of a batch would take twice the memory of half precision."""
Pool = Any
"""A handle of `torch.cuda.graph_pool_handle`, whose type is private."""
SHIFT = 2.0
"""BatchNorm's shift: with it most values pass a ReLU unchanged.

With none, a deep net of random weights is chaotic: what bf16 rounds away in ResNet-50's first layers grows to 65% of
its last maps (Inception v3: 91%), which no check could tell from an error. With a shift of 2 it is 1.2% and 4.9%.
"""


@dataclass(frozen=True, slots=True)
class Variant:
    """A net under options, on its device. To be called within `execution.configure_torch`, as it was made."""

    call: Call
    """A forward; its images must be `ready`."""
    ready: Callable[[Tensor], Tensor]
    """(b, c, h, w) in fp32 -> what `call` takes."""
    plan: Plan
    """What is computed, which need not be the plan that was asked for."""
    net: nn.Module
    """Its net, before any compiler; a `Net` unless the plan is of a PyTorch model."""
    options: RunOptions
    images: Tensor
    """The images it was made for, `ready`: a CUDA graph replays on these without copying."""
    captured_bytes: int | None = None
    """Peak memory of the forward pass that a CUDA graph captured, without the images; None without a graph."""


@dataclass(frozen=True, slots=True)
class Deviation:
    """How far a variant is from eager fp32: norms of differences, relative to the norm of what should be."""

    maps: float | None
    """Of the last maps on the way to the output; None for a net without any."""
    outputs: float
    """Of the outputs; the worst of them, if there are auxiliary heads."""
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether both are within tolerance, which what is not finite never is."""
        return self.outputs <= self.tolerance and (self.maps is None or self.maps <= self.tolerance)


def weights(plan: Plan, place: torch.device) -> Net:
    """The plan's net in fp32 evaluation with random weights, quickly drawn, that keep it well conditioned.

    They are made outside of inference mode, which compilers do not know. Statistics are yet to be calibrated.
    """
    with torch.inference_mode(False):
        return build(plan, device=place, dtype=torch.float32, init=fill).eval()


@contextmanager
def model(plan: Plan, place: torch.device, batch: int) -> Iterator[nn.Module]:
    """Likewise the PyTorch model that a plan was seen of, its weights as it makes them but for BatchNorm's shifts.

    It is to be compiled within: see `rebuilt`. Raises UsageError where it cannot be made again, ResourceError
    where it cannot be put on the device.
    """
    with ExitStack() as stack:
        with torch.inference_mode(False):
            net = stack.enter_context(rebuilt(plan))
            if any(tensor.is_meta for tensor in (*net.parameters(), *net.buffers())):
                raise ResourceError(
                    f"`{plan.name}` cannot be timed: its weights are on the meta device, without values",
                    "do not construct it on `meta`, or omit `--device` to count it",
                )
            net = net.to(place, torch.float32)
            shift(net)
            if plan.inputs:
                net = Fed(net, plan.inputs, batch, place).eval()
        yield net


def image_sizes(plan: Plan) -> tuple[int, ...]:
    """The sizes of one of the images that a plan's net is called with."""
    return sizes_of(plan.inputs) if plan.inputs else plan.input_sizes


def fill(net: nn.Module) -> None:
    """Weights of the usual size from a uniform distribution, which takes a fifth of the time of a normal one."""
    initialise(net, lambda weight, std: nn.init.uniform_(weight, -(3**0.5) * std, 3**0.5 * std))
    shift(net)


def shift(net: nn.Module) -> None:
    """Gives all BatchNorms the shift that keeps a net well conditioned."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and module.affine:
            nn.init.constant_(module.bias, SHIFT)


def calibrate(net: nn.Module, x: Tensor, plan: Plan) -> None:
    """Sets BatchNorm's statistics to those of x's first image, or of two where one has a single value to a channel.

    With the initial ones every residual block doubles the variance, and a deep net would be timed on infinities.
    """
    single = any(
        isinstance(step.op, BatchNorm) and step.shape.n * step.shape.h * step.shape.w == 1 for step in plan.steps
    )
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    if norms:
        two = x[:2] if len(x) > 1 else torch.cat((x, torch.randn_like(x)))
        try:
            net(two if single else x[:1])
        except ValueError:  # BatchNorm's own for a single value, which inside a PyTorch model nobody sees before
            if not is_traced(plan):
                raise
            net(two)
    for norm in norms:
        norm.eval()
        norm.momentum = 0.1


def transform(plan: Plan, net: nn.Module, options: RunOptions, x: Tensor, pool: Pool | None = None) -> Variant:
    """The calibrated fp32 net of a plan under options, for images of x's shape, fp32. The net itself is used up.

    A CUDA graph allocates from `pool`, which graphs that never run at the same time can share; None is a pool of its
    own. Within `execution.configure_torch`. A compiler works at the first call, or here; both count as preparing.
    Raises UsageError for a model that cannot be run so, ResourceError where a package is not installed.
    """
    foreign = options.runtime in _FOREIGN
    with torch.inference_mode(False), torch.no_grad():
        if options.fold_bn:
            if not isinstance(net, Net):
                raise UsageError(f"`{plan.name}` is a PyTorch model, whose BatchNorm is not folded",
                                 "leave `--fold-bn` out: compilers fold it by themselves")  # fmt: skip
            plan, net = fold_norms(plan, net)
        if not foreign:
            net = cast(net, options.precision)
        if options.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ready(images: Tensor) -> Tensor:
        if not foreign:
            images = images.to(DTYPES[options.precision])
        return images.contiguous(memory_format=torch.channels_last) if options.channels_last else images

    images, captured_bytes = ready(x), None
    call = _start(plan, net, images, options)
    if options.cuda_graph:
        call, captured_bytes = _graph(call, images, pool)
    return Variant(call, ready, plan, net, options, images, captured_bytes)


def cast(net: nn.Module, dtype: Dtype) -> nn.Module:
    """The net in a dtype; in fp16 BatchNorm stays in fp32, as autocast has it.

    PyTorch gives BatchNorm of fp16 values to cuDNN only with fp32 parameters; else it starts three kernels for one.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    states = [norm.state_dict() for norm in norms] if dtype == "fp16" else []
    states = [{name: value.clone() for name, value in state.items()} for state in states]
    net = net.to(DTYPES[dtype])
    for norm, state in zip(norms, states, strict=False):
        norm.float().load_state_dict(state)
    return net


def check(variant: Variant, x: Tensor, expected: tuple[Tensor, ...]) -> Deviation:
    """How far a variant's outputs are from `reference`'s, for images that are ready: those of the first images.

    Its last maps are those of the same net made once more with one output more, since nobody can look into a compiled
    one, and since what is timed must not be made to show them.
    """
    found = as_tuple(variant.call(x))
    if isinstance(variant.net, Net):
        found = tuple(value[: len(wanted)] for value, wanted in zip(found, expected, strict=False))
    outputs = max(map(relative, found, expected), default=float("inf"))
    maps = None
    if len(expected) > len(found) and isinstance(variant.net, Net):
        watched, seen = witness(variant.plan, variant.net)
        some = x[:CHECKED]
        maps = relative(as_tuple(_start(watched, seen, some, variant.options)(some))[-1], expected[-1])
    return Deviation(maps, outputs, variant.options.tolerance)


def _start(plan: Plan, net: nn.Module, x: Tensor, options: RunOptions) -> Call:
    """The plan's net as its runtime runs it."""
    match options.runtime:
        case "eager":
            return net
        case "inductor":
            compiled: Call = torch.compile(net, dynamic=False)
            if not isinstance(net, Net):  # of which the compiler has to find what belongs to it, as it now can
                compiled(x)
            return compiled
        case "torchscript":
            return _torchscript(net, x)
        case "cudnn":
            return _cudnn(plan, net, x)
        case _:
            return _FOREIGN[options.runtime](net, x, options)


def fold_norms(plan: Plan, net: Net) -> tuple[Plan, Net]:
    """The net without the BatchNorms that `fold` takes away, its weights those of evaluation.

    W' = W * gamma / sqrt(var + eps), b' = beta + (b - mean) * gamma / sqrt(var + eps). All other weights are shared.
    """
    folded = fold(plan)
    for index, norm_index in folded.norms.items():
        layer, norm = layer_of(net, folded.origins[index]), layer_of(net, norm_index)
        assert isinstance(layer, nn.Conv2d | nn.Linear)
        assert isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d)
        assert norm.running_mean is not None
        assert norm.running_var is not None
        scale = norm.weight / torch.sqrt(norm.running_var + norm.eps)
        bias = norm.bias - norm.running_mean * scale
        if layer.bias is not None:
            bias = bias + layer.bias * scale
        layer.weight.data = layer.weight * scale.view(-1, *[1] * (layer.weight.dim() - 1))
        layer.bias = nn.Parameter(bias, requires_grad=False)
    return folded.plan, reuse(folded.plan, {new: layer_of(net, old) for new, old in enumerate(folded.origins)})


def reuse(plan: Plan, layers: Mapping[int, nn.Module | None]) -> Net:
    """The plan's net with the weights of other layers, by step; nothing is drawn or copied."""
    net = build(plan, device="meta").eval()
    for index in range(1, len(plan.steps)):
        given = layers[index]
        if given is not None and any(True for _ in itertools.chain(given.parameters(), given.buffers())):
            put_layer(net, index, given)
    return net


def last_maps(plan: Plan) -> int | None:
    """The last step on the way to the output whose value is a map of more than one place."""
    wanted = {plan.outputs[0]}
    for index in range(plan.outputs[0], 0, -1):
        if index in wanted:
            shape = plan.steps[index].shape
            if shape.h * shape.w > 1:
                return index
            wanted.update(plan.steps[index].inputs)
    return None


def witness(plan: Plan, net: Net) -> tuple[Plan, Net]:
    """The plan and net with the last maps as one output more; the weights are shared."""
    maps = last_maps(plan)
    if maps is None:
        return plan, net
    seen = replace(plan, outputs=(*plan.outputs, maps))
    return seen, reuse(seen, {index: layer_of(net, index) for index in range(1, len(plan.steps))})


def reference(plan: Plan, net: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
    """The net's outputs in eager fp32 without TF32, and last its last maps if it has any; of a PyTorch model none.

    Of the first images only, since a net computes each image by itself; a PyTorch model need not, and gets them all.
    """
    seen, x = (witness(plan, net)[1], x[:CHECKED]) if isinstance(net, Net) else (net, x)
    with rounding(allowed=False), torch.inference_mode(False), torch.no_grad():
        return tuple(value.clone() for value in as_tuple(seen(x)))


def relative(found: Tensor, expected: Tensor) -> float:
    """The norm of the difference relative to that of what is expected; infinite where anything is not finite."""
    if found.shape != expected.shape:
        return float("inf")
    found, expected = found.to(expected.device, torch.float32), expected.to(torch.float32)
    if not bool(found.isfinite().all()):
        return float("inf")
    size = float(torch.linalg.vector_norm(expected))
    off = float(torch.linalg.vector_norm(found - expected))
    ratio = off / size if size else (0.0 if off == 0 else float("inf"))
    return float("inf") if math.isnan(ratio) else ratio  # of infinities; no maximum would show it


def as_tuple(output: object) -> tuple[Tensor, ...]:
    """The outputs, also of a net that has one, and of a PyTorch model that wraps them."""
    return tuple(tensors(output))


def _cudnn(plan: Plan, net: nn.Module, x: Tensor) -> Call:
    """Convolutions fused with the sum and ReLU behind them, where cuDNN can: which ones, a first call finds out."""
    if not isinstance(net, Net):
        raise UsageError(f"`{plan.name}` is a PyTorch model, whose convolutions are not fused", "use `--compile`")
    fused, convs = fuse(net, plan)
    fused(x)
    if not any(conv.is_fused for conv in convs):
        raise ResourceError(f"cuDNN fuses no convolution of `{plan.name}` with a ReLU")
    return fused


def _torchscript(net: nn.Module, x: Tensor) -> Call:
    """Traced, frozen; oneDNN's fusion happens in the first two calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated, and what tracing takes for constant
        # Not strict: a PyTorch model may put out a dict.
        traced = torch.jit.trace(net, x, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
    for _ in range(2):
        frozen(x)
    call: Call = frozen
    return call


@cache
def capture_stream(place: torch.device) -> torch.cuda.Stream:
    """The stream on which a device's CUDA graphs are warmed up and captured.

    PyTorch's own is one for the process, of the device that captured first. Only one for each device, since cuBLAS
    keeps a workspace of up to 32 MiB for every stream it has seen; what is captured uses the one of the warm-up.
    """
    return torch.cuda.Stream(place)  # type: ignore[no-untyped-call]


def _graph(call: Call, x: Tensor, pool: Pool | None) -> tuple[Call, int]:
    """The call's launches recorded, and the peak memory of the recorded call.

    It is replayed on the images it was recorded with; others are copied there first. All memory is allocated while
    recording, so that a replay has no peak of its own.
    """
    stream = capture_stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # what is only done once must not be recorded
            call(x)
    torch.cuda.current_stream(x.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize(x.device)
    torch.cuda.reset_peak_memory_stats(x.device)
    before = torch.cuda.memory_allocated(x.device)
    with torch.cuda.graph(graph, pool=pool, stream=stream):
        output = call(x)
    peak = torch.cuda.max_memory_allocated(x.device) - before

    def replay(images: Tensor) -> Output:
        if images is not x:
            x.copy_(images)
        graph.replay()
        return output

    return replay, peak


def _onnxruntime(net: nn.Module, x: Tensor, options: RunOptions) -> Call:
    """In fp32, from an ONNX file in memory."""
    _installed("onnxruntime", "onnxscript")
    import onnxruntime

    file = io.BytesIO()
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (x,), file, dynamo=True, external_data=False, verbose=False)  # type: ignore[arg-type]
    session_options = onnxruntime.SessionOptions()
    session_options.intra_op_num_threads = torch.get_num_threads()
    session_options.log_severity_level = 3
    session = onnxruntime.InferenceSession(file.getvalue(), session_options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def call(images: Tensor) -> Output:
        found = tuple(torch.from_numpy(array) for array in session.run(None, {name: images.numpy()}))
        return found if len(found) > 1 else found[0]

    return call


def _openvino(net: nn.Module, x: Tensor, options: RunOptions) -> Call:
    """In the precision asked for, images in and outputs out as fp32."""
    _installed("openvino")
    import openvino

    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        model = openvino.convert_model(net, example_input=x, input=[tuple(x.shape)])
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if options.precision == "bf16" else "f32",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    request: Any = openvino.compile_model(model, "CPU", config).create_infer_request()
    count = len(model.outputs)

    def call(images: Tensor) -> Output:
        request.infer([images.numpy()], share_inputs=True)
        found = tuple(torch.from_numpy(request.get_output_tensor(index).data) for index in range(count))
        return found if count > 1 else found[0]

    return call


_FOREIGN: Mapping[str, Callable[[nn.Module, Tensor, RunOptions], Call]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Those that are not torch: they take fp32 and cast by themselves."""


def _installed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ResourceError(f"{package} is not installed", "pip install 'resnet-cli[runtimes]'")


@contextmanager
def explained(plan: Plan, options: RunOptions) -> Iterator[None]:
    """Turns what is raised because of settings into a ResourceError that says so in a line."""
    try:
        with no_exit() if is_traced(plan) else nullcontext():
            yield
    except (UsageError, ResourceError):
        raise
    except (Exception, SystemExit, CodeExit) as error:
        if not isinstance(error, Exception) and not is_traced(plan):
            raise  # a model may not end whoever measures it
        text = (str(error).strip().splitlines() or [""])[0]
        if is_out_of_memory(error) or (options.runtime == "eager" and DEVICE_ERROR.search(str(error))):
            raise  # `fitting` reports both
        if "not implemented for" in text or "not supported" in text:
            raise ResourceError(f"`{plan.name}` as {options.text}: {clean(text, 200)}") from None
        if options.runtime != "eager" or is_traced(plan):
            words = f"{type(error).__name__}: {clean(text, 200)}"
            raise ResourceError(f"`{plan.name}` as {options.text} cannot be run: {words}") from None
        raise
