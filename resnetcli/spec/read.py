"""Nodes -> Spec: `extends`, `let` and blocks resolved, every error of a file collected before any is raised."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from resnetcli.errors import At, Problems, Source, UsageError, clean, did_you_mean
from resnetcli.ops import BatchNorm, LeakyReLU, PReLU, ReLU, Shape
from resnetcli.spec.bind import MAX_CHANNELS, Binder, Block, is_name
from resnetcli.spec.numbers import MAX_VALUE, NumberError, decimal, evaluate, names_in
from resnetcli.spec.phrase import RESERVED, PhraseError, parse_cell, parse_head
from resnetcli.spec.source import Map, Node, Seq, Text, parse
from resnetcli.spec.spec import (
    ActLayer,
    ConvLayer,
    ConvStyle,
    Equation,
    Expect,
    Item,
    NormLayer,
    PoolLayer,
    Published,
    Shortcut,
    Spec,
)
from resnetcli.spec.zoo import SUFFIXES, Zoo, is_path

KEYS = (
    "name", "cite", "input", "classes", "conv", "residual", "shortcut", "let", "blocks", "extends", "aux", "table",
    "published", "expect",
)  # fmt: skip
NOT_INHERITED = ("name", "cite", "published", "expect", "extends")
BY_NAME = ("let", "blocks", "table")
FIGURES = (
    "params", "macs", "flops", "activations", "depth", "top1_error", "top5_error", "top1_error_mean5", "mAP", "mAP@.5",
    "mAP@[.5,.95]", "time_per_minibatch16", "bottleneck_width_d", "group_conv_width",
)  # fmt: skip
FACTS = ("source", "table", "protocol", "dataset", "note", "label", "detail")
"""What an entry of `published:` says of its figures."""
EXPECTED = ("params", "macs", "activations", "depth")
MAX_EXTENDS = 16
MAX_ENTRIES = 512
"""Of a table, of `let:`, of `blocks:`."""
MAX_SHORTCUT = 16
"""Layers of a shortcut."""
MAX_SIZE = 16_384
"""Height and width of an image."""

ROW = re.compile(r"[A-Za-z0-9][A-Za-z0-9_]*")
# What torch.nn.Module has already, so that no submodule can be called by it (a test holds this against torch).
MODULE_WORDS = frozenset(
    [
        "T_destination",
        "add_module",
        "apply",
        "aux",
        "bfloat16",
        "buffers",
        "call_super_init",
        "children",
        "compile",
        "cpu",
        "cuda",
        "double",
        "dump_patches",
        "eval",
        "extra_repr",
        "float",
        "forward",
        "get_buffer",
        "get_extra_state",
        "get_parameter",
        "get_submodule",
        "half",
        "ipu",
        "load_state_dict",
        "modules",
        "mtia",
        "named_buffers",
        "named_children",
        "named_modules",
        "named_parameters",
        "parameters",
        "register_backward_hook",
        "register_buffer",
        "register_forward_hook",
        "register_forward_pre_hook",
        "register_full_backward_hook",
        "register_full_backward_pre_hook",
        "register_load_state_dict_post_hook",
        "register_load_state_dict_pre_hook",
        "register_module",
        "register_parameter",
        "register_state_dict_post_hook",
        "register_state_dict_pre_hook",
        "requires_grad_",
        "set_extra_state",
        "set_submodule",
        "share_memory",
        "state_dict",
        "to",
        "to_empty",
        "train",
        "training",
        "type",
        "xpu",
        "zero_grad",
    ]
)
T = TypeVar("T")
_PRINTED = re.compile(r"~?([0-9]+(?:\.[0-9]+)?)\s?([KMGBT]?)(?:ms|%)?")
_UNIT = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "B": 10**9, "T": 10**12}
_INPUT = re.compile(r"([0-9]{1,6})[x×]([0-9]{1,6})[x×]([0-9]{1,6})")
_CONV_WORD = re.compile(r"conv(\(bias\))?|bn(\(([^()]*)\))?|relu|prelu|leaky\(([^()]*)\)")
_EQUATION = re.compile(r"(?:(relu|prelu|leaky\([^()]*\))\()?\s*(x\s*\+\s*F|F)\s*(\)?)")


def parse_input(text: str) -> Shape | None:
    """`3x224x224` as a shape; None if it is none, or one out of bounds."""
    match = _INPUT.fullmatch(text.strip())
    if match is None:
        return None
    c, h, w = (int(group) for group in match.groups())
    if c == h > w and w in (1, 3, 4):
        return None  # height x width x channels, as images are often written
    return Shape(c, h, w) if 0 < c <= MAX_CHANNELS and 0 < h <= MAX_SIZE and 0 < w <= MAX_SIZE else None


def read(
    reference: str | Source, *, zoo: Zoo, input: Shape | None = None, parameters: Mapping[str, int] | None = None
) -> Spec:
    """The spec of a model: a name in the zoo, a path to a YAML file, or a text.

    Raises UsageError for an unknown model, file or parameter; SpecError with every problem of what is written.
    """
    if isinstance(reference, Source):
        document = _Document(reference, parse(reference))
        name = Path(reference.path or reference.label).stem
    else:
        path = zoo.find(reference)
        document = _Document(*zoo.parsed(path, reference if is_path(reference) else _label(path, zoo)))
        name = path.stem
    return _Reader(zoo, document, name).read(input, dict(parameters or {}))


def _label(path: Path, zoo: Zoo) -> str:
    return f"specs/{path.relative_to(zoo.root)}"


@dataclass(frozen=True, slots=True)
class _Document:
    """One file of a lineage."""

    source: Source
    root: Map


@dataclass
class _Merged:
    """What a lineage comes to: the nearest file's word counts."""

    keys: dict[str, tuple[Text, Node]] = field(default_factory=dict)
    let: dict[str, tuple[Text, Node]] = field(default_factory=dict)
    blocks: dict[str, tuple[Text, Node]] = field(default_factory=dict)
    table: dict[str, tuple[Text, Node]] = field(default_factory=dict)
    aux: dict[str, tuple[Text, Node]] = field(default_factory=dict)


