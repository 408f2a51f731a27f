"""Nets that are Python: a class in somebody's file, a model of torchvision or timm. A file is run to have them."""

from __future__ import annotations

import ast
import inspect
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
from resnetcli.net.trace import Trace, first_to_run, line_of, said, undisturbed, weightless
from resnetcli.ops import Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.zoo import module_reference

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
    reference: tuple[str, str], parameters: Mapping[str, int], input: Shape, *, name: str
) -> tuple[Trace, Foreign]:
    """A net's plan for one image, in evaluation, with whole numbers for its constructor.

    The reference is `torchvision` or `timm` or a Python file, which is run, and a name in it. Raises UsageError for
    what there is not, cannot be made or fails, SpecError for a file that is no Python.
    """
    with undisturbed(), found(reference, parameters) as foreign:
        made: list[nn.Module] = []  # by the second attempt, for the third

        def without_weights() -> nn.Module:
            with torch.device("meta"):
                return weightless(foreign.make())

        def by_shape() -> nn.Module:
            made.append(foreign.make())
            return weightless(made[0])

        def with_values() -> nn.Module:
            return made[0] if made else foreign.make()

        attempts = [by_shape, with_values] if foreign.made else [without_weights, by_shape, with_values]
        return first_to_run(attempts, input, name, foreign.title, foreign.file), foreign


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
        with undisturbed():
            net = stack.enter_context(found(reference, plan.parameters)).make()
        net.eval()  # whose value is not used: somebody's own `train` may give none
        yield net


@contextmanager
def found(reference: tuple[str, str], parameters: Mapping[str, int]) -> Iterator[Foreign]:
    """The net a reference names; a file's module is known to Python while it lasts."""
    source, name = reference
    if source == "torchvision":
        yield _torchvision(name, parameters)
    elif source == "timm":
        yield _timm(name, parameters)
    else:
        with running(source) as module:
            yield _in_file(source, name, module, parameters)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise UsageError(f"{name} is not installed", f"`pip install {name}`") from None
        raise UsageError(f"{name} cannot be imported: {said(error)}", "was it built for the torch there is?") from None


def _torchvision(name: str, parameters: Mapping[str, int]) -> Foreign:
    library = _library("torchvision")
    models = import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise UsageError(f"torchvision has no model `{name}`", did_you_mean(name, known, "for example `resnet50`"))
    chosen: dict[str, Any] = {"weights": None, **parameters}
    accepted = inspect.signature(models.get_model_builder(name)).parameters
    if "weights_backbone" in accepted:  # else those of a detector would be downloaded
        chosen["weights_backbone"] = None
    make = _making(name, lambda **given: models.get_model(name, **given), chosen, parameters)
    return Foreign(name, f"torchvision {library.__version__}", make)


def _timm(name: str, parameters: Mapping[str, int]) -> Foreign:
    library = _library("timm")
    if not library.is_model(name):  # names at a hub, which would be downloaded, among them
        hint = did_you_mean(name, library.list_models(), "for example `convnext_tiny`")
        raise UsageError(f"timm has no model `{name}`", hint)
    chosen = {"pretrained": False, **parameters}
    make = _making(name, lambda **given: library.create_model(name, **given), chosen, parameters)
    return Foreign(name, f"timm {library.__version__}", make)


def _making(
    title: str, build: Make, chosen: Mapping[str, Any], parameters: Mapping[str, int], file: str = ""
) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        try:
            module = build(**chosen)
        except (Exception, SystemExit) as error:
            line = f" ({line})" if (line := line_of(error, file)) else ""
            given = " ".join(f"{key}={value}" for key, value in parameters.items())
            hint = "its constructor gets the `name=value` behind the model, and nothing else"
            raise UsageError(
                f"`{' '.join(filter(None, (title, given)))}` cannot be made: {said(error)}{line}", hint
            ) from None
        if not isinstance(module, nn.Module):
            raise UsageError(f"`{title}` gives a {type(module).__name__}, not a torch.nn.Module")
        return module

    return make


# --- a user's file -----------------------------------------------------------------------------------------------


@contextmanager
def running(file: str) -> Iterator[ModuleType]:
    """The module a Python file makes, run once under a name of ours; what is beside it can be imported meanwhile.

    Raises UsageError for a file that there is not or that fails, SpecError for one that is no Python.
    """
    path = Path(file)
    try:
        text = path.read_bytes()
    except OSError as error:
        why = {FileNotFoundError: "no such file", IsADirectoryError: "is a directory"}.get(type(error), error.strerror)
        raise UsageError(f"{why}: `{file}`") from None
    before, cached, search = set(sys.modules), sys.dont_write_bytecode, list(sys.path)
    module = ModuleType(f"_resnetcli_run_{path.stem}")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module  # dataclasses look there for what they are in
    try:
        sys.dont_write_bytecode = True
        sys.path.insert(0, str(path.resolve().parent))
        try:
            exec(compile(text, file, "exec", dont_inherit=True), vars(module))
        except (Exception, SystemExit) as error:
            raise _not_run(file, text, error) from None
        finally:
            sys.path[:] = search
        yield module
    finally:
        sys.dont_write_bytecode = cached
        _forget(set(sys.modules) - before, path.resolve().parent)
        sys.modules.pop(module.__name__, None)


def _not_run(file: str, text: bytes, error: BaseException) -> Exception:
    if isinstance(error, SyntaxError) and error.filename == file and error.lineno:
        source = Source(file, text.decode("utf-8", errors="replace"), file)
        at = At(source, error.lineno, max(1, error.offset or 1), 1)
        return SpecError((Problem(f"not Python: {error.msg}", at),))
    line = f" ({line})" if (line := line_of(error, file)) else ""
    return UsageError(f"`{file}` fails when it is run: {said(error)}{line}")


def _forget(names: Iterable[str], folder: Path) -> None:
    """What a file imported from beside it, so that another's neighbours of the same names are not taken for them."""
    for name in names:
        place = getattr(sys.modules.get(name), "__file__", None)
        if place and Path(place).resolve().is_relative_to(folder) and "site-packages" not in Path(place).parts:
            del sys.modules[name]


def _in_file(file: str, name: str, module: ModuleType, parameters: Mapping[str, int]) -> Foreign:
    thing: Any = module
    for part in name.split("."):
        if not hasattr(thing, part):
            known = nets_in(module)
            listed = f"it has {', '.join(f'`{each}`' for each in known)}" if known else "it has no net"
            raise UsageError(f"`{file}` has no `{name}`", did_you_mean(name, known, listed))
        thing = getattr(thing, part)
    title = name.rpartition(".")[2]
    if isinstance(thing, nn.Module):
        if parameters:
            raise UsageError(f"`{name}` in `{file}` is made already: `{next(iter(parameters))}` cannot be set")
        return Foreign(title, "", lambda: thing, file, made=True)
    if not callable(thing):
        raise UsageError(f"`{name}` in `{file}` is of type {type(thing).__name__}, not a net or what makes one")
    return Foreign(title, "", _making(title, thing, parameters, parameters, file), file)


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
