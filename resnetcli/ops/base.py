"""The interface of an operation: all that the parser, the counters, the memory model and the modules use.

Counts are exact integers for **one image** at any batch size. An operation is one class: `Op` has the defaults,
a class overrides what differs. PyTorch is imported when a module is created.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, TypeVar

from resnetcli.frozen import frozen

if TYPE_CHECKING:
    from torch import nn

MAX_ELEMENTS = 2**40
"""Upper bound on the scalars of one activation or one weight, so that no allocation is unbounded."""
INDEX_BYTES = 8
"""Max pooling stores the position of each maximum as int64."""

Place = Literal["cpu", "cuda"]


class ShapeError(Exception):
    """Shapes that an operation does not accept. `recovered` is the output shape to continue with, if there is one."""

    def __init__(
        self, message: str, *, hint: str = "", notes: tuple[str, ...] = (), recovered: Shape | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.hint, self.notes, self.recovered = message, hint, notes, recovered


@frozen
class Shape:
    """One image's feature map, without the batch: channels x height x width."""

    c: int
    h: int
    w: int
    n: int = 1
    """Feature maps per image: more than one after `roi`."""

    @property
    def elements(self) -> int:
        """n * c * h * w."""
        return self.n * self.c * self.h * self.w

    def __str__(self) -> str:
        maps = f"{self.n} x " if self.n != 1 else ""
        return f"{maps}{self.c} x {self.h} x {self.w}"


@frozen
class Sides:
    """Height and width of an image; its channels are the model's."""

    h: int
    w: int

    def of(self, channels: int) -> Shape:
        """The shape with this many channels."""
        return Shape(channels, self.h, self.w)


@frozen
class Traffic:
    """Memory traffic of one step, or summed over several."""

    read: int = 0
    """Elements of activations read for one image."""
    written: int = 0
    """Elements of activations written for one image."""
    weights: int = 0
    """Elements of parameters and running statistics read, independent of the batch size."""
    indices: int = 0
    """Positions of maxima, 8 bytes each, that max pooling writes for one image."""
    kernels: int = 0

    def read_bytes(self, batch: int, size: int) -> int:
        """Bytes read for a batch, with elements of `size` bytes."""
        return (batch * self.read + self.weights) * size

    def written_bytes(self, batch: int, size: int) -> int:
        """Bytes written for a batch, with elements of `size` bytes."""
        return batch * (self.written * size + self.indices * INDEX_BYTES)

    def bytes(self, batch: int = 1, size: int = 4) -> int:
        """Bytes read and written."""
        return self.read_bytes(batch, size) + self.written_bytes(batch, size)

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(
            self.read + other.read,
            self.written + other.written,
            self.weights + other.weights,
            self.indices + other.indices,
            self.kernels + other.kernels,
        )


NO_TRAFFIC = Traffic()


class Execution(NamedTuple):
    """Settings that determine which kernels eager PyTorch launches."""

    place: Place = "cpu"
    dtype: str = "fp32"
    channels_last: bool = False

    def reorders(self, x: Shape) -> bool:
        """Whether a feature map of this shape has another memory order than the vector of its elements (NCHW)."""
        return self.channels_last and x.c > 1 and x.h * x.w > 1


class TensorSettings(NamedTuple):
    """Settings that determine which tensors eager PyTorch allocates."""

    size: int
    """Bytes of an element."""
    place: Place
    train: bool
    adds_in_place: bool = True
    """Whether autograd sums gradients in place."""


class Saved(NamedTuple):
    """The tensors that autograd saves in the forward pass for the gradient of one operation."""

    input: bool = False
    output: bool = False
    image_bytes: int = 0
    """Bytes of other tensors per image."""
    batch_bytes: int = 0
    """Bytes of other tensors per batch."""


class Window(NamedTuple):
    """The input positions that an operation reads along one axis, repeated with period `len(firsts)` of its outputs."""

    shift: int
    """Input positions from output o to output o + period."""
    firsts: tuple[int, ...]
    lasts: tuple[int, ...]


WHOLE = Window(0, (), ())
"""The window of an operation that reads the whole axis."""


class ModuleSettings(NamedTuple):
    """Settings of a step's PyTorch module."""

    vector: bool
    """Whether the input is (b, c), not (b, c, h, w)."""
    in_place: bool
    """Whether the output may overwrite the input."""
    factory: dict[str, Any]
    """`device` and `dtype` of parameters and buffers."""


