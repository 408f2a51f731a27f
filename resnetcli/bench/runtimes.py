"""A plan's model under some options: cast, in channels_last, BatchNorm fused, compiled, captured in a CUDA graph."""

from __future__ import annotations

import importlib.util
import io
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from resnetcli.bench.options import Dtype, RunOptions
from resnetcli.errors import ResourceError, UsageError, clean, first_line
from resnetcli.frozen import frozen
from resnetcli.net.guard import CodeExit, no_exit
from resnetcli.net.memory import DEVICE_ERROR, is_out_of_memory
from resnetcli.net.module import Net, build, fuse, layer_of, put_layer
from resnetcli.plan.fold import fold
from resnetcli.plan.plan import Plan
from resnetcli.plan.training import is_traced

Output = Tensor | tuple[Tensor, ...]
Call = Callable[[Tensor], Output]
DTYPES = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Pool = Any
"""A handle of `torch.cuda.graph_pool_handle`, whose type is private."""


@frozen
class RuntimeVariant:
    """A model under some options, on its device. Built and called within `execution.configure_torch`."""

    call: Call
    """A forward pass; its images must be `ready`."""
    ready: Callable[[Tensor], Tensor]
    """(b, c, h, w) in fp32 -> what `call` takes."""
    plan: Plan
    """The plan computed: BatchNorm may be fused."""
    net: nn.Module
    """The model before compilation; a `Net` unless it is a PyTorch model."""
    options: RunOptions
    images: Tensor
    """The images it was built for, `ready`: a CUDA graph replays on these without copying."""
    captured_bytes: int | None = None
    """Peak memory of the forward pass that a CUDA graph captured, without the images; None without a graph."""


def transform(plan: Plan, net: nn.Module, options: RunOptions, x: Tensor, pool: Pool | None = None) -> RuntimeVariant:
    """The calibrated fp32 model `net` under some options, for fp32 images of x's shape. `net` itself is modified.

    Within `execution.configure_torch`. A CUDA graph allocates from `pool`, which graphs that never run at the same time
    can share; None creates one. Compilation happens at the first call, or here. Raises UsageError for options that do
    not apply to the model, ResourceError for a package that is not installed.
    """
    external = options.runtime in _EXTERNAL
    with torch.inference_mode(False), torch.no_grad():
        if options.fold_bn:
            if not isinstance(net, Net):
                raise UsageError(f"`{plan.name}` is a PyTorch model: its BatchNorm cannot be fused",
                                 "omit `--fold-bn`: compilers fuse it by themselves")  # fmt: skip
            plan, net = fold_norms(plan, net)
        if not external:
            net = cast(net, options.precision)
        if options.channels_last:
            net = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def ready(images: Tensor) -> Tensor:
        if not external:
            images = images.to(DTYPES[options.precision])
        return images.contiguous(memory_format=torch.channels_last) if options.channels_last else images

    images, captured_bytes = ready(x), None
    call = start(plan, net, images, options)
    if options.cuda_graph:
        call, captured_bytes = _graph(call, images, pool)
    return RuntimeVariant(call, ready, plan, net, options, images, captured_bytes)


