"""Any PyTorch model as a plan: run once without weights, each module's call a step that costs what was seen.

What is run is a copy whose tensors have shapes and no values (torch's meta device), so nothing is computed and the
model itself is never touched. A model that looks at values cannot run so; a copy with values does then.
"""

from __future__ import annotations

import copy
import dataclasses
import inspect
import math
import random
import sys
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from resnetcli.errors import UsageError, plural
from resnetcli.net.memory import fitting
from resnetcli.ops import Input, Shape, Traced
from resnetcli.plan.plan import Plan, Step

UNCOUNTED = {
    "mv", "addmv", "dot", "vdot", "addr", "cdist", "_cdist_forward", "fft_r2c", "_fft_r2c", "_fft_c2c", "_fft_c2r",
    "mkldnn_rnn_layer", "_cudnn_rnn", "_scaled_dot_product_flash_attention_for_cpu", "quantized_lstm",
}  # fmt: skip
"""Operations of torch's own that multiply and whose FLOPs it does not know; what others add is never known."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What a model was seen to do."""

    plan: Plan
    notes: tuple[str, ...]
    """What one should know of the figures, a sentence each."""


def trace(module: nn.Module, input: Shape, *, name: str, title: str) -> Trace:
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
    attempts: Iterable[Callable[[], nn.Module]], input: Shape, name: str, title: str, file: str = ""
) -> Trace:
    """The trace of the first model that can be made and run. Raises UsageError with what became of the last."""
    problem: Exception = ValueError("no attempt")
    for make in attempts:
        recorder = None
        try:
            module = make()
            recorder = _Recorder(module, input)
            return recorder.run(name, title)
        except UsageError as error:
            problem = error
        except (Exception, SystemExit) as error:  # a model may not end whoever counts it
            problem = _failed(error, recorder, input, title, file)
    raise problem


def _failed(error: BaseException, recorder: _Recorder | None, input: Shape, title: str, file: str) -> UsageError:
    where = f" in `{recorder.failed}`" if recorder and recorder.failed else ""
    line = f" ({line})" if (line := line_of(error, file)) else ""
    return UsageError(
        f"`{title}` fails on an image of {input}{where}: {said(error)}{line}",
        "another size is `--input CxHxW`; a model is counted for one image, given as the only argument",
    )


