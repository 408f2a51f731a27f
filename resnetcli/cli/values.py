"""Normalise option values to their canonical spelling."""

from __future__ import annotations

import re
import sys

from resnetcli.errors import UsageError, clean, nearest
from resnetcli.quantities import parse_whole

DTYPES = {
    "float32": "fp32", "float": "fp32", "single": "fp32", "f32": "fp32", "float16": "fp16", "half": "fp16",
    "f16": "fp16", "bfloat16": "bf16", "bfloat": "bf16", "brain": "bf16", "tensorfloat32": "tf32",
    "tensorfloat-32": "tf32",
}  # fmt: skip
"""Other tools' names for dtypes."""
MODES = {
    "inference": "infer", "eval": "infer", "evaluation": "infer", "forward": "infer", "predict": "infer",
    "training": "train",
}  # fmt: skip


def dtype(text: str) -> str:
    """`fp32` for `float32`, `torch.float32`, `single`; unknown words as they are."""
    word = text.strip().lower().removeprefix("torch.")
    return DTYPES.get(word, word if word.isascii() else text)


def mode(text: str) -> str:
    """`infer` for `inference`, `eval`; unknown words as they are."""
    word = text.strip().lower()
    return MODES.get(word, word if word.isascii() else text)


def name(text: str) -> str:
    """A name in lower case."""
    return text.strip().lower()


def whole(value: str | int) -> int:
    """A whole number in ASCII digits."""
    number = parse_whole(str(value))
    if number is None:
        raise UsageError(f"`{clean(str(value), 80)}` is not a whole number", "use digits only, e.g. 8")
    return number


def real(value: str | float) -> float:
    """A number in ASCII digits."""
    if isinstance(value, str) and not re.fullmatch(r"\s*[+-]?([0-9]{1,18}\.?[0-9]{0,18}|\.[0-9]{1,18})\s*", value):
        raise UsageError(f"`{clean(value, 80)}` is not a number", "use digits and a point, e.g. 0.2")
    return float(value)


def input_size(text: str) -> str:
    """Validate an input size before any model is read; report that `1x3x224x224` is taken as one image."""
    from resnetcli.ops import Sides
    from resnetcli.spec.inputs import parse_input  # not needed for `--help`

    size = parse_input(text)
    if isinstance(size, tuple):
        return text
    if isinstance(size, Sides):
        return f"{size.h}x{size.w}"
    shown = f"{size.c}x{size.h}x{size.w}"
    if len(re.findall("[0-9]+", text)) == 4:
        print(f"note: --input {clean(text, 80)}: read as one image, {shown} (counts are per image)", file=sys.stderr)
    return shown


PARSERS = {
    "--dtype": dtype, "--mode": mode, "--input": input_size, "--device": name, "--convention": name,
    "--optimizer": name, "--data": name,
}  # fmt: skip
"""Option -> parser, for text values."""
OTHER_WORDS = {"markdown": "md", "text": "table", "txt": "table", "ascii": "table", "yaml": "json", "row": "stage",
               "operator": "layer", "op": "layer", "module": "block", "cifar": "cifar10"}  # fmt: skip
"""Synonyms of choices."""


def one_of(text: str, known: list[str]) -> str:
    """Match a known word, ignoring case. Raises UsageError for any other."""
    for word in known:
        if word.lower() == text.strip().lower():
            return word
    meant = nearest(OTHER_WORDS.get(text.strip().lower(), text), known, 1)
    listed = f"one of {', '.join(known)}"
    raise UsageError(f"unknown value `{clean(text, 80)}`", f"did you mean `{meant[0]}`? {listed}" if meant else listed)
