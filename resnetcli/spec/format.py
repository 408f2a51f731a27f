"""Format a spec: every phrase in canonical form; comments and layout do not change."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from resnetcli.errors import Problems, Source
from resnetcli.spec.cell import parse_cell
from resnetcli.spec.inputs import parse_image
from resnetcli.spec.parse import parse_head
from resnetcli.spec.phrase import Phrase, PhraseError, text_of
from resnetcli.spec.source import Map, Node, Seq, Text, parse

Place = Literal["value", "branch", "entry"]


def format_text(source: Source) -> str:
    """The canonical text; it has the same phrases, and formatting it again changes nothing.

    Raises SpecError with every phrase that is invalid.
    """
    walk = _walk(source)
    text = source.text
    for start, end, new in sorted(walk.edits, reverse=True):
        text = text[:start] + new + text[end:]
    again = _walk(Source(source.label, text, source.path))
    if again.phrases != walk.phrases:
        raise AssertionError(f"formatting would change what {source.label} means")  # a bug of the formatter
    return text


def _walk(source: Source) -> _Walk:
    walk = _Walk(source)
    root = parse(source)
    for key, node in root.pairs:
        match key.value, node:
            case (("table" | "blocks" | "aux"), Map(pairs=pairs)):
                for _, body in pairs:
                    walk.body(body, "value", None)
            case "shortcut", Seq():
                walk.body(node, "value", None)
            case "input", Text():
                shape = parse_image(node.value)
                walk.replace(node, node.value if shape is None else f"{shape.c}x{shape.h}x{shape.w}")
            case "conv", Text():
                walk.replace(node, " ".join(node.value.split()))
            case "residual", Text():
                walk.replace(node, " + ".join(part.strip() for part in node.value.split("+")))
    walk.problems.close()
    return walk


@dataclass
class _Walk:
    """The phrases of a text, and the edits that make it canonical."""

    source: Source
    problems: Problems = field(default_factory=Problems)
    phrases: list[Phrase] = field(default_factory=list)
    edits: list[tuple[int, int, str]] = field(default_factory=list)

    def replace(self, node: Text, new: str) -> None:
        if new != node.value or not node.plain:
            old = self.source.text[node.start : node.end]
            self.edits.append(
                (node.start, node.end, new + old[len(old.rstrip()) :])
            )  # a block scalar ends in a newline

    def body(self, node: Node, place: Place, within: Seq | None) -> None:
        match node:
            case Text():
                self.cell(node, place, within)
            case Seq(items=items):
                for item in items:
                    self.body(item, "entry", node)
            case Map(pairs=pairs):
                for key, value in pairs:
                    self.composite(key, value)

    def composite(self, key: Text, value: Node) -> None:
        try:
            phrase = parse_head(key.value)
        except PhraseError as error:
            self.problems.add(error.message, key.word(error.offset, error.length), error.hint)
            return
        self.phrases.append(phrase)
        self.replace(key, text_of(phrase))
        if phrase.head in ("concat", "sum") and phrase.mark("of") is None and isinstance(value, Seq):
            for branch in value.items:
                self.body(branch, "branch", value)
        else:
            self.body(value, "value", None)

    def cell(self, node: Text, place: Place, within: Seq | None) -> None:
        if node.plain and node.value == "null":
            return
        try:
            phrases = parse_cell(node.value)
        except PhraseError as error:
            self.problems.add(error.message, node.word(error.offset, error.length), error.hint)
            return
        self.phrases.extend(phrases)
        texts = list(map(text_of, phrases))
        if len(texts) == 1:
            self.replace(node, texts[0])
        elif place != "entry":
            self.replace(node, f"[{', '.join(texts)}]")
        else:
            assert within is not None  # an entry is in a list
            dash = "\n" + " " * (within.at.column - 1) + "- "
            self.replace(node, (", " if within.flow else dash).join(texts))
