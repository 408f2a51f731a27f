"""Parse a reference to a model: a spec, a library's model, a class in a file or module, a saved program."""

from __future__ import annotations

import os
import re
from typing import Literal, NamedTuple

SUFFIXES = (".yaml", ".yml")
"""Suffixes of a spec's file."""
_PYTORCH = re.compile(
    r"(?P<library>torchvision|timm):(?P<model>.*)"
    r"|(?P<file>.+\.py)(?::(?P<cls>[^:/\\]*))?"
    r"|(?P<archive>.+\.(?:pt|pth|pt2))"
    r"|(?P<module>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+):(?P<name>[A-Za-z_][\w.]*)",
    re.DOTALL,
)


class Origin(NamedTuple):
    """Source of a model."""

    kind: Literal["spec", "library", "file", "module", "archive", "object"]
    """`object`: a module passed as a Python object, which cannot be constructed again."""
    source: str = ""
    """The spec's name or path, the library, the file, the dotted module name; empty for an object."""
    name: str = ""
    """The model in the library; the class, function or object in the file or module."""

    @property
    def is_pytorch(self) -> bool:
        """Whether it is a PyTorch model, without a spec."""
        return self.kind != "spec"

    @property
    def runs_code(self) -> bool:
        """Whether counting it runs the user's code: a file, a module or an archive."""
        return self.kind in ("file", "module", "archive")


UNNAMED = Origin("object")


def origin_of(reference: str) -> Origin:
    """Parse a reference: `torchvision:resnet50`, `net.py:Net`, `package.net:Net`, `model.pt`; any other is a spec.

    Only for what the user typed: a PyTorch model's reference may run a file, which a spec must not do.
    """
    match = None if reference.endswith(SUFFIXES) else _PYTORCH.fullmatch(reference)
    if match is None or (match["module"] or "").endswith(SUFFIXES):
        return Origin("spec", reference)
    if match["library"]:
        return Origin("library", match["library"], match["model"])
    if match["file"]:
        return Origin("file", match["file"], match["cls"] or "")
    if match["archive"]:
        return Origin("archive", match["archive"])
    return Origin("module", match["module"], match["name"])


def is_path(reference: str) -> bool:
    """Whether a reference is a path rather than a name in the zoo."""
    return reference.endswith(SUFFIXES) or "/" in reference or os.sep in reference


def is_wild(reference: str) -> bool:
    """Whether a reference is a pattern: `resnext*`."""
    return any(char in reference for char in "*?[") and not is_path(reference)
