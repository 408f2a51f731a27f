"""PyTorch models by reference: a class in a file or a module, a saved archive, a model of torchvision or timm."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from resnetcli.errors import At, Problem, Source, SpecError, UsageError, did_you_mean
from resnetcli.net.archive import open_archive
from resnetcli.net.guard import in_library, is_of_code, line_of, shown, undisturbed
from resnetcli.net.trace import Trace, first_to_run, said, weightless
from resnetcli.ops import Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.inputs import Inputs
from resnetcli.spec.zoo import ARCHIVES, is_dotted, module_reference

Make = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Foreign:
    """A net found by its reference, ready to be made."""

    title: str
    cite: str
    """The library and its version; empty for a file, which the reference names."""
    make: Callable[[], nn.Module]
    """Makes it, or gives the one there is. Raises UsageError."""
    file: str = ""
    """The user's, for errors; empty for a library's."""
    made: bool = False
    """Whether the file has made it already, so that it is there only once."""


def trace_reference(
    reference: tuple[str, str], parameters: Mapping[str, Any], input: Shape | Inputs, *, name: str
) -> tuple[Trace, str]:
    """A net's plan for one image, in evaluation, with values for its constructor; and the library it is from.

    The reference is `torchvision`, `timm`, a Python file or module, which is run, and a name in it; or an archive.
    Raises UsageError for a model that does not exist or fails, SpecError for a file that is not Python.
    """
    with undisturbed(_program(reference)), found(reference, parameters) as foreign:
        made: list[nn.Module] = []  # by the second attempt, for the third

        def without_weights() -> nn.Module:
            with torch.device("meta"):
                return weightless(foreign.make())

        def by_shape() -> nn.Module:
            made[:] = [foreign.make()]
            return weightless(made[0])

        def with_values() -> nn.Module:
            return made[0] if made else foreign.make()

        attempts = [by_shape, with_values] if foreign.made else [without_weights, by_shape, with_values]
        try:
            return first_to_run(attempts, input, name, foreign.title, foreign.file), foreign.cite
        finally:
            made.clear()  # what its finalizer prints is redirected, too


@contextmanager
def made_again(plan: Plan) -> Iterator[nn.Module]:
    """The net that a plan was seen of, made once more with all its weights, in evaluation: its file is run again.

    What the file imports from beside it is known to Python while this lasts: compilers look it up by name. Raises what
    `trace_reference` raises, and UsageError for a plan of a module in hand, which nothing leads back to.
    """
    reference = module_reference(plan.name)
    if reference is None:
        raise UsageError(f"`{plan.name}` was only counted: nothing says how to make it again",
                         "name it as `net.py:Net`, `torchvision:NAME` or `timm:NAME`")  # fmt: skip
    with ExitStack() as stack:
        with undisturbed(_program(reference)) as replaced:
            net = stack.enter_context(found(reference, plan.parameters)).make()
        if replaced:
            raise UsageError(
                f"`{plan.name}` cannot be timed: its code replaces {', '.join(f'`{each}`' for each in replaced[:4])}",
                "omit `--device` to count it, or give the replacement another name",
            )
        net.eval()  # whose value is not used: somebody's own `train` may give none
        yield net


def _program(reference: tuple[str, str]) -> str:
    """The code's `sys.argv[0]`."""
    return reference[0]


@contextmanager
def found(reference: tuple[str, str], parameters: Mapping[str, Any]) -> Iterator[Foreign]:
    """The net a reference names; a file's module is known to Python while it lasts."""
    source, name = reference
    if source == "torchvision":
        yield _torchvision(name, parameters)
    elif source == "timm":
        yield _timm(name, parameters)
    elif source.endswith(ARCHIVES):
        yield _in_archive(source, parameters)
    elif is_dotted(source):
        with importing(source) as module:
            yield _in_module(source, name, module, parameters, shown(module.__file__ or ""))
    else:
        with running(source) as module:
            yield _in_module(source, name, module, parameters, source)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise UsageError(f"{name} is not installed", f"`pip install {name}`") from None
        raise UsageError(f"{name} cannot be imported: {said(error)}", "was it built for the torch there is?") from None


