"""Nodes -> Spec: resolve `extends`, `let` and blocks; collect every problem of a file before raising."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from resnetcli.errors import At, Problems, Source, UsageError, did_you_mean, nearest
from resnetcli.ops import Activation, BatchNorm, Norm, ReLU, Shape, Sides
from resnetcli.spec.bind import Binder, Block, is_name
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.header import Header
from resnetcli.spec.lineage import KEYS, Document, Merged, lineage, merge, open_document
from resnetcli.spec.numbers import MAX_VALUE, NumberError, evaluate_expression, names_in
from resnetcli.spec.parse import parse_head
from resnetcli.spec.phrase import PhraseError
from resnetcli.spec.source import Map, Node, Seq, Text
from resnetcli.spec.spec import (
    ConvLayer,
    ConvStyle,
    Equation,
    Item,
    PoolLayer,
    Published,
    Shortcut,
    Spec,
)
from resnetcli.spec.spelling import is_reserved
from resnetcli.spec.vocabulary import MAX_CHANNELS
from resnetcli.spec.zoo import Zoo

MAX_SHORTCUT = 16
"""Layers of a shortcut."""


T = TypeVar("T")


def read(
    reference: str | Source,
    *,
    zoo: Zoo,
    input: Shape | Sides | None = None,
    parameters: Mapping[str, int] | None = None,
) -> Spec:
    """Read the spec of a model: a name in the zoo, a path to a YAML file, or a text.

    Raises UsageError for an unknown model, file or parameter; SpecError with every problem of the file.
    """
    return _Reader(open_document(reference, zoo), zoo).read(input, dict(parameters or {}))


class _Reader:
    def __init__(self, document: Document, zoo: Zoo) -> None:
        self.document, self.zoo, self.name = document, zoo, document.name
        self.problems = Problems()

    def read(self, input: Shape | Sides | None, settings: dict[str, int]) -> Spec:
        files = lineage(self.document, self.zoo, self.problems)
        self.problems.close()  # without the specs it extends, the rest cannot be checked
        merged = merge(files, self.problems)
        header = Header(self.problems)
        defaults = self._numbers(merged)
        _check_settings(self.name, settings, defaults)
        parameters = {**defaults, **settings}
        names = self._let(merged, parameters)
        binder = Binder(self.problems, self._blocks(merged))
        style = self._header(merged, "conv", header.style, ConvStyle(after=(BatchNorm(), ReLU())))
        equation = self._header(merged, "residual", header.equation, Equation(activation=ReLU()))
        shortcut = Shortcut()
        if "shortcut" in merged.keys:
            shortcut = self._shortcut(merged.keys["shortcut"][1], binder, names)
        shape = self._header(merged, "input", header.input, None)
        stages = {name: binder.body(node, names) for name, (_, node) in merged.table.items()}
        for name, (at, _) in merged.aux.items():
            if name not in merged.table:
                hint = did_you_mean(name, merged.table, f"the stages are {' '.join(merged.table)}")
                self.problems.add(f"`aux` names an unknown stage `{name}`", at.at, hint)
        aux = {name: binder.body(node, names) for name, (_, node) in merged.aux.items()}
        binder.uncalled(names)
        start = At(self.document.source, 1, 1, 1)
        for key, example in (("input", "input: 3x224x224"), ("table", "table: {conv1: 7x7 64 /2, ...}")):
            keys = [name.value for document in files for name, _ in document.root.pairs]
            misspelt = any(key in nearest(name, KEYS) for name in keys if name not in KEYS)  # which is an error already
            if key not in keys and not misspelt:
                self.problems.add(f"`{key}:` is missing", start, f"for example `{example}`")
        if not merged.table and not self.problems.found:
            self.problems.add("the table has no stages", start, "keep at least one")
        no_figures: tuple[Published, ...] = ()
        published = self._header(merged, "published", header.published, no_figures)
        expect = self._header(merged, "expect", header.expect, None)
        title = self._header(merged, "name", header.text, self.name)
        cite = self._header(merged, "cite", header.text, "")
        about = self._header(merged, "about", header.text, "")
        no_texts: tuple[str, ...] = ()
        deviations = self._header(merged, "deviations", header.texts, no_texts)
        self.problems.close()
        _check_used(self.name, settings, _users(merged.let, binder.used))
        assert shape is not None  # its absence is a problem
        changed = {name for name, value in settings.items() if value != defaults[name]}
        if isinstance(input, Sides):
            input = input.of(shape.c)
        if input is not None and input != shape:
            changed.add("input")
        return Spec(
            name=self.name,
            title=title,
            cite=cite,
            about=about,
            deviations=deviations,
            input=input or shape,
            style=style,
            equation=equation,
            shortcut=shortcut,
            stages=stages,
            aux=aux,
            parameters=parameters,
            changed=frozenset(changed),
            published=published,
            expect=expect,
            extends=tuple(document.name for document in files[1:]),
            places={name: at.at for name, (at, _) in merged.table.items()},
        )

    def _header(self, merged: Merged, key: str, read: Callable[[Text, Node], T], default: T) -> T:
        return read(*merged.keys[key]) if key in merged.keys else default

    def _numbers(self, merged: Merged) -> dict[str, int]:
        """The parameters a user can set, with their defaults: `classes`, and the numbers of `let:`."""
        numbers = {"classes": self._header(merged, "classes", Header(self.problems).classes, 1000)}
        for name, (at, node) in merged.let.items():
            if not is_name(name):
                self.problems.add(f"`{name}` is not a valid name", at.at, "letters, digits and _, as in `depth`")
            elif is_reserved(name):
                self.problems.add(f"`{name}` is a reserved word", at.at, "choose another name")
            elif isinstance(node, Text) and re.fullmatch(r"-?[0-9]+", node.value):
                numbers[name] = int(node.value[:20])
                if abs(numbers[name]) > MAX_VALUE:
                    self.problems.add(f"`{name}` is larger than {MAX_VALUE:,}", node.at)
        return numbers

    def _let(self, merged: Merged, parameters: Mapping[str, int]) -> dict[str, int]:
        """Every name's value; a name is known to the entries below it."""
        names = {"classes": parameters["classes"]}
        for name, (at, node) in merged.let.items():
            if name in parameters:
                names[name] = parameters[name]
            elif not is_name(name) or is_reserved(name):
                continue  # reported by `_numbers`
            elif not isinstance(node, Text) or not node.value:
                self.problems.add(f"`{name}` needs a number or an expression", at.at, "for example `n: (depth-2)/6`")
                names[name] = 1
            else:
                try:
                    names[name] = evaluate_expression(_closed(node.value), names)
                except NumberError as error:
                    self.problems.add(*self._bad_let(node, error, names, parameters, merged))
                    names[name] = 1  # a stand-in, so that reading continues
        return names

    def _bad_let(
        self, node: Text, error: NumberError, names: Mapping[str, int], parameters: Mapping[str, int], merged: Merged
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
        return f"{error.message} for {given}", node.at, f"{hint} would work" if hint else ""

    def _blocks(self, merged: Merged) -> dict[str, Block]:
        blocks: dict[str, Block] = {}
        for name, (key, body) in merged.blocks.items():
            words = key.value.split()
            for word in words or [""]:
                if not is_name(word) or is_reserved(word) or re.fullmatch("[A-Za-z]x[A-Za-z]", word):
                    hint = "write the block's name, then its parameters: `inception p1 r3 p3: ...`"
                    self.problems.add(f"`{word}` is not a valid name", key.at, hint)
            if len(set(words)) != len(words):
                self.problems.add(f"duplicate name in `{key.value}`", key.at)
            before = len(self.problems.found)
            self._check_words(body)
            blocks[name] = Block(tuple(words[1:]), body, key.at, sound=len(self.problems.found) == before)
        return blocks

    def _check_words(self, body: Node) -> None:
        """Check the syntax of a block's body; its numbers are known only at a call."""
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

    def _shortcut(self, node: Node, binder: Binder, names: Mapping[str, int]) -> Shortcut:
        if isinstance(node, Text) and node.value in ("pad", "project", "project all"):
            return Shortcut(node.value)  # type: ignore[arg-type]  # just compared
        if isinstance(node, Seq):
            items = binder.body(node, {**names, "s": 2})
            if len(items) > MAX_SHORTCUT:
                self.problems.add(f"a shortcut of {len(items):,} layers; at most {MAX_SHORTCUT} are allowed", node.at)
            for item in items:
                if not isinstance(item.what, ConvLayer | PoolLayer | Norm) or item.times is not None:
                    what = (
                        "an activation is not allowed in a shortcut"
                        if isinstance(item.what, Activation)
                        else "this layer is not allowed in a shortcut"
                    )
                    self.problems.add(what, item.at, "a shortcut may have convolutions, pools and normalisation")

            def layers(s: int) -> tuple[Item, ...]:
                fresh = Binder(Problems(), binder.blocks)
                items = fresh.body(node, {**names, "s": s})
                fresh.problems.close()
                return items

            return Shortcut("layers", layers, _plain(node))
        hint = "`pad`, `project`, `project all`, or a list of layers such as `[sxs avg /s ceil, 1x1]`"
        written = node.value if isinstance(node, Text) else ""
        self.problems.add(
            f"`{written}` is not a shortcut" if written else "`shortcut` must be a word or a list", node.at, hint
        )
        return Shortcut()


def _users(let: Mapping[str, tuple[Text, Node]], used: set[str]) -> set[str]:
    """The names that the table's numbers depend on, directly or through other names."""
    names = set(used)
    for name, (_, node) in reversed(list(let.items())):
        if name in names and isinstance(node, Text):
            names.update(names_in(node.value))
    return names


def _check_used(model: str, settings: Mapping[str, int], used: set[str]) -> None:
    """Raise UsageError for a parameter that nothing depends on."""
    for name in settings:
        if name not in used:
            hint = "write `fc classes` in the table" if name == "classes" else ""
            raise UsageError(f"nothing in `{model}` depends on `{name}`", hint)


def _plain(node: Node) -> str:
    match node:
        case Text(value=value):
            return value
        case Seq(items=items):
            return f"[{', '.join(map(_plain, items))}]"
        case Map(pairs=pairs):
            return f"{{{', '.join(f'{key.value}: {_plain(value)}' for key, value in pairs)}}}"


def _closed(text: str) -> str:
    """An expression without the spaces around its operators."""
    return re.sub(r"\s*([-+*/()])\s*", r"\1", text)


def _around(value: int, reach: int = 100) -> list[int]:
    return [near for near in range(value - reach, value + reach + 1) if near > 0]


def _comes_out(text: str, names: Mapping[str, int]) -> bool:
    try:
        return evaluate_expression(_closed(text), names) > 0
    except NumberError:
        return False


def _check_settings(model: str, settings: Mapping[str, int], known: Mapping[str, int]) -> None:
    """Raise UsageError for an unknown parameter, and for a value that is out of range."""
    for name, value in settings.items():
        if name not in known:
            listed = ", ".join(f"{key}={default}" for key, default in known.items())
            raise UsageError(
                f"`{model}` has no parameter `{name}`", did_you_mean(name, known, f"its parameters: {listed}")
            )
        if type(value) is not int:  # True is an int too
            raise UsageError(f"`{name}={value}` is not a whole number", f"for example `{name}={known[name]}`")
        low, high = (1, MAX_CHANNELS) if name == "classes" else (-MAX_VALUE, MAX_VALUE)
        if not low <= value <= high:
            raise UsageError(
                f"`{name}={value}` is out of range", f"from {low:,} to {high:,}, e.g. `{name}={known[name]}`"
            )
