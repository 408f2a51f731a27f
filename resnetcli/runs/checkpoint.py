"""Checkpoints: tensors and a little JSON in one safetensors file, whole or not there, recognised when damaged.

Nothing in one is ever executed. Before a byte of a tensor is read, the header, which is bounded, has to name exactly
the tensors that the run expects, and the file has to be exactly as long as they are.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from resnetcli.errors import UsageError
from resnetcli.files import write_atomic
from resnetcli.runs.directory import MAX_ITERATIONS

FORMAT = "resnet-cli/checkpoint@1"
KEPT = 2
"""Checkpoints that a run keeps: one is left if the other turns out to be damaged."""
MAX_HEADER = 16 * 2**20
MAX_FACTS = 2**20
_NAME = re.compile(r"checkpoint-([0-9]{8,10})\.safetensors")
DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip
"""What safetensors calls them."""


class Damaged(Exception):  # noqa: N818 - what is wrong with the file
    """A file that is not the checkpoint it should be; the message says why."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a run goes on from."""

    iteration: int
    tensors: Mapping[str, Tensor]
    facts: Mapping[str, Any]
    """What was kept beside the tensors: the configuration they belong to, the time taken so far."""


def save(folder: Path, iteration: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, then drops all but the last ones. Raises OSError, the old ones untouched, if it cannot."""
    from safetensors.torch import save as serialised

    held = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(facts, sort_keys=True)
    about = {"format": FORMAT, "iteration": str(iteration), "facts": text, "sha256": _digest(iteration, text, held)}
    path = folder / f"checkpoint-{iteration:08d}.safetensors"
    write_atomic(path, serialised(held, about))
    prune(folder, iteration)
    return path


def prune(folder: Path, iteration: int) -> None:
    """Drop all checkpoints but the last ones up to an iteration, as far as that is possible."""
    sound = [old for at, old in files(folder) if at <= iteration][:KEPT]
    for _, old in files(folder):
        if old not in sound:  # a later one was damaged, so that the run went on from before it
            with suppress(OSError):
                old.unlink()


def files(folder: Path) -> list[tuple[int, Path]]:
    """A run's checkpoints by their iteration, the newest first."""
    found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    return sorted(found, reverse=True)


def load(path: Path, expected: Mapping[str, Tensor]) -> Checkpoint:
    """A checkpoint whose tensors are named, shaped and typed as `expected` ones are.

    Raises Damaged for every other file, before anything is allocated for it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as deserialised

    try:
        if not path.is_file():  # reading a pipe might never end
            raise Damaged("it is no regular file")
        with path.open("rb") as file:
            about = _header(file, path.stat().st_size, expected)
            file.seek(0)
            tensors = deserialised(file.read(path.stat().st_size))
    except (OSError, SafetensorError) as error:
        raise Damaged(f"it cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not re.fullmatch("[0-9]{1,10}", about["iteration"]):
        raise Damaged("it does not say of which iteration it is")
    iteration, text = int(about["iteration"]), about["facts"]
    try:
        if _digest(iteration, text, tensors) != about["sha256"]:
            raise Damaged("its content is not what was written")
        facts = json.loads(text)
    except (KeyError, ValueError, RecursionError):  # a digest that is right does not say who has made it
        raise Damaged("what is said beside its tensors is not what a run writes") from None
    named = _NAME.fullmatch(path.name)
    if iteration > MAX_ITERATIONS or not isinstance(facts, dict) or (named and int(named[1]) != iteration):
        raise Damaged("it is of another iteration than its name says")
    return Checkpoint(iteration, tensors, facts)


def newest(folder: Path, expected: Mapping[str, Tensor], warn: Callable[[str], object]) -> Checkpoint:
    """The newest checkpoint that is sound; `warn` is told of those that are not.

    Raises UsageError if there is none: to start over silently would hide that all of them are damaged.
    """
    found = files(folder)
    for place, (_, path) in enumerate(found):
        try:
            return load(path, expected)
        except Damaged as reason:
            then = "the one before is used" if place < len(found) - 1 else "there is none before it"
            warn(f"warning: `{path}` is damaged: {reason}; {then}")
    raise UsageError(f"no checkpoint of `{folder}` can be used", "train anew with `--out` elsewhere")


def _digest(iteration: int, facts: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over everything in a checkpoint: the facts, and each tensor's name, type, shape and bytes."""
    found = hashlib.sha256(json.dumps([FORMAT, iteration, facts]).encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        found.update(json.dumps([name, DTYPES[tensor.dtype], list(tensor.shape)]).encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _header(file: IO[bytes], size: int, expected: Mapping[str, Tensor]) -> dict[str, str]:
    """What is said beside the tensors. Raises Damaged unless the file has the expected tensors and nothing else."""
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(MAX_HEADER, size - 8):
        raise Damaged("it is cut short, or no safetensors file")
    try:
        header = json.loads(file.read(length))
    except (ValueError, RecursionError):
        raise Damaged("its header is not JSON") from None
    about = header.pop("__metadata__", None) if isinstance(header, dict) else None
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise Damaged("it was not written by a run")
    if not all(isinstance(about.get(key), str) for key in ("iteration", "facts", "sha256")):
        raise Damaged("its header is not whole")
    if len(about["facts"]) > MAX_FACTS:
        raise Damaged("its header is too large")
    for problem in _unlike(header, expected):
        raise Damaged(problem)
    total = sum(tensor.numel() * tensor.element_size() for tensor in expected.values())
    if size != 8 + length + total:
        raise Damaged(f"it has {size:,} bytes, not {8 + length + total:,}")
    return about


def _unlike(header: Mapping[str, Any], expected: Mapping[str, Tensor]) -> Iterator[str]:
    for name in expected.keys() - header.keys():
        yield f"it has no `{name}`"
    for name, entry in header.items():
        if name not in expected:
            yield "it has a tensor that the net has not"
        elif not isinstance(entry, dict) or entry.get("shape") != list(expected[name].shape):
            yield f"its `{name}` has another shape"
        elif entry.get("dtype") != DTYPES[expected[name].dtype]:
            yield f"its `{name}` has another type"
