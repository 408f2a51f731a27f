"""Recipes as YAML: read, with every problem at its place; written; and found by name or by a model's paper."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnetcli.data.dataset import TITLES
from resnetcli.errors import At, Problems, Source, UsageError, clean, did_you_mean, plural
from resnetcli.recipes.recipe import SETTINGS, TEXTS, Augmentation, Recipe
from resnetcli.recipes.schedule import USES, Schedule, Warmup
from resnetcli.recipes.schema import read_fields
from resnetcli.spec.header import Header
from resnetcli.spec.reference import is_path
from resnetcli.spec.source import Map, Node, Text, parse, read_source

if TYPE_CHECKING:
    from resnetcli.spec.spec import Spec

FOLDER = Path(__file__).resolve().parent


def recipe_names() -> list[str]:
    """The built-in recipes."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(reference: str | Source) -> Recipe:
    """A recipe: a built-in one's name, a path to a YAML file, or a text.

    Raises UsageError for an unknown name or file, SpecError with every problem of the text.
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
    assert recipe is not None  # otherwise its problems have been raised
    return recipe


def default_recipe(spec: Spec) -> Recipe:
    """The built-in recipe of the paper that the model is from; by its name if it cites none of them, else `resnet`."""
    recipes = [recipe for recipe in map(read_recipe, recipe_names()) if recipe.source]
    of_paper = [recipe for recipe in recipes if recipe.paper_id.removeprefix("arXiv:") in spec.cite]
    names = (spec.name, *spec.extends)
    of_name = [recipe for recipe in recipes if any(recipe.name in name for name in names)]
    return next(iter([*of_paper, *of_name]), None) or read_recipe("resnet")


def _read(name: str, source: Source, problems: Problems) -> Recipe | None:
    root, start = parse(source), At(source, 1, 1, 1)
    values = read_fields(Recipe, root, problems, (*TEXTS, *SETTINGS), {"paper": _read_paper})
    for key, example in (("batch_size", "batch_size: 128"), ("schedule", "schedule: {kind: fixed, lr: 0.1}")):
        if root.get(key) is None:
            problems.add(f"`{key}:` is missing", start, f"for example `{example}`")
    lengths = [key for key, _ in root.pairs if key.value in ("iterations", "epochs")]
    if len(lengths) != 1:
        at = lengths[1].at if lengths else start
        problems.add("a recipe needs either `iterations:` or `epochs:`", at, "for example `iterations: 64000`")
    if problems.found:
        return None
    recipe = Recipe(**{"name": name, **values})
    most = recipe.iterations if recipe.epochs is None else recipe.epochs
    schedule, bn_batch = root.get("schedule"), root.get("bn_batch")
    if schedule is not None and recipe.schedule.at and recipe.schedule.at[-1] >= (most or 0):
        problems.add(f"the milestone {recipe.schedule.at[-1]:g} is not before the end of training", schedule.at,
                     f"training ends after {plural(most or 0, lengths[0].value.removesuffix('s'))}")  # fmt: skip
    if bn_batch is not None and recipe.bn_batch is not None and recipe.batch_size % recipe.bn_batch:
        problems.add(f"a batch of {recipe.batch_size} does not split into groups of {recipe.bn_batch}", bn_batch.at,
                     "choose a `bn_batch` that divides `batch_size`")  # fmt: skip
    return recipe


def _read_paper(key: Text, node: Node, problems: Problems) -> dict[str, Any]:
    if not isinstance(node, Map):
        problems.add("`paper` must be a mapping of settings", node.at, "for example `paper: {batch_size: 128}`")
        return {}
    return read_fields(Recipe, node, problems, SETTINGS, {"datasets": _read_datasets})


def _read_datasets(key: Text, node: Node, problems: Problems) -> tuple[str, ...]:
    names = Header(problems).texts(key, node)
    for name in names:
        if name not in TITLES:
            problems.add(
                f"unknown dataset `{name}`", node.at, did_you_mean(name, TITLES, f"known: {', '.join(TITLES)}")
            )
    return names


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
            return _flow({part: getattr(value, part) for part in ("kind", "lr", *USES[value.kind])})
        case Warmup() | Augmentation():
            pairs = {each.name: getattr(value, each.name) for each in fields(value)}
            return _flow({part: item for part, item in pairs.items() if item is not None})
        case tuple():
            return f"[{', '.join(_yaml('', item) for item in value)}]"
    return str(value)


def _flow(pairs: Mapping[str, Any]) -> str:
    return f"{{{', '.join(f'{name}: {_yaml(name, value)}' for name, value in pairs.items())}}}"


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