def cast(net: nn.Module, dtype: Dtype) -> nn.Module:
    """The model in a dtype; in fp16 BatchNorm stays in fp32, as under autocast.

    PyTorch uses cuDNN's BatchNorm in fp16 only with fp32 parameters; otherwise it launches three kernels.
    """
    norms = [module for module in net.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    states = [norm.state_dict() for norm in norms] if dtype == "fp16" else []
    states = [{name: value.clone() for name, value in state.items()} for state in states]
    net = net.to(DTYPES[dtype])
    for norm, state in zip(norms, states, strict=False):
        norm.float().load_state_dict(state)
    return net


def start(plan: Plan, net: nn.Module, x: Tensor, options: RunOptions) -> Call:
    """The model as its runtime calls it."""
    match options.runtime:
        case "eager":
            return net
        case "inductor":
            compiled: Call = torch.compile(net, dynamic=False)
            if not isinstance(net, Net):  # compile now, while the modules next to its file can be imported
                compiled(x)
            return compiled
        case "torchscript":
            return _torchscript(net, x)
        case "cudnn":
            return _cudnn(plan, net, x)
        case _:
            return _EXTERNAL[options.runtime](net, x, options)


def fold_norms(plan: Plan, net: Net) -> tuple[Plan, Net]:
    """Fuse the BatchNorms that `fold` removes into the weights before them.

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
    """The plan's model with the weights of existing layers, by step; nothing is initialized or copied."""
    net = build(plan, device="meta").eval()
    for index in range(1, len(plan.steps)):
        given = layers[index]
        if given is not None and any(True for _ in itertools.chain(given.parameters(), given.buffers())):
            put_layer(net, index, given)
    return net


def _cudnn(plan: Plan, net: nn.Module, x: Tensor) -> Call:
    """Convolutions fused by cuDNN with the addition and ReLU after them; a first call shows which ones it supports."""
    if not isinstance(net, Net):
        raise UsageError(f"`{plan.name}` is a PyTorch model: its convolutions cannot be fused", "use `--compile`")
    fused, convs = fuse(net, plan)
    fused(x)
    if not any(conv.is_fused for conv in convs):
        raise ResourceError(f"cuDNN fuses no convolution of `{plan.name}` with a ReLU")
    return fused


def _torchscript(net: nn.Module, x: Tensor) -> Call:
    """Traced, frozen; oneDNN's fusion happens in the first two calls."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and tracing warns about constants
        # Not strict: a PyTorch model may return a dict.
        traced = torch.jit.trace(net, x, check_trace=False, strict=False)  # type: ignore[no-untyped-call]
        frozen = torch.jit.freeze(traced)
    for _ in range(2):
        frozen(x)
    call: Call = frozen
    return call


@cache
def capture_stream(place: torch.device) -> torch.cuda.Stream:
    """The stream for warming up and capturing CUDA graphs on a device.

    PyTorch's default capture stream belongs to the device that captured first. One per device suffices, since cuBLAS
    keeps a workspace of up to 32 MiB per stream; captured kernels use that of the warm-up.
    """
    return torch.cuda.Stream(place)  # type: ignore[no-untyped-call]


def _graph(call: Call, x: Tensor, pool: Pool | None) -> tuple[Call, int]:
    """Capture the call in a CUDA graph; returns its replay, and the peak memory of the captured call.

    A replay reads the images of the capture; others are copied there first. All memory is allocated during capture.
    """
    stream = capture_stream(x.device)
    stream.wait_stream(torch.cuda.current_stream(x.device))
    with torch.cuda.stream(stream):
        for _ in range(3):  # one-time work must not be captured
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
    """ONNX Runtime in fp32, from an ONNX file in memory."""
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
        outputs = tuple(torch.from_numpy(array) for array in session.run(None, {name: images.numpy()}))
        return outputs if len(outputs) > 1 else outputs[0]

    return call


def _openvino(net: nn.Module, x: Tensor, options: RunOptions) -> Call:
    """OpenVINO in the chosen precision; images and outputs are fp32."""
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
        outputs = tuple(torch.from_numpy(request.get_output_tensor(index).data) for index in range(count))
        return outputs if count > 1 else outputs[0]

    return call


_EXTERNAL: Mapping[str, Callable[[nn.Module, Tensor, RunOptions], Call]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
}
"""Runtimes other than PyTorch: they take an fp32 model and cast it themselves."""


def _installed(*packages: str) -> None:
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise ResourceError(f"{package} is not installed", "pip install 'resnet-cli[runtimes]'")


@contextmanager
def explain_errors(plan: Plan, options: RunOptions) -> Iterator[None]:
    """Context manager: raise errors that the options or a PyTorch model cause as one-line ResourceErrors."""
    try:
        with no_exit() if is_traced(plan) else nullcontext():
            yield
    except (UsageError, ResourceError):
        raise
    except (Exception, SystemExit, CodeExit) as error:
        if not isinstance(error, Exception) and not is_traced(plan):
            raise  # only a PyTorch model's exit must not end the benchmark
        text = first_line(error)
        if is_out_of_memory(error) or (options.runtime == "eager" and DEVICE_ERROR.search(str(error))):
            raise  # `fitting` reports both
        if "not implemented for" in text or "not supported" in text:
            raise ResourceError(f"`{plan.name}` as {options.text}: {clean(text, 200)}") from None
        if options.runtime != "eager" or is_traced(plan):
            words = f"{type(error).__name__}: {clean(text, 200)}"
            raise ResourceError(f"`{plan.name}` as {options.text} cannot be run: {words}") from None
        raise
