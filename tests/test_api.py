"""The public names: imported when used, and declared to type checkers as they are found."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import resnetcli as rc


def test_type_checkers_see_every_public_name_in_the_module_it_is_imported_from() -> None:
    tree = ast.parse(Path(rc.__file__).read_text("utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    declared = {
        alias.asname: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom) and node.module != "typing"
        for alias in node.names
    }
    assert declared == {name: f"resnetcli.{module}" for name, module in rc._MODULES.items()}


def test_every_public_name_can_be_used_and_listed() -> None:
    for name in rc.__all__:
        assert getattr(rc, name) is not None
    assert dir(rc) == sorted(rc.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = rc.nothing
