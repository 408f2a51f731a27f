"""Training facts from a model's paper: its recipe and its published test errors; and the ResNet of a depth."""

from __future__ import annotations

from resnetcli.errors import UsageError
from resnetcli.recipes.recipe import Recipe
from resnetcli.recipes.text import default_recipe
from resnetcli.runs.config import PublishedError
from resnetcli.spec.read import read
from resnetcli.spec.spec import Spec
from resnetcli.spec.zoo import Zoo

TEST_SETS = {"cifar10": "CIFAR-10 test", "cifar100": "CIFAR-100 test"}


def depth_model(depth: int, zoo: Zoo) -> tuple[str, dict[str, int]]:
    """The CIFAR ResNet of He et al. with that depth: a spec of its own, which has published errors, or the family's.

    Raises UsageError unless the depth is 6n+2.
    """
    if depth < 8 or depth > 20_000 or depth % 6 != 2:
        below = max(8, (min(depth, 20_000) - 2) // 6 * 6 + 2)
        raise UsageError(f"He et al. have no CIFAR ResNet with {depth} layers: depth is 6n+2",
                         f"`--depth {below}` or `--depth {below + 6}`")  # fmt: skip
    name = f"cifar_resnet{depth}"
    if name in zoo.files and "cifar_resnet" in read(name, zoo=zoo).extends:
        return name, {}
    return "cifar_resnet", {"depth": depth}


def recipe_deviation(recipe: Recipe, spec: Spec) -> tuple[str, ...]:
    """A sentence if the recipe is not from the paper that publishes the model's errors."""
    usual = default_recipe(spec)
    return () if usual.paper_id in recipe.source else (f"recipe {recipe.name}; the paper: recipe {usual.name}",)


def published_errors(spec: Spec, data: str) -> tuple[PublishedError, ...]:
    """Published test errors of exactly this model on this dataset, preferring those of its own paper."""
    if spec.changed - {"classes"}:
        return ()
    entries = [entry for entry in spec.published
               if entry.figure.startswith("top1_error") and entry.dataset == TEST_SETS.get(data)]  # fmt: skip
    own = [entry for entry in entries if entry.source.split(":")[-1] in spec.cite]
    errors = [PublishedError(entry.figure, entry.printed, entry.dataset, entry.protocol, entry.source)
              for entry in own or entries]  # fmt: skip
    return tuple(dict.fromkeys(errors))
