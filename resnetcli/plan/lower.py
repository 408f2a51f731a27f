"""Spec -> Plan: the only code that interprets a spec.

Each rule in docs/reference/grammar.md is one method here: where a projection goes, which copy has the stride, which
activation moves behind the addition. Code that consumes a plan never reinterprets the spec.
"""

from __future__ import annotations

from collections.abc import Sequence as Many

from resnetcli.errors import At, SpecError, notice
from resnetcli.ops import (
    Activation,
    Add,
    Concat,
    Conv,
    Input,
    Linear,
    Norm,
    Op,
    PadChannels,
    Pool,
    PoolTo,
    Scale,
    Shape,
    ShapeError,
)
from resnetcli.plan import lint
from resnetcli.plan.build import MAX_STEPS, PlanBuilder, StopLowering
from resnetcli.plan.plan import Plan, Where
from resnetcli.spec.reference import Origin
from resnetcli.spec.spec import (
    Aside,
    Branches,
    Call,
    ConvLayer,
    Item,
    PoolLayer,
    Residual,
    Sequence,
    Spec,
)
from resnetcli.spec.words import body_text


def lower(spec: Spec, *, aux: bool = False) -> Plan:
    """Lower a spec to its plan, with its auxiliary heads if `aux`.

    Raises SpecError with the first problem of each stage: groups that do not divide the channels, branches of different
    shapes, a window larger than its input. Warnings are in the plan and passed to the listener.
    """
    plan = _Lowering(spec).run(aux)
    for warning in plan.warnings:
        notice(warning)
    return plan


