"""Inputs of a PyTorch model as text: `3x224x224`, `tokens:128`, `1x28x28,mask=bool:28x28`; sizes are per image."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

from resnetcli.errors import UsageError
from resnetcli.ops import MAX_ELEMENTS, Shape

Kind = Literal["float", "int", "bool", "tokens", "list"]
MOST = 16
"""Inputs of one model."""
FORMS = "`3x224x224`, `3x16x112x112`, `tokens:128`, `float:784`; several with commas, by name `mask=bool:128`"


@dataclass(frozen=True, slots=True)
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
_TENSOR = re.compile(
    rf"(?:(?P<name>[A-Za-z_]\w*)=)?(?:(?P<kind>{'|'.join(get_args(Kind))}):)?"
    r"(?P<sizes>[0-9]{1,12}(?:x[0-9]{1,12}){0,7})?(?::(?P<bound>[0-9]{1,12}))?"
)


def parse_inputs(text: str) -> Inputs:
    """Parse the inputs. Raises UsageError for any other text."""
    words = [word.strip() for word in text.split(",")]
    found = tuple(_tensor(word, text) for word in words)
    names = [each.name for each in found if each.name]
    if len(found) > MOST or len({*names}) < len(names):
        raise _not_inputs(text, f"at most {MOST} inputs, each name once")
    if any(each.name and not after.name for each, after in pairwise(found)):
        raise _not_inputs(text, "inputs without a name come first")
    return found


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


def describe(inputs: Inputs) -> str:
    """`1 x 28 x 28, mask = bool 28 x 28`."""
    return ", ".join(map(str, inputs))
