"""Inputs of a model: one image, `3x224x224`, or a PyTorch model's other tensors, `tokens:128`; sizes are per image."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

from resnetcli.errors import UsageError
from resnetcli.frozen import frozen
from resnetcli.ops import MAX_ELEMENTS, Shape, Sides
from resnetcli.spec.pasted import clean_cell
from resnetcli.spec.vocabulary import MAX_CHANNELS

Kind = Literal["float", "int", "bool", "tokens", "list"]
MAX_INPUTS = 16
"""Inputs of one model."""
FORMS = "`3x224x224`, `3x16x112x112`, `tokens:128`, `float:784`; several with commas, by name `mask=bool:128`"
MAX_SIZE = 16_384
"""Maximum height and width of an image."""
NARROW = 8
"""No image is higher than this many times its width."""
CHANNELS = 3
"""Default channels of an image for a PyTorch model, which does not say what it takes."""


@frozen
class InputTensor:
    """One input of a model, without the batch dimension."""

    sizes: tuple[int, ...]
    kind: Kind = "float"
    """`tokens`: whole numbers from 0 to `bound`; `int`: zeros and ones; `list`: a list with a tensor for each image."""
    name: str = ""
    """The keyword it is passed by; empty if by position."""
    bound: int | None = None
    """Vocabulary size; None: that of the embedding that reads the tokens."""

    def __str__(self) -> str:
        sizes = " x ".join(map(str, self.sizes)) or "one number"
        name = f"{self.name} = " if self.name else ""
        match self.kind:
            case "float":
                return f"{name}{sizes}"
            case "tokens":
                return f"{name}{sizes} tokens" if len(self.sizes) == 1 else f"{name}tokens {sizes}"
            case _:
                return f"{name}{self.kind} {sizes}"

    @property
    def text(self) -> str:
        """As `--input` takes it."""
        sizes = "x".join(map(str, self.sizes))
        plain = self.kind == "float" and (len(self.sizes) == 3 or (len(self.sizes) > 3 and self.sizes[0] > 1))
        kind = "" if plain else f"{self.kind}:"  # fewer sizes, or a 1 before an image's, are an image's
        return f"{f'{self.name}=' if self.name else ''}{kind}{sizes}{'' if self.bound is None else f':{self.bound}'}"


Inputs = tuple[InputTensor, ...]
Size = str | Sequence[int] | Sequence[str] | Shape | Sides | Inputs
"""An input as callers write it: `"3x224x224"`, `(3, 224, 224)`, `224`; for a PyTorch model also others, and several."""


def as_shape(size: Size | None) -> Shape | Sides | None:
    """The input of a spec: one image; without channels, the spec's are used. Raises UsageError for any other."""
    return size if size is None or isinstance(size, Shape | Sides) else _parse_image_size(_text(size))


def as_inputs(size: Size | None) -> Inputs | None:
    """The inputs of a PyTorch model. Raises UsageError for a text that is not an input or is ambiguous."""
    if size is None or (isinstance(size, tuple) and size and isinstance(size[0], InputTensor)):
        return size or None
    given = size if isinstance(size, Shape | Sides) else parse_input(_text(size))
    if isinstance(given, Sides):
        if given.h != given.w:  # `50x64` is as likely tokens x features
            sides = f"{given.h}x{given.w}"
            raise UsageError(
                f"`{sides}` of a PyTorch model may be an image's height and width, or a matrix",
                f"`--input {CHANNELS}x{sides}` is an image, `--input float:{sides}` a matrix",
            )
        given = given.of(CHANNELS)
    return of_image(given) if isinstance(given, Shape) else given


def parse_input(text: str) -> Shape | Sides | Inputs:
    """Parse an input as typed.

    An image: `3x224x224`, `(3, 224, 224)`, `1x3x224x224`, `224x224`, `224`. Other tensors: `tokens:128`, `float:784`,
    `3x16x112x112`, `mask=bool:128`, several separated by commas. Raises UsageError for any other text.
    """
    return _parse_image_size(text) if _is_image(text) else _parse_tensors(text)


def _text(size: Any) -> str:
    """`3x224x224` for (3, 224, 224), `1x8,1x8` for ("1x8", "1x8")."""
    if isinstance(size, str):
        return size
    several = any(isinstance(each, str) for each in size)
    return ",".join(map(str, size)) if several else "x".join(map(str, size))


# --- images ------------------------------------------------------------------------------------------------------

_IMAGE = re.compile(r"([0-9]{1,6})\s*[xX×]\s*([0-9]{1,6})\s*[xX×]\s*([0-9]{1,6})")


def parse_image(text: str) -> Shape | None:
    """Parse `3x224x224`; None for any other text, and for sizes out of bounds."""
    match = _IMAGE.fullmatch(clean_cell(text).text.strip())
    if match is None:
        return None
    c, h, w = (int(group) for group in match.groups())
    if has_channels_last(c, h, w):
        return None
    return Shape(c, h, w) if 0 < c <= MAX_CHANNELS and 0 < h <= MAX_SIZE and 0 < w <= MAX_SIZE else None


def has_channels_last(a: int, b: int, c: int) -> bool:
    """Whether sizes are height x width x channels, as images are often written; `64x1000x1` may be a signal."""
    return (c in (1, 3, 4) and a == b > c) or (c in (3, 4) and a >= 4 * c and b >= NARROW * c)


