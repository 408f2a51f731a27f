"""Record how many kernels PyTorch launches on a GPU for each operation: `python -m tests.support.kernels > FILE`.

The kernels are the nodes of a CUDA graph of one forward pass. `kernels_cuda.json` was recorded with the CUDA build of
PyTorch that it names, with stubs of cuDNN, cuBLAS and the CUDA runtime that compute nothing: each call of cuDNN or
cuBLAS is one node. On a real GPU a call may be several nodes (a layout conversion, a split reduction), depending on the
library's version and the device; the figures of a GPU are therefore never smaller.
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from itertools import product

import torch

from resnetcli.bench.execution import configure_torch
from resnetcli.bench.options import Dtype, RunOptions
from resnetcli.bench.runtimes import capture_stream, transform
from resnetcli.bench.weights import build_random, calibrate_norms
from resnetcli.ops import (
    Add,
    BatchNorm,
    Concat,
    Conv,
    Dropout,
    LeakyReLU,
    Linear,
    LocalResponseNorm,
    Op,
    PadChannels,
    Pool,
    PoolTo,
    PReLU,
    PyramidPool,
    RegionPool,
    ReLU,
    Scale,
    Softmax,
)
from resnetcli.plan.plan import Plan
from resnetcli.reports.profile import load
from tests.support.sketch import Sketch

OPERATIONS: dict[str, Op] = {
    "conv 3x3": Conv(16, (3, 3), pad=(1, 1)),
    "conv 3x3 bias": Conv(16, (3, 3), pad=(1, 1), bias=True),
    "conv 1x1 bias": Conv(16, (1, 1), bias=True),
    "conv 3x3 stride 2 bias": Conv(16, (3, 3), 2, (1, 1), bias=True),
    "conv 3x3 dilated": Conv(16, (3, 3), pad=(2, 2), dilation=2),
    "conv 3x3 dilated bias": Conv(16, (3, 3), pad=(2, 2), dilation=2, bias=True),
    "conv 1x7 bias": Conv(16, (1, 7), pad=(0, 3), bias=True),
    "grouped conv 3x3": Conv(16, (3, 3), pad=(1, 1), groups=4),
    "grouped conv 3x3 bias": Conv(16, (3, 3), pad=(1, 1), groups=4, bias=True),
    "depthwise conv 3x3": Conv(16, (3, 3), pad=(1, 1), groups=16),
    "depthwise conv 3x3 bias": Conv(16, (3, 3), pad=(1, 1), groups=16, bias=True),
    "depthwise conv 3x3 stride 2 bias": Conv(16, (3, 3), 2, (1, 1), groups=16, bias=True),
    "depthwise conv 3x3 x2 bias": Conv(32, (3, 3), pad=(1, 1), groups=16, bias=True),
    "BatchNorm": BatchNorm(),
    "ReLU": ReLU(),
    "LeakyReLU": LeakyReLU(0.1),
    "PReLU": PReLU(),
    "Softmax": Softmax(),
    "Scale": Scale(0.5),
    "Dropout": Dropout(0.5),
    "max 3x3 stride 2": Pool("max", (3, 3), 2, (1, 1)),
    "avg 2x2 stride 2": Pool("avg", (2, 2), 2),
    "avg 3x3 padded": Pool("avg", (3, 3), 1, (1, 1)),
    "global avg": PoolTo("avg", (1, 1)),
    "avg to 2x2": PoolTo("avg", (2, 2)),
    "global max": PoolTo("max", (1, 1)),
    "pyramid 2 1": PyramidPool((2, 1)),
    "LocalResponseNorm": LocalResponseNorm(5, 1e-4, 0.75, 2.0),
    "pad channels": PadChannels(32),
    "pad channels stride 2": PadChannels(32, 2),
    "regions 1": RegionPool((3, 3), 1),
    "regions 4": RegionPool((3, 3), 4),
    "fc": Linear(10),
    "fc no bias": Linear(10, bias=False),
}
"""By name: operations, each recorded alone on an input of 16 x 8 x 8."""
MODELS = (
    "resnet18", "resnet50", "resnext50_32x4d", "preact_resnet50", "wrn_28_10_dropout", "cifar_resnet20",
    "vgg16", "alexnet", "alexnet_2012", "googlenet", "inception_v3", "darknet19", "inception_resnet_v2", "prelu_net_a",
    "drn_c_26", "faster_rcnn_resnet101",
)  # fmt: skip
DTYPES: tuple[Dtype, ...] = ("fp32", "bf16", "fp16")


def operation(name: str) -> Plan:
    """A plan of one operation."""
    s = Sketch(16, 8, 8)
    s.step(name, OPERATIONS[name])
    return s.plan()


def joints() -> Iterator[tuple[str, Plan]]:
    """Name and plan of combinations of operations."""
    for name, op in (("sum of 2", Add()), ("sum of 3", Add()), ("concatenation of 3", Concat())):
        s = Sketch(16, 8, 8)
        relus = [s.step(f"relu{n}", ReLU(), 0) for n in range(int(name[-1]))]
        s.step("join", op, *relus)
        yield name, s.plan()
    for name, norm in (("BatchNorm of vectors", BatchNorm()), ("PReLU of vectors", PReLU())):
        s = Sketch(16, 8, 8)
        s.step("fc", Linear(10))
        s.step("norm", norm)
        yield name, s.plan()
    s = Sketch(16, 8, 8)
    s.step("conv", Conv(16, (3, 3), pad=(1, 1)))
    s.step("bn", BatchNorm())
    s.step("relu", ReLU())
    yield "conv bn relu", s.plan()
    for name, side, conv in (
        ("wide depthwise conv 3x3 bias", 14, Conv(64, (3, 3), pad=(1, 1), groups=64, bias=True)),
        ("wide depthwise conv 5x5 bias", 7, Conv(128, (5, 5), pad=(2, 2), groups=64, bias=True)),
        ("wide depthwise conv 7x7 bias", 14, Conv(64, (7, 7), pad=(3, 3), groups=64, bias=True)),
        ("wide depthwise conv 3x3 dilated bias", 14, Conv(64, (3, 3), pad=(2, 2), dilation=2, groups=64, bias=True)),
        ("small depthwise conv 3x3 bias", 6, Conv(64, (3, 3), pad=(1, 1), groups=64, bias=True)),
    ):
        s = Sketch(64, side, side)
        s.step("conv", conv)
        yield name, s.plan()
    s = Sketch(16, 8, 8)
    s.step("conv", Conv(16, (3, 3)))
    s.step("pool", PoolTo("max", (2, 2)))
    s.step("fc", Linear(10))
    yield "conv, max to 2x2, fc", s.plan()
    s = Sketch(16, 1, 1)
    s.step("bn", BatchNorm())
    s.step("fc", Linear(10))
    s.step("relu", ReLU())
    s.step("bn2", BatchNorm())
    yield "BatchNorm of one place and of vectors", s.plan()
    for maps in (1, 4):
        s = Sketch(16, 8, 8)
        s.step("regions", RegionPool((3, 3), maps))
        s.step("bn", BatchNorm())
        relu = s.step("relu", ReLU())
        s.step("conv1", Conv(16, (3, 3), pad=(1, 1)), relu)
        conv2 = s.step("conv2", Conv(16, (1, 1)), relu)
        s.step("add", Add(), relu, conv2)
        s.step("conv3", Conv(8, (1, 1)))
        yield f"regions {maps}, bn, relu, convs, sum, conv", s.plan()
    s = Sketch(16, 8, 8)
    s.step("pool", PoolTo("avg", (1, 1)))
    s.step("conv", Conv(4, (1, 1), bias=True))
    s.step("relu", ReLU())
    s.step("fc", Linear(10))
    s.step("softmax", Softmax())
    yield "pool conv fc softmax", s.plan()
    s = Sketch(3, 32, 32)
    s.step("conv", Conv(1, (3, 3), bias=True))
    s.step("fc", Linear(10))
    yield "one channel, fc", s.plan()


def cases() -> Iterator[tuple[str, Plan]]:
    """Name and plan of every case to record."""
    yield from ((name, operation(name)) for name in OPERATIONS)
    yield from joints()
    yield from ((name, load(name)) for name in MODELS)


def kernels(plan: Plan, settings: RunOptions, place: torch.device, batch: int = 2) -> int:
    """The number of nodes of a CUDA graph of one forward pass."""
    with configure_torch(settings, place), torch.inference_mode(False), torch.no_grad():
        net = build_random(plan, place)
        x = torch.randn(batch, plan.input.c, plan.input.h, plan.input.w, device=place)
        calibrate_norms(net, x, plan)
        made = transform(plan, net, settings, x)
        stream = capture_stream(place)
        stream.wait_stream(torch.cuda.current_stream(place))
        with torch.cuda.stream(stream):
            made.call(made.images)
        torch.cuda.synchronize(place)
        graph = torch.cuda.CUDAGraph(keep_graph=True)
        with torch.cuda.graph(graph, stream=stream):
            output = made.call(made.images)
        del output
    return nodes(graph.raw_cuda_graph())


def nodes(graph: int) -> int:
    """The number of nodes of the CUDA graph at an address."""
    version = (torch.version.cuda or "").partition(".")[0]
    library, number = ctypes.CDLL(f"libcudart.so.{version}"), ctypes.c_size_t()
    failed = library.cudaGraphGetNodes(ctypes.c_void_p(graph), None, ctypes.byref(number))
    if failed:
        raise RuntimeError(f"cudaGraphGetNodes: error {failed}")
    return number.value


def ways() -> Iterator[RunOptions]:
    """The settings under which each plan is run."""
    for dtype, fold_bn, channels_last in product(DTYPES, (False, True), (False, True)):
        yield RunOptions(dtype=dtype, fold_bn=fold_bn, channels_last=channels_last)


def main() -> None:
    """Print JSON: the settings, and one line per plan with its kernels under each setting."""
    place = torch.device("cuda", 0)
    with torch.cuda.device(place):
        rows = [f"{json.dumps(name)}: {[kernels(plan, way, place) for way in ways()]}" for name, plan in cases()]
    heading = f'"torch": {json.dumps(str(torch.__version__))},\n"settings": {json.dumps([way.text for way in ways()])},'
    print(f'{{{heading}\n"kernels": {{\n' + ",\n".join(rows) + "\n}}")


if __name__ == "__main__":
    main()
