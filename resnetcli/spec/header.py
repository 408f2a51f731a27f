"""Parse the header's values: `conv:`, `residual:`, `input:`, `published:`, `expect:` and texts."""

from __future__ import annotations

import re
from decimal import Decimal

from resnetcli.errors import Problems, clean, did_you_mean, nearest
from resnetcli.frozen import frozen
from resnetcli.ops import WORDS, Activation, Norm, Shape
from resnetcli.spec.inputs import MAX_SIZE, has_channels_last, parse_image
from resnetcli.spec.lineage import entries
from resnetcli.spec.numbers import decimal, printed_figure
from resnetcli.spec.source import Map, Node, Seq, Text
from resnetcli.spec.spec import ConvStyle, Equation, Expect, Published
from resnetcli.spec.vocabulary import MAX_CHANNELS, Argument, Form, form_of

FIGURES = (
    "params", "macs", "flops", "activations", "depth", "top1_error", "top5_error", "top1_error_mean5", "top1_accuracy",
    "top5_accuracy", "mAP", "mAP@.5", "mAP@[.5,.95]", "time_per_minibatch16", "bottleneck_width_d", "group_conv_width",
)  # fmt: skip
ACCURACY = ("top", "mAP")
"""Prefixes of accuracy figures."""
FACTS = ("source", "table", "protocol", "dataset", "note", "label", "detail")
"""Keys of an entry of `published:` besides figures."""
PROTOCOLS = (
    "single-crop-224", "10-crop", "single-model-multi-crop", "detection", "test", "test-set", "test-best5",
    "test-mean5", "test-median5",
)  # fmt: skip
"""Known evaluation protocols; their numbers may differ."""
EXPECTED = ("params", "macs", "activations", "depth")
_PRINTED = re.compile(r"~?(?=[0-9.]*[1-9])([0-9]{1,15}(?:\.[0-9]{1,9})?)\s?([KMGBT]?|ms|%)")
_UNITS = (
    (("params", "macs", "flops", "activations"), "KMGBT", "a count such as 25.5M or 4.1G"),
    (("depth", "bottleneck_width_d", "group_conv_width"), "", "a whole number"),
    (("time_per_minibatch16",), ("", "ms"), "a time such as 17.9 or 17.9ms"),
    (ACCURACY, ("", "%"), "a percentage from 0 to 100, such as 22.2"),
)
"""Prefixes of figure names, the units allowed for them, and their description."""
_STYLE_WORD = re.compile(r"([a-z]\w*)(?:\(([^()]*)\))?")
_EQUATION = re.compile(r"(?:([a-z]\w*(?:\([^()]*\))?)\()?\s*(x\s*\+\s*F|F)\s*(\)?)")


def parse_protocol(text: str) -> str | None:
    """`Single crop 224` as `single-crop-224`; None for an unknown protocol."""
    name = re.sub(r"[\s_-]+", "-", text.strip().lower())
    forms = "|".join(re.sub("[0-9]+", "[1-9][0-9]{0,4}", form) for form in PROTOCOLS)
    return name if re.fullmatch(forms, name) else None


