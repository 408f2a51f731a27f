"""A plan as a `torch.nn.Module`: modules are nested by the steps' paths, outputs are freed after their last use."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from resnetcli.errors import UsageError
from resnetcli.net.cudnn import CudnnConvReLU
from resnetcli.net.memory import fitting, gigabytes, require
from resnetcli.ops import Add, Join, Linear, ModuleSettings, Op, Traced
from resnetcli.plan.count import count
from resnetcli.plan.plan import Plan
from resnetcli.plan.schedule import fused_convs, last_uses, overwrites


def build(
    plan: Plan,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
    init: Callable[[nn.Module], object] | None = None,
) -> Net:
    """Build a plan's model and initialise it by `init` (default: `initialise`); on `meta`, weights have no values.

    It maps (b, c, h, w) to the output, or to a tuple with the outputs of auxiliary heads if the plan has them. Raises
    ResourceError if the weights do not fit into memory.
    """
    device, dtype = torch.device(device), dtype or torch.get_default_dtype()
    size = count(plan).params * dtype.itemsize
    require(f"the weights of `{plan.name}`", size, device)
    with fitting(f"`{plan.name}` with {gigabytes(size)} of weights", device), _gc_paused():
        net = Net(plan, device=device, dtype=dtype)
        if device.type != "meta":
            (init or initialise)(net)
    return net


@contextmanager
def _gc_paused() -> Iterator[None]:
    """Pause the garbage collector: it would double the build time scanning dicts that all survive."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def fill_normal(weight: Tensor, std: float) -> None:
    """Fill with samples from N(0, std^2)."""
    nn.init.normal_(weight, std=std)


def initialise(net: nn.Module, draw: Callable[[Tensor, float], object] = fill_normal) -> None:
    """Initialise all weights as the papers do; `draw` fills a tensor, given a standard deviation.

    Convolutions: std = sqrt(2 / (kh*kw*c_out)), bias 0 (He et al. 2015, arXiv:1502.01852, eq. 14; c_out is not divided
    by the groups, as in ResNeXt's released code). Fully connected: std = 0.01, bias 0 (Goyal et al. 2017,
    arXiv:1706.02677, 5.1). BatchNorm: gamma 1, beta 0; PReLU: 0.25 (He et al. 2015, 2.1): `nn` sets these.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kh, kw = module.kernel_size
            draw(module.weight, (2 / (kh * kw * module.out_channels)) ** 0.5)
        elif isinstance(module, nn.Linear):
            draw(module.weight, 0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class Net(nn.Module):
    """A plan's steps as modules and functions. Weights are uninitialised: `build` sets them."""

    def __init__(self, plan: Plan, *, device: torch.device, dtype: torch.dtype) -> None:
        super().__init__()
        self._outputs = plan.outputs
        self._calls = tuple(_calls(plan, self, {"device": device, "dtype": dtype}))

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """(b, c, h, w) to the output, or to a tuple with the outputs of auxiliary heads."""
        return self.run(x)

    def run(self, x: Tensor, observe: Callable[[Tensor], object] | None = None) -> Tensor | tuple[Tensor, ...]:
        """`forward`; `observe` is called with the image and then the output of each step."""
        outputs: list[Any] = [x]
        del x  # no other local variable may refer to an output: it would not be freed after its last use
        if observe is not None:
            observe(outputs[0])
        for siblings, name, function, source, sources, last_used in self._calls:
            if siblings is None:
                outputs.append(function(*[outputs[index] for index in sources]))  # type: ignore[misc]
            elif function is None:
                outputs.append(siblings[name](outputs[source]))  # type: ignore[misc]
            else:
                outputs.append(siblings[name](function(outputs[source])))  # type: ignore[misc]
            if observe is not None:
                observe(outputs[-1])
            for index in last_used:
                outputs[index] = None
        results = tuple([outputs[index] for index in self._outputs])
        return results if len(results) > 1 else results[0]


def layer_of(net: Net, step: int) -> nn.Module | None:
    """The module of a step; None for the input and for steps that are functions."""
    siblings, name, *_ = net._calls[step - 1] if step else (None, "")
    return None if siblings is None else siblings[name]


def put_layer(net: Net, step: int, layer: nn.Module) -> None:
    """Replace the module of a step. Raises ValueError for a step that is a function."""
    siblings, name, *_ = net._calls[step - 1] if step else (None, "")
    if siblings is None:
        raise ValueError(f"step {step} has no module")
    siblings[name] = layer