class Op:
    """An operation on one feature map: by default without parameters, same shape out, element by element."""

    __slots__ = ()

    word: ClassVar[str] = ""
    """The operation's word in the grammar and in the paths of steps. The fields of the class are its arguments."""
    kinds: ClassVar[Mapping[str, str]] = {}
    """Kinds of elements that counting tools count for it -> what they are."""
    tool_weights: ClassVar[Mapping[str, Mapping[str, int]]] = {}
    """Counting convention -> kind -> weight of an element, in addition to the convention's own weights."""
    weighted: ClassVar[bool] = False
    """Whether it adds to a model's depth, MACs and activations (Dollar et al. 2021, 2.1)."""
    transparent: ClassVar[bool] = False
    """Whether the grammar's rules ignore it: if its input is activated, so is its output."""
    needs_map: ClassVar[bool] = False
    """Whether its module reads (b, c, h, w) only; most read (b, c) as well."""
    gives_vector: ClassVar[bool] = False
    """Whether its module returns (b, c)."""
    pointwise: ClassVar[bool] = False
    """Whether a fused kernel can apply it while writing or reading another operation's tensor."""
    in_place: ClassVar[bool] = False
    """Whether its output may overwrite its input, if no other step reads that."""
    overwritable: ClassVar[bool] = False
    """Whether its output may be overwritten by the next step: a new tensor that its own gradient does not need."""

    @property
    def name(self) -> str:
        """The last part of a step's path."""
        return self.word

    @property
    def label(self) -> str:
        """The kind of operation, as the roofline analysis groups steps: `conv 3x3`, `BatchNorm`."""
        return type(self).__name__

    # --- counts

    def out(self, x: Shape) -> Shape:
        """Output shape. Raises ShapeError for an input that the operation does not accept."""
        return x

    def params(self, x: Shape) -> int:
        """Learnable scalars."""
        return 0

    def macs(self, x: Shape, y: Shape) -> int:
        """Multiply-accumulates, if convolutional or fully connected; bias not counted."""
        return 0

    def activations(self, y: Shape) -> int:
        """Output elements, if convolutional or fully connected (Dollar et al. 2021, 2.1)."""
        return y.elements if self.weighted else 0

    def depth(self) -> int:
        """Convolutional and fully connected layers on its longest path."""
        return int(self.weighted)

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Kind -> number of elements, for `kinds`."""
        return {}

    def window(self, x: Shape, axis: Literal[0, 1]) -> Window | None:
        """The positions read along the height (0) or width (1); None if each output reads its own position."""
        return None

    # --- memory

    def saved(self, x: Shape, y: Shape, settings: TensorSettings) -> Saved:
        """Tensors that autograd saves for the backward pass."""
        return Saved()

    def scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """Bytes per image that the forward pass allocates besides the output and the saved tensors."""
        return 0

    def gradient_scratch_bytes(self, x: Shape, y: Shape, settings: TensorSettings) -> int:
        """Bytes per image that the backward pass allocates besides the gradients of input and output."""
        return 0

    def buffer_bytes(self, y: Shape, size: int) -> int:
        """Bytes of the module's buffers."""
        return 0

    def is_identity(self, train: bool) -> bool:
        """Whether it returns its input without computing anything."""
        return False

    def traffic(self, x: Shape, y: Shape) -> Traffic:
        """Memory traffic in eager PyTorch on a CPU."""
        return Traffic(x.elements, y.elements, weights=self.params(x), kernels=1)

    def gpu_traffic(self, x: Shape, y: Shape, execution: Execution, *, vector: bool) -> Traffic:
        """Additional traffic on a GPU; `vector`: whether the input is (b, c)."""
        return NO_TRAFFIC

    # --- PyTorch

    def module(self, x: Shape, settings: ModuleSettings) -> nn.Module:
        """The PyTorch module. Raises ValueError if there is none."""
        raise ValueError(f"{type(self).__name__} has no PyTorch module")


class Activation(Op):
    """An element-wise nonlinearity, allowed in `conv:` and `residual:`. Its first kind counts its output elements."""

    __slots__ = ()

    pointwise = True

    def counted(self, x: Shape, y: Shape) -> Mapping[str, int]:
        """Each output element once."""
        return dict.fromkeys(list(self.kinds)[:1], y.elements)


class Norm(Op):
    """A normalisation, allowed in `conv:`."""

    __slots__ = ()


class Join(Op):
    """An operation on several feature maps."""

    __slots__ = ()

    def join(self, xs: tuple[Shape, ...]) -> Shape:
        """Output shape. Raises ShapeError for inputs that cannot be combined."""
        raise NotImplementedError


WORDS: dict[str, type[Op]] = {}
"""Word of the grammar -> its operation."""
KINDS: dict[str, str] = {}
"""Kind of element -> what it is."""
TOOL_WEIGHTS: dict[str, dict[str, int]] = {}
"""Counting convention -> kind -> weight, from the operations themselves."""

OpT = TypeVar("OpT", bound=Op)


def register(kind: type[OpT]) -> type[OpT]:
    """Class decorator: add an operation's word, kinds of elements and tool weights to the tables above."""
    if kind.word:
        WORDS[kind.word] = kind
    KINDS.update(kind.kinds)
    for convention, weights in kind.tool_weights.items():
        TOOL_WEIGHTS.setdefault(convention, {}).update(weights)
    return kind