def said(error: BaseException) -> str:
    """`ValueError: 3 is too few`, on one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def line_of(error: BaseException, file: str) -> str:
    """Where in a file an error came up, `net.py:12`; empty if it is not from there."""
    found, step = "", error.__traceback__
    while step is not None:
        if file and step.tb_frame.f_code.co_filename == file:
            found = f"{file}:{step.tb_lineno}"
        step = step.tb_next
    return found


@contextmanager
def undisturbed() -> Iterator[None]:
    """For others' code: random numbers the same every time and afterwards as before, what it prints on stderr."""
    numpy = sys.modules.get("numpy")
    before = random.getstate(), torch.get_rng_state(), torch.get_default_dtype(), torch.is_grad_enabled()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    arrays = numpy.random.get_state() if numpy else None
    random.seed(0)
    torch.default_generator.manual_seed(0)
    if numpy:
        numpy.random.seed(0)
    try:
        with redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(before[0])
        torch.set_rng_state(before[1])
        torch.set_default_dtype(before[2])
        torch.set_grad_enabled(before[3])
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        if numpy:
            numpy.random.set_state(arrays)


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
    """`copy.deepcopy` of a tensor that is neither parameter nor buffer gives one on the meta device too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.__deepcopy__:
            tensor, memo = args
            return memo.setdefault(id(tensor), _on_meta(tensor))
        return func(*args, **(kwargs or {}))


# --- the run -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Value:
    """Where a tensor comes from that the image has gone into."""

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
    """Watches a module run: its modules' calls by torch's hooks for all modules, operations by torch's dispatch."""

    def __init__(self, module: nn.Module, input: Shape) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.module, self.input = module, input
        self.paths = {each: path for path, each in module.named_modules()}
        self.root = f"({type(module).__name__})"
        self.values: dict[int, _Value] = {}
        self.weights: set[int] = set()
        """Storages of parameters, and of what is computed from these alone."""
        self.read: set[int] = set()
        """Storages that an operation has read."""
        self.frames: list[_Frame] = []
        self.rows: list[str] = []
        """Of each visit to a child, its name."""
        self.seen: list[_Seen] = []
        self.counted: set[int] = set()
        """Parameters, by id."""
        self.uncounted: set[str] = set()
        self.attends = False
        """Whether values are multiplied with values, which is no convolution and no fully connected layer."""
        self.thread = threading.get_ident()
        self.failed = ""

    def run(self, name: str, title: str) -> Trace:
        module = self.module
        module.eval()  # whose value is not used: somebody's own `train` may give none
        image = self._image()
        _accepts_one_image(module, image, title)
        parameters: Iterable[Any] = module.parameters()
        self.weights = {_storage(parameter) for parameter in parameters if not is_lazy(parameter)}
        self.values[_storage(image)] = _Value(frozenset({-1}))
        with ExitStack() as stack:
            stack.enter_context(_plainly())
            stack.enter_context(fitting(f"`{title}`", image.device))
            for handle in (
                register_module_forward_pre_hook(self._enter_module),
                register_module_forward_hook(self._leave_module, always_call=True),
            ):
                stack.callback(handle.remove)
            stack.enter_context(self)
            output = module(image)
        return self._trace(output, name, title)

    def _image(self) -> Tensor:
        floating = [p for p in self.module.parameters() if p.is_floating_point()]
        device = floating[0].device if floating else torch.device("cpu")
        dtype = floating[0].dtype if floating else torch.get_default_dtype()
        x = self.input
        if device.type == "meta" or not floating:
            return torch.empty(1, x.c, x.h, x.w, device=device, dtype=dtype).fill_(0.5)
        return torch.rand(1, x.c, x.h, x.w, device=device).to(dtype)

    # --- calls of modules ----------------------------------------------------------------------------------------

    def _enter_module(self, module: nn.Module, args: object) -> None:
        if module not in self.paths or threading.get_ident() != self.thread:
            return
        if self.frames:
            self.frames[-1].leaf = False
            self._close_piece(self.frames[-1])
        self.frames.append(_Frame(module, self.paths[module], len(self.seen)))

    def _leave_module(self, module: nn.Module, args: object, output: object) -> None:
        if not any(frame.module is module for frame in self.frames) or threading.get_ident() != self.thread:
            return
        while (frame := self.frames.pop()).module is not module:
            pass  # its end was never seen: it raised
        self.failed = "" if output is not None else self.failed or frame.path or self.root
        result = next(tensors(output), None)
        if frame.leaf:
            if not isinstance(module, nn.Identity) or frame.piece.macs:
                self._leaf(frame, result)
            return
        self._close_piece(frame)
        value = None if result is None else self.values.get(_storage(result))
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
                self.values[_storage(result)] = _Value(frozenset({len(self.seen) - 1}))

    def _leaf(self, frame: _Frame, result: Tensor | None) -> None:
        """One step for a call in which no other module was called."""
        piece, module = frame.piece, frame.module
        if result is not None and (value := self.values.get(_storage(result))):
            piece.reads |= value.steps
            piece.made.append(_storage(result))
        shape = shape_of(result) if result is not None else piece.shape or Shape(0, 0, 0)
        op = Traced(_text(module), self._own(module), piece.macs, piece.elements, piece.layers)
        self._step(frame.path, op, piece.reads, shape)
        self._made(piece)

    def _close_piece(self, frame: _Frame) -> None:
        """A step for what a module has multiplied itself, not its children."""
        piece, frame.piece = frame.piece, _Piece()
        if piece.macs:
            op = Traced(f"({piece.by})", 0, piece.macs, piece.elements, piece.layers)
            self._step(frame.path, op, piece.reads, piece.shape or Shape(0, 0, 0))
            self._made(piece)

    def _made(self, piece: _Piece) -> None:
        for key in piece.made:
            if key not in self.values:
                continue  # gone, and its number another's
            self.values[key] = _Value(frozenset({len(self.seen) - 1}), by=self.values[key].by)

    def _step(self, path: str, op: Traced, inputs: Iterable[int], shape: Shape) -> None:
        row, _, below = path.partition(".") if path else (self.root, "", "")
        if not self.rows or self.rows[-1] != row:
            self.rows.append(row)
        self.seen.append(_Seen(len(self.rows) - 1, below, op, tuple(sorted(inputs)), shape))

    def _own(self, module: nn.Module) -> int:
        """A module's own parameters, those of its children left out, each counted where it is first met."""
        found = {id(p): p for p in module._parameters.values() if p is not None and not is_lazy(p)}
        new = found.keys() - self.counted
        self.counted |= new
        return sum(found[key].numel() for key in new)

    # --- operations ----------------------------------------------------------------------------------------------

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        packet = func._overloadpacket
        if packet not in flop_registry:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if threading.get_ident() == self.thread:
            self._operation(func, packet, args, kwargs, result)
        return result

    def _operation(self, func: Any, packet: Any, args: Any, kwargs: Any, result: Any) -> None:
        piece = self.frames[-1].piece if self.frames else _Piece()
        by = packet.__name__.strip("_")
        read = [_storage(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        made += [arg for arg, known in zip(args, func._schema.arguments, strict=False)
                 if known.is_write and isinstance(arg, Tensor)]  # fmt: skip
        self.read.update(read)
        values = [self.values[key] for key in read if key in self.values]
        of_weights = any(key in self.weights for key in read)
        layers = max((value.layers for value in values), default=0)
        if packet in flop_registry and made:
            macs = flop_registry[packet](*args, **kwargs, out_val=result) // 2
            piece.macs += macs
            piece.elements += made[0].numel()
            piece.by, piece.shape = by, shape_of(made[0])
            layered = of_weights or "convolution" in by
            self.attends |= not layered
            layers += bool(values) and layered
            piece.layers = max(piece.layers, layers)
        elif values and (func.namespace not in {"aten", "prim", "prims"} or packet.__name__ in UNCOUNTED):
            self.uncounted.add(f"{func.namespace}::{packet.__name__}")
        if values and by != "lift_fresh":
            steps = frozenset().union(*(value.steps for value in values))
            piece.reads |= steps
            for tensor in made:
                self.values[_storage(tensor)] = _Value(steps, layers, by)
                piece.made.append(_storage(tensor))
            return
        for tensor in made:  # a storage's number may have been another's that is gone
            key = _storage(tensor)
            self.values.pop(key, None)
            (self.weights.add if of_weights else self.weights.discard)(key)

    # --- what came of it -----------------------------------------------------------------------------------------

    def _trace(self, output: object, name: str, title: str) -> Trace:
        result = next(tensors(output), None)
        ends = self.values.get(_storage(result)) if result is not None else None
        last = max(ends.steps, default=-1) if ends else len(self.seen) - 1
        notes = self._never_read()
        rows: dict[str, int] = {}
        steps = [Step("input", Input(self.input), (), self.input)]
        places = {-1: 0}
        visits, names = Counter[str](), Counter[str]()
        idle = self._idle()
        for visit, row in enumerate(self.rows):
            visits[row] += 1
            row = f"{row}#{visits[row]}" if visits[row] > 1 else row
            within: list[tuple[int | None, _Seen]] = [(None, seen) for seen in idle if seen.row == visit]
            within += [(index, seen) for index, seen in enumerate(self.seen) if seen.row == visit]
            for index, seen in within:
                path = ".".join(filter(None, (row, seen.path, seen.op.text.partition(" ")[0].replace(".", "_"))))
                names[path] += 1
                path = f"{path}#{names[path]}" if names[path] > 1 else path
                if index is not None:
                    places[index] = len(steps)
                steps.append(Step(path, seen.op, tuple(places[i] for i in seen.inputs), seen.shape))
            rows[row] = len(steps) - 1
        plan = Plan(name, title, tuple(steps), rows, (places[last],), {})
        if self.attends:
            notes.append("MACs and activations include products of values with values, as in attention")
        if self.uncounted:
            notes.append(f"not counted, for torch does not know their FLOPs: {', '.join(sorted(self.uncounted))}")
        return Trace(plan, tuple(notes))

    def _idle(self) -> list[_Seen]:
        """Parameters of modules that were never called, in the row they belong to."""
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
        """A sentence if there are modules whose parameters took no part."""
        found: dict[str, int] = {}
        for path, module in self.module.named_modules():
            if any(path.startswith(f"{above}.") for above in found):
                continue
            parameters = [p for p in module.parameters() if not is_lazy(p)]
            if parameters and not any(_storage(p) in self.read for p in parameters):
                found[path or self.root] = sum(p.numel() for p in parameters)
        if not found:
            return []
        names = ", ".join([*found][:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        return [f"took no part, their {plural(sum(found.values()), 'parameter')} counted: {names}"]


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
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _accepts_one_image(module: nn.Module, image: Tensor, title: str) -> None:
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # compiled: it will say so itself
    try:
        signature.bind(image)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise UsageError(
            f"`{title}` does not take one image: {error}", f"its forward takes ({names}); wrap it in a module that does"
        ) from None


def _storage(tensor: Tensor) -> int:
    """What views of one another share."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # a sparse tensor has none
        return id(tensor)


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


def shape_of(tensor: Tensor) -> Shape:
    """(b, c, h, w) as c x h x w, b times; (b, c) as c x 1 x 1; further sizes are multiplied into the last."""
    sizes = [*tensor.shape] if tensor.dim() > 1 else [1, *tensor.shape]
    sizes += [1] * (4 - len(sizes))
    return Shape(sizes[1], sizes[2], math.prod(sizes[3:]), sizes[0])


def _text(module: nn.Module) -> str:
    """What a layer is, in a few words that begin with its class."""
    kind = type(module).__name__
    match module:
        case nn.Conv2d():
            kernel, stride = "x".join(map(str, module.kernel_size)), module.stride[0]
            groups = f" C={module.groups}" if module.groups > 1 else ""
            return f"{kind} {kernel} {module.out_channels}{groups}{f' /{stride}' if stride > 1 else ''}"
        case nn.Linear():
            return f"{kind} {module.out_features}"
        case _:
            return kind