class _Reader:
    def __init__(self, zoo: Zoo, document: _Document, name: str) -> None:
        self.zoo, self.name = zoo, name
        self.problems = Problems()
        self.document = document

    # --- lineage ---------------------------------------------------------------------------------------------

    def lineage(self) -> list[tuple[str, _Document]]:
        """The file and those it extends, nearest first, with the name each was asked for by."""
        found = [(self.name, self.document)]
        seen = {_identity(self.document.source)}
        while (node := found[-1][1].root.get("extends")) is not None:
            source = found[-1][1].source
            if not isinstance(node, Text) or not node.value:
                self.problems.add("`extends` names one spec", node.at, "a name in the zoo, or a path to a YAML file")
                break
            if is_path(node.value) and not node.value.endswith(SUFFIXES):
                self.problems.add("`extends` names a spec", node.at, "a name in the zoo, or a file that ends in .yaml")
                break
            base = Path(source.path).parent if source.path else None
            try:
                path = self.zoo.find(node.value, base)
                parent = _Document(*self.zoo.parsed(path, None if is_path(node.value) else _label(path, self.zoo)))
            except UsageError as error:
                self.problems.add(error.message, node.at, error.hint)
                break
            if _identity(parent.source) in seen:
                chain = " -> ".join([*(name for name, _ in found), path.stem])
                self.problems.add(f"`extends` goes in a circle: {chain}", node.at)
                break
            seen.add(_identity(parent.source))
            found.append((path.stem, parent))
            if len(found) > MAX_EXTENDS:
                self.problems.add(f"`extends` goes more than {MAX_EXTENDS} deep", node.at)
                break
        return found

    def merge(self, lineage: list[_Document]) -> _Merged:
        """Rows, `let` entries and blocks are replaced by name, every other key as a whole."""
        merged = _Merged()
        for depth, document in enumerate(reversed(lineage)):
            for key, node in sorted(document.root.pairs, key=lambda pair: pair[0].value == "aux"):  # after the rows
                if key.value not in KEYS:
                    self.problems.add(
                        f"unknown key `{key.value}`",
                        key.at,
                        did_you_mean(key.value, KEYS, f"the keys are {' '.join(KEYS)}"),
                    )
                elif key.value in BY_NAME:
                    self._by_name(merged, key, node, child=depth > 0)
                elif key.value == "aux":
                    merged.aux = dict(self._entries(key, node))
                elif key.value not in NOT_INHERITED or document is lineage[0]:
                    merged.keys[key.value] = key, node
        return merged

    def _entries(self, key: Text, node: Node) -> list[tuple[str, tuple[Text, Node]]]:
        if not isinstance(node, Map) or not node.pairs:
            what = "an empty value" if isinstance(node, Text) and not node.value else f"`{key.value}` is a mapping"
            self.problems.add(what, node.at if not isinstance(node, Text) or node.value else key.at,
                              f"`{key.value}:` holds `name: value` entries")  # fmt: skip
            return []
        if len(node.pairs) > MAX_ENTRIES:
            self.problems.add(f"`{key.value}` has {len(node.pairs):,} entries, at most {MAX_ENTRIES} are read", key.at)
        return [(name.value, (name, value)) for name, value in node.pairs[:MAX_ENTRIES]]

    def _by_name(self, merged: _Merged, key: Text, node: Node, *, child: bool) -> None:
        into = {"let": merged.let, "blocks": merged.blocks, "table": merged.table}[key.value]
        if key.value == "let":
            merged.let = _let_into(into, self._entries(key, node))
            return
        for name, (at, value) in self._entries(key, node):
            if key.value == "blocks":
                name = name.split()[0] if name.split() else ""
            if key.value == "table":
                if not self._row_name(at):
                    continue
                if child and name not in into:
                    self.problems.add(
                        f"row `{name}` is not in the spec this one extends", at.at,
                        did_you_mean(name, into, f"its rows are {' '.join(into)}; a child adds none"),
                    )  # fmt: skip
                    continue
                if isinstance(value, Text) and value.value == "null" and value.plain:
                    if not child:
                        self.problems.add("nothing to drop: `null` drops an inherited row", value.at)
                    into.pop(name, None)
                    merged.aux.pop(name, None)
                    continue
            into[name] = at, value

    def _row_name(self, name: Text) -> bool:
        if not ROW.fullmatch(name.value) or len(name.value) > 60:
            self.problems.add(
                f"`{name.value}` cannot name a row", name.at, "a letter or digit, then letters, digits and _: `conv2_x`"
            )
            return False
        if name.value == "total":
            self.problems.add("`total` cannot name a row: it is what the last line of a table is called", name.at)
            return False
        if name.value in MODULE_WORDS:
            self.problems.add(
                f"`{name.value}` cannot name a row: every torch module has an attribute of that name", name.at,
                f"for example `{name.value}_`",
            )  # fmt: skip
            return False
        return True

    # --- the whole -------------------------------------------------------------------------------------------

    def read(self, input: Shape | None, settings: dict[str, int]) -> Spec:
        lineage = self.lineage()
        self.problems.close()  # without what it starts from, the rest cannot be judged
        merged = self.merge([document for _, document in lineage])
        defaults = self._numbers(merged)
        _check_settings(self.name, settings, defaults)
        parameters = {**defaults, **settings}
        names = self._let(merged, parameters)
        binder = Binder(self.problems, self._blocks(merged))
        style = self._header(merged, "conv", self._style, ConvStyle(after=(BatchNorm(), ReLU())))
        equation = self._header(merged, "residual", self._equation, Equation(activation=ReLU()))
        shortcut = Shortcut()
        if "shortcut" in merged.keys:
            shortcut = self._shortcut(merged.keys["shortcut"][1], binder, names)
        shape = self._header(merged, "input", self._input, None)
        rows = {name: binder.body(node, names) for name, (_, node) in merged.table.items()}
        for name, (at, _) in merged.aux.items():
            if name not in merged.table:
                hint = did_you_mean(name, merged.table, f"the rows are {' '.join(merged.table)}")
                self.problems.add(f"`aux` hangs from row `{name}`, which there is not", at.at, hint)
        aux = {name: binder.body(node, names) for name, (_, node) in merged.aux.items()}
        binder.uncalled(names)
        start = At(self.document.source, 1, 1, 1)
        for key, example in (("input", "input: 3x224x224"), ("table", "table: {conv1: 7x7 64 /2, ...}")):
            if not any(document.root.get(key) for _, document in lineage):
                self.problems.add(f"`{key}:` is missing", start, f"for example `{example}`")
        if not merged.table and not self.problems.found:
            self.problems.add("no row is left", start, "keep at least one")
        none: tuple[Published, ...] = ()
        published = self._header(merged, "published", self._published, none)
        expect = self._header(merged, "expect", self._expect, None)
        title = self._header(merged, "name", self._text, self.name)
        cite = self._header(merged, "cite", self._text, "")
        self.problems.close()
        _check_used(self.name, settings, _users(merged.let, binder.used))
        assert shape is not None  # its absence has been reported
        changed = {name for name, value in settings.items() if value != defaults[name]}
        if input is not None and input != shape:
            changed.add("input")
        return Spec(
            name=self.name,
            title=title,
            cite=cite,
            input=input or shape,
            style=style,
            equation=equation,
            shortcut=shortcut,
            rows=rows,
            aux=aux,
            parameters=parameters,
            changed=frozenset(changed),
            published=published,
            expect=expect,
            extends=tuple(name for name, _ in lineage[1:]),
            places={name: at.at for name, (at, _) in merged.table.items()},
        )

    def _header(self, merged: _Merged, key: str, read: Callable[[Text, Node], T], default: T) -> T:
        return read(*merged.keys[key]) if key in merged.keys else default

    # --- names -----------------------------------------------------------------------------------------------

    def _numbers(self, merged: _Merged) -> dict[str, int]:
        """The parameters a user can set, with their defaults: `classes`, and the numbers of `let:`."""
        found = {"classes": self._header(merged, "classes", self._classes, 1000)}
        for name, (at, node) in merged.let.items():
            if not is_name(name):
                self.problems.add(f"`{name}` cannot be a name", at.at, "letters, digits and _, as in `depth`")
            elif name in RESERVED:
                self.problems.add(f"`{name}` is a word of the grammar, not a name", at.at, "choose another name")
            elif isinstance(node, Text) and re.fullmatch(r"-?[0-9]+", node.value):
                found[name] = int(node.value[:20])
                if abs(found[name]) > MAX_VALUE:
                    self.problems.add(f"`{name}` is larger than {MAX_VALUE:,}", node.at)
        return found

    def _let(self, merged: _Merged, parameters: Mapping[str, int]) -> dict[str, int]:
        """Every name's value; a name is used below where it stands."""
        names = {"classes": parameters["classes"]}
        for name, (at, node) in merged.let.items():
            if name in parameters:
                names[name] = parameters[name]
            elif not is_name(name) or name in RESERVED:
                continue  # which has been said
            elif not isinstance(node, Text) or not node.value:
                self.problems.add(f"`{name}` needs a number or an expression", at.at, "for example `n: (depth-2)/6`")
                names[name] = 1
            else:
                try:
                    names[name] = evaluate(_closed(node.value), names)
                except NumberError as error:
                    self.problems.add(*self._bad_let(node, error, names, parameters, merged))
                    names[name] = 1  # whatever uses it is read all the same
        return names

    def _bad_let(
        self, node: Text, error: NumberError, names: Mapping[str, int], parameters: Mapping[str, int], merged: _Merged
    ) -> tuple[str, At, str]:
        used = [name for name in names_in(node.value) if name in parameters]
        if not error.fraction or not used:
            later = [name for name in names_in(node.value) if name not in names and name in merged.let]
            return error.message, node.at, f"declare `{later[0]}` above" if later else error.hint
        name = used[0]
        given = ", ".join(f"{name}={parameters[name]}" for name in used)
        fits = [value for value in _around(parameters[name]) if _comes_out(node.value, {**names, name: value})]
        below = [value for value in fits if value < parameters[name]][-1:]
        above = [value for value in fits if value > parameters[name]][:1]
        hint = " and ".join(f"{name}={value}" for value in below + above)
        return f"{error.message} for {given}", node.at, f"{hint} would do" if hint else ""

    def _blocks(self, merged: _Merged) -> dict[str, Block]:
        found: dict[str, Block] = {}
        for name, (key, body) in merged.blocks.items():
            words = key.value.split()
            for word in words or [""]:
                if not is_name(word) or word in RESERVED or re.fullmatch("[A-Za-z]x[A-Za-z]", word):
                    self.problems.add(f"`{word}` cannot be a name here", key.at,
                                      "`inception p1 r3 p3: ...`: a block's name, then its parameters'")  # fmt: skip
            if len(set(words)) != len(words):
                self.problems.add(f"a name stands twice in `{key.value}`", key.at)
            before = len(self.problems.found)
            self._check_words(body)
            found[name] = Block(tuple(words[1:]), body, key.at, sound=len(self.problems.found) == before)
        return found

    def _check_words(self, body: Node) -> None:
        """The words of a block's body, whether it is called or not; its numbers are known at the call."""
        match body:
            case Text():
                try:
                    parse_cell(body.value)
                except PhraseError as error:
                    self.problems.add(error.message, body.word(error.offset, error.length), error.hint)
            case Seq(items=items):
                for item in items:
                    self._check_words(item)
            case Map(pairs=pairs):
                for key, value in pairs:
                    try:
                        parse_head(key.value)
                    except PhraseError as error:
                        self.problems.add(error.message, key.word(error.offset, error.length), error.hint)
                    self._check_words(value)

    # --- header ----------------------------------------------------------------------------------------------

    def _text(self, key: Text, node: Node) -> str:
        if not isinstance(node, Text) or not node.value.strip():
            self.problems.add(f"`{key.value}` is one text", key.at)
            return ""
        return clean(" ".join(node.value.split()))

    def _classes(self, key: Text, node: Node) -> int:
        if (
            not isinstance(node, Text)
            or not re.fullmatch("[0-9]{1,8}", node.value)
            or not 0 < int(node.value) <= MAX_CHANNELS
        ):
            self.problems.add(f"`classes` is a whole number from 1 to {MAX_CHANNELS:,}", node.at)
            return 1
        return int(node.value)

    def _input(self, key: Text, node: Node) -> Shape | None:
        shape = parse_input(node.value) if isinstance(node, Text) else None
        if shape is None:
            self.problems.add(f"`input` is channels x height x width, at most {MAX_SIZE:,} on a side", node.at,
                              "for example `input: 3x224x224`")  # fmt: skip
        return shape or Shape(3, 224, 224)

    def _style(self, key: Text, node: Node) -> ConvStyle:
        text = node.value if isinstance(node, Text) and len(node.value) < 80 else ""
        before: list[BatchNorm | ReLU | LeakyReLU | PReLU] = []
        after: list[BatchNorm | ReLU | LeakyReLU | PReLU] = []
        conv: re.Match[str] | None = None
        at = node.at
        for word in re.finditer(r"\S+", text):
            match = _CONV_WORD.fullmatch(word.group())
            at = node.word(word.start(), len(word.group())) if isinstance(node, Text) else node.at
            if match is None or (conv and word.group().startswith("conv")):
                break
            if word.group().startswith("conv"):
                conv = match
            elif (op := _style_op(word.group())) is None:
                break
            else:
                (after if conv else before).append(op)
        else:
            at = node.at
            if conv:
                return ConvStyle(tuple(before), conv[1] is not None, tuple(after))
        self.problems.add(
            f"`{text}` is no way to write a convolution" if text else "`conv` is a phrase", at,
            "such as `conv bn relu`, `conv relu`, `bn relu conv`, `conv(bias) bn relu`, `conv bn(0.001) leaky(0.1)`",
        )  # fmt: skip
        return ConvStyle()

    def _equation(self, key: Text, node: Node) -> Equation:
        text = node.value if isinstance(node, Text) else ""
        match = _EQUATION.fullmatch(text.strip())
        activation = _style_op(match[1]) if match and match[1] else None
        if match is None or bool(match[1]) != bool(match[3]) or (match[1] and activation is None):
            self.problems.add(
                f"`{text}` is no residual equation" if text else "`residual` is an equation", node.at,
                "`relu(x + F)`, `x + F`, or `relu(F)` for a plain net",
            )  # fmt: skip
            return Equation()
        assert not isinstance(activation, BatchNorm)  # the pattern admits activations alone
        return Equation(match[2] != "F", activation)

    def _shortcut(self, node: Node, binder: Binder, names: Mapping[str, int]) -> Shortcut:
        if isinstance(node, Text) and node.value in ("pad", "project", "project all"):
            return Shortcut(node.value)  # type: ignore[arg-type]  # just compared
        if isinstance(node, Seq):
            items = binder.body(node, {**names, "s": 2})
            if len(items) > MAX_SHORTCUT:
                self.problems.add(f"a shortcut of {len(items):,} layers, at most {MAX_SHORTCUT} are read", node.at)
            for item in items:
                if not isinstance(item.what, ConvLayer | PoolLayer | NormLayer) or item.times is not None:
                    what = (
                        "an activation in a shortcut" if isinstance(item.what, ActLayer) else "not a shortcut's layer"
                    )
                    self.problems.add(what, item.at, "a shortcut is of convolutions, pools and normalisation")

            def layers(s: int) -> tuple[Item, ...]:
                fresh = Binder(Problems(), binder.blocks)
                items = fresh.body(node, {**names, "s": s})
                fresh.problems.close()
                return items

            return Shortcut("layers", layers, _plain(node))
        hint = "`pad`, `project`, `project all`, or a list of layers such as `[sxs avg /s ceil, 1x1]`"
        written = node.value if isinstance(node, Text) else ""
        self.problems.add(f"`{written}` is no shortcut" if written else "`shortcut` is a word or a list", node.at, hint)
        return Shortcut()

    def _published(self, key: Text, node: Node) -> tuple[Published, ...]:
        if not isinstance(node, Seq):
            self.problems.add(
                "`published` is a list of entries", key.at, '`- {params: 25.5M, source: "...", table: ...}`'
            )
            return ()
        return tuple(figure for entry in node.items for figure in self._figures(entry))

    def _figures(self, entry: Node) -> list[Published]:
        if not isinstance(entry, Map):
            self.problems.add("an entry of `published` is a mapping", entry.at, '`{params: 25.5M, source: "...", ...}`')
            return []
        facts: dict[str, str] = {}
        figures: list[tuple[str, str, Decimal, Decimal]] = []
        for key, node in entry.pairs:
            if key.value in FACTS:
                facts[key.value] = self._text(key, node)
            elif key.value not in FIGURES:
                hint = did_you_mean(key.value, (*FIGURES, *FACTS), f"figures are {' '.join(FIGURES)}")
                self.problems.add(f"unknown figure `{key.value}`", key.at, hint)
            elif not isinstance(node, Text) or (printed := _PRINTED.fullmatch(node.value)) is None:
                self.problems.add(f"`{key.value}` is a figure as printed", node.at, "for example 25.5M, 4.1G or 22.2")
            else:
                number, unit = Decimal(printed[1]), _UNIT[printed[2]]
                last = Decimal(1).scaleb(int(number.as_tuple().exponent))
                figures.append((key.value, node.value, number * unit, last * unit))
        for fact in ("source", "table"):
            if fact not in facts:
                self.problems.add(f"a published figure needs its `{fact}`", entry.at)
        facts = {"source": "", "table": ""} | facts
        return [Published(figure, text, value, last, **facts) for figure, text, value, last in figures]

    def _expect(self, key: Text, node: Node) -> Expect | None:
        figures: dict[str, int] = {}
        sizes: tuple[int, ...] | None = None
        for name, (at, value) in self._entries(key, node):
            if name == "sizes" and isinstance(value, Seq):
                texts = [item.value if isinstance(item, Text) else "" for item in value.items]
                if all(re.fullmatch("[0-9]{1,6}", text) for text in texts):
                    sizes = tuple(map(int, texts))
                    continue
            elif name in EXPECTED and isinstance(value, Text) and re.fullmatch("[0-9]{1,18}", value.value):
                figures[name] = int(value.value)
                continue
            elif name not in (*EXPECTED, "sizes"):
                self.problems.add(f"unknown figure `{name}`", at.at, f"`expect` holds {' '.join(EXPECTED)} sizes")
                continue
            what = "a list of whole numbers" if name == "sizes" else "a whole number"
            self.problems.add(f"`{name}` is {what}", value.at)
        return Expect(figures, sizes, key.at)


