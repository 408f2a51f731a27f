"""PyTorch models by reference: a class in a file or a module, a saved archive, a model of torchvision or timm."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from resnetcli.errors import UsageError, did_you_mean
from resnetcli.frozen import frozen
from resnetcli.net.archive import open_archive
from resnetcli.net.construct import constructor
from resnetcli.net.guard import isolate, model_error_text, relative_path
from resnetcli.net.imports import import_module_named, run_file
from resnetcli.net.meta_copy import meta_copy
from resnetcli.net.trace import first_to_run
from resnetcli.net.trace_plan import Trace
from resnetcli.ops import Shape
from resnetcli.plan.plan import Plan
from resnetcli.spec.inputs import Inputs
from resnetcli.spec.reference import Origin


@frozen
class Factory:
    """Constructs a model by reference."""

    title: str
    cite: str
    """The library and its version; empty for a file."""
    make: Callable[[], nn.Module]
    """Construct the model, or return the one that the file constructs. Raises UsageError."""
    file: str = ""
    """The user's file, for error messages; empty for a library's model."""
    shared: bool = False
    """Whether `make` returns the same object every time."""


def trace_origin(
    origin: Origin, parameters: Mapping[str, Any], input: Shape | Inputs, *, name: str
) -> tuple[Trace, str]:
    """Trace a model for one image, in evaluation; also return the library it is from, with its version.

    `parameters` go to its constructor. The file or module of `origin` is run. Raises UsageError for a model that does
    not exist or fails, SpecError for a file that is not Python.
    """
    with isolate(origin.source), locate(origin, parameters) as factory:
        constructed: list[nn.Module] = []  # by the second attempt, reused by the third

        def without_weights() -> nn.Module:
            with torch.device("meta"):
                return meta_copy(factory.make())

        def copy_of_constructed() -> nn.Module:
            constructed[:] = [factory.make()]
            return meta_copy(constructed[0])

        def with_values() -> nn.Module:
            return constructed[0] if constructed else factory.make()

        attempts = (
            [copy_of_constructed, with_values]
            if factory.shared
            else [without_weights, copy_of_constructed, with_values]
        )
        try:
            trace = first_to_run(attempts, input, name, factory.title, factory.file)
        finally:
            constructed.clear()  # now, while its finalizer's output is redirected
        given = dict(parameters)
        return Trace(replace(trace.plan, origin=origin, parameters=given, settings=given), trace.notes), factory.cite


@contextmanager
def rebuilt(plan: Plan) -> Iterator[nn.Module]:
    """Context manager: construct the traced model again, with weights, in evaluation mode. Its file runs again.

    Modules next to the file stay importable meanwhile: compilers look them up by name. Raises like `trace_origin`, and
    UsageError for the plan of a module object, which has no origin.
    """
    if plan.origin.kind == "object":
        raise UsageError(f"`{plan.name}` was only counted: it cannot be constructed again",
                         "pass it as `net.py:Net`, `torchvision:NAME` or `timm:NAME`")  # fmt: skip
    with ExitStack() as stack:
        with isolate(plan.origin.source) as replaced:
            model = stack.enter_context(locate(plan.origin, plan.parameters)).make()
        if replaced:
            raise UsageError(
                f"`{plan.name}` cannot be timed: its code replaces {', '.join(f'`{each}`' for each in replaced[:4])}",
                "omit `--device` to count it, or give the replacement another name",
            )
        model.eval()  # an overridden `eval` may return None
        yield model


@contextmanager
def locate(origin: Origin, parameters: Mapping[str, Any]) -> Iterator[Factory]:
    """Context manager: find the model that `origin` names. Modules next to its file are importable meanwhile."""
    match origin:
        case Origin("library", "torchvision", name):
            yield _torchvision(name, parameters)
        case Origin("library", _, name):
            yield _timm(name, parameters)
        case Origin("archive", file):
            yield _in_archive(file, parameters)
        case Origin("module", source, name):
            with import_module_named(source) as module:
                yield _in_module(source, name, module, parameters, relative_path(module.__file__ or ""))
        case Origin(_, file, name):
            with run_file(file) as module:
                yield _in_module(file, name, module, parameters, file)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            raise UsageError(f"{name} is not installed", f"`pip install {name}`") from None
        hint = f"{name} was probably built for a different PyTorch version"
        raise UsageError(f"{name} cannot be imported: {model_error_text(error)}", hint) from None


def _torchvision(name: str, parameters: Mapping[str, Any]) -> Factory:
    library = _library("torchvision")
    models = import_module("torchvision.models")
    known = models.list_models()
    if name not in known:
        raise UsageError(
            f"torchvision has no model `{name}`",
            did_you_mean(name, known, "for example `torchvision:resnet50`", before="torchvision:"),
        )
    values: dict[str, Any] = {"weights": None, **parameters}
    builder = models.get_model_builder(name)
    if "weights_backbone" in inspect.signature(builder).parameters:  # or the backbone's would be downloaded
        values["weights_backbone"] = None
    make = constructor(name, builder, lambda **given: models.get_model(name, **given), values, parameters)
    return Factory(name, f"torchvision {library.__version__}", make)


def _timm(name: str, parameters: Mapping[str, Any]) -> Factory:
    library = _library("timm")
    if not library.is_model(name):  # also False for names at a hub, which would be downloaded
        hint = did_you_mean(name, library.list_models(), "for example `timm:convnext_tiny`", before="timm:")
        raise UsageError(f"timm has no model `{name}`", hint)
    values = {"pretrained": False, **parameters}
    builder = library.model_entrypoint(name.partition(".")[0])
    make = constructor(name, builder, lambda **given: library.create_model(name, **given), values, parameters)
    return Factory(name, f"timm {library.__version__}", make)


def _in_archive(file: str, parameters: Mapping[str, Any]) -> Factory:
    for key, value in parameters.items():
        hint = f"omit `{key}={value}`, or give its class: `net.py:Net {key}={value}`"
        raise UsageError(f"`{file}` is a saved model: `{key}` cannot be set", hint)
    return Factory(Path(file).name, "", lambda: open_archive(file), file)


def _in_module(source: str, name: str, module: ModuleType, parameters: Mapping[str, Any], file: str) -> Factory:
    member: Any = module
    parts = name.split(".")
    for index, part in enumerate(parts):
        member, known = _member(member, part, module)
        if known is not None:
            above = "".join(f"{each}." for each in parts[:index])
            known = [f"{above}{each}" for each in known] if above else known
            listed = f"it has {', '.join(f'`{each}`' for each in known)}" if known else "it defines no model"
            raise UsageError(f"`{source}` has no `{name}`", did_you_mean(name, known, listed, before=f"{source}:"))
    title = name.rpartition(".")[2]
    if isinstance(member, nn.Module):
        for key, value in parameters.items():
            what = f"`{name}` in `{source}` is already constructed: `{key}` cannot be set"
            kind = type(member).__name__
            other = f", or give its class: `{source}:{kind} {key}={value}`" if hasattr(module, kind) else ""
            raise UsageError(what, f"omit `{key}={value}`{other}")
        return Factory(title, "", lambda: member, file, shared=True)
    if not callable(member):
        hint = ""
        if isinstance(member, Mapping | list | tuple) and (keys := _keys(member)):
            hint = f"for example `{source}:{name}.{keys[0]}`"
        what = f"`{name}` in `{source}` is of type {type(member).__name__}"
        raise UsageError(f"{what}, not a model or a function that returns one", hint)
    return Factory(title, "", constructor(title, member, member, parameters, parameters, file), file)


def _member(owner: Any, part: str, module: ModuleType) -> tuple[Any, list[str] | None]:
    """An attribute, or an item of a dict or list; None and the names that exist if there is none."""
    if isinstance(owner, Mapping | list | tuple) and not isinstance(owner, nn.Module):
        if part in _keys(owner):
            items = owner if isinstance(owner, Mapping) else dict(enumerate(owner))
            return next(value for key, value in items.items() if str(key) == part), None
        return None, _keys(owner)
    if hasattr(owner, part):
        return getattr(owner, part), None
    return None, models_in(module) if owner is module else []


def _keys(items: Any) -> list[str]:
    return [str(key) for key in (items if isinstance(items, Mapping) else range(len(items)))]


def models_in(module: ModuleType) -> list[str]:
    """Names that may be models: modules, and classes and functions that the file itself defines."""
    names = []
    for name, value in vars(module).items():
        own = getattr(value, "__module__", None) == module.__name__
        model = isinstance(value, nn.Module) or (isinstance(value, type) and issubclass(value, nn.Module) and own)
        if not name.startswith("_") and (model or (inspect.isfunction(value) and own)):
            names.append(name)
    return names


def models_defined_in(file: str) -> list[str]:
    """Names of the classes and functions in a file, without running it; empty if it cannot be parsed."""
    try:
        tree = ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