class _Lowering(PlanBuilder):
    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.spec = spec
        self.names = _names((*spec.style.before, *spec.style.after))
        self.asides = 0
        self.ended: set[int] = set()  # steps with a warning about a missing final activation
        self.entries = 0
        self.source: int | None = None  # the input of the innermost residual block
        self.entry: int | None = None  # the same after normalisation and activation: the input of F's first convolution

    def run(self, aux: bool) -> Plan:
        spec = self.spec
        stages: dict[str, int] = {}
        outputs: list[int] = []
        try:
            x = self.emit(Input(spec.input), Where("input"), spec.input)
            for name, items in spec.stages.items():
                self.stage_failed = False
                x, _ = self.sequence(items, x, Where(name), strided=True)
                stages[name] = x
            outputs.append(x)
            for name, items in spec.aux.items() if aux else ():
                self.stage_failed = False
                y, _ = self.sequence(items, stages[name], Where(f"aux.{name}"), strided=True)
                stages[f"aux.{name}"] = y
                outputs.append(y)
        except StopLowering:
            pass
        self.problems.close()
        lint.outputs(self, spec, outputs)
        lint.vgg_without_norm(self, spec)
        warnings = tuple(self.warnings.values())
        settings = {name: value for name, value in spec.parameters.items() if name in spec.changed}
        return Plan(
            spec.name, spec.title, tuple(self.steps), stages, tuple(outputs), spec.parameters, settings,
            origin=Origin("spec", spec.name), warnings=warnings,
        )  # fmt: skip

    def apply(self, op: Op, where: Where, x: int) -> int:
        """Append an operation on the output of step x."""
        index = super().apply(op, where, x)
        lint.second_norm(self, self.spec, op, x)
        return index

    # --- items -----------------------------------------------------------------------------------------------

    def sequence(
        self, items: Many[Item], x: int, where: Where, *, strided: bool, closes: bool = False
    ) -> tuple[int, int]:
        """Lower items in sequence; returns (last step, product of the strides).

        `strided`: strides apply; `closes`: an activation follows the sum, so the last convolution has none.
        """
        closing = _closing(items) if closes else -1
        stride = 1
        for index, item in enumerate(items):
            x, factor = self.item(item, x, where.item_at(index), strided=strided, closes=index == closing)
            stride *= factor
        return x, stride

    def item(self, item: Item, x: int, where: Where, *, strided: bool, closes: bool) -> tuple[int, int]:
        """Lower an item, `x N` times: in a repeated residual, strides apply to the first copy only."""
        copies = item.times or 1
        numbered = item.times is not None or isinstance(item.what, Residual)
        stride = 1
        for copy in range(copies):
            self.entries += 1
            self.at = item.at
            if self.entries > 4 * MAX_STEPS:
                self.stop(f"the model has more than {MAX_STEPS:,} steps")
            here = where.copy_at(copy) if numbered else where
            x, factor = self.once(item, x, here, strided=strided and copy == 0, closes=closes and copy == copies - 1)
            stride *= factor
        return x, stride

    def once(self, item: Item, x: int, where: Where, *, strided: bool, closes: bool) -> tuple[int, int]:
        what = item.what
        match what:
            case ConvLayer():
                return self.conv(what, x, where, strided=strided, closes=closes)
            case PoolLayer():
                stride = what.stride if strided else 1
                lint.padded_pool(self, what, x, stride)
                return self.apply(_pool(what, stride), where.level(what.kind), x), stride
            case Residual():
                return self.residual(what, x, where, item.at, strided=strided)
            case Branches():
                return self.branches(what, x, where, item.at, strided=strided)
            case Sequence() | Call():
                return self.sequence(what.body, x, where, strided=strided, closes=closes)
            case Aside():
                source, self.source = self.source, None  # its output is discarded: no shortcut reads it
                self.asides += 1
                self.sequence(what.body, x, where.level("aside", "aside"), strided=strided)
                self.asides -= 1
                self.source = source
                return x, 1
            case Op():
                return self.operation(what, x, where), 1

    def operation(self, op: Op, x: int, where: Where) -> int:
        """Lower a layer that is one operation."""
        if isinstance(op, PoolTo | Linear):
            if self.source is None and not self.asides:
                lint.end(self, self.spec, x, self.ended)
        elif isinstance(op, Activation):
            lint.second_activation(self, op, x)
        return self.apply(op, where.level(op.name), x)

    # --- convolutions ----------------------------------------------------------------------------------------

    def conv(self, layer: ConvLayer, x: int, where: Where, *, strided: bool, closes: bool) -> tuple[int, int]:
        """Lower a convolution with the normalisation and activation of the header's `conv:`."""
        style, names = self.spec.style, self.names
        styled = layer.finish == "style"
        skipped = style.activates_first and self.active[x]  # the input is activated already
        if styled and style.activates_first:
            lint.pre_activation(self, self.spec, x, skipped=skipped)
        if styled and not skipped:
            for op, name in zip(style.before, names, strict=False):
                x = self.apply(op, where.level(name), x)
        if self.entry is None and self.activated(x, self.source):
            self.entry = x
        stride = layer.stride if strided else 1
        x = self.bare_conv(layer, x, where.level("conv"), stride, self.steps[x].shape.c)
        for op, name in zip(style.after, names[len(style.before) :], strict=True) if styled else ():
            if closes and not isinstance(op, Norm):
                continue  # replaced by the activation after the sum
            x = self.apply(op, where.level(name), x)
        return x, stride

    def bare_conv(self, layer: ConvLayer, x: int, where: Where, stride: int, channels: int) -> int:
        """Lower the convolution only; `channels` if the layer has none."""
        style = self.spec.style
        normed = any(isinstance(op, Norm) for op in (*style.before, *style.after))
        match layer.finish:
            case "style":
                bias = style.bias or not normed
            case "linear":
                bias = True
            case "bare":
                bias = False
        op = Conv(
            layer.channels or channels,
            layer.kernel,
            stride,
            _padding(layer.pad, layer.kernel, layer.dilation),
            layer.dilation,
            self.steps[x].shape.c if layer.groups == "dw" else layer.groups,
            bias,
        )
        return self.apply(op, where, x)

    # --- composites ------------------------------------------------------------------------------------------

    def residual(self, block: Residual, x: int, where: Where, at: At | None, *, strided: bool) -> tuple[int, int]:
        """Lower a residual block: F, then the shortcut, in the order of torchvision's weights."""
        equation = self.spec.equation
        activation = None if block.linear else equation.activation
        outer = self.source, self.entry
        self.source, self.entry = x, None
        y, stride = self.sequence(block.body, x, where.level("F", "F"), strided=strided, closes=activation is not None)
        entry, (self.source, self.entry) = self.entry, outer
        if self.source == x and self.entry is None:
            self.entry = entry
        self.at = at
        if block.scale is not None:
            y = self.apply(Scale(block.scale), where.level("scale"), y)
        if equation.adds:
            short = self.shortcut(x, entry, y, stride, where.level("shortcut", "shortcut"))
            y = self.join(Add(), where.level("add", "end"), (y, short), at, block)
        if activation is not None:
            y = self.apply(activation, where.level(activation.name, "end"), y)
        return y, stride

    def shortcut(self, x: int, entry: int | None, y: int, stride: int, where: Where) -> int:
        """Lower the shortcut: x itself if F has no stride and keeps the channels, else `shortcut:`."""
        spec, before, after = self.spec, self.steps[x].shape, self.steps[y].shape
        kind = spec.shortcut.kind
        if stride == 1 and before.c == after.c and kind != "project all":
            return x
        if kind == "pad":
            return self.apply(PadChannels(after.c, stride), where.level("pad"), x)
        if spec.shortcut.layers is None:
            layers: Many[Item] = (Item(ConvLayer((1, 1), stride=stride)),)
        else:
            try:
                layers = spec.shortcut.layers(stride)
            except SpecError as error:  # an expression is not whole for this stride
                first = error.problems[0]
                line = f" on line {self.at.line}" if self.at else ""
                note = f"s is {stride} in the block{line}"
                self.fail(first.message, first.at, first.hint, (*first.notes, note))
                layers = (Item(ConvLayer((1, 1), stride=stride)),)
        preactivated = bool(spec.style.before)
        projects = any(isinstance(item.what, ConvLayer) for item in layers)
        if preactivated and projects and entry is not None:
            x = entry  # the projection reads F's activated input
        for index, item in enumerate(layers):
            x = self.shortcut_layer(item, x, where.level(index), after.c, normed=not preactivated)
        return x

    def shortcut_layer(self, item: Item, x: int, where: Where, channels: int, *, normed: bool) -> int:
        match item.what:
            case ConvLayer() as layer:
                x = self.bare_conv(layer, x, where.level("conv"), layer.stride, channels)
                norm = self.spec.style.norm
                return self.apply(norm, where.level(norm.name), x) if normed and norm and layer.finish == "style" else x
            case PoolLayer(kernel=(1, 1), stride=1, kind="avg"):
                return x
            case PoolLayer() as layer:
                return self.apply(_pool(layer, layer.stride), where.level(layer.kind), x)
            case Norm() as op:
                return self.apply(op, where.level(op.name), x)
            case _:
                raise AssertionError(item)  # `read` allows no other layer

    def branches(self, what: Branches, x: int, where: Where, at: At | None, *, strided: bool) -> tuple[int, int]:
        """Lower parallel branches and join them; their strides must be equal."""
        written = what.branches * (what.of or 1)
        ends: list[int] = []
        strides: list[int] = []
        for index, branch in enumerate(written):
            end, stride = self.sequence(branch, x, where.level(f"branch{index}"), strided=strided)
            ends.append(end)
            strides.append(stride)
        self.at = at
        if len(ends) == 1:
            return ends[0], strides[0]
        op = Concat() if what.kind == "concat" else Add()
        name = "cat" if what.kind == "concat" else "add"
        y = self.join(op, where.level(name), tuple(ends), at, what)
        if len(set(strides)) > 1:
            hint = "give every branch the same stride"
            self.fail(f"branches of `{what.kind}` differ in stride: {', '.join(map(str, strides))}", at, hint)
        return y, strides[0]

    def join(
        self, op: Concat | Add, where: Where, inputs: tuple[int, ...], at: At | None, of: Branches | Residual
    ) -> int:
        """Append an operation on several inputs; `of` names them in an error."""
        shapes = tuple(self.steps[i].shape for i in inputs)
        try:
            shape = op.join(shapes)
        except ShapeError as error:
            message = error.message
            if isinstance(of, Residual):
                message, labels = "F and the shortcut cannot be added: they differ in shape", ["F", "the shortcut"]
            else:
                labels = [f"branch {i}, {_short(body_text(branch))}" for i, branch in enumerate(of.branches, start=1)]
            hint = error.hint or "give both the same channels, stride and padding"
            self.fail(message, at, hint, _sizes(labels, shapes))
            shape = error.recovered or shapes[0]
        return self.emit(op, where, shape, *inputs)


