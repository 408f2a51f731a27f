"""Random tensors for a PyTorch model's inputs, and a wrapper that takes images alone and supplies the other inputs."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from resnetcli.errors import UsageError
from resnetcli.spec.inputs import FORMS, Inputs, InputTensor, image_of

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""Positional and keyword arguments."""


class RunError(UsageError):
    """The model was constructed but does not run on these inputs."""


def tensors_for(inputs: Inputs, batch: int, device: torch.device, dtype: torch.dtype, vocabulary: int) -> list[Tensor]:
    """One random tensor per input, batch first."""
    return [_tensor(each, batch, device, dtype, vocabulary) for each in inputs]


def _tensor(each: InputTensor, batch: int, device: torch.device, dtype: torch.dtype, vocabulary: int) -> Tensor:
    sizes = (batch, *each.sizes)
    if device.type == "meta":
        kinds = {"tokens": torch.int64, "int": torch.int64, "bool": torch.bool}
        return torch.empty(sizes, device=device, dtype=kinds.get(each.kind, dtype))
    match each.kind:
        case "tokens":
            return torch.randint(min(each.bound or vocabulary, vocabulary), sizes, device=device)
        case "int":
            return torch.randint(2, sizes, device=device)
        case "bool":
            return torch.ones(sizes, device=device, dtype=torch.bool)
        case _:
            return torch.rand(sizes, device=device).to(dtype)


def call_of(forward: Any, inputs: Inputs, tensors: Sequence[Tensor]) -> Call:
    """The arguments of `forward`: by position or name, or one dict if it takes a single argument of another name."""
    values = [
        list(tensor.unbind()) if each.kind == "list" else tensor for each, tensor in zip(inputs, tensors, strict=True)
    ]
    named = {each.name: value for each, value in zip(inputs, values, strict=True) if each.name}
    plain = tuple(value for each, value in zip(inputs, values, strict=True) if not each.name)
    if named and not plain and _takes_a_dict(forward, named):
        return (named,), {}
    return plain, named


def _takes_a_dict(forward: Any, names: dict[str, Any]) -> bool:
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return False
    if any(each.kind is each.VAR_KEYWORD or each.name in names for each in parameters):
        return False
    return sum(each.default is each.empty and each.kind is not each.VAR_POSITIONAL for each in parameters) == 1


def require_accepted(module: nn.Module, call: Call, title: str) -> None:
    """Raise RunError if `forward` does not take these arguments."""
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return  # compiled code has no signature
    plain, named = call
    try:
        signature.bind(*plain, **named)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        what = "one image" if len(plain) == 1 and not named else f"{len(plain) + len(named)} inputs"
        raise RunError(
            f"`{title}` does not take {what}: {error}", f"its forward takes ({names}); `--input` takes several: {FORMS}"
        ) from None


GUESSES = 48
"""Maximum number of inputs tried to find a hint."""


def guesses(module: nn.Module, inputs: Inputs, problem: str) -> Iterator[Inputs]:
    """Yield inputs the model may accept, judging by its layers, its arguments and sizes in an error message."""
    image = image_of(inputs)
    sides = [(image.h, image.w)] if image else []
    sides += [
        (size, size) for size in dict.fromkeys(map(int, re.findall(r"\b\d{1,4}\b", problem))) if 8 <= size <= 2048
    ][:4]
    candidates: dict[InputTensor, None] = {}
    for layer in module.modules():
        match layer:
            case nn.Conv2d(in_channels=channels) if channels <= 16:
                options = [InputTensor((channels, *side)) for side in (*sides, (224, 224), (32, 32), (28, 28))]
            case nn.Conv3d(in_channels=channels):
                options = [InputTensor((channels, 16, *side)) for side in (*sides, (112, 112))]
            case nn.Conv1d(in_channels=channels):
                options = [InputTensor((channels, 16000))]
            case nn.Embedding() | nn.EmbeddingBag():
                options = [InputTensor((128,), "tokens"), InputTensor((), "int")]
            case nn.Linear(in_features=features):
                options = [InputTensor((features,)), InputTensor((128, features))]
            case nn.RNNBase(input_size=features):
                options = [InputTensor((128, features))]
            case _:
                continue
        candidates |= dict.fromkeys(options)
    needed = _arguments(module.forward)
    for number, guess in enumerate(product(list(candidates)[:12], repeat=max(1, min(needed, 4)))):
        if number == GUESSES:
            return
        yield guess


def _arguments(forward: Any) -> int:
    """Number of required arguments."""
    try:
        parameters = inspect.signature(forward).parameters.values()
    except (TypeError, ValueError):
        return 1
    return sum(p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def smallest_vocabulary(module: nn.Module) -> int:
    """Size of the smallest embedding, which limits the tokens that all embeddings accept."""
    sizes = [each.num_embeddings for each in module.modules() if isinstance(each, nn.Embedding | nn.EmbeddingBag)]
    return min(sizes, default=2)


class Fed(nn.Module):
    """A wrapper that supplies a model's inputs: call it with a batch of images, or any tensor of that length.

    The images are the first input if that is a positional float tensor; all other inputs are buffers of the wrapper.
    """

    def __init__(self, model: nn.Module, inputs: Inputs, batch: int, device: torch.device) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs
        vocabulary = next((each.bound for each in inputs if each.bound), None) or smallest_vocabulary(model)
        for number, tensor in enumerate(tensors_for(inputs, max(batch, 2), device, torch.float32, vocabulary)):
            self.register_buffer(f"input{number}", tensor, persistent=False)

    def forward(self, x: Tensor) -> Any:
        tensors = [getattr(self, f"input{number}")[: len(x)] for number in range(len(self.inputs))]
        if takes_images(self.inputs):
            tensors[0] = x
        plain, named = call_of(self.model.forward, self.inputs, tensors)
        return self.model(*plain, **named)


def takes_images(inputs: Inputs) -> bool:
    """Whether the first input is a positional float tensor."""
    return inputs[0].kind == "float" and not inputs[0].name


def image_argument_sizes(inputs: Inputs) -> tuple[int, ...]:
    """The sizes of one image that a `Fed` model is called with."""
    return inputs[0].sizes if takes_images(inputs) else (1,)
