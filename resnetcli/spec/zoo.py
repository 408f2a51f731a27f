"""The zoo: a directory of specs, which is its only registry."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from pathlib import Path

from resnetcli.errors import Source, UsageError, any_of, did_you_mean, nearest, plural, typed
from resnetcli.files import similar_names
from resnetcli.spec.papers import Paper, read_papers
from resnetcli.spec.reference import SUFFIXES, is_path, is_wild, origin_of
from resnetcli.spec.source import Map, parse, read_source


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key in natural order: `resnet50` before `resnet101`."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)]


def _model_of(path: str) -> str:
    """The file itself; for a run directory of `train-cifar`, its model."""
    model = os.path.join(path, "model.yaml")  # noqa: PTH118 - pathlib's raise for a name too long to exist
    is_run = os.path.isfile(os.path.join(path, "config.json")) and os.path.isfile(model)  # noqa: PTH113, PTH118
    return model if is_run else path


def _code_at(reference: str) -> Iterator[str]:
    """References to files of code that exist once a suffix is added: `net.py:Net` for `net:Net`."""
    source, _, name = reference.partition(":")
    for file in (f"{source}.py", os.path.join(source, "__init__.py")):  # noqa: PTH118 - see `_model_of`
        if os.path.isfile(file):  # noqa: PTH113
            yield f"{file}:{name or 'NAME'}"


def _matching(names: Iterable[str], patterns: Iterable[str]) -> list[str]:
    import fnmatch

    globs = [p if any(c in p for c in "*?[") else f"*{p}*" for p in patterns]
    return [name for name in names if any(fnmatch.fnmatchcase(name, glob) for glob in globs)]


LIST = "see `resnet-cli list`"


class UnknownModelError(UsageError):
    """An unknown model name; the hint gives the nearest, also those of libraries with a command that takes them."""

    def __init__(self, reference: str, names: Iterable[str]) -> None:
        self.reference, self.names = reference, tuple(names)
        what = f"unknown model `{reference}`"
        if matches := _matching(self.names, [reference]) if is_wild(reference) else []:
            what = f"`{reference}` matches {plural(len(matches), 'model')}: one name is needed"
        elif is_wild(reference):
            what = f"no model matches `{reference}`"
        super().__init__(what, self._hint("resnet-cli profile "))

    def for_any_model(self) -> UsageError:
        """The same for commands that accept a library's model."""
        return UsageError(self.message, self._hint(""))

    def _hint(self, before: str) -> str:
        from resnetcli.spec.libraries import nearest_in_libraries  # only once something is wrong

        if is_wild(self.reference) and (matches := _matching(self.names, [self.reference])):
            some = any_of(sorted(matches, key=len)[:3])
            return f"did you mean {some}? `resnet-cli list {typed(self.reference)}` shows all"
        close = nearest(self.reference, self.names, loose=False)
        others = [] if close else nearest_in_libraries(self.reference)
        meant = [before + name for name in others] or close or nearest(self.reference, self.names)
        return f"did you mean {any_of(meant)}? `resnet-cli list` shows all" if meant else LIST


class Zoo:
    """The specs below one directory, one file each; parsed files are cached."""

    def __init__(self, root: Path | None = None) -> None:
        here = Path(__file__).resolve().parent.parent
        self.root = root or next((p for p in (here / "specs", here.parent / "specs") if p.is_dir()), here / "specs")
        self._parsed: dict[str, tuple[Source, Map]] = {}

    @cached_property
    def _folders(self) -> dict[str, Path]:
        """Name -> folder of its file, unordered."""
        return {
            file.removesuffix(".yaml"): folder
            for folder in self.root.glob("*/")
            for file in os.listdir(folder)  # noqa: PTH208 - faster than paths
            if file.endswith(".yaml")
        }

    @cached_property
    def files(self) -> dict[str, Path]:
        """Name -> file, by family and then in natural order."""
        names = sorted(self._folders, key=lambda name: (self.family(name), natural(name)))
        return {name: self._folders[name] / f"{name}.yaml" for name in names}

    def family(self, name: str) -> str:
        """The folder of a model; empty if it is not in the zoo."""
        return self._folders[name].name if name in self._folders else ""

    @cached_property
    def papers(self) -> Mapping[str, Paper]:
        """The papers of the models and their figures, oldest first."""
        path = self.root / "papers.yaml"
        return read_papers(path) if path.exists() else {}

    def paper(self, text: str) -> Paper | None:
        """The first paper that a `cite:` or `source:` names; None if it is not in the zoo."""
        found = {match.start(): paper for key, paper in self.papers.items()
                 if (match := re.search(rf"(?<![\w.]){re.escape(key)}(?![\w/])", text))}  # fmt: skip
        return found[min(found)] if found else None

    def find(self, reference: str, base: Path | None = None) -> Path:
        """The file of a model: a name in the zoo, or a path (relative to `base`, for `extends:`), or a run's directory.

        Raises UsageError for an unknown name, with the nearest known ones.
        """
        if origin_of(reference).is_pytorch:
            raise UsageError(f"`{reference}` is a PyTorch model, not a spec", "`profile` and `compare` take it")
        if is_path(reference):
            path = base / reference if base is not None else Path(_model_of(reference))
            if os.path.exists(path):  # noqa: PTH110 - Path's raises for a name too long to exist
                return path
            if path.stem in self._folders:
                raise UsageError(f"no such file: `{reference}`", f"for the model in the zoo, write `{path.stem}`")
            if base is not None and (close := [name for name in similar_names(path) if name != path.name]):
                near = [str(Path(reference).with_name(name)) for name in close]
                raise UsageError(f"no such file: `{reference}`", f"did you mean {any_of(near)}?")
            return path
        if reference in self._folders:
            return self._folders[reference] / f"{reference}.yaml"
        for file in _code_at(reference) if base is None else ():
            raise UsageError(
                f"unknown model `{reference}`", hint=f"for a class or function in the file, write `{file}`"
            )
        for file in (reference, *(reference + suffix for suffix in SUFFIXES)) if base is None else ():
            if os.path.exists(file):  # noqa: PTH110 - Path's raises for a name too long to exist
                raise UsageError(f"unknown model `{reference}`", hint=f"for the file, write `./{file}`")
        if base is not None:
            raise UsageError(f"unknown model `{reference}`", did_you_mean(reference, self.files, LIST))
        raise UnknownModelError(reference, self.files)

    def parsed(self, path: Path, label: str | None = None) -> tuple[Source, Map]:
        """The parsed file. Raises UsageError or SpecError, as `read_source` and `parse` do."""
        key = str(path)
        if key not in self._parsed:
            source = read_source(path, label)
            self._parsed[key] = source, parse(source)
        return self._parsed[key]

    def matching(self, patterns: Iterable[str]) -> list[str]:
        """Names that match any of the globs, in the zoo's order; a plain word matches names that contain it."""
        return _matching(self.files, patterns)
