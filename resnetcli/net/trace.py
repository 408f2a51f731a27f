"""Any PyTorch model as a plan: run once without weights, each module's call a step that costs what was seen.

What is run is a copy whose tensors have shapes and no values (torch's meta device), so nothing is computed and the
model itself is never touched. A model that looks at values cannot run so; a copy with values does then.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import sys
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch._ops import HigherOrderOperator
from torch.jit._fuser import optimized_execution
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _pop_mode, _push_mode

from resnetcli.errors import UsageError, plural
from resnetcli.net.feed import Call, call_of, guesses, smallest_vocabulary, tensors_for
from resnetcli.net.guard import CodeExit, is_of_code, line_of, undisturbed
from resnetcli.net.memory import fitting
from resnetcli.net.operations import Product, has_formula, product_of, tensors_in, written
from resnetcli.ops import Input, Shape, Traced
from resnetcli.plan.plan import Plan, Step, Where
from resnetcli.spec.inputs import FORMS, Inputs, describe, first_shape, image_of, of_image


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model was seen to do."""

    plan: Plan
    notes: tuple[str, ...]
    """What one should know of the figures, a sentence each."""


def trace(module: nn.Module, input: Shape | Inputs, *, name: str, title: str) -> Trace:
    """A model's plan for one image, in evaluation; the model is left as it was, and so are all random numbers.

    Rows are its children, in the order they are called; a child that is called again later is a row again. Raises
    UsageError for a model that cannot be copied, takes other inputs than one image, or fails.
    """

    def copied() -> nn.Module:
        try:
            return copy.deepcopy(module)
        except Exception as error:
            why = "the model itself is never run, for running may change it"
            raise UsageError(f"`{title}` cannot be copied: {said(error)}", why) from None

    with undisturbed():
        return first_to_run([lambda: weightless(module), copied], input, name, title)


def first_to_run(
    attempts: Sequence[Callable[[], nn.Module]], input: Shape | Inputs, name: str, title: str, file: str = ""
) -> Trace:
    """The trace of the first model that can be constructed and run. Raises UsageError with the last one's error.

    A model that does not run on one image is run on two and on four, and counted if all figures are proportional.
    """
    inputs = of_image(input) if isinstance(input, Shape) else input
    try:
        return _first_to_run(attempts, inputs, 1, name, title, file)
    except _RunError as problem:
        with suppress(_RunError, UsageError):
            two, four = (_first_to_run(attempts, inputs, batch, name, title, file) for batch in (2, 4))
            return per_image(two, four)
        problem.hint = _hint(attempts, inputs, name, title, problem.message) or problem.hint
        raise UsageError(problem.message, problem.hint) from None


class _RunError(UsageError):
    """The model was constructed but does not run on these inputs."""


def _first_to_run(
    attempts: Sequence[Callable[[], nn.Module]], inputs: Inputs, batch: int, name: str, title: str, file: str
) -> Trace:
    problem: Exception = ValueError("no attempt")
    for make in attempts:
        recorder = None
        try:
            module = make()
            recorder = _Recorder(module, inputs, batch)
            return recorder.run(name, title)
        except UsageError as error:
            problem = error
        except BaseException as error:  # a model must not end this process
            if not is_of_code(error):
                raise
            problem = _failed(error, recorder, inputs, title, file)
    raise problem


