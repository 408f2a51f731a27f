"""A recipe from its YAML text, every problem at its place, and the text of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from resnetcli.errors import At, Problems, Source, UsageError, clean, did_you_mean, plural
from resnetcli.recipes.recipe import Augmentation, Recipe
from resnetcli.recipes.schedule import Schedule, Warmup
from resnetcli.recipes.schema import KEYS, SETTINGS, TEXTS, USES, values_of
from resnetcli.spec.reference import is_path
from resnetcli.spec.source import parse, read_source

FOLDER = Path(__file__).resolve().parent.parent / "recipes"


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(reference: str | Source) -> Recipe:
    """A recipe: a built-in one's name, a path to a YAML file, or a text.

    Raises UsageError for an unknown name or file, SpecError with every problem of what is written.
    """
    if isinstance(reference, Source):
        name, source = Path(reference.path or reference.label).stem or "recipe", reference
    elif is_path(reference):
        name, source = Path(reference).stem, read_source(Path(reference), reference)
    else:
        names = recipe_names()
        if reference not in names:
            hint = did_you_mean(reference, names, f"there are {', '.join(names)}; for a file, write `./{reference}`")
            raise UsageError(f"unknown recipe `{reference}`", hint)
        name, source = reference, read_source(FOLDER / f"{reference}.yaml", f"{reference}.yaml")
    problems = Problems()
    recipe = _read(clean(name), source, problems)
    problems.close()
    assert recipe is not None  # what keeps it from being made has been reported
    return recipe


def _read(name: str, source: Source, problems: Problems) -> Recipe | None:
    root, start = parse(source), At(source, 1, 1, 1)
    values = values_of(root, KEYS, problems)
    for key, example in (("batch_size", "batch_size: 128"), ("schedule", "schedule: {kind: fixed, lr: 0.1}")):
        if root.get(key) is None:
            problems.add(f"`{key}:` is missing", start, f"for example `{example}`")
    lengths = [key for key, _ in root.pairs if key.value in ("iterations", "epochs")]
    if len(lengths) != 1:
        at = lengths[1].at if lengths else start
        problems.add("a recipe says `iterations:` or `epochs:`, one of them", at, "for example `iterations: 64000`")
    if problems.found:
        return None
    recipe = Recipe(**{"name": name, **values})
    most = recipe.iterations if recipe.epochs is None else recipe.epochs
    schedule, bn_batch = root.get("schedule"), root.get("bn_batch")
    if schedule is not None and recipe.schedule.at and recipe.schedule.at[-1] >= (most or 0):
        problems.add(f"a step of the schedule is at {recipe.schedule.at[-1]:g}, where training is over", schedule.at,
                     f"it takes {plural(most or 0, lengths[0].value.removesuffix('s'))}")  # fmt: skip
    if bn_batch is not None and recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
        problems.add(f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch}", bn_batch.at,
                     "`bn_batch` divides `batch_size`")  # fmt: skip
    return recipe


# --- written out -----------------------------------------------------------------------------------------------------


def format_recipe(recipe: Recipe) -> str:
    """The recipe as a YAML text that `read_recipe` reads back as the same."""
    lines = [f"{key}: {_quoted(text)}" for key in TEXTS if (text := getattr(recipe, key))]
    lines += _lines({name: getattr(recipe, name) for name in SETTINGS}, "")
    if recipe.paper:
        lines += ["paper:", *_lines(recipe.paper, "  ")]
    return "\n".join(lines) + "\n"


def _lines(settings: Mapping[str, Any], indent: str) -> list[str]:
    lengths = ("iterations", "epochs")
    return [
        f"{indent}{name}: {_yaml(name, value)}"
        for name, value in settings.items()
        if not (name in lengths and value is None)
    ]


def _yaml(name: str, value: Any) -> str:
    match value:
        case None:
            return "none" if name == "warmup" else "all"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.17g}" if float(f"{value:.12g}") != value else f"{value:.12g}"
        case Schedule():
            kept = ("kind", "lr", *sorted(USES[value.kind]))
            return _flow({name: getattr(value, name) for name in kept})
        case Warmup() | Augmentation():
            pairs = {f.name: getattr(value, f.name) for f in fields(value)}
            return _flow({name: part for name, part in pairs.items() if part is not None})
        case tuple():
            return f"[{', '.join(_yaml('', part) for part in value)}]"
    return str(value)


def _flow(pairs: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {_yaml(name, value)}' for name, value in pairs.items())}}}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
