"""A spec and those it extends -> one standalone text with the given parameters and input."""

from __future__ import annotations

from typing import Any

from resnetcli.errors import Problems, Source
from resnetcli.ops import Shape
from resnetcli.spec.lineage import KEYS, lineage, merge, open_document
from resnetcli.spec.source import Map, Node, Seq, Text
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo

ONLY_UNCHANGED = ("published", "expect")
"""Keys that are valid only with the spec's own parameters and input."""


def resolved(reference: str | Source, spec: Spec, *, zoo: Zoo) -> str:
    """Write `spec`, read from `reference`, as one text without `extends:`; settings become defaults.

    Reading it gives the same model. Raises UsageError and SpecError as `read` does.
    """
    import yaml

    problems = Problems()
    merged = merge(lineage(open_document(reference, zoo), zoo, problems), problems)
    problems.close()
    root: dict[str, Any] = {key: _plain(node) for key, (_, node) in merged.keys.items() if key != "extends"}
    root["name"] = spec.title
    root["input"] = _size(spec.input)
    root["classes"] = str(spec.parameters["classes"])
    root["let"] = {name: _plain(node) for name, (_, node) in merged.let.items()} | _numbers(spec)
    root["blocks"] = {key.value: _plain(body) for key, body in merged.blocks.values()}
    root["table"] = {name: _plain(body) for name, (_, body) in merged.table.items()}
    root["aux"] = {name: _plain(body) for name, (_, body) in merged.aux.items()}
    left_out = ONLY_UNCHANGED if spec.changed else ()
    ordered = {key: root[key] for key in KEYS if root.get(key) and key not in left_out}
    return yaml.safe_dump(ordered, sort_keys=False, allow_unicode=True, width=110)


def _numbers(spec: Spec) -> dict[str, str]:
    return {name: str(value) for name, value in spec.parameters.items() if name != "classes"}


def _size(shape: Shape) -> str:
    return f"{shape.c}x{shape.h}x{shape.w}"


def _plain(node: Node) -> Any:
    match node:
        case Text(value=value):
            return value
        case Seq(items=items):
            return [_plain(item) for item in items]
        case Map(pairs=pairs):
            return {key.value: _plain(value) for key, value in pairs}