def _is_image(text: str) -> bool:
    """Whether a text means one image: up to three numbers, or four of which the first is 1. Also a text without digits.

    `80x3000` is height and width; `1x16000` is a signal: few channels and one size.
    """
    sizes = re.findall("[0-9]+", text)
    if not sizes:
        return True
    if not re.fullmatch(r"[0-9x×X*,()\[\]\s]*", text) or ("," in text and re.search("[x×X*]", text)):
        return False
    if len(sizes) == 2 and int(sizes[0]) <= 4 < int(sizes[1]):
        return False
    return len(sizes) <= 3 or (len(sizes) == 4 and sizes[0] == "1" and sizes[1] in ("1", "3", "4"))


def _parse_image_size(text: str) -> Shape | Sides:
    """Parse one image, with or without channels. Raises UsageError with the form to type."""
    inside = text.strip()
    if (inside[:1], inside[-1:]) in {("(", ")"), ("[", "]")}:
        inside = inside[1:-1]
    words = re.split(r"\s*[x×X*,]\s*|\s+", inside.strip())
    hint = f"channels x height x width, for example 3x224x224, or 224 alone; at most {MAX_SIZE:,} per side"
    if not all(re.fullmatch("[0-9]{1,6}", word) for word in words):
        raise UsageError(f"`{text}` is not an input size", hint)
    sizes = [int(word) for word in words]
    if len(sizes) == 4:
        images, *sizes = sizes
        if images != 1:
            size = "x".join(map(str, sizes))
            raise UsageError(
                f"`{text}` is a batch of {images}, and counts are for one image",
                f"`--input {size}`; the batch size is a separate option",
            )
    if len(sizes) == 3 and has_channels_last(sizes[0], sizes[1], sizes[2]):
        raise UsageError(f"`{text}` has the channels last", f"`--input {sizes[2]}x{sizes[0]}x{sizes[1]}`")
    if len(sizes) == 2 and sizes[0] <= 4 < sizes[1]:
        raise UsageError(f"`{text}`: channels and one side?", f"`--input {sizes[0]}x{sizes[1]}x{sizes[1]}`")
    if len(sizes) <= 2 and min(sizes) > 0 and max(sizes) <= MAX_SIZE:
        return Sides(sizes[0], sizes[-1])
    shape = parse_image("x".join(map(str, sizes)))
    if shape is None:
        raise UsageError(f"`{text}` is not an input size", hint)
    return shape


# --- other tensors -----------------------------------------------------------------------------------------------

_TENSOR = re.compile(
    rf"(?:(?P<name>[A-Za-z_]\w*)=)?(?:(?P<kind>{'|'.join(get_args(Kind))}):)?"
    r"(?P<sizes>[0-9]{1,12}(?:x[0-9]{1,12}){0,7})?(?::(?P<bound>[0-9]{1,12}))?"
)


def _parse_tensors(text: str) -> Inputs:
    words = [word.strip() for word in text.split(",")]
    tensors = tuple(_tensor(word, text) for word in words)
    names = [each.name for each in tensors if each.name]
    if len(tensors) > MAX_INPUTS or len(set(names)) < len(names):
        raise _not_inputs(text, f"at most {MAX_INPUTS} inputs, each name once")
    if any(each.name and not after.name for each, after in pairwise(tensors)):
        raise _not_inputs(text, "inputs without a name come first")
    return tensors


def _tensor(word: str, text: str) -> InputTensor:
    match = _TENSOR.fullmatch(word)
    kind: Kind = match["kind"] or "float" if match else "float"  # type: ignore[assignment]
    sizes = tuple(int(size) for size in (match["sizes"] or "").split("x") if size) if match else ()
    bound = int(match["bound"]) if match and match["bound"] else None
    bare = not sizes and (match is None or match["kind"] not in ("int", "float"))
    if match is None or bare or (bound is not None and kind != "tokens"):
        raise _not_inputs(text, f"for example {FORMS}")
    if 0 in sizes or bound == 0 or math.prod(sizes) > MAX_ELEMENTS:
        raise _not_inputs(text, f"every size is at least 1, all together at most {MAX_ELEMENTS:,} elements")
    return InputTensor(sizes, kind, match["name"] or "", bound)


def _not_inputs(text: str, hint: str) -> UsageError:
    return UsageError(f"`{text}` is not an input size", hint)


def of_image(shape: Shape) -> Inputs:
    """An image as the only input."""
    return (InputTensor((shape.c, shape.h, shape.w)),)


def image_of(inputs: Inputs) -> Shape | None:
    """The image, if that is the only input."""
    match inputs:
        case (InputTensor(sizes=(c, h, w), kind="float", name=""),):
            return Shape(c, h, w)
        case _:
            return None


def first_shape(inputs: Inputs) -> Shape:
    """The first input as c x h x w, further sizes multiplied into the last."""
    sizes = (*inputs[0].sizes, 1, 1, 1)
    return Shape(sizes[0], sizes[1], math.prod(sizes[2:]))


def describe_inputs(inputs: Inputs) -> str:
    """`1 x 28 x 28, mask = bool 28 x 28`."""
    return ", ".join(map(str, inputs))