def _torchvision(name: str, parameters: Mapping[str, Any]) -> Foreign:
    library = _library("torchvision")
    models = import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise UsageError(
            f"torchvision has no model `{name}`",
            did_you_mean(name, known, "for example `torchvision:resnet50`", before="torchvision:"),
        )
    chosen: dict[str, Any] = {"weights": None, **parameters}
    builder = models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:  # else those of a detector would be downloaded
        chosen["weights_backbone"] = None
    make = _making(name, builder, lambda **given: models.get_model(name, **given), chosen, parameters)
    return Foreign(name, f"torchvision {library.__version__}", make)


def _timm(name: str, parameters: Mapping[str, Any]) -> Foreign:
    library = _library("timm")
    if not library.is_model(name):  # names at a hub, which would be downloaded, among them
        hint = did_you_mean(name, library.list_models(), "for example `timm:convnext_tiny`", before="timm:")
        raise UsageError(f"timm has no model `{name}`", hint)
    chosen = {"pretrained": False, **parameters}
    builder = library.model_entrypoint(name.partition(".")[0])
    make = _making(name, builder, lambda **given: library.create_model(name, **given), chosen, parameters)
    return Foreign(name, f"timm {library.__version__}", make)


def _in_archive(file: str, parameters: Mapping[str, Any]) -> Foreign:
    if parameters:
        raise UsageError(f"`{file}` is a saved model: `{next(iter(parameters))}` cannot be set")
    return Foreign(Path(file).name, "", lambda: open_archive(file), file)


# --- making one --------------------------------------------------------------------------------------------------


def _making(
    title: str, signed: Make, build: Make, chosen: Mapping[str, Any], parameters: Mapping[str, Any], file: str = ""
) -> Callable[[], nn.Module]:
    """A function that constructs a model by calling `build`; errors are explained by the signature of `signed`."""

    def make() -> nn.Module:
        try:
            module = build(**_as_annotated(signed, chosen))
        except BaseException as error:
            if not is_of_code(error):
                raise
            line = f" ({line})" if (line := line_of(error, file)) else ""
            given = " ".join(f"{key}={value}" for key, value in parameters.items())
            raise UsageError(
                f"`{' '.join(filter(None, (title, given)))}` cannot be made: {said(error)}{line}",
                _what_it_takes(signed, error, parameters),
            ) from None
        if not isinstance(module, nn.Module):
            raise UsageError(f"`{title}` gives a {type(module).__name__}, not a torch.nn.Module")
        return module

    return make


def _parameters(build: Make) -> dict[str, inspect.Parameter]:
    """Parameters by name; of a class that forwards keywords, also those of its bases."""
    found: dict[str, inspect.Parameter] = {}
    makers: list[Any] = [build]
    if isinstance(build, type):
        makers += [base for base in build.__mro__ if "__init__" in vars(base) and base not in (nn.Module, object)]
    for maker in makers:
        try:
            parameters = inspect.signature(maker).parameters
        except (TypeError, ValueError):
            break
        found = {**{name: each for name, each in parameters.items() if each.kind not in _VARIADIC}, **found}
        if not any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
            break
    return found


_VARIADIC = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)