def _let_into(
    inherited: dict[str, tuple[Text, Node]], own: list[tuple[str, tuple[Text, Node]]]
) -> dict[str, tuple[Text, Node]]:
    """A child's entries among those it inherits: a replaced one keeps its place, a new one stands above the next."""
    merged: dict[str, tuple[Text, Node]] = {}
    waiting: dict[str, tuple[Text, Node]] = {}
    before: dict[str, dict[str, tuple[Text, Node]]] = {}
    for name, entry in own:
        if name in inherited:
            before[name], waiting = waiting, {}
        else:
            waiting[name] = entry
    replaced = dict(own)
    for name, entry in inherited.items():
        merged |= before.get(name, {}) | {name: replaced.get(name, entry)}
    return merged | waiting


def _users(let: Mapping[str, tuple[Text, Node]], used: set[str]) -> set[str]:
    """The names that the table's numbers depend on, directly or through other names."""
    found = set(used)
    for name, (_, node) in reversed(list(let.items())):
        if name in found and isinstance(node, Text):
            found.update(names_in(node.value))
    return found


def _check_used(model: str, settings: Mapping[str, int], used: set[str]) -> None:
    """Raises UsageError if a parameter is set that changes nothing."""
    for name in settings:
        if name not in used:
            hint = "where the number of classes belongs, write `fc classes`" if name == "classes" else ""
            raise UsageError(f"nothing in `{model}` depends on `{name}`", hint)


