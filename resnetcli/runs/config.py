"""The configuration of a run: everything its weights depend on, and how and where they were computed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Annotated, Any

from resnetcli.frozen import frozen
from resnetcli.structure import Bounds, Check, Count, Positive

MAX_ITERATIONS = 10**9
Amount = Annotated[int, Bounds(1, MAX_ITERATIONS)]


@frozen
class PublishedError:
    """A test error that a paper publishes for the model."""

    figure: str
    """`top1_error`, or `top1_error_mean5`."""
    value: str
    """As published: `6.43`."""
    dataset: str
    protocol: str
    """How the figure was obtained: `test-best5`."""
    source: str


def is_shallow(value: object, levels: int) -> bool:
    """Whether parsed JSON is nested at most `levels` deep: deeper values can exhaust the stack of recursive code."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inner is None or (levels > 0 and all(is_shallow(each, levels - 1) for each in inner))


def _is_recipe(value: Any) -> bool:
    return isinstance(value.get("name"), str) and is_shallow(value, 3)


@frozen
class Config:
    """Everything a run depends on. A resume must agree on the fields in `BOUND`; the others may change."""

    model: str
    """As given: a name in the zoo, or a path."""
    parameters: Mapping[str, int]
    title: str
    input: tuple[Positive, Positive, Positive]
    """(c, h, w)."""
    classes: Amount
    params: Amount
    spec: str
    """SHA-256 of `model.yaml`."""
    recipe: Annotated[Mapping[str, Any], Check(_is_recipe, "a recipe")]
    """Name and every setting."""
    data: str
    data_text: str
    """`CIFAR-10 (verified)`."""
    data_digest: str
    data_folder: str | None
    train_images: Amount
    """Used for training."""
    validation_images: Count
    """Held out from training."""
    test_images: Amount
    iterations: Amount
    batch_size: Amount
    seed: Count
    dtype: str
    channels_last: bool
    compile: bool
    cuda_graph: bool
    device: str
    device_name: str
    threads: Amount
    checkpoint_every: Amount
    eval_every: Amount
    deviations: tuple[str, ...]
    """Differences from the paper, one sentence each."""
    published: tuple[PublishedError, ...]
    versions: Mapping[str, str]
    deterministic: bool
    """Whether cuDNN uses deterministic algorithms, without autotuning."""
    processes: Amount
    """Data-parallel processes, each with `threads` threads or a GPU."""

    @property
    def bound(self) -> dict[str, Any]:
        """Everything the weights depend on, flat: `recipe.momentum`, `seed`. Runs that agree on it are the same run."""
        values = asdict(self)
        return dict(flat({name: values[name] for name in BOUND}))


BOUND = (
    "spec", "recipe", "data_digest", "iterations", "batch_size", "seed", "dtype", "channels_last", "compile",
    "cuda_graph", "deterministic",
)  # fmt: skip


def flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its path: `schedule.lr`."""
    for name, item in value.items():
        if isinstance(item, Mapping):
            yield from flat(item, f"{prefix}{name}.")
        else:
            yield prefix + name, list(item) if isinstance(item, tuple) else item


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Where two flat configurations disagree: `seed 0 -> 1`."""
    names = dict.fromkeys([*old, *new])
    return [f"{name} {_text(old, name)} -> {_text(new, name)}" for name in names if old.get(name) != new.get(name)]


def _text(values: Mapping[str, Any], name: str) -> str:
    text = json.dumps(values[name], ensure_ascii=False) if name in values else "unset"
    return text.strip('"')[:60]