def fuse(net: Net, plan: Plan) -> tuple[Net, tuple[CudnnConvReLU, ...]]:
    """Replace each of the plan's `fused_convs` by a cuDNN call; return the model, which shares weights, and the calls.

    The call runs in place of the ReLU, so the convolution's input is kept until then.
    """
    calls, steps, kernels = list(net._calls), list(plan.steps), []
    for fusion in fused_convs(plan):
        conv = layer_of(net, fusion.conv)
        assert isinstance(conv, nn.Conv2d)
        kernels.append(CudnnConvReLU(conv))
        inputs = plan.steps[fusion.conv].inputs + (() if fusion.term is None else (fusion.term,))
        steps[fusion.relu] = replace(steps[fusion.relu], inputs=inputs)
        calls[fusion.relu - 1] = _Call(None, "", partial(_on_maps, kernels[-1]), inputs[0], inputs, ())
        for inner in (fusion.conv, fusion.sum):
            if inner is not None:
                steps[inner] = replace(steps[inner], inputs=())
                calls[inner - 1] = _Call(None, "", _nothing, 0, (), ())
    last_used = last_uses(replace(plan, steps=tuple(steps)))
    fused = copy.copy(net)
    fused._calls = tuple(call._replace(last_used=last_used[index]) for index, call in enumerate(calls, start=1))
    return fused, tuple(kernels)


class _Call(NamedTuple):
    """How `Net.run` computes one step: `siblings[name](function(source))`, or `function(*sources)` without a module.

    The module is looked up at each call, so that a replacement (`net.head["fc"] = nn.Linear(2048, 10)`) takes effect.
    """

    siblings: dict[str, nn.Module | None] | None
    name: str
    function: Callable[..., Tensor | None] | None
    source: int
    sources: tuple[int, ...]
    last_used: tuple[int, ...]
    """Steps whose outputs are not used after this one."""


def _calls(plan: Plan, root: nn.Module, factory: dict[str, Any]) -> Iterator[_Call]:
    """Yield the calls of all steps but the input; register their modules below `root`. `factory`: device and dtype."""
    groups = {"": root}
    overwritten, last_used = overwrites(plan), last_uses(plan)
    vector = [False]  # per step: whether its output is (b, c), not (b, c, h, w)
    for index, step in enumerate(plan.steps[1:], start=1):
        op, sources = step.op, step.inputs
        vectors = [vector[source] for source in sources]
        if isinstance(op, Join):
            vector.append(all(vectors))
            function: Callable[..., Tensor] = _add if isinstance(op, Add) else _concat
            if index in overwritten:
                at = sources.index(overwritten[index])
                function, sources = _add_to, (sources[at], *sources[:at], *sources[at + 1 :])
            if any(vectors) and not all(vectors):
                function = partial(_on_maps, function)
            yield _Call(None, "", function, sources[0], sources, last_used[index])
            continue
        if isinstance(op, Traced):
            raise UsageError(
                f"`{plan.name}` is a PyTorch model: it cannot be built from its plan", "construct it by its own class"
            )
        settings = ModuleSettings(vectors[0], index in overwritten, factory)
        module = op.module(plan.steps[sources[0]].shape, settings)
        siblings, name = _register(module, step.path, groups)
        yield _Call(siblings, name, _reshape(op, vectors[0]), sources[0], sources, last_used[index])
        vector.append(op.gives_vector or (vectors[0] and not op.needs_map))


def _reshape(op: Op, vector: bool) -> Callable[[Tensor], Tensor] | None:
    """The reshape before a step's module, if one is needed."""
    if isinstance(op, Linear):
        return None if vector else _as_vector
    return _as_map if vector and op.needs_map else None


def _as_vector(x: Tensor) -> Tensor:
    return x.flatten(1)  # (b, c*h*w)


def _as_map(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x[:, :, None, None]  # (b, c, 1, 1)


def _on_maps(function: Callable[..., Tensor], *xs: Tensor) -> Tensor:
    return function(*[_as_map(x) for x in xs])


def _nothing() -> None:
    """The value of a step that a later one computes."""


def _concat(*xs: Tensor) -> Tensor:
    return torch.cat(xs, 1)


def _add(x: Tensor, *others: Tensor) -> Tensor:
    return _add_to(x + others[0], *others[1:]) if others else x


def _add_to(total: Tensor, *xs: Tensor) -> Tensor:
    """Add in place."""
    for x in xs:
        total += x
    return total


def _register(module: nn.Module, path: str, groups: dict[str, nn.Module]) -> tuple[dict[str, nn.Module | None], str]:
    """Register a module by its path: `conv2_x.0.F.conv` is `net.conv2_x["0"].F.conv`; return its siblings and name."""
    above, _, name = path.rpartition(".")
    if above not in groups:
        groups[above] = nn.ModuleDict()
        _register(groups[above], above, groups)
    name = _attribute(name)
    children = groups[above]._modules
    if name in children:
        raise ValueError(f"the path `{path}` belongs to two steps, or is also a prefix of another step's path")
    groups[above].add_module(name, module)
    return children, name


_RESERVED = frozenset(name.rstrip("_") for name in dir(nn.ModuleDict()) + dir(Net))


def _attribute(name: str) -> str:
    """A stage's name as an attribute: with `_` appended if modules have an attribute of that name, such as `train`."""
    return name + "_" if name.rstrip("_") in _RESERVED else name
