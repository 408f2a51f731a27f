"""Items with known numbers -> the phrase they stand for: what errors, tables and diagrams call a layer."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import fields
from typing import assert_never

from resnetcli.ops import Activation
from resnetcli.spec.spec import (
    ActLayer,
    Aside,
    Branches,
    Call,
    ConvLayer,
    DropoutLayer,
    FcLayer,
    Item,
    Layer,
    LrnLayer,
    NormLayer,
    PoolLayer,
    PoolToLayer,
    PyramidLayer,
    Residual,
    RoiLayer,
    Sequence,
    SoftmaxLayer,
)


def decimal_text(value: float) -> str:
    """The shortest text that reads back as the same number: `0.1`, `2`, `1e-05`."""
    return repr(value).removesuffix(".0")


def layer_text(layer: Layer) -> str:
    """The canonical phrase: `3x3 128 C=32 /2`."""
    match layer:
        case ConvLayer():
            return " ".join(_conv_words(layer))
        case PoolLayer(kind=kind, kernel=kernel, stride=stride, pad=pad, ceil=ceil, count_pad=count_pad):
            words = [f"{kernel[0]}x{kernel[1]}", f"{kind}(pad)" if count_pad else kind]
            words += [f"/{stride}"] if stride > 1 else []
            words += _pad_words(pad)
            return " ".join([*words, "ceil"] if ceil else words)
        case PoolToLayer(kind="avg", size=(1, 1)):
            return "global avg"
        case PoolToLayer(kind=kind, size=size):
            return f"{kind} to {size[0]}x{size[1]}"
        case FcLayer(features=features):
            return f"fc {features}"
        case NormLayer(op=op):
            return "bn" if op.eps == 1e-5 else f"bn({decimal_text(op.eps)})"
        case ActLayer(op=op):
            return _activation_text(op)
        case LrnLayer(size=size, alpha=alpha, beta=beta, k=k):
            return " ".join(["lrn", str(size), *map(decimal_text, (alpha, beta, k))])
        case DropoutLayer(p=p):
            return f"dropout {decimal_text(p)}"
        case SoftmaxLayer():
            return "softmax"
        case PyramidLayer(levels=levels):
            return " ".join(map(str, ("spp", *levels)))
        case RoiLayer(size=size, maps=maps):
            return f"roi {size[0]}x{size[1]} of {maps}"
        case _:
            assert_never(layer)


def _activation_text(op: Activation) -> str:
    arguments = [decimal_text(getattr(op, each.name)) for each in fields(op)]  # type: ignore[arg-type]
    return f"{op.word}({arguments[0]})" if arguments else op.word


def _pad_words(pad: int | None) -> list[str]:
    return [] if pad is None else ["V"] if pad == 0 else [f"pad={pad}"]


def _conv_words(layer: ConvLayer) -> list[str]:
    words = [f"{layer.kernel[0]}x{layer.kernel[1]}"]
    if layer.channels is not None:
        words.append(str(layer.channels))
    if layer.groups != 1:
        words.append("dw" if layer.groups == "dw" else f"C={layer.groups}")
    if layer.stride > 1:
        words.append(f"/{layer.stride}")
    if layer.dilation > 1:
        words.append(f"dil={layer.dilation}")
    words += _pad_words(layer.pad)
    return words if layer.finish == "style" else [*words, layer.finish]


def head_text(item: Item) -> str:
    """The key of a composite, `residual 0.17 linear`, without `x N`."""
    match item.what:
        case Residual(scale=scale, linear=linear):
            return " ".join(
                ["residual", *([decimal_text(scale)] if scale is not None else []), *(["linear"] if linear else [])]
            )
        case Branches(kind=kind, of=of):
            return kind if of is None else f"{kind} of {of}"
        case Sequence():
            return "seq"
        case Aside():
            return "aside"
        case Call(block=block, args=args):
            return " ".join(map(str, (block, *args)))
        case layer:
            return layer_text(layer)


def item_text(item: Item) -> str:
    """An item on one line, as it could be written in a spec."""
    times = f" x {item.times}" if item.times is not None else ""
    head = head_text(item) + times
    match item.what:
        case Residual(body=body) | Sequence(body=body) | Aside(body=body):
            return f"{head}: {body_text(body)}"
        case Branches(branches=branches, of=of):
            inner = body_text(branches[0]) if of else f"[{', '.join(body_text(branch) for branch in branches)}]"
            return f"{head}: {inner}"
        case _:
            return head


def body_text(items: Many[Item]) -> str:
    """A body or a branch on one line, always in brackets."""
    return f"[{', '.join(map(item_text, items))}]"
