"""Conditions of data-parallel training: options, the split of the batch, and weights without gradients."""

from __future__ import annotations

from resnetcli.errors import UsageError
from resnetcli.plan.plan import Plan
from resnetcli.recipes.recipe import Recipe
from resnetcli.train.options import TrainOptions


def require_parallel(options: TrainOptions, world: int) -> None:
    """Raise UsageError for options that several processes do not support."""
    if options.cuda_graph:
        raise UsageError(f"`--cuda-graph` captures the step of one process, not of {world}", "omit it")
    if options.device is not None and options.device.startswith("cuda:") and options.device != "cuda:0":
        raise UsageError(
            f"`{options.device}` cannot be used with {world} processes: each uses its own GPU",
            "`--device cuda`; `CUDA_VISIBLE_DEVICES` selects GPUs",
        )


def split_batch(recipe: Recipe, world: int, *, new: bool) -> Recipe:
    """The recipe of a run; for a `new` one without `bn_batch`, with BatchNorm over a process's share of the batch.

    The setting is fixed for the whole run, which fewer processes can resume with the same groups. Raises UsageError if
    the batch cannot be split, or if a BatchNorm group is larger than a process's share.
    """
    share, rest = divmod(recipe.batch_size, world)
    if rest:
        raise UsageError(
            f"a batch of {recipe.batch_size} cannot be split over {world} processes",
            f"`--batch-size {max(1, share) * world}`, or another number of processes",
        )
    if recipe.bn_batch is None and new:
        return recipe.changed(bn_batch=share)
    group = recipe.bn_batch or recipe.batch_size
    if group > share:
        most = recipe.batch_size // group
        raise UsageError(
            f"BatchNorm is over {group} images, but each of {world} processes has {share} of a batch",
            f"`--bn-batch {share}`, or fewer processes" if new else f"resume with at most {most}",
        )
    return recipe


def has_unused_steps(plan: Plan) -> bool:
    """Whether the output does not depend on some steps, whose weights then get no gradients."""
    used = set(plan.outputs)
    for index in range(len(plan.steps) - 1, -1, -1):
        if index in used:
            used |= set(plan.steps[index].inputs)
    return not used.issuperset(range(len(plan.steps)))
