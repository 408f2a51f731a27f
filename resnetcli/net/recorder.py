"""Record a module's run: calls of modules by PyTorch's global hooks, operations by its dispatch mode."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.jit._fuser import optimized_execution
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import is_lazy
from torch.utils._python_dispatch import TorchDispatchMode

from resnetcli.errors import UsageError
from resnetcli.net.feed import call_of, require_accepted, smallest_vocabulary, tensors_for
from resnetcli.net.memory import fitting
from resnetcli.net.naming import class_name, module_text
from resnetcli.net.operations import Product, has_formula, product_of, tensors_in, written_tensors
from resnetcli.net.outputs import shape_of, tensors, unfinished
from resnetcli.net.provenance import Dependent, Provenance, max_layers
from resnetcli.net.threads import ThreadFrames
from resnetcli.ops import Shape, Traced
from resnetcli.spec.inputs import Inputs


@dataclass(slots=True)
class Segment:
    """Operations of a module itself between the calls of its children."""

    reads: set[int] = field(default_factory=set)
    """Steps."""
    outputs: list[int] = field(default_factory=list)
    """Storages."""
    macs: int = 0
    elements: int = 0
    layers: int = 0
    by: str = ""
    """The last product."""
    shape: Shape | None = None

    def add(self, derived: tuple[frozenset[int], list[int]]) -> None:
        """Add an operation: the steps it reads, its outputs' storages."""
        self.reads |= derived[0]
        self.outputs += derived[1]


@dataclass(slots=True)
class Frame:
    """A call of a module that has not returned."""

    module: nn.Module
    path: str
    first: int
    """Number of steps recorded before the call."""
    leaf: bool = True
    segment: Segment = field(default_factory=Segment)
    finished: bool = False
    inlined: bool = False
    """Whether submodules' parameters are read without calling them, as in TorchScript or a graph."""


@dataclass(slots=True)
class Uncounted:
    """Calls of an operation without a formula that may multiply."""

    calls: int = 0
    origins: set[int] = field(default_factory=set)
    """Initial storages of its inputs that do not depend on the image."""


