"""Model names of installed libraries, read from their sources, as importing them would load torch."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

from resnetcli.errors import UsageError, did_you_mean, nearest

EXAMPLES = {"torchvision": "torchvision:resnet50", "timm": "timm:convnext_tiny"}
_REGISTERED = re.compile(r"^@register_model(?:\((?:name=)?\"?(\w*)\"?\))?\n(?:@.*\n)*def (\w+)\(", re.MULTILINE)


def require_name(library: str, name: str) -> None:
    """Raise UsageError, with the nearest names, for a model that no source file of an installed library defines."""
    text = _sources(library)
    if text and not (name and re.search(rf"\b{re.escape(name)}\b", text)):
        hint = did_you_mean(name, _names(text), f"for example `{EXAMPLES[library]}`", before=f"{library}:")
        raise UsageError(f"{library} has no model `{name}`", hint)


def nearest_in_libraries(word: str) -> list[str]:
    """For each installed library, the model whose name is or starts with `word`: `timm:resnet50`."""
    models = []
    for library in EXAMPLES:
        close = nearest(word, _names(_sources(library)), 9, loose=False)
        plain = [name for name in close if name.endswith("_100")]  # timm's suffix for a width of 100%
        models += [f"{library}:{name}" for name in (plain or close)[:1]]
    return models


@lru_cache(maxsize=2)
def _names(text: str) -> list[str]:
    return [match[1] or match[2] for match in _REGISTERED.finditer(text)]


@lru_cache(maxsize=2)
def _sources(library: str) -> str:
    """Text of the files that define a library's models; empty if it is not installed."""
    texts: list[str] = []
    with suppress(ImportError, OSError, ValueError):
        spec = find_spec(library)
        for folder in spec.submodule_search_locations or () if spec else ():
            for file in sorted(Path(folder, "models").rglob("*.py")):
                texts.append(file.read_text("utf-8", errors="replace"))
    return "\n".join(texts)