def _identity(source: Source) -> str:
    return str(Path(source.path).resolve()) if source.path else source.label


def _plain(node: Node) -> str:
    match node:
        case Text(value=value):
            return value
        case Seq(items=items):
            return f"[{', '.join(map(_plain, items))}]"
        case Map(pairs=pairs):
            return f"{{{', '.join(f'{key.value}: {_plain(value)}' for key, value in pairs)}}}"


def _style_op(word: str) -> BatchNorm | ReLU | LeakyReLU | PReLU | None:
    name, bracket, argument = word.rstrip(")").partition("(")
    number = decimal(argument)
    match name:
        case "relu":
            return ReLU()
        case "prelu":
            return PReLU()
        case "bn" if not bracket:
            return BatchNorm()
        case "bn" if number is not None:
            return BatchNorm(number)
        case "leaky" if number is not None:
            return LeakyReLU(number)
    return None


def _closed(text: str) -> str:
    """An expression without the spaces around its operators."""
    return re.sub(r"\s*([-+*/()])\s*", r"\1", text)


def _around(value: int, reach: int = 100) -> list[int]:
    return [near for near in range(value - reach, value + reach + 1) if near > 0]


def _comes_out(text: str, names: Mapping[str, int]) -> bool:
    try:
        return evaluate(_closed(text), names) > 0
    except NumberError:
        return False


def _check_settings(model: str, settings: Mapping[str, int], known: Mapping[str, int]) -> None:
    """Raises UsageError if a parameter is set that the spec does not have, or to something absurd."""
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(f"{key}={default}" for key, default in known.items())
            raise UsageError(f"`{model}` has no parameter `{name}`", did_you_mean(name, known, f"it has {listed}"))
        if type(value) is not int:  # True is an int too
            raise UsageError(f"`{name}={value}` is not a whole number")
        if abs(value) > MAX_VALUE or (name == "classes" and not 0 < value <= MAX_CHANNELS):
            raise UsageError(f"`{name}={value}` is out of range")
