"""Counted figures: the columns of models (`COUNTS`) and of their stages, blocks and layers (`PART_COUNTS`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from resnetcli.table.fields import Field
from resnetcli.table.numbers import short

if TYPE_CHECKING:
    from resnetcli.counting.tally import Convention
    from resnetcli.reports.profile import Part, Profile
    from resnetcli.table.sheet import Value

R = TypeVar("R")
_ACTIVATIONS = "outputs of convolutions and fc"

COUNTS: list[Field[Profile]] = [
    Field("params", "params", lambda p: p.counts.params, short, priority=3, help="learnable parameters"),
    Field("macs", "MACs", lambda p: p.counts.macs, short, priority=2,
          help="multiply-accumulates of convolutions and fc, for one image"),
    Field("activations", "acts", lambda p: p.counts.activations, short, priority=7, legend=f"acts: {_ACTIVATIONS}"),
    Field("depth", "depth", lambda p: p.counts.depth, priority=8, help="weighted layers on the longest path"),
]  # fmt: skip
"""Of one image, at any batch size. `compare`, `profile --format json`, data frames and `--sort` have them."""

PART_COUNTS: list[Field[Part]] = [
    Field("params", "params", lambda part: part.cost.params, short, help="learnable parameters"),
    Field("macs", "MACs", lambda part: part.cost.macs, short,
          help="multiply-accumulates of convolutions and fc, for one image"),
    Field("activations", "activations", lambda part: part.cost.activations, short, help=_ACTIVATIONS),
]  # fmt: skip
"""`profile` has them in its table and its JSON."""


def under_convention(fields: Iterable[Field[R]], convention: Convention, work: Callable[[R], Value]) -> list[Field[R]]:
    """The columns with the work counted under a convention in place of MACs."""
    key, head = convention.key, convention.label
    help = "" if key == "macs" else f"work as `--convention {convention.name}` counts it, for one image"
    return [
        replace(each, key=key, head=head, value=work, help=help or each.help) if each.key == "macs" else each
        for each in fields
    ]