@frozen
class Header:
    """Parse a key's value; if it is invalid, add a problem and return a stand-in, so that reading continues."""

    problems: Problems

    def text(self, key: Text, node: Node) -> str:
        if not isinstance(node, Text) or not node.value.strip():
            self.problems.add(f"`{key.value}` must be text", key.at)
            return ""
        return clean(" ".join(node.value.split()))

    def texts(self, key: Text, node: Node) -> tuple[str, ...]:
        if not isinstance(node, Seq) or not all(isinstance(item, Text) and item.value.strip() for item in node.items):
            hint = f"`{key.value}: [...]`; quote a text that contains `: `"
            self.problems.add(f"`{key.value}` must be a list of texts", key.at, hint)
            return ()
        return tuple(self.text(key, item) for item in node.items)

    def classes(self, key: Text, node: Node) -> int:
        if (
            not isinstance(node, Text)
            or not re.fullmatch("[0-9]{1,8}", node.value)
            or not 0 < int(node.value) <= MAX_CHANNELS
        ):
            self.problems.add(f"`classes` must be a whole number from 1 to {MAX_CHANNELS:,}", node.at)
            return 1
        return int(node.value)

    def input(self, key: Text, node: Node) -> Shape | None:
        shape = parse_image(node.value) if isinstance(node, Text) else None
        if shape is None:
            sizes = re.findall("[0-9]{1,6}", node.value) if isinstance(node, Text) else []
            turned = len(sizes) == 3 and has_channels_last(*map(int, sizes))
            example = "x".join([sizes[2], *sizes[:2]]) if turned else "3x224x224"
            self.problems.add(f"`input` must be channels x height x width, at most {MAX_SIZE:,} per side", node.at,
                              f"for example `input: {example}`")  # fmt: skip
        return shape or Shape(3, 224, 224)

    def style(self, key: Text, node: Node) -> ConvStyle:
        text = node.value if isinstance(node, Text) and len(node.value) < 80 else ""
        parts: list[list[Norm | Activation]] = [[]]  # before the convolution, then after it
        bias = False
        for match in re.finditer(r"\S+", text):
            word = match.group()
            if word in ("conv", "conv(bias)") and len(parts) == 1:
                bias = word == "conv(bias)"
                parts.append([])
            elif op := _style_op(word):
                parts[-1].append(op)
            else:
                at = node.word(match.start(), len(word)) if isinstance(node, Text) else node.at
                twice = word.startswith("conv") and len(parts) == 2
                self.problems.add("`conv` is given twice" if twice else _style_problem(word), at, _style_hint())
                return ConvStyle()
        if len(parts) == 2:
            return ConvStyle(tuple(parts[0]), bias, tuple(parts[1]))
        self.problems.add(
            "`conv:` needs the word `conv`" if text else "`conv` must be text such as `conv bn relu`",
            node.at,
            _style_hint(),
        )
        return ConvStyle()

    def equation(self, key: Text, node: Node) -> Equation:
        text = node.value if isinstance(node, Text) else ""
        match = _EQUATION.fullmatch(text.strip())
        op = _style_op(match[1]) if match and match[1] else None
        activation = op if isinstance(op, Activation) else None
        if match is None or bool(match[1]) != bool(match[3]) or (match[1] and activation is None):
            self.problems.add(
                f"`{text}` is not a residual equation" if text else "`residual` must be an equation", node.at,
                "`relu(x + F)`, `x + F`, or `relu(F)` for a plain model",
            )  # fmt: skip
            return Equation()
        return Equation(match[2] != "F", activation)

    def published(self, key: Text, node: Node) -> tuple[Published, ...]:
        if not isinstance(node, Seq):
            self.problems.add(
                "`published` must be a list of entries", key.at, '`- {params: 25.5M, source: "...", table: ...}`'
            )
            return ()
        return tuple(figure for entry in node.items for figure in self._figures(entry))

    def _figures(self, entry: Node) -> list[Published]:
        if not isinstance(entry, Map):
            self.problems.add(
                "an entry of `published` must be a mapping", entry.at, '`{params: 25.5M, source: "...", ...}`'
            )
            return []
        facts: dict[str, str] = {"source": "", "table": ""}
        row: int | None = None
        figures: list[tuple[str, str, Decimal, Decimal]] = []
        for key, node in entry.pairs:
            if key.value == "row":
                if isinstance(node, Text) and re.fullmatch("[1-9][0-9]{0,2}", node.value):
                    row = int(node.value)
                else:
                    self.problems.add("`row` must be the row's number in the paper's table, from 1", node.at)
            elif key.value == "protocol":
                facts["protocol"] = self.protocol(key, node)
            elif key.value in FACTS:
                facts[key.value] = self.text(key, node)
            elif key.value not in FIGURES:
                hint = did_you_mean(key.value, (*FIGURES, *FACTS, "row"), f"figures are {' '.join(FIGURES)}")
                self.problems.add(f"unknown figure `{key.value}`", key.at, hint)
            elif (printed := _printed(key.value, node)) is None:
                what = next(what for names, _, what in _UNITS if key.value.startswith(names))
                self.problems.add(f"`{key.value}` must be {what}", node.at)
            else:
                figures.append((key.value, *printed))
        for fact in ("source", "table"):
            if not any(key.value == fact for key, _ in entry.pairs):
                self.problems.add(f"a published figure needs its `{fact}`", entry.at)
        for figure, _, _, _ in figures:
            if figure.startswith(ACCURACY) and not {"protocol", "dataset"} <= facts.keys():
                hint = "accuracies under different conditions are not comparable"
                self.problems.add(f"`{figure}` needs its `dataset` and `protocol`", entry.at, hint)
        return [Published(figure, text, value, last, **facts, row=row) for figure, text, value, last in figures]

    def protocol(self, key: Text, node: Node) -> str:
        name = parse_protocol(text := self.text(key, node))
        if text and name is None:
            close = nearest(re.sub(r"\s+", "-", text.lower()), PROTOCOLS)
            known = f"known: {', '.join(PROTOCOLS)}, also with other numbers; put anything else in `detail`"
            hint = f"did you mean {' or '.join(f'`{form}`' for form in close)}? {known}" if close else known
            self.problems.add(f"unknown protocol `{text}`", node.at, hint)
        return name or ""

    def expect(self, key: Text, node: Node) -> Expect | None:
        figures: dict[str, int] = {}
        sizes: tuple[int, ...] | None = None
        for name, (at, value) in entries(key, node, self.problems):
            if name == "sizes" and isinstance(value, Seq):
                texts = [item.value if isinstance(item, Text) else "" for item in value.items]
                if all(re.fullmatch("[0-9]{1,6}", text) for text in texts):
                    sizes = tuple(map(int, texts))
                    continue
            elif name in EXPECTED and isinstance(value, Text) and re.fullmatch("[0-9]{1,18}", value.value):
                figures[name] = int(value.value)
                continue
            elif name not in (*EXPECTED, "sizes"):
                self.problems.add(f"unknown figure `{name}`", at.at, f"`expect` takes {' '.join(EXPECTED)} sizes")
                continue
            what = "a list of whole numbers" if name == "sizes" else "a whole number"
            self.problems.add(f"`{name}` must be {what}", value.at)
        return Expect(figures, sizes, key.at)