def _closing(items: Many[Item]) -> int:
    """Index of the item with F's last convolution, followed by transparent items only; -1 if there is none."""
    for index in range(len(items) - 1, -1, -1):
        if not _transparent(items[index]):
            return index if isinstance(items[index].what, ConvLayer | Sequence | Call) else -1
    return -1


def _sizes(labels: Many[str], shapes: Many[Shape], most: int = 16) -> tuple[str, ...]:
    """One line per input, in columns: `branch 1, [3x3 max]  gives  64 x 28 x 28`."""
    width, channels = max(map(len, labels)), max(len(str(shape.c)) for shape in shapes)
    lines = [
        f"{label:{width}}  gives {'' if shape.n == 1 else f'{shape.n} x '}{shape.c:>{channels}} x {shape.h} x {shape.w}"
        for label, shape in zip(labels, shapes, strict=False)
    ]
    return tuple(lines[:most]) if len(lines) <= most else (*lines[:most], f"... and {len(lines) - most} more")


def _short(text: str, most: int = 60) -> str:
    return text if len(text) <= most else f"{text[: most - 4]} ..."


def _transparent(item: Item) -> bool:
    match item.what:
        case PoolLayer() | Norm() | Aside():
            return True
        case Op() as op:
            return op.transparent
        case Sequence(body=body) | Call(body=body):
            return all(map(_transparent, body))
        case _:
            return False


def _padding(pad: int | None, kernel: tuple[int, int], dilation: int = 1) -> tuple[int, int]:
    """Padding per side: as written, or (K-1)*dil//2."""
    if pad is not None:
        return pad, pad
    return (kernel[0] - 1) * dilation // 2, (kernel[1] - 1) * dilation // 2


def _pool(layer: PoolLayer, stride: int) -> Pool:
    return Pool(layer.kind, layer.kernel, stride, _padding(layer.pad, layer.kernel), layer.ceil, layer.count_pad)


def _names(ops: Many[Norm | Activation]) -> list[str]:
    """Names of operations, numbered from the second of a kind on: `bn relu conv bn` gives `bn`, `relu`, `bn2`."""
    kinds = [op.name for op in ops]
    earlier = [kinds[:index].count(kind) for index, kind in enumerate(kinds)]
    return [f"{kind}{times + 1}" if times else kind for kind, times in zip(kinds, earlier, strict=True)]
