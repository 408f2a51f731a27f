"""Run a user's Python file or import a module, with its directory importable, and undo the imports afterwards."""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType

from resnetcli.errors import At, Problem, Source, SpecError, UsageError
from resnetcli.files import read_bounded
from resnetcli.net.guard import in_library, is_model_error, line_of, model_error_text, relative_path

MAX_CODE = 16 * 2**20
"""Maximum number of bytes of a Python file."""


@contextmanager
def run_file(file: str) -> Iterator[ModuleType]:
    """Context manager: run a Python file as a module; its directory is importable meanwhile.

    A file in a package is imported as a module of it, `package.net`; any other file runs under a generated name. Raises
    UsageError if the file is missing or fails, SpecError if it is not Python.
    """
    path = Path(file)
    text = read_bounded(path, MAX_CODE, label=file)
    root, packages = _package_of(path.resolve(), text)
    folders = [root, path.resolve().parent] if packages else [root]
    with _importable(folders):
        try:
            yield _module_of(path, text, file, packages)
        finally:
            sys.modules.pop(_generated_name(path), None)


@contextmanager
def import_module_named(name: str) -> Iterator[ModuleType]:
    """Context manager: import an installed module or one in the current directory. Raises UsageError if that fails."""
    with _importable([Path.cwd()]):
        try:
            module = import_module(name)
        except BaseException as error:
            if not is_model_error(error):
                raise
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                hint = "run it from the folder that contains the package, or name the file: `path/net.py:Net`"
                raise UsageError(f"no module `{error.name}` in the current directory or installed", hint) from None
            raise _run_error(name, error) from None
        yield module


def _package_of(path: Path, text: bytes) -> tuple[Path, list[str]]:
    """The folder that contains a file's packages, and their names: judged by `__init__.py` and by relative imports."""
    folder, packages = path.parent, list[str]()
    levels = _import_levels(text)
    while folder.name.isidentifier() and ((folder / "__init__.py").is_file() or len(packages) < levels):
        packages.insert(0, folder.name)
        folder = folder.parent
    return folder, packages


def _import_levels(text: bytes) -> int:
    """Maximum number of leading dots of the imports in a file."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    return max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)


def _generated_name(path: Path) -> str:
    return f"_resnetcli_run_{path.stem}"


def _module_of(path: Path, text: bytes, file: str, packages: list[str]) -> ModuleType:
    try:
        if packages and path.stem.isidentifier():
            inside = [] if path.stem == "__init__" else [path.stem]
            return import_module(".".join([*packages, *inside]))
        module = ModuleType(_generated_name(path))
        module.__file__ = str(path)
        module.__package__ = ".".join(packages)
        if packages:
            import_module(module.__package__)
        sys.modules[module.__name__] = module  # dataclasses look up their module there
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        if not is_model_error(error):
            raise
        raise _run_error(file, error) from None
    return module


@contextmanager
def _importable(folders: list[Path]) -> Iterator[None]:
    """Context manager: make modules in the folders importable, and undo it afterwards."""
    known = {name for folder in folders for name in _importable_names(folder)}
    hidden = {}
    for name, module in list(sys.modules.items()):
        top = name.partition(".")[0]
        if top in known and not _is_in(module, folders) and not in_library(_place(module)):
            hidden[name] = sys.modules.pop(name)  # another module of the same name
    before, cached, search_path = {*sys.modules}, sys.dont_write_bytecode, list(sys.path)
    try:
        sys.dont_write_bytecode = True
        here = os.getcwd()  # noqa: PTH109 - sys.path has text
        sys.path[:0] = [str(folder) for folder in folders]
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        importlib.invalidate_caches()  # files may be new
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = search_path, cached
        for name in {*sys.modules} - before:
            place = _place(sys.modules[name])
            if place and _is_in(sys.modules[name], [*folders, Path.cwd()]) and not in_library(place):
                del sys.modules[name]
        sys.modules.update(hidden)


def _importable_names(folder: Path) -> Iterator[str]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        name = entry.name.removesuffix(".py")
        if name.isidentifier() and (name != entry.name or entry.is_dir()):
            yield name


def _place(module: ModuleType | None) -> str:
    """Resolved path of a module; the first folder of a namespace package."""
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", None) or ()), "")
    return str(Path(place).resolve()) if isinstance(place, str) and place else ""


def _is_in(module: ModuleType | None, folders: Iterable[Path]) -> bool:
    place = _place(module)
    return bool(place) and any(Path(place).is_relative_to(folder) for folder in folders)


def _run_error(file: str, error: BaseException) -> Exception:
    if isinstance(error, SyntaxError) and error.filename and error.lineno and Path(error.filename).is_file():
        same = Path(error.filename).resolve() == Path(file).resolve()
        label = file if same else relative_path(str(Path(error.filename).resolve()))
        text = Path(error.filename).read_bytes().decode("utf-8", errors="replace")
        at = At(Source(label, text, label), error.lineno, max(1, error.offset or 1), 1)
        return SpecError((Problem(f"not Python: {error.msg}", at),))
    line = f" ({line})" if (line := line_of(error, file)) else ""
    return UsageError(f"`{file}` fails when it is run: {model_error_text(error)}{line}", _import_hint(file, error))


def _import_hint(file: str, error: BaseException) -> str:
    if not isinstance(error, ImportError) or not error.name:
        return "the file runs as a script without arguments" if isinstance(error, SystemExit) else ""
    top = error.name.partition(".")[0]
    folder = Path(file).resolve().parent
    if not isinstance(error, ModuleNotFoundError):
        beside = next((p for p in (folder / f"{top}.py", folder / top) if p.exists()), None)
        if beside and in_library(_place(sys.modules.get(top))):
            return f"rename {relative_path(str(beside))}: Python has its own module `{top}`"
        return ""
    for above in folder.parents:
        if (above / f"{top}.py").is_file() or (above / top).is_dir():
            return f"`{top}` is in {above}: set `PYTHONPATH={above}`"
    return f"`{top}` is neither installed for {sys.executable} nor beside the file"