def _printed(figure: str, node: Node) -> tuple[str, Decimal, Decimal] | None:
    """A figure as written, its value and one in its last digit; None if it cannot be such a figure."""
    match = _PRINTED.fullmatch(node.value) if isinstance(node, Text) else None
    units = next(units for names, units, _ in _UNITS if figure.startswith(names))
    if not isinstance(node, Text) or match is None or match[2] not in units:
        return None
    value, last = printed_figure(match[1], match[2] if match[2] not in ("ms", "%") else "")
    whole, percentage = units == "", figure.startswith(ACCURACY)
    if (whole and last != 1) or (percentage and value > 100):
        return None
    return node.value, value, last


def _style_forms() -> dict[str, Form]:
    """The words that `conv:` may have besides `conv`."""
    return {word: form for word, op in WORDS.items() if issubclass(op, Norm | Activation) and (form := form_of(word))}


def _style_problem(word: str) -> str:
    form = _style_forms().get(word.partition("(")[0])
    return f"`{word}` is not of the form `{form.usage}`" if form else f"unknown word `{word}` in `conv:`"


def _style_hint() -> str:
    activations = [form.usage for word, form in _style_forms().items() if issubclass(WORDS[word], Activation)]
    return (
        f"such as `conv bn relu`, `bn relu conv`, `conv(bias) bn relu`, `conv bn(0.001) leaky(0.1)`; "
        f"activations: {', '.join(activations)}"
    )


def _style_op(text: str) -> Norm | Activation | None:
    """A normalisation or activation as `conv:` and `residual:` name it: `bn`, `bn(0.001)`, `leaky(0.1)`."""
    match = _STYLE_WORD.fullmatch(text)
    form = _style_forms().get(match[1]) if match else None
    if match is None or form is None:
        return None
    arguments: list[int | float] = []
    if match[2] is None and form.arguments and not form.optional:
        return None
    if match[2] is not None:
        value = _argument(form.arguments[0], match[2]) if form.bracketed else None
        if value is None:
            return None
        arguments.append(value)
    op = WORDS[match[1]](*arguments)
    return op if isinstance(op, Norm | Activation) else None


def _argument(argument: Argument, text: str) -> int | float | None:
    """The value of an argument; None for a text that is not one."""
    if argument.kind == "whole":
        value = int(text) if re.fullmatch("[0-9]{1,8}", text) else 0
        return value if argument.least <= value <= argument.most else None
    number = decimal(text)
    return number if number is not None and number < argument.below else None
