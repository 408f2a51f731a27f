"""Parse one cell; for text that is more than one cell, suggest what it may mean."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache

from resnetcli.spec.parse import FOREIGN, SeveralCellsError, parse_layers
from resnetcli.spec.pasted import Cleaned, clean_cell
from resnetcli.spec.phrase import Phrase, PhraseError, text_of

_SIZE_COLUMN = re.compile(r"\s*(?:[0-9]+\s*[x×X]\s*[0-9]+(?:\s*[x×X]\s*[0-9]+)?|[A-Za-z]\w*)?\s*")
_ROW_END = re.compile(r"[;\n]|\]\s*,?\s*\[")
_BRACKETS = re.compile(
    r"(?:\[\s*)*\[([^\[\]]*(?:\]\s*[,;\n]?\s*\[[^\[\]]*)*)\](?:\s*\])*\s*(?:[×xX*]\s*([A-Za-z0-9_]+))?"
)
_ROUND = re.compile(r"\(([^()]*,[^()]*)\)")


@lru_cache(maxsize=4096)
def parse_cell(text: str) -> tuple[Phrase, ...]:
    """The layers of one cell. Raises PhraseError; for brackets, columns and semicolons its hint is what to write."""
    try:
        return parse_layers(text)
    except SeveralCellsError:
        raise _explained(text, clean_cell(text)) from None


def _explained(text: str, cell: Cleaned) -> PhraseError:
    """The error for brackets, columns or semicolons, with the possible meanings."""
    sign = FOREIGN.search(cell.text)
    assert sign is not None  # SeveralCellsError was raised for it
    start, length = cell.span(sign.start(), sign.start() + 1)
    if sign.group() == "|" and "[" not in cell.text:
        columns = [column for column in cell.text.split("|") if not _SIZE_COLUMN.fullmatch(column)]
        hint = "omit the other columns"
        with suppress(PhraseError, IndexError):
            hint = f"omit the size: `{', '.join(map(text_of, parse_layers(columns[-1].strip())))}`"
        return PhraseError("`|` separates table columns; write one cell", start, length, hint)
    if sign.group() == ";" and not re.search(r"[\[(]", cell.text):
        hint = "write layers as a list: `[3x3 64, 3x3 64]`"
        with suppress(PhraseError):
            rows = [text_of(phrase) for row in cell.text.split(";") if row.strip() for phrase in parse_layers(row)]
            hint = f"write layers as a list: `[{', '.join(rows)}]`"
        return PhraseError("`;` does not separate layers", start, length, hint)
    message, hint = bracket_problem(text, outer=True)
    return PhraseError(message, 0, len(text), hint)


def bracket_problem(text: str, *, outer: bool) -> tuple[str, str]:
    """Message and hint for a cell with a paper's brackets; the hint has both texts that it may mean.

    In ResNet's tables a bracket is a residual block, in others a plain sequence or a concatenation.
    `outer`: whether the text in the hint needs brackets around it, as after a key but not after `-`.
    """
    cell = _ROUND.sub(r"[\1]", clean_cell(text).text)
    message = "a bracket is ambiguous: a residual block or a plain sequence"
    generic = "`residual x 2: [3x3 64, 3x3 64]` has shortcuts, `seq x 2: [3x3 64, 3x3 64]` has none"
    texts: dict[str, list[str]] = {"residual": [], "seq": []}
    place = 0
    try:
        for match in [*_BRACKETS.finditer(cell), None]:
            between = cell[place : match.start() if match else len(cell)]
            for part in re.split(r"[;\n|]", between):
                part = part.strip(" \t\r,")
                if FOREIGN.search(part):
                    return message, generic
                if part and not _SIZE_COLUMN.fullmatch(part):
                    for layers_text in texts.values():
                        layers_text.extend(map(text_of, parse_layers(part)))
            if match is None:
                break
            rows = [row.strip(" \t\r,") for row in _ROW_END.split(match[1])]
            layers = [phrase for row in rows if row for phrase in parse_layers(row)]
            if any(phrase.head == "call" and not phrase.words[0].text[0].isalpha() for phrase in layers):
                return message, generic
            body = ", ".join(map(text_of, layers))
            times = f" x {match[2]}" if match[2] else ""
            for head, layers_text in texts.items():
                layers_text.append(f"{head}{times}: [{body}]")
            place = match.end()
    except PhraseError:
        return message, generic
    if not any(layers_text.startswith("residual") for layers_text in texts["residual"]):
        return message, generic
    joined = {head: ", ".join(layers_text) for head, layers_text in texts.items()}
    several = outer or len(texts["seq"]) > 1
    shown = {head: f"[{layers_text}]" if several else layers_text for head, layers_text in joined.items()}
    return message, f"with shortcuts: `{shown['residual']}`; without: `{shown['seq']}`"