def _as_annotated(build: Make, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Convert an integer to text where the constructor expects text: `version=2`."""
    known = _parameters(build)

    def is_text(name: str) -> bool:
        each = known.get(name)
        return each is not None and (each.annotation in (str, "str") or isinstance(each.default, str))

    return {name: str(value) if type(value) is int and is_text(name) else value for name, value in chosen.items()}


def _what_it_takes(build: Make, error: BaseException, parameters: Mapping[str, Any]) -> str:
    """A hint for a failed call: its arguments, or those without a value."""
    if not isinstance(error, Exception):
        return ""
    text = str(error)
    known = _parameters(build)
    if isinstance(error, TypeError) and (
        match := re.search(r"([\w.]+)\(\) got an unexpected keyword argument '(\w+)'", text)
    ):
        owner, name = match[1].partition(".")[0], match[2]
        inner = getattr(sys.modules.get(getattr(build, "__module__", "")), owner, None)
        names = [*dict.fromkeys([*known, *(_parameters(inner) if callable(inner) else ())])]
        names = [each for each in names if each not in ("self", name)]
        if name in parameters:
            return did_you_mean(name, names, f"it takes {', '.join(map('`{}`'.format, names[:12]))}" if names else "")
    if isinstance(error, TypeError) and re.search(r"missing \d+ required .*argument", text):
        needed = [name for name in re.findall(r"'(\w+)'", text.rpartition(":")[2]) if name in known]
        if needed:
            return f"add the missing values after the model: `{' '.join(f'{name}=VALUE' for name in needed)}`"
    if known:
        return f"`NAME=VALUE` after the model sets {', '.join(map('`{}`'.format, [*known][:12]))}"
    return "its constructor takes no `NAME=VALUE`"


# --- a user's code -----------------------------------------------------------------------------------------------


@contextmanager
def running(file: str) -> Iterator[ModuleType]:
    """The module a Python file makes, run once; what is beside it can be imported meanwhile.

    A file in a package is imported as its module, `package.net`; any other runs under a generated name. Raises
    UsageError for a file that is missing or fails, SpecError for one that is not Python.
    """
    path = Path(file)
    try:
        text = path.read_bytes()
    except OSError as error:
        why = {FileNotFoundError: "no such file", IsADirectoryError: "is a directory"}.get(type(error), error.strerror)
        raise UsageError(f"{why}: `{file}`") from None
    root, packages = _package_of(path.resolve(), text)
    folders = [root, path.resolve().parent] if packages else [root]
    with _importable(folders):
        try:
            yield _module_of(path, text, file, packages)
        finally:
            sys.modules.pop(_own_name(path), None)


@contextmanager
def importing(name: str) -> Iterator[ModuleType]:
    """Import a module, from the current directory or installed. Raises UsageError if there is none or it fails."""
    with _importable([Path.cwd()]):
        try:
            module = import_module(name)
        except BaseException as error:
            if not is_of_code(error):
                raise
            if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
                hint = "run it from the folder that contains the package, or name the file: `path/net.py:Net`"
                raise UsageError(f"no module `{error.name}` in the current directory or installed", hint) from None
            raise _not_run(name, error) from None
        yield module


def _package_of(path: Path, text: bytes) -> tuple[Path, list[str]]:
    """The folder that a file's packages are in, and their names: by `__init__.py`, or as far as it imports upwards."""
    folder, packages = path.parent, list[str]()
    upwards = _levels(text)
    while folder.name.isidentifier() and ((folder / "__init__.py").is_file() or len(packages) < upwards):
        packages.insert(0, folder.name)
        folder = folder.parent
    return folder, packages


def _levels(text: bytes) -> int:
    """The most dots that an import in a file begins with."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return 0
    return max((node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)), default=0)


def _own_name(path: Path) -> str:
    return f"_resnetcli_run_{path.stem}"


def _module_of(path: Path, text: bytes, file: str, packages: list[str]) -> ModuleType:
    try:
        if packages and path.stem.isidentifier():
            inside = [] if path.stem == "__init__" else [path.stem]
            return import_module(".".join([*packages, *inside]))
        module = ModuleType(_own_name(path))
        module.__file__ = str(path)
        module.__package__ = ".".join(packages)
        if packages:
            import_module(module.__package__)
        sys.modules[module.__name__] = module  # dataclasses look there for what they are in
        exec(compile(text, file, "exec", dont_inherit=True), vars(module))
    except BaseException as error:
        if not is_of_code(error):
            raise
        raise _not_run(file, error) from None
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
    before, cached, search = {*sys.modules}, sys.dont_write_bytecode, list(sys.path)
    try:
        sys.dont_write_bytecode = True
        here = os.getcwd()  # noqa: PTH109 - sys.path has text
        sys.path[:0] = [str(folder) for folder in folders]
        if here not in sys.path and "" not in sys.path:
            sys.path.append(here)
        importlib.invalidate_caches()  # files may be new
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = search, cached
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
    """Where a module is from, resolved; a namespace package's first folder."""
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", None) or ()), "")
    return str(Path(place).resolve()) if isinstance(place, str) and place else ""


def _is_in(module: ModuleType | None, folders: Iterable[Path]) -> bool:
    place = _place(module)
    return bool(place) and any(Path(place).is_relative_to(folder) for folder in folders)


def _not_run(file: str, error: BaseException) -> Exception:
    if isinstance(error, SyntaxError) and error.filename and error.lineno and Path(error.filename).is_file():
        same = Path(error.filename).resolve() == Path(file).resolve()
        label = file if same else shown(str(Path(error.filename).resolve()))
        text = Path(error.filename).read_bytes().decode("utf-8", errors="replace")
        at = At(Source(label, text, label), error.lineno, max(1, error.offset or 1), 1)
        return SpecError((Problem(f"not Python: {error.msg}", at),))
    line = f" ({line})" if (line := line_of(error, file)) else ""
    return UsageError(f"`{file}` fails when it is run: {said(error)}{line}", _import_hint(file, error))


def _import_hint(file: str, error: BaseException) -> str:
    if not isinstance(error, ImportError) or not error.name:
        return "the file is run as a script without arguments" if isinstance(error, SystemExit) else ""
    top = error.name.partition(".")[0]
    folder = Path(file).resolve().parent
    if not isinstance(error, ModuleNotFoundError):
        beside = next((p for p in (folder / f"{top}.py", folder / top) if p.exists()), None)
        if beside and in_library(_place(sys.modules.get(top))):
            return f"rename {shown(str(beside))}: Python has its own module `{top}`"
        return ""
    for above in folder.parents:
        if (above / f"{top}.py").is_file() or (above / top).is_dir():
            return f"`{top}` is in {above}: set `PYTHONPATH={above}`"
    return f"`{top}` is neither installed for {sys.executable} nor beside the file"


def _in_module(source: str, name: str, module: ModuleType, parameters: Mapping[str, Any], file: str) -> Foreign:
    thing: Any = module
    parts = name.split(".")
    for index, part in enumerate(parts):
        thing, known = _member(thing, part, module)
        if known is not None:
            above = "".join(f"{each}." for each in parts[:index])
            known = [f"{above}{each}" for each in known] if above else known
            listed = f"it has {', '.join(f'`{each}`' for each in known)}" if known else "it has no net"
            raise UsageError(f"`{source}` has no `{name}`", did_you_mean(name, known, listed, before=f"{source}:"))
    title = name.rpartition(".")[2]
    if isinstance(thing, nn.Module):
        if parameters:
            raise UsageError(f"`{name}` in `{source}` is already constructed: `{next(iter(parameters))}` cannot be set")
        return Foreign(title, "", lambda: thing, file, made=True)
    if not callable(thing):
        hint = ""
        if isinstance(thing, Mapping | list | tuple) and (keys := _keys(thing)):
            hint = f"for example `{source}:{name}.{keys[0]}`"
        what = f"`{name}` in `{source}` is of type {type(thing).__name__}"
        raise UsageError(f"{what}, not a model or a function that makes one", hint)
    return Foreign(title, "", _making(title, thing, thing, parameters, parameters, file), file)


def _member(thing: Any, part: str, module: ModuleType) -> tuple[Any, list[str] | None]:
    """An attribute, or an item of a dict or list; else the available names."""
    if isinstance(thing, Mapping | list | tuple) and not isinstance(thing, nn.Module):
        if part in _keys(thing):
            items = thing if isinstance(thing, Mapping) else dict(enumerate(thing))
            return next(value for key, value in items.items() if str(key) == part), None
        return None, _keys(thing)
    if hasattr(thing, part):
        return getattr(thing, part), None
    return None, nets_in(module) if thing is module else []


def _keys(thing: Any) -> list[str]:
    return [str(key) for key in (thing if isinstance(thing, Mapping) else range(len(thing)))]


def nets_in(module: ModuleType) -> list[str]:
    """Names of what may be a net: modules, their classes and the functions that the file itself defines."""
    found = []
    for name, thing in vars(module).items():
        own = getattr(thing, "__module__", None) == module.__name__
        net = isinstance(thing, nn.Module) or (isinstance(thing, type) and issubclass(thing, nn.Module) and own)
        if not name.startswith("_") and (net or (inspect.isfunction(thing) and own)):
            found.append(name)
    return found


def nets_written_in(file: str) -> list[str]:
    """Names of the classes and functions in a file, which is only read; empty if it cannot be."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
