"""Items -> text: the layers in errors, tables and diagrams."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Sequence as Many
from dataclasses import MISSING, fields

from resnetcli.ops import Op, PoolTo
from resnetcli.spec.phrase import ORDER, Phrase, Word, text_of
from resnetcli.spec.spec import Aside, Branches, Call, ConvLayer, Item, Layer, PoolLayer, Residual, Sequence


def decimal_text(value: float) -> str:
    """The shortest text that reads back as the same number: `0.1`, `2`, `1e-05`."""
    return repr(value).removesuffix(".0")


def layer_text(layer: Layer) -> str:
    """The canonical phrase: `3x3 128 C=32 /2`."""
    return text_of(phrase_of(layer))


def phrase_of(layer: Layer) -> Phrase:
    """The phrase of a layer."""
    match layer:
        case ConvLayer():
            return Phrase("conv", _words(layer.kernel), _marks(
                channels=layer.channels,
                C=layer.groups if layer.groups not in (1, "dw") else None,
                dw="dw" if layer.groups == "dw" else None,
                stride=layer.stride if layer.stride > 1 else None,
                dil=layer.dilation if layer.dilation > 1 else None,
                V="V" if layer.pad == 0 else None,
                pad=layer.pad or None,
                **{layer.finish: layer.finish} if layer.finish != "style" else {},
            ))  # fmt: skip
        case PoolLayer():
            return Phrase("pool", _words(layer.kernel), _marks(
                kind="avg(pad)" if layer.count_pad else layer.kind,
                stride=layer.stride if layer.stride > 1 else None,
                V="V" if layer.pad == 0 else None,
                pad=layer.pad or None,
                ceil="ceil" if layer.ceil else None,
            ))  # fmt: skip
        case PoolTo(kind=kind, size=size):
            return Phrase("pool to", _words(size), _marks(kind=kind))
        case op:
            return Phrase(op.word, _words(_arguments(op)))


def _arguments(op: Op) -> Iterable[object]:
    """An operation's fields, without trailing ones that equal their default."""
    values = [(getattr(op, each.name), each.default) for each in fields(op)]  # type: ignore[arg-type]
    while values and values[-1][1] is not MISSING and values[-1][0] == values[-1][1]:
        values.pop()
    for value, _ in values:
        yield from value if isinstance(value, tuple) else (value,)


def _words(values: Iterable[object]) -> tuple[Word, ...]:
    return tuple(Word(decimal_text(value) if isinstance(value, float) else str(value)) for value in values)


def _marks(stride: int | None = None, **marks: object) -> tuple[tuple[str, Word], ...]:
    """The marks with a value, in canonical order."""
    values = {"/": stride, **marks}
    return tuple((key, Word(str(values[key]))) for key in ORDER if values.get(key) is not None)


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
    """An item on one line, in the grammar's flow style."""
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
    """A body or branch on one line, in brackets."""
    return f"[{', '.join(map(item_text, items))}]"