def per_image(two: Trace, four: Trace) -> Trace:
    """Halve the cost of two images. Raises UsageError unless four images cost twice as much."""
    steps, title = [two.plan.steps[0]], two.plan.title
    if [step.path for step in two.plan.steps] != [step.path for step in four.plan.steps]:
        raise UsageError(f"`{title}` does not run on one image, and runs other layers on four than on two")
    for step, other in zip(two.plan.steps[1:], four.plan.steps[1:], strict=True):
        assert isinstance(step.op, Traced)
        assert isinstance(other.op, Traced)
        products, elements = step.op.products, step.op.elements
        if (products * 2, elements * 2) != (other.op.products, other.op.elements) or products % 2 or elements % 2:
            what = f"`{step.path}` does not cost twice as much on four as on two"
            raise UsageError(f"`{title}` does not run on one image, and {what}")
        op = dataclasses.replace(step.op, products=products // 2, elements=elements // 2)
        batched = step.shape.n * 2 == other.shape.n
        shape = dataclasses.replace(step.shape, n=step.shape.n // 2) if batched else step.shape
        steps.append(dataclasses.replace(step, op=op, shape=shape))
    plan = dataclasses.replace(two.plan, steps=tuple(steps))
    note = "does not run on one image: counted on two and halved; on four it costs twice as much"
    return Trace(plan, (note, *two.notes))


def _failed(error: BaseException, recorder: _Recorder | None, inputs: Inputs, title: str, file: str) -> UsageError:
    where = f" in `{recorder.failed}`" if recorder and recorder.failed else ""
    line = f" ({line})" if (line := line_of(error, file)) else ""
    image = image_of(inputs)
    on = f"an image of {image}" if image else f"an input of {describe(inputs)}"
    text = f"`{title}` fails on {on}{where}: {said(error)}{line}"
    if recorder is None or not isinstance(error, Exception):
        return UsageError(text)
    return _RunError(text, f"`--input` takes other sizes and kinds: {FORMS}")


def _hint(attempts: Sequence[Callable[[], nn.Module]], inputs: Inputs, name: str, title: str, problem: str) -> str:
    """An input that the model does run on, of those that its layers suggest; empty if it runs on none of them."""
    try:
        module = attempts[0]()
    except BaseException as error:
        if not is_of_code(error):
            raise
        return ""
    for guess in guesses(module, inputs, problem):
        with suppress(UsageError):
            _first_to_run(attempts[:1], guess, 1, name, title, "")
            return f"it runs on `--input {','.join(each.text for each in guess)}`"
    return ""


def said(error: BaseException) -> str:
    """`ValueError: 3 is too few`, on one line."""
    text = " ".join(str(error).split())
    if isinstance(error, CodeExit):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# --- a copy without values ---------------------------------------------------------------------------------------


def weightless(module: nn.Module) -> nn.Module:
    """A copy on the meta device: shapes and types, no values, no memory. Ties between weights are kept."""
    memo: dict[int, Any] = {id(tensor): _on_meta(tensor) for tensor in (*module.parameters(), *module.buffers())}
    with _CopiesOnMeta():
        return copy.deepcopy(module, memo)


def _on_meta(tensor: Tensor) -> Tensor:
    if is_lazy(tensor):
        kind: Any = UninitializedParameter if isinstance(tensor, UninitializedParameter) else UninitializedBuffer
        lazy: Tensor = kind(tensor.requires_grad, device="meta", dtype=tensor.dtype)
        return lazy
    bare = torch.empty_like(tensor, device="meta", requires_grad=False)
    return nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare


class _CopiesOnMeta(TorchFunctionMode):
    """`copy.deepcopy` of a tensor that the model has not registered gives one on the meta device too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _on_meta(tensor))
        if func is Tensor.clone:  # so `nn.Parameter` copies itself
            return _on_meta(args[0])
        return func(*args, **(kwargs or {}))


# --- the run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Value:
    """Where a tensor comes from that depends on the image."""

    steps: frozenset[int]
    """The steps it is computed from."""
    layers: int = 0
    """Weighted layers behind these, in the piece that is being computed."""
    by: str = ""
    """The operation that gave it."""


@dataclass(slots=True)
class _Piece:
    """Operations of one module between its children's."""

    reads: set[int] = field(default_factory=set)
    made: list[int] = field(default_factory=list)
    """Storages."""
    macs: int = 0
    elements: int = 0
    layers: int = 0
    by: str = ""
    shape: Shape | None = None


@dataclass(slots=True)
class _Frame:
    """A module's call while it lasts."""

    module: nn.Module
    path: str
    first: int
    """How many steps there were before."""
    leaf: bool = True
    piece: _Piece = field(default_factory=_Piece)
    over: bool = False
    parts: bool = False
    """Whether its submodules' parameters are read without calling them: it is TorchScript, or a graph."""


@dataclass(slots=True)
class _Unknown:
    """Calls of an operation that may multiply and has no formula."""

    calls: int = 0
    origins: set[int] = field(default_factory=set)
    """Storages it was computed from that do not depend on the image."""


@dataclass(slots=True)
class _Seen:
    """A step to be."""

    row: int
    path: str
    """Of the module below its row."""
    op: Traced
    inputs: tuple[int, ...]
    shape: Shape


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Record a module's run: calls of modules by torch's global hooks, operations by torch's dispatch.

    Both are followed into the threads that the module starts.
    """

    supports_higher_order_operators = True

    def __init__(self, module: nn.Module, inputs: Inputs, batch: int = 1) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.inputs, self.batch = _unwrapped(module), inputs, batch
        self.fed: set[int] = set()
        """Storages of the inputs."""
        self.vocabulary: int | None = None
        """Of the smallest embedding that an input goes into."""
        self.paths: dict[nn.Module, str] = {}
        self.root = f"({_kind(self.module)})"
        self.called: set[str] = set()
        """Modules, by path."""
        self.strangers: set[nn.Module] = set()
        """Called, and not the model's own as far as it says."""
        self.values: dict[int, _Value] = {}
        """By storage."""
        self.origins: dict[int, frozenset[int]] = {}
        """Of storages that do not depend on the image: what there was before that they are computed from."""
        self.sizes: dict[int, int] = {}
        """Elements of what there was before, by storage."""
        self.owners: dict[int, str] = {}
        """The module a parameter's storage belongs to."""
        self.alive: dict[int, object] = {}
        """Storages by number, kept so that no number is given to another."""
        self.read: set[int] = set()
        """Storages that an operation has read."""
        self.main: list[_Frame] = []
        self.rows: list[str] = []
        """Of each visit to a child, its name."""
        self.seen: list[_Seen] = []
        self.held: dict[nn.Module, list[Tensor]] = {}
        """A module's own parameters; while it runs others may stand in for them."""
        self.counted: dict[int, Tensor] = {}
        """Parameters, by id."""
        self.unknown: dict[str, _Unknown] = {}
        self.weights: set[frozenset[int]] = set()
        """What each weight of a layer is computed from."""
        self.operations = 0
        self.over = False
        self.constant = 0
        """Multiply-accumulates of what does not depend on the image."""
        self.attends = False
        """Whether two activations are multiplied, which is not a layer."""
        self.local = threading.local()
        self.lock = threading.RLock()
        self.valueless: Exception | None = None
        """Of an operation that needs values, on a tensor that has none: the model may have caught it."""
        self.unfollowed = ""
        """A module that was called in a thread whose operations are not seen."""
        self.failed = ""

    @property
    def frames(self) -> list[_Frame]:
        """Frames of this thread; in a thread of torch's own, of the main one."""
        frames: list[_Frame] = getattr(self.local, "frames", self.main)
        return frames

    def run(self, name: str, title: str) -> Trace:
        module = self.module
        module.eval()  # whose value is not used: somebody's own `train` may give none
        given = self._tensors()
        call = call_of(module.forward, self.inputs, given)
        _accepts(module, call, title)
        self._know_modules()
        self.fed = {self._storage(tensor) for tensor in given}
        self.values |= {key: _Value(frozenset({-1})) for key in self.fed}
        self.local.frames = self.main
        with ExitStack() as stack:
            stack.enter_context(_ONE_AT_A_TIME)
            stack.enter_context(_plainly())
            stack.enter_context(fitting(f"`{title}`", given[0].device))
            for handle in (
                register_module_forward_pre_hook(self._enter_module),
                register_module_forward_hook(self._leave_module, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.enter_context(_followed(self))
            stack.enter_context(self)
            output = module(*call[0], **call[1])
            if (lazy := next(unfinished(output), None)) is not None:
                raise UsageError(
                    f"`{title}` gives a {type(lazy).__name__}, whose tensors are not computed yet",
                    "let forward return tensors: a tuple or list of what is computed",
                )
        self.over = True
        if self.valueless is not None:
            raise self.valueless
        if self.unfollowed:
            why = "start the thread by `threading.Thread` or a `ThreadPoolExecutor` in `forward`"
            raise UsageError(f"`{title}` calls `{self.unfollowed}` in a thread that cannot be followed", why)
        return self._trace(output, name, title)

    def _tensors(self) -> list[Tensor]:
        held = [*self.module.parameters(), *self.module.buffers()]
        floating = [p for p in held if p.is_floating_point()]
        device = next((p.device for p in (*floating, *held)), torch.device("cpu"))
        dtype = floating[0].dtype if floating else torch.get_default_dtype()
        return tensors_for(self.inputs, self.batch, device, dtype, smallest_vocabulary(self.module))

    def _know_modules(self) -> None:
        """Record the modules and the parameters of each."""
        for path, module in self.module.named_modules():
            self.paths[module] = path
            self.held[module] = [p for p in module._parameters.values() if p is not None]
            for parameter in self.held[module]:
                if not is_lazy(parameter):
                    self.owners.setdefault(self._storage(parameter), path)

    # --- calls of modules ----------------------------------------------------------------------------------------

    def _enter_module(self, module: nn.Module, args: object) -> None:
        with self.lock:
            if module not in self.paths and module not in self.strangers and self.follows():
                self.strangers.add(module)
                known = dict(self.held)
                self._know_modules()  # it may have been made just now
                self.held |= known
            if module not in self.paths:
                return
            if not self.follows():
                self.unfollowed = self.unfollowed or self.paths[module] or self.root
                return
            if self.frames:
                self.frames[-1].leaf = False
                self._close_piece(self.frames[-1])
            parts = isinstance(module, torch.jit.ScriptModule | torch.fx.GraphModule)
            self.called.add(self.paths[module])
            self.frames.append(_Frame(module, self.paths[module], len(self.seen), parts=parts))

    def _leave_module(self, module: nn.Module, args: object, output: object) -> None:
        with self.lock:
            if self.follows() and any(frame.module is module for frame in self.frames):
                self._left(module, output)

    def _left(self, module: nn.Module, output: object) -> None:
        while (frame := self.frames.pop()).module is not module:
            pass  # its end was never seen: it raised
        frame.over = True
        self.failed = "" if output is not None else self.failed or frame.path or self.root
        result = next(tensors(output), None)
        if frame.leaf:
            if not isinstance(module, nn.Identity) or frame.piece.macs:
                self._leaf(frame, result)
            return
        self._close_piece(frame)
        value = None if result is None else self.values.get(self._storage(result))
        own = self._own(module)
        if len(self.seen) == frame.first and not own:
            return
        last = len(self.seen) - 1
        same = last >= 0 and value is not None and value.steps == {last}
        whole = same and result is not None and result.numel() == self.seen[last].shape.elements
        if own or (value is not None and not whole):
            text = f"({value.by})" if value and value.by and not whole else "(own)"
            shape = shape_of(result) if result is not None else Shape(0, 0, 0)
            self._step(frame.path, Traced(text, own, 0, 0, 0), value.steps if value else (), shape)
            if result is not None and value is not None:
                self.values[self._storage(result)] = _Value(frozenset({len(self.seen) - 1}))

    def _leaf(self, frame: _Frame, result: Tensor | None) -> None:
        """One step for a call in which no other module was called."""
        piece, module = frame.piece, frame.module
        if result is not None and (value := self.values.get(self._storage(result))):
            piece.reads |= value.steps
            piece.made.append(self._storage(result))
        shape = shape_of(result) if result is not None else piece.shape or Shape(0, 0, 0)
        op = Traced(_text(module), self._own(module), piece.macs, piece.elements, piece.layers)
        self._step(frame.path, op, piece.reads, shape)
        self._made(piece)

    def _close_piece(self, frame: _Frame, owner: str = "") -> None:
        """A step for what a module has multiplied itself, or what its `owner` below has done without being called."""
        piece, frame.piece = frame.piece, _Piece()
        shape = piece.shape or Shape(0, 0, 0)
        if owner:
            module = next(module for module, path in self.paths.items() if path == owner)
            op = Traced(_text(module), self._own(module), piece.macs, piece.elements, piece.layers)
        elif piece.macs:
            op = Traced(f"({piece.by})", 0, piece.macs, piece.elements, piece.layers)
        else:
            return
        self._step(owner or frame.path, op, piece.reads, shape)
        self._made(piece)

    def _made(self, piece: _Piece) -> None:
        for key in piece.made:
            if key in self.values:
                self.values[key] = _Value(frozenset({len(self.seen) - 1}), by=self.values[key].by)

    def _step(self, path: str, op: Traced, inputs: Iterable[int], shape: Shape) -> None:
        row, _, below = path.partition(".") if path else (self.root, "", "")
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
        self.seen.append(_Seen(len(self.rows) - 1, below, op, tuple(sorted(inputs)), shape))

    def _own(self, module: nn.Module) -> int:
        """A module's own parameters, those of its children left out, each counted where it is first met."""
        found = {id(p): p for p in self.held.get(module, ()) if not is_lazy(p)}
        new = found.keys() - self.counted.keys()
        self.counted |= {key: found[key] for key in new}
        return sum(found[key].numel() for key in new)

    # --- threads -------------------------------------------------------------------------------------------------

    def follows(self) -> bool:
        """Whether operations of the thread that asks are seen."""
        return hasattr(self.local, "frames")

    def following(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function whose operations are seen in whatever thread it is called, as part of the module called now.

        What one thread starts runs in the order it is started, so that rows have the same order every time.
        """
        for module in ("torch._dynamo", "torch.fx.experimental.symbolic_shapes"):
            import_module(module)  # torch does so when it first runs, and threads would wait seconds for it
        frames = [*self.frames]
        before, done = getattr(self.local, "last_started", None), threading.Event()
        self.local.last_started = done

        def followed(*args: Any, **kwargs: Any) -> Any:
            try:
                if self.follows():
                    return function(*args, **kwargs)
                if before is not None:
                    before.wait(PATIENCE)  # longer only if it waits for this one
                self.local.frames = [*frames]
                _push_mode(self)
                try:
                    with torch.no_grad():
                        return function(*args, **kwargs)
                finally:
                    _pop_mode()
                    del self.local.frames
            finally:
                done.set()

        return followed

    # --- operations ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self.over:
            return func(*args, **kwargs)
        if isinstance(func, HigherOrderOperator):
            return self._higher_order(func, args, kwargs)
        if not has_formula(func):
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        try:
            result = func(*args, **kwargs)
        except Exception as error:
            if any(tensor.is_meta for tensor in tensors_in((args, kwargs))):
                self.valueless = error
            raise
        with self.lock:
            self._operation(func, args, kwargs, result)
        return result

    def _higher_order(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run an operation that takes functions, such as `cond` or `flex_attention`, by recorded operations."""
        before = self.operations
        inner: list[Any] = []
        try:
            with self:
                result = func.py_kernels[torch._C.DispatchKey.CompositeExplicitAutograd](*args, **kwargs)
        except (KeyError, AssertionError) as error:
            if isinstance(error, AssertionError) and "ode should never be enabled" not in str(error):
                raise

            def seen(each: Any) -> Any:
                def function(*args: Any, **kwargs: Any) -> Any:
                    with self:
                        inner.append(each(*args, **kwargs))
                    return inner[-1]

                return function if callable(each) and not isinstance(each, Tensor) else each

            result = func(*map(seen, args), **{key: seen(value) for key, value in kwargs.items()})
        with self.lock:
            read = tensors_in((args, kwargs, inner))
            values, origins = self._sources(read)
            if self.operations == before and (values or origins):
                self._not_known(f"{func.namespace}::{func.name()}", origins)
            made = [each for each in tensors_in(result) if self._storage(each) not in self.values]
            self._made_by(func.name(), self._frame().piece, made, values, origins, max_layers(values))
        return result

    def _operation(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        self.operations += 1
        frame = self._frame()
        name = func._overloadpacket.__name__
        read = tensors_in((args, kwargs))
        made = [*tensors_in(result), *written(func, args, kwargs)]
        self.read.update(map(self._storage, read))
        if name == "embedding" and self._storage(args[1]) in self.fed:
            self.vocabulary = min(len(args[0]), self.vocabulary or len(args[0]))
        values, origins = self._sources([] if _reads_shapes(name) else read)
        product = product_of(func, args, kwargs, result)
        weights = self._weights(product, frame) if isinstance(product, Product) and values else []
        owner = self._owner(frame, weights or ([origins] if frame.parts and values else []))
        if owner:
            self._close_piece(frame)
        piece, layers = frame.piece, max_layers(values)
        if isinstance(product, Product):
            piece.macs += product.macs
            piece.by = name.strip("_")
            if not values or (product.factors and len(weights) == len(product.factors)):
                self.constant += product.macs
            else:
                piece.elements += product.elements
                layers += self._layers(product, weights)
                piece.layers = max(piece.layers, layers)
        elif product and (values or origins):
            self._not_known(f"{func.namespace}::{name}", origins)
        if made and (isinstance(product, Product) or owner):
            piece.shape = shape_of(made[0])
        if name != "lift_fresh":
            self._made_by(name.strip("_"), piece, made, values, origins, layers)
        if owner:
            frame.leaf = False
            self._close_piece(frame, owner)

    def _frame(self) -> _Frame:
        """Frame of the innermost running call: a thread may outlive the call it was started in."""
        return next((frame for frame in reversed(self.frames) if not frame.over), _Frame(self.module, "", 0))

    def _owner(self, frame: _Frame, weights: list[frozenset[int]]) -> str:
        """The module below a frame whose parameters an operation reads, and that is not called for it."""
        below = f"{frame.path}." if frame.path else ""
        owners = {self.owners[key] for each in weights for key in each if key in self.owners}
        if len(owners) != 1 or not (owner := owners.pop()).startswith(below) or owner == frame.path:
            return ""
        return owner if owner not in self.called else ""

    def _sources(self, read: list[Tensor]) -> tuple[list[_Value], frozenset[int]]:
        """Origins of tensors: of those that depend on the image, and of those that do not."""
        values, origins = [], set[int]()
        for tensor in read:
            key = self._storage(tensor)
            if value := self.values.get(key):
                values.append(value)
                continue
            if key not in self.origins:
                self.origins[key] = frozenset({key})
                self.sizes[key] = tensor.numel()
            origins |= self.origins[key]
        return values, frozenset(origins)

    def _made_by(
        self, by: str, piece: _Piece, made: list[Tensor], values: list[_Value], origins: frozenset[int], layers: int
    ) -> None:
        steps = frozenset[int]().union(*(value.steps for value in values))
        piece.reads |= steps
        for key in map(self._storage, made):
            if values:
                self.values[key] = _Value(steps, layers, by)
                piece.made.append(key)
            else:
                self.origins[key] = origins

    def _weights(self, product: Product, frame: _Frame) -> list[frozenset[int]]:
        """Origins of a product's factors that do not depend on the image."""
        keys = [self._weight(each, frame) for each in product.factors]
        return [self.origins[key] for key in keys if key not in self.values]

    def _layers(self, product: Product, weights: list[frozenset[int]]) -> int:
        """Number of consecutive layers in a product: those with a weight, which does not depend on the image."""
        if product.attention or not (weights or product.convolution):
            self.attends = self.attends or bool(product.factors)
            return 0
        self.weights.update(weights)
        return product.layers

    def _weight(self, factor: Any, frame: _Frame) -> int:
        """Key of a factor: its storage, or for packed weights their layer."""
        if isinstance(factor, Tensor):
            return self._storage(factor)
        weights = tensors_in(factor.unpack())
        key = hash((frame.path, *(each.shape for each in weights)))
        self.origins[key], self.sizes[key] = frozenset({key}), sum(each.numel() for each in weights)
        return key

    def _not_known(self, name: str, origins: frozenset[int]) -> None:
        unknown = self.unknown.setdefault(name, _Unknown())
        unknown.calls += 1
        unknown.origins |= origins

    def _storage(self, tensor: Tensor) -> int:
        """A number that views of one another share, and no other tensor."""
        try:
            storage = tensor.untyped_storage()
        except (NotImplementedError, RuntimeError):  # a sparse tensor has none
            self.alive[id(tensor)] = tensor
            return id(tensor)
        key = int(storage._cdata)
        if key not in self.alive:
            # its memory is freed with it, but its number is not reused
            self.alive[key] = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
        return key

    # --- what came of it -----------------------------------------------------------------------------------------

    def _trace(self, output: object, name: str, title: str) -> Trace:
        result = next(tensors(output), None)
        ends = self.values.get(self._storage(result)) if result is not None else None
        last = max(ends.steps, default=-1) if ends else len(self.seen) - 1
        notes = self._never_read()
        rows: dict[str, int] = {}
        first = first_shape(self.inputs)
        steps = [Step(Where("input"), Input(first), (), first)]
        places = {-1: 0}
        visits, names = Counter[str](), Counter[str]()
        idle = self._idle()
        for visit, row in enumerate(self.rows):
            visits[row] += 1
            row = f"{row}#{visits[row]}" if visits[row] > 1 else row
            within: list[tuple[int | None, _Seen]] = [(None, seen) for seen in idle if seen.row == visit]
            within += [(index, seen) for index, seen in enumerate(self.seen) if seen.row == visit]
            for index, seen in within:
                where = _below(Where(row), seen.path)
                kind = seen.op.text.partition(" ")[0].replace(".", "_")
                path = f"{where.path}.{kind}"
                names[path] += 1
                where = where.level(f"{kind}#{names[path]}" if names[path] > 1 else kind)
                if index is not None:
                    places[index] = len(steps)
                steps.append(Step(where, seen.op, tuple(places[i] for i in seen.inputs), seen.shape))
            rows[row] = len(steps) - 1
        plan = Plan(name, title, tuple(steps), rows, (places[last],), {}, self._bounded())
        notes += self._notes(depends=ends is not None or result is None)
        return Trace(plan, tuple(notes))

    def _bounded(self) -> Inputs:
        """The inputs with the vocabulary that was used; empty for one image."""
        if image_of(self.inputs):
            return ()
        for each in self.inputs:
            if each.bound and self.vocabulary and each.bound > self.vocabulary:
                raise UsageError(
                    f"`{each.text}` exceeds the vocabulary of an embedding, {self.vocabulary:,}",
                    f"`{dataclasses.replace(each, bound=self.vocabulary).text}`",
                )
        return tuple(
            dataclasses.replace(each, bound=each.bound or self.vocabulary) if each.kind == "tokens" else each
            for each in self.inputs
        )

    def _notes(self, *, depends: bool) -> Iterator[str]:
        there: Iterable[Any] = self.module.parameters()
        parameters = {self._storage(p): p.numel() for p in there if not is_lazy(p)}
        if not depends:
            yield "no torch operation leads from the image to the output: other computation (NumPy) is not counted"
        if self.attends:
            yield "MACs and activations include products of two activations, as in attention"
        if self.constant:
            yield f"MACs include {self.constant:,} that do not depend on the image (weights computed from weights)"
        bare = set[int]().union(*(origins for origins in self.weights if not origins & parameters.keys()))
        if bare:
            yield (
                f"layers use {plural(sum(self.sizes[key] for key in bare), 'weight')} that are not parameters, and are "
                "not counted as such: buffers, constants, packed weights, modules that are not registered"
            )
        calls = []
        for name, unknown in sorted(self.unknown.items()):
            fed = sum(parameters.get(key, 0) for key in unknown.origins)
            calls.append(f"{name} ({plural(unknown.calls, 'call')}, {plural(fed, 'parameter')})")
        if calls:
            yield f"not counted (no formula for their MACs): {', '.join(calls)}"

    def _idle(self) -> list[_Seen]:
        """Parameters of modules that were never called, in the row they belong to."""
        self._know_modules()
        found = []
        for path, module in self.module.named_modules():
            if params := self._own(module):
                row, _, below = path.partition(".") if path else (self.root, "", "")
                if row not in self.rows:
                    self.rows.append(row)
                op = Traced("(own)", params, 0, 0, 0)
                found.append(_Seen(self.rows.index(row), below, op, (), Shape(0, 0, 0)))
        return found

    def _never_read(self) -> list[str]:
        """A note if there are unused parameters."""
        names: list[str] = []
        idle: dict[int, Tensor] = {}
        for path, module in self.module.named_modules():
            if any(above == self.root or path.startswith(f"{above}.") for above in names):
                continue
            parameters: list[Any] = [*module.parameters()]
            whole = self._unread(module.named_parameters())
            if whole and len(whole) == len([p for p in parameters if not is_lazy(p)]):
                names.append(path or self.root)
                idle |= {id(p): p for p in whole.values()}
                continue
            own = self._unread(module._parameters.items())
            new = {name: p for name, p in own.items() if id(p) not in idle}
            names += [f"{path}.{name}" if path else name for name in new]
            idle |= {id(p): p for p in new.values()}
        if not names:
            return []
        total = sum(p.numel() for p in idle.values())
        named = ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")
        return [f"unused in this forward pass, their {plural(total, 'parameter')} counted: {named}"]

    def _unread(self, parameters: Iterable[tuple[str, Tensor | None]]) -> dict[str, Tensor]:
        known = [(name, p) for name, p in parameters if p is not None and not is_lazy(p)]
        return {name: p for name, p in known if self._storage(p) not in self.read}


def _below(where: Where, path: str) -> Where:
    """The place of the submodule at `path` below a child module."""
    for name in filter(None, path.split(".")):
        where = where.item_at(name)
    return where


def max_layers(values: list[_Value]) -> int:
    """Most layers on a path from the image."""
    return max((value.layers for value in values), default=0)


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


GRACE = 0.1
"""Seconds that a module waits for a thread it has just started, so that its own rows come later."""
PATIENCE = 2.0
"""Seconds that a thread waits for those started before it."""
_ONE_AT_A_TIME = threading.RLock()
"""Held while a model runs: what it patches, such as `Thread.start`, is global to the process."""


@contextmanager
def _followed(recorder: _Recorder) -> Iterator[None]:
    """Context manager: also record threads that a recorded module starts, and its jobs in thread pools."""
    start, submit = threading.Thread.start, ThreadPoolExecutor.submit
    submitting = threading.local()

    def started(thread: threading.Thread) -> None:
        if not recorder.follows() or getattr(submitting, "now", False):
            start(thread)
            return
        thread.run = recorder.following(thread.run)  # type: ignore[method-assign]
        start(thread)
        thread.join(GRACE)

    def submitted(pool: ThreadPoolExecutor, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        if not recorder.follows():
            return submit(pool, function, *args, **kwargs)
        submitting.now = True
        try:
            future = submit(pool, recorder.following(function), *args, **kwargs)
        finally:
            submitting.now = False
        wait([future], GRACE)
        return future

    threading.Thread.start, ThreadPoolExecutor.submit = started, submitted  # type: ignore[assignment, method-assign]
    try:
        yield
    finally:
        threading.Thread.start, ThreadPoolExecutor.submit = start, submit  # type: ignore[method-assign]


@contextmanager
def _plainly() -> Iterator[None]:
    """Every operation by itself: no gradients, no fused attention or compiled code, whose FLOPs torch does not know."""
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


def _accepts(module: nn.Module, call: Call, title: str) -> None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # compiled: it will say so itself
    plain, named = call
    try:
        signature.bind(*plain, **named)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        what = "one image" if len(plain) == 1 and not named else f"{len(plain) + len(named)} inputs"
        raise _RunError(
            f"`{title}` does not take {what}: {error}", f"its forward takes ({names}); `--input` takes several: {FORMS}"
        ) from None


def tensors(value: object, deep: int = 4) -> Iterator[Tensor]:
    """The tensors in what a model gives: a tensor, a tuple, a mapping, an object with attributes."""
    if isinstance(value, Tensor):
        yield value
    elif deep and isinstance(value, Mapping):
        for item in value.values():
            yield from tensors(item, deep - 1)
    elif deep and isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from tensors(item, deep - 1)
    elif deep and (dataclasses.is_dataclass(value) or hasattr(value, "__dict__")) and not isinstance(value, type):
        names = [f.name for f in dataclasses.fields(value)] if dataclasses.is_dataclass(value) else [*vars(value)]
        for name in names:
            yield from tensors(getattr(value, name, None), deep - 1)


def unfinished(value: object, deep: int = 4) -> Iterator[object]:
    """Generators, iterators and coroutines in what a model gives: what they compute is not computed yet."""
    if isinstance(value, Iterator | Awaitable) and not isinstance(value, nn.Module):
        yield value
    elif deep and isinstance(value, Mapping | list | tuple):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from unfinished(item, deep - 1)


def shape_of(tensor: Tensor) -> Shape:
    """(b, c, h, w) as c x h x w, b times; (b, c) as c x 1 x 1; further sizes are multiplied into the last."""
    sizes = [*tensor.shape] if tensor.dim() > 1 else [1, *tensor.shape]
    sizes += [1] * (4 - len(sizes))
    return Shape(sizes[1], sizes[2], math.prod(sizes[3:]), sizes[0])


def _text(module: nn.Module) -> str:
    """What a layer is, in a few words that begin with its class."""
    kind = _kind(module)
    match module:
        case nn.Conv2d():
            kernel, stride = "x".join(map(str, module.kernel_size)), module.stride[0]
            groups = f" C={module.groups}" if module.groups > 1 else ""
            return f"{kind} {kernel} {module.out_channels}{groups}{f' /{stride}' if stride > 1 else ''}"
        case nn.Linear():
            return f"{kind} {module.out_features}"
        case _:
            return kind


def _kind(module: nn.Module) -> str:
    """Class name of a module; of TorchScript, that of the original."""
    return str(module.original_name) if isinstance(module, torch.jit.ScriptModule) else type(module).__name__
