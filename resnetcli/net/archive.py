"""Saved models: TorchScript archives (`.pt`) and exported programs (`.pt2`). Nothing is unpickled that can run code."""

from __future__ import annotations

import json
import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from resnetcli.errors import UsageError, first_line
from resnetcli.files import missing_hint
from resnetcli.net.memory import physical_memory

SLACK = 2**28
"""Maximum number of bytes by which an archive's content may exceed the file's size."""
MAX_GRAPH = 2**28
"""Maximum number of bytes of an exported program's graph."""
_CHECKPOINT = (
    "pickles can run code and are not opened: name the class, `net.py:Net`, or save the model by"
    " `torch.jit.script(model).save('model.pt')`"
)
_CLASS = "give the class instead: `net.py:Net`"
_AGAIN = "save it again with this version of PyTorch, or give the class: `net.py:Net`"


def open_archive(file: str) -> nn.Module:
    """Load a saved model. Raises UsageError for a checkpoint, a pickled module and any other file."""
    try:
        size = Path(file).stat().st_size
        if not Path(file).is_file():
            raise UsageError(f"`{file}` is not a regular file", _CLASS)
        if not zipfile.is_zipfile(file):
            raise UsageError(f"`{file}` is not a TorchScript archive or an exported program", _CHECKPOINT)
        with zipfile.ZipFile(file) as archive:
            names = {info.filename.partition("/")[2]: info for info in archive.infolist()}
            total = sum(info.file_size for info in archive.infolist())
            if total > min(size + SLACK, physical_memory()):
                raise UsageError(f"`{file}` unpacks to {total:,} bytes from a file of {size:,}: too large", _CLASS)
            if "constants.pkl" in names and any(name.startswith("code/") for name in names):
                return _script(file)
            graphs = [info for name, info in names.items() if re.fullmatch(r"models/[^/]+\.json", name)]
            if len(graphs) != 1:
                raise UsageError(f"`{file}` holds weights or a pickled module, not a TorchScript program", _CHECKPOINT)
            if graphs[0].file_size > MAX_GRAPH:
                raise UsageError(
                    f"`{file}` has a graph of {graphs[0].file_size:,} bytes; at most {MAX_GRAPH:,}", _CLASS
                )
            _require_plain(file, json.loads(archive.read(graphs[0])))
    except (OSError, zipfile.BadZipFile, ValueError, RecursionError) as error:
        if isinstance(error, FileNotFoundError):
            raise UsageError(f"`{file}`: no such file", missing_hint(file)) from None
        raise UsageError(f"`{file}`: cannot be read ({error})", _AGAIN) from None
    return _exported(file)


def _script(file: str) -> nn.Module:
    try:
        with torch.device("cpu"):
            model: nn.Module = torch.jit.load(file, map_location="cpu")  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise UsageError(f"`{file}` cannot be loaded: {first_line(error)}", _AGAIN) from None
    return model


# --- exported programs -------------------------------------------------------------------------------------------

_TARGET = re.compile(
    r"#?torch\.ops\.(aten|prims|prim|higher_order|torchvision|quantized_decomposed)\.\w+(\.\w+)?"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_|pow)"
    r"|torch\.sym_\w+|math\.(ceil|floor|trunc|sqrt)|sym_\w+"
)
_SYMBOLS = re.compile(
    r"(?:[su]\d+|Symbol\('[a-z]+\d+'(?:, \w+=(?:True|False))*\)|\d+|Max|Min|Mod|FloorDiv|CleanDiv|CeilDiv"
    r"|PythonMod|TruncToInt|ToFloat|True|False|oo|int_oo|[-+*/(),<>=! ])*"
)


def _require_plain(file: str, graph: Any) -> None:
    """Raise UsageError for a graph that could run code: torch imports its targets and evaluates its expressions."""
    queue = [graph]
    while queue:
        value = queue.pop()
        if isinstance(value, list):
            queue += value
        if not isinstance(value, dict):
            continue
        queue += value.values()
        for key, text in value.items():
            if not isinstance(text, str):
                continue
            good = {"target": _TARGET, "expr_str": _SYMBOLS}.get(key)
            named = key in ("name", "as_name") and not re.fullmatch(r"[\w.]*", text)
            if named or (good and not good.fullmatch(text) and not ("arg" in value and re.fullmatch(r"[\w.]*", text))):
                raise UsageError(f"`{file}` is refused: `{text}` in it is not an operation of torch",
                                 "export it with torch's own operations, or name its class, `net.py:Net`")  # fmt: skip


def _exported(file: str) -> nn.Module:
    before = os.environ.get("TORCH_FORCE_WEIGHTS_ONLY_LOAD")
    os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = "1"  # it may contain pickles
    try:
        with torch.device("cpu"):
            model = torch.export.load(file).module()
    except Exception as error:
        raise UsageError(f"`{file}` cannot be loaded: {first_line(error)}", _AGAIN) from None
    finally:
        if before is None:
            del os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"]
        else:
            os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] = before
    for name in ("train", "eval"):  # torch's own methods raise
        setattr(model, name, lambda *_: model)
    return model
