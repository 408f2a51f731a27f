"""Text -> nodes: scalars, sequences and mappings with their line and column.

One pass over libyaml's events, safe for untrusted files: anchors, aliases, tags and further documents are errors,
depth and size are bounded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from resnetcli.errors import At, Problem, Problems, Source, SpecError, UsageError
from resnetcli.files import is_directory, read_bounded
from resnetcli.frozen import frozen
from resnetcli.spec.cell import bracket_problem

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32

_FORBIDDEN = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that YAML does not allow (YAML 1.1, production 1)."""

_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser if PyYAML was built with it: eight times as fast."""


@frozen
class Text:
    """A scalar, never interpreted: `5` is text, `null` is text."""

    value: str
    at: At
    start: int
    end: int
    """Its characters in the source, including quotation marks, are start..end."""
    verbatim: bool
    """Whether the characters at `at` are exactly `value`, so that its words have positions."""
    plain: bool = True

    def word(self, offset: int, length: int) -> At:
        """Position of `length` characters at `offset` of the value."""
        return self.at.part(offset, length) if self.verbatim else self.at


@frozen
class Seq:
    """A list."""

    items: list[Node]
    at: At
    flow: bool


@frozen
class Map:
    """A mapping, in the order written; every key is a scalar and occurs once."""

    pairs: list[tuple[Text, Node]]
    at: At
    flow: bool

    def get(self, key: str) -> Node | None:
        """The value under `key`."""
        return next((value for name, value in self.pairs if name.value == key), None)


Node = Text | Seq | Map

_BRACKET = re.compile(r"^([ ]*(?:-[ ]+)*(?:\w+:[ ]+)?)\[", re.MULTILINE)
"""A list at the start of a value or an entry."""
_COPIES = re.compile(r"[ \t$]*(?:\\times|[^\w\s\[\](){},:#]|[xX\u0445\u0425](?![A-Za-z]))[ \t$]*[A-Za-z0-9_]+")
"""Copies after a bracket in papers, `× 2`, with any sign."""


def _closing(text: str, start: int) -> int:
    """The position after the bracket that closes the one at `start`; 0 if none does."""
    depth = 0
    for match in re.compile(r"[\[\]]").finditer(text, start):
        depth += 1 if match.group() == "[" else -1
        if depth == 0:
            return match.end()
    return 0


def read_source(path: Path, label: str | None = None) -> Source:
    """The text of a spec file.

    Raises UsageError if the file cannot be read, SpecError if it is not UTF-8.
    """
    label = label or str(path)
    if is_directory(path):
        raise UsageError(f"`{label}` is a directory, not a spec", hint="name a YAML file in it")
    return decode(read_bounded(path, MAX_BYTES, label=label), label, str(path))


def decode(data: bytes, label: str, path: str = "") -> Source:
    """The bytes of a file as a source. Raises UsageError if they are too many, SpecError if they are not UTF-8."""
    if len(data) > MAX_BYTES:
        raise _too_large(label)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        lossy = Source(label, data.decode("utf-8", "replace"))
        at = lossy.at(len(data[: error.start].decode("utf-8")))
        message, hint = f"not UTF-8 text: byte 0x{data[error.start]:02x}", "save it as UTF-8; a spec is a text file"
        raise SpecError((Problem(message, at, hint),)) from None
    return Source(label, text, path)


def parse(source: Source) -> Map:
    """Parse a spec's YAML.

    Raises SpecError with every problem: invalid YAML, an empty file, duplicate keys, tags, ...
    """
    if len(source.text) > MAX_BYTES:
        raise _too_large(source.label)
    return _Parser(source).run()


def _too_large(label: str) -> UsageError:
    return UsageError(f"`{label}` is larger than {MAX_BYTES // 1024} KiB", "check that it is a spec, a short YAML file")


@dataclass
class _Parser:
    source: Source
    problems: Problems = field(default_factory=Problems)

    def run(self) -> Map:
        root = None
        try:
            root = self._tree(yaml.parse(self.source.text, Loader=_Loader))
        except yaml.MarkedYAMLError as error:
            self._syntax(error)
        except (yaml.YAMLError, UnicodeEncodeError):
            self._unreadable()
        if root is None and not self.problems.found:
            self.problems.add(
                "the file is empty",
                At(self.source, 1, 1, 1),
                "a spec needs `input:` and `table:`; see `resnet-cli show resnet50`",
            )
        elif root is not None and not isinstance(root, Map) and not self.problems.found:
            self.problems.add(
                "a spec is a mapping of `key: value` lines", root.at, "it needs `input:` and `table:` at least"
            )
        self.problems.close()
        assert isinstance(root, Map)  # anything else is a problem
        return root

    def _tree(self, events: Iterator[yaml.Event]) -> Node | None:
        """Build the tree without recursion, so that a deep file cannot exhaust Python's stack."""
        root: Node | None = None
        stack: list[Seq | Map] = []
        keys: list[Text | None] = []  # for each open mapping, the key whose value comes next
        known: list[dict[str, Text]] = []  # for each, the keys so far
        documents = 0

        def place(node: Node) -> None:
            nonlocal root
            if not stack:
                root = node
            elif isinstance(stack[-1], Seq):
                stack[-1].items.append(node)
            elif (key := keys[-1]) is not None:
                stack[-1].pairs.append((key, node))
                keys[-1] = None
            elif isinstance(node, Text):
                self._unique(known[-1], node)
                keys[-1] = node
            else:
                self.problems.add("a key must be one word or phrase, not a list or a mapping", node.at)
                keys[-1] = Text("", node.at, 0, 0, verbatim=False)

        for event in events:
            match event:
                case yaml.DocumentStartEvent():
                    documents += 1
                    if documents > 1:
                        self.problems.add("a spec is one document; a second begins here", self._at(event, 3))
                        return root
                case yaml.AliasEvent():
                    self.problems.add(
                        f"alias `*{event.anchor}`: not allowed in a spec",
                        self._at(event),
                        "write the value out, or use `let:`, `blocks:` or `extends:`",
                    )
                    place(Text("", self._at(event), 0, 0, verbatim=False))
                case yaml.ScalarEvent():
                    self._plainly(event)
                    place(self._text(event))
                case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                    self._plainly(event)
                    if len(stack) >= MAX_DEPTH:
                        self.problems.add(f"nested more than {MAX_DEPTH} deep", self._at(event, 1))
                        return root
                    node: Seq | Map
                    if isinstance(event, yaml.SequenceStartEvent):
                        node = Seq([], self._at(event, 1), bool(event.flow_style))
                    else:
                        node = Map([], self._at(event, 1), bool(event.flow_style))
                    place(node)
                    stack.append(node)
                    keys.append(None)
                    known.append({})
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    stack.pop()
                    keys.pop()
                    known.pop()
                case _:
                    pass
        return root

    def _at(self, event: yaml.Event, length: int | None = None) -> At:
        start, end = event.start_mark, event.end_mark
        assert start is not None  # every event of a parser has marks
        assert end is not None
        if length is None:
            length = end.column - start.column if end.line == start.line else 1
        return At(self.source, start.line + 1, start.column + 1, max(1, length))

    def _text(self, event: yaml.ScalarEvent) -> Text:
        assert event.start_mark is not None
        assert event.end_mark is not None
        start, end = event.start_mark.index, event.end_mark.index
        at, plain = self._at(event), event.style in (None, "")
        if plain:
            return Text(event.value, at, start, end, verbatim=end - start == len(event.value))
        inner = At(at.source, at.line, at.column + 1, max(1, at.length - 2))
        verbatim = event.style in ("'", '"') and end - start == len(event.value) + 2
        return Text(event.value, inner if verbatim else at, start, end, verbatim, plain=False)

    def _plainly(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        if event.anchor is not None:
            self.problems.add(
                f"anchor `&{event.anchor}`: not allowed in a spec",
                self._at(event, len(event.anchor) + 1),
                "write the value out, or use `let:`, `blocks:` or `extends:`",
            )
        if event.tag is not None:
            assert event.start_mark is not None
            written = self.source.text[event.start_mark.index :].split(maxsplit=1)[0]
            self.problems.add(
                f"tag `{written}`: not allowed in a spec", self._at(event, len(written)), "remove the tag"
            )

    def _unique(self, known: dict[str, Text], key: Text) -> None:
        first = known.setdefault(key.value, key)
        if first is not key:
            self.problems.add(
                f"duplicate key `{key.value}`", key.at, f"the first is on line {first.at.line}; remove one"
            )

    def _syntax(self, error: yaml.MarkedYAMLError) -> None:
        """Report a syntax error in libyaml's words; an unclosed bracket or quotation mark where it was opened."""
        if self._paper_brackets():
            return
        if "nesting" in (error.problem or ""):  # libyaml's own limit, which a line of brackets reaches first
            self.problems.add(f"nested more than {MAX_DEPTH} deep", self._too_deep(error.problem_mark))
            return
        mark, opened = error.problem_mark or error.context_mark, error.context_mark
        context, problem = error.context or "", error.problem or error.context or ""
        at = At(self.source, mark.line + 1, mark.column + 1, 1) if mark else At(self.source, 1, 1, 1)
        if opened and opened.line + 1 < at.line and ("flow" in context or "unexpected end" in problem):
            what, hint = "quotation mark", ""
            if "flow" in context:
                what, hint = "bracket", f"or a comma is missing before {at.line}:{at.column}"
            at = At(self.source, opened.line + 1, opened.column + 1, 1)
            self.problems.add(f"not YAML: unclosed {what}", at, hint)
            return
        line = self.source.line(at.line)
        before, here = line[: at.column - 1], line[at.column - 1 : at.column]
        if here == "\t" or "\t" in line[: len(line) - len(line.lstrip())]:
            hint = "YAML indents with spaces, not with tabs"
        elif here in ("]", "}"):
            hint = "no bracket is open here: remove it, or open one before"
        elif before.rstrip().endswith(("]", "}")):
            hint = "nothing can follow a list; to repeat it, write `seq x 3: [...]`"
        elif "mapping values" in problem and ":" in before:
            hint = "quote a text with a colon; write an entry with a body in brackets: `[residual x 3: [...]]`"
        elif "mapping values" in problem:
            hint = "check the indentation, and for a missing space after a colon above"
        else:
            hint = "check the indentation, and that every bracket is closed"
        self.problems.add(f"not YAML: {problem}", at, hint)

    def _too_deep(self, mark: yaml.Mark | None) -> At:
        """Position of the first bracket that is nested too deep."""
        depth, end = 0, mark.index if mark else len(self.source.text)
        for match in re.finditer(r"[\[\]{}]", self.source.text[:end]):
            depth += 1 if match.group() in "[{" else -1
            if depth > MAX_DEPTH:
                return self.source.at(match.start())
        return self.source.at(end)

    def _paper_brackets(self) -> bool:
        """Report every `[3×3, 64; 3×3, 64] × 2`: YAML reads a list and allows nothing after it."""
        text, found = self.source.text, False
        for match in _BRACKET.finditer(text):
            end = _closing(text, match.end() - 1)
            times = _COPIES.match(text, end) if end else None
            if times:
                cell = text[match.end() - 1 : times.end()]
                message, hint = bracket_problem(cell, outer=":" in match[1])
                at = self.source.at(match.end() - 1)
                length = len(cell) if "\n" not in cell else cell.index("\n")
                self.problems.add(f"{message}; neither is YAML", At(self.source, at.line, at.column, length), hint)
                found = True
        return found

    def _unreadable(self) -> None:
        text = self.source.text
        index = found.start() if (found := _FORBIDDEN.search(text)) else 0
        self.problems.add(
            f"not YAML: character {text[index : index + 1]!a} is not allowed",
            self.source.at(index),
            "a spec is a plain text file",
        )