@dataclass(slots=True)
class RecordedStep:
    """A step of the future plan."""

    visit: int
    """Index in `Recorder.visits`."""
    path: str
    """Path of the module below its stage."""
    op: Traced
    inputs: tuple[int, ...]
    shape: Shape


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records one run, including threads that the module starts."""

    supports_higher_order_operators = True

    def __init__(self, module: nn.Module, inputs: Inputs, batch: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.inputs, self.batch = _unwrapped(module), inputs, batch
        self.provenance = Provenance()
        self.steps: list[RecordedStep] = []
        self.visits: list[str] = []
        """Names of the children (stages) in the order they are called."""
        self.root = f"({class_name(self.module)})"  # the stage of operations of the model itself
        self.vocabulary: int | None = None
        """Size of the smallest embedding that reads an input."""
        self.uncounted: dict[str, Uncounted] = {}
        """Operation -> why it is not counted."""
        self.weights: set[frozenset[int]] = set()
        """The initial storages of each weight of a layer."""
        self.constant_macs = 0
        """MACs that do not depend on the image."""
        self.multiplies_activations = False
        """Whether two activations are multiplied, which is not a layer."""
        self.failed_in = ""
        """The module whose call raised."""
        self._input_storages: set[int] = set()
        self._paths: dict[nn.Module, str] = {}
        self._called: set[str] = set()
        """Modules, by path."""
        self._unregistered: set[nn.Module] = set()
        """Modules that were called and are not submodules."""
        self._owners: dict[int, str] = {}
        """Storage of a parameter -> path of its module."""
        self._parameters: dict[nn.Module, list[Tensor]] = {}  # by `forward`, a module may replace its own
        self._counted: dict[int, Tensor] = {}
        """Parameters, by id."""
        self._operations = 0
        self._finished = False
        self._threads: ThreadFrames[Frame] = ThreadFrames(self)
        self._lock = threading.RLock()
        self._needs_values: Exception | None = None
        """The error of an operation on a tensor without values; the model may have caught it."""
        self._unrecorded = ""
        """The first module that was called in an unrecorded thread."""

    @property
    def frames(self) -> list[Frame]:
        """Calls that run in this thread, innermost last."""
        return self._threads.stack

    def run(self, title: str) -> object:
        """Run the module once on new inputs, in evaluation; return its output.

        Raises UsageError for an output that is not computed yet or a thread that cannot be recorded, RunError for a
        forward with other parameters, ResourceError if memory does not suffice, and whatever the model raises.
        """
        module = self.module
        module.eval()  # an overridden `eval` may return None
        given = self._tensors()
        call = call_of(module.forward, self.inputs, given)
        require_accepted(module, call, title)
        self.register_modules()
        self._input_storages = {self.provenance.storage(tensor) for tensor in given}
        self.provenance.dependents |= {key: Dependent(frozenset({-1})) for key in self._input_storages}
        self._threads.local.frames = self._threads.main
        with ExitStack() as stack:
            stack.enter_context(_ONE_AT_A_TIME)
            stack.enter_context(_unfused())
            stack.enter_context(fitting(f"`{title}`", given[0].device))
            for handle in (
                register_module_forward_pre_hook(self._enter_module),
                register_module_forward_hook(self._leave_module, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.enter_context(self._threads.patch())
            stack.enter_context(self)
            output: object = module(*call[0], **call[1])
            if (lazy := next(unfinished(output), None)) is not None:
                raise UsageError(
                    f"`{title}` returns a {type(lazy).__name__}, whose tensors are not computed yet",
                    "return tensors from forward, in a tuple or list",
                )
        self._finished = True
        if self._needs_values is not None:
            raise self._needs_values
        if self._unrecorded:
            hint = "start the thread by `threading.Thread` or a `ThreadPoolExecutor` in `forward`"
            raise UsageError(f"`{title}` calls `{self._unrecorded}` in a thread that cannot be recorded", hint)
        return output

    def _tensors(self) -> list[Tensor]:
        held = [*self.module.parameters(), *self.module.buffers()]
        floating = [p for p in held if p.is_floating_point()]
        device = next((p.device for p in (*floating, *held)), torch.device("cpu"))
        dtype = floating[0].dtype if floating else torch.get_default_dtype()
        return tensors_for(self.inputs, self.batch, device, dtype, smallest_vocabulary(self.module))

    def register_modules(self) -> None:
        """Register all submodules and their parameters."""
        for path, module in self.module.named_modules():
            self._paths[module] = path
            self._parameters[module] = [p for p in module._parameters.values() if p is not None]
            for parameter in self._parameters[module]:
                if not is_lazy(parameter):
                    self._owners.setdefault(self.provenance.storage(parameter), path)

    def count_parameters(self, module: nn.Module) -> int:
        """Count the parameters of a module without its children; a shared one counts where it is first found."""
        known = {id(p): p for p in self._parameters.get(module, ()) if not is_lazy(p)}
        new = known.keys() - self._counted.keys()
        self._counted |= {key: known[key] for key in new}
        return sum(known[key].numel() for key in new)

    # --- calls of modules ----------------------------------------------------------------------------------------

    def _enter_module(self, module: nn.Module, args: object) -> None:
        with self._lock:
            recorded = self._threads.recorded
            if module not in self._paths and module not in self._unregistered and recorded:
                self._unregistered.add(module)
                known = dict(self._parameters)
                self.register_modules()  # it may be new
                self._parameters |= known
            if module not in self._paths:
                return
            if not recorded:
                self._unrecorded = self._unrecorded or self._paths[module] or self.root
                return
            if self.frames:
                self.frames[-1].leaf = False
                self._close_segment(self.frames[-1])
            inlined = isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
            self._called.add(self._paths[module])
            self.frames.append(Frame(module, self._paths[module], len(self.steps), inlined=inlined))

    def _leave_module(self, module: nn.Module, args: object, output: object) -> None:
        with self._lock:
            if self._threads.recorded and any(frame.module is module for frame in self.frames):
                self._close_call(module, output)

    def _close_call(self, module: nn.Module, output: object) -> None:
        while (frame := self.frames.pop()).module is not module:
            pass  # a call that raised never returns
        frame.finished = True
        self.failed_in = "" if output is not None else self.failed_in or frame.path or self.root
        result = next(tensors(output), None)
        if frame.leaf:
            if not isinstance(module, nn.Identity) or frame.segment.macs:
                self._close_leaf(frame, result)
            return
        self._close_segment(frame)
        source = self.provenance.dependent(result)
        own = self.count_parameters(module)
        if len(self.steps) == frame.first and not own:
            return
        last = len(self.steps) - 1
        same = last >= 0 and source is not None and source.steps == {last}
        whole = same and result is not None and result.numel() == self.steps[last].shape.elements
        if own or (source is not None and not whole):
            text = f"({source.by})" if source and source.by and not whole else "(own)"
            self._add_step(frame.path, Traced(text, own, 0, 0, 0), source.steps if source else (), _shape(result))
            if result is not None and source is not None:
                last = len(self.steps) - 1
                self.provenance.dependents[self.provenance.storage(result)] = Dependent(frozenset({last}))

    def _close_leaf(self, frame: Frame, result: Tensor | None) -> None:
        """Add one step for a call in which no other module was called."""
        segment = frame.segment
        if result is not None and (source := self.provenance.dependent(result)):
            segment.reads |= source.steps
            segment.outputs.append(self.provenance.storage(result))
        shape = _shape(result) if result is not None or segment.shape is None else segment.shape
        self._add_segment(segment, frame.path, self._layer(frame.module, segment), shape)

    def _close_segment(self, frame: Frame, owner: str = "") -> None:
        """Add a step for the products of a module itself, or of its submodule `owner` that was not called."""
        segment, frame.segment = frame.segment, Segment()
        if owner:
            module = next(module for module, path in self._paths.items() if path == owner)
            op = self._layer(module, segment)
        elif segment.macs:
            op = Traced(f"({segment.by})", 0, segment.macs, segment.elements, segment.layers)
        else:
            return
        self._add_segment(segment, owner or frame.path, op, segment.shape or Shape(0, 0, 0))

    def _layer(self, module: nn.Module, segment: Segment) -> Traced:
        own = self.count_parameters(module)
        return Traced(module_text(module), own, segment.macs, segment.elements, segment.layers)

    def _add_segment(self, segment: Segment, path: str, op: Traced, shape: Shape) -> None:
        """Add a step that computes the segment's outputs."""
        self._add_step(path, op, segment.reads, shape)
        dependents = self.provenance.dependents
        for key in segment.outputs:
            if key in dependents:
                dependents[key] = Dependent(frozenset({len(self.steps) - 1}), by=dependents[key].by)

    def _add_step(self, path: str, op: Traced, inputs: Iterable[int], shape: Shape) -> None:
        stage, _, below = path.partition(".") if path else (self.root, "", "")
        if not self.visits or self.visits[-1] != stage:
            self.visits.append(stage)
        self.steps.append(RecordedStep(len(self.visits) - 1, below, op, tuple(sorted(inputs)), shape))

    # --- operations ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._finished:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):
            return self._run_higher_order(func, args, kwargs)
        if not has_formula(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            if any(tensor.is_meta for tensor in tensors_in((args, kwargs))):
                self._needs_values = error
            raise
        with self._lock:
            self._record(func, args, kwargs, result)
        return result

    def _run_higher_order(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that takes functions, such as `cond` or `flex_attention`, and record those."""
        before = self._operations
        inner: list[Any] = []
        try:
            with self:
                result = func.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd](*args, **kwargs)
        except (KeyError, AssertionError) as error:
            if isinstance(error, AssertionError) and "ode should never be enabled" not in str(error):
                raise

            def record(argument: Any) -> Any:
                def function(*args: Any, **kwargs: Any) -> Any:
                    with self:
                        inner.append(argument(*args, **kwargs))
                    return inner[-1]

                return function if callable(argument) and not isinstance(argument, Tensor) else argument

            result = func(*map(record, args), **{key: record(value) for key, value in kwargs.items()})
        with self._lock:
            sources, origins = self.provenance.sources(tensors_in((args, kwargs, inner)))
            if self._operations == before and (sources or origins):
                self._note_uncounted(f"{func.namespace}::{func.name()}", origins)
            dependents = self.provenance.dependents
            new = [each for each in tensors_in(result) if self.provenance.storage(each) not in dependents]
            self._frame().segment.add(self.provenance.derive(new, sources, origins, max_layers(sources), func.name()))
        return result

    def _record(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        self._operations += 1
        frame, provenance = self._frame(), self.provenance
        name = func._overloadpacket.__name__
        read = tensors_in((args, kwargs))
        outputs = [*tensors_in(result), *written_tensors(func, args, kwargs)]
        provenance.read.update(map(provenance.storage, read))
        if name == "embedding" and provenance.storage(args[1]) in self._input_storages:
            self.vocabulary = min(len(args[0]), self.vocabulary or len(args[0]))
        sources, origins = provenance.sources([] if _reads_shapes(name) else read)
        product = product_of(func, args, kwargs, result)
        weights: list[frozenset[int]] = []
        if isinstance(product, Product) and sources:
            weights = provenance.weights(product.factors, frame.path)
        owner = self._owner(frame, weights or ([origins] if frame.inlined and sources else []))
        if owner:
            self._close_segment(frame)
        segment, layers = frame.segment, max_layers(sources)
        if isinstance(product, Product):
            segment.macs += product.macs
            segment.by = name.strip("_")
            if not sources or (product.factors and len(weights) == len(product.factors)):
                self.constant_macs += product.macs
            else:
                segment.elements += product.elements
                layers += self._layers(product, weights)
                segment.layers = max(segment.layers, layers)
        elif product and (sources or origins):
            self._note_uncounted(f"{func.namespace}::{name}", origins)
        if outputs and (isinstance(product, Product) or owner):
            segment.shape = shape_of(outputs[0])
        if name != "lift_fresh":
            segment.add(provenance.derive(outputs, sources, origins, layers, name.strip("_")))
        if owner:
            frame.leaf = False
            self._close_segment(frame, owner)

    def _frame(self) -> Frame:
        """The innermost call that has not returned: a thread may outlive the call it was started in."""
        return next((frame for frame in reversed(self.frames) if not frame.finished), Frame(self.module, "", 0))

    def _owner(self, frame: Frame, weights: list[frozenset[int]]) -> str:
        """The submodule whose parameters an operation reads although it was not called; empty if there is none."""
        below = f"{frame.path}." if frame.path else ""
        owners = {self._owners[key] for each in weights for key in each if key in self._owners}
        if len(owners) != 1 or not (owner := owners.pop()).startswith(below) or owner == frame.path:
            return ""
        return owner if owner not in self._called else ""

    def _layers(self, product: Product, weights: list[frozenset[int]]) -> int:
        """Number of consecutive layers in a product. A product without a weight is not a layer."""
        if product.attention or not (weights or product.convolution):
            self.multiplies_activations = self.multiplies_activations or bool(product.factors)
            return 0
        self.weights.update(weights)
        return product.layers

    def _note_uncounted(self, name: str, origins: frozenset[int]) -> None:
        uncounted = self.uncounted.setdefault(name, Uncounted())
        uncounted.calls += 1
        uncounted.origins |= origins


_ONE_AT_A_TIME = threading.RLock()
"""Held while a model runs: the patches, such as `Thread.start`, are global to the process."""


@contextmanager
def _unfused() -> Iterator[None]:
    """Context manager: disable gradients, fused attention and compiled code, which hide operations from PyTorch."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(optimized_execution(False))
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _reads_shapes(name: str) -> bool:
    """Whether an operation uses only the shape of its input."""
    return name.endswith("_like") or name.startswith("new_")


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module inside `nn.DataParallel` or a compiled module."""
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(inner := getattr(module, "_orig_mod", None), nn.Module):
            module = inner
        else:
            return module


def _shape(tensor: Tensor | None) -> Shape:
    return Shape(0, 0, 0) if tensor is None else shape_of(tensor)
